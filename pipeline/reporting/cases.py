"""Section: single test images with heat maps over them: true positives, misses, false alarms, confident mistakes."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.errors import UserError
from pipeline.findings import readable
from pipeline.reporting.examples import data_uri
from pipeline.reporting.page import Section
from pipeline.reporting.summary import Document
from pipeline.reporting.text import VIEWS

_TITLES = {
    "true positive": "True positives",
    "miss": "Misses",
    "false alarm": "False alarms",
    "confident mistake": "Most confident mistakes",
}
_MEANINGS = {
    "true positive": "The finding is labelled and the model flags it.",
    "miss": "The finding is labelled and the model does not flag it.",
    "false alarm": "The finding is not labelled and the model flags it.",
    "confident mistake": "The misses with the lowest and the false alarms with the highest outputs of their finding.",
}


def section(cases: Document, folder: Path) -> Section:
    """Gather the cases and their pictures.

    Parameters
    ----------
    cases : dict or None
        `cases.json`.
    folder : Path
        Where it lies, with its pictures.

    Raises
    ------
    UserError
        If a picture is missing or is no picture.
    """
    listed = (cases or {}).get("cases", [])
    available = (cases or {}).get("available", {})
    kinds = [
        {
            "title": title,
            "meaning": _MEANINGS[kind],
            "of": f"{available[kind]:,}" if kind in available else "",
            "cases": [_case(case, folder) for case in listed if case["kind"] == kind],
        }
        for kind, title in _TITLES.items()
    ]
    shown = [kind for kind in kinds if kind["cases"]]
    content = {"kinds": shown, "has_box": any(case.get("has_box") for case in listed)}
    return Section("cases", "Hits, misses and false alarms", content)


def _case(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {
        "finding": readable(case["finding"]),
        "label": "present" if case["label"] else "absent",
        "output": f"{case['probability']:.3g}",
        "threshold": f"{case['threshold']:.3g}",
        "view": VIEWS.get(case.get("view") or "", f"{case.get('view')} view"),
        "confidence": _confidence(case),
        "no_map": not case.get("has_map", True),
        "alt": case["alt"],
        "uri": embed(folder / Path(case["file"]).name),
        "width": case["width"],
        "height": case["height"],
    }


def embed(path: Path) -> str:
    """Return a picture as a data URI, as JPEG: a tenth of the PNG's size, so that the page stays light."""
    pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR) if path.is_file() else None
    if pixels is None:
        raise UserError(f"{path} is missing or is no picture: run `cxr evaluate` again")
    return data_uri(np.asarray(pixels, np.uint8), "jpeg")


def _confidence(case: dict[str, Any]) -> str:
    """Say of a mistake how far out its output lies among all images."""
    if case["kind"] == "true positive":
        return ""
    side = "lower" if case["probability"] >= case["threshold"] else "higher"
    return f"{100 * case['confidence']:.0f}% of the images have a {side} output"
