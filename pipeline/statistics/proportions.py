"""Exact intervals for shares: what is printed where all resamples agree and the bootstrap interval has no width."""

from collections.abc import Callable

from pipeline.statistics.intervals import Estimate

CLOPPER_PEARSON = "clopper-pearson"
"""What `printed` writes as `NAME_ci_method` where it had to replace the bootstrap interval."""


def exact_interval(share: float, trials: int, confidence: float) -> tuple[float, float]:
    """Return the exact interval of a share.

    Clopper and Pearson, Biometrika 1934;26:404-413. `share * trials` need not be whole: with clustered data the trials
    are an effective number (Korn and Graubard, Survey Methodology 1998;24:193-201).

    Parameters
    ----------
    share : float
        In [0, 1].
    trials : int
        Independent ones, at least 1; here patients, because the images of one patient are not independent.
    confidence : float
        Level, as 0.95.

    Returns
    -------
    tuple of float
        Low and high; the low is 0 where the share is 0, the high is 1 where it is 1. NaN without trials.
    """
    from scipy.stats import beta

    if not trials:
        return float("nan"), float("nan")
    tail, hits = (1 - confidence) / 2, share * trials
    low = float(beta.ppf(tail, hits, trials - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high


def exact_f1_interval(f1: float, trials: int, confidence: float) -> tuple[float, float]:
    """Return the exact interval of an F1 score, which is 2 J / (1 + J) with the share J = tp / (tp + fp + fn).

    The trials are the patients with an image that is positive or is called so; else as `exact_interval`.
    """
    low, high = exact_interval(f1 / (2 - f1), trials, confidence)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def printed(
    name: str,
    estimate: Estimate,
    trials: int,
    confidence: float,
    exact: Callable[[float, int, float], tuple[float, float]] = exact_interval,
) -> dict[str, float | str]:
    """Return a share for a JSON file as `Estimate.as_dict` does, but never with an interval that has no width.

    The bootstrap's has none where every resample gives the same value: the share is 0 or 1, or all its images are one
    patient's. Then `ci_low` and `ci_high` are those of `exact`, `NAME_ci_method` says so, and the percentile and BCa
    bounds stay as they are.
    """
    values: dict[str, float | str] = {**estimate.as_dict(name)}
    if estimate.ci_high - estimate.ci_low < 1e-12:
        low, high = exact(estimate.value, trials, confidence)
        values |= {f"{name}_ci_low": low, f"{name}_ci_high": high, f"{name}_ci_method": CLOPPER_PEARSON}
    return values
