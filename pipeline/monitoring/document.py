"""`monitor.json`: everything that a watch came to, in one document; the page, the gauges and MLflow show it."""

from typing import Any

import numpy as np

from pipeline.monitoring.accuracy_watch import AccuracyWatch
from pipeline.monitoring.effects import latency_quantiles
from pipeline.monitoring.estimates import estimated
from pipeline.monitoring.history import History
from pipeline.monitoring.judgement import signals_judged, stated, worst
from pipeline.monitoring.watch import Watch
from pipeline.params import MonitorParams

_QUANTILES = ("p50", "p95", "p99")


def document_of(watch: Watch, accuracy: AccuracyWatch, params: MonitorParams, about: dict[str, Any]) -> dict[str, Any]:
    """Return what is written to `monitor.json`; times are seconds since 1970 (UTC), undefined is null.

    Parameters
    ----------
    watch : Watch
        Of all images.
    accuracy : AccuracyWatch
        Of the labelled ones.
    params : MonitorParams
        Rules and levels.
    about : dict
        What was judged, with `versions`, the rows of each model version in the log.
    """
    reference, tally = watch.reference, watch.tally
    signals = signals_judged(watch, params)
    measured = _accuracy(accuracy, params)
    others = {name: n for name, n in about["versions"].items() if not name.startswith(reference.model)}
    return {
        "state": worst([row["state"] for row in [*signals, *measured["signals"]]]),
        **about,
        "model": reference.model,
        "findings": list(reference.findings),
        "reference_images": len(reference),
        "reference_patients": len(np.unique(reference.patients)),
        "design_effect": watch.effect,
        "other_models": others,
        "rows": tally.rows,
        "waiting": watch.waiting,
        "windows": tally.windows,
        "window": params.window,
        "hours": params.hours,
        "warned_windows": tally.warned,
        "levels": {"alpha": params.alpha, "period": params.period, "fdr": params.fdr},
        "signals": signals,
        "past_alarms": tally.past,
        "latency": _latency(watch),
        "throughput": _throughput(watch.history),
        "series": _series(watch),
        "estimate": estimated(watch.history, reference.findings) if len(watch.history) else None,
        "accuracy": measured,
    }


def _latency(watch: Watch) -> dict[str, Any]:
    """Return the quantiles of each step in the log's first rows, in all rows, and in the newest segment."""
    first, history = watch.usual_latency(), watch.history
    found: dict[str, Any] = {}
    for k, step in enumerate(watch.steps if len(history) else ()):
        counts = history.sums["latency"][:, k]
        parts = {"first": None if first is None else first[k], "all": counts.sum(axis=0), "newest": counts[-1]}
        found[step] = {
            name: None if part is None else dict(zip(_QUANTILES, latency_quantiles(part), strict=True))
            for name, part in parts.items()
        }
    return found


def _throughput(history: History) -> list[dict[str, float]]:
    """Return images an hour of each segment; reported and not tested, because it has no reference."""
    rows = []
    for k in range(len(history)):
        seconds = float(history.end[k] - history.start[k])
        images = float(history.sums["rows"][k])
        rows.append(
            {"time": float(history.start[k]), "images_per_hour": 3600 * images / seconds if seconds else np.nan}
        )
    return rows


def _series(watch: Watch) -> dict[str, Any]:
    """Return each signal's course over the segments: mean rank of a distribution, share, or distance."""
    history = watch.history
    if not len(history):
        return {"times": [], "values": {}}
    ranks = np.concatenate([history.sums["ranks"], history.sums["latency_ranks"]], axis=1).astype(np.float64)
    middle = (np.arange(ranks.shape[2]) + 0.5) / ranks.shape[2]
    windows = np.diff(np.append(history.first, watch.tally.windows)).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (ranks @ middle) / ranks.sum(axis=2)
        shares = history.sums["hits"] / history.sums["counts"]
        rejected = history.sums["rejected"] / history.sums["rows"][:, None]
        distance = (history.sums["distance"] / windows)[:, None]
    n = len(watch.signals.continuous)
    columns = np.concatenate([means[:, :n], shares, distance, rejected, means[:, n:]], axis=1)
    values = {name: columns[:, k].tolist() for k, name in enumerate(watch.names)}
    return {"times": history.start.tolist(), "values": values}


def _accuracy(accuracy: AccuracyWatch, params: MonitorParams) -> dict[str, Any]:
    """Return what is known from labelled images: measures, intervals, how late and how chosen the labels are."""
    labelled, answered = (float(each.sum(axis=1).max(initial=0)) for each in (accuracy.labelled, accuracy.answered))
    document: dict[str, Any] = {
        "images": int(labelled),
        "share": labelled / answered if answered else float("nan"),
        "waiting": accuracy.waiting,
        "windows": accuracy.windows,
        "window": params.labelled,
        "selection_p": accuracy.selection_p(),
        "labelled_share": np.divide(
            accuracy.labelled.sum(axis=0),
            accuracy.answered.sum(axis=0),
            out=np.full(accuracy.labelled.shape[1], np.nan),
            where=accuracy.answered.sum(axis=0) > 0,
        ).tolist(),
    }
    if not accuracy.windows:
        return document | {"signals": []}
    newest, (before, now) = accuracy.windows[-1], accuracy.intervals()
    rows = []
    for name, each in newest["measures"].items():
        raised = accuracy.raised.get(name)
        found = "alarm" if raised else "warning" if each["q"] <= params.fdr else "quiet"
        old = accuracy.expected[name]
        size = abs(each["value"] - old.value)
        rows.append(
            {"name": name, "kind": "accuracy", "before": old.value, "after": each["value"], "size": size}
            | {"before_interval": list(before.get(name, (np.nan, np.nan)))}
            | {"after_interval": list(now.get(name, (np.nan, np.nan)))}
            | {key: each[key] for key in ("p", "q", "positive", "negative")}
            | {"raised_window": raised, "since": newest["from"]}
            | stated(name, found, size, params.rules)
        )
    return document | {"signals": rows}
