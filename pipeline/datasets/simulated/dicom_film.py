"""A film as a DICOM file: a digital X-ray image for presentation, 12 bits in 16, the same bytes every time."""

import dataclasses
import hashlib
import io
import uuid
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from pipeline.datasets.simulated.cohort import FILE, Film, Patient, generator
from pipeline.params import SimulateParams

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileMetaDataset

INVERTED_SHARE: Final = 0.25
"""Of the files that are MONOCHROME1, where the lowest value is white."""

_WHITE: Final = 4095
_DX: Final = "1.2.840.10008.5.1.4.1.1.1.1"  # Digital X-Ray Image Storage - For Presentation (PS3.6)
_EXPLICIT: Final = "1.2.840.10008.1.2.1"  # Explicit VR Little Endian
_NAMESPACE: Final = uuid.UUID("5b1d9a4e-6f43-5b0c-9a38-0d2f6b8f7c21")


def dicom_bytes(
    params: SimulateParams,
    patient: Patient,
    film: Film,
    pixels: npt.NDArray[np.uint8],
    view: str,
    *,
    colour: bool = False,
) -> bytes:
    """Write a film as DICOM.

    Parameters
    ----------
    params : SimulateParams
        All but `patients`; they go into the identifiers.
    patient, film : Patient, Film
        Whose film it is.
    pixels : ndarray of uint8, shape (size, size)
        0 is black.
    view : str
        View Position.
    colour : bool
        As RGB of 8 bits with equal channels instead.

    Returns
    -------
    bytes
        The file. A gray value g becomes round(4095 g / 255) (or 4095 minus that, in MONOCHROME1), and the window holds
        all of 0 to 4095, so that a reader gets g back. No date of today; identifiers are UUIDs made from the
        parameters under the root 2.25 (PS3.5, section B.2; RFC 9562, section 5.5).
    """
    from pydicom.dataset import Dataset

    data = Dataset()
    _say_whose(data, patient, film, view)
    _say_which(data, params, film)
    if colour:
        _store_colour(data, pixels)
    else:
        _store_gray(data, pixels, inverted=_is_inverted(params, film))
    spacing = f"{film.columns * film.spacing / len(pixels):.8g}"  # of these pixels, not of the detector's
    data.ImagerPixelSpacing = data.PixelSpacing = [spacing, spacing]
    data.file_meta = _meta(data)
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _is_inverted(params: SimulateParams, film: Film) -> bool:
    return bool(generator(params, film.patient, FILE + film.number).random() < INVERTED_SHARE)


def _say_whose(data: "Dataset", patient: Patient, film: Film, view: str) -> None:
    data.PatientName = f"Simulated^{patient.number:08d}"
    data.PatientID = f"{patient.number:08d}"
    data.PatientSex = patient.anatomy.sex
    data.PatientAge = f"{film.age:03d}Y"
    data.PatientBirthDate = data.StudyDate = data.StudyTime = data.AccessionNumber = data.ReferringPhysicianName = ""
    data.Modality, data.BodyPartExamined, data.ViewPosition = "DX", "CHEST", view
    data.PatientOrientation = ["L", "F"] if view != "LL" else ["A", "F"]
    data.BurnedInAnnotation = "NO"


def _say_which(data: "Dataset", params: SimulateParams, film: Film) -> None:
    settings = dataclasses.asdict(dataclasses.replace(params, patients=3))  # their number changes no film
    digest = hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()

    def identifier(level: str) -> str:
        return f"2.25.{uuid.uuid5(_NAMESPACE, f'{digest}/{film.patient}/{film.number}/{level}').int}"

    data.SOPClassUID, data.SOPInstanceUID = _DX, identifier("image")
    data.StudyInstanceUID, data.SeriesInstanceUID = identifier("study"), identifier("series")
    data.StudyID, data.SeriesNumber, data.InstanceNumber = str(film.number), 1, 1
    data.ImageType = ["DERIVED", "PRIMARY"]
    data.Manufacturer = "simulated"


def _store_gray(data: "Dataset", pixels: npt.NDArray[np.uint8], *, inverted: bool) -> None:
    stored = np.round(pixels * (_WHITE / 255)).astype("<u2")
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    data.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    _store(data, _WHITE - stored if inverted else stored, allocated=16, bits=12)
    # PS3.3, section C.11.2.1.2.1 (LINEAR): black at centre - 0.5 - (width - 1) / 2, which is 0 here; white at 4095.
    data.WindowCenter, data.WindowWidth = (_WHITE + 1) // 2, _WHITE + 1
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = 0, 1, "US"


def _store_colour(data: "Dataset", pixels: npt.NDArray[np.uint8]) -> None:
    data.PhotometricInterpretation, data.PlanarConfiguration = "RGB", 0
    _store(data, np.dstack([pixels] * 3), allocated=8, bits=8)


def _store(data: "Dataset", stored: npt.NDArray[np.generic], *, allocated: int, bits: int) -> None:
    data.Rows, data.Columns = stored.shape[:2]
    data.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = allocated, bits, bits - 1, 0
    content = np.ascontiguousarray(stored).tobytes()
    data.PixelData = content + b"\0" * (len(content) % 2)
    data["PixelData"].VR = "OW" if allocated == 16 else "OB"


def _meta(data: "Dataset") -> "FileMetaDataset":
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.TransferSyntaxUID = UID(_EXPLICIT)
    meta.ImplementationClassUID = UID(f"2.25.{_NAMESPACE.int}")
    meta.ImplementationVersionName = "CXR"  # pydicom would write its own version
    return meta
