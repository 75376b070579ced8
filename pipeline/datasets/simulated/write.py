"""The files: images and table in the layout of NIH's sample as Kaggle serves it, and boxes in that of the full set."""

import csv
import re
import secrets
import shutil
from functools import partial
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datasets.simulated.boxes import Box, find_boxes
from pipeline.datasets.simulated.cohort import MAX_FILMS, Film, Patient, draw_patient
from pipeline.datasets.simulated.film import expose
from pipeline.errors import UserError
from pipeline.files import atomic_open
from pipeline.findings import NIH_BOXES, NO_FINDING
from pipeline.parallel import run_all
from pipeline.params import SimulateParams

COLUMNS: Final = (
    "Image Index",
    "Finding Labels",
    "Follow-up #",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
    "OriginalImageWidth",
    "OriginalImageHeight",
    "OriginalImagePixelSpacing_x",
    "OriginalImagePixelSpacing_y",
)
"""Header of `sample_labels.csv` (Kaggle, `nih-chest-xrays/sample`)."""

TABLE: Final = "sample_labels.csv"
BOX_COLUMNS: Final = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", "")
"""Header of `BBox_List_2017.csv` (NIH, with the full set), where the name of the place has commas of its own."""

BOX_TABLE: Final = "BBox_List_2017.csv"
_PUBLISHED: Final = {finding: label for label, finding in NIH_BOXES.items()}  # of two labels the last: Infiltrate
_LEFTOVER: Final = re.compile(r"\.partial-[0-9a-f]{8}")


def render(params: SimulateParams, patient: Patient, film: Film) -> npt.NDArray[np.uint8]:
    """Draw one film; see `pipeline.datasets.simulated.film.expose` for the result.

    The film's generator starts from (seed, patient, film number + 1), that of the vessels from the patient alone.
    """
    tree = np.random.default_rng([params.seed, patient.number, MAX_FILMS + 1])
    own = np.random.default_rng([params.seed, patient.number, film.number + 1])
    return expose(params.size, patient.anatomy, film.signs, film.acquisition, tree, own)


def write_tree(params: SimulateParams, out: Path, workers: int | None) -> int:
    """Draw all films into `out`; see `pipeline.datasets.simulated.simulate`."""
    _clear(out)
    staging = out / f".partial-{secrets.token_hex(4)}"
    images = staging / "sample" / "images"
    images.mkdir(parents=True)
    try:
        draw = partial(_draw_patient, params, images)
        numbers = range(1, params.patients + 1)
        rows: list[list[str]] = []
        boxes: list[list[str]] = []
        for table, places in run_all(draw, numbers, "drawing radiographs", workers, 8, "patients"):
            rows += table
            boxes += places
        _write_table(staging / "sample" / TABLE, COLUMNS, rows)
        _write_table(staging / TABLE, COLUMNS, rows)
        _write_table(staging / BOX_TABLE, BOX_COLUMNS, boxes)
        # The images last: whatever a killed run leaves, a complete `sample` folder is never missing its tables.
        (staging / BOX_TABLE).rename(out / BOX_TABLE)
        (staging / TABLE).rename(out / TABLE)
        (staging / "sample").rename(out / "sample")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return len(rows)


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


def _draw_patient(params: SimulateParams, images: Path, number: int) -> tuple[list[list[str]], list[list[str]]]:
    patient = draw_patient(params.seed, number)
    boxes: list[list[str]] = []
    for film in patient.films:
        _write_png(images / film.name, render(params, patient, film))
        found = find_boxes(params.size, patient.anatomy, film.signs, film.acquisition)
        boxes += [_box_row(film, box) for box in found]
    return [_row(patient, film) for film in patient.films], boxes


def _write_png(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    # Encoded in memory because cv2.imwrite cannot open non-ASCII names on Windows.
    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    path.write_bytes(data.tobytes())


def _row(patient: Patient, film: Film) -> list[str]:
    spacing = repr(film.spacing)
    return [
        film.name,
        "|".join(sorted(film.findings)) or NO_FINDING,
        f"{film.number:03d}",
        f"{patient.number:08d}",
        f"{film.age:03d}Y",
        patient.anatomy.sex,
        film.acquisition.view,
        str(film.columns),
        str(film.rows),
        spacing,
        spacing,
    ]


def _box_row(film: Film, box: Box) -> list[str]:
    return [film.name, _PUBLISHED[box.finding], *map(str, (box.x, box.y, box.width, box.height))]


def _write_table(path: Path, columns: tuple[str, ...], rows: list[list[str]]) -> None:
    with atomic_open(path) as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)
