"""What a trained model is, from the files of its training and its evaluation: the manifest of its exports."""

import sys
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.exporting.manifest import Manifest, checked_points, parse_preprocess
from pipeline.files import read_json, sha256_file
from pipeline.params_file import read_yaml


def describe(model_path: Path, reports: Path) -> Manifest:
    """Return what a trained model is; the format is 'keras', and `files` is empty.

    Parameters
    ----------
    model_path : Path
        `model.keras`, with `training.json` and, if it is there, `params.yaml` beside it.
    reports : Path
        What `cxr evaluate` wrote of this model: `metrics.json`, `calibration.json`, `operating_points.json`.

    Raises
    ------
    UserError
        If a file is missing or damaged, or they belong to different models.
    """
    training = read_json(model_path.with_name("training.json"))
    if not model_path.is_file():
        raise UserError(f"{model_path} is missing: run `cxr train` (or `dvc repro`) first, or name another model")
    sha256 = sha256_file(model_path)
    metrics = read_json(reports / "metrics.json")
    for path, document in ((model_path.with_name("training.json"), training), (reports / "metrics.json", metrics)):
        if document.get("model_sha256") != sha256:
            raise UserError(f"{path} is of another model than {model_path}: run `cxr evaluate` (or `dvc repro`) again")
    if metrics.get("ensemble"):
        raise UserError(
            f"{reports} judged the mean of several trainings, and {model_path} is one of them: set evaluate.ensemble "
            "to false, run `cxr evaluate` again, and export then"
        )
    params_file = model_path.with_name("params.yaml")
    params = read_yaml(params_file) if params_file.is_file() else {}
    findings = tuple(training["findings"])
    points = read_json(reports / "operating_points.json")["findings"]
    try:
        thresholds = {name: {point: row["threshold"] for point, row in points[name].items()} for name in findings}
        checked = checked_points(thresholds, findings)
        preprocess = parse_preprocess(training["preprocess"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{reports} and {model_path} do not fit: {error}; run `cxr evaluate` again") from None
    return Manifest(
        format="keras",
        files={},
        model_sha256=sha256,
        findings=findings,
        preprocess=preprocess,
        calibration=read_json(reports / "calibration.json"),
        operating_points=checked,
        flip=bool(metrics.get("flip")),
        versions=dict(training.get("versions", {})) | {"python": sys.version.split()[0]},
        training=_of_training(training, params, metrics),
        title=str(params.get("report", {}).get("title", "Chest X-ray classifier")),
    )


def _of_training(training: dict[str, Any], params: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """Return which training it was; None where that is not on record."""
    return {
        "mlflow": training.get("mlflow"),
        "seed": params.get("train", {}).get("seed"),
        "preset": params.get("dataset", {}).get("preset"),
        "backbone": params.get("model", {}).get("backbone"),
        "dataset": metrics.get("dataset"),
        "protocol": metrics.get("protocol"),
        "processed_sha256": training.get("processed_sha256"),
        "code_version": training.get("code_version"),
        "best_epoch": training.get("best_epoch"),
        "val_auc": training.get("val_auc"),
    }
