"""Curves with bands: ROC, precision-recall and reliability of the test images, thinned to what a plot can show.

The bands are pointwise: each holds one height of the curve, not the whole curve, at the level of the intervals. They
come from the patient-cluster bootstrap that the scores come from.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.statistics.bootstrap import Resamples, Statistic, divide, replicate
from pipeline.statistics.intervals import Floats
from pipeline.statistics.probability import adaptive_bins
from pipeline.statistics.proportions import printed

ROC_GRID: Floats = np.linspace(0, 1, 151) ** 2
"""False positive rates; squares, because the curve bends most where they are small."""
RECALL_GRID: Floats = np.linspace(0, 1, 101)
_CHUNK_VALUES = 1_000_000  # weights turned to floats at a time

Heights = Callable[[Floats, Floats, Floats], Floats]
"""From cumulated positives and negatives, highest output first and from 0 on, and a grid, to heights over the grid."""


def roc_table(
    labels: NDArray[np.floating[Any]],
    probabilities: NDArray[np.floating[Any]],
    findings: list[str],
    resamples: Resamples,
) -> pd.DataFrame:
    """Return the ROC curves: `finding, fpr, tpr, tpr_low, tpr_high`.

    The highest true positive rate at each false positive rate of `ROC_GRID`, with straight lines across ties, as
    `sklearn.metrics.roc_curve` draws them; bands by vertical averaging's quantiles (Fawcett, Pattern Recognition
    Letters 2006;27:861-874, section 9.2). Each curve begins with a row at (0, 0).

    Parameters
    ----------
    labels, probabilities : ndarray of shape (n_images, n_findings)
        1, 0 or NaN; outputs, raw or calibrated.
    findings : list of str
        Names of the columns. Those whose curve is undefined have no rows.
    resamples : Resamples
        Of these images.
    """
    columns = ["finding", "fpr", "tpr", "tpr_low", "tpr_high"]
    origin = pd.DataFrame([[0.0, 0.0, 0.0, 0.0]], columns=columns[1:])
    curves = []
    for name, curve in _curves(labels, probabilities, findings, resamples, ROC_GRID, tpr_at):
        rows = pd.concat([origin, pd.DataFrame(curve, columns=columns[1:])], ignore_index=True)
        curves.append(rows.assign(finding=name)[columns])
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=columns)


def pr_table(
    labels: NDArray[np.floating[Any]],
    probabilities: NDArray[np.floating[Any]],
    findings: list[str],
    resamples: Resamples,
) -> pd.DataFrame:
    """Return the precision-recall curves: `finding, recall, precision, precision_low, precision_high`.

    The precision at the highest threshold that reaches each recall of `RECALL_GRID`: the steps whose area is the
    average precision, because straight lines between thresholds promise precision that no threshold has (Davis and
    Goadrich, ICML 2006). At recall 0 it is the precision of the highest positive. Parameters as in `roc_table`.
    """
    columns = ["finding", "recall", "precision", "precision_low", "precision_high"]
    curves = [
        pd.DataFrame(curve, columns=columns[1:]).assign(finding=name)[columns]
        for name, curve in _curves(labels, probabilities, findings, resamples, RECALL_GRID, precision_at)
    ]
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=columns)


def reliability_table(
    labels: NDArray[np.floating[Any]],
    raw: NDArray[np.floating[Any]],
    calibrated: NDArray[np.floating[Any]],
    findings: list[str],
    resamples: Resamples,
    bins: int,
) -> pd.DataFrame:
    """Return the reliability diagrams before and after calibration.

    Parameters
    ----------
    labels : ndarray of shape (n_images, n_findings)
        1, 0 or NaN.
    raw, calibrated : ndarray of shape (n_images, n_findings)
        Outputs, and what the calibrators make of them.
    findings : list of str
        Names of the columns. Those without an image whose label is known have no rows.
    resamples : Resamples
        Of these images.
    bins : int
        Of equally many images, those of the expected calibration error (`adaptive_bins`).

    Returns
    -------
    DataFrame
        `finding, calibrated` (raw or calibrated), `bin, forecast` (mean probability), `observed` (share of positives)
        with `observed_low, observed_high`, `images`. Where a bin holds one class only, the bounds are exact ones over
        its patients (`pipeline.statistics.proportions`).
    """
    columns = ["finding", "calibrated", "bin", "forecast", "observed", "observed_low", "observed_high", "images"]
    rows: list[tuple[Any, ...]] = []
    for k, name in enumerate(findings):
        for kind, outputs in (("raw", raw), ("calibrated", calibrated)):
            points = _reliability_points(labels[:, k], outputs[:, k], resamples, bins)
            rows += [(name, kind, *point) for point in points]
    return pd.DataFrame(rows, columns=columns)


def tpr_at(tp: Floats, fp: Floats, grid: Floats) -> Floats:
    """Return the highest true positive rate at each false positive rate, from cumulated counts (`Heights`)."""
    # Of several heights at one position NumPy's interp takes the last, here the highest.
    return np.asarray(np.interp(grid, fp / fp[-1], tp / tp[-1]), np.float64)


def precision_at(tp: Floats, fp: Floats, grid: Floats) -> Floats:
    """Return the precision where each recall is first reached, from cumulated counts (`Heights`)."""
    needed = np.maximum(grid * tp[-1] * (1 - 1e-12), 0.5)  # of whole counts: 0.5 is one positive
    reached = np.searchsorted(tp, needed)
    precision: Floats = tp[reached] / (tp[reached] + fp[reached])
    return precision


def _curves(
    labels: NDArray[np.floating[Any]],
    probabilities: NDArray[np.floating[Any]],
    findings: list[str],
    resamples: Resamples,
    grid: Floats,
    heights: Heights,
) -> list[tuple[str, Floats]]:
    """Return each defined finding's curve: position, height, low and high, shape (n_grid, 4)."""
    curves = []
    for k, name in enumerate(findings):
        statistic = curve_statistic(labels[:, k], probabilities[:, k], resamples, grid, heights)
        point = statistic(np.ones((resamples.n_patients, 1)))[:, 0]
        if not np.isnan(point).any():
            low, high = _band(statistic, resamples)
            curves.append((name, np.stack([grid, point, low, high], axis=1)))
    return curves


def curve_statistic(
    labels: NDArray[np.floating[Any]],
    probabilities: NDArray[np.floating[Any]],
    resamples: Resamples,
    grid: Floats,
    heights: Heights,
) -> Statistic:
    """Return the statistic of one finding's curve: its height at each position of the grid.

    Images are summed by patient over runs of equal outputs, and negatives over all outputs between two positives: the
    curve is straight there. `heights` takes the cumulated positives and negatives of one resample, from (0, 0) on.
    """
    from scipy.sparse import csr_matrix

    known = np.flatnonzero(~np.isnan(labels))
    group, n_groups = _groups(probabilities[known], labels[known] == 1)
    positive = (labels[known] == 1).astype(np.float64)
    where, shape = (group, resamples.patient[known]), (n_groups, resamples.n_patients)
    positives, negatives = (csr_matrix((values, where), shape=shape) for values in (positive, 1 - positive))

    def statistic(weights: Floats) -> Floats:
        curve = np.full((len(grid), weights.shape[1]), np.nan)
        tp, fp = (_cumulated(sums @ weights) for sums in (positives, negatives))
        for draw in range(weights.shape[1]):
            if tp[draw, -1] and fp[draw, -1]:
                curve[:, draw] = heights(tp[draw], fp[draw], grid)
        return curve

    return statistic


def _groups(outputs: NDArray[np.floating[Any]], positive: NDArray[np.bool_]) -> tuple[NDArray[np.intp], int]:
    """Return the group of each image, highest output first, and how many groups there are.

    A run is an output that a positive image has: group 2k + 1 is run k, group 2k holds the images above it.
    """
    levels, level = np.unique(-outputs, return_inverse=True)
    has_positive = np.zeros(len(levels), np.bool_)
    has_positive[level[positive]] = True
    number = 2 * np.cumsum(has_positive) - has_positive
    return number[level].astype(np.intp), 2 * int(has_positive.sum()) + 1


def _cumulated(sums: Floats) -> Floats:
    """Return the running totals from 0, shape (n_draws, n_groups + 1), a row a draw."""
    totals = np.zeros((sums.shape[1], len(sums) + 1))
    np.cumsum(sums.T, axis=1, out=totals[:, 1:])
    return totals


def _band(statistic: Statistic, resamples: Resamples) -> tuple[Floats, Floats]:
    """Return the percentile bounds of each row of a statistic."""
    draws = resamples.draws
    at_once = max(1, _CHUNK_VALUES // resamples.n_patients)
    values = np.concatenate(
        [statistic(draws[:, k : k + at_once].astype(np.float64)) for k in range(0, draws.shape[1], at_once)], axis=1
    )
    defined = values[:, ~np.isnan(values[0])]
    tail = (1 - resamples.confidence) / 2
    low, high = np.quantile(defined, (tail, 1 - tail), axis=1)
    return low, high


def _reliability_points(
    labels: NDArray[np.floating[Any]], outputs: NDArray[np.floating[Any]], resamples: Resamples, bins: int
) -> list[tuple[Any, ...]]:
    """Return bin, forecast, observed, low, high and images of each bin of one finding."""
    from scipy.sparse import csr_matrix

    known = np.flatnonzero(~np.isnan(labels))
    y, p, patient = labels[known].astype(np.float64), outputs[known].astype(np.float64), resamples.patient[known]
    bin_of = adaptive_bins(p, bins)
    n_bins = int(bin_of.max()) + 1 if len(bin_of) else 0
    shape = (n_bins, resamples.n_patients)
    count, hits = (csr_matrix((values, (bin_of, patient)), shape=shape) for values in (np.ones(len(y)), y))
    if not n_bins:
        return []
    replicates = replicate(lambda weights: divide(hits @ weights, count @ weights), resamples)
    points: list[tuple[Any, ...]] = []
    for k in range(n_bins):
        inside = bin_of == k
        trials = len(np.unique(patient[inside]))
        share = printed("observed", replicates.estimate(k), trials, resamples.confidence)
        bounds = (share["observed"], share["observed_ci_low"], share["observed_ci_high"])
        points.append((k, float(p[inside].mean()), *bounds, int(inside.sum())))
    return points
