"""What `compare` says: the result in plain sentences, and the table on the terminal. Null is NaN, the undefined."""

import math
from typing import Any

from pipeline.findings import readable
from pipeline.reporting.text import UNDEFINED, bounds, cell, counted, interval, level, listed, number, p_value, prose
from pipeline.statistics.paired import SCORES
from pipeline.terminal import columns

NAMES = {"auc": "AUROC", "average_precision": "average precision", "brier": "Brier score"}
"""How prose calls the scores; a lower Brier score is better."""


def sentences(result: dict[str, Any]) -> list[str]:
    """Say the result in plain words: the mean AUROC, the findings after Holm's correction, the other scores, caveats.

    Where no difference could be shown, the sentence says how large a difference the data rule out; it never says that
    there is none.
    """
    said = [_overall(result, "auc")]
    if many(result):
        said.append(_by_finding(result))
    said += [_overall(result, score) for score in SCORES[1:]]
    return said + _caveats(result)


def printed(result: dict[str, Any]) -> str:
    """Return the table for the terminal, with the sentences below it."""
    header = ("", "A", "B", "B − A", f"{level(result['confidence'])} interval", "p", "p (Holm)")
    rows = [_cells(_subject(result, score), result["macro"], score) for score in SCORES]
    if many(result):
        rows.append(("AUROC by finding", *[""] * 6))
        rows += [_cells(readable(name), row, "auc") for name, row in result["findings"].items()]
    heads = f"A: {result['a']['file']}", f"B: {result['b']['file']}"
    return "\n".join([*heads, "", columns([header, *rows]), "", *result["sentences"]])


def of(score: str, key: str) -> str:
    """Return the name under which a score's p value stands: `p_value` for the AUROC, else `brier_p_value`."""
    return key if score == "auc" else f"{score}_{key}"


def many(result: dict[str, Any]) -> bool:
    """Say whether there is more than one finding, and so a mean to speak of."""
    return len(result["findings"]) > 1


def is_shown(difference: dict[str, Any], score: str, confidence: float, *, adjusted: bool = False) -> bool:
    """Say whether a difference is shown at the level of the intervals."""
    value = difference.get(of(score, "p_adjusted" if adjusted else "p_value"))
    return value is not None and value <= 1 - confidence + 1e-12


def _overall(result: dict[str, Any], score: str) -> str:
    difference, what = result["macro"]["difference"], _subject(result, score)
    value, (low, high) = difference[score], bounds(difference, score)
    on = f"on the same {counted(result['images'], 'image')} of {counted(result['patients'], 'patient')}"
    if value is None or low is None or high is None:
        return f"The {what} is undefined {on}: no difference can be given."
    if low == high == 0:
        return f"The {what} is the same for A and B {on}, in every resample of the patients."
    of_level = f"{level(result['confidence'])} interval"
    p = _equals(difference[of(score, "p_value")])
    if not is_shown(difference, score, result["confidence"]):
        most = math.ceil(max(abs(low), abs(high)) * 1000 - 1e-9) / 1000
        plus = cell(difference, score, plus=True)
        return (
            f"No difference of the {what} could be shown {on}: B − A {plus['value']} ({of_level} "
            f"{plus['interval']}, {p}); differences beyond ±{most:.3f} are ruled out at that level."
        )
    better = "" if score != "brier" else (" (better)" if value < 0 else " (worse)")
    least, most = sorted((abs(low), abs(high)))
    return (
        f"B's {what} is {'higher' if value > 0 else 'lower'}{better} by {number(abs(value))} ({of_level} "
        f"{number(least)} to {number(most)}, {p}) {on}."
    )


def _by_finding(result: dict[str, Any]) -> str:
    rows = {name: row["difference"] for name, row in result["findings"].items()}
    tested = sum(row["p_value"] is not None for row in rows.values())
    differ = [
        f"{prose(name)} (B {'higher' if row['auc'] > 0 else 'lower'} by {number(abs(row['auc']))})"
        for name, row in rows.items()
        if is_shown(row, "auc", result["confidence"], adjusted=True)
    ]
    if not differ:
        return f"After Holm's correction for {counted(tested, 'finding')}, no difference of a finding could be shown."
    verb = "differs" if len(differ) == 1 else "differ"
    return f"After Holm's correction {len(differ)} of {counted(tested, 'finding')} {verb} in AUROC: {listed(differ)}."


def _caveats(result: dict[str, Any]) -> list[str]:
    said = []
    if undefined := result["macro"]["undefined"]:
        names = listed([prose(name) for name in undefined.split(", ")])
        said.append(f"Without a positive or without a negative image, and so undefined: {names}.")
    if result["not_compared"]:
        said.append(f"In one table only, and so not compared: {listed([prose(n) for n in result['not_compared']])}.")
    tested = sum(row["difference"]["p_value"] is not None for row in result["findings"].values())
    if tested > 1 and result["least_p_value"] * tested > 1 - result["confidence"]:
        needed = math.ceil(2 * tested / (1 - result["confidence"]) - 1e-9)
        said.append(
            f"With {result['resamples']:,} resamples no finding can pass Holm's correction; set evaluate.resamples to "
            f"{needed:,} or more."
        )
    return said


def _subject(result: dict[str, Any], score: str) -> str:
    return f"mean {NAMES[score]}" if many(result) else f"{NAMES[score]} for {prose(next(iter(result['findings'])))}"


def _cells(name: str, row: dict[str, Any], score: str) -> tuple[str, ...]:
    difference = row["difference"]
    ps = (difference.get(of(score, key)) for key in ("p_value", "p_adjusted"))
    return (
        name,
        *(number(row[side][score]) for side in ("a", "b")),
        cell(difference, score, plus=True)["value"],
        "" if difference[score] is None else interval(difference, score, plus=True),
        *("" if value is None else p_value(value) for value in ps),
    )


def _equals(value: float | None) -> str:
    text = UNDEFINED if value is None else p_value(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"
