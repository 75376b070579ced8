"""Work spread over all processes of the machine, results in the order of the items."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from pipeline.progress import track

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Return how many cores this process may use (a container's or a scheduler's limit counts)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    what: str,
    workers: int | None = None,
    chunk: int = 16,
    unit: str = "images",
) -> Iterator[Result]:
    """Apply `function` to every item, in separate processes when there is more than one core.

    Parameters
    ----------
    function : callable
        A module-level function (or a partial of one); it and the items are sent to the processes.
    items : sequence
        The work.
    what : str
        For the progress line.
    workers : int or None
        Processes; None takes the cores of the machine, 1 stays in this process.
    chunk : int
        Items sent at a time.
    unit : str
        What is counted.

    Yields
    ------
    Result
        In the order of `items`, whatever the number of workers. Only a bounded number of results waits in memory.
    """
    workers = min(workers or available_cores(), max(1, len(items)))
    if workers == 1:
        yield from track(map(function, items), len(items), what, unit)
        return
    # Not fork: the parent may hold TensorFlow's or OpenCV's threads, which a forked child cannot use.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        yield from track(_in_windows(pool, function, items, workers, chunk), len(items), what, unit)


def _in_windows(
    pool: ProcessPoolExecutor, function: Callable[[Item], Result], items: Sequence[Item], workers: int, chunk: int
) -> Iterator[Result]:
    window = workers * chunk * 4
    waiting: deque[Iterator[Result]] = deque()
    for start in range(0, len(items), window):
        waiting.append(pool.map(function, items[start : start + window], chunksize=chunk))
        if len(waiting) > 2:
            yield from waiting.popleft()
    for results in waiting:
        yield from results


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)
