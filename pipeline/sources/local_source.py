"""The raw folder from what is on this computer: an archive, a folder, a folder of archives, files that came before."""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.errors import UserError
from pipeline.params import DownloadParams
from pipeline.progress import note, track
from pipeline.sources.archive_guard import split_name
from pipeline.sources.archive_members import is_archive, stem_of
from pipeline.sources.archives import content_sha256, folder_files, unpack, unpack_all
from pipeline.sources.disk_room import check_room
from pipeline.sources.fetched import Entry, write_record


def fill_from_local(preset: str, params: DownloadParams, staging: Path, out: Path) -> None:
    """Fill a new folder from `download.archive`.

    Archives directly in a folder are unpacked, several at a time, each into a folder of its name without the suffix
    (`images_001.tar.gz` into `images_001`, which is Kaggle's layout of NIH's own archives); other files are linked or
    copied. An archive beside a folder of that name counts as unpacked already and is left out.

    Parameters
    ----------
    preset : str
        For the messages.
    params : DownloadParams
        `archive` and `sha256`.
    staging : Path
        The folder to fill; after an error it holds part of the files.
    out : Path
        The raw folder, whose content is about to be replaced.

    Raises
    ------
    UserError
        If the archive is missing, overlaps the raw folder, is not the one whose hash was recorded, and as in
        `pipeline.sources.archives.unpack` and `pipeline.sources.archives.folder_files`.
    """
    if not params.archive:
        raise UserError(
            "download.archive is empty and download.source is local: "
            f"name the archive or folder with `cxr preset {preset} --archive PATH`"
        )
    archive = Path(params.archive).expanduser()
    if not archive.exists():
        raise UserError(
            f"download.archive is {archive}, which does not exist: mend it with `cxr preset {preset} --archive PATH`"
        )
    real = archive.resolve()
    if out.is_relative_to(real) or real.is_relative_to(out):
        raise UserError(f"download.archive is {archive}, and it and the raw folder {out} overlap: move it")
    _check_hash(archive, params.sha256, preset)
    if archive.is_dir():
        _take_folder(archive, staging)
    else:
        unpack(archive, staging)


def place_fetched(entries: Sequence[Entry], address: str, staging: Path) -> None:
    """Fill a new folder with files that came from Kaggle, and with the record of them.

    Parameters
    ----------
    entries : sequence of Entry
        What came, or was there before.
    address : str
        `download.kaggle`.
    staging : Path
        The folder to fill.
    """
    files = [(name, entry.folder / name) for entry in entries for name in entry.files]
    _place(files, staging, "placing the files")
    write_record(staging, address, list(entries))


def _check_hash(archive: Path, expected: str, preset: str) -> None:
    if not expected:
        return
    note(f"checking the SHA-256 of {archive.name}")
    found = content_sha256(archive)
    if found != expected:
        raise UserError(
            f"{archive} has SHA-256 {found}, and download.sha256 is {expected}: put the recorded one back, or run "
            f"`cxr preset {preset} --archive {archive}` again if the new one is meant"
        )


def _take_folder(folder: Path, staging: Path) -> None:
    files = folder_files(folder)
    packed = {name: stem_of(name) for name, _ in files if "/" not in name and is_archive(name)}
    left_out = {name for name, stem in packed.items() if any(other.startswith(f"{stem}/") for other, _ in files)}
    for name in sorted(left_out):
        note(f"{name} is left out: {packed[name]}/ beside it counts as its content")
    _check_stems({name: stem for name, stem in packed.items() if name not in left_out}, folder)
    unpack_all([(file, staging / packed[name]) for name, file in files if name in packed and name not in left_out])
    _place([(name, file) for name, file in files if name not in packed], staging, f"copying {folder.name}")


def _check_stems(packed: dict[str, str], folder: Path) -> None:
    stems: dict[str, str] = {}
    for name, stem in packed.items():
        if split_name(stem) != ([stem], ""):  # `...zip` would be unpacked into `..`
            raise UserError(f"{folder / name} would be unpacked into {stem!a}: rename it")
        other = stems.setdefault(stem.casefold(), name)
        if other != name:
            raise UserError(f"{folder} holds {other} and {name}, which would be unpacked into one folder: rename one")


def _place(files: Sequence[tuple[str, Path]], staging: Path, what: str) -> None:
    staging.mkdir(parents=True, exist_ok=True)
    _check_room(files, staging)
    shown: Iterable[tuple[str, Path]] = track(files, len(files), what, unit="files")
    for name, file in shown:
        target = staging / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, target)  # takes no room
        except FileExistsError:
            raise UserError(f"two sources hold {name!a}: take one of them out") from None
        except OSError:  # another disk, or a file system without hard links
            shutil.copyfile(file, target)


def _check_room(files: Sequence[tuple[str, Path]], staging: Path) -> None:
    disk = staging.stat().st_dev
    needed = sum(status.st_size for _, file in files if (status := file.stat()).st_dev != disk)
    check_room(staging, needed, "what is to be copied from another disk")
