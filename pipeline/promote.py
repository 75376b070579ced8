"""`cxr promote`: let a new model take the champion's place if the rule allows it, and undo that (docs/promotion.md)."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.progress import note, warn
from pipeline.promotion_decision import adopt, judge, made_by, registry_state, test_images
from pipeline.promotion_evidence import Evidence, champion_folder, read_candidate
from pipeline.promotion_records import Reign, locked, new_record, read_pending, read_records, record_path, reigns_of
from pipeline.promotion_steps import Places, carry_out, settle
from pipeline.promotion_text import to_text
from pipeline.registry import Registry


def promote(model: Path, reports: Path, places: Places, params: Params, *, dry_run: bool = False) -> bool:
    """Compare a model with the champion, print and store the decision, and move the alias if the rule allows it.

    Without a champion the conditions that need none must hold. A model that is the champion already is not judged;
    its evidence is stored if it is new.

    Parameters
    ----------
    model : Path
        `model.keras`, trained, registered and evaluated; `training.json` lies beside it.
    reports : Path
        The folder that its evaluation filled.
    places : Places
        Where evidence and records lie.
    params : Params
        Sections `promote`, `evaluate` (the bootstrap, the subgroups) and `tracking`.
    dry_run : bool
        Print the decision only.

    Returns
    -------
    bool
        Whether the model is champion now (with `dry_run`: would be).

    Raises
    ------
    UserError
        If the registry is away, evidence is missing or stale, the models were not scored on the same images, or the
        alias is not where the records say.
    """
    with nullcontext() if dry_run else locked(places.evidence):
        registry, records, reigns = _open(places, params, dry_run=dry_run)
        candidate = read_candidate(model, reports)
        run = candidate.training["mlflow"]
        version = registry.version_of(run["run_id"], run["uri"])
        holder = registry.holder(params.promote.alias)
        if version == holder:
            decision = adopt(candidate, version, reigns, places.evidence)
        else:
            decision = judge(candidate, _reign_of(holder, reigns, places, params), version, places.evidence, params)
        if decision is None:
            print(f"version {version} is {params.promote.alias} already, and its evidence is stored")
            return True
        after = version if decision["outcome"] == "promoted" else holder
        about = registry_state(registry, params.promote.alias, version, holder, after)
        test = test_images(candidate, records)
        record = new_record(places.records, records, made_by() | decision | {"registry": about, "test": test})
        _close(record, candidate, registry, places, dry_run=dry_run)
        return bool(record["outcome"] != "refused")


def undo(places: Places, params: Params, *, dry_run: bool = False) -> None:
    """Move the alias back to where it was before the last promotion that was not undone, and record that.

    Parameters
    ----------
    places : Places
        Where evidence and records lie.
    params : Params
        Sections `promote` and `tracking`.
    dry_run : bool
        Print the decision only.

    Raises
    ------
    UserError
        If there is nothing to undo, the alias is not where the records say, or the version before was deleted.
    """
    with nullcontext() if dry_run else locked(places.evidence):
        registry, records, reigns = _open(places, params, dry_run=dry_run)
        holder = registry.holder(params.promote.alias)
        reign = _reign_of(holder, reigns, places, params)
        if reign is None or reign.adopted:
            raise UserError(f"there is nothing to undo: {places.records} holds no promotion that was not undone")
        previous = reign.previous
        if previous:
            registry.require_version(previous)
        if len(reigns) > 1 and not champion_folder(places.evidence, reigns[-2].evidence).is_dir():
            warn(f"the evidence of version {previous} is gone: evaluate it anew before the next promotion")
        undone = records[reign.record - 1]
        then = f"version {previous} is {params.promote.alias} again" if previous else "there is no champion now"
        decision = {
            "outcome": "undone",
            "reason": then,
            "undoes": reign.record,
            "candidate": undone["candidate"],
            "champion": undone["champion"],
            "rule": None,
            "checks": [],
            "test": undone["test"],
            "registry": registry_state(registry, params.promote.alias, reign.version, holder, "undone")
            | {"after": previous},
        }
        record = new_record(places.records, records, made_by() | decision)
        _close(record, None, registry, places, dry_run=dry_run)


def _open(places: Places, params: Params, *, dry_run: bool) -> tuple[Registry, list[dict[str, Any]], list[Reign]]:
    registry = Registry(params.tracking)
    if not dry_run:
        records = settle(registry, places)
    elif read_pending(places.evidence):
        raise UserError("a killed `cxr promote` left something half done: run it without --dry-run, which settles that")
    else:
        records = read_records(places.records)
    return registry, records, reigns_of(records, registry.name, params.promote.alias)


def _close(
    record: dict[str, Any], candidate: Evidence | None, registry: Registry, places: Places, *, dry_run: bool
) -> None:
    if not dry_run:
        carry_out(record, candidate, registry, places)
    print(to_text(record))
    note("dry run: nothing was stored" if dry_run else f"record: {record_path(places.records, record)}")


def _reign_of(holder: str | None, reigns: list[Reign], places: Places, params: Params) -> Reign | None:
    """Return the reign of the version that holds the alias; refuse an alias that others than `cxr promote` moved."""
    last = reigns[-1] if reigns else None
    if holder == (last.version if last else None):
        return last
    alias = params.promote.alias
    if holder is None and last:
        raise UserError(
            f"the alias {alias} was removed in MLflow, and the records say version {last.version}: set it there again, "
            f"or move {places.records} and {places.evidence} away to begin anew"
        )
    said = f"the records say version {last.version}" if last else f"{places.evidence} has no evidence of it"
    raise UserError(
        f"the alias {alias} is at version {holder}, and {said}: bring back the alias, or the files from where it was "
        f"promoted; or evaluate the model of version {holder} and run `cxr promote` on it, which stores its evidence"
    )
