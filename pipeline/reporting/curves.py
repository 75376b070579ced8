"""Section: ROC and precision-recall curves with their bands."""

from typing import Any

import pandas as pd

from pipeline.findings import readable
from pipeline.reporting.page import Section
from pipeline.reporting.panels import place, pr_panel, roc_panel
from pipeline.reporting.summary import Document
from pipeline.reporting.text import counted, estimate, level, percent, why_undefined

MARKS = {"youden": "circle", "sensitivity": "square", "specificity": "triangle", "f1": "diamond"}
"""Operating point to the shape of its mark."""


def section(metrics: dict[str, Any], roc: pd.DataFrame, pr: pd.DataFrame, points: Document) -> Section:
    """Gather the curves of each finding.

    Parameters
    ----------
    metrics : dict
        `metrics.json`.
    roc, pr : DataFrame
        `roc.csv` and `pr.csv`; a finding without rows is undefined.
    points : dict or None
        `operating_points.json`, for the marks on the curves.
    """
    test = metrics["test"]
    panels = [
        {
            "name": readable(name),
            "caption": _caption(scores, test["images"]),
            "roc": roc_panel(roc[roc["finding"] == name]),
            "pr": pr_panel(pr[pr["finding"] == name]),
            "chance": place(0.0, scores.get("prevalence")),
            "prevalence": percent(scores.get("prevalence")),
            "marks": _marks(points, name),
            "auc": estimate(scores),
            "precision": estimate(scores, "average_precision"),
        }
        for name, scores in test["findings"].items()
    ]
    content = {"panels": panels, "level": level(metrics["confidence"]), "has_marks": any(p["marks"] for p in panels)}
    return Section("curves", "ROC and precision–recall curves", content)


def _caption(scores: dict[str, Any], images: int) -> str:
    if scores["auc"] is None:
        return f"Undefined: {why_undefined(scores, images)}."
    counts = f"{counted(scores['n_positive'], 'image')} with it, {scores['n_negative']:,} without"
    return f"AUC {estimate(scores)}; average precision {estimate(scores, 'average_precision')}; {counts}."


def _marks(points: Document, name: str) -> list[dict[str, Any]]:
    """Return the operating points of one finding: shape, and where they stand on both panels."""
    found = []
    for point, row in ((points or {}).get("findings", {}).get(name) or {}).items():
        test = (row or {}).get("test") or {}
        sensitivity, specificity, ppv = (test.get(key) for key in ("sensitivity", "specificity", "ppv"))
        if point in MARKS and sensitivity is not None and specificity is not None:
            found.append(
                {
                    "shape": MARKS[point],
                    "roc": place(1 - specificity, sensitivity),
                    "pr": place(sensitivity, ppv),
                }
            )
    return found
