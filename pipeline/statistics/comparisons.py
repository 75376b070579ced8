"""Differences with interval and p value, and the p values adjusted for how many there are."""

from typing import Any

from pipeline.statistics.bootstrap import Replicates
from pipeline.statistics.student import t_test

MIN_PATIENTS = 10
"""Patients that each class needs, in the group and outside it, for a tested difference: with fewer, the bootstrap's
standard error is too small (docs/statistics.md, coverage)."""


def comparison(finding: str, score: str, difference: Replicates, k: int) -> dict[str, Any]:
    """Return score `k` of a difference with its interval and p value, as a row of a table."""
    p_value = t_test(float(difference.point[k]), difference.draws[k], difference.jackknife[k])
    return {"finding": finding, "score": score, **difference.estimate(k).as_dict("difference"), "p_value": p_value}


def adjusted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with `p_adjusted`, after Benjamini and Hochberg (`scipy.stats.false_discovery_control`)."""
    from scipy.stats import false_discovery_control

    if not rows:
        return rows
    values = false_discovery_control([row["p_value"] for row in rows], method="bh")
    return [row | {"p_adjusted": float(value)} for row, value in zip(rows, values, strict=True)]


def multiplicity(n_comparisons: int) -> str:
    """Return the sentence that says how many comparisons were made and what `p_adjusted` means."""
    return (
        f"{n_comparisons} comparisons of a group with the other images. p_adjusted is after Benjamini and Hochberg "
        "(J. R. Statist. Soc. B 1995;57:289-300): of the comparisons whose p_adjusted is below 0.05, at most 5 % are "
        "expected to be false alarms. The intervals are of each comparison alone and are not adjusted. Compared are "
        f"sexes, age bands and views, not crossings, and only scores that rest on {MIN_PATIENTS} patients or more of "
        "each class on both sides."
    )
