"""Operating points: thresholds chosen on the validation images, and what they cost on the test images.

An image is called positive when its raw output is at the threshold or above it. Every threshold is an output that a
validation image has, so that it can be written down and applied without rounding.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.params import EvaluateParams
from pipeline.statistics.bootstrap import Replicates, Resamples, Statistic, divide, patient_sums, replicate
from pipeline.statistics.calibrators import apply
from pipeline.statistics.intervals import Floats
from pipeline.statistics.proportions import exact_f1_interval, exact_interval, printed

Scored = tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]
"""Labels (1, 0, NaN) and raw outputs of the same images."""
POINTS = ("youden", "sensitivity", "specificity", "f1")
RATES = ("sensitivity", "specificity", "ppv", "npv", "f1")
"""What `decision_statistic` returns, in this order."""
COUNTS = ("tp", "fp", "tn", "fn")


def choose(
    labels: NDArray[np.floating[Any]], probabilities: NDArray[np.floating[Any]], params: EvaluateParams
) -> dict[str, dict[str, Any]]:
    """Choose the operating points of one finding on its validation images.

    - youden: the most of sensitivity + specificity - 1 (Youden, Cancer 1950;3:32-35).
    - sensitivity: the highest threshold with the required sensitivity, hence the best specificity that leaves it.
    - specificity: the lowest threshold with the required specificity, hence the best sensitivity that leaves it.
    - f1: the most of 2 tp / (2 tp + fp + fn).

    Of equally good thresholds the highest is taken, which calls fewest images positive.

    Parameters
    ----------
    labels : ndarray of shape (n_images,)
        1, 0, or NaN for images to leave out.
    probabilities : ndarray of shape (n_images,)
        The model's raw outputs.
    params : EvaluateParams
        `min_sensitivity` and `min_specificity`.

    Returns
    -------
    dict
        For each of `POINTS` its `threshold`, or None and the reason in `why`.
    """
    known = ~np.isnan(labels)
    levels, level = np.unique(-probabilities[known].astype(np.float64), return_inverse=True)  # highest output first
    n = [int((labels[known] == value).sum()) for value in (0, 1)]
    if not all(n):
        why = f"no validation image {'without' if n[1] else 'with'} the finding"
        return {point: {"threshold": None, "why": why} for point in POINTS}
    fp, tp = (np.cumsum(np.bincount(level[labels[known] == v], minlength=len(levels))) for v in (0, 1))
    enough_sensitivity = tp / n[1] >= params.min_sensitivity
    enough_specificity = (n[0] - fp) / n[0] >= params.min_specificity
    index: dict[str, int | None] = {
        "youden": int((tp * n[0] - fp * n[1]).argmax()),  # whole numbers: equal means equal
        "sensitivity": int(enough_sensitivity.argmax()),
        "specificity": int(enough_specificity.sum()) - 1 if enough_specificity[0] else None,
        "f1": int((2 * tp / (tp + fp + n[1])).argmax()),
    }
    why = f"no threshold has specificity {params.min_specificity:g}: {fp[0]} of {n[0]} negatives share the top output"
    return {
        point: {"threshold": None, "why": why} if k is None else {"threshold": float(-levels[k]), "why": ""}
        for point, k in index.items()
    }


def decision_statistic(
    labels: NDArray[np.floating[Any]],
    probabilities: NDArray[np.floating[Any]],
    threshold: float,
    resamples: Resamples,
) -> Statistic:
    """Return the statistic of one finding at one threshold: the five `RATES`.

    Parameters
    ----------
    labels : ndarray of shape (n_images,)
        1, 0, or NaN for images to leave out.
    probabilities : ndarray of shape (n_images,)
        Called positive at `threshold` or above.
    threshold : float
        Chosen on other images.
    resamples : Resamples
        Whose image each one is.

    Returns
    -------
    Statistic
        Sensitivity, specificity, positive and negative predictive value, F1; NaN where the divisor has no weight, F1
        also where no positive has.
    """
    sums = patient_sums(np.stack(decisions(labels, probabilities, threshold), 1).astype(np.float64), resamples)

    return lambda weights: rates(*(sums @ weights))


def rates(tp: Floats, fp: Floats, tn: Floats, fn: Floats) -> Floats:
    """Return the `RATES` of counts of any one shape, stacked."""
    f1 = np.where(tp + fn > 0, divide(2 * tp, 2 * tp + fp + fn), np.nan)
    return np.stack([divide(tp, tp + fn), divide(tn, tn + fp), divide(tp, tp + fp), divide(tn, tn + fn), f1])


def decisions(
    labels: NDArray[np.floating[Any]], probabilities: NDArray[np.floating[Any]], threshold: float
) -> tuple[NDArray[np.bool_], ...]:
    """Return which images are true positives, false positives, true negatives, false negatives (`COUNTS`)."""
    called = probabilities >= threshold
    positive, negative = labels == 1, labels == 0
    return positive & called, negative & called, negative & ~called, positive & ~called


def table(
    val: Scored,
    test: Scored,
    resamples: Resamples,
    findings: list[str],
    calibration: dict[str, Any],
    params: EvaluateParams,
) -> dict[str, Any]:
    """Choose the points of every finding on validation and score them on test: `reports/operating_points.json`.

    Parameters
    ----------
    val, test : Scored
        Labels and raw outputs of each split, both of shape (n_images, n_findings).
    resamples : Resamples
        Of the test split.
    findings : list of str
        Names of the columns.
    calibration : dict
        Of `pipeline.statistics.calibration.fit_all`: `calibrated_threshold` is where its map takes the threshold.
        Decide on raw outputs; an isotonic map may take several outputs to one probability.
    params : EvaluateParams
        What the points require.

    Returns
    -------
    dict
        Intervals by the bootstrap of patients; an interval without width is replaced, and marked
        (`pipeline.statistics.proportions.printed`). Those of validation are not given: the points were chosen there.
    """
    chosen = {name: choose(val[0][:, k], val[1][:, k], params) for k, name in enumerate(findings)}
    empty: dict[str, Any] = {"threshold": None, "calibrated_threshold": None, "val": None, "test": None}
    rows = {name: {point: empty | item for point, item in points.items()} for name, points in chosen.items()}
    defined = [
        (k, row) for k, name in enumerate(findings) for row in rows[name].values() if row["threshold"] is not None
    ]
    statistics = [decision_statistic(test[0][:, k], test[1][:, k], row["threshold"], resamples) for k, row in defined]
    for (k, row), rated in zip(defined, _replicate_all(statistics, resamples), strict=True):
        threshold = row["threshold"]
        fitted = calibration["findings"][findings[k]]
        row["calibrated_threshold"] = float(apply(fitted, np.array([threshold]))[0])
        row["val"] = plain_scores(val[0][:, k], val[1][:, k], threshold)
        kinds = decisions(test[0][:, k], test[1][:, k], threshold)
        row["test"] = plain_scores(test[0][:, k], test[1][:, k], threshold) | _intervals(kinds, rated, resamples)
    requirement = {"sensitivity": params.min_sensitivity, "specificity": params.min_specificity}
    head = {"chosen_on": "val", "scored_on": "test", "points": list(POINTS), "requirement": requirement}
    return head | {"findings": rows}


def plain_scores(
    labels: NDArray[np.floating[Any]], probabilities: NDArray[np.floating[Any]], threshold: float
) -> dict[str, Any]:
    """Return the `RATES` at a threshold, the `COUNTS` and the numbers of positives and negatives, in images."""
    counts = [int(kind.sum()) for kind in decisions(labels, probabilities, threshold)]
    tp, fp, tn, fn = counts
    values = rates(*np.array(counts, np.float64)[:, None])[:, 0].tolist()
    totals = {"n_positive": tp + fn, "n_negative": fp + tn}
    return dict(zip((*RATES, *COUNTS), (*values, *counts), strict=True)) | totals


def scores_at(
    labels: NDArray[np.floating[Any]],
    probabilities: NDArray[np.floating[Any]],
    threshold: float,
    resamples: Resamples,
) -> dict[str, Any]:
    """Return `plain_scores` with the intervals of the rates."""
    rated = replicate(decision_statistic(labels, probabilities, threshold, resamples), resamples)
    kinds = decisions(labels, probabilities, threshold)
    return plain_scores(labels, probabilities, threshold) | _intervals(kinds, rated, resamples)


def _replicate_all(statistics: list[Statistic], resamples: Resamples) -> Iterator[Replicates]:
    """Yield the replicates of each statistic; the resamples' weights are made once for all of them."""
    if statistics:
        together = replicate(lambda weights: np.concatenate([each(weights) for each in statistics]), resamples)
        for number in range(len(statistics)):
            yield together[range(number * len(RATES), (number + 1) * len(RATES))]


def _intervals(kinds: tuple[NDArray[np.bool_], ...], rated: Replicates, resamples: Resamples) -> dict[str, Any]:
    """Return the `RATES` with their intervals; see `pipeline.statistics.proportions.printed`."""
    tp, fp, tn, fn = kinds
    divisors = (tp | fn, tn | fp, tp | fp, tn | fn, tp | fp | fn)
    scores: dict[str, Any] = {}
    for k, (rate, images) in enumerate(zip(RATES, divisors, strict=True)):
        patients = len(np.unique(resamples.patient[images]))
        exact = exact_f1_interval if rate == "f1" else exact_interval
        scores |= printed(rate, rated.estimate(k), patients, resamples.confidence, exact)
    return scores
