"""A bounded queue and the threads that empty it: films wait in order, go through the network in small batches.

Decoding may take seconds for a large film, so nothing of it runs on the event loop. A worker takes its fair share of
what waits, never all of it while others are idle: batches grow only when there is more to do than hands.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pipeline.serving.problems import busy

Item = TypeVar("Item")
Result = TypeVar("Result")

_SMOOTHING = 0.1  # weight of the newest batch in the running mean of the time an item takes


@dataclass(eq=False)
class Job(Generic[Item, Result]):
    """One item on its way through the workshop."""

    item: Item
    future: "asyncio.Future[Result]"
    loop: asyncio.AbstractEventLoop
    since: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    """Seconds from its arrival to its batch."""

    def settle(self, outcome: Result | BaseException) -> None:
        """Give the outcome to whoever waits, if somebody still does; on the event loop."""
        if self.future.done():
            return
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class Workshop(Generic[Item, Result]):
    """Threads that work on batches from one bounded queue.

    Parameters
    ----------
    workers : sequence of callables
        One for each thread: from a list of items to as many results. They are never called by two threads at once.
    room : int
        Items that may wait.
    batch : int
        Items that a worker takes at once, at most.
    wait : float
        Seconds that a lone item waits for company when nobody else works; 0: none.
    on_batch : callable, optional
        Told the size of every batch, on the worker's thread.
    """

    def __init__(
        self,
        workers: Sequence[Callable[[list[Item]], Sequence[Result]]],
        room: int,
        batch: int = 1,
        wait: float = 0.0,
        on_batch: Callable[[int], None] = lambda _size: None,
    ) -> None:
        self.room, self._batch, self._wait, self._on_batch = room, batch, wait, on_batch
        self._queue: deque[Job[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._idle, self._stopping, self._each = 0, False, 0.0
        self._threads = [
            threading.Thread(target=self._work, args=(worker,), name=f"worker-{k}", daemon=True)
            for k, worker in enumerate(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return len(self._queue)

    def submit(self, items: Sequence[Item]) -> list[Job[Item, Result]]:
        """Put items into the queue, all or none; call it on the event loop.

        Raises
        ------
        RequestError
            Kind `busy`, with the time after which there should be room, if they do not fit.
        """
        loop = asyncio.get_running_loop()
        jobs = [Job[Item, Result](item, loop.create_future(), loop) for item in items]
        with self._changed:
            if self._stopping or len(self._queue) + len(jobs) > self.room:
                raise busy(f"{len(self._queue)} films wait already, {self.room} may", self.delay())
            self._queue.extend(jobs)
            self._changed.notify(min(len(jobs), len(self._threads)))
        return jobs

    def delay(self) -> float:
        """Return the seconds that the queue of now will take, as the last batches went."""
        return (len(self._queue) + 1) * self._each / len(self._threads)

    def forget(self, jobs: Sequence[Job[Item, Result]]) -> None:
        """Take jobs back whose client is gone: those that still wait are never worked on."""
        for job in jobs:
            job.future.cancel()
        with self._changed:
            for job in jobs:
                if job in self._queue:
                    self._queue.remove(job)

    def stop(self) -> None:
        """Let the threads finish what waits, and end; nothing more is taken."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self, worker: Callable[[list[Item]], Sequence[Result]]) -> None:
        while jobs := self._take():
            start = time.perf_counter()
            for job in jobs:
                job.waited = start - job.since
            outcomes = _outcomes(worker, [job.item for job in jobs])
            spent = (time.perf_counter() - start) / len(jobs)
            self._each = spent if not self._each else (1 - _SMOOTHING) * self._each + _SMOOTHING * spent
            self._on_batch(len(jobs))
            _hand_over(jobs, outcomes)

    def _take(self) -> list[Job[Item, Result]]:
        """Wait for work and return a batch of it; nothing when the workshop closes."""
        with self._changed:
            self._idle += 1
            self._await_work()
            share = -(-len(self._queue) // self._idle)
            self._idle -= 1
            return [self._queue.popleft() for _ in range(min(self._batch, share))]

    def _await_work(self) -> None:
        """Return when there is work for this thread, or never again; the lock is held before and after."""
        while not (self._queue or self._stopping):
            self._changed.wait()
            if self._queue and self._wait and self._idle == len(self._threads):
                self._changed.wait_for(lambda: len(self._queue) >= self._batch or self._stopping, self._wait)


def _outcomes(worker: Callable[[list[Any]], Sequence[Any]], items: list[Any]) -> Sequence[Any]:
    """Ask for a batch; if that fails, for each item alone, so that one cannot take the others down with it."""
    try:
        return worker(items)
    except Exception as error:  # whatever it was: the requests are answered, and the thread lives on
        if len(items) == 1:
            return [error]
        return [outcome for item in items for outcome in _outcomes(worker, [item])]


def _hand_over(jobs: Sequence[Job[Any, Any]], outcomes: Sequence[Any]) -> None:
    """Give outcomes back on the event loop, in one call for the whole batch."""

    def settle() -> None:
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.settle(outcome)

    try:
        jobs[0].loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return
