"""`cxr doctor`: is this machine ready for the chosen data set, and if not, what mends it."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pipeline.errors import UserError
from pipeline.machine import (
    Check,
    check_memory,
    check_opencv,
    check_precision,
    check_python,
    check_tensorflow,
    installed_opencv,
    visible_gpu_capabilities,
)
from pipeline.params import DownloadParams, Params
from pipeline.precision import cpu_flags
from pipeline.sources.archive_members import is_archive
from pipeline.tracking import configured_uri, without_secrets
from pipeline.weights import imagenet_path

_GB = 1e9


@dataclass(frozen=True)
class _Need:
    images: int
    archive: float  # bytes; the images in it are compressed already, so unpacked they take the same again


# Approximate sizes of the archives as served. 112,120 PNG files of 395 KB, as measured, are 44 GB, which agrees; the
# sample and the pneumonia archive hold their images twice.
_NEEDS = {
    "nih": _Need(112_120, 45.1e9),
    "nih-sample": _Need(5_606, 4.5e9),
    "pneumonia": _Need(5_856, 2.5e9),
}
_IMAGES_PER_PATIENT = 112_120 / 30_805  # NIH's table; the simulator follows it
_RUN_BYTES = 2e9  # checkpoints with Adam's two moments (3 x 95 MB each), exported models, the MLflow store


def doctor(params: Params, root: Path) -> int:
    """Print one line for each check: ok, note or problem, what was found, and what mends it.

    Parameters
    ----------
    params : Params
        What is about to be run.
    root : Path
        The project's folder.

    Returns
    -------
    int
        How many problems there are. Notes do not count.
    """
    checks: list[tuple[str, Callable[[], Check | list[Check]]]] = [
        ("Python", check_python),
        ("TensorFlow", check_tensorflow),
        ("precision", lambda: check_precision(params, cpu_flags(), visible_gpu_capabilities())),
        ("OpenCV", lambda: check_opencv(installed_opencv())),
        ("memory", lambda: check_memory(params)),
        ("disk", lambda: check_disk(params, root)),
        ("Kaggle", lambda: check_kaggle(params)),
        ("weights", lambda: check_weights(params)),
        ("DVC", lambda: check_versioning(root)),
        ("MLflow", lambda: check_tracking(params, root)),
    ]
    problems = 0
    for subject, look in checks:
        try:
            found = look()
        except UserError as error:
            found = Check("problem", subject, str(error))
        for check in found if isinstance(found, list) else [found]:
            problems += check.level == "problem"
            print(check, flush=True)
    print(f"{problems} problem{'' if problems == 1 else 's'}")
    return problems


def check_disk(params: Params, root: Path) -> Check:
    """Compare the free disk space with what the data set takes from its archive to the shards."""
    need = disk_need(params, root / "data" / "raw.download")
    free = shutil.disk_usage(root).free
    if need is None:
        chosen = params.download.source == "kaggle" and params.download.files
        what = "the files that download.files chooses take" if chosen else f"preset {params.dataset.preset!r} takes"
        return Check("note", "disk", f"{free / _GB:.0f} GB free; what {what} is not known here")
    text = f"{free / _GB:.1f} GB free, {params.dataset.preset} takes about {need / _GB:.1f} GB"
    if free >= need:
        return Check("ok", "disk", text)
    raw = root / "data" / "raw"
    if raw.is_dir() and any(raw.iterdir()):
        return Check("note", "disk", f"{text} in all, of which data/raw is there already", "watch it")
    return Check("problem", "disk", text, "make room, or move the project to a larger disk")


def disk_need(params: Params, area: Path | None = None) -> float | None:
    """Return how many bytes a run writes (raw images, shards, models), or None if that is not known here.

    Parameters
    ----------
    params : Params
        The source and the size of the images.
    area : Path, optional
        The download area: once a download has begun, the size that Kaggle announced is written there.
    """
    shard = params.preprocess.size**2  # bytes an image: uint8, not compressed
    if params.download.source == "simulated":
        images = params.simulate.patients * _IMAGES_PER_PATIENT
        depth = 2 if params.simulate.format == "dicom" else 1  # bytes a pixel; neither is compressed much
        return images * (depth * params.simulate.size**2 + shard) + _RUN_BYTES
    need = _NEEDS.get(params.dataset.preset)
    if need is None or (params.download.source == "kaggle" and params.download.files):
        return None
    return _raw_bytes(params.download, need, area) + need.images * shard + _RUN_BYTES


def _raw_bytes(params: DownloadParams, need: _Need, area: Path | None) -> float:
    from pipeline.sources.kaggle_source import announced_size

    if params.source == "kaggle":
        announced = announced_size(params.kaggle, area) if area else None
        return 2 * (announced or need.archive)  # the archive lies there until it is unpacked
    archive = Path(params.archive).expanduser()
    if params.archive and archive.is_dir():  # of archives, or of images that are linked or copied
        packed = [path for path in archive.iterdir() if is_archive(path.name) and path.is_file()]
        return sum(path.stat().st_size for path in packed) or need.archive
    return archive.stat().st_size if archive.is_file() else need.archive


def check_kaggle(params: Params) -> Check:
    """Say whether Kaggle credentials are there and where, never what they are."""
    from pipeline.sources.kaggle_credentials import HOW_TO_SIGN_IN, credentials_present

    origin = credentials_present()
    if origin:
        return Check("ok", "Kaggle", f"credentials from {origin}")
    if params.download.source == "kaggle":
        return Check("problem", "Kaggle", "no credentials, and download.source is kaggle", HOW_TO_SIGN_IN)
    return Check("ok", "Kaggle", f"no credentials; not needed, download.source is {params.download.source}")


def check_weights(params: Params) -> Check:
    """Look whether the weights to start from are on this machine."""
    weights = params.model.weights
    if weights == "none":
        return Check("ok", "weights", "none are loaded (model.weights: none)")
    if weights != "imagenet":
        if Path(weights).is_file():
            return Check("ok", "weights", weights)
        return Check("problem", "weights", f"model.weights is {weights}, which is no file", "mend model.weights")
    path = imagenet_path(params.model.backbone)
    if path.is_file():
        return Check("ok", "weights", f"ImageNet weights in {path}")
    remedy = f"without a network copy the file to {path}, or set model.weights: none"
    text = f"the ImageNet weights of {params.model.backbone} are fetched when training starts"
    return Check("note", "weights", text, remedy)


def check_versioning(root: Path) -> list[Check]:
    """Look for DVC and git, and say what is lost without them."""
    checks = []
    git = shutil.which("git") is not None and any((folder / ".git").exists() for folder in (root, *root.parents))
    try:
        version = metadata.version("dvc")
    except metadata.PackageNotFoundError:
        return [Check("problem", "DVC", "is not installed", "`make setup`")]
    if (root / ".dvc").is_dir():
        checks.append(Check("ok", "DVC", version))
    else:
        remedy = f"`dvc init{'' if git else ' --no-scm'}` in {root}"
        checks.append(Check("problem", "DVC", f"{version}, and {root} is no DVC project", remedy))
    if git:
        return [*checks, Check("ok", "git", "the project is in a repository")]
    text = "no repository: runs cannot name the commit they came from, and `dvc exp` and `dvc metrics diff` do not work"
    return [*checks, Check("note", "git", text, "`git init` and a first commit")]


def check_tracking(params: Params, root: Path) -> Check:
    """Look whether runs can be written to MLflow. User names and passwords in the address are never shown."""
    uri = configured_uri(params.tracking)
    shown = without_secrets(uri)
    if uri.startswith(("http://", "https://")):
        return _check_server(uri, shown)
    if uri.startswith("sqlite:///"):
        return _check_database(root / uri.removeprefix("sqlite:///").split("?")[0], shown)
    if "://" in uri and not uri.startswith("file://"):
        return Check("note", "MLflow", f"{shown}: this kind of store is not tried here")
    return _check_writable(root / uri.removeprefix("file://").removeprefix("file:"), shown)


def _check_server(uri: str, shown: str) -> Check:
    import requests

    try:
        with requests.get(uri.rstrip("/") + "/health", timeout=3) as response:
            status = response.status_code
    except (requests.RequestException, ValueError, UnicodeError) as error:
        remedy = "start it, or correct MLFLOW_TRACKING_URI or tracking.uri"
        return Check("problem", "MLflow", f"{shown} does not answer ({type(error).__name__})", remedy)
    if status == 200:
        return Check("ok", "MLflow", f"{shown} answers")
    remedy = (
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" if status in (401, 403) else "check the address"
    )
    return Check("problem", "MLflow", f"{shown} answers with status {status}", remedy)


def _check_database(path: Path, shown: str) -> Check:
    if path.exists():
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
                database.execute("PRAGMA schema_version").fetchone()
        except sqlite3.Error as error:
            remedy = f"move {path} away, or name another tracking.uri"
            return Check("problem", "MLflow", f"{path} cannot be read ({error})", remedy)
    return _check_writable(path, shown)


def _check_writable(path: Path, shown: str) -> Check:
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if os.access(existing, os.W_OK) and (existing == path or existing.is_dir()):
        return Check("ok", "MLflow", shown)
    return Check("problem", "MLflow", f"{shown}: {existing} cannot be written", "change its owner or tracking.uri")
