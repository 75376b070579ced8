"""How well a model did on labelled images: AUROC, sensitivity, specificity and calibration, with errors over patients.

AUROC by DeLong's placements, the others as means; variances over patients (Obuchowski, Biometrics 1997;53:567-578).
Images are weighted by the inverse of the share labelled among those with like outputs (Begg and Greenes, Biometrics
1983;39:207-215), because whose truth comes is no chance: films that were called are looked at again. That is right if,
among films with like outputs, whether a truth came does not depend on it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.monitoring.intervals import LEAST
from pipeline.monitoring.reference import Reference
from pipeline.monitoring.scores import BANDS
from pipeline.statistics.calibration import apply_all

Floats = NDArray[np.float64]
_HEAVIEST = 10.0  # weight of an image, in means; more would leave an estimate to a few films


@dataclass(frozen=True)
class Measured:
    """One measure of one finding on some images.

    Attributes
    ----------
    value, error : float
        NaN where it is undefined; standard error over patients.
    positive, negative : int
        Images that have the finding, and that do not.
    free : float
        Degrees of freedom of the error: one less than the effective number of images in the smaller class it rests on
        (Kish, Survey Sampling, 1965, section 11.7: the square of the sum of the weights over the sum of their squares),
        or of patients, if that is less.
    """

    value: float
    error: float
    positive: int
    negative: int
    free: float = 1.0


def measures(
    known: Reference,
    truth: NDArray[np.int8],
    probabilities: NDArray[Any],
    patients: NDArray[np.int64],
    weights: Floats,
    point: str,
) -> dict[str, Measured]:
    """Return every measure of every finding, and the mean AUROC; names as `accuracy/FINDING/auc`."""
    thresholds = known.thresholds(point)
    calibrated = np.full(probabilities.shape, np.nan)
    some = ~np.isnan(probabilities).any(axis=1)
    calibrated[some] = apply_all(known.calibration, list(known.findings), probabilities[some])
    found: dict[str, Measured] = {}
    parts: list[tuple[float, Floats]] = []
    for k, name in enumerate(known.findings):
        kept = (truth[:, k] >= 0) & some
        y, w, who = truth[kept, k], weights[kept, k], patients[kept]
        value, influence = auc_influence(y, probabilities[kept, k], w)
        of_class = [effective(w[y == kind], who[y == kind]) for kind in (1, 0)]
        found[f"accuracy/{name}/auc"] = _measured(value, influence, y, who, min(of_class))
        if not np.isnan(value):
            whole = np.zeros(len(truth))
            whole[kept] = influence
            parts.append((value, whole))
        called = (probabilities[kept, k] >= thresholds[k]).astype(np.float64)
        if np.isnan(thresholds[k]):
            called[:] = np.nan
        for measure, rows in (("sensitivity", y == 1), ("specificity", y == 0)):
            right = called if measure == "sensitivity" else 1 - called
            n = effective(w[rows], who[rows])
            share, influence = mean_influence(right, w * rows)
            middle = (share * n + 1) / (n + 2)  # Agresti and Coull 1998: all right is no proof of no error
            least = float(np.sqrt(middle * (1 - middle) / max(n, 1.0)))
            found[f"accuracy/{name}/{measure}"] = _measured(share, influence, y, who, n, least)
        chance = calibrated[kept, k]
        least = float(np.sqrt(((w / max(w.sum(), 1e-12)) ** 2 * chance * (1 - chance)).sum()))
        found[f"accuracy/{name}/calibration"] = _measured(*mean_influence(y - chance, w), y, who, min(of_class), least)
    if parts:
        mean = float(np.mean([value for value, _ in parts]))
        together = np.mean([influence for _, influence in parts], axis=0)
        ill = (truth == 1).any(axis=1)
        n = min(float(len(np.unique(patients[rows]))) for rows in (ill, ~ill) if rows.any())
        found["accuracy/mean/auc"] = _measured(mean, together, ill.astype(np.int8), patients, n)
    else:
        found["accuracy/mean/auc"] = Measured(float("nan"), float("nan"), 0, 0)
    return found


def auc_influence(y: NDArray[Any], scores: NDArray[Any], weights: Floats) -> tuple[float, Floats]:
    """Return a weighted AUROC and each image's influence on it (their squares sum to its variance).

    DeLong, DeLong and Clarke-Pearson, Biometrics 1988;44:837-845: placements, here with weights. NaN with fewer than
    `LEAST` images of a class.
    """
    positive, negative = y == 1, y == 0
    influence = np.zeros(len(y))
    if min(positive.sum(), negative.sum()) < LEAST:
        return float("nan"), influence
    wp, wn = weights[positive] / weights[positive].sum(), weights[negative] / weights[negative].sum()
    above = _placements(scores[positive], scores[negative], wn)
    below = 1 - _placements(scores[negative], scores[positive], wp)
    value = float(wp @ above)
    influence[positive], influence[negative] = wp * (above - value), wn * (below - value)
    return value, influence


def mean_influence(values: Floats, weights: Floats) -> tuple[float, Floats]:
    """Return a weighted mean and each image's influence; NaN with fewer than `LEAST` images of any weight."""
    if (weights > 0).sum() < LEAST or np.isnan(values).any():
        return float("nan"), np.zeros(len(values))
    share = weights / weights.sum()
    mean = float(share @ values)
    return mean, share * (values - mean)


def worse_p(before: Measured, now: Measured, name: str) -> float:
    """Return the p value of a measure having become worse (of calibration: having moved either way).

    Welch's t for a difference of two independent samples (Biometrika 1947;34:28-35): a measure that rests on a dozen
    positive images has a heavier tail than the normal distribution, and small levels are spent here.
    """
    from scipy.stats import t

    if np.isnan(before.value) or np.isnan(now.value):
        return float("nan")
    parts = before.error**2, now.error**2
    if not sum(parts) > 0:
        return float("nan")
    free = sum(parts) ** 2 / sum(part**2 / one.free for part, one in zip(parts, (before, now), strict=True))
    away = (now.value - before.value) / np.sqrt(sum(parts))
    return float(2 * t.sf(abs(away), free)) if name.endswith("calibration") else float(t.cdf(away, free))


def effective(weights: Floats, patients: NDArray[np.int64]) -> float:
    """Return the effective number of weighted images, at most that of their patients; 0 for none."""
    if not len(weights) or not weights.any():
        return 0.0
    return min(float(weights.sum() ** 2 / (weights**2).sum()), float(len(np.unique(patients))))


def label_weights(all_counts: Floats, labelled_counts: Floats, bands: NDArray[np.intp]) -> Floats:
    """Return each labelled image's weight: images over labelled images of its band of like outputs, mean 1.

    Parameters
    ----------
    all_counts, labelled_counts : ndarray of shape (n_findings, n_bands)
        Of all answered images, and of those whose truth came.
    bands : ndarray of shape (n, n_findings)
        The band of each labelled image; -1 for none.
    """
    share = np.where(labelled_counts > 0, all_counts / np.maximum(labelled_counts, 1), 0.0)
    weights = np.take_along_axis(share.T, np.maximum(bands, 0), axis=0)
    weights = weights / np.maximum(weights.mean(axis=0), 1e-9)
    return np.asarray(np.clip(weights, 1 / _HEAVIEST, _HEAVIEST))


def bands_of(ranks: Floats) -> NDArray[np.intp]:
    """Return the band of like outputs of ranks in [0, 1]; -1 for NaN."""
    found = np.minimum(np.nan_to_num(ranks) * BANDS, BANDS - 1).astype(np.intp)
    return np.where(np.isnan(ranks), -1, found)


def _placements(scores: NDArray[Any], others: NDArray[Any], weights: Floats) -> Floats:
    """Return for each score the weight of the others below it, ties counting one half."""
    order = np.argsort(others, kind="stable")
    total = np.append(0.0, np.cumsum(weights[order]))
    left, right = (np.searchsorted(others[order], scores, side) for side in ("left", "right"))
    return np.asarray((total[left] + total[right]) / 2)


def _measured(
    value: float, influence: Floats, y: NDArray[Any], patients: NDArray[np.int64], n: float, least: float = 0.0
) -> Measured:
    """Return a measure with its error over patients, at least `least`, and n - 1 degrees of freedom, at least 1."""
    _, who = np.unique(patients, return_inverse=True)
    m = int(who.max()) + 1 if len(who) else 0
    error = float("nan")
    if m > 1 and not np.isnan(value):
        sums = np.bincount(who, influence, minlength=m)
        error = max(least, float(np.sqrt((sums**2).sum() * m / (m - 1))))
    return Measured(value, error, int((y == 1).sum()), int((y == 0).sum()), max(1.0, n - 1))
