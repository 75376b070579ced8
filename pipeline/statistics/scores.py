"""The main table: the scores of every finding and their means, with intervals and counts."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.params import EvaluateParams
from pipeline.statistics.bootstrap import Replicates, Resamples, replicate, stack
from pipeline.statistics.delong import delong
from pipeline.statistics.intervals import Estimate, Floats
from pipeline.statistics.probability import SCORES, chance_of_ece, probability_statistic
from pipeline.statistics.ranks import rank_statistic

_ESTIMATED = ("auc", "average_precision", "brier", "ece")
_AFTER = ("brier", "ece")
_PARTS = ("reliability", "resolution", "uncertainty", "within_bin")
_ROWS = ("auc", "average_precision", *SCORES)


def score_findings(
    labels: Floats,
    probabilities: Floats,
    findings: list[str],
    resamples: Resamples,
    params: EvaluateParams,
    calibrated: Floats | None = None,
) -> dict[str, Any]:
    """Score the images of one split.

    Parameters
    ----------
    labels, probabilities : ndarray of shape (n_images, n_findings), dtype=float64
        1, 0 or NaN; in [0, 1].
    findings : list of str
        Names of the columns.
    resamples : Resamples
        Of these images' patients.
    params : EvaluateParams
        Bins and level.
    calibrated : ndarray of shape (n_images, n_findings), optional
        Probabilities after calibration; their Brier score and calibration error are added.

    Returns
    -------
    dict
        `images`, `patients`, `one_image_each`, `macro`, `findings`; every score with its intervals
        (`Estimate.as_dict`) and every finding with its counts. The means are over the findings that have an AUROC;
        the others are named in `undefined`. DeLong's interval stands beside where each patient has one image.
    """
    once = len(labels) == resamples.n_patients
    columns = range(len(findings))
    scored = [_replicates(labels[:, k], probabilities[:, k], resamples, params) for k in columns]
    errors = [] if calibrated is None else [_errors(labels[:, k], calibrated[:, k], resamples, params) for k in columns]
    rows: dict[str, dict[str, Any]] = {}
    for k, name in enumerate(findings):
        rows[name] = _row(scored[k], _ROWS, _ESTIMATED) | _parts(scored[k])
        rows[name]["ece_chance"] = chance_of_ece(labels[:, k], probabilities[:, k], params.bins)
        if calibrated is not None:
            rows[name] |= _row(errors[k], SCORES, _AFTER, "calibrated_")
            rows[name]["calibrated_ece_chance"] = chance_of_ece(labels[:, k], calibrated[:, k], params.bins)
        if once:
            rows[name] |= _delong(labels[:, k], probabilities[:, k], params.confidence)
        rows[name] |= counts_of(labels[:, k])
    defined = [k for k in columns if not np.isnan(scored[k].point[0])]
    macro: dict[str, Any] = _means(scored, _ROWS, _ESTIMATED, defined)
    macro |= _means(errors, SCORES, _AFTER, defined, "calibrated_") if errors else {}
    macro |= {
        name: float(np.mean([rows[findings[k]][name] for k in defined])) if defined else float("nan")
        for name in ("ece_chance", "calibrated_ece_chance")[: 1 + bool(errors)]
    }
    undefined = ", ".join(name for k, name in enumerate(findings) if k not in defined)
    return {
        "images": len(labels),
        "patients": resamples.n_patients,
        "one_image_each": once,
        "macro": {**macro, "n_findings": len(defined), "undefined": undefined},
        "findings": rows,
    }


def counts_of(labels: NDArray[np.floating[Any]]) -> dict[str, float]:
    """Count the positive, negative and unknown images of a finding; the prevalence is among the known."""
    positive, negative = int((labels == 1).sum()), int((labels == 0).sum())
    return {
        "n_positive": positive,
        "n_negative": negative,
        "n_unknown": int(np.isnan(labels).sum()),
        "prevalence": positive / (positive + negative) if positive + negative else float("nan"),
    }


def _replicates(labels: Floats, probabilities: Floats, resamples: Resamples, params: EvaluateParams) -> Replicates:
    ranks = rank_statistic(labels, probabilities, resamples)
    return stack([replicate(ranks, resamples), _errors(labels, probabilities, resamples, params)])


def _errors(labels: Floats, probabilities: Floats, resamples: Resamples, params: EvaluateParams) -> Replicates:
    return replicate(probability_statistic(labels, probabilities, resamples, params.bins), resamples)


def _parts(scored: Replicates) -> dict[str, float]:
    return {part: float(scored.point[_ROWS.index(part)]) for part in _PARTS}


def _row(scored: Replicates, names: tuple[str, ...], wanted: tuple[str, ...], prefix: str = "") -> dict[str, float]:
    row: dict[str, float] = {}
    for name in wanted:
        row |= _estimate(scored[[names.index(name)]], name).as_dict(f"{prefix}{name}")
    return row


def _means(
    scored: list[Replicates], names: tuple[str, ...], wanted: tuple[str, ...], defined: list[int], prefix: str = ""
) -> dict[str, float]:
    """Return the mean of each score over the findings that have an AUROC; all NaN if none has."""
    together = stack(scored)
    row: dict[str, float] = {}
    for name in wanted:
        rows = [k * len(names) + names.index(name) for k in defined]
        row |= _estimate(together.mean(rows), name).as_dict(f"{prefix}{name}")
    return row


def _estimate(scored: Replicates, name: str) -> Estimate:
    """Return one score; the calibration error around itself, because resampling raises it (`Replicates.centred`)."""
    return (scored.centred() if name == "ece" else scored).estimate()


def _delong(labels: Floats, probabilities: Floats, confidence: float) -> dict[str, float]:
    low, high = delong(labels, probabilities).interval(0, confidence)
    return {"delong_low": low, "delong_high": high}
