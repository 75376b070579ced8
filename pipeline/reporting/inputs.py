"""What the report reads, and the check that all of it belongs to one run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import UserError
from pipeline.files import read_json, sha256_file
from pipeline.manifest import as_number, findings_of, read_manifest, read_table
from pipeline.params import Params
from pipeline.params_file import load_params
from pipeline.shards import INDEX, META

DOCUMENTS = ("metrics", "calibration", "operating_points", "subgroups", "floor", "localisation")
"""JSON files of `evaluate`; all but the first may hold null."""
PLOTS = {
    "roc": ("fpr", "tpr", "tpr_low", "tpr_high"),
    "pr": ("recall", "precision", "precision_low", "precision_high"),
    "reliability": ("bin", "forecast", "observed", "observed_low", "observed_high", "images"),
}
"""Tables of `evaluate` below `plots/`, and their columns of numbers."""
_HISTORY = ("epoch", "loss", "val_loss", "train_auc", "val_auc")


@dataclass(frozen=True)
class Inputs:
    """What earlier stages wrote.

    Attributes
    ----------
    ingest, split, audit, meta, training : dict
        The JSON files of those names.
    documents : dict
        The JSON files of `DOCUMENTS`, each a dict or None.
    cases : dict or None
        `cases/cases.json`.
    manifest, index, history : DataFrame
        The tables; numbers are Float64.
    plots : dict of str to DataFrame
        The tables of `PLOTS`.
    suspects : DataFrame
        `audit.csv`, strings.
    trained : Params
        The parameters that are saved beside the model.
    hashes : dict
        What is hashed to its SHA-256.
    """

    ingest: dict[str, Any]
    split: dict[str, Any]
    audit: dict[str, Any]
    meta: dict[str, Any]
    training: dict[str, Any]
    documents: dict[str, dict[str, Any] | None]
    cases: dict[str, Any] | None
    manifest: pd.DataFrame
    index: pd.DataFrame
    history: pd.DataFrame
    plots: dict[str, pd.DataFrame]
    suspects: pd.DataFrame
    trained: Params
    hashes: dict[str, str]

    @property
    def metrics(self) -> dict[str, Any]:
        """`metrics.json`."""
        return self.documents["metrics"] or {}

    @property
    def calibration(self) -> dict[str, Any] | None:
        """`calibration.json`."""
        return self.documents["calibration"]

    @property
    def operating_points(self) -> dict[str, Any] | None:
        """`operating_points.json`."""
        return self.documents["operating_points"]

    @property
    def subgroups(self) -> dict[str, Any] | None:
        """`subgroups.json`."""
        return self.documents["subgroups"]

    @property
    def floor(self) -> dict[str, Any] | None:
        """`floor.json`."""
        return self.documents["floor"]

    @property
    def localisation(self) -> dict[str, Any] | None:
        """`localisation.json`."""
        return self.documents["localisation"]

    @property
    def findings(self) -> list[str]:
        """The findings, in the order of the page."""
        return list(self.meta["findings"])


def read_inputs(reports: Path, manifest: Path, processed: Path, models: Path) -> Inputs:
    """Read everything but the images; see `pipeline.report.report` for the files and the errors."""
    hashed = {"manifest": manifest, "processed images (meta.json)": processed / META}
    hashed |= {name: reports / name for name in ("predictions.csv", *(f"{name}.json" for name in DOCUMENTS))}
    if missing := [str(path) for path in hashed.values() if not path.is_file()]:
        raise UserError(f"{missing[0]} is missing: run the stage that makes it first (`dvc repro` runs all)")
    return Inputs(
        ingest=read_json(reports / "data" / "ingest.json"),
        split=read_json(reports / "data" / "split.json"),
        audit=read_json(reports / "data" / "audit.json"),
        meta=read_json(processed / META),
        training=read_json(models / "training.json"),
        documents={name: read_json(reports / f"{name}.json") for name in DOCUMENTS},
        cases=read_json(reports / "cases" / "cases.json"),
        manifest=read_manifest(manifest),
        index=_read_index(processed / INDEX),
        history=read_numbers(models / "history.csv", _HISTORY),
        plots={name: read_numbers(reports / "plots" / f"{name}.csv", columns) for name, columns in PLOTS.items()},
        suspects=read_table(reports / "data" / "audit.csv"),
        trained=load_params(models / "params.yaml"),
        hashes={name: sha256_file(path) for name, path in hashed.items()},
    )


def check_inputs(inputs: Inputs, manifest: Path) -> None:
    """Refuse a mixture of runs: a page must not show one model's figures beside another's data.

    Raises
    ------
    UserError
        If model, processed images, manifest and scores do not belong together.
    """
    findings = inputs.findings
    pairs = {
        "training.json and the processed images": (
            inputs.training["processed_sha256"],
            inputs.hashes["processed images (meta.json)"],
        ),
        f"the processed images and {manifest}": (inputs.meta["manifest_sha256"], inputs.hashes["manifest"]),
        "audit.json and the processed images": (
            (inputs.audit["manifest_sha256"], inputs.audit["splits_sha256"]),
            (inputs.meta["manifest_sha256"], inputs.meta["splits_sha256"]),
        ),
        "metrics.json and the processed images": (list(inputs.metrics["test"]["findings"]), findings),
        "index.csv and meta.json": (findings_of(inputs.index), findings),
    }
    for name in ("calibration", "operating_points", "floor"):
        document = inputs.documents[name]
        if document and "findings" in document:
            pairs[f"{name}.json and metrics.json"] = (list(document["findings"]), findings)
    for what, (left, right) in pairs.items():
        if left != right:
            raise UserError(f"{what} do not belong to the same run: run `dvc repro`, which makes anew what is stale")


def read_numbers(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read a table of which some columns are numbers; nothing and `nan` are NaN.

    Raises
    ------
    UserError
        If it is missing or damaged, or lacks a column.
    """
    table = read_table(path)
    if missing := [name for name in columns if name not in table.columns]:
        raise UserError(f"{path}: columns {', '.join(missing)} are missing; remove it and run `dvc repro`")
    for name in columns:
        # Keras' CSVLogger writes an undefined figure as nan.
        table[name] = as_number(table[name].replace("nan", ""), path).astype("float64")
    return table


def _read_index(path: Path) -> pd.DataFrame:
    table = read_table(path)
    for name in ("age", *findings_of(table)):
        table[name] = as_number(table[name], path).astype("Float64")
    return table
