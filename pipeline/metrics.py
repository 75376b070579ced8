"""Exact AUROC and average precision with intervals from a bootstrap of patients.

The undefined is NaN: an AUROC without a positive or without a negative, a mean over no finding.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.params import EvaluateParams

Floats = NDArray[np.float64]
_CHUNK_VALUES = 4_000_000  # weights held at a time; bounds the memory, not the result


@dataclass(frozen=True)
class Ranked:
    """One finding's known labels sorted by score, and where each run of equal scores starts."""

    order: NDArray[np.intp]
    positive: Floats
    starts: NDArray[np.intp]


def rank(labels: NDArray[np.floating[Any]], scores: NDArray[np.floating[Any]]) -> Ranked:
    """Sort the images with a known label by score.

    Parameters
    ----------
    labels : ndarray of shape (n_images,)
        1, 0 or NaN.
    scores : ndarray of shape (n_images,)
        Higher means more likely present.
    """
    known = np.flatnonzero(~np.isnan(labels))
    order = known[np.argsort(scores[known], kind="stable")]
    ordered = scores[order]
    starts = (
        np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1]))) if len(order) else np.empty(0, np.intp)
    )
    return Ranked(order, labels[order].astype(np.float64), starts)


def weighted_scores(ranked: Ranked, weights: Floats) -> tuple[Floats, Floats]:
    """Return AUROC and average precision for each row of weights.

    AUROC is the weighted share of (positive, negative) pairs in the right order, a tie counting one half (Hanley and
    McNeil, Radiology 1982;143:29-36). Average precision is the sum over thresholds of precision times the step in
    recall, as in `sklearn.metrics.average_precision_score`.

    Parameters
    ----------
    ranked : Ranked
        One finding.
    weights : ndarray of shape (n_resamples, n_images), dtype=float64
        How often each image is drawn.

    Returns
    -------
    auroc, average_precision : ndarray of shape (n_resamples,), dtype=float64
        NaN where a class has no weight.
    """
    if not len(ranked.order):
        nothing = np.full(len(weights), np.nan)
        return nothing, nothing.copy()
    drawn = weights[:, ranked.order]
    positive = np.add.reduceat(drawn * ranked.positive, ranked.starts, axis=1)
    both = np.add.reduceat(drawn, ranked.starts, axis=1)
    negative = both - positive
    n_positive, n_negative = positive.sum(axis=1), negative.sum(axis=1)
    below = np.cumsum(negative, axis=1) - negative
    with np.errstate(invalid="ignore", divide="ignore"):
        auroc = (positive * (below + negative / 2)).sum(axis=1) / (n_positive * n_negative)
        true_above = np.cumsum(positive[:, ::-1], axis=1)
        all_above = np.cumsum(both[:, ::-1], axis=1)
        precision = np.divide(true_above, all_above, out=np.zeros_like(true_above), where=all_above > 0)
        average_precision = (precision * positive[:, ::-1]).sum(axis=1) / n_positive
    undefined = (n_positive == 0) | (n_negative == 0)
    return np.where(undefined, np.nan, auroc), np.where(undefined, np.nan, average_precision)


def auroc(labels: NDArray[np.floating[Any]], scores: NDArray[np.floating[Any]]) -> float:
    """Return the exact AUROC of one finding, NaN where it is undefined; unknown labels are left out."""
    return float(weighted_scores(rank(labels, scores), np.ones((1, len(labels))))[0][0])


def macro_auroc(labels: NDArray[np.floating[Any]], scores: NDArray[np.floating[Any]]) -> float:
    """Return the mean AUROC over the findings where it is defined, NaN if there is none.

    Parameters
    ----------
    labels, scores : ndarray of shape (n_images, n_findings)
        As in `rank`, a column per finding.
    """
    return _mean([auroc(labels[:, k], scores[:, k]) for k in range(labels.shape[1])])


def score_split(
    labels: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    patients: NDArray[Any],
    findings: list[str],
    params: EvaluateParams,
) -> dict[str, Any]:
    """Score one split.

    Parameters
    ----------
    labels, scores : ndarray of shape (n_images, n_findings)
        1, 0 or NaN; probabilities.
    patients : ndarray of shape (n_images,)
        Whose image it is: whole patients are drawn, with replacement (cluster bootstrap; Rutter, Academic Radiology
        2000;7:413-419), because the images of one patient are not independent.
    findings : list of str
        Names of the columns.
    params : EvaluateParams
        Resamples, level and seed. Intervals are percentiles of the resamples in which the score is defined
        (`n_resamples`).

    Returns
    -------
    dict
        `images`, `patients`, `macro`, `findings`, each score with its interval and counts. The macro mean is over
        the findings that are defined in the data; those that are not are in `undefined`. In a resample that has lost
        the last positive of a finding, the mean is over the others.
    """
    ranked = [rank(labels[:, k], scores[:, k]) for k in range(len(findings))]
    once = np.ones((1, len(labels)))
    point = np.array([[values[0] for values in weighted_scores(item, once)] for item in ranked])
    draws = _bootstrap(ranked, patients, params)
    defined = ~np.isnan(point[:, 0])
    per_finding = {}
    for k, name in enumerate(findings):
        per_finding[name] = {
            **_with_interval("auc", point[k, 0], draws[:, k, 0], params),
            **_with_interval("average_precision", point[k, 1], draws[:, k, 1], params),
            "n_positive": int((labels[:, k] == 1).sum()),
            "n_negative": int((labels[:, k] == 0).sum()),
            "n_unknown": int(np.isnan(labels[:, k]).sum()),
            "n_resamples": int((~np.isnan(draws[:, k, 0])).sum()),
        }
    macro = {
        **_with_interval("auc", _mean(point[:, 0]), _row_means(draws[:, defined, 0]), params),
        **_with_interval("average_precision", _mean(point[:, 1]), _row_means(draws[:, defined, 1]), params),
        "n_findings": int(defined.sum()),
        "undefined": ", ".join(name for name, is_defined in zip(findings, defined, strict=True) if not is_defined),
    }
    return {
        "images": len(labels),
        "patients": len(np.unique(patients)),
        "macro": macro,
        "findings": per_finding,
    }


def _bootstrap(ranked: list[Ranked], patients: NDArray[Any], params: EvaluateParams) -> Floats:
    """Return AUROC and average precision of every resample, shape (n_resamples, n_findings, 2)."""
    draws = np.empty((params.resamples, len(ranked), 2))
    start = 0
    for weights in _resampled_weights(patients, params):
        stop = start + len(weights)
        for k, item in enumerate(ranked):
            draws[start:stop, k] = np.column_stack(weighted_scores(item, weights))
        start = stop
    return draws


def _resampled_weights(patients: NDArray[Any], params: EvaluateParams) -> Iterator[Floats]:
    names, index = np.unique(patients, return_inverse=True)
    rng = np.random.default_rng(params.seed)
    share = np.full(len(names), 1 / len(names))
    at_once = max(1, _CHUNK_VALUES // len(patients))
    for start in range(0, params.resamples, at_once):
        times = rng.multinomial(len(names), share, size=min(at_once, params.resamples - start))
        yield times[:, index].astype(np.float64)


def _with_interval(name: str, value: float, draws: Floats, params: EvaluateParams) -> dict[str, float]:
    prefix = "" if name == "auc" else f"{name}_"
    usable = draws[~np.isnan(draws)]
    tail = (1 - params.confidence) / 2
    if np.isnan(value) or not len(usable):
        low = high = float("nan")
    else:
        low, high = (float(q) for q in np.quantile(usable, (tail, 1 - tail)))
    return {name: float(value), f"{prefix}ci_low": low, f"{prefix}ci_high": high}


def _mean(values: Any) -> float:
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")


def _row_means(values: Floats) -> Floats:
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    means: Floats = np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
    return means
