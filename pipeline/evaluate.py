"""Stage `evaluate`: the predictions table, exact scores with intervals, curves. The test split is opened here only."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.assess import assess, write_assessment, write_table
from pipeline.errors import UserError
from pipeline.files import read_json, sha256_file
from pipeline.params import Params
from pipeline.progress import note, warn
from pipeline.quiet import load_tensorflow
from pipeline.shards import Processed, open_processed
from pipeline.tracking import Run

SPLITS = ("val", "test")
_BATCH = 64


def evaluate(model_path: Path, processed: Path, reports: Path, params: Params) -> None:
    """Predict validation and test images, score them, and write tables and curves.

    Parameters
    ----------
    model_path : Path
        `model.keras`; `training.json` beside it must belong to it.
    processed : Path
        The processed images.
    reports : Path
        Where `predictions.csv`, `metrics.json` and `plots/` go.
    params : Params
        Sections `evaluate` and `tracking`.

    Raises
    ------
    UserError
        If the model is missing, damaged or was trained for other findings or another image size.
    """
    load_tensorflow()
    from pipeline.model import load_model

    data = open_processed(processed)
    training = read_json(model_path.with_name("training.json"))
    check_fit(model_path, training, data)
    model = load_model(model_path)
    tables = [
        table_of(data, split, probabilities_of(model, data, split, flip=params.evaluate.flip)) for split in SPLITS
    ]
    predictions = pd.concat(tables, ignore_index=True)
    about = {"dataset": data.meta["dataset"], "protocol": data.meta["protocol"], "flip": params.evaluate.flip}
    assessment = assess(predictions, data.findings, params.evaluate)
    metrics = about | assessment.documents["metrics"]
    assessment.documents["metrics"] = metrics
    write_table(reports / "predictions.csv", predictions)
    write_assessment(assessment, reports)
    log(metrics, reports, training, params)
    say(metrics)


def probabilities_of(model: Any, data: Processed, split: str, *, flip: bool) -> NDArray[np.float32]:
    """Return the probabilities of a split, shape (n_images, n_findings); with `flip` the mean with those of its mirror.

    Averaging over the two is the smallest test-time augmentation (Krizhevsky et al. 2012, section 4.1).
    """
    from pipeline.input_pipeline import predict

    probabilities = predict(model, data, split, _BATCH)
    if flip:
        probabilities = (probabilities + predict(model, data, split, _BATCH, mirrored=True)) / np.float32(2)
    return np.asarray(probabilities, np.float32)


def check_fit(model_path: Path, training: dict[str, Any], data: Processed) -> None:
    """Refuse a model that is not the one that was trained, or that was trained for other images."""
    if not model_path.is_file():
        raise UserError(f"{model_path} is missing: run `cxr train` (or `dvc repro`) first")
    if sha256_file(model_path) != training.get("model_sha256"):
        raise UserError(f"{model_path} and {model_path.with_name('training.json')} do not belong together: train again")
    for key, found in (("findings", data.findings), ("preprocess", data.meta["preprocess"])):
        if training.get(key) != found:
            raise UserError(f"{model_path} was trained with {key} {training.get(key)}, {data.folder} has {found}")


def table_of(data: Processed, split: str, probabilities: NDArray[np.float32]) -> pd.DataFrame:
    """Return the predictions table of one split: identifiers, `y_<Finding>`, `p_<Finding>`, view, sex, age."""
    rows = data.rows(split).reset_index(drop=True)
    table = rows[["image_id", "patient_id", "split"]].copy()
    for name in data.findings:
        table[f"y_{name}"] = rows[name].astype("Int8")
    for k, name in enumerate(data.findings):
        table[f"p_{name}"] = probabilities[:, k]
    return table.join(rows[["view", "sex", "age"]])


def log(metrics: dict[str, Any], reports: Path, training: dict[str, Any], params: Params) -> None:
    """Add the test figures to the training's MLflow run."""
    known = training["mlflow"]
    if not known["run_id"]:
        warn("the training has no MLflow run; the test figures are in metrics.json only")
        return
    run = Run(params.tracking, run_id=known["run_id"], uri=known["uri"])
    values = {"test_auc": metrics["test"]["macro"]["auc"]}
    for bound in ("ci_low", "ci_high"):
        values[f"test_auc_{bound}"] = metrics["test"]["macro"][bound]
    values |= {f"test_auc_{name}": row["auc"] for name, row in metrics["test"]["findings"].items()}
    run.log_metrics(values)
    run.log_files(reports / "metrics.json", reports / "plots")
    run.end()


def say(metrics: dict[str, Any]) -> None:
    """Print the result, with counts and interval, and name what is undefined."""
    macro, test = metrics["test"]["macro"], metrics["test"]
    note(
        f"test AUC {macro['auc']:.4f} ({metrics['confidence']:.0%} interval {macro['ci_low']:.4f} to "
        f"{macro['ci_high']:.4f}), mean of {macro['n_findings']} findings, {test['images']} images of "
        f"{test['patients']} patients, protocol {metrics['protocol']}{', with mirror images' * metrics['flip']}"
    )
    if macro["undefined"]:
        warn(f"test AUC is undefined (NaN) for {macro['undefined']}: no positive or no negative image")
