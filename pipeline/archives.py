"""Archives from elsewhere: unpacked only when every name and size in them is harmless, and their hashes."""

import hashlib
import lzma
import os
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from gzip import GzipFile
from pathlib import Path
from typing import IO

from pipeline.errors import UserError
from pipeline.files import sha256_file
from pipeline.progress import track

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
"""What `unpack` reads."""

MAX_FILES = 500_000
"""Four times the largest data set (NIH ChestX-ray14: 112,120 images)."""

MAX_BYTES = 200 * 2**30
"""Four times the largest data set (NIH ChestX-ray14: 42 GB), and more than a mistaken archive should fill."""

MAX_RATIO = 200
"""Expansion above which a member is a bomb. Images in an archive are compressed already (ratio 1), tables reach some
10; DEFLATE can reach 1032 (zlib Technical Details, "Maximum Compression Factor"), so 1000 would let it through."""

_RATIO_FROM = 10 * 2**20  # bytes; below it a high ratio (an empty table, a black picture) does no harm
_TAR_BLOCK = 512  # POSIX.1-2017, pax, "ustar Interchange Format"
_MAX_TAR_READ = 16 * 2**20  # tarfile reads an extended header in one go, and its size comes from the archive
_CHUNK = 2**20


class DamagedArchiveError(UserError):
    """An archive that is cut short or corrupt: fetching it again may help."""


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    folder: bool
    open: Callable[[], IO[bytes] | None]


@dataclass
class _Guard:
    """Counts what an archive announces, and refuses what must not be written."""

    archive: Path
    max_files: int
    max_bytes: int
    files: int = 0
    announced: int = 0
    seen: dict[str, tuple[str, bool]] = field(default_factory=dict)

    def refuse(self, name: str, reason: str) -> UserError:
        return UserError(f"{self.archive}: {name[:200]!r} {reason}; nothing was unpacked: use the original archive")

    def admit(self, name: str, size: int, packed: int | None, *, folder: bool) -> str:
        """Check one member; return its name as a clean relative POSIX path ("" for the archive's own root)."""
        parts = self._parts(name)
        if not parts and not folder:
            raise self.refuse(name, "is a file without a name")
        for depth in range(1, len(parts) + 1):
            self._claim("/".join(parts[:depth]), folder=folder or depth < len(parts))
        self.files += not folder
        self.announced += size
        # Folders count too: they need entries of the file system as files do.
        if max(self.files, len(self.seen)) > self.max_files:
            raise self.refuse(name, f"is one file or folder too many (at most {self.max_files:,} are unpacked)")
        if size < 0 or self.announced > self.max_bytes:
            raise self.refuse(name, f"takes the content beyond {self.max_bytes:,} bytes, the most that is unpacked")
        if packed is not None and size > _RATIO_FROM and size > MAX_RATIO * packed:
            raise self.refuse(name, f"would grow from {packed:,} to {size:,} bytes, as only a decompression bomb does")
        return "/".join(parts)

    def _parts(self, name: str) -> list[str]:
        # Backslash and colon separate on Windows; control characters would end up in tables and on terminals.
        if name.startswith("/") or "\\" in name or name[1:2] == ":" or any(ord(letter) < 32 for letter in name):
            raise self.refuse(name, "is absolute or holds a backslash, a drive or a control character")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self.refuse(name, "leads out of the folder")
        return parts

    def _claim(self, name: str, *, folder: bool) -> None:
        # macOS and Windows fold case, macOS also normalises: two such names would be one file there.
        key = unicodedata.normalize("NFC", name).casefold()
        known = self.seen.get(key)
        if known is None:
            self.seen[key] = (name, folder)
        elif known[0] != name:
            raise self.refuse(name, f"differs from {known[0]!r} only by case or the encoding of its accents")
        elif known[1] != folder:
            raise self.refuse(name, "is both a file and a folder")
        elif not folder:
            raise self.refuse(name, "occurs twice")


class _BoundedGzip(GzipFile):
    """A gzip stream that gives a bounded number of bytes at a time, whatever is asked."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(_MAX_TAR_READ if size is None or size < 0 else min(size, _MAX_TAR_READ))


def unpack(archive: Path, out: Path, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> int:
    """Unpack a .zip, .tar, .tar.gz or .tgz whose names and sizes are all harmless.

    The whole list of members is checked before anything is written. Owners, modes and times in the archive are
    ignored.

    Parameters
    ----------
    archive : Path
        The archive; its suffix says what it is.
    out : Path
        An empty folder that nobody reads yet (made if missing): after an error it holds part of the files.
    max_files, max_bytes : int
        Bounds on files or folders, and on unpacked bytes, announced and written.

    Returns
    -------
    int
        How many files were written.

    Raises
    ------
    DamagedArchiveError
        If the archive is cut short or corrupt.
    UserError
        If it is missing or of another kind, is encrypted, holds a name that leaves the folder, is absolute, occurs
        twice or differs from another only by case, a link or special file, too many files or bytes, a decompression
        bomb, or needs more room than the disk has.
    """
    if not archive.is_file():
        raise UserError(f"{archive} is not a file: give a {', '.join(SUFFIXES)} or a folder")
    guard = _Guard(archive, max_files, max_bytes)
    with _explained(archive), _members(archive, guard) as members:
        out.mkdir(parents=True, exist_ok=True)
        _check_room(archive, out, guard.announced)
        for member in track(members, len(members), f"unpacking {archive.name}", unit="files"):
            _write(member, out / member.name, archive)
    return guard.files


def content_sha256(path: Path) -> str:
    """Return the SHA-256 that identifies an archive or a folder, in hexadecimal.

    Parameters
    ----------
    path : Path
        A file: the hash is that of its bytes. A folder: that of the lines "SHA-256 of the file, space, relative
        path with /, NUL", sorted by path; empty folders, times and modes do not count.

    Raises
    ------
    UserError
        If the path is missing, or as in `folder_files`.
    """
    if path.is_file():
        return sha256_file(path)
    if not path.is_dir():
        raise UserError(f"{path} does not exist: give a {', '.join(SUFFIXES)} or a folder")
    files = folder_files(path)
    digest = hashlib.sha256()
    for name, file in track(files, len(files), f"hashing {path.name}", unit="files"):
        digest.update(f"{sha256_file(file)} {name}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def folder_files(folder: Path) -> list[tuple[str, Path]]:
    """List a folder's files as (relative path with /, real file), sorted by path.

    A link to a file inside the folder stands for that file.

    Raises
    ------
    UserError
        For a link that is broken, leads out of the folder or to a folder (it could turn in circles), and for pipes,
        sockets and devices.
    """
    root = folder.resolve()
    found = []
    for where, folders, names in os.walk(root):
        links = [name for name in folders if (Path(where) / name).is_symlink()]
        if links:
            raise UserError(f"{Path(where) / links[0]} is a link to a folder: put the files themselves in {folder}")
        for name in names:
            path = Path(where) / name
            real = path.resolve()
            if not real.is_relative_to(root):
                raise UserError(f"{path} is a link that leaves {folder}: put the file itself there")
            if not real.is_file():
                raise UserError(f"{path} is a broken link, a pipe, a socket or a device: remove it")
            found.append((path.relative_to(root).as_posix(), real))
    return sorted(found)


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    # Everything that zipfile and tarfile are known to let out on hostile or damaged bytes.
    damage = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError)
    try:
        yield
    except (NotImplementedError, RuntimeError) as error:
        raise UserError(f"{archive} uses a kind of compression that cannot be read ({error}): pack it anew") from None
    except damage as error:
        raise DamagedArchiveError(f"{archive} is cut short or corrupt ({error}): get it again") from None
    except OSError as error:
        if error.errno is None:  # gzip and bz2 report bad data as OSError
            raise DamagedArchiveError(f"{archive} is cut short or corrupt ({error}): get it again") from None
        raise UserError(f"{archive} could not be unpacked: {error.strerror} ({error.filename or 'writing'})") from None


@contextmanager
def _members(archive: Path, guard: _Guard) -> Iterator[list[_Member]]:
    name = archive.name.lower()
    if name.endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            yield _zip_members(zipped, guard)
    elif name.endswith(".tar"):
        with archive.open("rb") as handle, tarfile.open(fileobj=handle, mode="r:") as tar:
            yield _tar_members(tar, guard)
    elif name.endswith((".tar.gz", ".tgz")):
        with _BoundedGzip(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            yield _tar_members(tar, guard)
    else:
        raise UserError(f"{archive} is none of {', '.join(SUFFIXES)}: pack the data set as one of these")


def _zip_members(zipped: zipfile.ZipFile, guard: _Guard) -> list[_Member]:
    members = []
    packed = 0
    for info in zipped.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on a Unix system
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise guard.refuse(info.filename, "is a link or a special file")
        if info.flag_bits & 0x1:  # PKWARE APPNOTE 6.3.10, 4.4.4
            raise guard.refuse(info.filename, "is encrypted")
        folder = info.is_dir()
        packed += info.compress_size
        name = guard.admit(info.filename, info.file_size, info.compress_size, folder=folder)
        members.append(_Member(name, info.file_size, folder, partial(zipped.open, info)))
    if packed > guard.archive.stat().st_size:
        # Members that share their bytes: D. Fifield, "A better zip bomb", USENIX WOOT 2019.
        raise guard.refuse(guard.archive.name, "holds members that overlap, as only a decompression bomb does")
    return members


def _tar_members(tar: tarfile.TarFile, guard: _Guard) -> list[_Member]:
    members = []
    for info in tar:
        if not (info.isdir() or info.isreg()) or info.issparse():
            raise guard.refuse(info.name, "is a link or a special file")
        name = guard.admit(info.name, info.size, None, folder=info.isdir())
        # The sum, not the member: gzip compresses the stream as a whole.
        if guard.announced > max(_RATIO_FROM, MAX_RATIO * guard.archive.stat().st_size):
            raise guard.refuse(info.name, f"takes the content beyond {MAX_RATIO} times the archive's size")
        members.append(_Member(name, info.size, info.isdir(), partial(tar.extractfile, info)))
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


def _check_room(archive: Path, out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if needed > free:
        raise UserError(
            f"{archive} unpacks to {needed / 1e9:.1f} GB and {out.parent} has {free / 1e9:.1f} GB free: make room there"
        )


def _write(member: _Member, path: Path, archive: Path) -> None:
    if member.folder:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    source = member.open()
    assert source is not None  # tarfile gives None for folders and links only
    written = 0
    with source, path.open("xb") as target:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > member.size:
                break
            target.write(chunk)
    if written != member.size:
        raise DamagedArchiveError(f"{archive}: {member.name!r} holds other than the {member.size:,} bytes announced")
