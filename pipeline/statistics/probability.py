"""How far probabilities can be taken at their word: Brier score, its parts, and the expected calibration error."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.statistics.bootstrap import Resamples, Statistic, divide
from pipeline.statistics.intervals import Floats

SCORES = ("brier", "reliability", "resolution", "uncertainty", "within_bin", "ece")
"""What `probability_statistic` returns, in this order."""


def probability_statistic(
    labels: NDArray[np.floating[Any]], probabilities: NDArray[np.floating[Any]], resamples: Resamples, bins: int
) -> Statistic:
    """Return the statistic of one finding: the Brier score, its four parts, and the expected calibration error.

    - Brier score: mean squared distance of probability and label (Brier 1950), as `sklearn.metrics.brier_score_loss`.
    - reliability - resolution + uncertainty + within_bin = Brier score (Murphy, J. Appl. Meteorol. 1973;12:595-600;
      the last part, zero where all probabilities of a bin are equal, after Stephenson et al., Weather and Forecasting
      2008;23:752-757).
    - Expected calibration error: mean distance of the bins' mean probability and share of positives, weighted by their
      images, over bins of equally many images (Nixon et al., CVPR workshops 2019). It is above zero for a perfectly
      calibrated model too, by chance, and more so the fewer the images.

    The bins are those of the data, in every resample.

    Parameters
    ----------
    labels : ndarray of shape (n_images,)
        1, 0, or NaN for images to leave out.
    probabilities : ndarray of shape (n_images,)
        In [0, 1].
    resamples : Resamples
        Whose image each one is.
    bins : int
        How many; fewer where probabilities are tied.

    Returns
    -------
    Statistic
        Six scores (`SCORES`); NaN without images.
    """
    from scipy.sparse import csr_matrix

    known = np.flatnonzero(~np.isnan(labels))
    y, p = labels[known].astype(np.float64), probabilities[known].astype(np.float64)
    bin_of = adaptive_bins(p, bins)
    n_bins = int(bin_of.max()) + 1 if len(bin_of) else 1
    columns = resamples.patient[known]
    shape = (n_bins, resamples.n_patients)
    count, forecast, hits = (csr_matrix((values, (bin_of, columns)), shape=shape) for values in (np.ones(len(y)), p, y))
    squares = csr_matrix(((p - y) ** 2, (np.zeros(len(y), np.intp), columns)), shape=(1, resamples.n_patients))

    def statistic(weights: Floats) -> Floats:
        n, total = count @ weights, (count @ weights).sum(axis=0)
        mean_p, share = (np.nan_to_num(divide(part @ weights, n)) for part in (forecast, hits))
        base = divide((hits @ weights).sum(axis=0), total)
        brier = divide((squares @ weights)[0], total)
        reliability = divide((n * (mean_p - share) ** 2).sum(axis=0), total)
        resolution = divide((n * (share - base) ** 2).sum(axis=0), total)
        uncertainty = base * (1 - base)
        ece = divide((n * np.abs(mean_p - share)).sum(axis=0), total)
        within = brier - (reliability - resolution + uncertainty)
        return np.stack([brier, reliability, resolution, uncertainty, within, ece])

    return statistic


def chance_of_ece(labels: NDArray[np.floating[Any]], probabilities: NDArray[np.floating[Any]], bins: int) -> float:
    """Return the calibration error that a perfectly calibrated model would show by chance, on average.

    In each bin the share of positives then differs from the mean probability by a binomial error; its mean size is
    sqrt(2 / pi) standard deviations (normal approximation). Images count as independent, so with several images a
    patient it is somewhat too small.

    Parameters
    ----------
    labels, probabilities, bins
        As in `probability_statistic`.
    """
    p = probabilities[~np.isnan(labels)].astype(np.float64)
    if not len(p):
        return float("nan")
    variances = np.bincount(adaptive_bins(p, bins), weights=p * (1 - p))
    return float(np.sqrt(2 / np.pi) * np.sqrt(variances).sum() / len(p))


def adaptive_bins(probabilities: NDArray[np.floating[Any]], bins: int) -> NDArray[np.intp]:
    """Put images into bins of equal counts, numbered from 0, and equal probabilities into one bin.

    Parameters
    ----------
    probabilities : ndarray of shape (n_images,)
        What is sorted into bins.
    bins : int
        How many at most.
    """
    if not len(probabilities):
        return np.empty(0, np.intp)
    _, level, counts = np.unique(probabilities, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2  # of each level, among all images
    wanted = np.minimum((middle * bins / len(probabilities)).astype(np.intp), bins - 1)
    return np.unique(wanted, return_inverse=True)[1][level].astype(np.intp)
