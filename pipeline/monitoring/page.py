"""`monitor.html`: what changed, since when, by how much, what to do; then everything that was watched."""

from typing import Any

from pipeline.files import without_nan
from pipeline.findings import readable
from pipeline.monitoring.intervals import LEAST
from pipeline.monitoring.telling import changed, when
from pipeline.monitoring.words import FAMILIES, STATES, size, title, values
from pipeline.reporting.page import RESEARCH_ONLY, Section, render_page
from pipeline.reporting.summary import KeyFigure, Notice
from pipeline.reporting.text import UNDEFINED, counted, number, p_value, percent

_WIDTH, _HEIGHT = 180.0, 34.0
_SHOWN = 15  # of the signals that changed; all are in the table of everything
_HEADLINES = {
    "alarm": "Alarm: this deployment is no longer what was evaluated.",
    "warning": "Warning: the newest window differs from what was evaluated.",
    "note": "Quiet. Something moved that the rules only note.",
    "quiet": "Quiet: no difference from what was evaluated was found.",
}


def render(document: dict[str, Any]) -> str:
    """Return the page's text; `document` is what `monitor.json` holds."""
    document = without_nan(document)
    rows = changed(document, "alarm", "warning", "note")
    sections = [
        Section("monitor-changes", "What changed", _changes(document, rows)),
        Section("monitor-accuracy", "Accuracy", _accuracy(document)),
        Section("monitor-latency", "Latency and throughput", _latency(document)),
        Section("monitor-signals", "Everything that is watched", _all(document)),
        Section("monitor-method", "How this was judged", _method(document)),
    ]
    return render_page(
        f"Monitoring of model {document['model']}",
        _headline(document, rows),
        _notices(document),
        sections,
        figures=_figures(document),
        footer=f"{RESEARCH_ONLY} Written by cxr {document['cxr']} from {document['log']}.",
    )


def _headline(document: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    text = _HEADLINES[document["state"]]
    if rows and document["state"] in ("alarm", "warning"):
        worst = [row for row in rows if row["state"] == document["state"]]
        since = min((row["since"] for row in worst if row.get("since") is not None), default=None)
        text += f" {counted(len(worst), 'signal')} changed, the first most likely since {when(since)}."
    return text


def _figures(document: dict[str, Any]) -> list[KeyFigure]:
    times = document["series"]["times"]
    period = f"{when(times[0])} on" if times else "no window is complete"
    windows = f"{counted(document['windows'], 'window')}; {document['waiting']:,} images wait for theirs"
    accuracy = document["accuracy"]
    share = f"{percent(accuracy['share'])} of the answered images"
    return [
        KeyFigure("Images judged", f"{document['rows']:,}", windows),
        KeyFigure("From", period, f"against {document['reference_images']:,} images of the evaluation"),
        KeyFigure("Images with a truth", f"{accuracy['images']:,}", share),
        KeyFigure(
            "Windows with a warning",
            f"{document['warned_windows']:,} of {document['windows']:,}",
            f"by chance at most {percent(document['levels']['fdr'], 0)}",
        ),
    ]


def _notices(document: dict[str, Any]) -> list[Notice]:
    notices = []
    if document["other_models"]:
        text = ", ".join(f"{name} ({count:,})" for name, count in document["other_models"].items())
        notices.append(Notice("Rows of other models are not judged here.", f"The log also holds {text}."))
    selected = document["accuracy"]["selection_p"]
    if selected is not None and selected < 0.01:
        text = "Images with some outputs get their truth more often than others; the measures are weighted for that."
        notices.append(Notice("What is labelled is a selection.", text))
    if not document["accuracy"]["windows"]:
        text = f"{document['accuracy']['images']:,} of {document['accuracy']['window']:,} labelled images are there."
        notices.append(Notice("Accuracy is not measured yet.", f"{text} Until then there is only an estimate."))
    return notices


def _changes(document: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    actions: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["state"] != "note" and row["action"]:
            actions.setdefault((row["owner"], row["action"]), []).append(title(row["name"]))
    return {
        "actions": [
            {"owner": owner or "whoever runs it", "action": action.replace("`", ""), "names": _few(names)}
            for (owner, action), names in actions.items()
        ],
        "rows": [_row(document, row) for row in rows[:_SHOWN]],
        "more": max(0, len(rows) - _SHOWN),
        "nothing": not rows,
        "windows": document["windows"],
        "past": [
            {"title": title(row["name"]), "raised": when(row["raised"]), "since": when(row["since"])}
            for row in reversed(document["past_alarms"])
        ],
    }


def _few(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _row(document: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    before, after = values(row)
    return {
        "title": title(row["name"]),
        "name": row["name"],
        "state": STATES[row["state"]],
        "loud": row["state"] == "alarm",
        "before": before,
        "after": after,
        "size": size(row),
        "psi": number(row.get("psi")) if row.get("psi") is not None else "",
        "js": number(row.get("js")) if row.get("js") is not None else "",
        "since": when(row.get("since")) if row["state"] in ("alarm", "warning") else "",
        "p": p_value(row.get("p")) if row.get("p") is not None else "not tested",
        "wealth": _wealth(row.get("wealth")),
        "chart": sparkline(document["series"]["values"].get(row["name"], []), document["series"]["times"], row),
    }


def sparkline(course: list[float | None], times: list[float], row: dict[str, Any]) -> dict[str, Any] | None:
    """Lay out a signal's course in `_WIDTH` x `_HEIGHT`: a path, where the change began, and the axis' ends."""
    known = [value for value in course if value is not None]
    if len(known) < 2:
        return None
    low, high = (0.0, 1.0) if row.get("kind") in ("distribution", "latency") else (0.0, max(known) * 1.1 or 1.0)
    step = _WIDTH / (len(course) - 1)
    path, pen = "", "M"
    for k, value in enumerate(course):
        if value is None:
            pen = "M"
            continue
        path += f"{pen}{k * step:.1f} {_HEIGHT - 2 - (_HEIGHT - 4) * (value - low) / (high - low):.1f}"
        pen = "L"
    begin = None
    if row["state"] in ("alarm", "warning") and row.get("since") is not None:
        begin = round(sum(time < row["since"] for time in times) * step, 1)
    return {"path": path, "since": begin, "width": _WIDTH, "height": _HEIGHT}


def _wealth(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}" if value < 1e6 else "> 1 million"


def _accuracy(document: dict[str, Any]) -> dict[str, Any]:
    accuracy, estimate = document["accuracy"], document["estimate"]
    newest = accuracy["windows"][-1] if accuracy["windows"] else None
    rows = [
        {
            "title": title(row["name"]),
            "before": _with_interval(row["before"], row["before_interval"]),
            "after": _with_interval(row["after"], row["after_interval"]),
            "p": "" if row["p"] is None else p_value(row["p"]),
            "state": STATES[row["state"]],
            "loud": row["state"] == "alarm",
            "counts": f"{row['positive']:,} / {row['negative']:,}",
        }
        for row in sorted(accuracy["signals"], key=lambda one: not one["name"].startswith("accuracy/mean"))
        if row["after"] is not None
    ]
    undefined = len(accuracy["signals"]) - len(rows)
    segments = estimate["segments"] if estimate else []
    return {
        "rows": rows,
        "undefined": undefined,
        "least": LEAST,
        "newest": None
        if newest is None
        else {
            "images": f"{newest['images']:,}",
            "patients": f"{newest['patients']:,}",
            "from": when(newest["from"]),
            "to": when(newest["to"]),
            "delay": f"{newest['delay'] / 86_400:.1f} days",
            "number": newest["window"],
        },
        "bands": [percent(share) for share in accuracy["labelled_share"]],
        "selection": accuracy["selection_p"],
        "selected": "" if accuracy["selection_p"] is None else p_value(accuracy["selection_p"]),
        "window": accuracy["window"],
        "waiting": accuracy["waiting"],
        "warning": estimate["warning"] if estimate else "",
        "segments": [
            {"from": when(one["from"]), "images": f"{one['images']:,}", "auc": number(one["mean_auc"])}
            for one in segments
        ],
        "findings": [
            [
                readable(name),
                *(number(one[key]) for key in ("auc", "sensitivity", "specificity")),
                percent(one["called"]),
            ]
            for name, one in (segments[-1]["findings"].items() if segments else ())
        ],
    }


def _with_interval(value: float | None, ends: list[float | None]) -> dict[str, str]:
    if value is None:
        return {"value": UNDEFINED, "interval": ""}
    low, high = ends
    return {
        "value": number(value),
        "interval": "" if low is None or high is None else f"{number(low)} to {number(high)}",
    }


def _latency(document: dict[str, Any]) -> dict[str, Any]:
    steps = []
    for step, parts in document["latency"].items():
        cells = [_quantiles(parts[name]) for name in ("first", "all", "newest")]
        steps.append({"step": step, "cells": cells})
    rates = [row["images_per_hour"] for row in document["throughput"]]
    known = [rate for rate in rates if rate is not None]
    chart = sparkline(rates, document["series"]["times"], {"state": "quiet"}) if known else None
    return {
        "steps": steps,
        "chart": chart,
        "least": f"{min(known):,.0f}" if known else "",
        "most": f"{max(known):,.0f}" if known else "",
    }


def _quantiles(part: dict[str, float] | None) -> str:
    if part is None or part["p50"] is None:
        return "too few rows"
    return " / ".join(f"{part[name]:.3g}" for name in ("p50", "p95", "p99"))


def _all(document: dict[str, Any]) -> dict[str, Any]:
    groups = []
    for family, label in FAMILIES.items():
        rows = [row for row in document["signals"] if row["family"] == family]
        if rows:
            groups.append({"title": label, "rows": [_row(document, row) for row in rows]})
    return {"groups": groups, "count": len(document["signals"])}


def _method(document: dict[str, Any]) -> dict[str, Any]:
    levels = document["levels"]
    return {
        "window": f"{document['hours']:g} hours" if document["hours"] else f"{document['window']} images",
        "alpha": percent(levels["alpha"], 0),
        "period": f"{levels['period']:,}",
        "fdr": percent(levels["fdr"], 0),
        "effect": f"{document['design_effect']:.2f}",
        "reference": f"{document['reference_images']:,}",
        "patients": f"{document['reference_patients']:,}",
        "signals": len(document["signals"]),
        "files": [
            ("Reference", document["reference"]),
            ("Log", document["log"]),
            ("Since", document["since"] or "all"),
        ],
    }
