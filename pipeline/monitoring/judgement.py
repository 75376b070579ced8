"""What a watch comes to: each signal's state with its size, start, owner and action, and the state of all."""

from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from pipeline.monitoring.betting import bh
from pipeline.monitoring.effects import sizes
from pipeline.monitoring.watch import Watch
from pipeline.params import MonitorParams, Rule

LEVELS = ("quiet", "note", "warning", "alarm")
"""From harmless to serious."""
EXITS = {"quiet": 0, "note": 0, "warning": 3, "alarm": 4}
"""Exit status for cron."""


def signals_judged(watch: Watch, params: MonitorParams) -> list[dict[str, Any]]:
    """Return one row a signal of input, prediction, gate and latency."""
    tally, names = watch.tally, watch.names
    adjusted = bh(tally.p)
    rows = []
    for k, name in enumerate(names):
        raised = int(tally.raised[k])
        row: dict[str, Any] = {"name": name, "p": float(tally.p[k]), "q": float(adjusted[k])}
        row |= {"wealth": float(tally.wealth[k]), "raised_window": None, "raised": None, "since": None}
        since = max(0, tally.windows - 1)
        if raised >= 0:
            since = int(tally.since[k])
            row |= {"raised_window": raised, "raised": watch.history.time_of(raised)}
        elif row["q"] > params.fdr or np.isnan(row["q"]):
            since = 0  # nothing was found: the size is that over all rows
        if len(watch.history):
            row |= {"since_window": since, "since": watch.history.time_of(since)}
            row |= size_of(watch, k, since)
        found = "alarm" if raised >= 0 else "warning" if row["q"] <= params.fdr else "quiet"
        rows.append(row | stated(name, found, row.get("size", float("nan")), params.rules))
    return rows


def stated(name: str, found: str, size: float, rules: list[Rule]) -> dict[str, Any]:
    """Return a signal's state under the first rule that matches it, with the rule's owner and action."""
    rule = next((rule for rule in rules if fnmatchcase(name, rule.signals)), Rule(signals="*"))
    state = min((found, rule.severity), key=LEVELS.index) if found != "quiet" else "quiet"
    if found != "quiet" and size < rule.least:
        state = "note"
    return {"state": state, "family": name.partition("/")[0], "owner": rule.owner, "action": rule.action}


def worst(states: list[str]) -> str:
    """Return the most serious of some states."""
    return max(states, key=LEVELS.index, default="quiet")


def size_of(watch: Watch, k: int, since: int) -> dict[str, Any]:
    """Return how far a signal moved since a window: distances, and the mean or the share before and after."""
    history, signals = watch.history, watch.signals
    n = len(signals.continuous)
    if k < n:
        before, after = watch.before[k], history.since(since, "ranks")[k]
        found = sizes(before, after)
        total = float(after.sum())
        mean = float(history.since(since, "totals")[k]) / total if total else float("nan")
        return {"kind": "distribution", "size": found["ks"], **found, "before": float(watch.means[k]), "after": mean}
    k -= n
    if k < len(signals.shares):
        count = float(history.since(since, "counts")[k])
        share = float(history.since(since, "hits")[k]) / count if count else float("nan")
        return _shares(float(watch.rates[k]), share)
    k -= len(signals.shares)
    if k == 0:
        rows = history.sums["distance"][history.first >= since - since % history.size]
        return {"kind": "distance", "size": float(rows[-1]) / history.size if len(rows) else float("nan")}
    k -= 1
    if k < 2:
        count = float(history.since(since, "rows"))
        share = float(history.since(since, "rejected")[k]) / count if count else float("nan")
        return _shares(watch.usual_rejections()[k], share)
    return _of_latency(watch, k - 2, since)


def _shares(before: float, after: float) -> dict[str, Any]:
    return {"kind": "share", "size": abs(after - before), "before": before, "after": after}


def _of_latency(watch: Watch, k: int, since: int) -> dict[str, Any]:
    from pipeline.monitoring.effects import latency_quantiles

    first = watch.usual_latency()
    if first is None:
        return {"kind": "latency", "size": float("nan"), "before": float("nan"), "after": float("nan")}
    after = watch.history.since(since, "latency")[k]
    return {
        "kind": "latency",
        "size": sizes(first[k], after)["ks"],
        "before": latency_quantiles(first[k])[0],
        "after": latency_quantiles(after)[0],
    }
