"""How a decision of `cxr promote` is carried out, so that it can be killed anywhere.

The alias in the registry alone says who is champion, and moving it is one step. Before it, the decision is written down
as pending and the new evidence is stored; after it come the record and what is logged. No step changes an earlier file,
so what a killed command left is either finished, if the alias was moved, or taken back.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import write_text
from pipeline.progress import note, warn
from pipeline.promotion_evidence import Evidence, champion_folder, store
from pipeline.promotion_records import (
    read_pending,
    read_records,
    record_path,
    remove_pending,
    write_pending,
    write_record,
)
from pipeline.promotion_text import to_markdown
from pipeline.registry import Registry


@dataclass(frozen=True)
class Places:
    """The folders of the champions' evidence, which names patients, and of the decisions, which do not."""

    evidence: Path
    records: Path


def carry_out(record: dict[str, Any], candidate: Evidence | None, registry: Registry, places: Places) -> None:
    """Carry out a decision: pending, evidence, alias, record, log.

    Parameters
    ----------
    record : dict
        The decision.
    candidate : Evidence or None
        What to store if the decision calls for it.
    registry : Registry
        Where the alias is moved.
    places : Places
        Where evidence and records go.

    Raises
    ------
    UserError
        If the alias was moved by another in the meantime, or the registry went away.
    """
    write_pending(places.evidence, record)
    about = record["registry"]
    if candidate and record["outcome"] in ("promoted", "recorded"):
        store(places.evidence, record["number"], candidate, about["version"])
    if about["before"] != about["after"]:
        if (holder := registry.holder(about["alias"])) != about["before"]:
            _take_back(record, places)
            raise UserError(
                f"the alias {about['alias']} was moved to version {holder} while this was decided: nothing was changed"
            )
        try:
            registry.move(about["alias"], about["after"])
        except UserError as error:
            raise UserError(f"{error}; the next `cxr promote` will finish what was begun, or take it back") from error
    _finish(record, registry, places)


def settle(registry: Registry, places: Places) -> list[dict[str, Any]]:
    """Finish or take back what a killed command left; return the records.

    Raises
    ------
    UserError
        If it was begun in another registry, or a record is missing or changed.
    """
    if record := read_pending(places.evidence):
        about = record["registry"]
        if (about["address"], about["model"]) != (registry.address, registry.name):
            raise UserError(
                f"decision {record['number']} was begun for {about['model']} in {about['address']} and was killed: run "
                "`cxr promote` once with that tracking.uri and tracking.register, which finishes it or takes it back"
            )
        if record_path(places.records, record).is_file() or _had_its_effect(record, registry, places):
            _finish(record, registry, places)
            note(f"decision {record['number']}, {record['outcome']}, was killed and is finished now")
        else:
            _take_back(record, places)
            note(f"decision {record['number']} was killed before it had an effect; it is taken back")
    records = read_records(places.records)
    for record in records:
        page = record_path(places.records, record).with_suffix(".md")
        if not page.is_file():
            write_text(page, to_markdown(record))
    return records


def _had_its_effect(record: dict[str, Any], registry: Registry, places: Places) -> bool:
    about = record["registry"]
    if about["before"] != about["after"]:
        return bool(registry.holder(about["alias"]) == about["after"])
    return record["outcome"] == "refused" or champion_folder(places.evidence, record["number"]).is_dir()


def _finish(record: dict[str, Any], registry: Registry, places: Places) -> None:
    path = write_record(places.records, record)
    _publish(record, path, registry)
    remove_pending(places.evidence)


def _take_back(record: dict[str, Any], places: Places) -> None:
    shutil.rmtree(champion_folder(places.evidence, record["number"]), ignore_errors=True)
    remove_pending(places.evidence)


def _publish(record: dict[str, Any], path: Path, registry: Registry) -> None:
    """Log the record to the run of the model that was judged, and tag its version; the decision stands without that."""
    try:
        for file in (path, path.with_suffix(".md")):
            registry.log(record["candidate"]["run_id"], file, "promotions")
        tags = {"promotion.record": path.stem, "promotion.outcome": record["outcome"]}
        registry.tag(record["registry"]["version"], tags)
    except UserError as error:
        warn(f"{path} could not be logged: {error}")
