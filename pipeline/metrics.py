"""Exact AUROC for training. Reported scores, with intervals, are made by `pipeline.statistics`.

The undefined is NaN: an AUROC without a positive or without a negative, a mean over no finding.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def auroc(labels: NDArray[np.floating[Any]], scores: NDArray[np.floating[Any]]) -> float:
    """Return the exact AUROC of one finding, NaN where it is undefined.

    The share of (positive, negative) pairs in the right order, a tie counting one half: the Mann-Whitney statistic
    (Hanley and McNeil, Radiology 1982;143:29-36), from the ranks of `scipy.stats.rankdata`.

    Parameters
    ----------
    labels : ndarray of shape (n_images,)
        1, 0, or NaN for images to leave out.
    scores : ndarray of shape (n_images,)
        Higher means more likely present.
    """
    from scipy.stats import rankdata

    known = ~np.isnan(labels)
    positive = labels[known] == 1
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    above = rankdata(scores[known])[positive].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * n_negative))


def macro_auroc(labels: NDArray[np.floating[Any]], scores: NDArray[np.floating[Any]]) -> float:
    """Return the mean AUROC over the findings where it is defined, NaN if there is none.

    Parameters
    ----------
    labels, scores : ndarray of shape (n_images, n_findings)
        As in `auroc`, a column per finding.
    """
    values = np.array([auroc(labels[:, k], scores[:, k]) for k in range(labels.shape[1])])
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
