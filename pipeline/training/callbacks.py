"""What happens during and after an epoch. Imports Keras: for the training process only."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.metrics import macro_auroc
from pipeline.progress import note
from pipeline.shards import Processed
from pipeline.training.state import KeptState

Log = Callable[[dict[str, float], int], None]
Score = Callable[[str, int | None], NDArray[np.float32]]
"""From a split and a number of images (None: all) to their probabilities, in the order of `data.rows(split)`."""


Agreed = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _own(figures: NDArray[np.float64]) -> NDArray[np.float64]:
    return figures


class ExactAuc(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Add `val_auc`, `val_loss` and `train_auc` to an epoch's figures; must stand before those that read them.

    Keras' own AUC metric is an approximation over thresholds; these are exact, from the stored probabilities, macro
    means over the findings that are defined. Training images are scored as they are, without augmentation, on a fixed
    part of the split.

    Parameters
    ----------
    data : Processed
        The images.
    score : callable
        See `Score`.
    loss : callable
        From labels and probabilities to the mean loss.
    auc_images : int
        Number of training images scored.
    log : callable
        Takes the figures and the number of each epoch.
    label : str
        Which training it is, such as seed-8, before the figures' names; empty for the model itself.
    agreed : callable
        From the scores of this worker to those that count.
    """

    def __init__(
        self,
        data: Processed,
        score: Score,
        loss: Callable[..., Any],
        auc_images: int,
        log: Log,
        label: str = "",
        agreed: Agreed = _own,
    ) -> None:
        super().__init__()
        self._score, self._loss_of, self._auc_images = score, loss, auc_images
        self._log, self._label, self._agreed = log, label, agreed
        self._labels = {name: data.labels[(data.table["split"] == name).to_numpy()] for name in ("train", "val")}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Score, extend `logs`, log."""
        logs = {} if logs is None else logs
        val, train = self._score("val", None), self._score("train", self._auc_images)
        # Keras' own tracker does not know that a loss summed over a batch is no mean (see `losses.build_loss`).
        logs["loss"] = logs.pop("image_loss")
        loss = float(self._loss_of(self._labels["val"], val))
        scores = loss, _auc(self._labels["val"], val), _auc(self._labels["train"][: len(train)], train)
        names = "val_loss", "val_auc", "train_auc"
        logs.update(zip(names, (float(score) for score in self._agreed(np.array(scores, np.float64))), strict=True))
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        group, which = (f"{self._label}/", f"{self._label}, ") if self._label else ("", "")
        self._log({f"{group}{name}": value for name, value in logs.items()}, epoch + 1)
        note(
            f"{which}epoch {epoch + 1}/{self.params['epochs']}: loss {logs['loss']:.4f}, "
            f"val loss {logs['val_loss']:.4f}, train AUC {logs['train_auc']:.4f}, val AUC {logs['val_auc']:.4f}"
        )


def _auc(labels: NDArray[np.float32], probabilities: NDArray[np.float32]) -> float:
    # A network that has diverged gives NaN, which would be ranked like a number.
    return macro_auroc(labels, probabilities) if np.isfinite(probabilities).all() else float("nan")


class StopAtNaN(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """End the training at the first step whose loss is not a number; Keras' TerminateOnNaN would not say where.

    Parameters
    ----------
    images_of : callable
        From epoch and step to the identifiers of that batch's images.
    advice : str
        What to do, for the message.
    """

    def __init__(self, images_of: Callable[[int, int], list[str]], advice: str) -> None:
        super().__init__()
        self._images_of, self._advice = images_of, advice
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, _logs: dict[str, Any] | None = None) -> None:
        """Remember which epoch it is."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the loss; the mean over the epoch's steps is NaN from the first such step on."""
        if np.isfinite((logs or {})["loss"]):
            return
        found = self._images_of(self._epoch, batch)
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise UserError(
            f"the loss became NaN in epoch {self._epoch + 1}, step {batch + 1} of the images "
            f"{', '.join(found[:_SHOWN])}{more}: {self._advice}"
        )


_SHOWN = 64  # identifiers in a message


class Memory(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Take up the other callbacks' counters where they were, and write a checkpoint after each epoch.

    It must stand last: Keras' callbacks forget all when a training begins, and count at the end of an epoch.

    Parameters
    ----------
    state : KeptState
        The training's.
    watched : mapping of str to callback
        Those with counters, by names that stay.
    """

    def __init__(self, state: KeptState, watched: Mapping[str, Any]) -> None:
        super().__init__()
        self._state, self._watched = state, watched

    def on_train_begin(self, _logs: dict[str, Any] | None = None) -> None:
        """Give the counters back."""
        for name, callback in self._watched.items():
            for counter, value in self._state.counters.get(name, {}).items():
                setattr(callback, counter, value)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the checkpoint."""
        counters = {
            name: {counter: getattr(callback, counter) for counter in COUNTERS if hasattr(callback, counter)}
            for name, callback in self._watched.items()
        }
        stopped = bool(self.model.stop_training)
        self._state.write(epoch, logs or {}, counters, self.model.optimizer, stopped=stopped)


COUNTERS = ("wait", "best", "best_epoch", "stopped_epoch", "cooldown_counter")
"""What Keras 3.15's EarlyStopping and ReduceLROnPlateau count; a test fails when they have other ones."""


def names_of(data: Processed, rows: Sequence[int]) -> list[str]:
    """Return the identifiers of rows of the table."""
    return [str(name) for name in data.table["image_id"].iloc[list(rows)]]
