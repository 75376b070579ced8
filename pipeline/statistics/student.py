"""Student's t for resampled scores: standard error, degrees of freedom, wider percentiles, p values.

Percentiles of resamples and the normal distribution take the standard error as known. Where few patients decide,
because a finding is rare or a few patients have many images, it is not, and intervals from them are too short
(docs/statistics.md measures by how much).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.floating[Any]]


def error_and_freedom(draws: _Floats, jackknife: _Floats) -> tuple[float, float]:
    """Return a score's standard error and its degrees of freedom.

    The error is that of the resamples or that of the jackknife (Efron and Tibshirani 1993, equation 11.5), whichever
    is larger: the first is too small where few patients decide. The degrees of freedom are those of a variance of G
    values with kurtosis k, 2 G / (k - 1), which is G for normal values and far fewer where some patients weigh much
    (from Var(s^2) = sigma^4 (k - 1) / G, matched to a chi-squared variable as by Satterthwaite, Biometrics Bulletin
    1946;2:110-114).

    Parameters
    ----------
    draws : ndarray of shape (n_resamples,)
        The score of each resample; NaN is left out.
    jackknife : ndarray of shape (n_groups,)
        Of the data without each group of patients; NaN is left out.

    Returns
    -------
    error, freedom : float
        NaN, NaN where either has less than two values; infinite freedom where the jackknife does not vary.
    """
    usable, known = draws[~np.isnan(draws)], jackknife[~np.isnan(jackknife)]
    if len(usable) < 2 or len(known) < 2:
        return float("nan"), float("nan")
    squares = (known - known.mean()) ** 2
    total, n = float(squares.sum()), len(known)
    error = max(float(usable.std(ddof=1)), float(np.sqrt((n - 1) / n * total)))
    if total == 0:
        return error, float("inf")
    kurtosis = n * float((squares**2).sum()) / total**2
    return error, max(1.0, 2 * n / (kurtosis - 1)) if kurtosis > 1 else float(n)


def expanded_levels(draws: _Floats, jackknife: _Floats, confidence: float) -> NDArray[np.float64]:
    """Return the two quantiles of the resamples that bound the expanded percentile interval.

    The percentiles are taken as far out as Student's t is wider than the normal distribution (Hesterberg, American
    Statistician 2015;69:371-386, section 5.3), with the error and degrees of freedom of `error_and_freedom` for his
    sqrt(n / (n - 1)) and n - 1.
    """
    from scipy.special import ndtr, stdtrit

    error, freedom = error_and_freedom(draws, jackknife)
    tail = (1 - confidence) / 2
    spread = float(np.nanstd(draws, ddof=1)) if error > 0 else 0.0
    if not spread:
        return np.array([tail, 1 - tail])
    low = float(ndtr(stdtrit(min(freedom, 1e9), tail) * error / spread))
    return np.array([low, 1 - low])


def t_test(value: float, draws: _Floats, jackknife: _Floats) -> float:
    """Return the two-sided p value of a score against 0, NaN if it is undefined or equal in all resamples.

    Unlike a count of resamples beyond zero it can be smaller than 1 / n_resamples, which an adjustment for many
    comparisons needs.
    """
    from scipy.special import stdtr

    error, freedom = error_and_freedom(draws, jackknife)
    return float(2 * stdtr(min(freedom, 1e9), -abs(value) / error)) if error > 0 else float("nan")
