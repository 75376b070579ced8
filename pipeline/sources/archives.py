"""Archives and folders from elsewhere: unpacked only when every name and size in them is harmless, and their hashes."""

import hashlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import sha256_file
from pipeline.parallel import available_cores
from pipeline.progress import track
from pipeline.sources.archive_guard import Budget, DamagedArchiveError, Guard
from pipeline.sources.archive_members import SUFFIXES, Member, opened
from pipeline.sources.disk_room import check_room

_CHUNK = 2**20


def unpack(
    archive: Path, out: Path, budget: Budget | None = None, *, bar: bool = True, stop: threading.Event | None = None
) -> int:
    """Unpack a .zip, .tar, .tar.gz or .tgz whose names and sizes are all harmless.

    The whole list of members is checked before anything is written. Owners, modes and times in the archive are
    ignored.

    Parameters
    ----------
    archive : Path
        The archive; its suffix says what it is.
    out : Path
        An empty folder that nobody reads yet (made if missing): after an error it holds part of the files.
    budget : Budget, optional
        Bounds on files or folders and on bytes, announced and written; other archives may share it.
    bar : bool
        Whether progress is shown.
    stop : Event, optional
        Gives up before the next file once it is set.

    Returns
    -------
    int
        How many files were written.

    Raises
    ------
    DamagedArchiveError
        If the archive is cut short or corrupt.
    UserError
        If it is missing or of another kind, is encrypted, holds a name that leaves the folder, is absolute,
        unprintable or a Windows device, occurs twice or differs from another only by case, a link or special file,
        overlapping members, too many files or bytes, a decompression bomb, or needs more room than the disk has.
    """
    if not archive.is_file():
        raise UserError(f"{archive} is not a file: give a {', '.join(SUFFIXES)} or a folder")
    guard = Guard(archive, budget or Budget())
    with opened(archive, guard) as members:
        out.mkdir(parents=True, exist_ok=True)
        check_room(out, guard.announced, f"{archive}, unpacked,")
        shown = track(members, len(members), f"unpacking {archive.name}", unit="files") if bar else iter(members)
        for member in shown:
            if stop is not None and stop.is_set():
                raise UserError(f"{archive} was not unpacked: the work was stopped")
            _write(member, out / member.name, archive)
    return guard.files


def unpack_all(archives: Sequence[tuple[Path, Path]], budget: Budget | None = None) -> int:
    """Unpack several archives at a time, as `unpack` does, all within one budget.

    Parameters
    ----------
    archives : sequence of (Path, Path)
        Archive and the new folder that it fills.
    budget : Budget, optional
        Bounds on all of them together.

    Returns
    -------
    int
        How many files were written.

    Raises
    ------
    UserError
        The first failure; the other archives are stopped.
    """
    shared, stop = budget or Budget(), threading.Event()
    # Threads: zlib and the disk do the work, and both let other threads run meanwhile.
    with ThreadPoolExecutor(max(1, min(len(archives), available_cores()))) as pool:
        futures = [pool.submit(unpack, archive, out, shared, bar=False, stop=stop) for archive, out in archives]
        try:
            done = (future.result() for future in as_completed(futures))
            return sum(track(done, len(futures), "unpacking", unit="archives"))
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


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
        For a link that is broken, leads out of the folder or to a folder (it could turn in circles), for pipes,
        sockets and devices, and for a folder that cannot be read.
    """
    root = folder.resolve()
    found = []

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}): mend its permissions")

    for where, folders, names in os.walk(root, onerror=refuse):
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


def _write(member: Member, path: Path, archive: Path) -> None:
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
