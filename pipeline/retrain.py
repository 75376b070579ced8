"""`cxr retrain`: labelled films of the log become a new data version; train on it, judge, promote or leave it."""

import dataclasses
import time
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.evaluate import evaluate
from pipeline.files import read_json, write_json
from pipeline.ingest import ingest
from pipeline.manifest import findings_of, read_manifest
from pipeline.params import DatasetParams, DownloadParams, Params
from pipeline.params_file import as_dict, write_yaml
from pipeline.preprocess import preprocess
from pipeline.progress import note
from pipeline.promote import promote
from pipeline.promotion_steps import Places
from pipeline.retraining_data import TABLE, Version, labelled_films, write_version
from pipeline.split import split
from pipeline.train import train

RECORD = "retrain.json"


@dataclasses.dataclass(frozen=True)
class Project:
    """Where the present data set, its champion and the decisions lie.

    Attributes
    ----------
    manifest, splits, raw : Path
        The present data set.
    evidence, records : Path
        The champion's, and those of the promotions.
    """

    manifest: Path
    splits: Path
    raw: Path
    evidence: Path
    records: Path


def retrain(
    log: str, table: Path, images: Path, out: Path, project: Project, params: Params, after: Path | None = None
) -> bool:
    """Make a data version of the present data and a log's labelled films, train on it, and let the rule decide.

    The present data, model and reports stay as they are; all that is new lies in `out`. The champion is scored on the
    new version's test images first, so that both models are compared on the same ones.

    Parameters
    ----------
    log : str
        The prediction log, with its truths.
    table, images : Path
        Which film each request was, and the films' folder; see `retraining_data.labelled_films`.
    out : Path
        A folder that does not exist or is empty.
    project : Project
        Present data, champion, decisions.
    params : Params
        As for all stages; data set, source and protocol become those of the new version.
    after : Path, optional
        A `monitor.json`: do nothing unless it holds an alarm of accuracy.

    Returns
    -------
    bool
        Whether the new model is champion now, or nothing was to be done.

    Raises
    ------
    UserError
        If a stage refuses something; what was finished until then stays in `out`.
    """
    if after is not None and not accuracy_alarm(read_json(after)):
        note(f"{after} holds no alarm of accuracy: nothing to do")
        return True
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty: give a folder that does not exist")
    findings = findings_of(read_manifest(project.manifest))
    films = labelled_films(log, table, images, findings)
    raw = out / "data" / "raw"
    version = write_version(films, images, project.manifest, project.splits, project.raw, raw, params.split)
    renewed = params_of(params, raw, findings)
    write_yaml(out / "params.yaml", as_dict(renewed))
    note(f"data version {version.sha256[:12]}: {version.old:,} present images, {version.new:,} new ones")
    run_stages(out, renewed)
    champion = judge_champion(out, project, renewed)
    places = Places(project.evidence, project.records)
    promoted = promote(out / "models" / "model.keras", out / "reports", places, renewed)
    write_json(out / RECORD, record(version, champion, log_rows=len(films), promoted=promoted))
    note(f"record: {out / RECORD}; the decision is the last in {project.records}")
    return promoted


def accuracy_alarm(document: dict[str, Any]) -> bool:
    """Say whether a `monitor.json` holds an alarm of accuracy."""
    return any(row["state"] == "alarm" for row in document.get("accuracy", {}).get("signals", []))


def params_of(params: Params, raw: Path, findings: list[str]) -> Params:
    """Return the parameters of the new version: a local folder with a table, and its own test split."""
    dataset = DatasetParams(preset=params.dataset.preset, adapter="folder", table=TABLE, finding_columns=findings)
    download = DownloadParams(source="local", archive=raw.as_posix())
    protocol = dataclasses.replace(params.split, protocol="folder")
    return dataclasses.replace(params, dataset=dataset, download=download, split=protocol)


def run_stages(out: Path, params: Params) -> None:
    """Run the stages from ingest to evaluate below `out`."""
    data, reports = out / "data", out / "reports"
    manifest, splits, boxes = data / "manifest.csv", data / "splits.csv", data / "boxes.csv"
    tables = reports / "data"
    ingest(data / "raw", manifest, tables / "quarantine.csv", params, boxes=boxes, thumbnails=data / "thumbnails.npy")
    split(manifest, splits, tables / "split.json", params.split)
    preprocess(manifest, splits, data / "processed", data / "raw", params)
    train(data / "processed", out / "models", params)
    places = out / "models" / "model.keras", data / "processed", reports, boxes
    evaluate(*places, params, (manifest, data / "raw"))


def judge_champion(out: Path, project: Project, params: Params) -> str:
    """Score the champion on the new version's test images and store that as its evidence; '' if there is none."""
    found = sorted(project.evidence.glob("[0-9]*/model.keras"))
    if not found:
        return ""
    champion, reports, data = found[-1], out / "reports" / "champion", out / "data"
    films = data / "manifest.csv", data / "raw"
    evaluate(champion, data / "processed", reports, data / "boxes.csv", params, films)
    promote(champion, reports, Places(project.evidence, project.records), params)
    return champion.parent.name


def record(version: Version, champion: str, *, log_rows: int, promoted: bool) -> dict[str, Any]:
    """Return what was done, for the record."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": dataclasses.asdict(version),
        "films_of_the_log": log_rows,
        "champion_before": champion,
        "promoted": promoted,
    }
