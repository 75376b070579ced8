"""Section: whether the model looks where readers drew boxes, and what that has to beat."""

from typing import Any

from pipeline.findings import readable
from pipeline.reporting.figures import forest_axis, forest_mark, forest_place
from pipeline.reporting.page import Section
from pipeline.reporting.summary import Document
from pipeline.reporting.text import cell, counted, level, number

BASELINES = {
    "chance": "a point drawn at random on the film",
    "average_map": "the mean map of the same finding on other patients' films",
    "shuffled": "the same network with its weights shuffled",
}


def section(localisation: Document) -> Section:
    """Gather the pointing game and the overlaps.

    Parameters
    ----------
    localisation : dict or None
        `localisation.json`; None where it was not scored, and without findings where no test image has a box.
    """
    found = localisation or {}
    findings = found.get("findings") or {}
    if not findings:
        return Section("localisation", "Where the model looks", {"rows": [], "why": why_not(localisation)})
    entries = [(readable(name), row, _counts(row)) for name, row in findings.items()]
    if len(entries) > 1:
        n = found["macro"]["n_findings"]
        entries.append((f"Mean of {counted(n, 'finding')}", found["macro"], []))
    points = [{"pointing": value} for _, row, _ in entries for value in (row.get("chance"), *_others(row).values())]
    axis = forest_axis([*(row for _, row, _ in entries), *points], "pointing", reference=None, top=1.0)
    content = {
        "rows": [_row(name, row, counts, axis) for name, row, counts in entries],
        "axis": axis,
        "why": "",
        "level": level(found["confidence"]),
        "counts": _basis(found),
        "overlaps": [_overlap(name, row) for name, row, _ in entries],
        "thresholds": {kind: [f"{each['threshold']:g}" for each in entries[0][1][kind]] for kind in ("iou", "iobb")},
        "flat": sum(row.get("n_flat", 0) for row in findings.values()),
        "left_out": _left_out(found.get("left_out")),
        "unlabelled": found.get("n_unlabelled", 0),
        "baselines": BASELINES,
    }
    return Section("localisation", "Where the model looks", content)


def why_not(localisation: Document) -> str:
    """Say why there is nothing to show."""
    if localisation is None:
        return "Not scored: there are no boxes for these images, or evaluate.localise is false."
    return "Not scored: no test image has a reader's box of a finding that the model knows."


def _basis(found: dict[str, Any]) -> str:
    images, patients = counted(found["n_images"], "image"), counted(found["n_patients"], "patient")
    return f"{found['n_boxes']:,} {'box' if found['n_boxes'] == 1 else 'boxes'} on {images} of {patients}"


def _counts(row: dict[str, Any]) -> list[str]:
    return [f"{row[key]:,}" for key in ("n_boxes", "n_images", "n_patients")]


def _others(row: dict[str, Any]) -> dict[str, float | None]:
    return {name: (row.get(name) or {}).get("pointing") for name in ("average_map", "shuffled")}


def _row(name: str, row: dict[str, Any], counts: list[str], axis: dict[str, Any]) -> dict[str, Any]:
    others = {"chance": row.get("chance")} | _others(row)
    return {
        "name": name,
        "mean": not counts,
        "pointing": cell(row, "pointing"),
        "mark": forest_mark(row, axis, "pointing"),
        "others": {key: (number(value), forest_place(value, axis)) for key, value in others.items()},
        "above": [cell(row, f"above_{key}", plus=True) | {"other": number(others[key])} for key in BASELINES],
        "counts": counts or ["", "", ""],
    }


def _overlap(name: str, row: dict[str, Any]) -> dict[str, Any]:
    def shares(entry: dict[str, Any], kind: str) -> list[dict[str, str]]:
        return [cell(each, "localised") for each in entry.get(kind, [])]

    return {"name": name, "iou": shares(row, "iou"), "iobb": shares(row, "iobb")}


def _left_out(reasons: Any) -> list[tuple[str, int]]:
    return (
        [(str(reason), int(count)) for reason, count in reasons.items() if count] if isinstance(reasons, dict) else []
    )
