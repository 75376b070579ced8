"""Files that are either whole or absent, and their hashes."""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.errors import UserError

DOWNLOAD_RECORD = ".download.json"
"""In the raw folder: which of Kaggle's files it holds, so that they need not be fetched again. Not the data set's."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced to disk and renamed to `path`.

    Parameters
    ----------
    path : Path
        The final name. Its folder is made if it is missing.

    Yields
    ------
    Path
        A name in the same folder with the same suffix (writers that look at the suffix still work). If the
        block raises, that file is removed and `path` is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Cut in bytes, because file systems count bytes (255 a name), and a Chinese character has three.
    stem = os.fsdecode(os.fsencode(path.stem)[:80].decode("utf-8", "ignore"))
    temporary = path.with_name(f".{stem}.{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_open(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    r"""Open a temporary file for writing (text is UTF-8 with `\n`); see `atomic_path`."""
    binary = "b" in mode
    encoding, newline = (None, None) if binary else ("utf-8", "\n")
    with atomic_path(path) as temporary, temporary.open(mode, encoding=encoding, newline=newline) as handle:
        yield handle


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with atomic_open(path) as handle:
        handle.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON; NaN, which JSON lacks, becomes null.

    Parameters
    ----------
    path : Path
        The file.
    value : Any
        Dictionaries, lists, strings, numbers, booleans and None.
    """
    write_text(path, json.dumps(without_nan(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file that an earlier stage wrote.

    Raises
    ------
    UserError
        If the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the stage that makes it first (`dvc repro` runs all)") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): remove it and run `dvc repro`") from None


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """Return the SHA-256 of a string's UTF-8 bytes, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def without_nan(value: Any) -> Any:
    """Return nested dictionaries and lists with None for every NaN, as they come back from a JSON file."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: what was renamed there stays so after a power cut."""
    if os.name == "nt":  # Windows cannot open a folder; its rename is already durable enough
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
