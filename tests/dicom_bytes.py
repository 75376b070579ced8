"""DICOM files written byte for byte (PS3.5, section 7.1), so that no library has a hand in what the tests expect."""

import struct
from collections.abc import Mapping

import numpy as np

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
CR = "1.2.840.10008.5.1.4.1.1.1"  # Computed Radiography Image Storage

Value = str | int | float | bytes | list[int] | list[Mapping[int, "Element"]]
Element = tuple[str, Value]

PIXEL_DATA = 0x7FE00010
_LONG = {"OB", "OW", "OF", "OD", "SQ", "UN", "UT"}


def element(tag: int, vr: str, value: Value, order: str = "<", *, implicit: bool = False) -> bytes:
    """Return one data element; a list of mappings is a sequence, of undefined length."""
    group, number = tag >> 16, tag & 0xFFFF
    undefined = False
    if vr == "SQ":
        assert isinstance(value, list)
        items = [dataset(item, order, implicit=implicit) for item in value if isinstance(item, Mapping)]
        marks = struct.Struct(f"{order}HHI")
        content = b"".join(marks.pack(0xFFFE, 0xE000, len(item)) + item for item in items)
        content += marks.pack(0xFFFE, 0xE0DD, 0)
        undefined = True
    elif isinstance(value, bytes):
        content = value
    elif vr in ("US", "SS"):
        numbers = value if isinstance(value, list) else [value]
        content = struct.pack(f"{order}{len(numbers)}{'H' if vr == 'US' else 'h'}", *numbers)
    else:
        content = str(value).encode("latin-1")
    content += b"" if len(content) % 2 == 0 else b"\0" if vr in ("UI", "OB", "OW") else b" "
    length = 0xFFFFFFFF if undefined else len(content)
    if implicit:
        return struct.pack(f"{order}HHI", group, number, length) + content
    if vr in _LONG:
        return struct.pack(f"{order}HH2s2xI", group, number, vr.encode(), length) + content
    return struct.pack(f"{order}HH2sH", group, number, vr.encode(), length) + content


def dataset(elements: Mapping[int, Element], order: str = "<", *, implicit: bool = False) -> bytes:
    """Return the elements in the order of their tags."""
    return b"".join(element(tag, vr, value, order, implicit=implicit) for tag, (vr, value) in sorted(elements.items()))


def wrap(body: bytes, syntax: str = EXPLICIT) -> bytes:
    """Put preamble and file meta information before a data set (PS3.10, section 7.1)."""
    meta = element(0x00020010, "UI", syntax)
    return bytes(128) + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta + body


def image(pixels: np.ndarray, bits: int | None = None, **extra: Element) -> dict[int, Element]:
    """Return the elements of a MONOCHROME2 film; `extra` are others, as `t00281050=("DS", "40")`."""
    allocated = 8 * pixels.dtype.itemsize
    bits = bits or allocated
    elements: dict[int, Element] = {
        0x00080016: ("UI", CR),
        0x00280002: ("US", 1),
        0x00280004: ("CS", "MONOCHROME2"),
        0x00280010: ("US", pixels.shape[0]),
        0x00280011: ("US", pixels.shape[1]),
        0x00280100: ("US", allocated),
        0x00280101: ("US", bits),
        0x00280102: ("US", bits - 1),
        0x00280103: ("US", int(pixels.dtype.kind == "i")),
        PIXEL_DATA: ("OW", pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()),
    }
    return elements | {int(name[1:], 16): value for name, value in extra.items()}


def film(pixels: np.ndarray, bits: int | None = None, **extra: Element) -> bytes:
    """Return a whole file, explicit VR little endian; see `image`."""
    return wrap(dataset(image(pixels, bits, **extra)))


def encapsulated(elements: Mapping[int, Element], frame: bytes, syntax: str) -> bytes:
    """Return a file with a compressed frame in one fragment (PS3.5, section A.4)."""
    frame += b"\0" * (len(frame) % 2)
    body = dataset({tag: value for tag, value in elements.items() if tag != PIXEL_DATA})
    item = struct.Struct("<HHI")
    pixels = struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF) + item.pack(0xFFFE, 0xE000, 0)
    return wrap(body + pixels + item.pack(0xFFFE, 0xE000, len(frame)) + frame + item.pack(0xFFFE, 0xE0DD, 0), syntax)
