"""AUROC and average precision for many weightings of the patients at once.

Both need only sums of weights between the scores of the positive images. Those sums are one product of a sparse
matrix, with one entry an image, and the weights: thousands of resamples cost as much as a few dozen sorts.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.statistics.bootstrap import Resamples, Statistic, divide
from pipeline.statistics.intervals import Floats


def rank_statistic(
    labels: NDArray[np.floating[Any]], scores: NDArray[np.floating[Any]], resamples: Resamples
) -> Statistic:
    """Return the statistic of one finding: AUROC and average precision.

    AUROC is the weighted share of (positive, negative) pairs in the right order, a tie counting one half (Hanley and
    McNeil, Radiology 1982;143:29-36). Average precision is the sum over thresholds of precision times the step in
    recall, as in `sklearn.metrics.average_precision_score`. Both equal scikit-learn's with `sample_weight`.

    Parameters
    ----------
    labels : ndarray of shape (n_images,)
        1, 0, or NaN for images to leave out.
    scores : ndarray of shape (n_images,)
        Higher means more likely present.
    resamples : Resamples
        Whose image each one is.

    Returns
    -------
    Statistic
        Two scores; NaN where a class has no weight.
    """
    from scipy.sparse import csr_matrix

    known = np.flatnonzero(~np.isnan(labels))
    order = known[np.argsort(-scores[known], kind="stable")]  # highest first
    positive = labels[order] == 1
    bins, n_runs = _bins(scores[order], positive)
    entries = (np.ones(len(order)), (bins, resamples.patient[order]))
    sums = csr_matrix(entries, shape=(3 * n_runs + 1, resamples.n_patients))

    def statistic(weights: Floats) -> Floats:
        rows = sums @ weights
        between, tied, hits = (rows[start : 3 * n_runs : 3] for start in range(3))
        false = np.cumsum(between + tied, axis=0)  # negatives as high as the run, or higher
        n_positive, n_negative = hits.sum(axis=0), rows[-1] + (false[-1] if n_runs else 0)
        lower = n_negative - false + tied / 2
        true = np.cumsum(hits, axis=0)
        auroc = divide((hits * lower).sum(axis=0), n_positive * n_negative)
        precision = np.divide(true, true + false, out=np.zeros_like(true), where=true > 0)
        average_precision = divide((hits * precision).sum(axis=0), n_positive)
        return np.stack([auroc, np.where(n_negative > 0, average_precision, np.nan)])

    return statistic


def _bins(scores: NDArray[np.floating[Any]], positive: NDArray[np.bool_]) -> tuple[NDArray[np.intp], int]:
    """Return the number of the sum that each image, highest score first, goes into, and how many runs there are.

    A run is a score that a positive image has. Bin 3k holds the negatives between run k - 1 and run k, 3k + 1 those
    tied with run k, 3k + 2 its positives; the last bin holds the negatives below all.
    """
    levels, level = np.unique(-scores, return_inverse=True)  # 0: the highest score
    has_positive = np.zeros(len(levels), np.bool_)
    has_positive[level[positive]] = True
    run: NDArray[np.intp] = (np.cumsum(has_positive) - has_positive)[level]  # runs above each image
    bins = np.where(positive, 3 * run + 2, np.where(has_positive[level], 3 * run + 1, 3 * run))
    return bins.astype(np.intp), int(has_positive.sum())
