"""Whether the coded data of a JPEG picture reach to its last pixel.

Where they end early at a marker (a cut file that was closed with an end marker), libjpeg counts a warning, which Pillow
and OpenCV do not pass on, and takes the coefficients that are missing for 0: mid-gray pixels, or, in a progressive
file, a coarse picture. Section numbers are those of ITU-T T.81.
"""

import io
import re
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.decoders.film import ImageError
from pipeline.quarantine import Reason

_BLOCK = 8
_GRAY = 128  # a block without coefficients (A.3.1, level shift)
_TOLERANCE = 3  # for the rounding of colour conversion (ITU-T T.871, section 7)
_HUFFMAN = {0xC0, 0xC1, 0xC2}  # start of frame: baseline, extended, progressive (table B.1)
_PROGRESSIVE = 0xC2
_END_OF_CODED = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # the next marker but a restart; 0xFF00 is coded data
# First zeros, which libjpeg itself supplies at a marker: some encoders leave out the last bits. Then anything else, and
# again behind each restart marker, because the missing blocks may begin at one.
_NOISE = bytes(np.random.default_rng(0).integers(0, 255, 512, dtype=np.uint8))
_TAIL = bytes(8) + _NOISE + b"".join(b"\xff" + bytes([0xD0 + number % 8]) + _NOISE for number in range(16))


class _Scan(NamedTuple):
    """A scan's components, the first and last coefficient of its band, the lowest bit it codes, its end in the file."""

    components: tuple[int, ...]
    first: int
    last: int
    bit: int
    end: int


def require_whole(data: bytes, pixels: NDArray[Any], kind: int) -> None:
    """Refuse a picture whose coded data end before its last block.

    Parameters
    ----------
    data : bytes
        The JPEG stream, which was decoded without an error.
    pixels : ndarray of shape (height, width) or (height, width, channels), dtype=uint8
        What it was decoded to.
    kind : int
        The second byte of its start-of-frame marker.

    Raises
    ------
    ImageError
        If they do, or if the scans that complete the picture are missing.

    Notes
    -----
    A picture of one scan has all its blocks if its last one is not mid-gray: nothing more is done for nearly every
    film. Otherwise, and if there are several scans, it is decoded twice more: as it is, and with bytes put behind its
    last coded byte. A decoder that has all its blocks never looks at them, so that any change of the pixels shows
    that blocks were missing.

    Not noticed: what is missing within the last block alone, and the early end of arithmetically coded data, which the
    standard allows (D.1.8).
    """
    if kind not in _HUFFMAN:
        return
    sequential = kind != _PROGRESSIVE
    if sequential and data.count(b"\xff\xda") == 1 and not _ends_gray(pixels):  # the usual film
        return
    scans = list(_scans(data))
    failed = ImageError(Reason.TRUNCATED, "damaged or truncated (the coded picture ends early)")
    if not _is_complete(scans, 1 if pixels.ndim == 2 else pixels.shape[2], sequential):
        raise failed
    if sequential and len(scans) == 1 and not _ends_gray(pixels):  # the other scan is that of a thumbnail
        return
    coded = data[: scans[-1].end]
    if _pixels(coded + b"\xff\xd9") != _pixels(coded + _TAIL + b"\xff\xd9"):
        raise failed


def _ends_gray(pixels: NDArray[Any]) -> bool:
    """Say whether what is visible of the last block is mid-gray; of colours, the luma or the first channel."""
    corner = np.atleast_1d(pixels[-1, -1]).tolist()
    if not _is_gray(corner[0]) and not (len(corner) > 2 and _is_gray(_luma(*corner[:3]))):
        return False
    height, width = pixels.shape[:2]
    block = pixels[(height - 1) // _BLOCK * _BLOCK :, (width - 1) // _BLOCK * _BLOCK :].astype(np.float64)
    block = block.reshape(*block.shape[:2], -1)
    kinds = [block[..., 0]] + ([_luma(*np.moveaxis(block[..., :3], 2, 0))] if block.shape[2] > 2 else [])
    return any(bool(np.all(_is_gray(kind))) for kind in kinds)


def _luma(red: Any, green: Any, blue: Any) -> Any:
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _is_gray(value: Any) -> Any:
    return abs(value - _GRAY) <= _TOLERANCE


def _scans(data: bytes) -> Iterator[_Scan]:
    """Yield the scans up to the end marker (B.2.3)."""
    position = 2
    while (start := data.find(b"\xff", position)) >= 0 and start + 4 <= len(data) and data[start + 1] != 0xD9:
        marker = data[start + 1]
        if marker == 0xFF or marker < 0xC0 or 0xD0 <= marker < 0xD8:  # a fill byte; markers without a length
            position = start + (1 if marker == 0xFF else 2)
            continue
        position = start + 2 + struct.unpack_from(">H", data, start + 2)[0]
        if marker == 0xDA:
            header = data[start + 4 : position]
            count = header[0]
            first, last, bits = header[2 * count + 1 : 2 * count + 4]
            found = _END_OF_CODED.search(data, position)
            position = found.start() if found else len(data)
            yield _Scan(tuple(header[1 : 2 * count + 1 : 2]), first, last, bits & 15, position)


def _is_complete(scans: list[_Scan], channels: int, sequential: bool) -> bool:
    """Say whether all components are there, those of a progressive picture with all bits of 64 coefficients (G.1.1.1).

    The standard lets an encoder leave some out; no usual one does, and a file without them is hardly the whole film.
    """
    missing = {component: [1] * 64 for scan in scans for component in scan.components}
    for scan in scans:
        for component in scan.components:
            missing[component][scan.first : scan.last + 1] = [scan.bit] * (scan.last + 1 - scan.first)
    return len(missing) == channels and (sequential or not any(any(bits) for bits in missing.values()))


def _pixels(data: bytes) -> bytes:
    from PIL import Image as Pillow

    with Pillow.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        return picture.tobytes()
