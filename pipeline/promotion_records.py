"""The decisions of `cxr promote`, one file each, and what they say about who is champion.

A record is written once and never changed. It names the SHA-256 of the one before it, so that a changed or missing
record is noticed. Records hold no patient data.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import read_json, sha256_file, write_json, write_text
from pipeline.promotion_text import to_markdown

_PENDING = "pending.json"
_LOCK = ".lock"


@dataclass(frozen=True)
class Reign:
    """A version that became champion, and what an undo goes back to.

    Attributes
    ----------
    version : str
        Of the registered model.
    record : int
        The record that made it champion.
    evidence : int
        The record that stored the evidence in force.
    previous : str or None
        The version before it; None if there was none.
    adopted : bool
        Whether somebody else moved the alias: then there is nothing that an undo could go back to.
    """

    version: str
    record: int
    evidence: int
    previous: str | None
    adopted: bool


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Read all records, the first one first.

    Raises
    ------
    UserError
        If a record is missing, there twice or was changed.
    """
    records: list[dict[str, Any]] = []
    before = None
    for number, path in enumerate(sorted(folder.glob("[0-9]*.json")), start=1):
        record = read_json(path)
        if record.get("number") != number or record.get("previous_record_sha256") != before:
            raise UserError(
                f"{path} does not follow the record before it: a record in {folder} is missing, changed or there "
                "twice; bring back the files that were written (they are also artifacts of their MLflow runs)"
            )
        before = sha256_file(path)
        records.append(record)
    return records


def new_record(folder: Path, records: list[dict[str, Any]], values: dict[str, Any]) -> dict[str, Any]:
    """Return the next record: its number, its time, the hash of the one before it, and `values`."""
    return {
        "format": 1,
        "number": len(records) + 1,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "previous_record_sha256": sha256_file(record_path(folder, records[-1])) if records else None,
        **values,
    }


def record_path(folder: Path, record: dict[str, Any]) -> Path:
    """Return where a record lies: `NNNN-YYYYMMDDTHHMMSSZ.json`."""
    time = record["time"].replace("-", "").replace(":", "")
    return folder / f"{record['number']:04d}-{time}.json"


def write_record(folder: Path, record: dict[str, Any]) -> Path:
    """Write a record and its Markdown; return the path of the first."""
    path = record_path(folder, record)
    write_json(path, record)
    write_text(path.with_suffix(".md"), to_markdown(record))
    return path


def reigns_of(records: list[dict[str, Any]], model: str, alias: str) -> list[Reign]:
    """Return who holds an alias according to the records, last, and before it those that an undo goes back to."""
    reigns: list[Reign] = []
    for record in records:
        registry, number = record["registry"], record["number"]
        version = registry["version"]
        if (registry["model"], registry["alias"]) != (model, alias):
            continue
        if record["outcome"] == "promoted":
            reigns.append(Reign(version, number, number, registry["before"], adopted=False))
        elif record["outcome"] == "undone":
            reigns.pop()
        elif record["outcome"] == "recorded" and reigns and reigns[-1].version == version:
            reigns[-1] = replace(reigns[-1], evidence=number)
        elif record["outcome"] == "recorded":
            reigns = [Reign(version, number, number, None, adopted=True)]
    return reigns


def read_pending(folder: Path) -> dict[str, Any] | None:
    """Return the record that a killed command was about to carry out; None if there is none."""
    path = folder / _PENDING
    return read_json(path) if path.is_file() else None


def write_pending(folder: Path, record: dict[str, Any]) -> None:
    """Say what is about to be carried out."""
    write_json(folder / _PENDING, record)


def remove_pending(folder: Path) -> None:
    """Say that it is done, or taken back."""
    (folder / _PENDING).unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one command at a time decide; the lock goes with its process, however that ends.

    Raises
    ------
    UserError
        If another command holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as handle:
        if os.name != "nt":  # Windows has no flock; there the user sees to it
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"another `cxr promote` is at work in {folder}: wait until it has ended") from None
        yield
