"""Films through the model on all cores, answers in the order of the films, a bounded number of them in memory.

A thread for each core reads, decodes, prepares and asks an engine of its own: OpenCV, zlib and the runtimes let other
threads run meanwhile, and no picture has to cross to another process.
"""

import queue
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.parallel import available_cores, use_one_thread
from pipeline.predict_files import Item, chunks
from pipeline.predicting import Answer, Predictor, open_predictor

if TYPE_CHECKING:
    from pipeline.exported import Exported

BATCH = 8
"""Films that a thread takes at a time."""

_AHEAD = 3  # batches a thread, so that none waits while an earlier batch takes longer
_SHARED = ("keras", "saved_model")  # TensorFlow's functions may be called by several threads, and are large


def open_predictors(model: Path, threads: int | None, point: str) -> list[Predictor]:
    """Open a model for each thread; an engine that only one thread may call is opened for each.

    Parameters
    ----------
    model : Path
        See `pipeline.exported.open_exported`.
    threads : int or None
        How many; None: a thread for each core.
    point : str
        The operating point.

    Raises
    ------
    UserError
        If the model cannot be opened, or no finding has that operating point.
    """
    count = threads or available_cores()
    first = open_predictor(model, threads=1, point=point)
    manifest = first.exported.manifest
    first.exported.decisions(np.zeros((1, len(manifest.findings))), point)
    if manifest.format in _SHARED:
        return [first] * count
    return [first, *(replace(first, exported=_again(model)) for _ in range(count - 1))]


def _again(model: Path) -> "Exported":
    from pipeline.exported import open_exported

    return open_exported(model, threads=1)


def stream(
    predictors: Sequence[Predictor], items: Sequence[Item], batch: int = BATCH
) -> Generator[list[Answer], None, None]:
    """Answer for films.

    Parameters
    ----------
    predictors : sequence of Predictor
        One for each thread.
    items : sequence of Item
        The films.
    batch : int
        Films in a batch.

    Yields
    ------
    list of Answer
        Batch by batch, in the order of the items.
    """
    from threadpoolctl import threadpool_limits

    use_one_thread()
    idle: queue.SimpleQueue[Predictor] = queue.SimpleQueue()
    for predictor in predictors:
        idle.put(predictor)

    def work(part: Sequence[Item]) -> list[Answer]:
        predictor = idle.get()
        try:
            return predictor([item.read() for item in part])
        finally:
            idle.put(predictor)

    waiting: deque[Future[list[Answer]]] = deque()
    threads = ThreadPoolExecutor(len(predictors), thread_name_prefix="predict")
    limits = threadpool_limits(1, user_api="blas")  # its threads would wait for each other on cores that are busy
    try:
        for part in chunks(items, batch):
            waiting.append(threads.submit(work, part))
            if len(waiting) > _AHEAD * len(predictors):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        limits.restore_original_limits()
        threads.shutdown(wait=True, cancel_futures=True)
