"""Square panels: a curve with its band, or points with their intervals; coordinates for the template's SVG.

A panel is 100 x 100, y downwards. Coordinates are rounded, so that the same numbers give the same bytes.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from pipeline.reporting.figures import plain

SIDE = 100.0
_ENDS = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Where the axes of a reliability panel may end; the probabilities of a rare finding are all small."""


def curve_path(x: Sequence[float], y: Sequence[float]) -> str:
    """Return an SVG path of a curve, empty without a point.

    Parameters
    ----------
    x, y : sequence of float
        In 0..1, in the order of the curve. Points that coincide after rounding are drawn once.
    """
    points = _points(x, y)
    kept = [point for before, point in zip(["", *points], points, strict=False) if point != before]
    return "M" + " L".join(kept) if kept else ""


def step_path(x: Sequence[float], y: Sequence[float]) -> str:
    """Return an SVG path that holds each height from the point before up to its own position.

    So is a precision-recall curve to be read: straight lines between thresholds promise precision that no threshold
    has (Davis and Goadrich, ICML 2006, section 3).
    """
    points = [(x[0], y[0])] if len(x) else []
    for k in range(1, len(x)):
        points += [(x[k - 1], y[k]), (x[k], y[k])]
    return curve_path([point[0] for point in points], [point[1] for point in points])


def band_path(x: Sequence[float], low: Sequence[float], high: Sequence[float]) -> str:
    """Return the closed SVG path between two curves; positions where a bound is not known are left out."""
    known = [k for k in range(len(x)) if not (pd.isna(low[k]) or pd.isna(high[k]))]
    if not known:
        return ""
    there = curve_path([x[k] for k in known], [high[k] for k in known])
    back = curve_path([x[k] for k in reversed(known)], [low[k] for k in reversed(known)])
    return f"{there} L{back.removeprefix('M')}Z"


def roc_panel(points: pd.DataFrame) -> dict[str, str] | None:
    """Return `curve` and `band` of one finding's rows of roc.csv; None without rows."""
    if points.empty:
        return None
    x = points["fpr"].tolist()
    return {"curve": curve_path(x, points["tpr"].tolist()), "band": _band(points, x, "tpr")}


def pr_panel(points: pd.DataFrame) -> dict[str, str] | None:
    """Return `curve` and `band` of one finding's rows of pr.csv; None without rows."""
    if points.empty:
        return None
    x = points["recall"].tolist()
    return {"curve": step_path(x, points["precision"].tolist()), "band": _band(points, x, "precision")}


def reliability_panel(points: pd.DataFrame) -> dict[str, Any] | None:
    """Lay out one finding's rows of reliability.csv.

    Returns
    -------
    dict or None
        `end` (what both axes end at), `line` (path of each kind) and `marks`: for each kind a list of x, y, low and
        high. None without rows.
    """
    if points.empty:
        return None
    most = float(points[["forecast", "observed", "observed_high"]].max().max())
    end = next((value for value in _ENDS if value >= most), 1.0)
    marks, lines = {}, {}
    for kind in ("raw", "calibrated"):
        rows = points[points["calibrated"] == kind]
        x, y = (rows["forecast"] / end).tolist(), (rows["observed"] / end).tolist()
        low, high = (rows["observed_low"] / end).tolist(), (rows["observed_high"] / end).tolist()
        lines[kind] = curve_path(x, y)
        marks[kind] = [
            {"x": _across(a), "y": _down(b), "low": _down(c), "high": _down(d)}
            for a, b, c, d in zip(x, y, low, high, strict=True)
        ]
    return {"end": f"{end:g}", "line": lines, "marks": marks}


def place(x: float | None, y: float | None) -> tuple[str, str] | None:
    """Return where a point of a unit square stands in the panel; None if a coordinate is not known."""
    return None if x is None or y is None else (_across(x), _down(y))


def _band(points: pd.DataFrame, x: list[float], name: str) -> str:
    if f"{name}_low" not in points.columns:
        return ""
    return band_path(x, points[f"{name}_low"].tolist(), points[f"{name}_high"].tolist())


def _points(x: Sequence[float], y: Sequence[float]) -> list[str]:
    return [f"{_across(a)} {_down(b)}" for a, b in zip(x, y, strict=True)]


def _across(value: float) -> str:
    return plain(SIDE * value)


def _down(value: float) -> str:
    return "0" if pd.isna(value) else plain(SIDE * (1 - value))
