"""Stage `train`: fine-tune ResNet50 under tf.distribute; the best epoch by exact validation AUROC is kept.

With `train.repeats` above 1 the same is done with further seeds, each training as if it were alone.
"""

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.files import sha256_file, write_json
from pipeline.metrics import auroc
from pipeline.own_process import call_in_own_process
from pipeline.params import Params
from pipeline.params_file import as_dict, write_yaml
from pipeline.precision import resolve_precision
from pipeline.progress import note
from pipeline.quiet import load_tensorflow
from pipeline.repeats import FOLDER, MODEL, folder_of, seeds_of, summary, write_repeats
from pipeline.shards import META, Processed, open_processed
from pipeline.tracking import Run, code_version, without_secrets
from pipeline.training.fit import fit, fit_elsewhere

_OUTPUTS = (FOLDER, MODEL, "history.csv", "params.yaml", "training.json")  # the last one says that all are there


@dataclass(frozen=True)
class Fitted:
    """A finished training: its seed, its folder below that of the models, and each figure's value after each epoch."""

    seed: int
    folder: PurePosixPath
    history: dict[str, list[float]]

    @property
    def best(self) -> int:
        """The best epoch, from 0."""
        return int(np.nanargmax(self.history["val_auc"]))

    @property
    def val_auc(self) -> float:
        """Validation AUROC of the best epoch."""
        return self.history["val_auc"][self.best]


def train(processed: Path, out: Path, params: Params) -> None:
    """Train and write `model.keras`, `history.csv`, `params.yaml` (resolved), `training.json` and `repeats/`.

    All is made in `OUT/.partial` and moved at the end; a killed training leaves nothing that looks finished. The
    model of the first seed is `model.keras`; those of further seeds lie in `repeats/seed-N/`.

    Parameters
    ----------
    processed : Path
        What `preprocess` made.
    out : Path
        The folder of models.
    params : Params
        Sections `model`, `augment`, `train`, `tracking`; all are recorded.

    Raises
    ------
    UserError
        If the images are unfinished or damaged, the weights are missing, validation AUC is defined for no finding,
        or the loss became NaN before the first epoch ended.
    """
    data = open_processed(processed)
    require_defined_auc(data)
    params = resolve_precision(params)
    staging = cleared(out)
    run = Run(params.tracking, name=f"{params.dataset.preset}-{params.model.backbone}")
    try:
        run.log_params(as_dict(params))
        fitted = fit_all(data, params, run, staging, out / "tensorboard")
        finish(data, params, run, staging, fitted)
        run.end()
    except BaseException:
        run.end("FAILED")
        raise
    for name in _OUTPUTS:
        (staging / name).replace(out / name)
    shutil.rmtree(staging)


def cleared(out: Path) -> Path:
    """Remove what an earlier training left, and return a new folder for this one to work in."""
    staging = out / ".partial"
    shutil.rmtree(staging, ignore_errors=True)
    (staging / FOLDER).mkdir(parents=True)
    for name in reversed(_OUTPUTS):  # the one that says that all are there goes first
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return staging


def fit_all(data: Processed, params: Params, run: Run, staging: Path, boards: Path) -> list[Fitted]:
    """Train with every seed, one after another, each as it would be trained alone.

    With several, each has a process of its own: TensorFlow 2.21 keeps some 400 MB of a ResNet50 that is no longer in
    use, and what one training leaves behind could change the numbers of the next.
    """
    seeds = seeds_of(params.train)
    if len(seeds) == 1:
        return [Fitted(seeds[0], folder_of(0, seeds[0]), fit(data, params, run.log_metrics, staging, boards))]
    fitted = []
    for number, seed in enumerate(seeds):
        note(f"repeat {number + 1} of {len(seeds)}, seed {seed}")
        folder = folder_of(number, seed)
        (staging / folder).mkdir(parents=True, exist_ok=True)
        alone = dataclasses.replace(params, train=dataclasses.replace(params.train, seed=seed))
        arguments = (data, alone, staging / folder, boards / folder.name, folder.name)
        fitted.append(Fitted(seed, folder, call_in_own_process(fit_elsewhere, *arguments, receive=run.log_metrics)))
    return fitted


def require_defined_auc(data: Processed) -> None:
    """Refuse data in which no finding has both a positive and a negative validation image: no epoch could be best."""
    labels = data.labels[(data.table["split"] == "val").to_numpy()]
    if all(np.isnan(auroc(labels[:, k], labels[:, k])) for k in range(labels.shape[1])):
        raise UserError(
            f"validation AUC is undefined: none of {', '.join(data.findings)} has both a positive and a negative "
            f"image among the {len(labels)} of val; more images, or another split.seed, are needed"
        )


def finish(data: Processed, params: Params, run: Run, folder: Path, fitted: list[Fitted]) -> None:
    """Write what belongs to the models, and log it with the first model itself."""
    load_tensorflow()
    from pipeline.model import load_model

    first = fitted[0]
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
    run.log_metrics({"best_epoch": first.best + 1, "best_val_auc": first.val_auc} | seeds_apart(fitted))
    example = np.zeros((1, data.size, data.size, 1), np.uint8)
    run.log_model(load_model(folder / MODEL), example)
    note(f"best epoch {first.best + 1} of {len(first.history['val_auc'])}: validation AUC {first.val_auc:.4f}")


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
