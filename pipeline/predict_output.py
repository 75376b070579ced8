"""Answers as text: lines or a table for a reader, a row of CSV, a line of JSON."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import IO, Any, Protocol

import numpy as np

from pipeline.predicting import Answer
from pipeline.terminal import columns

Called = {1: "present", 0: "absent", -1: "no threshold"}
TABLE_FILMS = 4
"""Up to so many films are shown side by side, with all findings; more get a line each."""

_NAME, _GATE = 40, 20  # characters of the first two columns of a line


class Writer(Protocol):
    """Takes answers as they come."""

    def __call__(self, answers: Sequence[Answer]) -> None:
        """Write a batch."""

    def close(self) -> None:
        """Write what was held back."""


class Lines:
    """A line for each film: its name, the gate, what is called, and with what probability."""

    def __init__(self, out: IO[str], findings: Sequence[str]) -> None:
        self._out, self._findings = out, findings
        print(f"{'file':{_NAME}}  {'gate':{_GATE}}  findings called, with their calibrated probability", file=out)

    def __call__(self, answers: Sequence[Answer]) -> None:
        """Write a line for each."""
        for answer in answers:
            name = shortened(shown(answer.name), _NAME)
            print(f"{name:{_NAME}}  {gate_word(answer):{_GATE}}  {self._said(answer)}".rstrip(), file=self._out)
        self._out.flush()

    def close(self) -> None:
        """Do nothing: all is written."""

    def _said(self, answer: Answer) -> str:
        if answer.error:
            return f"no answer: {answer.error}"
        if answer.calibrated is None or answer.decisions is None:
            return "no answer: flagged (--flagged gives one)"
        order = np.argsort(-np.nan_to_num(answer.calibrated, nan=-1.0), kind="stable")
        cells = [f"{self._findings[k]} {number(answer.calibrated[k])}" for k in order if answer.decisions[k] == 1]
        if cells:
            return ", ".join(cells)
        return f"none; highest {self._findings[order[0]]} {number(answer.calibrated[order[0]])}"


class Table:
    """A few films side by side: a row for each finding."""

    def __init__(self, out: IO[str], findings: Sequence[str]) -> None:
        self._out, self._findings = out, findings
        self._held: list[Answer] = []

    def __call__(self, answers: Sequence[Answer]) -> None:
        """Hold them back: a column's width is known at the end."""
        self._held += answers

    def close(self) -> None:
        """Write the table."""
        rows = [["", *(shortened(PurePath(shown(each.name)).name, _NAME) for each in self._held)]]
        rows.append(["gate", *(gate_word(each) for each in self._held)])
        for k, finding in enumerate(self._findings):
            rows.append([finding, *(_cell(each, k) for each in self._held)])
        print(columns(rows), file=self._out)


class JsonLines:
    """One JSON object a film and line."""

    def __init__(self, out: IO[str], findings: Sequence[str], version: str, point: str) -> None:
        self._out, self._findings, self._version, self._point = out, findings, version, point

    def __call__(self, answers: Sequence[Answer]) -> None:
        """Write an object for each."""
        for answer in answers:
            record = {"model": self._version, "point": self._point} | as_record(answer, self._findings)
            print(json.dumps(record, ensure_ascii=False, allow_nan=False), file=self._out)
        self._out.flush()

    def close(self) -> None:
        """Do nothing: all is written."""


class CsvRows:
    """CSV: `file, status, gate, notes, error`, then of each finding `probability_`, `called_` and `raw_`."""

    def __init__(self, out: IO[str], findings: Sequence[str]) -> None:
        self._writer = csv.writer(out, lineterminator="\n")
        parts = ("probability", "called", "raw")
        self._writer.writerow(
            ["file", "status", "gate", "notes", "error", *(f"{part}_{name}" for part in parts for name in findings)]
        )
        self._empty = [""] * (len(parts) * len(findings))

    def __call__(self, answers: Sequence[Answer]) -> None:
        """Write a row for each."""
        self._writer.writerows(self._row(answer) for answer in answers)

    def close(self) -> None:
        """Do nothing: all is written."""

    def _row(self, answer: Answer) -> list[str]:
        reasons = " ".join(answer.verdict.reasons) if answer.verdict else ""
        notes = " ".join(code for code, _ in answer.notes)
        first = [shown(answer.name), answer.status, reasons, notes, answer.error]
        if answer.raw is None or answer.calibrated is None or answer.decisions is None:
            return first + self._empty
        called = ["" if value < 0 else str(int(value)) for value in answer.decisions]
        return [*first, *map(_exact, answer.calibrated), *called, *map(_exact, answer.raw)]


def as_record(answer: Answer, findings: Sequence[str]) -> dict[str, Any]:
    """Return an answer as JSON holds it; what is undefined is null."""
    verdict = answer.verdict
    gate = None
    if verdict is not None:
        scores = {name: _finite(score) for name, score in verdict.scores.items()}
        gate = {"accepted": verdict.accepted, "reasons": list(verdict.reasons), "scores": scores}
    return {
        "file": shown(answer.name),
        "status": answer.status,
        "gate": gate,
        "findings": dict(_findings(answer, findings)) or None,
        "notes": [code for code, _ in answer.notes],
        "error": answer.error or None,
        "milliseconds": {step: round(value, 3) for step, value in answer.timings.items()},
    }


def gate_word(answer: Answer) -> str:
    """Say in a few letters what the gate thought."""
    if answer.verdict is None:
        return "-"
    return "passed" if answer.verdict.accepted else ", ".join(answer.verdict.reasons)


def shown(name: str) -> str:
    """Return a name without what a terminal might obey, such as escape sequences."""
    printable = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in printable)


def shortened(text: str, most: int) -> str:
    """Cut a text in its middle; its end tells files apart."""
    return text if len(text) <= most else f"{text[: most // 3]}…{text[-(most - most // 3 - 1) :]}"


def number(value: float) -> str:
    """Return a probability with three digits; an undefined one as a word."""
    return f"{value:.3f}" if math.isfinite(value) else "undefined"


def _findings(answer: Answer, findings: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    if answer.raw is None or answer.calibrated is None or answer.decisions is None:
        return
    for k, name in enumerate(findings):
        called = None if answer.decisions[k] < 0 else bool(answer.decisions[k])
        yield (
            name,
            {"probability": _finite(answer.calibrated[k]), "called": called, "raw": _finite(answer.raw[k])},
        )


def _cell(answer: Answer, k: int) -> str:
    if answer.calibrated is None or answer.decisions is None:
        return "-"
    return f"{number(answer.calibrated[k])} {Called[int(answer.decisions[k])]}"


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _exact(value: Any) -> str:
    """Return the shortest text that gives the same number; nothing where it is undefined."""
    return str(value) if math.isfinite(value) else ""
