"""The state of a training on disk after each epoch, so that a killed one goes on as if nothing had happened.

A checkpoint is a folder `epoch-N` that holds all that the next epoch depends on: weights, optimizer and generators
(`arrays.npz`), figures and counters (`record.json`) and the best model so far. It is written under another name, synced
and renamed; the one before is removed only then. At every moment there is one whole checkpoint, or none yet.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.files import read_json, sha256_file, sync_folder, write_json
from pipeline.progress import warn

ARRAYS, RECORD, BEST = "arrays.npz", "record.json", "best.keras"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint.

    Attributes
    ----------
    epochs : int
        How many epochs are done.
    folder : Path
        Where it lies.
    record : dict
        What JSON can hold: figures, counters.
    """

    epochs: int
    folder: Path
    record: dict[str, Any]

    @property
    def best(self) -> Path:
        """The best model so far; absent while no epoch has a defined AUC."""
        return self.folder / BEST

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Read the arrays."""
        with np.load(self.folder / ARRAYS, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}


class Checkpoints:
    """The checkpoints of one training.

    Parameters
    ----------
    folder : Path
        Where they lie; made if it is missing. Nothing else may lie there.
    writes : bool
        False only reads: a worker of a cluster that is not the chief.

    Attributes
    ----------
    latest : Checkpoint or None
        The newest whole one.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self._folder, self._writes = folder, writes
        self.latest = self._find()

    def _find(self) -> Checkpoint | None:
        """Return the newest whole checkpoint, or None; what an interrupted write left is removed."""
        found = None
        for path in sorted(self._folder.glob("epoch-*"), reverse=True):
            found = found or _opened(path)
        for path in self._folder.glob("*"):
            if self._writes and (found is None or path != found.folder):
                shutil.rmtree(path, ignore_errors=True)
        return found

    def write(
        self,
        epochs: int,
        record: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        save_best: Callable[[Path], None] | None,
    ) -> None:
        """Write the checkpoint after `epochs` epochs, and remove the one before.

        Parameters
        ----------
        epochs : int
            How many are done.
        record, arrays : mapping
            See `Checkpoint`.
        save_best : callable or None
            Writes the model to the path it is given, if this epoch is the best; None keeps the best one before.
        """
        if not self._writes:
            return
        before = self.latest
        final = self._folder / f"epoch-{epochs:06d}"
        staging = self._folder / f".epoch-{epochs:06d}.partial"
        staging.mkdir(parents=True)
        try:
            with (staging / ARRAYS).open("wb") as handle:
                np.savez(handle, allow_pickle=False, **dict(arrays))
                handle.flush()
                os.fsync(handle.fileno())
            if save_best is not None:
                save_best(staging / BEST)
            elif before is not None and before.best.is_file():
                link(before.best, staging / BEST)
            sums = {name: sha256_file(staging / name) for name in (ARRAYS, BEST) if (staging / name).is_file()}
            write_json(staging / RECORD, {"sha256": sums, **record})
            staging.replace(final)
        except BaseException as error:
            shutil.rmtree(staging, ignore_errors=True)
            if isinstance(error, OSError):  # HDF5's says neither number nor file
                raise UserError(_failed(epochs, self._folder, error)) from error
            raise
        sync_folder(self._folder)
        self.latest = Checkpoint(epochs, final, dict(record))
        if before is not None:
            shutil.rmtree(before.folder)


def _failed(epochs: int, folder: Path, error: OSError) -> str:
    reason = error.strerror or " ".join(str(error).split())
    return (
        f"the checkpoint after epoch {epochs} could not be written to {folder}: {reason}; what was there before stays: "
        "make room and run it again to go on"
    )


def _opened(folder: Path) -> Checkpoint | None:
    try:
        record = read_json(folder / RECORD)
        sums = record.pop("sha256")
        if any(sha256_file(folder / name) != value for name, value in sums.items()):
            raise ValueError("a file differs from its checksum")
        return Checkpoint(int(folder.name.removeprefix("epoch-")), folder, record)
    except Exception as error:  # a disk that lost it: start from an older one, or anew
        warn(f"the checkpoint {folder} is damaged ({error}); the training does not go on from it")
        return None


def link(source: Path, target: Path) -> None:
    """Give a file a second name; where the file system has no links, copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        with target.open("rb") as handle:
            os.fsync(handle.fileno())
