"""The page of `compare`: the sentences, a forest plot of the differences, and the tables."""

from typing import Any

from pipeline.compare_text import NAMES, is_shown, many, of
from pipeline.findings import readable
from pipeline.reporting.figures import forest_axis, forest_mark
from pipeline.reporting.page import Section, render_page
from pipeline.reporting.results import METHODS
from pipeline.reporting.summary import Notice
from pipeline.reporting.text import cell, level, number, p_value, why_undefined
from pipeline.statistics.paired import SCORES

RESEARCH = Notice(
    "For research only, not a medical device",
    "Neither model has been validated for clinical use; they must not be used for diagnosis or treatment.",
)
_MOST_LABELS = 5


def render(result: dict[str, Any]) -> str:
    """Return the page's text; `result` is what `compare.json` holds."""
    files = ", ".join(f"{side.upper()} is {result[side]['file']}" for side in ("a", "b"))
    return render_page(
        "Two models on the same images",
        f"{result['sentences'][0]} {files}.",
        [RESEARCH],
        [differences(result), other_scores(result), compared(result)],
    )


def differences(result: dict[str, Any]) -> Section:
    """Gather the sentences, the forest plot of the AUROC and its table."""
    named, axis = _named(result), _axis(result)
    content = {
        "sentences": result["sentences"][1:],
        "rows": [_row(name, row, axis, result) for name, row in named],
        "axis": axis,
        "level": level(result["confidence"]),
        "alpha": f"{1 - result['confidence']:.6g}",
        "method": METHODS[result["interval"]],
        "resamples": result["resamples"],
        "least": f"{result['least_p_value']:.2g}",
        "delong": result["one_image_each"],
    }
    return Section("comparison", "Differences", content)


def other_scores(result: dict[str, Any]) -> Section:
    """Gather the differences of average precision and Brier score."""
    rows = [
        {"name": name, "mean": row is result["macro"], "others": [_other(row, score) for score in SCORES[1:]]}
        for name, row in _named(result)
    ]
    names = [NAMES[score][:1].upper() + NAMES[score][1:] for score in SCORES[1:]]
    content = {"rows": rows, "others": names, "level": level(result["confidence"])}
    return Section("comparison-others", "Average precision and Brier score", content)


def compared(result: dict[str, Any]) -> Section:
    """Gather what was compared."""
    files = [(side.upper(), result[side]["file"], result[side]["sha256"]) for side in ("a", "b")]
    return Section("compared", "What was compared", {"files": files})


def _named(result: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the findings and, where there are several, their mean."""
    rows = [(readable(name), row) for name, row in result["findings"].items()]
    return [*rows, (f"Mean of {result['macro']['n_findings']} findings", result["macro"])] if many(result) else rows


def _axis(result: dict[str, Any]) -> dict[str, Any]:
    """Return the axis of the differences; of many ticks every second is labelled, no difference always."""
    axis = forest_axis([row["difference"] for _, row in _named(result)], reference=0.0, top=None)
    places = [x for x, _ in axis["ticks"]]
    if len(places) > _MOST_LABELS and axis["reference"] in places:
        zero = places.index(axis["reference"])
        axis["ticks"] = [(x, "" if (k - zero) % 2 else text) for k, (x, text) in enumerate(axis["ticks"])]
    return axis


def _row(name: str, row: dict[str, Any], axis: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    difference = row["difference"]
    undefined = ""
    if difference["auc"] is None:
        undefined = why_undefined(row, result["images"]) if "n_positive" in row else "no finding is defined"
    return {
        "name": name,
        "mean": row is result["macro"],
        "undefined": undefined,
        "a": cell(row["a"]),
        "b": cell(row["b"]),
        "difference": cell(difference, plus=True),
        "mark": forest_mark(difference, axis),
        "p": _p(difference.get("p_value")),
        "p_adjusted": _p(difference.get("p_adjusted")),
        "p_delong": _p(difference.get("delong_p_value")),
        "shown": is_shown(difference, "auc", result["confidence"], adjusted=True),
        "counts": [f"{row[key]:,}" if key in row else "" for key in ("n_positive", "n_negative")],
    }


def _other(row: dict[str, Any], score: str) -> dict[str, Any]:
    difference = row["difference"]
    adjusted = difference.get(of(score, "p_adjusted"), difference[of(score, "p_value")])
    return {
        "a": number(row["a"][score]),
        "b": number(row["b"][score]),
        "difference": cell(difference, score, plus=True),
        "p": _p(adjusted),
    }


def _p(value: float | None) -> str:
    return "" if value is None else p_value(value)
