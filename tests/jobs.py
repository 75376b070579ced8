"""What tests have done in other processes; apart from the tests, so that the processes import little."""

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.preprocess import Shard

CRASHES = {"SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGSEGV": lambda: ctypes.string_at(0)}


def square(item: int) -> int:
    return item * item


def crash_at(item: int, bad: dict[int, str], log: Path) -> tuple[int, int]:
    """Return the item and the process, and leave a line in `log`; die at the items of `bad`."""
    with log.open("a", encoding="ascii") as handle:
        handle.write(f"{item}\n")
    if item in bad:
        CRASHES[bad[item]]()
    return item, os.getpid()


def die_once(item: int, mark: Path) -> int:
    if item == 5 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def refuse_seven(item: int) -> int:
    if item == 7:
        raise UserError(f"item {item} is refused")
    return item


def break_at_seven(item: int) -> float:
    return 1 / (item - 7)


def is_own_process(_item: int) -> bool:
    return multiprocessing.parent_process() is not None


def loaded_after(item: Any, function: Callable[[Any], object]) -> list[str]:
    """Do the work and return the packages and modules that this process has imported by then."""
    function(item)
    return sorted(sys.modules)


def note_and_square(item: int, folder: Path) -> int:
    (folder / str(item)).touch()
    return item


def work_while_owned(owner: int) -> None:
    """Say who works, and go on until the owner is no more."""
    print(os.getpid(), flush=True)
    while os.getppid() == owner:
        time.sleep(0.01)


def write_after_a_death(shard: "Shard", mark: Path, **rest: Any) -> tuple[str, str]:
    """Write a shard as `write_one` does; the first process that is given the second one dies of it."""
    if shard.name == "train-00001.tfrecord" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    from pipeline.preprocess import write_one

    return write_one(shard, **rest)


def write_or_die(shard: "Shard", **rest: Any) -> tuple[str, str]:
    """Write a shard as `write_one` does; every process that is given the second one dies of it."""
    if shard.name == "train-00001.tfrecord":
        os.kill(os.getpid(), signal.SIGKILL)
    from pipeline.preprocess import write_one

    return write_one(shard, **rest)
