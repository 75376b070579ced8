"""Stage `evaluate`: the predictions table, and every score and curve from it. The test split is opened here only."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.assess import Assessment, assess, write_assessment, write_table
from pipeline.box_places import read_boxes
from pipeline.case_pictures import write_cases
from pipeline.errors import UserError
from pipeline.files import read_json, sha256_file
from pipeline.floor import floor
from pipeline.localise import localise
from pipeline.manifest import read_table
from pipeline.metrics import auroc
from pipeline.params import EvaluateParams, Params
from pipeline.progress import note, warn
from pipeline.quiet import load_tensorflow
from pipeline.repeats import Member, combine, member_models, spread
from pipeline.shards import Processed, open_processed
from pipeline.tracking import Run

if TYPE_CHECKING:
    import keras

SPLITS = ("val", "test")
_BATCH = 64


def evaluate(
    model_path: Path,
    processed: Path,
    reports: Path,
    boxes: Path,
    params: Params,
    films: tuple[Path, Path] | None = None,
) -> None:
    """Predict validation and test images, score them, and write tables, curves and pictures.

    Parameters
    ----------
    model_path : Path
        `model.keras`; `training.json` beside it must belong to it.
    processed : Path
        The processed images.
    reports : Path
        Where `predictions.csv`, `metrics.json`, `calibration.json`, `operating_points.json`, `subgroups.json`,
        `floor.json`, `localisation.json`, `plots/`, `cases/` and `reference.npz` go.
    boxes : Path
        The readers' boxes that `ingest` wrote.
    params : Params
        Sections `evaluate` and `tracking`.
    films : tuple of Path, optional
        The manifest and the raw folder, for what films look like before preprocessing; without them, or where a file
        is missing, the reference does not know it.

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
    places = read_boxes(boxes)
    members = member_models(model_path.parent, training)
    predictions, repeats = predictions_of(members, data, params.evaluate)
    note("scoring: calibration, operating points, subgroups, intervals")
    assessment = assess(predictions, data.findings, params.evaluate)
    complete(assessment, data, params.evaluate, repeats)
    model = load_model(model_path)
    found = localise(model, data, places, "test", params.evaluate) if params.evaluate.localise else None
    assessment.documents["localisation"] = found if found and found["findings"] else None
    write_table(reports / "predictions.csv", predictions)
    assessment.documents["metrics"] |= {  # so that no other model's figures can be taken for this one's
        "model_sha256": training["model_sha256"],
        "predictions_sha256": sha256_file(reports / "predictions.csv"),
    }
    thresholds = {name: value for name, value in assessment.thresholds.items() if value is not None}
    write_cases(model, data, predictions, thresholds, places, reports / "cases", params.evaluate.cases)
    write_assessment(assessment, reports)
    if not assessment.documents["metrics"]["ensemble"]:  # a mean of trainings is never deployed
        keep_reference(model_path, data, reports, films, params.evaluate)
    log(assessment, reports, training, params)
    say(assessment.documents["metrics"])


def check_fit(model_path: Path, training: dict[str, Any], data: Processed) -> None:
    """Refuse a model that is not the one that was trained, or that was trained for other images."""
    if not model_path.is_file():
        raise UserError(f"{model_path} is missing: run `cxr train` (or `dvc repro`) first")
    if sha256_file(model_path) != training.get("model_sha256"):
        raise UserError(f"{model_path} and {model_path.with_name('training.json')} do not belong together: train again")
    for key, found in (("findings", data.findings), ("preprocess", data.meta["preprocess"])):
        if training.get(key) != found:
            raise UserError(f"{model_path} was trained with {key} {training.get(key)}, {data.folder} has {found}")


def keep_reference(
    model_path: Path, data: Processed, reports: Path, films: tuple[Path, Path] | None, params: EvaluateParams
) -> None:
    """Write `reference.npz`, what `cxr monitor` compares a deployment with."""
    from pipeline.exported import open_exported
    from pipeline.monitoring.reference import reference_of, write_reference

    note("the reference for monitoring: outputs, features and statistics of validation and test images")
    files = None
    if films is not None and films[0].is_file() and films[1].is_dir():
        files = read_table(films[0]).set_index("image_id")["path"].map(lambda name: films[1] / str(name))
    exported = open_exported(model_path, reports=reports)
    reference = reference_of(exported, data, files, params.reference_images, params.seed)
    write_reference(reports / "reference.npz", reference)


def predictions_of(
    members: list[Member], data: Processed, params: EvaluateParams
) -> tuple[pd.DataFrame, dict[str, Any] | None]:
    """Return the predictions table, and how the test AUROC differs between the trainings if there are several.

    The table is that of the first training, or of the mean over all (`params.ensemble`).
    """
    import keras

    from pipeline.model import load_model

    outputs: dict[str, list[NDArray[np.float32]]] = {split: [] for split in SPLITS}
    for member in members:
        model = load_model(member.path)
        for split in SPLITS:
            outputs[split].append(probabilities_of(model, data, split, flip=params.flip))
        keras.utils.clear_session()
    chosen = {split: combine(values) if params.ensemble else values[0] for split, values in outputs.items()}
    tables = [table_of(data, split, chosen[split]) for split in SPLITS]
    repeats = seeds_apart(members, data, outputs["test"]) if len(members) > 1 else None
    return pd.concat(tables, ignore_index=True), repeats


def probabilities_of(model: "keras.Model", data: Processed, split: str, *, flip: bool) -> NDArray[np.float32]:
    """Return the probabilities of a split, shape (n_images, n_findings); with `flip` the mean with those of its mirror.

    Averaging over the two is the smallest test-time augmentation (Krizhevsky et al. 2012, section 4.1).
    """
    from pipeline.scoring_input import predict

    probabilities = predict(model, data, split, _BATCH)
    if flip:
        probabilities = (probabilities + predict(model, data, split, _BATCH, mirrored=True)) / np.float32(2)
    return np.asarray(probabilities, np.float32)


def table_of(data: Processed, split: str, probabilities: NDArray[np.float32]) -> pd.DataFrame:
    """Return the predictions table of one split: identifiers, `y_<Finding>`, `p_<Finding>`, view, sex, age."""
    rows = data.rows(split).reset_index(drop=True)
    table = rows[["image_id", "patient_id", "split"]].copy()
    for name in data.findings:
        table[f"y_{name}"] = rows[name].astype("Int8")
    for k, name in enumerate(data.findings):
        table[f"p_{name}"] = probabilities[:, k]
    return table.join(rows[["view", "sex", "age"]])


def seeds_apart(members: list[Member], data: Processed, outputs: list[NDArray[np.float32]]) -> dict[str, Any]:
    """Return the spread of the test AUROC over the seeds, and the seeds themselves."""
    labels = data.rows("test")[data.findings].to_numpy(np.float64, na_value=np.nan)
    scores = np.array([[auroc(labels[:, k], each[:, k]) for k in range(labels.shape[1])] for each in outputs])
    return {**spread(scores, data.findings), "seeds": [member.seed for member in members]}


def complete(assessment: Assessment, data: Processed, params: EvaluateParams, repeats: dict[str, Any] | None) -> None:
    """Add what a predictions table alone does not tell: the run, the seeds and the metadata floor."""
    test = assessment.test
    rows = {split: data.rows(split) for split in ("train", "test")}
    document, _ = floor(rows["train"], rows["test"], data.findings, test.probabilities, test.resamples)
    about = {name: data.meta[name] for name in ("dataset", "protocol")}
    about |= {"flip": params.flip, "ensemble": params.ensemble and repeats is not None}
    assessment.documents["metrics"] = about | assessment.documents["metrics"] | {"repeats": repeats}
    assessment.documents["floor"] = document
    floors = {name: row["auc"] for name, row in document["findings"].items()}
    assessment.plots["auc"] = assessment.plots["auc"].assign(floor=lambda table: table["finding"].map(floors))


def log(assessment: Assessment, reports: Path, training: dict[str, Any], params: Params) -> None:
    """Add the test figures to the training's MLflow run; tables of images and pictures of patients stay here."""
    known = training["mlflow"]
    if not known["run_id"]:
        warn("the training has no MLflow run; the test figures are in metrics.json only")
        return
    test = assessment.documents["metrics"]["test"]
    run = Run(params.tracking, run_id=known["run_id"], uri=known["uri"])
    values = {"test_auc": test["macro"]["auc"]}
    for bound in ("ci_low", "ci_high"):
        values[f"test_auc_{bound}"] = test["macro"][bound]
    values |= {f"test_auc_{name}": row["auc"] for name, row in test["findings"].items()}
    values |= {f"test_{name}": test["macro"][name] for name in ("average_precision", "brier", "ece", "calibrated_ece")}
    run.log_metrics(values)
    run.log_files(*(reports / f"{name}.json" for name in assessment.documents), reports / "plots")
    run.end()


def say(metrics: dict[str, Any]) -> None:
    """Print the result, with counts and interval, and name what is undefined."""
    macro, test = metrics["test"]["macro"], metrics["test"]
    note(
        f"test AUC {macro['auc']:.4f} ({metrics['confidence']:.0%} interval {macro['ci_low']:.4f} to "
        f"{macro['ci_high']:.4f}), mean of {macro['n_findings']} findings, {test['images']} images of "
        f"{test['patients']} patients, protocol {metrics['protocol']}{', with mirror images' * metrics['flip']}"
        f"{', mean of several trainings' * metrics['ensemble']}"
    )
    if macro["undefined"]:
        warn(f"test AUC is undefined (NaN) for {macro['undefined']}: no positive or no negative image")
