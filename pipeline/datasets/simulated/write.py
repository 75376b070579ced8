"""The files: images and table in the layout of NIH's sample as Kaggle serves it, and boxes in that of the full set."""

import csv
import re
import secrets
import shutil
from functools import partial
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datasets.simulated import tables
from pipeline.datasets.simulated.boxes import find_boxes
from pipeline.datasets.simulated.cohort import SPOILT, VESSELS, Film, Patient, draw_patient, generator
from pipeline.datasets.simulated.dicom_film import dicom_bytes
from pipeline.datasets.simulated.film import expose
from pipeline.datasets.simulated.labels import mined_labels
from pipeline.datasets.simulated.unusable import CODES, Kind, spoil, spoiling
from pipeline.errors import UserError
from pipeline.files import atomic_open
from pipeline.parallel import run_all
from pipeline.params import SimulateParams

Pixels = npt.NDArray[np.uint8]

# Quantum noise repeats nothing, so that to look for repetitions costs time and gains no byte.
_COLOUR_PNG: Final = (cv2.IMWRITE_PNG_COMPRESSION, 1)
_GRAY_PNG: Final = (
    *_COLOUR_PNG,
    cv2.IMWRITE_PNG_STRATEGY,
    cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY,
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_UP,
)
_LEFTOVER: Final = re.compile(r"\.partial-[0-9a-f]{8}")


def render(params: SimulateParams, patient: Patient, film: Film) -> Pixels:
    """Draw one film as it should be; see `pipeline.datasets.simulated.film.expose` for the result.

    The film's generator starts from (seed, patient, film number + 1), that of the vessels from the patient alone.
    """
    tree = generator(params, patient.number, VESSELS)
    own = generator(params, patient.number, film.number + 1)
    return expose(params.size, patient.anatomy, film.signs, film.acquisition, tree, own, film.devices)


def write_tree(params: SimulateParams, out: Path, workers: int | None) -> int:
    """Draw all films into `out`; see `pipeline.datasets.simulated.simulate`."""
    _clear(out)
    staging = out / f".partial-{secrets.token_hex(4)}"
    images = staging / "sample" / "images"
    images.mkdir(parents=True)
    try:
        draw = partial(draw_patient_files, params, images)
        numbers = range(1, params.patients + 1)
        rows = tables.Rows()
        for some in run_all(draw, numbers, "drawing radiographs", workers, 8, "patients"):
            rows += some
        _write_table(staging / "sample" / tables.TABLE, tables.COLUMNS, rows.of[tables.TABLE])
        written = {
            tables.TABLE: tables.COLUMNS,
            tables.BOX_TABLE: tables.BOX_COLUMNS,
            tables.TRUTH_TABLE: tables.TRUTH_COLUMNS,
        }
        written |= {tables.UNUSABLE_TABLE: tables.UNUSABLE_COLUMNS} if params.unusable else {}
        written |= {tables.FOLDER_TABLE: tables.FOLDER_COLUMNS} if params.format == "dicom" else {}
        for name, columns in written.items():
            _write_table(staging / name, columns, rows.of[name])
        # The images last: whatever a killed run leaves, a complete `sample` folder is never missing its tables.
        for name in written:
            (staging / name).rename(out / name)
        (staging / "sample").rename(out / "sample")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return len(rows.of[tables.TABLE])


def _clear(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder that is empty or does not exist")
    found = sorted(out.iterdir()) if out.exists() else []
    ours = [path for path in found if _LEFTOVER.fullmatch(path.name) and path.is_dir() and not path.is_symlink()]
    foreign = [path.name for path in found if path not in ours]
    if foreign:
        raise UserError(f"{out} is not empty (it holds {foreign[0]}); empty it, or give a folder that does not exist")
    for path in ours:
        shutil.rmtree(path)


def draw_patient_files(params: SimulateParams, images: Path, number: int) -> tables.Rows:
    """Write all films of patient `number` to the folder `images`; return their rows of the tables."""
    patient, rows = draw_patient(params, number), tables.Rows()
    for film, labels in zip(patient.films, mined_labels(params, patient), strict=True):
        kind = spoiling(params, film)
        (images / film.name).write_bytes(_file(params, patient, film, kind))
        rows.of[tables.TABLE].append(tables.label_row(patient, film, labels, kind))
        rows.of[tables.TRUTH_TABLE] += tables.truth_rows(film, labels, kind)
        if kind:
            rows.of[tables.UNUSABLE_TABLE].append([film.name, kind, CODES[kind]])
        if kind in (None, "rgba", "inverted"):  # on the others the places are not those of the film
            found = find_boxes(params.size, patient.anatomy, film.signs, film.acquisition)
            rows.of[tables.BOX_TABLE] += [tables.box_row(film, box) for box in found]
        if params.format == "dicom":
            rows.of[tables.FOLDER_TABLE].append(tables.folder_row(patient, film, labels, kind))
    return rows


def _file(params: SimulateParams, patient: Patient, film: Film, kind: Kind | None) -> bytes:
    """Return the bytes of a film's file, spoilt if it has to be."""
    pixels = render(params, patient, film)
    if kind:
        pixels = spoil(pixels, kind, generator(params, patient.number, SPOILT + film.number))
    if params.format == "dicom":
        data = dicom_bytes(params, patient, film, pixels, tables.view_of(film, kind), colour=kind == "rgba")
    else:
        data = png_bytes(cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGRA) if kind == "rgba" else pixels)
    return data[: len(data) * 2 // 3] if kind == "truncated" else data


def png_bytes(pixels: npt.NDArray[Any]) -> bytes:
    """Encode gray or BGRA pixels of 8 bits; in memory, because cv2.imwrite cannot open non-ASCII names on Windows."""
    done, data = cv2.imencode(".png", pixels, _GRAY_PNG if pixels.ndim == 2 else _COLOUR_PNG)
    assert done
    return data.tobytes()


def _write_table(path: Path, columns: tuple[str, ...], rows: list[list[str]]) -> None:
    with atomic_open(path) as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)
