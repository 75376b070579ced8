"""Stage `evaluate`: the predictions table, exact scores with intervals, curves. The test split is opened here only."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.files import atomic_open, read_json, sha256_file, write_json
from pipeline.metrics import score_split
from pipeline.params import EvaluateParams, Params
from pipeline.progress import note, warn
from pipeline.quiet import load_tensorflow
from pipeline.shards import Processed, open_processed
from pipeline.tracking import Run

SPLITS = ("val", "test")
_CURVE_POINTS = 300
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
    metrics = score(predictions, data.findings, params.evaluate)
    metrics = {
        "dataset": data.meta["dataset"],
        "protocol": data.meta["protocol"],
        "flip": params.evaluate.flip,
        **metrics,
    }
    write_table(reports / "predictions.csv", predictions)
    write_table(reports / "plots" / "roc.csv", roc_points(predictions, data.findings))
    write_table(reports / "plots" / "auc.csv", auc_table(metrics))
    write_json(reports / "metrics.json", metrics)
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


def score(predictions: pd.DataFrame, findings: list[str], params: EvaluateParams) -> dict[str, Any]:
    """Score each split of a predictions table; see `pipeline.metrics.score_split`."""
    metrics: dict[str, Any] = {"confidence": params.confidence, "resamples": params.resamples}
    for split, rows in predictions.groupby("split", sort=False):
        labels, probabilities = arrays_of(rows, findings)
        metrics[str(split)] = score_split(labels, probabilities, rows["patient_id"].to_numpy(str), findings, params)
    return metrics


def arrays_of(rows: pd.DataFrame, findings: list[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return labels (NaN: unknown) and probabilities of a predictions table, each (n_images, n_findings)."""
    labels = rows[[f"y_{name}" for name in findings]].to_numpy(np.float64, na_value=np.nan)
    return labels, rows[[f"p_{name}" for name in findings]].to_numpy(np.float64)


def roc_points(predictions: pd.DataFrame, findings: list[str]) -> pd.DataFrame:
    """Return the test split's ROC curves, thinned to a few hundred points each for drawing.

    Computed by `sklearn.metrics.roc_curve`. Findings whose curve is undefined have no rows.
    """
    from sklearn.metrics import roc_curve

    rows = predictions[predictions["split"] == "test"]
    labels, probabilities = arrays_of(rows, findings)
    curves = []
    for k, name in enumerate(findings):
        known = ~np.isnan(labels[:, k])
        if len(np.unique(labels[known, k])) == 2:
            fpr, tpr, _ = roc_curve(labels[known, k], probabilities[known, k])
            keep = np.unique(np.linspace(0, len(fpr) - 1, _CURVE_POINTS).round().astype(int))
            curves.append(pd.DataFrame({"finding": name, "fpr": fpr[keep], "tpr": tpr[keep]}))
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=["finding", "fpr", "tpr"])


def auc_table(metrics: dict[str, Any]) -> pd.DataFrame:
    """Return the test AUROCs with their intervals and counts, one row per finding."""
    names = ("auc", "ci_low", "ci_high", "n_positive", "n_negative")
    findings = metrics["test"]["findings"]
    return pd.DataFrame([{"finding": name, **{key: row[key] for key in names}} for name, row in findings.items()])


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV file, floats with six significant digits, whole or not at all."""
    with atomic_open(path) as handle:
        table.to_csv(handle, index=False, lineterminator="\n", float_format="%.9g")


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
