"""The members of a .zip or .tar as harmless names, sizes and streams; nothing is written here."""

import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from gzip import GzipFile
from itertools import pairwise
from pathlib import Path
from typing import IO

from pipeline.errors import UserError
from pipeline.sources.archive_guard import DamagedArchiveError, Guard

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
"""What can be unpacked."""

_TAR_BLOCK = 512  # POSIX.1-2017, pax, "ustar Interchange Format"
_MAX_TAR_READ = 16 * 2**20  # tarfile reads an extended header in one go, and its size comes from the archive
_CHUNK = 2**20
_ZIP_LOCAL_HEADER = 30  # bytes before the name (PKWARE APPNOTE 6.3.10, 4.3.7)
_ZIP_ENTRY = 200  # bytes of a directory entry, 46 (4.3.12) and its name and extras; real ones have some 120
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)


@dataclass(frozen=True)
class Member:
    """A file or folder of an archive.

    Attributes
    ----------
    name : str
        A clean relative POSIX path; "" is the archive's own root.
    size : int
        Bytes announced.
    folder : bool
        Whether it is a folder.
    open : callable
        Opens the content; None for folders.
    """

    name: str
    size: int
    folder: bool
    open: Callable[[], IO[bytes] | None]


def is_archive(name: str) -> bool:
    """Say whether a file's name ends like an archive's."""
    return name.lower().endswith(SUFFIXES)


def stem_of(name: str) -> str:
    """Return an archive's name without the suffix: `images_001.tar.gz` gives `images_001`."""
    ending = max((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), key=len, default="")
    return name[: len(name) - len(ending)]


class _BoundedGzip(GzipFile):
    """A gzip stream that gives a bounded number of bytes at a time, whatever is asked."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(_MAX_TAR_READ if size is None or size < 0 else min(size, _MAX_TAR_READ))


@contextmanager
def opened(archive: Path, guard: Guard) -> Iterator[list[Member]]:
    """Yield the members, every one of them admitted by the guard.

    Raises
    ------
    DamagedArchiveError
        If the archive is cut short or corrupt; also from what is read of a member in the block.
    UserError
        If it is of another kind, is encrypted, holds links, special files, overlapping members, or what the guard
        refuses; if the disk is full or fails while the block writes.
    """
    name = archive.name.lower()
    with _explained(archive):
        if name.endswith(".zip"):
            with archive.open("rb") as handle:
                _check_directory(handle, guard)
                with zipfile.ZipFile(handle) as zipped:
                    yield _zip_members(zipped, guard)
        elif name.endswith(".tar"):
            with archive.open("rb") as handle, tarfile.open(fileobj=handle, mode="r:") as tar:
                yield _tar_members(tar, guard)
        elif name.endswith((".tar.gz", ".tgz")):
            with _BoundedGzip(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
                yield _tar_members(tar, guard)
        else:
            raise UserError(f"{archive} is none of {', '.join(SUFFIXES)}: pack the data set as one of these")


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    # Everything that zipfile and tarfile are known to let out on hostile or damaged bytes.
    damage = (
        *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError),
        *(RecursionError, OverflowError, IndexError, KeyError),
    )
    try:
        yield
    except damage as error:
        raise DamagedArchiveError(f"{archive} is cut short or corrupt ({error}): get it again") from None
    except (NotImplementedError, RuntimeError) as error:
        raise UserError(f"{archive} uses a kind of compression that cannot be read ({error}): pack it anew") from None
    except OSError as error:
        if error.errno is None:  # gzip and bz2 report bad data as OSError
            raise DamagedArchiveError(f"{archive} is cut short or corrupt ({error}): get it again") from None
        raise UserError(f"{archive} could not be unpacked: {error.strerror} ({error.filename or 'writing'})") from None


def _check_directory(handle: IO[bytes], guard: Guard) -> None:
    """Bound the directory before zipfile loads the whole of it into memory."""
    # zipfile's own reader, so that no archive can show two directories to two readers.
    record = zipfile._EndRecData(handle)  # type: ignore[attr-defined]
    if record is None:
        raise zipfile.BadZipFile("the end of its directory is missing")
    count, size = record[zipfile._ECD_ENTRIES_TOTAL], record[zipfile._ECD_SIZE]  # type: ignore[attr-defined]
    if count > guard.budget.max_files or size > max(2**20, guard.budget.max_files * _ZIP_ENTRY):
        raise guard.refuse(
            guard.archive.name, f"holds too many files (at most {guard.budget.max_files:,} are unpacked)"
        )
    handle.seek(0)


def _zip_members(zipped: zipfile.ZipFile, guard: Guard) -> list[Member]:
    members = []
    for info in zipped.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on a Unix system
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise guard.refuse(info.filename, "is a link or a special file")
        if info.flag_bits & 0x1:  # PKWARE APPNOTE 6.3.10, 4.4.4
            raise guard.refuse(info.filename, "is encrypted")
        if "\0" in info.orig_filename:  # zipfile cuts the name there; others may not
            raise guard.refuse(info.orig_filename, "holds a character that cannot be printed")
        if info.compress_type not in _ZIP_METHODS:  # LZMA takes as much memory as the archive asks for
            raise NotImplementedError(f"method {info.compress_type}")
        folder = info.is_dir()
        name = guard.admit(info.filename, info.file_size, info.compress_size, folder=folder)
        guard.check_ratio(info.filename, guard.archive.stat().st_size)
        members.append(Member(name, info.file_size, folder, partial(zipped.open, info)))
    _check_overlap(zipped, guard)
    return members


def _check_overlap(zipped: zipfile.ZipFile, guard: Guard) -> None:
    """Refuse members that share their bytes: D. Fifield, "A better zip bomb", USENIX WOOT 2019."""
    spans = sorted((info.header_offset, info.compress_size) for info in zipped.infolist())
    spans.append((zipped.start_dir, 0))
    for (start, size), (after, _) in pairwise(spans):
        if start < 0 or start + _ZIP_LOCAL_HEADER + size > after:
            raise guard.refuse(guard.archive.name, "holds members that overlap, as only a decompression bomb does")


def _tar_members(tar: tarfile.TarFile, guard: Guard) -> list[Member]:
    members = []
    packed = guard.archive.stat().st_size
    for info in tar:
        if not (info.isdir() or info.isreg()) or info.issparse():
            raise guard.refuse(info.name, "is a link or a special file")
        name = guard.admit(info.name, info.size, None, folder=info.isdir())
        guard.check_ratio(info.name, packed)  # of the sum: gzip compresses the stream as a whole
        members.append(Member(name, info.size, info.isdir(), partial(tar.extractfile, info)))
    _check_tar_end(tar)
    return members


def _check_tar_end(tar: tarfile.TarFile) -> None:
    # tarfile takes a cut between two members, and a broken header, for the end; a real end is a block of zeros.
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(_TAR_BLOCK) != bytes(_TAR_BLOCK):
        raise tarfile.ReadError("the end-of-archive block is missing")
    # gzip's checksum is behind the last byte, so read up to it; writers pad with zeros to some tens of kilobytes.
    left = _MAX_TAR_READ
    while left > 0 and (block := tar.fileobj.read(_CHUNK)):
        left -= len(block)
    if left <= 0:
        raise tarfile.ReadError("more data follow the end-of-archive block")
