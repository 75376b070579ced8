"""The structure of a DICOM file (PS3.10): which elements are read, where the pixels lie, what one frame is.

Only the elements of `TAGS` are ever looked at, none of which says who the patient is. Whatever the parser says of a
damaged file is dropped, because it quotes values.
"""

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pipeline.decoders.film import ImageError
from pipeline.quarantine import Reason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Result = TypeVar("Result")
MAX_HEADER = 16 << 20
"""Bytes before the pixels; a header is some kilobytes, with private data some megabytes."""

_MAX_READS = 200_000  # one to three an element, nested ones included; each element becomes some 600 bytes of memory

DEFLATED = "1.2.840.10008.1.2.1.99"
_IMPLICIT = "1.2.840.10008.1.2"
_EXPLICIT = "1.2.840.10008.1.2.1"
_BIG = "1.2.840.10008.1.2.2"
_PIXELS, _FLOAT, _DOUBLE = 0x7FE00010, 0x7FE00008, 0x7FE00009
_UNDEFINED = 0xFFFFFFFF
_FIRST = {0x0000, 0x0001, 0x0005, 0x0008, 0x0012, 0x0016, 0x0018}  # elements of group 8 that a data set begins with


@dataclass(frozen=True)
class Parsed:
    """The elements that were asked for, and where the pixels are.

    Attributes
    ----------
    header : Dataset
        The elements.
    syntax : str
        Transfer syntax; a deflated file is Explicit VR Little Endian once inflated.
    at, length, vr : int, int, str
        Of the value of Pixel Data, counted from the start of the data set; `at` is 0 where there is none.
    """

    header: "Dataset"
    syntax: str
    at: int
    length: int
    vr: str
    body: Callable[[int, int], bytes]

    def pixel_bytes(self, count: int) -> bytes:
        """Return the first `count` bytes of the pixel data, fewer where the file ends before."""
        return self.body(self.at, min(count, self.length))

    def is_encapsulated(self) -> bool:
        """Say whether the pixel data are a sequence of fragments (PS3.5, section A.4)."""
        return self.length == _UNDEFINED


class _Stream(io.BytesIO):
    """Counts what is read, because a parser makes an object of every eight bytes."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > _MAX_READS:
            raise ImageError(Reason.TOO_LARGE, "too many elements in the DICOM header")
        return super().read(size)


def guarded(call: Callable[[], Result], message: str) -> Result:
    """Call a library on bytes of unknown origin, and replace whatever it raises by `ImageError(message)`.

    The new error is raised outside of the handler: it must not carry the old one, whose words quote the file.
    """
    try:
        return call()
    except ImageError as error:
        failed = error
    except MemoryError:  # the machine's fault, not the file's
        raise
    except Exception:  # parsers raise anything on hostile bytes
        failed = ImageError(Reason.TRUNCATED, message)
    raise failed


def is_dicom(data: bytes) -> bool:
    """Say whether the bytes are a DICOM file, or a data set that lacks the preamble but begins as only one can."""
    if data[128:132] == b"DICM" or data.startswith(b"\x02\x00\x00\x00UL\x04\x00"):
        return True
    if len(data) < 8:
        return False
    for order in "<>":
        group, element, vr, short = struct.unpack_from(f"{order}HH2sH", data)
        if group == 8 and element in _FIRST:
            explicit = vr in (b"UL", b"UI", b"CS", b"DA", b"TM") and short <= 64
            (length,) = struct.unpack_from("<I", data, 4)
            return explicit or (order == "<" and length <= 64 and length % 2 == 0)
    return False


def parse(data: bytes, tags: Collection[str]) -> Parsed:
    """Read the elements named by `tags` (DICOM keywords), up to the pixels.

    Raises
    ------
    ImageError
        If the bytes are no readable DICOM file, or the pixels begin after `MAX_HEADER` bytes.
    """
    return guarded(lambda: _parse(data, tags), "damaged or truncated (DICOM header)")


def _parse(data: bytes, tags: Collection[str]) -> Parsed:
    # Not dcmread: it inflates a deflated file whole, whatever comes out of it.
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset, read_preamble
    from pydicom.uid import UID

    stream = _Stream(data[:MAX_HEADER])
    read_preamble(stream, force=True)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
    body, syntax = _body(data, stream.tell(), str(meta.get("TransferSyntaxUID") or ""))
    head = body(0, MAX_HEADER)
    syntax = syntax or _guess(head)
    found: dict[str, tuple[int, int, str]] = {}
    stream = _Stream(head)

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag in (_FLOAT, _DOUBLE):
            raise ImageError(Reason.UNSUPPORTED, "DICOM with floating-point pixels; integers of 8 or 16 bits are read")
        if tag == _PIXELS:
            found["pixels"] = (stream.tell(), length, vr or "OW")
        return tag >= _PIXELS

    implicit, little = syntax == _IMPLICIT, syntax != _BIG
    wanted = [tag for name in tags if (tag := tag_for_keyword(name)) is not None]
    header = read_dataset(stream, implicit, little, stop_when=at_pixels, specific_tags=list(wanted))
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = UID(syntax)
    header.set_original_encoding(implicit, little)
    if len(head) == MAX_HEADER and not found:
        raise ImageError(
            Reason.TOO_LARGE, f"no pixel data in the first {MAX_HEADER:,} bytes, which is all a header may have"
        )
    return Parsed(header, syntax, *found.get("pixels", (0, 0, "OW")), body)


def _body(data: bytes, start: int, syntax: str) -> tuple[Callable[[int, int], bytes], str]:
    """Return how to read (offset, length) of the data set, and the syntax that it then has."""
    if syntax != DEFLATED:
        return lambda at, length: data[start + at : start + at + length], syntax

    def inflate(at: int, length: int) -> bytes:  # PS3.5, section A.5; bounded, because 1 byte may become 1,000
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:], at + length)[at:]

    return inflate, _EXPLICIT


def _guess(head: bytes) -> str:
    """Tell the encoding of a data set without file meta information from its first element."""
    if head[4:6].isalpha() and head[4:6].isupper():
        return _EXPLICIT if head[1] == 0 else _BIG
    return _IMPLICIT


def frame_of(parsed: Parsed, most: int) -> bytes:
    """Join the fragments of the only frame (PS3.5, section A.4); refuse compressed data of more than `most` bytes."""
    from pydicom.encaps import generate_fragments, parse_basic_offsets

    if not parsed.is_encapsulated():
        raise ImageError(Reason.TRUNCATED, "damaged or truncated (compressed pixel data without fragments)")
    data = parsed.pixel_bytes(most + 1)
    closed = data.rfind(b"\xfe\xff\xdd\xe0")

    def join() -> bytes:
        buffer = io.BytesIO(data)
        parse_basic_offsets(buffer)
        return b"".join(generate_fragments(buffer))

    if len(data) > most and closed < 0:
        raise ImageError(
            Reason.TOO_LARGE, f"compressed pixel data of more than {most:,} bytes, beyond the pixels' own size"
        )
    return guarded(join, "damaged or truncated (DICOM fragments)")


def check_rle(frame: bytes, segments: int, size: int) -> None:
    """Count what the segments of an RLE frame unpack to (PS3.5, section G.3) and refuse more or less than `size` each.

    A byte pair may become 128 bytes, and the decoder unpacks before it counts.
    """
    if len(frame) < 64 or struct.unpack_from("<I", frame)[0] != segments:
        raise ImageError(Reason.TRUNCATED, f"damaged or truncated (RLE; {segments} segments are needed)")
    offsets = [*struct.unpack_from(f"<{segments}I", frame, 4), len(frame)]
    for start, end in itertools.pairwise(offsets):
        if not 64 <= start <= end <= len(frame):
            raise ImageError(Reason.TRUNCATED, "damaged or truncated (RLE offsets)")
        unpacked = 0
        while start < end and unpacked < size:
            code = frame[start]
            unpacked += code + 1 if code < 128 else 257 - code if code > 128 else 0
            start += code + 2 if code < 128 else 2 if code > 128 else 1
        if unpacked != size or start > end:
            raise ImageError(Reason.TRUNCATED, "damaged or truncated (RLE segment)")
