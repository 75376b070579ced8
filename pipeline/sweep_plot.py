"""The trials of a sweep as lines over parallel axes, one for each searched key and the last for the validation AUC.

Parallel coordinates (Inselberg, The Visual Computer 1985;1:69-91), as an SVG file of its own that asks for nothing.
Optuna's figure of that name leaves out every trial that lacks a key, and those that were pruned.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from pipeline.params.sweep import Space
from pipeline.sweep_table import Tried, best_of, shown

_APART, _HEIGHT = 170.0, 260.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 140.0, 150.0, 60.0, 60.0  # the foot is as wide as the figure of one key
_ABSENT = 24.0  # how far below an axis a trial passes that does not use its key
_LOW, _HIGH = (200, 215, 230), (8, 60, 120)  # colours of the lowest and the highest AUC


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes
    ----------
    name : str
        Its heading.
    places : dict
        Value to height, 0 at the bottom and 1 at the top, for an axis of values; empty for a range.
    low, high : float
        Ends of a range.
    log : bool
        Whether the range is logarithmic.
    """

    name: str
    places: Mapping[Any, float]
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    def height(self, value: Any) -> float | None:
        """Return where a value lies, from 0 to 1; None for no value."""
        if value is None or value != value:
            return None
        if self.places:
            return self.places[value]
        low, high, at = (math.log(x) if self.log else float(x) for x in (self.low, self.high, value))
        return (at - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return heights and their labels: every value, or both ends and the middle of a range."""
        if self.places:
            return [(height, shown(value)) for value, height in self.places.items()]
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return [(height, f"{value:.3g}") for height, value in ((0.0, self.low), (0.5, middle), (1.0, self.high))]


def axes_of(trials: Sequence[Tried], search: Mapping[str, Space]) -> list[Axis]:
    """Return an axis for each key in the order of the search, and that of the validation AUC, from worst to best."""
    axes = []
    for key, space in search.items():
        if "values" in space:
            apart = max(1, len(space["values"]) - 1)
            axes.append(Axis(key, {value: k / apart for k, value in enumerate(space["values"])}))
        else:
            axes.append(Axis(key, {}, space["low"], space["high"], bool(space.get("log", False))))
    known = [item.val_auc for item in trials if item.val_auc == item.val_auc] or [0.5]
    low, high = min(known), max(known)
    return [*axes, Axis("validation AUC", {}, low, high if high > low else low + 0.01)]


def parallel_svg(trials: Sequence[Tried], search: Mapping[str, Space]) -> str:
    """Draw the trials that have a validation AUC; the pruned dashed, the best one thick."""
    axes = axes_of(trials, search)
    width, height = _LEFT + _APART * (len(axes) - 1) + _RIGHT, _TOP + _HEIGHT + _BOTTOM
    best = best_of(trials)
    drawn = sorted((item for item in trials if item.val_auc == item.val_auc), key=lambda item: item.val_auc)
    lines = [_line(item, axes, thick=item is best) for item in drawn]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" font-family="sans-serif" font-size="12">'
    )
    title = f"<title>{len(drawn)} trials: validation AUC over {', '.join(map(escape, search))}</title>"
    paper = f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>'
    marks = [part for k, axis in enumerate(axes) for part in _axis(axis, _x(k), last=k == len(axes) - 1)]
    legend = "dark: a high AUC; dashed: pruned; thick: the best; below an axis: its key had no part"
    foot = f'<text x="10" y="{height - 10:g}" fill="#555555" font-size="11">{legend}</text>'
    return "\n".join([head, title, paper, *lines, *marks, foot, "</svg>\n"])


def _x(k: int) -> float:
    return _LEFT + _APART * k


def _y(height: float | None) -> float:
    return _TOP + _HEIGHT + _ABSENT if height is None else round(_TOP + _HEIGHT * (1 - height), 1)


def _line(item: Tried, axes: Sequence[Axis], *, thick: bool) -> str:
    heights = [axis.height(item.values.get(axis.name)) for axis in axes[:-1]] + [axes[-1].height(item.val_auc)]
    points = " ".join(f"{_x(k):g},{_y(height):g}" for k, height in enumerate(heights))
    share = heights[-1] or 0.0
    colour = "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(_LOW, _HIGH, strict=True))
    dashes = ' stroke-dasharray="5 4"' if item.state == "pruned" else ""
    values = ", ".join(f"{key} {shown(value)}" for key, value in item.values.items())
    title = escape(f"trial {item.number}, {item.state}: {values}, validation AUC {item.val_auc:.4f}")
    return (
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{4 if thick else 1.5:g}"{dashes}>'
        f"<title>{title}</title></polyline>"
    )


def _axis(axis: Axis, x: float, *, last: bool) -> list[str]:
    # Right of the last axis there are no lines.
    beside, anchor = (x + 6, "start") if last else (x - 6, "end")
    section, _, name = axis.name.rpartition(".")
    parts = [
        f'<text x="{x:g}" y="{_TOP - 32:g}" text-anchor="middle" fill="#555555">{escape(section)}</text>',
        f'<text x="{x:g}" y="{_TOP - 16:g}" text-anchor="middle" font-weight="bold">{escape(name)}</text>',
        f'<line x1="{x:g}" y1="{_TOP:g}" x2="{x:g}" y2="{_TOP + _HEIGHT:g}" stroke="#333333"/>',
    ]
    parts += [
        f'<text x="{beside:g}" y="{_y(height) + 4:g}" text-anchor="{anchor}" stroke="#ffffff" stroke-width="3" '
        f'paint-order="stroke">{escape(label)}</text>'
        for height, label in axis.ticks()
    ]
    return parts
