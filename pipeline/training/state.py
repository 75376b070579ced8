"""All that a training is at the end of an epoch, written and read. Imports Keras: for the training process only."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from pipeline.training.checkpoint import Checkpoint, Checkpoints
from pipeline.training.fit import History


class KeptState:
    """The figures and counters of a training so far, and its checkpoints.

    Parameters
    ----------
    network : keras.Model
        The whole network.
    checkpoints : Checkpoints
        Where they are written.
    save : callable
        Writes the network as it is scored to a file.

    Attributes
    ----------
    epochs : int
        How many are done.
    history : dict
        Figure to its value after each epoch.
    counters : dict
        Name of a callback to its counters, in the phase that is under way.
    phase : str
        Name of that phase; set by the trainer.
    stopped : bool
        Whether the training came to its end before the last epoch.
    """

    def __init__(self, network: Any, checkpoints: Checkpoints, save: Callable[[Path], None]) -> None:
        self._network, self._checkpoints, self._save = network, checkpoints, save
        self.epochs, self.phase, self.stopped = 0, "", False
        self.history: History = {}
        self.counters: dict[str, dict[str, Any]] = {}
        if (found := checkpoints.latest) is not None:
            self._take(found)

    def _take(self, found: Checkpoint) -> None:
        record = found.record
        self.epochs, self.phase, self.stopped = found.epochs, record["phase"], record["stopped"]
        self.counters = record["counters"]
        self.history = {
            name: [np.nan if value is None else value for value in values] for name, values in record["history"].items()
        }
        _assign(self._network.variables, found.arrays(), "network")

    def enter(self, phase: str, optimizer: Any) -> None:
        """Begin a phase, or go on with it: then its optimizer, which must be built, gets its state back."""
        if phase == self.phase and self._checkpoints.latest is not None:
            _assign(optimizer.variables, self._checkpoints.latest.arrays(), "optimizer")
        else:
            self.phase, self.counters = phase, {}

    def write(
        self,
        epoch: int,
        logs: Mapping[str, Any],
        counters: dict[str, dict[str, Any]],
        optimizer: Any,
        *,
        stopped: bool,
    ) -> None:
        """Add an epoch's figures and write a checkpoint.

        Parameters
        ----------
        epoch : int
            Counted from 0 over all phases.
        logs : mapping
            The epoch's figures, `val_auc` among them.
        counters : dict
            See the attribute.
        optimizer : keras.optimizers.Optimizer
            Of the phase.
        stopped : bool
            Whether this was the last epoch, before its time.
        """
        best = max((value for value in self.history.get("val_auc", []) if value == value), default=-np.inf)
        for name, value in logs.items():
            # A figure that an earlier phase did not have is undefined there.
            self.history.setdefault(name, [np.nan] * epoch).append(float(value))
        self.epochs, self.counters, self.stopped = epoch + 1, counters, stopped
        record = {"phase": self.phase, "stopped": stopped, "history": self.history, "counters": counters}
        arrays = _arrays(self._network.variables, "network") | _arrays(optimizer.variables, "optimizer")
        self._checkpoints.write(epoch + 1, record, arrays, self._save if logs["val_auc"] > best else None)


def _arrays(variables: list[Any], group: str) -> dict[str, NDArray[Any]]:
    return {f"{group}/{k:05d}": keras.ops.convert_to_numpy(variable) for k, variable in enumerate(variables)}


def _assign(variables: list[Any], arrays: Mapping[str, NDArray[Any]], group: str) -> None:
    for k, variable in enumerate(variables):
        variable.assign(arrays[f"{group}/{k:05d}"])
