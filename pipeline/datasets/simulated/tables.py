"""The tables beside the films: a row of each for each film, finding or box."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from pipeline.datasets.simulated.boxes import Box
from pipeline.datasets.simulated.cohort import Film, Patient
from pipeline.datasets.simulated.signs import Sign
from pipeline.datasets.simulated.unusable import HIDDEN, Kind
from pipeline.findings import NIH14, NIH_BOXES, NO_FINDING

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
TRUTH_TABLE: Final = "truth.csv"
TRUTH_COLUMNS: Final = ("Image Index", "Finding", "Severity", "Side", "Drawn", "Labelled")
"""One row for each finding that a film shows or that its label names."""

UNUSABLE_TABLE: Final = "unusable.csv"
UNUSABLE_COLUMNS: Final = ("Image Index", "Kind", "Code")
"""One row for each spoilt film; the code that `ingest` should give it, empty for a file that is read as it is."""

FOLDER_TABLE: Final = "labels.csv"
FOLDER_COLUMNS: Final = ("image", "patient", "view", "sex", "age", *NIH14)
"""With DICOM files, which the adapter `folder` reads: it wants a column for each finding."""

_PUBLISHED: Final = {finding: label for label, finding in NIH_BOXES.items()}  # of two labels the last: Infiltrate
_NO_SIDE: Final = {"Cardiomegaly", "Edema", "Emphysema", "Fibrosis", "Hernia"}  # in the middle, or in both lungs


@dataclass
class Rows:
    """Rows of the tables, `of` the name of each file."""

    of: dict[str, list[list[str]]] = field(default_factory=lambda: defaultdict(list))

    def __iadd__(self, other: "Rows") -> "Rows":
        for name, rows in other.of.items():
            self.of[name] += rows
        return self


def view_of(film: Film, kind: Kind | None) -> str:
    """Return the view position; a lateral film says so, as DICOM does."""
    return "LL" if kind == "lateral" else film.acquisition.view  # the patient looks to the left (PS3.3, C.8.1.1)


def label_row(patient: Patient, film: Film, labels: set[str], kind: Kind | None) -> list[str]:
    """Return a film's row of `sample_labels.csv`."""
    spacing = repr(film.spacing)
    return [
        film.name,
        "|".join(sorted(labels)) or NO_FINDING,
        f"{film.number:03d}",
        f"{patient.number:08d}",
        f"{film.age:03d}Y",
        patient.anatomy.sex,
        view_of(film, kind),
        str(film.columns),
        str(film.rows),
        spacing,
        spacing,
    ]


def folder_row(patient: Patient, film: Film, labels: set[str], kind: Kind | None) -> list[str]:
    """Return a film's row of `labels.csv`."""
    facts = [film.name, f"{patient.number:08d}", view_of(film, kind), patient.anatomy.sex, f"{film.age:03d}Y"]
    return facts + [str(int(name in labels)) for name in NIH14]


def truth_rows(film: Film, labels: set[str], kind: Kind | None) -> list[list[str]]:
    """Return a film's rows of `truth.csv`: a finding that is labelled and not there has neither severity nor side."""
    signs = {sign.name: sign for sign in film.signs}
    rows = []
    for name in NIH14:
        if name in signs or name in labels:
            severity = f"{signs[name].severity:.4f}" if name in signs else ""
            side = _side(signs[name]) if name in signs else ""
            drawn = name in signs and kind not in HIDDEN
            rows.append([film.name, name, severity, side, str(int(drawn)), str(int(name in labels))])
    return rows


def _side(sign: Sign) -> str:
    return "B" if sign.both or sign.name in _NO_SIDE else "RL"[sign.side]


def box_row(film: Film, box: Box) -> list[str]:
    """Return a row of `BBox_List_2017.csv`."""
    return [film.name, _PUBLISHED[box.finding], *map(str, (box.x, box.y, box.width, box.height))]
