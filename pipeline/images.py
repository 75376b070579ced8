"""From a file to the network's pixels. The only definition: preprocess, report, predict and serve call it.

An image that crosses a function is uint8, grayscale, shape (height, width), 0 = black = air (MONOCHROME2).
"""

import hashlib
import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.params import PreprocessParams
from pipeline.quarantine import Reason

Image = NDArray[np.uint8]
_FORMATS = ("PNG", "JPEG")
_DEPTHS = {"L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16B", "I"}


class ImageError(UserError):
    """An image file that cannot be used; the message is the reason, without the path.

    Attributes
    ----------
    code : Reason
        The kind of fault.
    """

    def __init__(self, code: Reason, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type["ImageError"], tuple[Reason, str]]:  # it crosses processes
        return type(self), (self.code, str(self))


def read_image(path: Path, max_pixels: int = 100_000_000) -> Image:
    """Read a PNG or JPEG file as grayscale.

    Parameters
    ----------
    path : Path
        The file.
    max_pixels : int
        Bound on width x height, checked from the header before anything is decoded.

    Returns
    -------
    ndarray of shape (height, width), dtype=uint8
        0 is black. 16-bit files are scaled by 255/65535 and rounded. Colour with equal channels (NIH's RGBA files,
        the pneumonia set's RGB files) gives that channel; other colour gives luma of ITU-R BT.601. Transparent
        pixels are laid over black.

    Raises
    ------
    ImageError
        If the file is missing, empty, truncated, of another format, too large, or cannot be decoded.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(Reason.UNREADABLE, f"cannot be read ({error.strerror})") from None
    return decode_image(data, max_pixels)


def decode_image(data: bytes, max_pixels: int = 100_000_000) -> Image:
    """Decode the bytes of a PNG or JPEG file; see `read_image`.

    Pillow decodes because it refuses truncated files, which OpenCV fills with grey in silence.
    """
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    if not data:
        raise ImageError(Reason.EMPTY, "the file is empty")
    Pillow.MAX_IMAGE_PIXELS = None  # its own bound would come before the one that is given here
    try:
        with Pillow.open(io.BytesIO(data), formats=_FORMATS) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise ImageError(Reason.TOO_LARGE, f"{width}x{height} is more than the allowed {max_pixels} pixels")
            if picture.mode not in _DEPTHS:
                raise ImageError(
                    Reason.UNSUPPORTED, f"pixel mode {picture.mode} is not supported; gray, RGB and RGBA are"
                )
            picture.verify()  # the checksums of PNG, which load() does not look at
        with Pillow.open(io.BytesIO(data), formats=_FORMATS) as picture:
            picture.load()
            pixels = np.asarray(picture.convert("RGBA") if picture.mode in ("P", "PA") else picture)
    except UnidentifiedImageError:
        raise ImageError(Reason.UNREADABLE, "neither a PNG nor a JPEG file") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(Reason.TRUNCATED, f"damaged or truncated ({error})") from None
    return _to_gray(pixels)


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


def prepare(image: Image, params: PreprocessParams) -> Image:
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
    digest.update(np.ascontiguousarray(image).tobytes())
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


def _to_gray(pixels: NDArray[np.generic]) -> Image:
    if pixels.dtype != np.uint8:
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ImageError(Reason.UNSUPPORTED, "holds more than 16 bits a pixel")
        pixels = np.round(pixels.astype(np.float64) * (255 / 65535)).astype(np.uint8)
    if pixels.ndim == 2:
        return np.ascontiguousarray(pixels, np.uint8)
    channels = pixels.astype(np.uint8)
    alpha = channels[..., -1] if channels.shape[2] in (2, 4) else None
    colour = channels[..., : channels.shape[2] - (alpha is not None)]
    if (colour == colour[..., :1]).all():
        gray = colour[..., 0]
    else:
        gray = np.asarray(cv2.cvtColor(np.ascontiguousarray(colour), cv2.COLOR_RGB2GRAY), np.uint8)
    if alpha is not None and alpha.min() < 255:
        gray = np.round(gray.astype(np.float32) * (alpha.astype(np.float32) / 255)).astype(np.uint8)
    return np.ascontiguousarray(gray, np.uint8)
