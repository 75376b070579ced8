"""Accuracy before any truth has come: estimated from the model's own confidence, and marked as an estimate."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.monitoring.history import History

Floats = NDArray[np.float64]
WARNING = (
    "Estimated without truth, from the calibrated probabilities alone: right only while they are calibrated. A change "
    "that makes the model confidently wrong does not show here."
)


def estimated(history: History, findings: tuple[str, ...], segments: int = 12) -> dict[str, Any]:
    """Return expected AUROC, sensitivity and specificity of the log's last segments, oldest first.

    If an output says the chance p that a finding is there, and is right, an image counts as p of a positive and 1 - p
    of a negative one (confidence-based performance estimation; Garg et al., ICLR 2022, section 3; Guerra-Manzanares
    and Kivimäki, arXiv 2407.08649). AUROC from 20 bins of the output.

    Parameters
    ----------
    history : History
        Of the watch.
    findings : tuple of str
        Names.
    segments : int
        How many at most; several of the history's make one.
    """
    rows = []
    for part in np.array_split(np.arange(len(history)), min(segments, max(1, len(history)))):
        if not len(part):
            continue
        sums = {name: history.sums[name][part].sum(axis=0) for name in _NEEDED}
        rows.append(
            {
                "from": float(history.start[part[0]]),
                "to": float(history.end[part[-1]]),
                "images": int(sums["rows"]),
                **_measures(sums, findings),
            }
        )
    return {"warning": WARNING, "segments": rows}


_NEEDED = ("expected_bins", "ranks", "expected", "expected_called", "called", "known", "rows")


def _measures(sums: dict[str, NDArray[Any]], findings: tuple[str, ...]) -> dict[str, Any]:
    positive = np.asarray(sums["expected_bins"], np.float64)
    negative = np.maximum(sums["ranks"][-len(findings) :] - positive, 0.0)
    below = np.cumsum(negative, axis=1) - negative / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))
        sensitivity = sums["expected_called"] / sums["expected"]
        misses = sums["known"] - sums["expected"]
        specificity = (misses - (sums["called"] - sums["expected_called"])) / misses
        called = sums["called"] / sums["known"]
    each = {
        name: {"auc": float(auc[k]), "sensitivity": float(sensitivity[k]), "specificity": float(specificity[k])}
        | {"called": float(called[k])}
        for k, name in enumerate(findings)
    }
    return {"mean_auc": float(np.nanmean(auc)) if (~np.isnan(auc)).any() else float("nan"), "findings": each}
