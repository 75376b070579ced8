"""The directory of a TIFF file (Adobe, TIFF Revision 6.0, 1992, section 2), checked before a library reads it.

EXIF is the same structure inside a JPEG or PNG file (CIPA DC-008, section 4.5), so that its orientation is read here.
"""

import struct
from collections.abc import Collection
from dataclasses import dataclass

from pipeline.decoders.film import ImageError, check_size
from pipeline.quarantine import Reason

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes of each field type
_MAX_FIELDS = 16 << 20
_NESTED = {34665, 34853, 40965}  # EXIF, GPS and interoperability directories, which Pillow reads too
_ORIENTATION = 274
_COMPRESSIONS = {1: "none", 5: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits"}
_PHOTOMETRIC = 262
_SPACES = {0, 1, 2, 3}  # MinIsWhite, MinIsBlack, RGB, palette


@dataclass(frozen=True)
class Layout:
    """What the header says of the samples: bits of each, their number a pixel, and whether 0 is white."""

    bits: int
    samples: int
    min_is_white: bool


def min_is_black(data: bytes) -> bytes:
    """Return the file with MinIsBlack in the place of MinIsWhite, for a library that knows only that."""
    order = "<" if data[:2] == b"II" else ">"
    start = struct.unpack_from(f"{order}I", data, 4)[0] + 2
    (count,) = struct.unpack_from(f"{order}H", data, start - 2)
    changed = bytearray(data)
    for position in range(start, start + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", data, position)
        if tag == _PHOTOMETRIC:
            struct.pack_into(f"{order}{'H' if kind == 3 else 'I'}", changed, position + 8, 1)
    return bytes(changed)


def check(data: bytes, max_pixels: int) -> Layout:
    """Check the only page of a TIFF file.

    Raises
    ------
    ImageError
        If it is damaged, has several pages, a compression, colour space or sample format that is not read, or
        announces more than `max_pixels` pixels, in the picture or in a tile.
    """
    if data[2:4] in (b"\x2b\x00", b"\x00\x2b"):
        raise ImageError(Reason.UNSUPPORTED, "a BigTIFF file; plain TIFF, PNG, JPEG and DICOM are read")
    directory = _Directory(data)
    fields, following = directory.read(struct.unpack_from(f"{directory.order}I", data, 4)[0])
    for tag in _NESTED & fields.keys():
        directory.read_nested(fields[tag][0])
    if following:
        raise ImageError(Reason.UNSUPPORTED, "a TIFF file of several pages; one film a file is read")

    def number(tag: int, default: int | None = None) -> int:
        values = fields.get(tag) or (() if default is None else (default,))
        if not values:
            raise ImageError(Reason.TRUNCATED, f"damaged or truncated (TIFF field {tag} is missing)")
        return values[0]

    check_size(number(256), number(257), max_pixels)
    if 322 in fields:
        check_size(number(322), number(323), max(max_pixels, 4096 * 4096))
    samples, bits = number(277, 1), set(fields.get(258) or (1,))
    _allow("compression", number(259, 1), _COMPRESSIONS.keys(), ", ".join(dict.fromkeys(_COMPRESSIONS.values())))
    _allow("colour space", number(_PHOTOMETRIC), _SPACES, "gray, RGB and palette")
    _allow("sample format", max(fields.get(339) or (1,)), {1}, "unsigned integers")
    if len(bits) != 1 or not 1 <= samples <= 4:
        raise ImageError(Reason.UNSUPPORTED, f"TIFF of {samples} samples of {sorted(bits)} bits; 1 to 4 of equal depth")
    _allow("depth", min(bits), {1, 2, 4, 8, 12, 16}, "1, 2, 4, 8, 12 and 16 bits a sample")
    return Layout(min(bits), samples, number(_PHOTOMETRIC) == 0)


def orientation(exif: bytes) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (as stored) where the block is absent, damaged or says nothing valid."""
    block = exif.removeprefix(b"Exif\0\0")
    if len(block) < 8 or block[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    try:
        directory = _Directory(block)
        fields, _ = directory.read(struct.unpack_from(f"{directory.order}I", block, 4)[0])
    except ImageError:
        return 1
    found = (fields.get(_ORIENTATION) or (1,))[0]
    return found if 1 <= found <= 8 else 1


def _allow(what: str, found: int, allowed: Collection[int], words: str) -> None:
    if found not in allowed:
        raise ImageError(Reason.UNSUPPORTED, f"TIFF {what} {found} is not read; allowed: {words}")


class _Directory:
    """Reads directories of one file, and bounds what all their fields together make a library read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = "<" if data[:2] == b"II" else ">"
        self.left = _MAX_FIELDS
        if len(data) < 8:
            raise _damaged("header")

    def read(self, offset: int) -> tuple[dict[int, tuple[int, ...]], int]:
        """Return the whole numbers of the directory at `offset`, by tag, and the offset of the next directory."""
        if offset < 8 or offset + 2 > len(self.data):
            raise _damaged("offset of the directory")
        (count,) = struct.unpack_from(f"{self.order}H", self.data, offset)
        end = offset + 2 + 12 * count
        if count == 0 or end > len(self.data):
            raise _damaged("directory")
        fields: dict[int, tuple[int, ...]] = {}
        for position in range(offset + 2, end, 12):
            tag, values = self._field(position)
            if tag in fields:
                raise _damaged(f"field {tag} stands twice")  # libraries disagree on which one counts
            fields[tag] = values
        tail = self.data[end : end + 4]
        return fields, struct.unpack(f"{self.order}I", tail)[0] if len(tail) == 4 else 0

    def read_nested(self, offset: int, depth: int = 0) -> None:
        fields, _ = self.read(offset)
        for tag in _NESTED & fields.keys():
            if depth > 1:
                raise _damaged("nested directories")
            self.read_nested((fields[tag] or (0,))[0], depth + 1)

    def _field(self, position: int) -> tuple[int, tuple[int, ...]]:
        tag, kind, count = struct.unpack_from(f"{self.order}HHI", self.data, position)
        size = _SIZES.get(kind, 0) * count
        if size > 4:
            (start,) = struct.unpack_from(f"{self.order}I", self.data, position + 8)
            if start + size > len(self.data):
                raise _damaged(f"field {tag} lies beyond the end")
            self.left -= size
            if self.left < 0:
                raise ImageError(Reason.TOO_LARGE, f"fields of more than the allowed {_MAX_FIELDS:,} bytes")
        else:
            start = position + 8
        letter = {1: "B", 3: "H", 4: "I", 13: "I"}.get(kind)
        # A few values are all that is looked at; strip offsets may be many.
        return tag, struct.unpack_from(f"{self.order}{min(count, 8)}{letter}", self.data, start) if letter else ()


def _damaged(what: str) -> ImageError:
    return ImageError(Reason.TRUNCATED, f"damaged or truncated (TIFF: {what})")
