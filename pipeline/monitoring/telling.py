"""Telling what was found: a sentence, Prometheus' gauges, MLflow, a webhook."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import without_nan
from pipeline.params import MonitorParams, Params
from pipeline.progress import warn
from pipeline.tracking import Run, without_secrets

_TRIES, _TIMEOUT = 4, 10
_NAMED = 20  # signals in a message


def when(seconds: float | None) -> str:
    """Print a time in UTC to the minute."""
    if seconds is None or seconds != seconds:
        return "unknown"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def changed(document: dict[str, Any], *states: str) -> list[dict[str, Any]]:
    """Return the signals in some states, the largest change first."""
    rows = [*document["signals"], *document["accuracy"]["signals"]]
    found = [row for row in rows if row["state"] in states]
    return sorted(found, key=lambda row: -(row.get("size") or 0.0))


def sentence(document: dict[str, Any]) -> str:
    """Say the result in one line."""
    state = document["state"]
    size = f"{document['rows']:,} images in {document['windows']:,} windows of model {document['model']}"
    if state in ("quiet", "note"):
        return f"quiet: {size}"
    rows = changed(document, state)
    since = min((row["since"] for row in rows if row.get("since") is not None), default=None)
    names = ", ".join(row["name"] for row in rows[:3]) + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
    return f"{state}: {names}, since {when(since)}; {size}"


def prometheus_text(document: dict[str, Any], now: float) -> str:
    """Return gauges in Prometheus' text format (version 0.0.4)."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()

    def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"cxr_monitor_{name}", text, labels, registry=registry)

    gauge("state", "0 quiet, 1 note, 2 warning, 3 alarm").set(
        ["quiet", "note", "warning", "alarm"].index(document["state"])
    )
    gauge("run_timestamp_seconds", "When the log was judged").set(now)
    gauge("rows", "Images that were judged").set(document["rows"])
    gauge("windows", "Windows that were judged").set(document["windows"])
    size = gauge("size", "How far a signal moved (KS, difference of shares, of AUROC)", ("signal",))
    state = gauge("signal_state", "0 quiet, 1 note, 2 warning, 3 alarm", ("signal",))
    wealth = gauge("wealth", "e-process of a signal", ("signal",))
    for row in [*document["signals"], *document["accuracy"]["signals"]]:
        size.labels(row["name"]).set(_number(row.get("size")))
        state.labels(row["name"]).set(["quiet", "note", "warning", "alarm"].index(row["state"]))
        if "wealth" in row:
            wealth.labels(row["name"]).set(_number(row["wealth"]))
    latency = gauge("latency_milliseconds", "Of the newest windows", ("step", "quantile"))
    for step, parts in document["latency"].items():
        for quantile, value in parts["newest"].items():
            latency.labels(step, quantile).set(_number(value))
    return generate_latest(registry).decode()


def metrics_of(document: dict[str, Any]) -> dict[str, float]:
    """Return what is logged to MLflow."""
    found = {"state": float(["quiet", "note", "warning", "alarm"].index(document["state"]))}
    found |= {"rows": float(document["rows"]), "windows": float(document["windows"])}
    for row in [*document["signals"], *document["accuracy"]["signals"]]:
        name = row["name"].replace("/", ".")
        found[f"size.{name}"] = _number(row.get("size"))
        if row["name"].startswith("accuracy/"):
            found[name] = _number(row["after"])
    return found


def track(document: dict[str, Any], out: Path, params: Params) -> None:
    """Log figures and page to an MLflow run of its own, if `monitor.track` says so."""
    if not params.monitor.track:
        return
    run = Run(params.tracking, name=f"monitor {document['model']}")
    run.log_tags({"kind": "monitor", "model": document["model"], "state": document["state"]})
    run.log_metrics(metrics_of(document))
    run.log_files(out / "monitor.json", out / "monitor.html")
    run.end()


def tell(document: dict[str, Any], params: MonitorParams) -> None:
    """Send a warning or an alarm to the webhook, again after 1, 2 and 4 seconds if it fails; then one warning.

    Raises
    ------
    UserError
        If the environment variable does not hold an HTTP address.
    """
    url = os.environ.get(params.webhook, "") if params.webhook else ""
    if not url or document["state"] not in ("warning", "alarm"):
        return
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{params.webhook} holds no address that begins with https:// (or http://)")
    import requests
    from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

    tries = Retrying(
        stop=stop_after_attempt(_TRIES),
        wait=_wait(wait_exponential),
        retry=retry_if_exception_type(requests.RequestException),
    )
    try:
        for attempt in tries:
            with attempt:
                requests.post(url, json=message(document), timeout=_TIMEOUT).raise_for_status()
    except RetryError as error:
        last = error.last_attempt.exception()
        warn(f"the webhook {without_secrets(url).partition('?')[0]} was not told ({type(last).__name__})")


def message(document: dict[str, Any]) -> dict[str, Any]:
    """Return what the webhook gets: the sentence (`text`, which Slack and Mattermost show) and the signals."""
    rows = list(_told(document))
    return without_nan({"text": sentence(document), "state": document["state"], "signals": rows})  # type: ignore[no-any-return]


def _told(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for row in changed(document, "alarm", "warning")[:_NAMED]:
        yield {key: row.get(key) for key in ("name", "state", "size", "before", "after", "owner", "action")} | {
            "since": when(row.get("since"))
        }


def _wait(kind: Any) -> Any:
    return kind(multiplier=1, max=8)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
