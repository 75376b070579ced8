"""The names of signals as people read them, and their values with units."""

from typing import Any

from pipeline.findings import readable
from pipeline.reporting.text import UNDEFINED, number, percent

_STATISTICS = {
    "mean": "mean gray value",
    "deviation": "contrast (standard deviation of gray values)",
    "p01": "darkest gray value (1st percentile)",
    "p50": "median gray value",
    "p99": "brightest gray value (99th percentile)",
    "entropy": "entropy of the gray values",
    "sharpness": "sharpness",
    "symmetry": "symmetry of left and right",
    "border": "border against the whole",
    "slope": "slope of the spectrum",
    "film_width": "film width in pixels",
    "film_height": "film height in pixels",
    "film_mean": "film as decoded: mean gray value",
    "film_deviation": "film as decoded: contrast",
    "film_p01": "film as decoded: darkest gray value",
    "film_p50": "film as decoded: median gray value",
    "film_p99": "film as decoded: brightest gray value",
    "view": "view, AP rather than PA (estimated)",
    "embedding": "features of the network (MMD)",
}
_MEASURES = {"auc": "AUROC", "calibration": "calibration (seen less expected)"}
_GATE = {"flagged": "films that the input gate flags", "failed": "files without an answer"}
FAMILIES = {
    "input": "Input",
    "prediction": "Prediction",
    "gate": "Rejections",
    "latency": "Latency",
    "accuracy": "Accuracy",
}
STATES = {"alarm": "ALARM", "warning": "warning", "note": "note", "quiet": "quiet"}


def title(name: str) -> str:
    """Return what a signal is called."""
    family, _, rest = name.partition("/")
    if family == "input":
        return _STATISTICS.get(rest, rest)
    if family == "gate":
        return _GATE.get(rest, rest)
    if family == "latency":
        return f"time of step {rest}"
    finding, _, kind = rest.partition("/")
    shown = "mean of all findings" if finding == "mean" else readable(finding)
    if family == "prediction":
        return f"{shown}: share called" if kind else f"{shown}: output"
    return f"{shown}: {_MEASURES.get(kind, kind)}"


def values(row: dict[str, Any]) -> tuple[str, str]:
    """Print a signal's value before and after."""
    return _value(row, row.get("before")), _value(row, row.get("after"))


def size(row: dict[str, Any]) -> str:
    """Print how far a signal moved, in the measure of its kind."""
    value = row.get("size")
    if value is None:
        return UNDEFINED
    kind = row.get("kind")
    if kind == "share":
        return f"{100 * value:.1f} points"
    if kind == "distance":
        return f"MMD {value:.3f}"
    if kind == "accuracy":
        return number(value)
    return f"KS {value:.2f}"


def _value(row: dict[str, Any], value: float | None) -> str:
    if value is None:
        return "–"
    if row.get("kind") == "share":
        return percent(value)
    if row.get("kind") == "latency":
        return f"{value:.3g} ms"
    if row["name"] == "input/view":
        return f"{value:+.2f}".replace("-", "−")
    return f"{value:.3f}".replace("-", "−") if abs(value) < 10 else f"{value:,.0f}".replace("-", "−")
