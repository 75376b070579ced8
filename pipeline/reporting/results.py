"""Section: the main table, a row for each finding and their mean, with the floor and a forest plot."""

from typing import Any

from pipeline.findings import readable
from pipeline.reporting.figures import forest_axis, forest_mark, forest_place
from pipeline.reporting.page import Section
from pipeline.reporting.summary import Document, has_floor, not_above_chance
from pipeline.reporting.text import (
    UNDEFINED,
    cell,
    counted,
    estimate,
    interval,
    level,
    listed,
    number,
    percent,
    why_undefined,
)

METHODS = {
    "expanded": "expanded percentile (Hesterberg 2015)",
    "bca": "bias-corrected and accelerated (BCa; Efron 1987)",
    "percentile": "percentile",
}
_FEATURES = {
    "view": "view position",
    "sex": "sex",
    "age": "age",
    "followup": "follow-up number",
    "width": "width",
    "height": "height",
}


def section(metrics: dict[str, Any], floor: Document, *, trained_here: bool = True) -> Section:
    """Gather the main table.

    Parameters
    ----------
    metrics : dict
        `metrics.json`; null is NaN, the undefined.
    floor : dict or None
        `floor.json`; None, or one without `macro`, where no training images are known.
    trained_here : bool
        Whether this pipeline trained the model, and so knows that the test images took part in no decision.
    """
    test = metrics["test"]
    marked = [*test["findings"].values(), test["macro"]]
    of_floor = floor if has_floor(floor) else None
    if of_floor:
        marked += [{"auc": row["auc"]} for row in (*of_floor["findings"].values(), of_floor["macro"])]
    axis = forest_axis(marked)
    content = {
        "rows": rows_of(metrics, of_floor, axis),
        "axis": axis,
        "level": level(metrics["confidence"]),
        "method": METHODS[metrics["interval"]] if metrics.get("interval") else "bootstrap",
        "resamples": metrics["resamples"],
        "flip": metrics.get("flip", False),
        "ensemble": metrics.get("ensemble", False),
        "has_unknown": any(row["n_unknown"] for row in test["findings"].values()),
        "below_chance": listed(not_above_chance(metrics)),
        "n_findings": len(test["findings"]),
        "validation": validation(metrics) if trained_here else "",
        "trained_here": trained_here,
        "floor": about_floor(floor),
        "has_floor": of_floor is not None,
        "bounds": all_bounds(metrics),
        "delong": test.get("one_image_each", False),
    }
    return Section("results", "Results on the test images", content)


def rows_of(metrics: dict[str, Any], floor: Document, axis: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the table, each finding and then the mean over those that are defined."""
    test = metrics["test"]
    rows = [
        _row(readable(name), scores, _floor_of(floor, name), axis)
        | {"undefined": why_undefined(scores, test["images"]) if scores["auc"] is None else ""}
        | {"counts": [f"{scores[key]:,}" for key in ("n_positive", "n_negative", "n_unknown")]}
        | {"prevalence": percent(scores.get("prevalence"))}
        for name, scores in test["findings"].items()
    ]
    if len(rows) == 1:  # the mean of one finding is that finding, and a second row would only repeat it
        return rows
    macro = test["macro"]
    of_floor = None if floor is None else (floor["macro"], floor["macro_difference"])
    mean = _row(f"Mean of {counted(macro['n_findings'], 'finding')}", macro, of_floor, axis)
    if floor is not None and floor["macro"]["n_findings"] != macro["n_findings"]:
        mean["floor_note"] = f"of {counted(floor['macro']['n_findings'], 'finding')}"
    undefined = "no finding is defined" if macro["auc"] is None else ""
    return [*rows, mean | {"mean": True, "undefined": undefined, "counts": ["", "", ""], "prevalence": ""}]


def about_floor(floor: Document) -> dict[str, str]:
    """Say what the floor is and how far the model is above it; or why there is none."""
    if not has_floor(floor):
        notes = str((floor or {}).get("notes") or "")
        why = f" ({notes})" if notes else ""
        return {"text": f"There is no metadata floor for these images{why}.", "difference": "", "notes": ""}
    assert floor is not None
    names = listed([_FEATURES.get(name, name) for name in floor["features"]])
    text = (
        f"The floor is a logistic regression that sees no pixel, only {names}, fitted on the training images and "
        "scored on the same test images. A network that does no better may have read how the film was taken and not "
        "the chest (DeGrave et al., Nature Machine Intelligence 2021;3:610–619)."
    )
    n = floor["macro"]["n_findings"]
    over = ("mean of " if len(floor["findings"]) > 1 else "") + counted(n, "finding")
    difference = f"{estimate(floor['macro_difference'], 'difference', plus=True)}, {over}"
    notes = str(floor.get("notes") or "")
    return {"text": text, "difference": difference, "notes": f"{notes[:1].upper()}{notes[1:]}." if notes else ""}


def validation(metrics: dict[str, Any]) -> str:
    """Print the validation split's mean AUC with its interval, or nothing if it is not known."""
    macro = metrics.get("val", {}).get("macro", {})
    if macro.get("auc") is None:
        return ""
    n = macro.get("n_findings", len(metrics["val"].get("findings", [])))
    over = f", mean of {counted(n, 'finding')}" if len(metrics["test"]["findings"]) > 1 else ""
    return f"{number(macro['auc'])} ({interval(macro)}){over}"


def all_bounds(metrics: dict[str, Any]) -> list[dict[str, str]]:
    """Return every interval that was computed for each defined AUC: of the bootstrap and, where it holds, DeLong."""
    rows = [(readable(name), row) for name, row in metrics["test"]["findings"].items()]
    rows += [("Mean", metrics["test"]["macro"])] if len(rows) > 1 else []
    return [
        {"name": name, "auc": number(row["auc"])}
        | {kind: _between(row, kind) for kind in ("expanded", "percentile", "bca", "delong")}
        | {"n_resamples": f"{row['n_resamples']:,}" if row.get("n_resamples") is not None else UNDEFINED}
        for name, row in rows
        if row["auc"] is not None
    ]


def _floor_of(floor: Document, name: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    return None if floor is None else (floor["findings"][name], floor["differences"][name])


def _row(
    name: str, scores: dict[str, Any], floor: tuple[dict[str, Any], dict[str, Any]] | None, axis: dict[str, Any]
) -> dict[str, Any]:
    of_floor, difference = floor or ({}, {})
    return {
        "name": name,
        "mean": False,
        "auc": cell(scores),
        "precision": cell(scores, "average_precision"),
        "mark": forest_mark(scores, axis),
        "floor": number(of_floor.get("auc")),
        "floor_mark": forest_place(of_floor.get("auc"), axis),
        "floor_note": "",
        "difference": cell(difference, "difference", plus=True),
    }


def _between(row: dict[str, Any], kind: str) -> str:
    low, high = row.get(f"{kind}_low"), row.get(f"{kind}_high")
    return UNDEFINED if low is None or high is None else f"{number(low)} to {number(high)}"
