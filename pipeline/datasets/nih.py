"""NIH ChestX-ray14, the full set (12 image folders) and the sample, as Kaggle serves them.

Wang et al., "ChestX-ray8", CVPR 2017. Kaggle: nih-chest-xrays/data and nih-chest-xrays/sample.
"""

import re
from collections import Counter
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.datasets import Catalogue
from pipeline.datasets.boxes import keep_boxes, no_boxes, numbers, positives
from pipeline.datasets.tables import (
    ages,
    complete,
    one_row_each,
    only,
    read_labels,
    sexes,
    single_table,
    text_of,
    views,
    whole,
)
from pipeline.datasets.tree import attach, by_key, list_files
from pipeline.errors import UserError
from pipeline.findings import NIH14, NIH_BOXES, NO_FINDING
from pipeline.params import DatasetParams
from pipeline.quarantine import Reason, Refused

_TABLE = re.compile(r"^(Data_Entry_2017.*|sample_labels)\.csv$", re.IGNORECASE)
_BOXES = re.compile(r"^BBox_List_2017.*\.csv$", re.IGNORECASE)
_LISTS = {"train_val_list.txt": "train_val", "test_list.txt": "test"}

# The names of one column in the tables of 2017, of 2020 and of the sample.
_RENAMED = {
    "Patient Sex": "Patient Gender",
    "OriginalImage[Width": "OriginalImageWidth",
    "Height]": "OriginalImageHeight",
}
_NEEDED = ("Image Index", "Finding Labels", "Patient ID")
# The header says `Bbox [x,y,w,h]` without quotation marks, which makes four columns.
_PLACE = ["Bbox [x", "y", "w", "h]"]


def read(raw: Path, _params: DatasetParams) -> Catalogue:
    """Read the label table, find its images, the official lists and the boxes.

    Raises
    ------
    UserError
        If there is no label table, several differ, a column is missing or a finding is unknown.
    """
    left_out: Counter[str] = Counter()
    files = list_files(raw, left_out)
    table = _label_table(raw, [file for file in files if _TABLE.match(file.name)])
    refused: list[Refused] = []
    # The table writes .png; a copy through Windows may say .PNG.
    pictures = [file for file in files if file.suffix.lower() == ".png"]
    images = by_key(raw, pictures, lambda file: f"{file.stem}.png", left_out, refused)
    notes: Counter[str] = Counter()
    rows = _rows(table, notes)
    official = _official(raw, files)
    split = [official.get(name, "") for name in rows["image_id"].tolist()]
    rows = attach(rows.assign(official_split=pd.Series(split, rows.index, dtype="str")), images, refused)
    odd = rows["image_id"].str.replace("_.*", "", regex=True) != rows["patient_id"]
    refused += [
        Refused(path, Reason.CONFLICTING_NAME, "its name and the label table give different patients")
        for path in rows.loc[odd, "path"]
    ]
    rows = complete(rows[~odd], NIH14)
    boxes = _boxes(raw, [file for file in files if _BOXES.match(file.name)], rows, refused, notes)
    return Catalogue(rows, refused, left_out=left_out, notes=notes, boxes=boxes)


def label_rows(path: Path) -> pd.DataFrame:
    """Read a label table alone, without its images: `image_id, patient_id, view, sex, age` … and the findings.

    Raises
    ------
    UserError
        If it is no such table, names an image twice or a finding that is unknown.
    """
    table = read_labels(path, _NEEDED, _RENAMED)
    one_row_each(table, "Image Index", path)
    return _rows(table, Counter())


def _label_table(raw: Path, candidates: list[PurePosixPath]) -> pd.DataFrame:
    if not candidates:
        raise UserError(f"{raw}: no label table (Data_Entry_2017*.csv or sample_labels.csv); is it an NIH archive?")
    table = single_table(raw, candidates, _NEEDED, _RENAMED)
    one_row_each(table, "Image Index", raw / candidates[0])
    return table


def _rows(table: pd.DataFrame, notes: Counter[str]) -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "image_id": table["Image Index"],
            "patient_id": table["Patient ID"].str.zfill(8),
            "view": views(text_of(table, "View Position"), notes),
            "sex": sexes(text_of(table, "Patient Gender"), notes),
            "age": ages(text_of(table, "Patient Age"), notes),
            "followup": whole(text_of(table, "Follow-up #"), 0),
            "width": whole(text_of(table, "OriginalImageWidth"), 1),
            "height": whole(text_of(table, "OriginalImageHeight"), 1),
        }
    )
    texts, names = table["Finding Labels"].tolist(), rows["image_id"].tolist()
    found = [_findings(text, name) for text, name in zip(texts, names, strict=True)]
    for finding in NIH14:
        rows[finding] = pd.array([finding in names for names in found], dtype="Int8")
    return rows


def _findings(text: str, image: str) -> set[str]:
    names = {name.strip() for name in text.split("|")} - {NO_FINDING, NO_FINDING.replace(" ", "_")}
    if unknown := sorted(names - set(NIH14)):
        raise UserError(f"image {image}: unknown finding {unknown[0]!r}; allowed: {', '.join(NIH14)}, {NO_FINDING}")
    return names


def _boxes(
    raw: Path, files: list[PurePosixPath], rows: pd.DataFrame, refused: list[Refused], notes: Counter[str]
) -> pd.DataFrame:
    if not files:
        return no_boxes()
    table = single_table(raw, files, ("Image Index", "Finding Label", *_PLACE))
    finding = only(table, "Finding Label", NIH_BOXES, raw / files[0])
    boxes = numbers(table, _PLACE).assign(image_id=table["Image Index"], finding=finding)
    kept = keep_boxes(boxes, rows, str(files[0]), refused, notes)
    if unnamed := set(zip(kept["image_id"], kept["finding"], strict=True)) - positives(rows, NIH14):
        notes["box of a finding that the label table does not give the image"] += len(unnamed)
    return kept


def _official(raw: Path, files: list[PurePosixPath]) -> dict[str, str]:
    official: dict[str, str] = {}
    for file in files:
        if split := _LISTS.get(file.name.lower()):
            try:
                lines = (raw / file).read_text(encoding="utf-8-sig").split()
            except UnicodeDecodeError as error:
                raise UserError(f"{raw / file} is not a list in UTF-8: {error}") from None
            both = sorted(name for name in lines if official.get(name, split) != split)
            if both:
                raise UserError(f"{raw / file}: {len(both)} images stand in both official lists, first {both[0]}")
            official.update(dict.fromkeys(lines, split))
    return official
