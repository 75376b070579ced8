"""The first stage: fetch the images, whole or not at all, into the raw folder."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.errors import UserError
from pipeline.params import DownloadParams, Params
from pipeline.sources.archive_guard import DamagedArchiveError
from pipeline.sources.archives import unpack
from pipeline.sources.local_source import fill_from_local, place_fetched


def download(params: Params, out: Path) -> None:
    """Fill the raw folder from the simulator, a local archive or folder, or Kaggle.

    All is made in `OUT.partial` beside it and takes the place of the old content at the end by rename; a run that
    is stopped leaves `out` as it was, or absent, never half full. `OUT.download` (of chosen files:
    `OUT.files.download`) keeps what has come from Kaggle until it is unpacked or moved. With `download.files`
    the files that `out` holds already are not fetched again.

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
        `archives.unpack`, `kaggle_source.fetch_dataset` and `kaggle_files.fetch_files` of `pipeline.sources`.
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
        where = f" ({error.filename})" if error.filename else ""
        raise UserError(
            f"{out} could not be filled: {error.strerror or error}{where}: mend that and run again"
        ) from None
    finally:
        _remove(staging)
    if params.download.source == "kaggle":
        _remove(_area(params.download, out))


def with_files(params: Params, patterns: Sequence[str]) -> Params:
    """Return the parameters with other `download.files`.

    Raises
    ------
    UserError
        If the images do not come from Kaggle, or a pattern is empty.
    """
    if params.download.source != "kaggle":
        raise UserError(
            f"--files chooses files of Kaggle's, and download.source is {params.download.source}: leave it out"
        )
    if not all(patterns):
        raise UserError("--files was given an empty pattern: write names or patterns such as 'images_001/*'")
    return replace(params, download=replace(params.download, files=list(patterns)))


def _fill(params: Params, staging: Path, out: Path) -> None:
    source = params.download.source
    if source == "simulated":
        from pipeline.datasets.simulated import simulate

        simulate(params.simulate, staging)
    elif source == "local":
        fill_from_local(params.dataset.preset, params.download, staging, out)
    else:
        _fill_from_kaggle(params.download, staging, out)


def _fill_from_kaggle(params: DownloadParams, staging: Path, out: Path) -> None:
    from pipeline.sources.kaggle_files import fetch_files
    from pipeline.sources.kaggle_source import fetch_dataset

    if not params.kaggle:
        raise UserError(
            "download.source is kaggle and download.kaggle is empty: give owner/data-set or competitions/NAME, as in "
            "the page's address"
        )
    area = _area(params, out)
    if params.files:
        place_fetched(fetch_files(params.kaggle, params.files, out, area), params.kaggle, staging)
        return
    archive = fetch_dataset(params.kaggle, area)
    try:
        unpack(archive, staging)
    except DamagedArchiveError as error:
        _remove(area)  # or the next run would take it for finished
        raise UserError(f"{error}; it was removed, so run the stage again") from None


def _area(params: DownloadParams, out: Path) -> Path:
    """Return where a download lies until it is whole; one of some files must not end a paused one of all."""
    return _beside(out, ".files.download" if params.files else ".download")


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
