"""The first stage: fetch the images, whole or not at all, into the raw folder."""

import os
import shutil
from pathlib import Path

from pipeline.archives import DamagedArchiveError, content_sha256, folder_files, unpack
from pipeline.errors import UserError
from pipeline.params import DownloadParams, Params
from pipeline.progress import note, track


def download(params: Params, out: Path) -> None:
    """Fill the raw folder from the simulator, a local archive or folder, or Kaggle.

    All is made in `OUT.partial` beside it and takes the place of the old content at the end by rename; a run that
    is stopped leaves `out` as it was, or absent, never half full. `OUT.download` keeps what has come from Kaggle
    until it is unpacked.

    Parameters
    ----------
    params : Params
        `download` says from where, `simulate` what is drawn.
    out : Path
        The raw folder. What it holds is replaced.

    Raises
    ------
    UserError
        If the source is missing, is not the one whose hash was recorded, or holds no file; and as in
        `pipeline.archives.unpack` and `pipeline.kaggle_source.fetch_dataset`.
    """
    out = out.resolve()  # a raw folder that is a link to another disk stays there
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file, and the raw data go into a folder of that name: move it away")
    staging = _beside(out, ".partial")
    _remove(staging)
    staging.parent.mkdir(parents=True, exist_ok=True)
    try:
        _fill(params, staging, out)
        if not any(path.is_file() for path in staging.rglob("*")):
            raise UserError(f"the source ({params.download.source}) holds no file: nothing was changed in {out}")
        _replace(out, staging)
    except OSError as error:
        raise UserError(f"{out} could not be filled: {error.strerror} ({error.filename})") from None
    finally:
        _remove(staging)
    if params.download.source == "kaggle":
        _remove(_beside(out, ".download"))


def _fill(params: Params, staging: Path, out: Path) -> None:
    source = params.download.source
    if source == "simulated":
        from pipeline.datasets.simulated import simulate

        simulate(params.simulate, staging)
    elif source == "local":
        _fill_from_local(params.dataset.preset, params.download, staging, out)
    else:
        _fill_from_kaggle(params.download.kaggle, staging, _beside(out, ".download"))


def _fill_from_local(preset: str, params: DownloadParams, staging: Path, out: Path) -> None:
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
    if out.is_relative_to(real) or real.is_relative_to(out):  # the raw folder's content is about to be replaced
        raise UserError(f"download.archive is {archive}, and it and the raw folder {out} overlap: move it")
    _check_hash(archive, params.sha256, preset)
    if archive.is_dir():
        _copy_folder(archive, staging)
    else:
        unpack(archive, staging)


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


def _copy_folder(folder: Path, staging: Path) -> None:
    files = folder_files(folder)
    for name, file in track(files, len(files), f"copying {folder.name}", unit="files"):
        target = staging / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, target)  # takes no room
        except OSError:  # another disk, or a file system without hard links
            shutil.copyfile(file, target)


def _fill_from_kaggle(slug: str, staging: Path, area: Path) -> None:
    from pipeline.kaggle_source import fetch_dataset

    if not slug:
        raise UserError(
            "download.source is kaggle and download.kaggle is empty: give owner/data-set, as in the page's address"
        )
    archive = fetch_dataset(slug, area)
    try:
        unpack(archive, staging)
    except DamagedArchiveError as error:
        _remove(area)  # or the next run would take it for finished
        raise UserError(f"{error}; it was removed, so run the stage again") from None


def _replace(out: Path, staging: Path) -> None:
    """Put `staging` in the place of `out`; between the two renames there is no `out` at all."""
    old = _beside(out, ".old.partial")
    _remove(old)
    if out.exists():
        out.rename(old)
    staging.rename(out)
    _remove(old)


def _beside(out: Path, ending: str) -> Path:
    return out.with_name(out.name + ending)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
