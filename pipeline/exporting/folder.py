"""A folder that is either finished or absent."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import sync_folder

LAST = "parity.json"
"""The file that every finished folder of exports holds."""


@contextmanager
def finished_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside `out`; on success it is synced to disk and renamed to `out`.

    What an earlier run finished or left unfinished is removed first: nothing there may pass for the new model's.

    Parameters
    ----------
    out : Path
        The folder; if it exists, it must be empty or one of ours.

    Raises
    ------
    UserError
        If it holds other things.
    """
    if out.exists() and not (out / LAST).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and holds no exports: name a folder that is new, empty or of `cxr export`")
    partial = out.with_name(f".{out.name}.partial")
    for old in (out, partial):
        if old.exists():
            shutil.rmtree(old)
    partial.mkdir(parents=True)
    try:
        yield partial
        _sync(partial)
        partial.rename(out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Make everything in a folder durable."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
    sync_folder(folder)
