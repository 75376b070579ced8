"""Section: what the model does at thresholds that were chosen on validation, in natural frequencies."""

from typing import Any

from pipeline.findings import readable
from pipeline.reporting.frequencies import bar, frequencies, sentence
from pipeline.reporting.page import Section
from pipeline.reporting.summary import Document
from pipeline.reporting.text import UNDEFINED, bounds, number, percent, percent_interval, prose

RATES = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "Positive predictive value",
    "npv": "Negative predictive value",
    "f1": "F1",
}
_TITLES = {
    "youden": "Youden point",
    "sensitivity": "Sensitivity of at least {requirement}",
    "specificity": "Specificity of at least {requirement}",
    "f1": "Best F1",
}
_RULES = {
    "youden": "The threshold with the largest sum of sensitivity and specificity (Youden 1950).",
    "sensitivity": "The highest threshold with this sensitivity: few are missed, more are flagged in vain.",
    "specificity": "The lowest threshold with this specificity: few are flagged in vain, more are missed.",
    "f1": "The threshold with the largest harmonic mean of sensitivity and positive predictive value.",
}


def section(points: Document, confidence: float) -> Section:
    """Gather the operating points.

    Parameters
    ----------
    points : dict or None
        `operating_points.json`; None where no validation images are known to choose a threshold on.
    confidence : float
        Level of the intervals.
    """
    if points is None:
        return Section("operating-points", "Operating points", {"points": []})
    shown: list[dict[str, Any]] = []
    for place, point in enumerate(points["points"]):
        wanted = points.get("requirement", {}).get(point)
        items = [_item(name, rows.get(point), point, wanted) for name, rows in points["findings"].items()]
        shown.append(
            {
                "id": f"point-{point}",
                "title": _TITLES[point].format(requirement=percent(wanted, 0) if wanted is not None else ""),
                "rule": _RULES[point]
                + (" Required on validation, not promised on test." if wanted is not None else ""),
                "below": [str(item["name"]) for item in items if item["below"]],
                "items": items,
                "open": place == 0,
            }
        )
    content = {
        "points": shown,
        "confidence": f"{100 * confidence:g}%",
        "rates": list(RATES.values()),
        "exact": any(item["exact"] for point in shown for item in point["items"]),
    }
    return Section("operating-points", "Operating points", content)


def _item(name: str, row: dict[str, Any] | None, point: str, wanted: float | None) -> dict[str, Any]:
    """Return one finding at one operating point; `undefined` says why there is none."""
    item: dict[str, Any] = {"name": readable(name), "below": False, "exact": False, "undefined": "", "parts": []}
    test = (row or {}).get("test")
    if row is None or test is None:
        return item | {"undefined": str((row or {}).get("why") or "no threshold could be chosen on validation")}
    counts = {key: int(test[key]) for key in ("tp", "fp", "tn", "fn")}
    if not sum(counts.values()):
        return item | {"undefined": "its label is unknown in all test images"}
    got = test.get(point) if wanted is not None else None
    return item | {
        "sentence": sentence(name, counts),
        "parts": bar(counts),
        "alt": _alt(name, counts),
        "below": got is not None and wanted is not None and got < wanted,
        "exact": any(f"{rate}_ci_method" in test for rate in RATES),
        "threshold": _threshold(row["threshold"]),
        "calibrated": _threshold(row.get("calibrated_threshold")),
        "rates": [_rate(test, rate) | {"of": of} for rate, of in zip(RATES, _parts(**counts), strict=True)],
        "on_validation": [percent((row.get("val") or {}).get(rate)) for rate in ("sensitivity", "specificity")],
        "basis": f"{counts['tp'] + counts['fn']:,} with it, {counts['fp'] + counts['tn']:,} without",
    }


def _parts(tp: int, fp: int, tn: int, fn: int) -> list[str]:
    """Say of how many images each rate is the share; F1 is none."""
    pairs = ((tp, tp + fn), (tn, tn + fp), (tp, tp + fp), (tn, tn + fn))
    return [*(f"{part:,} of {whole:,}" for part, whole in pairs), ""]


def _alt(name: str, counts: dict[str, int]) -> str:
    n = frequencies(counts)
    return (
        f"Bar of {n['base']:,} images for {prose(name)}: {n['fn']:,} missed, {n['tp']:,} found, {n['fp']:,} flagged in "
        f"vain, {n['tn']:,} rightly not flagged"
    )


def _rate(test: dict[str, Any], rate: str) -> dict[str, str]:
    """Return value and interval of a rate, in percent; F1, which is no share of images, as a number."""
    if test.get(rate) is None:
        return {"value": UNDEFINED, "interval": ""}
    mark = "†" if f"{rate}_ci_method" in test else ""
    if rate == "f1":
        low, high = bounds(test, rate)
        between = UNDEFINED if low is None or high is None else f"{number(low)} to {number(high)}"
        return {"value": number(test[rate]), "interval": between + mark}
    return {"value": percent(test[rate]), "interval": percent_interval(test, rate) + mark}


def _threshold(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.4g}"
