"""`cxr doctor`: is this machine ready for the chosen data set, and if not, what mends it."""

import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import UserError
from pipeline.params import Params

_GB = 1e9


@dataclass(frozen=True)
class Check:
    """What one look at the machine gave."""

    level: Literal["ok", "note", "problem"]
    subject: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level:<8}{self.subject:<12}{self.text}{f' → {self.remedy}' if self.remedy else ''}"


@dataclass(frozen=True)
class _Need:
    images: int
    archive: float  # bytes; the images in it are compressed already, so unpacked they take the same again


# Sizes as `kaggle datasets list` gives them (in GiB, rounded up): data 42, sample 4.2 (its images lie in it twice),
# chest-xray-pneumonia 2.3 (twice too). 112,120 PNG files of 395 KB, as measured, are 44 GB, which agrees.
_NEEDS = {
    "nih": _Need(112_120, 45.1e9),
    "nih-sample": _Need(5_606, 4.5e9),
    "pneumonia": _Need(5_856, 2.5e9),
}
_IMAGES_PER_PATIENT = 112_120 / 30_805  # NIH's table; the simulator follows it
_RUN_BYTES = 2e9  # checkpoints with Adam's two moments (3 x 95 MB each), exported models, the MLflow store
_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
_WEIGHTS = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"  # keras.applications.resnet, 94.8 MB


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
        ("precision", lambda: check_precision(params, cpu_flags(), gpu_capabilities())),
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


def check_python(version: Sequence[int] = sys.version_info[:3]) -> Check:
    """Look whether this Python is one that TensorFlow 2.21 has wheels for and the project is tested with."""
    text = ".".join(map(str, version))
    if (3, 11) <= tuple(version[:2]) <= (3, 13):
        return Check("ok", "Python", text)
    return Check("problem", "Python", f"{text}; 3.11, 3.12 or 3.13 is needed", "`uv sync --python 3.13`")


def check_tensorflow() -> list[Check]:
    """Multiply two matrices on every device that TensorFlow sees, and compare with NumPy."""
    try:
        tf = _tensorflow()
    except ImportError as error:
        return [Check("problem", "TensorFlow", f"cannot be imported ({error})", "`uv sync`")]
    checks = [Check("ok", "TensorFlow", str(tf.__version__))]
    checks += [_compute(tf, device.name) for device in tf.config.list_logical_devices() if "XLA" not in device.name]
    if shutil.which("nvidia-smi") and not tf.config.list_physical_devices("GPU"):
        text = "an NVIDIA driver is here and TensorFlow sees no GPU: training would use the processor"
        checks.append(Check("note", "TensorFlow", text, "`uv sync --extra gpu`"))
    return checks


def check_precision(params: Params, flags: Collection[str], capabilities: Sequence[tuple[int, int]]) -> Check:
    """Say which Keras dtype policy pays on this machine.

    Parameters
    ----------
    params : Params
        `train.precision` is what was chosen, `preprocess.size` the pixels a side.
    flags : collection of str
        The processor's, as in /proc/cpuinfo.
    capabilities : sequence of (major, minor)
        CUDA compute capability of each GPU; empty without one.

    Notes
    -----
    Tensor cores multiply float16 from compute capability 7.0 and bfloat16 from 8.0 on (NVIDIA, CUDA C++ Programming
    Guide, "Compute Capabilities"). AVX512_BF16 and AMX-BF16 are the x86 instructions for bfloat16 (Intel
    Architecture Instruction Set Extensions Programming Reference); measured with AVX512_BF16, a ResNet50 trains 1.3
    times as fast at 128 and 256 pixels a side and no faster at 64. bfloat16 is preferred to float16 where both are
    there: it has float32's range and needs no loss scaling.
    """
    best, reason = "float32", "the processor has no bfloat16 instructions (AVX512_BF16 or AMX)"
    if capabilities:
        lowest = min(capabilities)
        reason = f"the GPU has compute capability {lowest[0]}.{lowest[1]}"
        best = "mixed_bfloat16" if lowest >= (8, 0) else "mixed_float16" if lowest >= (7, 0) else "float32"
    elif found := sorted({"avx512_bf16", "amx_bf16"} & set(flags)):
        reason = f"the processor has {' and '.join(found)}, which help from 128 pixels a side on"
        best = "mixed_bfloat16" if params.preprocess.size >= 128 else "float32"
    chosen = params.train.precision
    text = f"{best} pays here: {reason}"
    if chosen == best:
        return Check("ok", "precision", text)
    return Check("note", "precision", f"{text}; train.precision is {chosen}", f"set train.precision: {best}")


def check_opencv(installed: Mapping[str, str]) -> Check:
    """Look whether exactly one OpenCV distribution is installed; they overwrite each other's files.

    Parameters
    ----------
    installed : mapping of str to str
        Distribution to version, as `installed_opencv` gives it.
    """
    names = ", ".join(f"{name} {version}" for name, version in sorted(installed.items()))
    if len(installed) > 1:
        remedy = f"`uv pip uninstall {' '.join(sorted(installed))}`, then `uv sync --reinstall-package {_OPENCV[1]}`"
        return Check("problem", "OpenCV", f"{names} overwrite each other", remedy)
    try:
        import cv2
    except ImportError as error:  # as on a server without libGL
        return Check("problem", "OpenCV", f"cannot be imported ({error})", f"`uv pip install {_OPENCV[1]}` alone")
    return Check("ok", "OpenCV", names or f"{cv2.__version__}, from elsewhere")


def check_memory(params: Params) -> Check:
    """Compare the free memory with what training on the processor takes.

    Notes
    -----
    ResNet50 has 11.1 million convolution outputs at 224 x 224 (Radosavovic et al., "Designing Network Design
    Spaces", CVPR 2020); each is kept three times in float32 (convolution, normalisation, ReLU). Weights,
    gradients and Adam's moments take 0.4 GB, the imported libraries about 1 GB.
    """
    import psutil

    memory = psutil.virtual_memory()
    side = params.preprocess.size / 224
    need = 1.4e9 + params.train.batch_size * 11.1e6 * 3 * 4 * side**2
    text = f"{memory.available / _GB:.1f} of {memory.total / _GB:.1f} GB free, training takes about {need / _GB:.1f} GB"
    if memory.available >= need:
        return Check("ok", "memory", text)
    return Check("note", "memory", f"{text} unless a GPU holds it", "a smaller train.batch_size")


def check_disk(params: Params, root: Path) -> Check:
    """Compare the free disk space with what the data set takes from its archive to the shards."""
    need = disk_need(params)
    free = shutil.disk_usage(root).free
    if need is None:
        text = f"{free / _GB:.0f} GB free; what preset {params.dataset.preset!r} takes is not known here"
        return Check("note", "disk", text)
    text = f"{free / _GB:.1f} GB free, {params.dataset.preset} takes about {need / _GB:.1f} GB"
    if free >= need:
        return Check("ok", "disk", text)
    raw = root / "data" / "raw"
    if raw.is_dir() and any(raw.iterdir()):
        return Check("note", "disk", f"{text} in all, of which data/raw is there already", "watch it")
    return Check("problem", "disk", text, "make room, or move the project to a larger disk")


def disk_need(params: Params) -> float | None:
    """Return how many bytes a run writes (raw images, shards, models), or None for a preset not known here."""
    shard = params.preprocess.size**2  # bytes an image: uint8, not compressed
    if params.download.source == "simulated":
        images = params.simulate.patients * _IMAGES_PER_PATIENT
        return images * (params.simulate.size**2 + shard) + _RUN_BYTES
    need = _NEEDS.get(params.dataset.preset)
    if need is None:
        return None
    archive = Path(params.download.archive).expanduser()
    if params.download.source == "kaggle":
        raw = 2 * need.archive  # the archive lies there until it is unpacked
    else:
        raw = archive.stat().st_size if archive.is_file() else need.archive
    return raw + need.images * shard + _RUN_BYTES


def check_kaggle(params: Params) -> Check:
    """Say whether Kaggle credentials are there and where, never what they are."""
    from pipeline.kaggle_source import HOW_TO_SIGN_IN, credentials_present

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
    home = os.environ.get("KERAS_HOME")
    path = (Path(home) if home else Path.home() / ".keras") / "models" / _WEIGHTS
    if path.is_file():
        return Check("ok", "weights", f"ImageNet weights in {path}")
    remedy = f"without a network copy the file to {path}, or set model.weights: none"
    return Check("note", "weights", "the ImageNet weights (95 MB) are fetched when training starts", remedy)


def check_versioning(root: Path) -> list[Check]:
    """Look for DVC and git, and say what is lost without them."""
    checks = []
    git = shutil.which("git") is not None and any((folder / ".git").exists() for folder in (root, *root.parents))
    try:
        version = metadata.version("dvc")
    except metadata.PackageNotFoundError:
        return [Check("problem", "DVC", "is not installed", "`uv sync`")]
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
    uri = os.environ.get("MLFLOW_TRACKING_URI") or params.tracking.uri
    shown = without_secrets(uri)
    if uri.startswith(("http://", "https://")):
        return _check_server(uri, shown)
    if uri.startswith("sqlite:///"):
        return _check_database(root / uri.removeprefix("sqlite:///").split("?")[0], shown)
    if "://" in uri and not uri.startswith("file://"):
        return Check("note", "MLflow", f"{shown}: this kind of store is not tried here")
    return _check_writable(root / uri.removeprefix("file://").removeprefix("file:"), shown)


def without_secrets(uri: str) -> str:
    """Return an address without user name, password and query, any of which may be secret."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    # Not urlsplit: it takes part of a password with a slash in it for the host.
    return f"{scheme}://{re.split(r'[?#]', rest.rpartition('@')[2])[0]}"


def installed_opencv() -> dict[str, str]:
    """Return the OpenCV distributions in this environment and their versions."""
    found = {}
    for name in _OPENCV:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def cpu_flags() -> set[str]:
    """Return the processor's feature flags; empty where the system does not list them (not Linux)."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())


def gpu_capabilities() -> list[tuple[int, int]]:
    """Return the CUDA compute capability of each GPU that TensorFlow sees."""
    try:
        tf = _tensorflow()
    except ImportError:
        return []
    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return [tuple(item["compute_capability"]) for item in details if "compute_capability" in item]


def _tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its start-up lines are not the report
    tf = import_module("tensorflow")
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)  # or a look takes the memory of a running training
        except (RuntimeError, ValueError):  # somebody in this process has used the GPU already
            continue
    return tf


def _compute(tf: Any, device: str) -> Check:
    import numpy as np

    # Whole numbers below 8: exact in every precision a device may choose for itself (TF32, bfloat16 products).
    left, right = np.random.default_rng(7).integers(0, 8, (2, 64, 64)).astype(np.float32)
    name = device.removeprefix("/device:")
    try:
        with tf.device(device):
            product = tf.linalg.matmul(left, right).numpy()
    except tf.errors.OpError as error:
        text = f"{name} does not compute ({type(error).__name__})"
        return Check("problem", "TensorFlow", text, "update the GPU driver, or hide it with CUDA_VISIBLE_DEVICES=-1")
    if not np.array_equal(product, left @ right):
        return Check("problem", "TensorFlow", f"{name} computes a wrong matrix product", "do not train on it")
    return Check("ok", "TensorFlow", f"{name} computes")


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
