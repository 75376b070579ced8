"""Patient-bootstrap intervals of the measures of one window of labelled images."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEAST = 8
"""Positive and negative images of a finding, or of the images that a measure rests on, in a window."""


def bootstrap(
    truth: NDArray[np.int8],
    probabilities: NDArray[Any],
    patients: NDArray[np.int64],
    weights: Floats,
    thresholds: Floats,
    findings: tuple[str, ...],
    resamples: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """Return 95 % percentile intervals by measure, whole patients drawn with replacement.

    Field and Welsh, J. R. Statist. Soc. B 2007;69:369-390. Measures that a window does not define are left out.

    Parameters
    ----------
    truth, probabilities, weights : ndarray of shape (n, n_findings)
        1, 0, -1; raw outputs; see `accuracy.label_weights`.
    patients : ndarray of shape (n,)
        Whose image it is.
    thresholds : ndarray of shape (n_findings,)
        Of the operating point.
    findings : tuple of str
        Names.
    resamples, seed : int
        How many, and from which generator.
    """
    _, who = np.unique(patients, return_inverse=True)
    m = int(who.max()) + 1
    draws = np.random.default_rng(seed).multinomial(m, np.full(m, 1 / m), size=resamples).T.astype(np.float64)[who]
    found: dict[str, tuple[float, float]] = {}
    areas = []
    for k, name in enumerate(findings):
        kept = (truth[:, k] >= 0) & ~np.isnan(probabilities[:, k])
        y, scores = truth[kept, k], probabilities[kept, k]
        w = draws[kept] * weights[kept, k, None]
        if min((y == 1).sum(), (y == 0).sum()) < LEAST:
            continue
        area = _auc(y, scores, w)
        areas.append(area)
        found[f"accuracy/{name}/auc"] = _ends(area)
        if not np.isnan(thresholds[k]):
            called = (scores >= thresholds[k])[:, None]
            for measure, rows, right in (("sensitivity", y == 1, called), ("specificity", y == 0, ~called)):
                part = w[rows]
                with np.errstate(invalid="ignore", divide="ignore"):
                    found[f"accuracy/{name}/{measure}"] = _ends((part * right[rows]).sum(axis=0) / part.sum(axis=0))
    if areas:
        found["accuracy/mean/auc"] = _ends(np.mean(areas, axis=0))
    return found


def _auc(y: NDArray[Any], scores: NDArray[Any], w: Floats) -> Floats:
    """Return the AUROC of each column of weights; ties count one half."""
    _, level = np.unique(scores, return_inverse=True)
    count = int(level.max()) + 1
    positive, negative = (np.zeros((count, w.shape[1])) for _ in range(2))
    np.add.at(positive, level[y == 1], w[y == 1])
    np.add.at(negative, level[y == 0], w[y == 0])
    below = np.cumsum(negative, axis=0) - negative / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((positive * below).sum(axis=0) / (positive.sum(axis=0) * negative.sum(axis=0)))


def _ends(values: Floats) -> tuple[float, float]:
    usable = values[~np.isnan(values)]
    if not len(usable):
        return float("nan"), float("nan")
    low, high = np.quantile(usable, [0.025, 0.975])
    return float(low), float(high)
