"""One contender in a process of its own, which takes its turn when it is told to: `python peers.py NAME`.

Each line of standard input is a JSON list of (path, SHA-256 of the pixels); the answer is a line with the seconds that
these files took. The first list warms up and loads the libraries, and its seconds count for nothing. The end of the
input ends the process.

Each contender of another library reads a file as that library's users do, gray, at 256x256 pixels, with CLAHE where the
library has it, one image after the other. Only the libraries themselves are imported, so that any environment can run
it; `preprocess` is this project's own and needs the project's.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE = 256

Prepare = Callable[[str, str], Any]
"""From the path of a file and the hash of its pixels to what the library makes of it."""


def opencv_read() -> Prepare:
    """OpenCV's reading alone: no resizing, no checks, no writing."""
    import cv2

    cv2.setNumThreads(1)
    return lambda path, _sha256: cv2.imread(path, cv2.IMREAD_GRAYSCALE)


def own_preprocess() -> Prepare:
    """Do what a worker of the stage does with a file: read, decode, compare with the hash, resize, CLAHE."""
    import cv2

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from pipeline.params import PreprocessParams
    from pipeline.preparing import Recipe, process_file

    cv2.setNumThreads(1)
    recipe = Recipe.of(PreprocessParams(size=SIZE))
    return lambda path, sha256: process_file((path, sha256), Path("/"), recipe)


def torchxrayvision() -> Prepare:
    """As in its README: load_image, then XRayResizer with its default engine."""
    import torchxrayvision as xrv

    resize = xrv.datasets.XRayResizer(SIZE)
    return lambda path, _sha256: resize(xrv.utils.load_image(path))


def torchxrayvision_opencv() -> Prepare:
    """Do the same with XRayResizer's faster engine."""
    import torchxrayvision as xrv

    resize = xrv.datasets.XRayResizer(SIZE, engine="cv2")
    return lambda path, _sha256: resize(xrv.utils.load_image(path))


def monai() -> Prepare:
    """LoadImage and Resize of its tutorials for 2-D images; it has no CLAHE."""
    import torch
    from monai.transforms import Compose, Lambda, LoadImage, Resize

    torch.set_num_threads(1)
    prepare = Compose(
        [LoadImage(image_only=True, ensure_channel_first=True), Lambda(lambda x: x[:1]), Resize((SIZE, SIZE))]
    )
    return lambda path, _sha256: prepare(path)


def scikit_image() -> Prepare:
    """imread, resize with anti-aliasing, equalize_adapthist (CLAHE)."""
    from skimage import exposure, io, transform

    def prepare(path: str, _sha256: str) -> Any:
        image = io.imread(path)
        gray = image[..., 0] if image.ndim == 3 else image
        small = transform.resize(gray, (SIZE, SIZE), anti_aliasing=True)
        return exposure.equalize_adapthist(small)

    return prepare


BASE, OURS = "cv2.imread", "preprocess"
CONTENDERS = {
    BASE: opencv_read,
    OURS: own_preprocess,
    "torchxrayvision": torchxrayvision,
    "torchxrayvision, cv2": torchxrayvision_opencv,
    "monai": monai,
    "scikit-image": scikit_image,
}


def main() -> None:
    """Answer every line of the input."""
    try:
        prepare = CONTENDERS[sys.argv[1]]()
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        return
    for line in sys.stdin:
        files = json.loads(line)
        wall, cpu = time.perf_counter(), time.process_time()
        for path, sha256 in files:
            prepare(path, sha256)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps({"wall": wall, "cpu": cpu, "images": len(files)}), flush=True)


if __name__ == "__main__":
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
    main()
