"""Small DICOM films, written by pydicom, as the tests of data sets need them."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid


def write_dicom(path: Path, seed: int = 0, **facts: str) -> Path:
    """Write noise of 72 by 80 pixels, 8 bits; `facts` are attributes such as PatientSex="F"."""
    film = Dataset()
    film.SOPClassUID = DigitalXRayImageStorageForPresentation
    film.SOPInstanceUID = generate_uid(entropy_srcs=[str(path), str(seed)])
    film.Modality = "DX"
    film.Rows, film.Columns = 72, 80
    film.SamplesPerPixel = 1
    film.PhotometricInterpretation = "MONOCHROME2"
    film.BitsAllocated = film.BitsStored = 8
    film.HighBit = 7
    film.PixelRepresentation = 0
    film.PixelData = np.random.default_rng(seed).integers(0, 256, (72, 80), dtype=np.uint8).tobytes()
    for name, value in facts.items():
        setattr(film, name, value)
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    film.save_as(path, enforce_file_format=True)
    return path
