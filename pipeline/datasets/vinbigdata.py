"""VinBigData Chest X-ray Abnormalities Detection (Kaggle: competitions/vinbigdata-chest-xray-abnormalities-detection).

Nguyen et al., "VinDr-CXR", Scientific Data 2022;9:429: DICOM, each training film read by three radiologists.
"""

from collections import Counter
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.datasets import Catalogue
from pipeline.datasets.boxes import PLACE, is_box, keep_boxes, positives
from pipeline.datasets.headers import with_facts
from pipeline.datasets.patients import every_image_its_own
from pipeline.datasets.tables import complete, only, single_table
from pipeline.datasets.tree import DICOM_SUFFIXES, attach, by_key, list_files
from pipeline.errors import UserError
from pipeline.findings import VINBIGDATA
from pipeline.params import DatasetParams
from pipeline.quarantine import Reason, Refused

_NONE = "No finding"
_CORNERS = ["x_min", "y_min", "x_max", "y_max"]
_IDS = {str(number): name for number, name in enumerate((*VINBIGDATA, _NONE))}
_READERS = 3  # of each training film (Nguyen et al., Scientific Data 2022)


def read(raw: Path, params: DatasetParams) -> Catalogue:
    """Read train.csv, count the readers of each film and read the headers.

    Raises
    ------
    UserError
        If the table is missing, lacks a column or holds an unknown class.
    """
    left_out: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    refused: list[Refused] = []
    files = list_files(raw, left_out)
    table = _table(raw, files, refused, notes)
    pictures = [file for file in files if file.suffix.lower() in DICOM_SUFFIXES]
    unlabelled = [file for file in pictures if file.parent.name == "test"]
    if unlabelled:
        left_out["test image of the competition, whose labels are not published"] = len(unlabelled)
    pictures = [file for file in pictures if file.parent.name != "test"]
    images = by_key(raw, pictures, lambda file: file.stem, left_out, refused)
    bad = {item.path for item in refused if item.code is Reason.BAD_ROW}
    rows = attach(_labels(table, params), {name: file for name, file in images.items() if name not in bad}, refused)
    rows = with_facts(every_image_its_own(rows, notes), raw, notes)
    boxes = _boxes(table, rows, notes)
    boxes = keep_boxes(boxes, rows, "train.csv", refused, notes)
    return Catalogue(complete(rows, list(VINBIGDATA.values())), refused, left_out=left_out, notes=notes, boxes=boxes)


def _table(raw: Path, files: list[PurePosixPath], refused: list[Refused], notes: Counter[str]) -> pd.DataFrame:
    """Return train.csv without the films whose rows contradict each other."""
    found = [file for file in files if file.name == "train.csv"]
    if not found:
        raise UserError(f"{raw}: no train.csv; is it the archive of the VinBigData competition?")
    table = single_table(raw, found, ("image_id", "class_name", "class_id", "rad_id", *_CORNERS))
    path = raw / found[0]
    only(table, "class_name", {name: name for name in _IDS.values()}, path)
    if (only(table, "class_id", _IDS, path) != table["class_name"]).any():
        raise UserError(f"{path}: class_id and class_name do not belong together; take the table as published")
    if twice := int(table.duplicated().sum()):
        notes["the same row twice: counted once"] += twice
        table = table.drop_duplicates()
    none = table["class_name"] == _NONE
    blank = (table[_CORNERS] == "").all(axis=1)
    wrong = (none & ~blank) | (~none & ~is_box(_places(table))) | (table["rad_id"] == "")
    faults = dict.fromkeys(table.loc[wrong, "image_id"], "a finding needs a reader and a box, and No finding none")
    both = table.assign(none=none).groupby(["image_id", "rad_id"])["none"].nunique()
    mixed = both.index[both > 1].get_level_values("image_id")
    faults |= dict.fromkeys(mixed, "one reader says No finding and a finding")
    refused += [Refused(str(name), Reason.BAD_ROW, reason) for name, reason in sorted(faults.items())]
    table = table[~table["image_id"].isin(list(faults))]
    if few := int((table.groupby("image_id")["rad_id"].nunique() < _READERS).sum()):
        notes[f"film that fewer than {_READERS} readers read"] += few
    return table


def _labels(table: pd.DataFrame, params: DatasetParams) -> pd.DataFrame:
    """Return one row an image: 1 where more than half of its readers (or any) saw the finding, else 0."""
    readers = table.groupby("image_id", sort=False)["rad_id"].nunique()
    rows = pd.DataFrame({"image_id": readers.index})
    for published, finding in VINBIGDATA.items():
        seen = table[table["class_name"] == published].groupby("image_id")["rad_id"].nunique()
        votes = seen.reindex(readers.index, fill_value=0)
        present = votes > 0 if params.readers == "any" else 2 * votes > readers
        rows[finding] = present.to_numpy().astype("int8")
    return rows


def _places(table: pd.DataFrame) -> pd.DataFrame:
    corner = {name: pd.to_numeric(table[name], errors="coerce").astype("float64") for name in _CORNERS}
    values = (
        corner["x_min"],
        corner["y_min"],
        corner["x_max"] - corner["x_min"],
        corner["y_max"] - corner["y_min"],
    )
    return pd.DataFrame(dict(zip(PLACE, values, strict=True)))


def _boxes(table: pd.DataFrame, rows: pd.DataFrame, notes: Counter[str]) -> pd.DataFrame:
    """Return each reader's boxes of the findings that the labels give the image; the others are counted."""
    drawn = table[table["class_name"] != _NONE]
    boxes = _places(drawn).assign(image_id=drawn["image_id"], finding=drawn["class_name"].map(VINBIGDATA))
    wanted, here = positives(rows, VINBIGDATA.values()), set(rows["image_id"])
    pairs = zip(boxes["image_id"], boxes["finding"], strict=True)
    outvoted = pd.Series([pair not in wanted and pair[0] in here for pair in pairs], boxes.index, dtype="bool")
    if outvoted.any():
        notes["box of a finding that most readers did not see: left out"] = int(outvoted.sum())
    return boxes[~outvoted]
