"""Two models on the same images: paired differences, p values that fit their intervals, Holm's correction.

Both models are scored on the same resamples of patients, so that what makes an image hard for both cancels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.statistics.bootstrap import Replicates, Resamples, replicate, stack
from pipeline.statistics.intervals import Floats, levels_of
from pipeline.statistics.probability import probability_statistic
from pipeline.statistics.ranks import rank_statistic

SCORES = ("auc", "average_precision", "brier")
"""What two models are compared by, in the order of the rows of `scores_of`."""

_LEAST_ALPHA = 1e-9


def scores_of(
    labels: NDArray[np.floating[Any]], probabilities: NDArray[np.floating[Any]], resamples: Resamples, bins: int
) -> Replicates:
    """Score one model; the difference of two such replicates is paired.

    Parameters
    ----------
    labels, probabilities : ndarray of shape (n_images, n_findings)
        1, 0 or NaN; in [0, 1].
    resamples : Resamples
        The same for both models.
    bins : int
        Of the calibration error, which is computed beside the Brier score and left aside here.

    Returns
    -------
    Replicates
        Rows AUROC, average precision, Brier score of the first finding, then of the second, and so on.
    """
    parts = []
    for k in range(labels.shape[1]):
        parts.append(replicate(rank_statistic(labels[:, k], probabilities[:, k], resamples), resamples))
        errors = probability_statistic(labels[:, k], probabilities[:, k], resamples, bins)
        parts.append(replicate(errors, resamples)[[0]])
    return stack(parts)


def mean_of(scores: Replicates, score: int, n_findings: int) -> Replicates:
    """Return one score's mean over the findings that have an AUROC, as in the tables of one model.

    Parameters
    ----------
    scores : Replicates
        What `scores_of` returned, or a difference of two.
    score : int
        Which of `SCORES`.
    n_findings : int
        How many findings there are.
    """
    defined = [k for k in range(n_findings) if not np.isnan(scores.point[k * len(SCORES)])]
    return scores.mean([k * len(SCORES) + score for k in defined])


def p_value(difference: Replicates, k: int = 0) -> float:
    """Return the two-sided p value of a difference: the least alpha whose 1 - alpha interval leaves out 0.

    That is the inversion of the interval which is printed beside it (Efron and Tibshirani 1993, section 15.4). For
    the percentile interval it is 2 min((#{d* <= 0} + 1) / (R + 1), (#{d* >= 0} + 1) / (R + 1)); the expanded and
    the BCa interval move these shares as they move their bounds. The data count as one resample more (Davison and
    Hinkley, Bootstrap Methods and their Application, 1997, section 4.2), and the p value is never below 2 / (R + 1),
    because R resamples cannot show less. So p < 0.05 and a 95% interval without 0 are the same, but for a bound
    within a resample or two of 0, where the p value is the more careful of the two.

    Returns
    -------
    float
        In (0, 1]; NaN where the difference is undefined.
    """
    from scipy.optimize import brentq

    value, draws = float(difference.point[k]), difference.draws[k]
    usable = draws[~np.isnan(draws)]
    if np.isnan(value) or not len(usable):
        return float("nan")
    below = ((usable <= 0).sum() + 1) / (len(usable) + 1)
    above = ((usable >= 0).sum() + 1) / (len(usable) + 1)
    least = min(1.0, 2 / (len(usable) + 1))
    if difference.interval == "percentile":
        return float(min(1.0, 2 * min(below, above)))

    def leaves_out(alpha: float) -> float:  # above 0 where the interval leaves out 0; rises with alpha
        low, high = levels_of(difference.interval, value, usable, difference.jackknife[k], 1 - alpha)
        return float(max(low - below, 1 - above - high))

    if leaves_out(1.0) <= 0:
        return 1.0
    if leaves_out(_LEAST_ALPHA) >= 0:
        return least
    return float(max(least, brentq(leaves_out, _LEAST_ALPHA, 1.0, xtol=1e-6)))


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """Return p values adjusted for their number by Holm's step-down rule (Scand. J. Statist. 1979;6:65-70).

    The chance of one false finding among all is at most the level, however the tests depend on each other. NaN stays
    NaN and is not counted as a test.
    """
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return adjusted
