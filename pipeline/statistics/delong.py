"""DeLong's interval and test: what most papers print, for tables with one image a patient.

DeLong, DeLong and Clarke-Pearson, Biometrics 1988;44:837-845; from midranks as in Sun and Xu, IEEE Signal Processing
Letters 2014;21:1389-1393. The variance treats images as independent, so it is too small where patients have several.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.statistics.intervals import Floats


@dataclass(frozen=True)
class DeLong:
    """The AUROCs of one finding by some models, shape (n_models,), and their covariance (n_models, n_models)."""

    auroc: Floats
    covariance: Floats

    def interval(self, k: int, confidence: float) -> tuple[float, float]:
        """Return the normal interval of model `k`, cut at 0 and 1; NaN without a variance."""
        from scipy.stats import norm

        half = float(norm.ppf((1 + confidence) / 2)) * float(np.sqrt(self.covariance[k, k]))
        low, high = np.clip(self.auroc[k] + np.array([-half, half]), 0, 1)
        return float(low), float(high)

    def p_value(self) -> float:
        """Return the two-sided p value of the first two models' difference; NaN if it has no variance."""
        from scipy.stats import norm

        contrast = np.array([1.0, -1.0])
        variance = float(contrast @ self.covariance[:2, :2] @ contrast)
        if variance <= 0:
            return float("nan")
        return float(2 * norm.sf(abs(self.auroc[0] - self.auroc[1]) / np.sqrt(variance)))


def delong(labels: NDArray[np.floating[Any]], *scores: NDArray[np.floating[Any]]) -> DeLong:
    """Return the AUROCs of one finding and their covariance.

    Parameters
    ----------
    labels : ndarray of shape (n_images,)
        1, 0, or NaN for images to leave out.
    *scores : ndarray of shape (n_images,)
        Of one model or of several on the same images.

    Returns
    -------
    DeLong
        NaN where a class has no image; the covariance also where it has only one.
    """
    positive, negative = (np.flatnonzero(labels == value) for value in (1, 0))
    m, n = len(positive), len(negative)
    if not m or not n:
        return DeLong(np.full(len(scores), np.nan), np.full((len(scores), len(scores)), np.nan))
    placements = [_placements(model[positive], model[negative]) for model in scores]
    of_positive, of_negative = (np.array([pair[side] for pair in placements]) for side in (0, 1))
    if min(m, n) < 2:
        covariance = np.full((len(scores), len(scores)), np.nan)
    else:
        covariance = np.atleast_2d(np.cov(of_positive)) / m + np.atleast_2d(np.cov(of_negative)) / n
    return DeLong(of_positive.mean(axis=1), covariance)


def _placements(positive: NDArray[Any], negative: NDArray[Any]) -> tuple[Floats, Floats]:
    """Return for each positive the share of negatives below it, for each negative that of positives above it."""
    from scipy.stats import rankdata

    m, n = len(positive), len(negative)
    together = rankdata(np.concatenate([positive, negative]))
    above = (together[:m] - rankdata(positive)) / n
    below = 1 - (together[m:] - rankdata(negative)) / m
    return above, below
