"""What compressed pictures announce about themselves, read before a decoder written in C sees them."""

import struct
from dataclasses import dataclass

from pipeline.decoders.film import ImageError
from pipeline.quarantine import Reason

_MAX_SCANS = 200
_STANDALONE = {0x00, 0x01, *range(0xD0, 0xD8)}  # no length follows: TEM, RSTn (ITU-T T.81, table B.1); libjpeg skips 0
_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start of frame, but not DHT, JPG and DAC
_SOC_SIZ = b"\xff\x4f\xff\x51"  # ITU-T T.800, section A.4
_SOF_JPEG_LS = 0xF7  # ITU-T T.87, table C.1


@dataclass(frozen=True)
class Frame:
    """Width and height in pixels, bits a sample, and samples a pixel; the second byte of a JPEG's frame marker."""

    width: int
    height: int
    precision: int
    components: int
    marker: int = 0


def jpeg_frame(data: bytes) -> Frame:
    """Read the frame header of a JPEG (ITU-T T.81, section B.2.2) or JPEG-LS (ITU-T T.87, section C.2.2) stream.

    Raises
    ------
    ImageError
        If there is none; if several scans or EXIF blocks are stacked as no camera or archive does: a decoder spends
        a whole picture's time on each scan, and Pillow reads the blocks once for each entry they announce.
    """
    position, exif = 2, 0
    while (start := data.find(b"\xff", position)) >= 0 and start + 4 <= len(data):
        marker = data[start + 1]
        if marker in _STANDALONE or marker == 0xFF:
            position = start + (1 if marker == 0xFF else 2)
            continue
        (length,) = struct.unpack_from(">H", data, start + 2)
        if marker in _SOF or marker == _SOF_JPEG_LS:
            return _jpeg_frame(data, start)
        exif += marker == 0xE1 and data[start + 4 : start + 8] == b"Exif"
        if marker in (0xD9, 0xDA) or length < 2:  # end of image or start of scan: no frame header came before
            break
        if exif > 1:
            raise ImageError(Reason.UNSUPPORTED, "holds several EXIF blocks; at most one is allowed")
        position = start + 2 + length
    raise ImageError(Reason.TRUNCATED, "damaged or truncated (no JPEG frame header)")


def _jpeg_frame(data: bytes, start: int) -> Frame:
    if start + 10 > len(data):
        raise ImageError(Reason.TRUNCATED, "damaged or truncated (no JPEG frame header)")
    # In coded data 0xFF is followed by 0, so that this counts scans, and thumbnails in the application's segments.
    if data.count(b"\xff\xda") > _MAX_SCANS:
        raise ImageError(Reason.UNSUPPORTED, f"a JPEG of more than {_MAX_SCANS} scans; progressive ones have about ten")
    precision, height, width, components = struct.unpack_from(">BHHB", data, start + 4)
    return Frame(width, height, precision, components, data[start + 1])


def _jpeg2000_start(data: bytes) -> int:
    """Return where the codestream starts: at 0, or in the first jp2c box of a JP2 file (ITU-T T.800, section I.4)."""
    position = 0
    while not data.startswith(_SOC_SIZ) and position + 16 <= len(data):
        length, kind, large = struct.unpack_from(">I4sQ", data, position)
        if kind == b"jp2c":
            return position + (16 if length == 1 else 8)
        length = large if length == 1 else length
        if length < 8:  # a last box of unknown length, or no box at all
            break
        position += length
    return 0


def jpeg2000_frame(data: bytes) -> Frame:
    """Read the SIZ segment of a JPEG 2000 codestream (ITU-T T.800, section A.5.1), also inside a JP2 file.

    Raises
    ------
    ImageError
        If there is none, if components differ in size or depth, or for more than 65,535 tiles.
    """
    start = _jpeg2000_start(data)
    if data[start : start + 4] != _SOC_SIZ or start + 45 > len(data):
        raise ImageError(Reason.TRUNCATED, "damaged or truncated (no JPEG 2000 header)")
    right, bottom, left, top, tile_w, tile_h, tile_x, tile_y, components = struct.unpack_from(">8IH", data, start + 8)
    parts = data[start + 42 : start + 42 + 3 * components]
    if len(parts) < 3 * components or len({parts[i : i + 3] for i in range(0, len(parts), 3)}) != 1:
        raise ImageError(Reason.UNSUPPORTED, "JPEG 2000 components of different sizes or depths")
    if 0 in (tile_w, tile_h, parts[1], parts[2]) or right <= max(left, tile_x) or bottom <= max(top, tile_y):
        raise ImageError(Reason.TRUNCATED, "damaged or truncated (JPEG 2000 header)")
    if -(-(right - tile_x) // tile_w) * -(-(bottom - tile_y) // tile_h) > 65_535:
        raise ImageError(Reason.UNSUPPORTED, "JPEG 2000 of more than 65,535 tiles, which the standard forbids")
    width, height = -(-right // parts[1]) - -(-left // parts[1]), -(-bottom // parts[2]) - -(-top // parts[2])
    return Frame(width, height, (parts[0] & 0x7F) + 1, components)
