"""The geometry of the report's figures; the template draws them as SVG in the page's own type.

Everything is in the units of the figure's viewBox, y downwards, rounded so that the same numbers give the same bytes.
"""

import math
from typing import Any

from pipeline.reporting.text import bounds

FOREST_WIDTH = 180.0
_FOREST_MARGIN = 12.0
CHART_WIDTH, CHART_HEIGHT = 400.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 72.0, 14.0, 34.0  # room for the labels of a chart
_MOST_EPOCH_TICKS = 10


def forest_axis(
    rows: list[dict[str, Any]], name: str = "auc", *, reference: float | None = 0.5, top: float | None = 1.0
) -> dict[str, Any]:
    """Choose the axis that all rows of a forest plot share.

    Parameters
    ----------
    rows : list of dict
        Scores as `evaluate` writes them, None for undefined.
    name : str
        Which score.
    reference : float or None
        Where a dashed line is drawn (chance, no difference); always in sight.
    top : float or None
        A value that is always in sight, such as the best one.

    Returns
    -------
    dict
        `low`, `high`, `width`, `reference` (x or None) and `ticks` (x, label).
    """
    known = [value for row in rows for value in (row.get(name), *bounds(row, name)) if value is not None]
    known += [value for value in (reference, top) if value is not None]
    ticks, digits = nice_ticks(min(known, default=0.0), max(known, default=1.0))
    axis = {"low": ticks[0], "high": ticks[-1], "width": FOREST_WIDTH}
    labels = [(_forest_x(value, axis), f"{value:.{digits}f}".replace("-", "−")) for value in ticks]
    return axis | {
        "ticks": labels,
        "reference": None if reference is None else _forest_x(reference, axis),
    }


def forest_mark(scores: dict[str, Any], axis: dict[str, Any], name: str = "auc") -> dict[str, float] | None:
    """Place the dot and the interval of one row; None where the score or its interval is undefined."""
    low, high = bounds(scores, name)
    if scores.get(name) is None or low is None or high is None:
        return None
    places = {"x": scores[name], "low": low, "high": high}
    return {key: _forest_x(value, axis) for key, value in places.items()}


def forest_place(value: float | None, axis: dict[str, Any]) -> float | None:
    """Place a mark without an interval, such as the floor; None where it is undefined or off the axis."""
    return None if value is None or not axis["low"] <= value <= axis["high"] else _forest_x(value, axis)


def line_chart(epochs: list[int], series: dict[str, list[float]], best: int) -> dict[str, Any]:
    """Lay out a chart of figures per epoch.

    Parameters
    ----------
    epochs : list of int
        From 1.
    series : dict
        Name to one value per epoch; NaN leaves a gap.
    best : int
        The epoch to mark.

    Returns
    -------
    dict
        `width`, `height`, `box` (left, top, right, bottom), `lines` (name, path, dots, end), `x_ticks` and `y_ticks`
        (position, label), `best` (x).
    """
    values = [value for line in series.values() for value in line if math.isfinite(value)] or [0.0, 1.0]
    ticks, digits = nice_ticks(min(values), max(values))
    right, bottom = CHART_WIDTH - _RIGHT, CHART_HEIGHT - _BOTTOM
    first, last = epochs[0], max(epochs[-1], epochs[0] + 1)

    def x(epoch: float) -> float:
        return round(_LEFT + (right - _LEFT) * (epoch - first) / (last - first), 1)

    def y(value: float) -> float:
        return round(bottom - (bottom - _TOP) * (value - ticks[0]) / (ticks[-1] - ticks[0]), 1)

    lines = []
    for name, line in series.items():
        known = [
            (x(epoch), y(value)) if math.isfinite(value) else None for epoch, value in zip(epochs, line, strict=True)
        ]
        dots = [point for point in known if point]
        lines.append({"name": name, "path": _with_gaps(known), "dots": dots, "end": dots[-1] if dots else None})
    _spread_ends(lines)
    every = math.ceil(len(epochs) / _MOST_EPOCH_TICKS)
    return {
        "width": CHART_WIDTH,
        "height": CHART_HEIGHT,
        "box": (_LEFT, _TOP, right, bottom),
        "lines": lines,
        "x_ticks": [(x(epoch), str(epoch)) for epoch in epochs if epoch == 1 or epoch % every == 0],
        "y_ticks": [(y(value), f"{value:.{digits}f}") for value in ticks],
        "best": x(best),
    }


def nice_ticks(low: float, high: float, most: int = 6) -> tuple[list[float], int]:
    """Return round tick values that enclose `low` to `high`, and how many decimals they need.

    The step is 1, 2 or 5 times a power of ten, the smallest that needs no more than `most` ticks.
    """
    span = high - low
    if span < 1e-6 * max(abs(low), abs(high), 1.0):  # as good as equal: a tenth of the value, not the rounding, to see
        span = 0.1 * max(abs(low), abs(high), 0.1)
    power = 10.0 ** math.floor(math.log10(span / most))
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first < most:
            break
    last = max(last, first + 1)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [round(k * step, 12) for k in range(first, last + 1)], digits


def _forest_x(value: float, axis: dict[str, Any]) -> float:
    share = float((value - axis["low"]) / (axis["high"] - axis["low"]))
    return round(_FOREST_MARGIN + (FOREST_WIDTH - 2 * _FOREST_MARGIN) * share, 1)


def _with_gaps(points: list[tuple[float, float] | None]) -> str:
    parts, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
        else:
            parts.append(f"{pen}{plain(point[0])} {plain(point[1])}")
            pen = "L"
    return " ".join(parts)


def _spread_ends(lines: list[dict[str, Any]], apart: float = 13.0) -> None:
    """Give each line's label, at its right end, a height that does not overlap the one above."""
    below = -math.inf
    for line in sorted((line for line in lines if line["end"]), key=lambda line: float(line["end"][1])):
        below = max(below + apart, line["end"][1])
        line["label_y"] = round(below + 4, 1)


def plain(value: float) -> str:
    """Print a coordinate with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")
