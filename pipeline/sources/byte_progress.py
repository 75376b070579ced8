"""Progress of transfers, in bytes: one bar for all of them on a terminal, sparse lines in a log."""

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from pipeline import progress

if TYPE_CHECKING:
    from rich.progress import Progress

_LOG_SECONDS = 30.0


class ByteProgress:
    """Counts the bytes of one or several transfers; safe to call from several threads.

    Parameters
    ----------
    what : str
        What is being done, such as "downloading sample".
    total : int
        Bytes in all; 0 if not known.
    clock : callable
        Seconds, for the lines in a log.
    """

    def __init__(self, what: str, total: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.what, self.total, self.done = what, total, 0
        self._begun, self._clock, self._lock = 0, clock, threading.Lock()
        self._start = self._last = clock()
        self._bar: Progress | None = None

    def __enter__(self) -> "ByteProgress":
        if not progress.is_quiet() and sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=self.total or None, completed=self.done)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """Add bytes that came; a negative number takes back those that are fetched anew."""
        with self._lock:
            self.done += count
            if self._bar is not None:
                self._bar.update(self._task, advance=count)
            elif not progress.is_quiet() and (now := self._clock()) - self._last >= _LOG_SECONDS:
                self._last = now
                print(self.line(now), file=sys.stderr, flush=True)

    def found(self, count: int) -> None:
        """Add bytes that were there before; they do not count in the speed."""
        with self._lock:
            self.done += count
            self._begun += count
            if self._bar is not None and count:
                self._bar.reset(self._task, completed=self.done)

    def expect(self, change: int) -> None:
        """Correct the total, once a size is known better."""
        with self._lock:
            self.total += change
            if self._bar is not None:
                self._bar.update(self._task, total=self.total or None)

    def line(self, now: float) -> str:
        """Return the line of a log: bytes, speed (MB/s, 10^6 bytes a second), time left."""
        speed = max(0.0, (self.done - self._begun) / max(1e-9, now - self._start))
        text = f"{self.what}: {self.done / 1e6:,.0f}"
        if not self.total:
            return f"{text} MB, {speed / 1e6:.1f} MB/s"
        text += f"/{self.total / 1e6:,.0f} MB ({100 * self.done / self.total:.0f} %), {speed / 1e6:.1f} MB/s"
        left = max(0, self.total - self.done)
        return f"{text}, {_duration(left / speed)} left" if speed else text


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
