"""What a finished training leaves: its record, its figures in MLflow, its last line."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.files import sha256_file, write_json
from pipeline.metrics import macro_auroc
from pipeline.params import Params
from pipeline.params_file import as_dict, write_yaml
from pipeline.progress import note
from pipeline.quiet import load_tensorflow
from pipeline.repeats import FOLDER, MODEL, summary, write_repeats
from pipeline.shards import META, Processed
from pipeline.tracking import Run, code_version, without_secrets


@dataclass(frozen=True)
class Fitted:
    """A finished training.

    Attributes
    ----------
    seed : int
        Its seed.
    folder : PurePosixPath
        Where it lies below the folder of models.
    history : dict
        Figure to its value after each epoch.
    val_auc : float
        Validation AUROC of the kept model; until that is read back, of the best epoch.
    """

    seed: int
    folder: PurePosixPath
    history: dict[str, list[float]]
    val_auc: float

    @property
    def best(self) -> int:
        """The best epoch, from 0."""
        return int(np.nanargmax(self.history["val_auc"]))


def finish(data: Processed, params: Params, run: Run, folder: Path, fitted: list[Fitted], out: Path) -> None:
    """Write what belongs to the models, and log it with the first model itself.

    What is reported of a model is what its file gives when it is read back.
    """
    load_tensorflow()
    model, probabilities = read_back(fitted[0], data, params, folder)
    others = (read_back(item, data, params, folder)[1] for item in fitted[1:])
    labels = data.labels[(data.table["split"] == "val").to_numpy()]
    fitted = [
        dataclasses.replace(item, val_auc=macro_auroc(labels, scores))
        for item, scores in zip(fitted, (probabilities, *others), strict=True)
    ]
    write_record(data, params, run, folder, fitted)
    run.log_model(model, np.zeros((1, data.size, data.size, 1), np.uint8))
    say_result(data, params, fitted[0], probabilities, out)


def read_back(fitted: Fitted, data: Processed, params: Params, folder: Path) -> tuple[Any, NDArray[np.float32]]:
    """Return a model as its file holds it, and its probabilities of the validation images."""
    from pipeline.model import load_model
    from pipeline.scoring_input import predict

    model = load_model(folder / fitted.folder / MODEL)
    return model, predict(model, data, "val", params.train.batch_size)


def write_record(data: Processed, params: Params, run: Run, folder: Path, fitted: list[Fitted]) -> None:
    """Write parameters, record and repeats, and log them."""
    (folder / FOLDER).mkdir(exist_ok=True)
    write_yaml(folder / "params.yaml", as_dict(params))
    training = record(data, run, folder, fitted)
    write_json(folder / "training.json", training)
    write_repeats(folder / FOLDER / "repeats.csv", training["repeats"])
    run.log_tags(
        {
            "code_version": code_version(),
            "dataset": str(data.meta["dataset"]),
            "protocol": str(data.meta["protocol"]),
            "manifest_sha256": str(data.meta["manifest_sha256"]),
            "splits_sha256": str(data.meta["splits_sha256"]),
        }
    )
    run.log_files(*(folder / name for name in ("history.csv", "params.yaml", "training.json")))
    first = fitted[0]
    run.log_metrics({"best_epoch": first.best + 1, "best_val_auc": first.val_auc} | seeds_apart(fitted))


def say_result(data: Processed, params: Params, fitted: Fitted, probabilities: NDArray[np.float32], out: Path) -> None:
    """Say how good the kept model is, and what comes next."""
    from pipeline.training.closing import closing_line, validation_estimate

    rows = data.rows("val")
    labels = data.labels[(data.table["split"] == "val").to_numpy()]
    patients = rows["patient_id"].to_numpy()
    estimate = validation_estimate(labels, probabilities, patients, params.evaluate)
    epochs = len(fitted.history["val_auc"])
    counts = len(rows), len(set(patients))
    note(closing_line(fitted.best + 1, epochs, estimate, *counts, out / MODEL, confidence=params.evaluate.confidence))


def record(data: Processed, run: Run, folder: Path, fitted: list[Fitted]) -> dict[str, Any]:
    """Return what `training.json` holds; its own figures are those of the first seed, `repeats` has those of all."""
    import keras
    import tensorflow as tf

    repeats = [
        {
            "seed": item.seed,
            "val_auc": item.val_auc,
            "best_epoch": item.best + 1,
            "epochs": len(item.history["val_auc"]),
            "model_sha256": sha256_file(folder / item.folder / MODEL),
            "path": str(item.folder / MODEL),
        }
        for item in fitted
    ]
    return {
        **{key: repeats[0][key] for key in ("best_epoch", "epochs", "val_auc", "model_sha256")},
        "processed_sha256": sha256_file(data.folder / META),
        "findings": data.findings,
        "preprocess": data.meta["preprocess"],
        "repeats": repeats,
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__},
        "code_version": code_version(),
        "mlflow": {"run_id": run.id, "uri": without_secrets(run.uri)},
    }


def seeds_apart(fitted: list[Fitted]) -> dict[str, float]:
    """Return how the best validation AUROC differs between several seeds, for MLflow, and say it; nothing for one."""
    if len(fitted) == 1:
        return {}
    over = summary([item.val_auc for item in fitted])
    note(
        f"validation AUC over {len(fitted)} seeds: mean {over['mean']:.4f}, standard deviation {over['sd']:.4f}, "
        f"{over['min']:.4f} to {over['max']:.4f}"
    )
    single = {f"{item.folder.name}/best_val_auc": item.val_auc for item in fitted[1:]}
    return single | {f"seeds_val_auc_{name}": over[name] for name in ("mean", "sd", "min", "max")}
