"""PNG, JPEG and TIFF, decoded by Pillow: it refuses files that end early, which OpenCV fills with gray.

Plain PNG files, which are nearly all, take a shorter way (`fast_png`) to the same pixels.
"""

import io
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.decoders import fast_png, jpeg_end, tiff
from pipeline.decoders.codestreams import Frame, jpeg_frame
from pipeline.decoders.film import Film, ImageError, check_size, gray_film, silence
from pipeline.quarantine import Reason

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II\x2a\x00": "TIFF",
    b"MM\x00\x2a": "TIFF",
    b"II\x2b\x00": "TIFF",
    b"MM\x00\x2b": "TIFF",
}
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "I;16B"}
_SHORTER = (8, 10, 12, 14)  # bits of detectors whose values lie unscaled in 16-bit files


class _Samples(NamedTuple):
    pixels: NDArray[Any]
    full: int
    alpha: bool = False


def decode(data: bytes, max_pixels: int) -> Film:
    """Decode a PNG, JPEG or TIFF file; docs/images.md says what is read and how.

    Parameters
    ----------
    data : bytes
        The whole file.
    max_pixels : int
        Bound on width x height.

    Raises
    ------
    ImageError
        If it is of another format or variant, damaged, or too large.
    """
    kind = next((name for mark, name in _SIGNATURES.items() if data.startswith(mark)), None)
    if kind is None:
        raise ImageError(Reason.UNREADABLE, "neither a PNG nor a JPEG file, nor TIFF, nor DICOM")
    if kind == "PNG" and (plain := fast_png.decode(data, max_pixels)) is not None:
        full = _full_scale(plain, None) if plain.dtype == np.uint16 else 255
        return gray_film(plain, full, alpha=plain.shape[2:] == (4,))
    layout = tiff.check(data, max_pixels) if kind == "TIFF" else None
    frame = jpeg_frame(data) if kind == "JPEG" else None
    if frame:
        check_size(frame.width, frame.height, max_pixels)
    # Pillow inverts MinIsWhite up to 8 bits, not beyond.
    invert = layout is not None and layout.min_is_white and layout.bits > 8
    with silence():
        samples, turn = _load(tiff.min_is_black(data) if invert else data, kind, layout, frame, max_pixels)
    if invert:
        samples = samples._replace(pixels=samples.full - samples.pixels)
    film = gray_film(samples.pixels, samples.full, alpha=samples.alpha)
    return Film(_turned(film.pixels, turn), film.notes)


def _load(
    data: bytes, kind: str, layout: tiff.Layout | None, frame: Frame | None, max_pixels: int
) -> tuple[_Samples, int]:
    """Let Pillow read the file; return its samples and the EXIF orientation that is left to apply."""
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    Pillow.MAX_IMAGE_PIXELS = None  # its own bound would come before the one that is given here
    damaged = ImageError(Reason.TRUNCATED, "damaged or truncated")
    try:
        with Pillow.open(io.BytesIO(data), formats=(kind,)) as picture:
            check_size(*picture.size, max_pixels)
            if picture.mode not in _MODES:
                raise ImageError(Reason.UNSUPPORTED, f"pixel mode {picture.mode} is not supported; gray and RGB are")
            if kind == "PNG" and getattr(picture, "is_animated", False):
                raise ImageError(Reason.UNSUPPORTED, "an animated PNG; one film a file is read")
            picture.verify()  # the checksums of PNG, which load() does not look at
        with Pillow.open(io.BytesIO(data), formats=(kind,)) as picture:
            picture.load()
            turn = 1 if kind == "TIFF" else tiff.orientation(picture.info.get("exif", b""))  # Pillow turns TIFF itself
            samples = _samples(picture, data, kind, layout)
            if frame:
                stored = np.asarray(picture) if picture.mode == "CMYK" else samples.pixels
                jpeg_end.require_whole(data, stored, frame.marker)
            return samples, turn
    except ImageError as error:
        failed = error
    except UnidentifiedImageError:
        odd = ImageError(Reason.UNSUPPORTED, "this combination of depth, samples and byte order in TIFF is not read")
        failed = odd if kind == "TIFF" else damaged  # the directory of a TIFF is sound, see tiff.check
    except MemoryError:  # the machine's fault, not the file's
        raise
    except Exception:  # whatever a parser raises on hostile bytes; its words may quote them
        failed = damaged
    raise failed


def _samples(picture: "Picture", data: bytes, kind: str, layout: tiff.Layout | None) -> _Samples:
    depth = data[24] if kind == "PNG" else layout.bits if layout else 8
    if depth == 16 and picture.mode not in ("I;16", "I;16B"):
        return _wide_colour(data)
    clear = picture.info.get("transparency") if kind == "PNG" else None
    if picture.mode in ("P", "PA"):
        return _Samples(np.asarray(picture.convert("RGBA")), 255, alpha=True)
    if picture.mode == "CMYK":
        return _Samples(_rgb_of_cmyk(picture), 255)
    pixels = np.asarray(picture)
    if picture.mode == "1":
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    elif depth > 8:
        pixels = pixels.astype(np.uint16)
    full = 255 if depth <= 8 else _full_scale(pixels, 12 if depth == 12 else _significant_bits(data, kind))
    if clear is None:
        return _Samples(pixels, full, alpha=picture.mode in ("LA", "RGBA"))
    if picture.mode == "L":
        clear *= 255 // (2**depth - 1)  # Pillow spreads 2 and 4 bits to 8, but not the transparent value
    hidden = (pixels == np.asarray(clear)).reshape(*pixels.shape[:2], -1).all(axis=2)
    opacity = np.where(hidden, 0, full).astype(pixels.dtype)
    return _Samples(np.dstack([pixels, opacity]), full, alpha=True)


def _full_scale(pixels: NDArray[Any], declared: int | None) -> int:
    """Return the value of white in a 16-bit file.

    Detectors of 10 to 14 bits are often stored unscaled, and then 65535 as white would make the film black. PNG's sBIT
    says how many bits there are (W3C PNG, section 11.3.2.3), though a file may be scaled as the standard asks.
    Otherwise white is the largest value of the smallest usual depth that holds all values.
    """
    top = int(pixels.max())
    depths = (declared,) if declared else _SHORTER
    return next(((1 << bits) - 1 for bits in depths if top < 1 << bits), 65535)


def _significant_bits(data: bytes, kind: str) -> int | None:
    position = 8
    while kind == "PNG" and position + 9 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"sBIT" and length:
            return data[position + 8] if 1 <= data[position + 8] < 16 else None
        if name == b"IDAT":
            break
        position += 12 + length
    return None


def _wide_colour(data: bytes) -> _Samples:
    """Decode colour of 16 bits a sample with OpenCV, because Pillow drops the low byte: 12-bit values become black."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded.dtype != np.uint16:
        raise ImageError(Reason.UNSUPPORTED, "this kind of 16-bit colour is not read; 16-bit gray and RGB are")
    alpha = decoded.ndim == 3 and decoded.shape[2] == 4
    colour = decoded[..., :3] if decoded.ndim == 3 else decoded
    full = _full_scale(colour, None)
    if decoded.ndim == 3:
        decoded = np.dstack([colour[..., ::-1], np.minimum(decoded[..., 3:], full)] if alpha else [colour[..., ::-1]])
    return _Samples(np.asarray(decoded), full, alpha)


def _rgb_of_cmyk(picture: "Picture") -> NDArray[np.uint8]:
    # Adobe stores CMYK inverted, and Pillow expects that of everybody; without Adobe's mark 0 is no ink (libjpeg.txt).
    if "adobe" not in picture.info:
        from PIL import ImageChops

        picture = ImageChops.invert(picture)
    return np.asarray(picture.convert("RGB"), np.uint8)


def _turned(pixels: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation (CIPA DC-008, section 4.6.5.1, tag 274): 1 is upright, 5 to 8 swap the axes."""
    if turn in (5, 6, 7, 8):
        pixels = pixels.T
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
