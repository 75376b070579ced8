"""Work spread over all processes of the machine, results in the order of the items.

A decoder written in C can take its process with it, and so can a lack of memory. The standard library's pools then lose
all their work without saying which item it was, so the processes are kept here, one to a thread.
"""

import multiprocessing
import os
import queue
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

from pipeline.errors import UserError
from pipeline.progress import track

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 3  # chunks a worker, so that none waits while the caller is busy or an earlier chunk takes longer
_STOP_SECONDS = 5.0
# Not fork: the parent may hold TensorFlow's or OpenCV's threads, which a forked child cannot use.
_SPAWN = multiprocessing.get_context("spawn")


def available_cores() -> int:
    """Return how many cores this process may use (a container's or a scheduler's limit counts)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_one_thread() -> None:
    """Keep OpenCV to one thread in this process, where there is a process for each core."""
    import cv2

    cv2.setNumThreads(1)


def run_all(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    what: str,
    workers: int | None = None,
    chunk: int = 16,
    unit: str = "images",
    on_crash: Callable[[Item], Result] | None = None,
) -> Generator[Result, None, None]:
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
        Processes. None takes the cores of the machine. 1 stays in this process, where a crash ends everything.
    chunk : int
        Items sent at a time.
    unit : str
        What is counted.
    on_crash : callable or None
        Gives the result of an item at which a process died (a segmentation fault, the kernel's out-of-memory killer);
        it is called in this process and may raise. If it is given and `workers` is None, even a single item on a
        single core is worked on in a process of its own.

    Yields
    ------
    Result
        In the order of `items`, whatever the number of workers. Only a bounded number of results waits in memory.

    Raises
    ------
    UserError
        If a process died at an item and there is no `on_crash`. What `function` raises is raised here as it is.

    Notes
    -----
    When a process dies, the items that it was given are tried again one by one in a fresh process, and only the one
    that ends this process too is said to have crashed. No limit is set on a process's memory: the address space
    (RLIMIT_AS) counts what libraries reserve and never use, so that a limit would fail sound images; decoders bound
    the pixels instead, and the kernel, if it must, is asked to end a worker rather than this process.
    """
    alone = workers == 1 or (available_cores() == 1 and workers is None)
    if alone and (on_crash is None or workers == 1):
        yield from track(map(function, items), len(items), what, unit)
        return
    workers = max(1, min(workers or available_cores(), len(items)))
    for result in track(_in_order(function, items, workers, chunk), len(items), what, unit):
        if not isinstance(result, _Crashed):
            yield result
        elif on_crash is not None:
            yield on_crash(result.item)
        else:
            name = str(result.item)[:300]
            raise UserError(
                f"{what}: a process died ({result.how}) at {name}; remove it, or free memory if that ran out"
            )


def _in_order(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, chunk: int
) -> Iterator["Result | _Crashed[Item]"]:
    crew = [_Worker(function) for _ in range(workers)]
    idle: queue.SimpleQueue[_Worker[Item, Result]] = queue.SimpleQueue()
    for worker in crew:
        idle.put(worker)

    def apply(part: Sequence[Item]) -> list[Result | _Crashed[Item]]:
        worker = idle.get()
        try:
            return worker.apply(part)
        finally:
            idle.put(worker)

    waiting: deque[Future[list[Result | _Crashed[Item]]]] = deque()
    threads = ThreadPoolExecutor(workers)
    try:
        for start in range(0, len(items), chunk):
            waiting.append(threads.submit(apply, items[start : start + chunk]))
            if len(waiting) > _AHEAD * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in crew:
            worker.stop()
        threads.shutdown(wait=True)


@dataclass(frozen=True)
class _Crashed(Generic[Item]):
    item: Item
    how: str


class _DiedError(Exception):
    """The process ended before it answered; the message says how."""


class _Worker(Generic[Item, Result]):
    """A process that applies one function, started when first needed and again after it died."""

    def __init__(self, function: Callable[[Item], Result]) -> None:
        self._function = function
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None
        self._stopped = False

    def apply(self, items: Sequence[Item]) -> list[Result | _Crashed[Item]]:
        try:
            return [*self._ask(items)]
        except _DiedError:
            return [self._alone(item) for item in items]

    def stop(self) -> None:
        """End the process, also in the middle of its work; may be called from another thread."""
        self._stopped = True
        if (process := self._process) is None:
            return
        process.terminate()
        process.join(_STOP_SECONDS)
        if process.is_alive():  # deep in a library that returns to Python too rarely
            process.kill()
            process.join()

    def _alone(self, item: Item) -> Result | _Crashed[Item]:
        try:
            return self._ask([item])[0]
        except _DiedError as death:
            return _Crashed(item, str(death))

    def _ask(self, items: Sequence[Item]) -> list[Result]:
        if self._stopped:
            raise _DiedError("stopped")
        pipe = self._pipe or self._start()
        try:
            if self._stopped:  # while it started
                raise EOFError
            pipe.send(items)
            done, answer = pipe.recv()
        except (EOFError, OSError):
            raise _DiedError(self._bury()) from None
        if not done:
            raise answer
        return list(answer)

    def _start(self) -> Connection:
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, self._function), daemon=True)
        self._process.start()
        theirs.close()  # so that its end is seen here
        try:
            self._pipe.recv()
        except (EOFError, OSError):
            failed = f"a worker process ended as it started ({self._bury()}); is there memory left for another?"
            raise UserError(failed) from None
        return self._pipe

    def _bury(self) -> str:
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        if process is None or pipe is None:
            return "never started"
        pipe.close()
        process.join()
        code = process.exitcode or 0
        return f"exit status {code}" if code >= 0 else signal.Signals(-code).name


def _serve(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """Be a worker, until the other end of the pipe closes: also when its owner is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes, and the owner stops this one
    signal.signal(signal.SIGTERM, _leave)
    with suppress(OSError):  # Linux, proc(5): of two processes the kernel ends the one with the higher score
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    use_one_thread()
    with suppress(EOFError, OSError):
        pipe.send("ready")
        while True:
            pipe.send(_answer(function, pipe.recv()))


def _answer(function: Callable[[Any], Any], items: Sequence[Any]) -> tuple[bool, Any]:
    try:
        return True, [function(item) for item in items]
    except Exception as error:  # raised again by the owner
        if not isinstance(error, UserError):
            error.add_note("in a worker process:\n" + traceback.format_exc())
        return False, error


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + signal.SIGTERM)  # an exception, so that files half written are removed
