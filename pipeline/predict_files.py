"""What `cxr predict` was given: files, folders, patterns and zip archives, as a list of single films.

Only names are held; a film is read when it is its turn. Nothing of an archive is ever written to disk.
"""

import glob
import os
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.decoders.film import MAX_BYTES
from pipeline.errors import UserError
from pipeline.predicting import Source
from pipeline.sources.archive_guard import Budget, Guard
from pipeline.sources.archive_members import Member, opened

SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom")
"""Of a folder's or an archive's files these are taken; DICOM files often have no suffix."""

_JUNK = "__MACOSX"
_MAX_ARCHIVES = 200  # open at the same time


@dataclass(frozen=True, slots=True)
class Item:
    """One film to come; there may be very many.

    Attributes
    ----------
    name : str
        As the user knows it: the path, or `ARCHIVE/member`.
    member : Member or None
        Of an archive; None: the name is a path.
    error : str
        Why there is nothing to read.
    """

    name: str
    member: Member | None = None
    error: str = ""

    def read(self) -> Source:
        """Return the film's bytes, or why there are none."""
        if self.error:
            return Source(self.name, b"", self.error)
        return _read_file(self.name) if self.member is None else _read_member(self.name, self.member)


@dataclass
class Films:
    """The films that the arguments name, in their order; folders and archives in the order of their names.

    Use it as a context: archives stay open until it ends.

    Attributes
    ----------
    items : list of Item
        What to answer for.
    skipped : int
        Files of folders and archives that have another suffix than `SUFFIXES`.
    """

    items: list[Item] = field(default_factory=list)
    skipped: int = 0
    _archives: ExitStack = field(default_factory=ExitStack)
    _opened: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archives.close()  # without the error, which an archive would take for its own damage

    def add(self, argument: str) -> None:
        """Add what one argument names; what is missing or unusable becomes an item that says so."""
        path = Path(argument)
        if path.is_dir():
            self._add_folder(path)
        elif path.suffix.lower() == ".zip" and path.is_file():
            self._add_archive(path)
        elif path.exists() or not glob.has_magic(argument):
            self._add_file(path)
        elif found := sorted(glob.glob(argument, recursive=True)):  # noqa: PTH207 - Path.glob takes no absolute one
            for name in found:
                self.add(name)
        else:
            self._add_error(argument, "no file matches this pattern")

    def _add_folder(self, folder: Path) -> None:
        before = len(self.items)
        for path in _walk(folder):
            if path.suffix.lower() in SUFFIXES:
                self._add_file(path)
            else:
                self.skipped += 1
        if len(self.items) == before:
            self._add_error(str(folder), "the folder holds no file that may be a film")

    def _add_archive(self, path: Path) -> None:
        self._opened += 1
        if self._opened > _MAX_ARCHIVES:
            self._add_error(str(path), f"more than {_MAX_ARCHIVES} archives in one call; give it to another")
            return
        try:
            members = self._archives.enter_context(opened(path, Guard(path, Budget())))
        except UserError as error:
            self._add_error(str(path), _without(str(error), path))
            return
        taken = [each for each in members if not each.folder and not _is_hidden(each.name)]
        films = [each for each in taken if Path(each.name).suffix.lower() in SUFFIXES]
        self.skipped += len(taken) - len(films)
        for member in films:
            self.items.append(Item(f"{path}/{member.name}", member))
        if not films:
            self._add_error(str(path), "the archive holds no file that may be a film")

    def _add_file(self, path: Path) -> None:
        self.items.append(Item(str(path)))

    def _add_error(self, name: str, error: str) -> None:
        self.items.append(Item(name, error=error))


def find_films(arguments: Iterable[str]) -> Films:
    """Return the films that the arguments name.

    Raises
    ------
    UserError
        If there is no argument, or a folder cannot be read.
    """
    films = Films()
    for argument in arguments:
        films.add(argument)
    if not films.items:
        raise UserError("no file was given; name PNG, JPEG, TIFF or DICOM files, folders, patterns or .zip archives")
    return films


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Cut the items into batches."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}): mend its permissions")

    for where, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        for name in sorted(names):
            if not _is_hidden(name):
                yield Path(where) / name


def _is_hidden(name: str) -> bool:
    """Say whether a file belongs to an operating system rather than to the user."""
    return any(part.startswith(".") or part == _JUNK for part in name.split("/"))


def _read_file(name: str) -> Source:
    path = Path(name)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a named pipe would block for ever
            return Source(name, b"", "not a regular file")
        if found.st_size > MAX_BYTES:
            return Source(name, b"", f"{found.st_size:,} bytes are more than the allowed {MAX_BYTES:,}")
        return Source(name, path.read_bytes())
    except OSError as error:
        return Source(name, b"", f"cannot be read ({error.strerror})")


def _read_member(name: str, member: Member) -> Source:
    """Read a member as far as it announced; a longer one is damaged or hostile."""
    if member.size > MAX_BYTES:
        return Source(name, b"", f"{member.size:,} bytes are more than the allowed {MAX_BYTES:,}")
    try:
        stream = member.open()
        assert stream is not None
        with stream:
            data = stream.read(member.size + 1)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError):
        return Source(name, b"", "damaged or truncated within the archive")
    if len(data) != member.size:
        return Source(name, b"", "holds other than the bytes that the archive announces")
    return Source(name, data)


def _without(message: str, path: Path) -> str:
    """Take the path off the front of a message, because it stands beside it."""
    return message.removeprefix(str(path)).lstrip(": ")
