"""DICOM files: the film, and the three facts that a data set's adapter may want.

Nothing that identifies a patient is read. docs/images.md says what is accepted and how it becomes gray.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from pipeline.decoders import dicom_values
from pipeline.decoders.dicom_file import MAX_HEADER, Parsed, guarded, is_dicom, parse
from pipeline.decoders.dicom_frame import Layout, read_frame
from pipeline.decoders.film import Film, ImageError, check_size, gray_film, silence
from pipeline.quarantine import Reason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Facts", "decode", "is_dicom", "read_facts"]

_TAGS = (
    "SOPClassUID",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "BurnedInAnnotation",
    *dicom_values.TAGS,
    *dicom_values.PALETTE_TAGS,
)
_MONOCHROME = {"MONOCHROME1", "MONOCHROME2"}
_COLOURS = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
_VIEWS = {"PA": "PA", "AP": "AP", "LL": "L", "RL": "L", "LAT": "L", "LATERAL": "L"}
_OTHER_VIEWS = {"RLD", "LLD", "RLO", "LLO"}  # the rest of PS3.3, section C.8.1.1
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


@dataclass(frozen=True)
class Facts:
    """What a file says of the examination, in the words of the manifest.

    Attributes
    ----------
    view : str
        PA, AP or L (left or right lateral); empty: unknown or another.
    sex : str
        F or M; empty: unknown or other.
    age : float
        Years; NaN: unknown.
    unknown : tuple of str
        Of what class the words are that were there and are none of these; never the words themselves.
    """

    view: str = ""
    sex: str = ""
    age: float = math.nan
    unknown: tuple[str, ...] = ()


def read_facts(path: Path) -> Facts:
    """Read View Position (0018,5101), Patient's Sex (0010,0040) and Patient's Age (0010,1010), and nothing else.

    Raises
    ------
    ImageError
        If the file cannot be read or is no DICOM file.
    """
    try:
        with path.open("rb") as handle:
            data = handle.read(MAX_HEADER)
    except OSError as error:
        raise ImageError(Reason.UNREADABLE, f"cannot be read ({error.strerror})") from None
    if not is_dicom(data):
        raise ImageError(Reason.UNREADABLE, "no DICOM file")
    with silence():
        header = parse(data, ("ViewPosition", "PatientSex", "PatientAge")).header
        view, sex, age = (_word(header, name) for name in ("ViewPosition", "PatientSex", "PatientAge"))
    return Facts(_VIEWS.get(view, ""), sex if sex in ("F", "M") else "", _years(age), _unknown(view, sex))


def _unknown(view: str, sex: str) -> tuple[str, ...]:
    """Name the class of each word that the manifest has no word for; a field may hold anything, a name included."""
    found = []
    if view and view not in _VIEWS:
        kind = "a decubitus or an oblique one" if view in _OTHER_VIEWS else "no term of DICOM"
        found.append(f"view position in the header is {kind}: unknown")
    if sex not in ("", "F", "M"):
        found.append(f"sex in the header is {'O (other)' if sex == 'O' else 'no term of DICOM'}: unknown")
    return tuple(found)


def _years(age: str) -> float:
    """Convert an Age String (PS3.5, section 6.2, AS): three digits and D, W, M or Y; RSNA writes 62 for 062Y.

    000Y is an infant of 0 years, not an unknown age.
    """
    match = re.fullmatch(r"([0-9]{1,3})([DWMY]?)", age)
    return int(match[1]) * _YEARS[match[2] or "Y"] if match else math.nan


def decode(data: bytes, max_pixels: int) -> Film:
    """Decode a DICOM file of one frame.

    Parameters
    ----------
    data : bytes
        The whole file.
    max_pixels : int
        Bound on Rows x Columns, checked before anything is decoded.

    Raises
    ------
    ImageError
        If it holds no picture, several, one of a kind that is not read, or a damaged one.
    """
    with silence():
        parsed = parse(data, _TAGS)
        layout = guarded(lambda: _layout(parsed, max_pixels), "damaged or truncated (DICOM header)")
        stored = read_frame(parsed, layout)
        film = guarded(lambda: _film(stored, parsed.header, layout), "damaged or truncated (DICOM display values)")
        burnt = _word(parsed.header, "BurnedInAnnotation") == "YES"
    note = (Reason.BURNT_IN, "Burned In Annotation (0028,0301) is YES: the pixels may show text that names the patient")
    return Film(film.pixels, (*film.notes, note) if burnt else film.notes)


def _film(stored: NDArray[Any], header: "Dataset", layout: Layout) -> Film:
    if layout.photometric in _MONOCHROME:
        inverted = layout.photometric == "MONOCHROME1"
        return Film(dicom_values.gray(stored, header, signed=layout.signed, inverted=inverted))
    if layout.photometric == "PALETTE COLOR":
        return gray_film(*dicom_values.colours(stored, header))
    return gray_film(stored, (1 << layout.stored) - 1)


def _layout(parsed: Parsed, max_pixels: int) -> Layout:
    header = parsed.header
    _check_class(header)
    if not parsed.at:
        raise ImageError(Reason.UNSUPPORTED, "a DICOM file without pixel data")
    frames = _number(header, "NumberOfFrames", 1)
    if frames != 1:
        raise ImageError(Reason.UNSUPPORTED, f"a DICOM file of {frames} frames; one film a file is read")
    rows, columns = _number(header, "Rows"), _number(header, "Columns")
    check_size(columns, rows, max_pixels)
    photometric = _word(header, "PhotometricInterpretation")
    if photometric not in {*_MONOCHROME, *_COLOURS, "PALETTE COLOR"}:
        allowed = ", ".join([*sorted(_MONOCHROME), "PALETTE COLOR", *sorted(_COLOURS)])
        raise ImageError(
            Reason.UNSUPPORTED, f"this Photometric Interpretation (0028,0004) is not read; allowed: {allowed}"
        )
    samples = _number(header, "SamplesPerPixel", 1, allowed={3 if photometric in _COLOURS else 1})
    allocated = _number(header, "BitsAllocated", allowed={8, 16})
    stored = _number(header, "BitsStored", allocated, allowed=set(range(1, allocated + 1)))
    _number(header, "HighBit", stored - 1, allowed={stored - 1})
    signed = _number(header, "PixelRepresentation", 0, allowed={0} if photometric not in _MONOCHROME else {0, 1})
    _number(header, "PlanarConfiguration", 0, allowed={0, 1})
    return Layout(rows, columns, samples, allocated, stored, bool(signed), photometric)


def _check_class(header: "Dataset") -> None:
    from pydicom.uid import UID

    uid = UID(_word(header, "SOPClassUID"))
    if uid and uid.name != uid and "Image Storage" not in uid.name:  # a name is of PS3.6, never of the file
        raise ImageError(Reason.UNSUPPORTED, f"a DICOM object of another kind ({uid.name}); images are read")


def _word(header: "Dataset", name: str) -> str:
    """Return a code string in capitals; empty where it is missing or several."""
    value = guarded(lambda: header.get(name), f"damaged or truncated ({name})")
    return value.strip().upper() if isinstance(value, str) else ""


def _number(header: "Dataset", name: str, default: int | None = None, allowed: set[int] | None = None) -> int:
    value = header.get(name)
    value = default if value is None else value
    if not isinstance(value, int):
        raise ImageError(Reason.TRUNCATED, f"damaged or truncated ({name} is missing or no number)")
    if allowed is not None and value not in allowed:
        words = ", ".join(map(str, sorted(allowed))) if len(allowed) < 4 else f"{min(allowed)} to {max(allowed)}"
        raise ImageError(Reason.UNSUPPORTED, f"{name} is {int(value)}; allowed here: {words}")
    return int(value)
