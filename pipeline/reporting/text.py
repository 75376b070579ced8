"""Numbers and words as the report prints them; what is undefined is said so and never printed as a number."""

from typing import Any

from pipeline.findings import readable

UNDEFINED = "undefined"
SPLITS = {"train": "Training", "val": "Validation", "test": "Test"}
VIEWS = {"PA": "PA view", "AP": "AP view", "L": "lateral view", "": "view unknown"}


def number(value: float | None) -> str:
    """Print a score with three decimals; null, which is NaN, is never printed as a number."""
    return UNDEFINED if value is None else f"{value:.3f}".replace("-", "−")


def signed(value: float | None) -> str:
    """Print a difference with its sign and three decimals."""
    return UNDEFINED if value is None else f"{value:+.3f}".replace("-", "−")


def percent(share: float | None, digits: int = 1) -> str:
    """Print a share with one decimal."""
    return "–" if share is None else f"{100 * share:.{digits}f}%"


def p_value(value: float | None) -> str:
    """Print a p value with three decimals, and small ones as `<0.001`."""
    if value is None:
        return UNDEFINED
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def level(confidence: float) -> str:
    """Print a confidence level, such as `95%`."""
    return f"{round(100 * confidence, 6):g}%"


def bounds(scores: dict[str, Any], name: str = "auc") -> tuple[float | None, float | None]:
    """Return the bounds of a score's interval; `ci_low` and `ci_high` are those of `auc`, else `NAME_ci_low` ….

    The names are those of `pipeline.statistics.bootstrap.Estimate.as_dict`.
    """
    prefix = "" if name == "auc" else f"{name}_"
    return scores.get(f"{prefix}ci_low"), scores.get(f"{prefix}ci_high")


def interval(scores: dict[str, Any], name: str = "auc", *, plus: bool = False) -> str:
    """Print the bounds of a score's interval; 'undefined' if there is none."""
    low, high = bounds(scores, name)
    if low is None or high is None:
        return UNDEFINED
    shown = signed if plus else number
    return f"{shown(low)} to {shown(high)}"


def percent_interval(scores: dict[str, Any], name: str) -> str:
    """Print the bounds of a share's interval in percent."""
    low, high = bounds(scores, name)
    return UNDEFINED if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}%"


def estimate(scores: dict[str, Any], name: str = "auc", *, plus: bool = False) -> str:
    """Print a score with its interval in brackets."""
    if scores.get(name) is None:
        return UNDEFINED
    return f"{(signed if plus else number)(scores[name])} ({interval(scores, name, plus=plus)})"


def cell(scores: dict[str, Any], name: str = "auc", *, plus: bool = False) -> dict[str, str]:
    """Return `value` and `interval` for a cell of a table; the interval of an undefined value is empty."""
    if scores.get(name) is None:
        return {"value": UNDEFINED, "interval": ""}
    return {"value": (signed if plus else number)(scores[name]), "interval": interval(scores, name, plus=plus)}


def counted(count: int, noun: str) -> str:
    """Print a count with its noun: `1 patient`, `1,204 patients`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(names: list[str]) -> str:
    """Join words as prose does: a, b and c."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def prose(name: str) -> str:
    """Return a finding's name as it stands within a sentence: `pleural thickening`, `COVID-19`."""
    words = readable(name)
    return words if name.partition("_")[0].isupper() else words[:1].lower() + words[1:]


def why_undefined(scores: dict[str, Any], images: int) -> str:
    """Say why a finding has no AUC."""
    if not scores["n_positive"] and not scores["n_negative"]:
        return f"its label is unknown in all {images:,} test images"
    kind = "positive" if not scores["n_positive"] else "negative"
    return f"no {kind} image in the test split"
