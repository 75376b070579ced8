"""What happens after each epoch. Imports Keras: for the training process only."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.input_pipeline import predict
from pipeline.metrics import macro_auroc
from pipeline.model import save_model
from pipeline.params import Params
from pipeline.progress import note
from pipeline.shards import Processed


class ExactAuc(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Add `val_auc`, `val_loss` and `train_auc` to an epoch's figures; must stand before those that read them.

    Keras' own AUC metric is an approximation over thresholds; these are exact, from the stored probabilities, macro
    means over the findings that are defined. Training images are scored as they are, without augmentation, on a fixed
    part of the split.

    Parameters
    ----------
    data : Processed
        The images.
    params : Params
        Batch size and number of training images scored.
    log : callable
        Takes the figures and the number of each epoch.
    label : str
        Which training it is, such as seed-8, before the figures' names; empty for the model itself.
    """

    def __init__(
        self, data: Processed, params: Params, log: Callable[[dict[str, float], int], None], label: str = ""
    ) -> None:
        super().__init__()
        self._label = label
        self._data = data
        self._params = params.train
        self._log = log
        self._labels = {name: data.labels[(data.table["split"] == name).to_numpy()] for name in ("train", "val")}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Score, extend `logs`, log."""
        logs = {} if logs is None else logs
        val = predict(self.model, self._data, "val", self._params.batch_size)
        train = predict(self.model, self._data, "train", self._params.batch_size, self._params.auc_images)
        logs["val_loss"] = self._loss(self._labels["val"], val)
        logs["val_auc"] = self._auc(self._labels["val"], val)
        logs["train_auc"] = self._auc(self._labels["train"][: len(train)], train)
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        group, which = (f"{self._label}/", f"{self._label}, ") if self._label else ("", "")
        self._log({f"{group}{name}": value for name, value in logs.items()}, epoch + 1)
        note(
            f"{which}epoch {epoch + 1}/{self.params['epochs']}: loss {logs['loss']:.4f}, "
            f"val loss {logs['val_loss']:.4f}, train AUC {logs['train_auc']:.4f}, val AUC {logs['val_auc']:.4f}"
        )

    def _auc(self, labels: NDArray[np.float32], probabilities: NDArray[np.float32]) -> float:
        # A network that has diverged gives NaN, which would be ranked like a number.
        return macro_auroc(labels, probabilities) if np.isfinite(probabilities).all() else float("nan")

    def _loss(self, labels: NDArray[np.float32], probabilities: NDArray[np.float32]) -> float:
        return float(self.model.loss(labels, probabilities))


class KeepBest(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Write the model whenever `val_auc` is the highest so far.

    Parameters
    ----------
    path : Path
        The file, replaced as a whole.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._best = float("-inf")

    def on_epoch_end(self, _epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write it if it is better; NaN is not."""
        value = (logs or {})["val_auc"]
        if value > self._best:
            self._best = value
            save_model(self.model, self._path)


def build_callbacks(
    data: Processed,
    params: Params,
    log: Callable[[dict[str, float], int], None],
    folder: Path,
    boards: Path,
    label: str = "",
) -> list[Any]:
    """Return the callbacks in the order in which they must run.

    Parameters
    ----------
    data, params, log, label
        As in `ExactAuc`.
    folder : Path
        Where `model.keras` (the best epoch) and `history.csv` go.
    boards : Path
        Where TensorBoard's files go.
    """
    best = {"monitor": "val_auc", "mode": "max"}
    callbacks = [
        keras.callbacks.TerminateOnNaN(),
        ExactAuc(data, params, log, label),
        KeepBest(folder / "model.keras"),
        keras.callbacks.EarlyStopping(patience=params.train.stop_patience, **best),
        keras.callbacks.CSVLogger(str(folder / "history.csv")),
        keras.callbacks.TensorBoard(str(boards), write_graph=False),
    ]
    if params.schedule.name == "plateau":
        plateau = {"factor": params.schedule.factor, "patience": params.schedule.patience}
        callbacks.append(keras.callbacks.ReduceLROnPlateau(**plateau, **best))
    return callbacks
