"""From a file to the network's pixels. The only definition: preprocess, report, predict and serve call it.

An image that crosses a function is uint8, grayscale, shape (height, width), 0 = black = air (MONOCHROME2).
"""

import hashlib
import stat
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from pipeline.decoders import dicom, pictures
from pipeline.decoders.film import MAX_BYTES, MAX_PIXELS, Film, Image, ImageError
from pipeline.errors import UserError
from pipeline.quarantine import Reason

__all__ = [
    "PIXEL_MODULES",
    "Film",
    "Image",
    "ImageError",
    "Preparation",
    "clahe",
    "decode_film",
    "decode_image",
    "perceptual_hash",
    "pixel_sha256",
    "prepare",
    "read_film",
    "read_image",
    "resize",
]

PIXEL_MODULES = (Path(__file__), *sorted(Path(__file__).with_name("decoders").glob("*.py")))
"""The source files that decide what pixels come out of a file; whoever caches pixels has to hash them."""


class Preparation(Protocol):
    """What `prepare` has to be told; `pipeline.params.PreprocessParams` is one.

    This module does not import that one: it needs pydantic, and worker processes would import it for nothing.
    """

    @property
    def size(self) -> int:
        """Pixels a side."""

    @property
    def fit(self) -> str:
        """'stretch' or 'letterbox', see `resize`."""

    @property
    def clahe(self) -> bool:
        """Whether the histogram is equalised."""

    @property
    def clip_limit(self) -> float:
        """See `clahe`."""

    @property
    def tiles(self) -> int:
        """See `clahe`."""


def read_film(path: Path, max_pixels: int = MAX_PIXELS) -> Film:
    """Read a PNG, JPEG, TIFF or DICOM file; the content decides which it is, not the name.

    Parameters
    ----------
    path : Path
        The file, of at most 1 GiB (`film.MAX_BYTES`).
    max_pixels : int
        Bound on width x height, checked from the header before anything is decoded.

    Returns
    -------
    Film
        Pixels and notes. docs/images.md says, format by format, how values become uint8 gray and what is refused.

    Raises
    ------
    ImageError
        If the file is missing, empty, truncated, of another format, too large, or cannot be decoded.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a named pipe would block for ever
            raise ImageError(Reason.UNREADABLE, "cannot be read (not a regular file)")
        if found.st_size > MAX_BYTES:
            raise ImageError(Reason.TOO_LARGE, f"{found.st_size:,} bytes are more than the allowed {MAX_BYTES:,}")
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(Reason.UNREADABLE, f"cannot be read ({error.strerror})") from None
    return decode_film(data, max_pixels)


def decode_film(data: bytes, max_pixels: int = MAX_PIXELS) -> Film:
    """Decode the bytes of a file; see `read_film`."""
    if not data:
        raise ImageError(Reason.EMPTY, "the file is empty")
    if len(data) > MAX_BYTES:
        raise ImageError(Reason.TOO_LARGE, f"{len(data):,} bytes are more than the allowed {MAX_BYTES:,}")
    try:
        return _decoded(data, max_pixels)
    except MemoryError:
        raise UserError("memory ran out while an image was decoded: free some, or lower ingest.max_pixels") from None


def _decoded(data: bytes, max_pixels: int) -> Film:
    if dicom.is_dicom(data):  # first, because the 128 bytes before its mark may be a TIFF header (PS3.10, section 7.1)
        return dicom.decode(data, max_pixels)
    return pictures.decode(data, max_pixels)


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> Image:
    """Return the pixels of `read_film`."""
    return read_film(path, max_pixels).pixels


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image:
    """Return the pixels of `decode_film`."""
    return decode_film(data, max_pixels).pixels


def resize(image: Image, size: int, fit: str) -> Image:
    """Resize to a square.

    Parameters
    ----------
    image : ndarray of shape (height, width), dtype=uint8
        The image.
    size : int
        Pixels a side of the result.
    fit : {'stretch', 'letterbox'}
        'stretch' changes the aspect; 'letterbox' keeps it and pads with black, evenly on both sides.

    Returns
    -------
    ndarray of shape (size, size), dtype=uint8
        Each axis is reduced by area averaging (INTER_AREA) or enlarged by cubic interpolation (INTER_CUBIC).
    """
    height, width = image.shape
    if fit == "stretch":
        return _resample(image, size, size)
    scale = size / max(height, width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    canvas = np.zeros((size, size), np.uint8)
    top, left = (size - new_height) // 2, (size - new_width) // 2
    canvas[top : top + new_height, left : left + new_width] = _resample(image, new_height, new_width)
    return canvas


def clahe(image: Image, clip_limit: float, tiles: int) -> Image:
    """Equalise the histogram tile by tile with limited contrast (CLAHE).

    Zuiderveld, "Contrast limited adaptive histogram equalization", Graphics Gems IV, 1994, as OpenCV implements it.

    Parameters
    ----------
    image : ndarray of shape (height, width), dtype=uint8
        The image.
    clip_limit : float
        Contrast limit, relative to a flat histogram.
    tiles : int
        Tiles a side.
    """
    return np.asarray(cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(tiles, tiles)).apply(image), np.uint8)


def prepare(image: Image, params: Preparation) -> Image:
    """Turn an image as read into the network's input: resize, then CLAHE if `params.clahe`.

    Returns
    -------
    ndarray of shape (params.size, params.size), dtype=uint8
        What training saw; anything that asks the model must send its images through here.
    """
    resized = resize(image, params.size, params.fit)
    return clahe(resized, params.clip_limit, params.tiles) if params.clahe else resized


def pixel_sha256(image: Image) -> str:
    """Return the SHA-256 of the shape and the pixels, in hexadecimal: equal for the same picture however stored."""
    digest = hashlib.sha256(f"{image.shape[0]}x{image.shape[1]}:".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def perceptual_hash(image: Image) -> str:
    """Return the 64-bit DCT hash, 16 hexadecimal digits.

    Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, section 3.2.1: 32x32 pixels,
    DCT-II, the 8x8 lowest frequencies without the mean's row and column, compared with their median.
    """
    small = _resample(image, 32, 32).astype(np.float32)
    block = cv2.dct(small)[1:9, 1:9]
    bits = (block > np.median(block)).flatten()
    return f"{int.from_bytes(np.packbits(bits).tobytes(), 'big'):016x}"


def _resample(image: Image, height: int, width: int) -> Image:
    low = (min(width, image.shape[1]), min(height, image.shape[0]))
    if low != image.shape[::-1]:
        image = np.asarray(cv2.resize(image, low, interpolation=cv2.INTER_AREA), np.uint8)
    if low != (width, height):
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    return image
