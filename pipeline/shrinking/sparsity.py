"""Magnitude pruning: the smallest weights of each kernel become 0 and stay 0. Imports Keras: for the training only."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.model import HEAD
from pipeline.params import PruneParams


def sparsity_at(step: int, steps: int, params: PruneParams) -> float:
    """Return the share of zeros after a step.

    Zhu and Gupta, "To prune, or not to prune", 2017, equation 1, from 0: with begin t0 and end t1 it is
    s (1 - (1 - (t - t0) / (t1 - t0))^3), so that most weights go early, while many are of no use.

    Parameters
    ----------
    step : int
        From 0.
    steps : int
        Of the whole training; the first and the last step of the schedule are `begin` and `end` shares of it.
    params : PruneParams
        Section `prune`.
    """
    first, last = params.begin * steps, params.end * steps
    done = min(max((step - first) / (last - first), 0.0), 1.0)
    return float(params.sparsity * (1 - (1 - done) ** 3))


def kernels_of(model: Any) -> list[Any]:
    """Return the kernels that are pruned: of convolutions and dense layers of the backbone.

    Not the first convolution, nor depthwise ones, nor the head, which are small and need all their weights (Zhu and
    Gupta, section 4.2).
    """
    kinds = (keras.layers.Conv2D, keras.layers.Dense)
    found = [layer for layer in _layers(model) if isinstance(layer, kinds) and layer.name != HEAD]
    return [layer.kernel for layer in found if not isinstance(layer, keras.layers.DepthwiseConv2D)][1:]


def _layers(model: Any) -> Iterator[Any]:
    """Yield the layers of a model and of the models in it, from the input on."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer


def mask_of(kernel: NDArray[np.float32], sparsity: float) -> NDArray[np.float32]:
    """Return 1 for the weights that stay, 0 for the `sparsity` share of least magnitude; ties go by position."""
    zeros = round(sparsity * kernel.size)
    if zeros == 0:
        return np.ones(kernel.shape, np.float32)
    sizes = np.abs(kernel).ravel()
    last = np.partition(sizes, zeros - 1)[zeros - 1]  # a tenth of the time of sorting them
    mask = (sizes > last).astype(np.float32)
    equal = np.flatnonzero(sizes == last)
    mask[equal[zeros - int((sizes < last).sum()) :]] = 1
    return np.asarray(mask.reshape(kernel.shape), np.float32)


def zeros_in(kernels: Sequence[Any]) -> tuple[int, int]:
    """Return how many of the kernels' weights are 0, and how many there are."""
    values = [keras.ops.convert_to_numpy(kernel) for kernel in kernels]
    return sum(int((value == 0).sum()) for value in values), sum(value.size for value in values)


class Prune(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Raise the sparsity by the schedule, and set what was pruned back to 0 after each step.

    What is 0 is what was pruned, so that a training that goes on needs no other memory than its weights.

    Parameters
    ----------
    kernels : list of keras.Variable
        Of `kernels_of`.
    steps : int
        Of an epoch.
    epochs : int
        Of the training.
    params : PruneParams
        Section `prune`.
    """

    def __init__(self, kernels: list[Any], steps: int, epochs: int, params: PruneParams) -> None:
        super().__init__()
        self._kernels, self._steps, self._total, self._section = kernels, steps, steps * epochs, params
        self._epoch = 0
        self._masks: list[Any] = []

    def on_train_begin(self, _logs: dict[str, Any] | None = None) -> None:
        """Find the masks again in the weights."""
        arrays = [keras.ops.convert_to_numpy(kernel) for kernel in self._kernels]
        self._masks = [keras.ops.convert_to_tensor((array != 0).astype(np.float32)) for array in arrays]

    def on_epoch_begin(self, epoch: int, _logs: dict[str, Any] | None = None) -> None:
        """Remember which epoch it is."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, **_logs: Any) -> None:
        """Prune, if it is time, and put the zeros back."""
        step = self._epoch * self._steps + batch
        if step % self._section.every == 0 or batch == self._steps - 1:
            sparsity = sparsity_at(step, self._total, self._section)
            arrays = [
                keras.ops.convert_to_numpy(kernel) * keras.ops.convert_to_numpy(mask)
                for kernel, mask in zip(self._kernels, self._masks, strict=True)
            ]
            self._masks = [keras.ops.convert_to_tensor(mask_of(array, sparsity)) for array in arrays]
        for kernel, mask in zip(self._kernels, self._masks, strict=True):
            kernel.assign(kernel * mask)


class Settled(keras.callbacks.Callback):  # type: ignore[misc]  # Keras ships no types
    """Let only epochs that end with the full sparsity be the best: an earlier one is another model.

    Their validation AUROC stays in the history as `dense_val_auc`, and `val_auc` is NaN. It must stand behind
    `ExactAuc` and before what reads `val_auc`.

    Parameters
    ----------
    steps, epochs, params
        As of `Prune`.
    """

    def __init__(self, steps: int, epochs: int, params: PruneParams) -> None:
        super().__init__()
        self._steps, self._total, self._section = steps, steps * epochs, params

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Take the epoch out if it is too early."""
        logs = {} if logs is None else logs
        reached = sparsity_at((epoch + 1) * self._steps - 1, self._total, self._section)
        logs["dense_val_auc"], logs["sparsity"] = logs["val_auc"], reached
        if reached < self._section.sparsity:
            logs["val_auc"] = float("nan")
