"""One contender's round, in its own process: `python peers.py NAME < FILES` prints seconds and what was made.

Each reads every file as its library's users do, gray, at 256x256 pixels, with CLAHE where the library has it, one
image after the other. Only the libraries themselves are imported, so that any environment can run it.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

SIZE = 256


def opencv_read() -> Callable[[str], Any]:
    """OpenCV's reading alone: no resizing, no checks, no writing."""
    import cv2

    cv2.setNumThreads(1)
    return lambda path: cv2.imread(path, cv2.IMREAD_GRAYSCALE)


def torchxrayvision() -> Callable[[str], Any]:
    """As in its README: load_image, then XRayResizer with its default engine."""
    import torchxrayvision as xrv

    resize = xrv.datasets.XRayResizer(SIZE)
    return lambda path: resize(xrv.utils.load_image(path))


def torchxrayvision_opencv() -> Callable[[str], Any]:
    """Do the same with XRayResizer's faster engine."""
    import torchxrayvision as xrv

    resize = xrv.datasets.XRayResizer(SIZE, engine="cv2")
    return lambda path: resize(xrv.utils.load_image(path))


def monai() -> Callable[[str], Any]:
    """LoadImage and Resize of its tutorials for 2-D images; it has no CLAHE."""
    import torch
    from monai.transforms import Compose, Lambda, LoadImage, Resize

    torch.set_num_threads(1)
    return Compose(
        [LoadImage(image_only=True, ensure_channel_first=True), Lambda(lambda x: x[:1]), Resize((SIZE, SIZE))]
    )


def scikit_image() -> Callable[[str], Any]:
    """imread, resize with anti-aliasing, equalize_adapthist (CLAHE)."""
    from skimage import exposure, io, transform

    def prepare(path: str) -> Any:
        image = io.imread(path)
        gray = image[..., 0] if image.ndim == 3 else image
        small = transform.resize(gray, (SIZE, SIZE), anti_aliasing=True)
        return exposure.equalize_adapthist(small)

    return prepare


CONTENDERS = {
    "cv2.imread": opencv_read,
    "torchxrayvision": torchxrayvision,
    "torchxrayvision, cv2": torchxrayvision_opencv,
    "monai": monai,
    "scikit-image": scikit_image,
}


def main() -> None:
    """Warm up with one file, then take the time of all."""
    files = json.load(sys.stdin)
    try:
        prepare = CONTENDERS[sys.argv[1]]()
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        return
    prepare(files[0])
    wall, cpu = time.perf_counter(), time.process_time()
    for path in files:
        made = prepare(path)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"wall": wall, "cpu": cpu, "images": len(files), "shape": list(made.shape)}))


if __name__ == "__main__":
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
    main()
