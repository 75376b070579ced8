"""Stage `train`: fine-tune a network under tf.distribute; the best epoch by exact validation AUROC is kept.

With `train.repeats` above 1 the same is done with further seeds, each training as if it were alone.
"""

import dataclasses
import shutil
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.metrics import auroc
from pipeline.own_process import call_in_own_process
from pipeline.params import Params
from pipeline.params_file import as_dict
from pipeline.precision import resolve_precision
from pipeline.progress import note
from pipeline.repeats import FOLDER, MODEL, folder_of, seeds_of
from pipeline.shards import Processed, open_processed
from pipeline.tracking import Run
from pipeline.training.cluster import task_of
from pipeline.training.fit import History, fit, fit_elsewhere
from pipeline.training.ray_train import call_on_ray
from pipeline.training.record import Fitted, finish
from pipeline.training.resume import key_of, publish, working_folder

_OUTPUTS = (FOLDER, MODEL, "history.csv", "params.yaml", "training.json")  # the last one says that all are there
_RUN = "run.json"


def train(processed: Path, out: Path, params: Params) -> None:
    """Train and write `model.keras`, `history.csv`, `params.yaml` (resolved), `training.json` and `repeats/`.

    All is made in `OUT/.partial` and given its place at the end; a killed training leaves nothing that looks finished,
    and goes on after its last whole epoch when it is started again. The model of the first seed is `model.keras`;
    those of further seeds lie in `repeats/seed-N/`. A worker of a cluster that is not the chief writes nothing.

    Parameters
    ----------
    processed : Path
        What `preprocess` made.
    out : Path
        The folder of models.
    params : Params
        Sections `augment`, `model`, `loss`, `optimizer`, `schedule`, `finetune`, `train`, `tracking`; all are recorded.

    Raises
    ------
    UserError
        If the images are unfinished or damaged, the weights are missing, validation AUC is defined for no finding,
        or the loss became NaN.
    """
    data = open_processed(processed)
    require_defined_auc(data)
    params = resolve_precision(params)
    staging = out / ".partial"
    if params.train.cluster == "tf_config" and not task_of(params.train).chief:
        fit(data, params, _unheard, staging, out / "tensorboard")
        return
    clear(out)
    again = working_folder(staging, key_of(data, params))
    run = opened_run(params, staging / _RUN, again=again)
    try:
        run.log_params(as_dict(params))
        fitted = fit_all(data, params, run, staging, out / "tensorboard")
        finish(data, params, run, staging, fitted, out)
        run.end()
    except BaseException:
        run.end("FAILED")
        raise
    for name in _OUTPUTS:
        publish(staging / name, out / name)
    shutil.rmtree(staging)


def clear(out: Path) -> None:
    """Remove what an earlier training finished; what one left unfinished stays."""
    for name in reversed(_OUTPUTS):  # the one that says that all are there goes first
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def opened_run(params: Params, record: Path, *, again: bool) -> Run:
    """Begin an MLflow run, or go on with that of the unfinished training."""
    run_id = read_json(record)["run_id"] if again and record.is_file() else None
    run = Run(params.tracking, name=f"{params.dataset.preset}-{params.model.backbone}", run_id=run_id)
    write_json(record, {"run_id": run.id or None})
    return run


def fit_all(data: Processed, params: Params, run: Run, staging: Path, boards: Path) -> list[Fitted]:
    """Train with every seed, one after another, each as it would be trained alone.

    With several, each has a process of its own: TensorFlow 2.21 keeps some 400 MB of a ResNet50 that is no longer in
    use, and what one training leaves behind could change the numbers of the next.
    """
    seeds = seeds_of(params.train)
    if params.train.cluster == "ray":
        return [_fitted(0, seeds[0], fit_on_ray(data, params, run, staging, boards))]
    if len(seeds) == 1:
        return [_fitted(0, seeds[0], fit(data, params, run.log_metrics, staging, boards))]
    fitted = []
    for number, seed in enumerate(seeds):
        note(f"repeat {number + 1} of {len(seeds)}, seed {seed}")
        folder = folder_of(number, seed)
        (staging / folder).mkdir(parents=True, exist_ok=True)
        alone = dataclasses.replace(params, train=dataclasses.replace(params.train, seed=seed))
        arguments = (data, alone, staging / folder, boards / folder.name, folder.name)
        history = call_in_own_process(fit_elsewhere, *arguments, receive=run.log_metrics)
        fitted.append(_fitted(number, seed, history))
    return fitted


def fit_on_ray(data: Processed, params: Params, run: Run, staging: Path, boards: Path) -> History:
    """Train in the workers of a Ray cluster, which see the same folders under the same paths."""
    data = dataclasses.replace(data, folder=data.folder.resolve())
    arguments = (data, params, staging.resolve(), boards.resolve(), "")
    history: History = call_on_ray(
        fit_elsewhere, *arguments, params=params.train, folder=staging, receive=run.log_metrics
    )
    return history


def _fitted(number: int, seed: int, history: History) -> Fitted:
    best = int(np.nanargmax(history["val_auc"]))
    return Fitted(seed, folder_of(number, seed), history, history["val_auc"][best])


def _unheard(_figures: dict[str, float], _epoch: int) -> None:
    """Log nothing: only the chief does."""


def require_defined_auc(data: Processed) -> None:
    """Refuse data in which no finding has both a positive and a negative validation image: no epoch could be best."""
    labels = data.labels[(data.table["split"] == "val").to_numpy()]
    if all(np.isnan(auroc(labels[:, k], labels[:, k])) for k in range(labels.shape[1])):
        raise UserError(
            f"validation AUC is undefined: none of {', '.join(data.findings)} has both a positive and a negative "
            f"image among the {len(labels)} of val; more images, or another split.seed, are needed"
        )
