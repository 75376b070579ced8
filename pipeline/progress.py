"""Progress of long work: a bar on a terminal, sparse lines in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_LOG_SECONDS = 30.0
_quiet = False


def set_quiet(quiet: bool) -> None:
    """Silence progress and notes for this process (`-q`); warnings and errors still appear."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Say whether progress and notes are silenced."""
    return _quiet


def note(message: str) -> None:
    """Print one line of information on stderr unless `-q` was given."""
    if not _quiet:
        print(message, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Print one line of warning on stderr, also under `-q`."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def track(items: Iterable[T], total: int, what: str, unit: str = "images") -> Iterator[T]:
    """Yield from `items`, showing a `rich` bar on a terminal or a line every 30 seconds in a log.

    Parameters
    ----------
    items : iterable
        The work.
    total : int
        How many items there are.
    what : str
        What is being done, such as "checking files".
    unit : str
        What is counted.
    """
    if _quiet:
        yield from items
    elif sys.stderr.isatty():
        yield from _bar(items, total, what, unit)
    else:
        yield from _lines(items, total, what, unit)


def _bar(items: Iterable[T], total: int, what: str, unit: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield from progress.track(items, total=total, description=what)


def _lines(items: Iterable[T], total: int, what: str, unit: str) -> Iterator[T]:
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if (now := time.monotonic()) - last >= _LOG_SECONDS:
            last = now
            print(f"{what}: {done}/{total} {unit}, {done / (now - start):.0f}/s", file=sys.stderr, flush=True)
