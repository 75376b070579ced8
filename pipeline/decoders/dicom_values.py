"""From stored values to gray: padding, modality, window, polarity (PS3.3, sections C.7.6.3, C.11.1 and C.11.2).

Stored values have at most 16 bits, so that everything is computed once for each possible value, and the picture is
looked up in the result.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.decoders.film import Image, ImageError
from pipeline.quarantine import Reason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

TAGS = (
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
)
PALETTE_TAGS = tuple(
    f"{colour}PaletteColorLookupTable{part}" for colour in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")
)


class Lut(NamedTuple):
    """A lookup table: the stored value of its first entry, the entries, and the value of white."""

    first: int
    entries: NDArray[np.uint16]
    full: int

    def __call__(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """Look values up; those before the first entry take it, those behind the last take that (C.11.1.1)."""
        index = np.clip(np.round(values).astype(np.int64) - self.first, 0, len(self.entries) - 1)
        return self.entries[index]


def gray(stored: NDArray[Any], header: "Dataset", *, signed: bool, inverted: bool) -> Image:
    """Turn the stored values of a MONOCHROME1 or MONOCHROME2 picture into gray.

    Parameters
    ----------
    stored : ndarray of shape (height, width), integers of 8 or 16 bits
        Pixel Data.
    header : Dataset
        The elements named by `TAGS`.
    signed : bool
        Pixel Representation.
    inverted : bool
        MONOCHROME1: the lowest value is white.

    Returns
    -------
    ndarray of shape (height, width), dtype=uint8
        Modality LUT or rescale; then the first VOI LUT, else the first window, else minimum to maximum of the pixels
        that are no padding; then polarity. Padding becomes 0.
    """
    low, high = int(stored.min()), int(stored.max())
    values = np.arange(low, high + 1)
    padding = _padding(values, header, signed=signed)
    kept = values[~padding]
    if padding.any() and kept.size:
        inside = stored[~padding[_index(stored, low)]]
        kept = np.arange(int(inside.min()), int(inside.max()) + 1) if inside.size else kept[:0]
    if not kept.size:
        return np.zeros(stored.shape, np.uint8)
    fraction = _displayed(values, kept, header, signed=signed)
    levels = np.round(255 * fraction).astype(np.uint8)
    if inverted:
        levels = 255 - levels
    levels[padding] = 0
    return np.asarray(levels[_index(stored, low)], np.uint8)


def colours(stored: NDArray[Any], header: "Dataset") -> tuple[NDArray[np.uint16], int]:
    """Look a PALETTE COLOR picture up (PS3.3, section C.7.6.3.1.5); return RGB and the value of white."""
    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    luts = [_lut(header, f"{name}Descriptor", f"{name}Data", signed=False) for name in names]
    if len({lut.full for lut in luts}) != 1:
        raise ImageError(Reason.TRUNCATED, "damaged or truncated (palettes of different depths)")
    return np.dstack([lut(stored) for lut in luts]), luts[0].full


def _index(stored: NDArray[Any], low: int) -> NDArray[Any]:
    """Return `stored - low` as unsigned integers of the same width; the difference always fits."""
    unsigned = stored.view(f"u{stored.dtype.itemsize}")
    return np.asarray(unsigned - unsigned.dtype.type(low % (1 << 8 * stored.dtype.itemsize)))


def _padding(values: NDArray[np.int64], header: "Dataset", *, signed: bool) -> NDArray[np.bool_]:
    """Mark padding values (PS3.3, section C.7.5.1.1.2): one value, or a range with both ends."""
    first = _integer(header, "PixelPaddingValue", signed=signed)
    last = _integer(header, "PixelPaddingRangeLimit", signed=signed)
    if first is None:
        return np.zeros(values.shape, np.bool_)
    last = first if last is None else last
    return (values >= min(first, last)) & (values <= max(first, last))


def _displayed(
    values: NDArray[np.int64], kept: NDArray[np.int64], header: "Dataset", *, signed: bool
) -> NDArray[np.float64]:
    """Return the brightness, 0 to 1, of each value; `kept` are those between the darkest and the brightest pixel."""
    if voi := _first(header, "VOILUTSequence"):
        lut = _lut(voi, "LUTDescriptor", "LUTData", signed=signed)
        return np.minimum(lut(_modality(values, header, signed=signed)) / lut.full, 1.0)
    output = _modality(values, header, signed=signed)
    if (shown := _window(output, header)) is not None:
        return shown
    bounds = _modality(kept, header, signed=signed)
    low, high = float(bounds.min()), float(bounds.max())
    return np.clip((output - low) / ((high - low) or 1.0), 0, 1)


def _modality(values: NDArray[np.int64], header: "Dataset", *, signed: bool) -> NDArray[np.float64]:
    """Apply the Modality LUT or rescale (PS3.3, section C.11.1.1)."""
    if item := _first(header, "ModalityLUTSequence"):
        return _lut(item, "LUTDescriptor", "LUTData", signed=signed)(values).astype(np.float64)
    slope, intercept = _real(header, "RescaleSlope"), _real(header, "RescaleIntercept")
    if slope is None or intercept is None:
        return values.astype(np.float64)
    if slope == 0:
        raise ImageError(Reason.UNSUPPORTED, "Rescale Slope (0028,1053) is 0, which leaves one gray")
    return values.astype(np.float64) * slope + intercept


def _window(values: NDArray[np.float64], header: "Dataset") -> NDArray[np.float64] | None:
    """Apply the first window (PS3.3, section C.11.2.1.2 and .3); None where there is none that can be used."""
    center, width = _real(header, "WindowCenter"), _real(header, "WindowWidth")
    kind = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    if center is None or width is None or width < (1 if kind == "LINEAR" else 1e-9):
        return None
    if kind == "LINEAR":
        if width == 1:
            return (values > center - 0.5).astype(np.float64)
        return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    if kind == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0, 1)
    if kind == "SIGMOID":
        bounded = np.clip(-4 * (values - center) / width, -700, 700)  # exp(710) overflows
        return (1 / (1 + np.exp(bounded))).astype(np.float64)
    return None


def _lut(item: "Dataset", descriptor: str, data: str, *, signed: bool) -> Lut:
    """Read a table (PS3.3, sections C.11.1.1 and C.7.6.3.1.5): number of entries, first value, bits; entries."""
    found = item.get(descriptor)
    raw = item.get(data)
    if not isinstance(found, Sequence) or len(found) != 3 or raw is None:
        raise ImageError(Reason.TRUNCATED, "damaged or truncated (lookup table)")
    count, first, bits = int(found[0]) or 65536, int(found[1]), int(found[2])
    if isinstance(raw, bytes):
        narrow = len(raw) < 2 * count  # entries of 8 bits, packed
        little = item.original_encoding[1] is not False
        entries = np.frombuffer(
            raw[: len(raw) // 2 * 2] if not narrow else raw, "u1" if narrow else "<u2" if little else ">u2"
        )
    else:
        entries = np.atleast_1d(np.asarray(raw, np.int64)).astype(np.uint16)
    if not 8 <= bits <= 16 or len(entries) < count:
        raise ImageError(Reason.TRUNCATED, "damaged or truncated (lookup table)")
    entries = entries[:count].astype(np.uint16)
    full = (1 << bits) - 1 if int(entries.max()) < 1 << bits else 65535
    return Lut(first - 65536 if signed and first > 32767 else first, entries, full)


def _first(header: "Dataset", name: str) -> "Dataset | None":
    sequence = header.get(name)
    return sequence[0] if sequence else None


def _real(header: "Dataset", name: str) -> float | None:
    """Return the first value of a decimal string; None where it is missing, empty or no finite number."""
    try:
        value = header.get(name)
        number = float(value[0] if isinstance(value, Sequence) and not isinstance(value, str) else value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _integer(header: "Dataset", name: str, *, signed: bool) -> int | None:
    value = header.get(name)
    if not isinstance(value, int):
        return None
    return value - 65536 if signed and value > 32767 else value
