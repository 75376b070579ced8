"""Section: how much the test scores change from one training to the next."""

from typing import Any

from pipeline.findings import readable
from pipeline.reporting.figures import forest_axis, forest_place
from pipeline.reporting.page import Section
from pipeline.reporting.text import counted, number


def section(metrics: dict[str, Any], seed: int) -> Section:
    """Gather the spread over the repeats.

    Parameters
    ----------
    metrics : dict
        `metrics.json`; `repeats` is null or absent with one training.
    seed : int
        Of the one training.
    """
    repeats = metrics.get("repeats")
    title = "Repeated trainings"
    if not repeats:
        return Section("seeds", title, {"rows": [], "seed": seed})
    seeds = repeats["seeds"]
    names = [str(each) for each in seeds] if isinstance(seeds, list) else []
    entries = [(readable(name), row, False) for name, row in repeats["findings"].items()]
    if len(entries) > 1:
        n = repeats["macro"].get("n_findings")
        entries.append((f"Mean of {counted(n, 'finding')}" if n else "Mean", repeats["macro"], True))
    axis = forest_axis([{"auc": row[key]} for _, row, _ in entries for key in ("min", "max")], top=None)
    content = {
        "rows": [_row(name, row, axis) | {"mean_row": mean} for name, row, mean in entries],
        "axis": axis,
        "n": len(seeds) if isinstance(seeds, list) else int(seeds),
        "names": ", ".join(names),
        "ensemble": bool(metrics.get("ensemble")),
        "seed": seed,
    }
    return Section("seeds", title, content)


def _row(name: str, row: dict[str, Any], axis: dict[str, Any]) -> dict[str, Any]:
    places = {key: forest_place(row[key], axis) for key in ("mean", "min", "max")}
    return {
        "name": name,
        "cells": [number(row[key]) for key in ("mean", "sd", "min", "max")],
        "n": row["n"],
        "mark": None if None in places.values() else {"x": places["mean"], "low": places["min"], "high": places["max"]},
    }
