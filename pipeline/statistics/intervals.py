"""From the resamples of a score to its intervals: expanded percentile, percentile and BCa."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.statistics.student import expanded_levels

Floats = NDArray[np.float64]
Method = Literal["expanded", "percentile", "bca"]


@dataclass(frozen=True)
class Estimate:
    """A score, its intervals, and the number of resamples in which it is defined; all NaN if it is undefined."""

    value: float
    ci_low: float
    ci_high: float
    expanded_low: float
    expanded_high: float
    percentile_low: float
    percentile_high: float
    bca_low: float
    bca_high: float
    n_resamples: int

    def as_dict(self, name: str) -> dict[str, float]:
        """Return the value as `name`, its bounds as `ci_low` … for `auc`, else `NAME_ci_low` …; for a JSON file."""
        prefix = "" if name == "auc" else f"{name}_"
        bounds = [bound for bound in self.__dataclass_fields__ if bound != "value"]
        return {name: self.value} | {f"{prefix}{bound}": getattr(self, bound) for bound in bounds}


def estimate(value: float, draws: Floats, jackknife: Floats, confidence: float, interval: Method) -> Estimate:
    """Return a score with its three intervals; see `levels_of`.

    Resamples and groups in which the score is undefined are left out; `n_resamples` says how many are left.
    """
    usable = draws[~np.isnan(draws)]
    if np.isnan(value) or not len(usable):
        return undefined(value, 0 if np.isnan(value) else len(usable))
    bounds = {
        method: [float(q) for q in np.quantile(usable, levels_of(method, value, usable, jackknife, confidence))]
        for method in get_args(Method)
    }
    named = {f"{method}_{side}": bounds[method][k] for method in bounds for k, side in enumerate(("low", "high"))}
    low, high = bounds[interval]
    return Estimate(value=value, ci_low=low, ci_high=high, n_resamples=len(usable), **named)


def undefined(value: float, n_resamples: int) -> Estimate:
    """Return a score without bounds."""
    names = [name for name in Estimate.__dataclass_fields__ if name not in ("value", "n_resamples")]
    return Estimate(value=value, n_resamples=n_resamples, **dict.fromkeys(names, float("nan")))


def levels_of(method: Method, value: float, draws: Floats, jackknife: Floats, confidence: float) -> Floats:
    """Return the two quantiles of the draws that bound an interval.

    - expanded: percentiles as far out as Student's t is wider than the normal distribution (`student`).
    - percentile: Efron and Tibshirani 1993, section 13.3.
    - bca: bias-corrected and accelerated, section 14.3.

    Parameters
    ----------
    method : {'expanded', 'percentile', 'bca'}
        Which interval.
    value : float
        The score of the data.
    draws, jackknife : ndarray
        Of the resamples, none NaN; of the data without each group.
    confidence : float
        Level of the interval.
    """
    if method == "bca":
        return bca_levels(value, draws, jackknife, confidence)
    if method == "expanded":
        return expanded_levels(draws, jackknife, confidence)
    return np.array([(1 - confidence) / 2, (1 + confidence) / 2])


def bca_levels(value: float, draws: Floats, jackknife: Floats, confidence: float) -> Floats:
    """Return the two quantiles of the draws that bound the BCa interval.

    The bias correction counts ties as one half, so that a score that is equal in all resamples keeps its place. The
    acceleration is that of the jackknife over groups of patients (Efron and Tibshirani 1993, equations 14.14, 14.15).
    """
    from scipy.special import ndtr, ndtri

    below = ((draws < value).sum() + (draws == value).sum() / 2) / len(draws)
    bias = ndtri(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws)))
    known = jackknife[~np.isnan(jackknife)]
    away = known.mean() - known if len(known) else np.zeros(1)
    spread = float((away**2).sum()) ** 1.5
    acceleration = float((away**3).sum()) / (6 * spread) if spread > 0 else 0.0
    z = ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2])) + bias
    levels: Floats = ndtr(bias + z / np.maximum(1 - acceleration * z, 1e-6))
    return levels
