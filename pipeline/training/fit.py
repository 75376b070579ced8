"""One training: the network, its phases and its data under tf.distribute, from one seed; killed, it goes on."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import UserError
from pipeline.files import atomic_open, atomic_path, read_json, write_json
from pipeline.params import Params
from pipeline.progress import note
from pipeline.quiet import load_tensorflow
from pipeline.shards import Processed
from pipeline.training.cluster import one_line_if_lost

if TYPE_CHECKING:
    from pipeline.training.checkpoint import Checkpoints

LogMetrics = Callable[[dict[str, float], int], None]
History = dict[str, list[float]]
MODEL, HISTORY, FINISHED, CHECKPOINTS = "model.keras", "history.csv", "finished.json", "checkpoints"


def fit(data: Processed, params: Params, log: LogMetrics, folder: Path, boards: Path, label: str = "") -> History:
    """Build, compile and fit the network; the best epoch is written to `folder/model.keras`.

    If `folder` holds checkpoints of the same training, it goes on after the last whole epoch, and on the same machine
    ends with the same weights as if it had never stopped. If it is finished there, nothing is done.

    Parameters
    ----------
    data, params
        As in `train`; the numbers depend on them alone.
    log : callable
        Takes the figures and the number of each epoch.
    folder, boards : Path
        Where the model, its history and its checkpoints, and where TensorBoard's files go.
    label : str
        See `pipeline.training.callbacks.ExactAuc`.

    Returns
    -------
    dict
        Figure to its value after each epoch.

    Raises
    ------
    UserError
        If the loss becomes NaN, a worker of the cluster is lost, or the weights are missing.
    """
    alone = params.train.cluster == "none"
    if alone and (folder / FINISHED).is_file():  # in a cluster all workers meet first, and find nothing left to do
        note("all epochs were done; what is left are the files")
        return _history_of(read_json(folder / FINISHED))
    load_tensorflow()
    from pipeline.training.trainer import Trainer

    with one_line_if_lost():
        trainer = Trainer(data, params, log, folder / CHECKPOINTS, boards, label)
        history = trainer.run()
    if not np.isfinite(history["val_auc"]).any():
        raise UserError(
            f"seed {params.train.seed}: validation AUC is undefined after every epoch: lower optimizer.learning_rate, "
            "or train in float32"
        )
    if trainer.place.chief:
        _finish(trainer.checkpoints, folder, history)
    if alone:
        shutil.rmtree(folder / CHECKPOINTS)
    return history


def fit_elsewhere(send: LogMetrics, data: Processed, params: Params, folder: Path, boards: Path, label: str) -> History:
    """Do what `fit` does, with the arguments in the order of `pipeline.own_process.call_in_own_process`."""
    return fit(data, params, send, folder, boards, label)


def write_history(path: Path, history: History) -> None:
    """Write a table with a row for each epoch, counted from 0; NaN where a figure is undefined."""
    with atomic_open(path) as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["epoch", *history])
        writer.writerows([epoch, *values] for epoch, values in enumerate(zip(*history.values(), strict=True)))


def _finish(checkpoints: "Checkpoints", folder: Path, history: History) -> None:
    """Put the best model and the history in their places."""
    assert checkpoints.latest is not None  # an epoch was scored
    with atomic_path(folder / MODEL) as temporary:
        shutil.copyfile(checkpoints.latest.best, temporary)
    write_history(folder / HISTORY, history)
    write_json(folder / FINISHED, history)


def _history_of(record: dict[str, list[float | None]]) -> History:
    return {name: [np.nan if value is None else value for value in values] for name, values in record.items()}
