"""The machine under the pipeline: Python, TensorFlow and its devices, precision, OpenCV, memory."""

import os
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any, Literal

from pipeline.params import Params
from pipeline.precision import best_precision, gpu_capabilities

_GB = 1e9
_OPENCV = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")


@dataclass(frozen=True)
class Check:
    """What one look at the machine gave."""

    level: Literal["ok", "note", "problem"]
    subject: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level:<8}{self.subject:<12}{self.text}{f' → {self.remedy}' if self.remedy else ''}"


def check_python(version: Sequence[int] = sys.version_info[:3]) -> Check:
    """Look whether this Python is one that TensorFlow 2.21 has wheels for and the project is tested with."""
    text = ".".join(map(str, version))
    if (3, 11) <= tuple(version[:2]) <= (3, 13):
        return Check("ok", "Python", text)
    return Check("problem", "Python", f"{text}; 3.11, 3.12 or 3.13 is needed", "install one and run `make setup`")


def check_tensorflow() -> list[Check]:
    """Multiply two matrices on every device that TensorFlow sees, and compare with NumPy."""
    try:
        tf = _tensorflow()
    except ImportError as error:
        return [Check("problem", "TensorFlow", f"cannot be imported ({error})", "`make setup`")]
    checks = [Check("ok", "TensorFlow", str(tf.__version__))]
    checks += [_compute(tf, device.name) for device in tf.config.list_logical_devices() if "XLA" not in device.name]
    if shutil.which("nvidia-smi") and not tf.config.list_physical_devices("GPU"):
        text = "an NVIDIA driver is here and TensorFlow sees no GPU: training would use the processor"
        checks.append(Check("note", "TensorFlow", text, "`make setup EXTRAS=gpu`"))
    return checks


def check_precision(params: Params, flags: Collection[str], capabilities: Sequence[tuple[int, int]]) -> Check:
    """Say which Keras dtype policy pays on this machine (see `pipeline.precision.best_precision`)."""
    best, reason = best_precision(params.preprocess.size, flags, capabilities)
    chosen = params.train.precision
    text = f"{best} pays here: {reason}"
    if chosen in (best, "auto"):
        return Check("ok", "precision", text)
    return Check("note", "precision", f"{text}; train.precision is {chosen}", f"set train.precision: {best}, or auto")


def check_opencv(installed: Mapping[str, str]) -> Check:
    """Look whether exactly one OpenCV distribution is installed; they overwrite each other's files.

    Parameters
    ----------
    installed : mapping of str to str
        Distribution to version, as `installed_opencv` gives it.
    """
    names = ", ".join(f"{name} {version}" for name, version in sorted(installed.items()))
    if len(installed) > 1:
        remedy = f"`uv pip uninstall {' '.join(sorted(installed))}`, then `rm .venv/.synced && make setup`"
        return Check("problem", "OpenCV", f"{names} overwrite each other", remedy)
    try:
        import cv2
    except ImportError as error:  # as on a server without libGL
        return Check("problem", "OpenCV", f"cannot be imported ({error})", "`rm .venv/.synced && make setup`")
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


def installed_opencv() -> dict[str, str]:
    """Return the OpenCV distributions in this environment and their versions."""
    found = {}
    for name in _OPENCV:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def visible_gpu_capabilities() -> list[tuple[int, int]]:
    """Return the CUDA compute capability of each GPU that TensorFlow sees; none if it cannot be imported."""
    try:
        _tensorflow()
    except ImportError:
        return []
    return gpu_capabilities()


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
