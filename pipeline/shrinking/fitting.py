"""One more training, of a model that comes from another: its epochs, its checkpoints, what it leaves.

What `pipeline.training` has is used as it is: batches, exact AUROC, checkpoints, record. Imports TensorFlow.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.augment import build_augment
from pipeline.errors import UserError
from pipeline.files import atomic_path, read_json, write_json
from pipeline.input_pipeline import rows_of_batch, steps_per_epoch, training_batches
from pipeline.model import save_model
from pipeline.params import Params
from pipeline.params_file import as_dict
from pipeline.progress import note
from pipeline.repeats import FOLDER, MODEL
from pipeline.scoring_input import predict
from pipeline.shards import Processed
from pipeline.tracking import Run
from pipeline.training.callbacks import ExactAuc, Memory, StopAtNaN, names_of
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.fit import CHECKPOINTS, HISTORY, History, write_history
from pipeline.training.fused_norm import plain
from pipeline.training.losses import build_loss, reported_loss
from pipeline.training.optimizers import build_optimizer, scaled_rate
from pipeline.training.progress_bar import ProgressBar
from pipeline.training.record import Fitted, finish
from pipeline.training.resume import publish
from pipeline.training.schedules import build_schedule
from pipeline.training.state import KeptState

_RUN = "run.json"
_LAST = "training.json"
OUTPUTS = (FOLDER, MODEL, HISTORY, "params.yaml", _LAST)
"""What lies in the folder of a finished model; the last one says that all are there."""
_ADVICE = "lower the learning rate, or train in float32"


@dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes
    ----------
    network : keras.Model
        Whose weights are learned, scored and saved.
    fitted : keras.Model
        What Keras fits: the network itself, or a model around it.
    before, after : sequence of callbacks
        Those that change weights after a step, and those that look at an epoch's figures before they are kept.
    what : str
        For the progress bar.
    """

    network: Any
    fitted: Any
    before: Sequence[Any] = ()
    after: Sequence[Any] = ()
    what: str = "training"


def fit_best(task: Task, data: Processed, params: Params, folder: Path, log: Callable[..., None]) -> History:
    """Fit for `train.epochs` epochs; the best by validation AUROC goes to `folder/model.keras`.

    A killed one goes on after its last whole epoch.

    Returns
    -------
    dict
        Figure to its value after each epoch.
    """
    twin = plain(task.network)

    def save(path: Path) -> None:
        twin.set_weights(task.network.get_weights())
        save_model(twin, path)

    checkpoints = Checkpoints(folder / CHECKPOINTS)
    state = KeptState(task.network, checkpoints, save)
    labels = data.labels[(data.table["split"] == "train").to_numpy()]
    loss, steps, epochs = build_loss(params.loss, labels), steps_per_epoch(data, params), params.train.epochs
    rate = scaled_rate(params.optimizer, params.train.batch_size)
    optimizer = build_optimizer(params.optimizer, build_schedule(params.schedule, rate, steps, epochs))
    task.fitted.compile(optimizer, loss, metrics=[reported_loss(loss)], jit_compile=False)
    optimizer.build(task.network.trainable_variables)
    state.enter("all", optimizer)
    if state.epochs < epochs:
        _fit(task, data, params, state, log)
    if checkpoints.latest is None or not checkpoints.latest.best.is_file():
        raise UserError(f"validation AUC is undefined after every epoch: {_ADVICE}")
    with atomic_path(folder / MODEL) as temporary:
        shutil.copyfile(checkpoints.latest.best, temporary)
    write_history(folder / HISTORY, state.history)
    return state.history


def _fit(task: Task, data: Processed, params: Params, state: KeptState, log: Callable[..., None]) -> None:
    augment = build_augment(params.augment, params.train.seed) if params.augment.enabled else None
    epochs, batch = params.train.epochs, params.train.batch_size
    best = max((value for value in state.history.get("val_auc", []) if value == value), default=np.nan)
    bar = ProgressBar(len(data.rows("train")), epochs, task.what, best=best)

    def score(split: str, count: int | None = None) -> NDArray[np.float32]:
        return predict(task.network, data, split, batch, count)

    def images_of(epoch: int, step: int) -> list[str]:
        return names_of(data, rows_of_batch(data, params, epoch, step).tolist())

    measured = build_loss(params.loss, data.labels[(data.table["split"] == "train").to_numpy()])
    callbacks = [
        *task.before,
        StopAtNaN(images_of, _ADVICE),
        ExactAuc(data, score, measured, params.train.auc_images, log),
        *task.after,
        bar,
        Memory(state, {}),
    ]
    try:
        task.fitted.fit(
            training_batches(data, params, augment, epochs, state.epochs),
            initial_epoch=state.epochs,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch(data, params),
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        )
    finally:
        bar.close()


def clear(out: Path) -> None:
    """Remove what an earlier run finished; what one left unfinished stays."""
    for name in reversed(OUTPUTS):
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def opened_run(params: Params, staging: Path, name: str, *, again: bool) -> Run:
    """Begin an MLflow run, or go on with that of the unfinished training."""
    record = staging / _RUN
    run_id = read_json(record)["run_id"] if again and record.is_file() else None
    run = Run(params.tracking, name=name, run_id=run_id)
    write_json(record, {"run_id": run.id or None})
    run.log_params(as_dict(params))
    return run


def close(data: Processed, params: Params, run: Run, staging: Path, history: History, out: Path) -> None:
    """Write the record, log the model, and give everything its last place."""
    fitted = Fitted(params.train.seed, PurePosixPath(), history, float(np.nanmax(history["val_auc"])))
    finish(data, params, run, staging, [fitted], out)
    run.end()
    for name in OUTPUTS:
        publish(staging / name, out / name)
    shutil.rmtree(staging)
    note(f"model: {out / MODEL}")
