"""The one frame of a DICOM file, from bytes to stored values: which library decodes which transfer syntax."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.decoders import gdcm_worker, jpeg_end
from pipeline.decoders.codestreams import jpeg2000_frame, jpeg_frame
from pipeline.decoders.dicom_file import Parsed, check_rle, frame_of, guarded
from pipeline.decoders.film import ImageError
from pipeline.quarantine import Reason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_EXPLICIT = "1.2.840.10008.1.2.1"
_NATIVE = {"1.2.840.10008.1.2", _EXPLICIT, "1.2.840.10008.1.2.2"}
_RLE = "1.2.840.10008.1.2.5"
_EXTENDED = "1.2.840.10008.1.2.4.51"
# Which library decodes what (PS3.6, table A-1). The first of those that can, by how they take damaged data: Pillow's
# libjpeg, CharLS and OpenJPEG survive it; GDCM, the only one with lossless and 12-bit JPEG, aborts.
_PLUGINS = {
    _RLE: "pydicom",
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG baseline
    _EXTENDED: "pillow",
    "1.2.840.10008.1.2.4.57": "gdcm",  # JPEG lossless
    "1.2.840.10008.1.2.4.70": "gdcm",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": "pyjpegls",  # JPEG-LS lossless
    "1.2.840.10008.1.2.4.81": "pyjpegls",  # JPEG-LS near-lossless
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91": "pylibjpeg",  # JPEG 2000
}
_JPEG_2000 = {"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"}


@dataclass(frozen=True)
class Layout:
    """What the header says of the pixels, checked: sizes, samples a pixel, bits, sign, photometric interpretation."""

    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    signed: bool
    photometric: str

    def defaults(self) -> dict[str, int]:
        """Return the elements that a file may leave out although the decoders need them."""
        signed = int(self.signed)
        return {"SamplesPerPixel": self.samples, "BitsStored": self.stored, "PixelRepresentation": signed}

    def size(self) -> int:
        """Return the bytes of the uncompressed frame (PS3.5, section 8.1.1; YBR_FULL_422: PS3.3, C.7.6.3.1.2)."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.rows * self.columns * samples * self.allocated // 8


def read_frame(parsed: Parsed, layout: Layout) -> NDArray[Any]:
    """Return the stored values, shape (rows, columns) or, as RGB, (rows, columns, 3)."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder

    header = parsed.header
    if parsed.syntax in _NATIVE:
        frame, plugin = parsed.pixel_bytes(layout.size()), ""
        pixels = frame + b"\0" * (len(frame) % 2)
        if len(frame) < layout.size() or parsed.is_encapsulated():
            raise ImageError(Reason.TRUNCATED, "damaged or truncated (pixel data shorter than announced)")
    elif parsed.syntax in _PLUGINS:
        frame, plugin = frame_of(parsed, 2 * layout.size() + (1 << 16)), _PLUGINS[parsed.syntax]
        _check_frame(frame, parsed.syntax, layout)
        if plugin == "gdcm" or _has_twelve_bits(frame, parsed.syntax, layout):
            pixels, plugin = _by_gdcm(frame, header, parsed.syntax, layout), ""
        else:
            pixels = encapsulate([frame], has_bot=False)
    else:
        raise ImageError(Reason.UNSUPPORTED, _unknown_syntax(parsed.syntax))

    def read() -> NDArray[Any]:
        for name, value in layout.defaults().items():
            setattr(header, name, value)
        header.add_new(0x7FE00010, "OB" if plugin else parsed.vr if parsed.syntax in _NATIVE else "OW", pixels)
        values, _ = get_decoder(header.file_meta.TransferSyntaxUID).as_array(header, index=0, decoding_plugin=plugin)
        return values

    values = guarded(read, "damaged or truncated (pixel data)")
    if plugin == "pillow":
        whole = partial(jpeg_end.require_whole, frame, values, jpeg_frame(frame).marker)
        guarded(whole, "damaged or truncated (pixel data)")
    shape = (layout.rows, layout.columns, 3)[: 2 + (layout.samples == 3)]
    if values.shape != shape or values.dtype.kind not in "ui" or values.dtype.itemsize > 2:
        raise ImageError(Reason.TRUNCATED, "damaged or truncated (pixel data of another size than announced)")
    return np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="), copy=False))


def _check_frame(frame: bytes, syntax: str, layout: Layout) -> None:
    """Compare what the compressed frame announces with the header, so that no decoder makes more room than that."""
    if syntax == _RLE:
        check_rle(frame, layout.samples * layout.allocated // 8, layout.rows * layout.columns)
        return
    found = jpeg2000_frame(frame) if syntax in _JPEG_2000 else jpeg_frame(frame)
    if (found.width, found.height, found.components) != (layout.columns, layout.rows, layout.samples):
        raise ImageError(Reason.TRUNCATED, "damaged: the compressed picture has another size than the header announces")
    if found.precision > layout.allocated:
        raise ImageError(Reason.TRUNCATED, "damaged: the compressed picture has more bits than the header announces")
    if found.precision > 8 and _PLUGINS[syntax] == "pillow" and not _has_twelve_bits(frame, syntax, layout):
        raise ImageError(Reason.UNSUPPORTED, "this kind of JPEG with more than 8 bits a sample is not read")


def _has_twelve_bits(frame: bytes, syntax: str, layout: Layout) -> bool:
    monochrome = layout.samples == 1 and layout.allocated == 16 and not layout.signed
    return syntax == _EXTENDED and monochrome and jpeg_frame(frame).precision == 12


def _by_gdcm(frame: bytes, header: "Dataset", syntax: str, layout: Layout) -> bytes:
    """Decode lossless and 12-bit JPEG in another process, and make the header that of the uncompressed samples."""
    shape = (layout.rows, layout.columns, layout.samples)
    raw = gdcm_worker.decode(frame, syntax, shape, (layout.allocated, layout.stored, int(layout.signed)))
    header.file_meta.TransferSyntaxUID = header.file_meta.TransferSyntaxUID.__class__(_EXPLICIT)
    header.PlanarConfiguration = 0
    if layout.photometric == "YBR_FULL_422":  # GDCM has filled up the samples that were left out
        header.PhotometricInterpretation = "YBR_FULL"
    return raw + b"\0" * (len(raw) % 2)


def _unknown_syntax(syntax: str) -> str:
    from pydicom.uid import UID

    name = UID(syntax).name
    return f"the transfer syntax {name if name != syntax else '(of no known name)'} is not read; see docs/images.md"
