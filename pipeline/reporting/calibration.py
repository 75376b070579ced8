"""Section: whether the outputs can be read as probabilities, before and after calibration."""

from typing import Any

import pandas as pd

from pipeline.findings import readable
from pipeline.reporting.page import Section
from pipeline.reporting.panels import reliability_panel
from pipeline.reporting.summary import Document
from pipeline.reporting.text import cell, counted, estimate, level, listed, number

METHODS = {
    "none": "none",
    "temperature": "temperature scaling",
    "platt": "Platt scaling",
    "isotonic": "isotonic regression",
}


def section(metrics: dict[str, Any], calibration: Document, reliability: pd.DataFrame | None) -> Section:
    """Gather calibrators, errors and reliability diagrams.

    Parameters
    ----------
    metrics : dict
        `metrics.json`.
    calibration : dict or None
        `calibration.json`; None where no validation images are known.
    reliability : DataFrame or None
        `reliability.csv`.
    """
    fitted = (calibration or {}).get("findings", {})
    findings, macro = metrics["test"]["findings"], metrics["test"]["macro"]
    calibrated = any(row["method"] != "none" for row in fitted.values())
    rows = [_row(readable(name), scores, fitted.get(name)) for name, scores in findings.items()]
    if len(rows) > 1:
        rows.append(
            _row(f"Mean of {counted(macro['n_findings'], 'finding')}", macro, None) | {"mean": True, "method": ""}
        )
    content = {
        "rows": rows,
        "calibrated": calibrated,
        "sentence": sentence(calibration),
        "chosen_by": (calibration or {}).get("chosen_by", ""),
        "unfitted": [f"{readable(name)}: {row['note']}" for name, row in fitted.items() if row.get("note")],
        "losses": _losses(fitted),
        "panels": []
        if reliability is None
        else [_panel(name, findings[name], fitted.get(name), reliability) for name in findings],
        "level": level(metrics["confidence"]),
    }
    return Section("calibration", "Calibration", content)


def sentence(calibration: Document) -> str:
    """Say how many findings were calibrated, by what, and on which images."""
    fitted = (calibration or {}).get("findings", {})
    if not fitted:
        return (
            "No calibrator was fitted: there were no validation images to fit it on. The outputs are shown as they are."
        )
    counts = {method: sum(row["method"] == method for row in fitted.values()) for method in METHODS}
    used = [f"{METHODS[method]} for {n}" for method, n in counts.items() if n and method != "none"]
    if not used:
        return f"No calibrator changes the outputs of {'the' if len(fitted) == 1 else 'any'} finding."
    if len(fitted) == 1:
        return f"Calibrated by {used[0].removesuffix(' for 1')}, fitted on the validation images only."
    rest = f"; the output of {counts['none']} is left as it is" if counts["none"] else ""
    return f"Of {counted(len(fitted), 'finding')}: {listed(used)}{rest}. Fitted on the validation images only."


def _row(name: str, scores: dict[str, Any], fitted: dict[str, Any] | None) -> dict[str, Any]:
    untouched = fitted is not None and fitted["method"] == "none"
    return {
        "name": name,
        "mean": False,
        "method": METHODS.get((fitted or {}).get("method", "none"), "none"),
        "brier": cell(scores, "brier"),
        "ece": cell(scores, "ece"),
        "chance": number(scores.get("ece_chance")),
        "after": None if untouched else [cell(scores, name) for name in ("calibrated_ece", "calibrated_brier")],
        "parts": [number(scores.get(key)) for key in ("reliability", "resolution", "uncertainty", "within_bin")],
        "counts": [f"{scores[key]:,}" for key in ("n_positive", "n_negative")] if "n_positive" in scores else ["", ""],
    }


def _losses(fitted: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": readable(name),
            "losses": [(number(row["log_loss"].get(method)), method == row["method"]) for method in METHODS],
            "counts": [f"{row['n_positive']:,}", f"{row['n_negative']:,}"],
        }
        for name, row in fitted.items()
    ]


def _panel(
    name: str, scores: dict[str, Any], fitted: dict[str, Any] | None, reliability: pd.DataFrame
) -> dict[str, Any]:
    changed = fitted is not None and fitted["method"] != "none" and scores.get("calibrated_ece") is not None
    after = f", calibrated {estimate(scores, 'calibrated_ece')}" if changed else ""
    points = reliability[reliability["finding"] == name]
    if not changed:  # equal to the raw ones
        points = points[points["calibrated"] == "raw"]
    shown = reliability_panel(points) if scores.get("ece") is not None else None
    bins = int(points["bin"].nunique())
    return {
        "name": readable(name),
        "caption": f"Calibration error: raw {estimate(scores, 'ece')}{after}; {counted(bins, 'bin')}."
        if shown
        else "Undefined: no image whose label is known.",
        "panel": shown,
        "kinds": ["raw", "calibrated"] if changed else ["raw"],
    }
