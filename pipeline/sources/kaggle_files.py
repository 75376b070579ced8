"""Some files of a data set or competition: chosen by patterns, fetched several at a time, and none of them twice."""

import difflib
import fnmatch
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError
from pipeline.progress import note, warn
from pipeline.sources.archive_guard import folded, split_name
from pipeline.sources.archive_members import is_archive, stem_of
from pipeline.sources.byte_progress import ByteProgress
from pipeline.sources.disk_room import check_room
from pipeline.sources.fetched import Entry, Ledger, read_record, settle
from pipeline.sources.kaggle_api import Kaggle, Listed, parse_source
from pipeline.sources.kaggle_credentials import needed_credentials
from pipeline.sources.kaggle_errors import explained
from pipeline.sources.retries import Patience, Retry
from pipeline.sources.transfer import Received, Transfer

_AT_A_TIME = 8  # connections; more do not help a home line and look like an attack from the other end


@dataclass
class _Work:
    kaggle: Kaggle
    ledger: Ledger
    progress: "_Stoppable"
    patience: Patience


class _StoppedError(Exception):
    """Another file failed; this one is given up."""


class _Stoppable(ByteProgress):
    """Stops the transfers that report to it."""

    def __init__(self, what: str, total: int, stop: threading.Event) -> None:
        super().__init__(what, total)
        self.stop = stop

    def advance(self, count: int) -> None:
        if self.stop.is_set():
            raise _StoppedError
        super().advance(count)


def fetch_files(
    address: str, patterns: Sequence[str], raw: Path, area: Path, patience: Patience | None = None
) -> list[Entry]:
    """Fetch the files whose names match, unless they are in the raw folder already.

    Parameters
    ----------
    address : str
        `owner/data-set` or `competitions/NAME`.
    patterns : sequence of str
        As in a shell, but `*` also stands for `/`; the name of a folder stands for all that it holds.
    raw : Path
        The present raw folder; only read.
    area : Path
        Where the files lie until they are moved; a stopped run is continued from here.
    patience : Patience, optional
        Time limits, tries and waits.

    Returns
    -------
    list of Entry
        One for every matching file, sorted by name.

    Raises
    ------
    UserError
        As in `kaggle_source.fetch_dataset`; if a pattern matches nothing, or a name in Kaggle's list must not be
        written.
    """
    source, credentials = parse_source(address), needed_credentials()
    area.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    limits = patience or Patience(sleep=_waits(stop))
    with explained(source, credentials.origin), Kaggle(source, credentials, limits) as kaggle:
        wanted = _chosen(kaggle, patterns)
        ledger, record = Ledger(area, source.address), read_record(raw, source.address)
        kept = [entry for file in wanted if (entry := ledger.found(file) or _in(record, file))]
        names = {entry.listed.name for entry in kept}
        missing = [file for file in wanted if file.name not in names]
        if kept:
            note(f"{len(kept):,} of {len(wanted):,} files are here already, in Kaggle's present version")
        needed = sum(file.size * (1 + is_archive(file.name)) for file in missing)
        check_room(area, needed, f"what is missing of {source.address}, unpacked,")
        total = sum(file.size for file in missing)
        progress = _Stoppable(f"downloading {len(missing):,} files of {source.name}", total, stop)
        with progress:
            fetched = _fetch_all(_Work(kaggle, ledger, progress, limits), missing, stop)
    _report(fetched)
    return sorted([*kept, *(entry for entry, _ in fetched)], key=lambda entry: entry.listed.name)


def _in(record: dict[str, Entry], file: Listed) -> Entry | None:
    entry = record.get(file.name)
    return entry if entry and entry.is_now(file) else None


def _waits(stop: threading.Event) -> Callable[[float], None]:
    def sleep(seconds: float) -> None:
        if stop.wait(seconds):  # or it would try on without waiting
            raise _StoppedError

    return sleep


def _chosen(kaggle: Kaggle, patterns: Sequence[str]) -> list[Listed]:
    """List the files and return those that match, sorted."""
    address = kaggle.source.address
    listed = {file.name: file for page in kaggle.pages() for file in page}
    note(f"{address} has {len(listed):,} files, {sum(file.size for file in listed.values()) / 1e9:.1f} GB")
    wanted: dict[str, Listed] = {}
    for pattern in patterns:
        found = {name: file for name, file in listed.items() if _matches(name, pattern)}
        if not found:
            raise UserError(
                f"download.files: {pattern!r} matches none of the {len(listed):,} files of {address}; there are, among "
                f"others, {', '.join(_examples(listed, pattern)) or 'none'}"
            )
        wanted |= found
    _check_names(address, wanted)
    return [wanted[name] for name in sorted(wanted)]


def _check_names(address: str, names: Iterable[str]) -> None:
    """Refuse names that must not be written, or that are one file on some systems."""
    seen: dict[str, str] = {}
    for name in names:
        parts, reason = split_name(name)
        if "/".join(parts) != name:
            reason = reason or "is not written plainly"
        elif seen.setdefault(folded(name), name) != name:
            reason = f"differs from {seen[folded(name)]!a} only by case or accents' encoding"
        elif is_archive(name) and "/".join(split_name(stem_of(name))[0]) != stem_of(name):
            reason = "has no usable name without its suffix"  # `...zip` would be unpacked into `..`
        if reason:
            raise UserError(f"{address} has a file {name[:200]!a}, which {reason}: choose others with download.files")


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, pattern.rstrip("/") + "/*")


def _examples(names: Iterable[str], pattern: str) -> list[str]:
    """Return some names at the top, folders with a slash; those most like the pattern first."""
    top = sorted({ascii(name.split("/")[0])[1:-1] + "/" * ("/" in name) for name in names})
    close = difflib.get_close_matches(pattern, top, n=4, cutoff=0.3)
    return [*close, *(name for name in top if name not in close)][:8]


def _fetch_all(work: _Work, files: Sequence[Listed], stop: threading.Event) -> list[tuple[Entry, Received]]:
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        futures = [pool.submit(_fetch, work, file) for file in files]
        try:
            return [future.result() for future in as_completed(futures)]
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _fetch(work: _Work, file: Listed) -> tuple[Entry, Received]:
    target = work.ledger.place(file.name)
    transfer = Transfer(
        file.name, lambda headers: work.kaggle.open(file.name, headers), target, work.progress, known_size=file.size
    )
    received = transfer.fetch(Retry(work.patience, lambda: work.kaggle.reached))
    entry = settle(work.ledger, file, target)
    if not is_archive(file.name) and not received.verified and file.size not in (0, *entry.files.values()):
        work.ledger.forget(file.name)  # or the next run would take it for present
        raise UserError(
            f"{file.name}: Kaggle lists {file.size:,} bytes, other came, and no checksum says that they are right: run "
            "the stage again"
        )
    return entry, received


def _report(fetched: Sequence[tuple[Entry, Received]]) -> None:
    if not fetched:
        return
    checked = sum(bool(received.verified) for _, received in fetched)
    kinds = sorted({name for _, received in fetched for name in received.verified})
    text = f"{len(fetched):,} files, {sum(received.size for _, received in fetched) / 1e6:,.1f} MB; verified: all sizes"
    note(f"{text}, the checksums of {checked:,} ({', '.join(kinds)})" if kinds else f"{text}; Kaggle gave no checksum")
    odd = [entry.listed.name for entry, _ in fetched if list(entry.files.values()) != [entry.listed.size]]
    if odd := [name for name in odd if not is_archive(name)]:
        warn(f"{len(odd):,} files have another size than Kaggle's list says, the first is {odd[0]}; look at them")
