"""NIH ChestX-ray14, the full set (12 image folders) and the sample, as Kaggle serves them.

Wang et al., "ChestX-ray8", CVPR 2017. Kaggle: nih-chest-xrays/data and nih-chest-xrays/sample.
"""

import filecmp
import re
from collections import Counter
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.datasets import Catalogue, list_files
from pipeline.errors import UserError
from pipeline.findings import NIH14, NO_FINDING
from pipeline.manifest import read_table
from pipeline.params import DatasetParams
from pipeline.quarantine import Reason, Refused

_TABLE = re.compile(r"^(Data_Entry_2017.*|sample_labels)\.csv$", re.IGNORECASE)
_LISTS = {"train_val_list.txt": "train_val", "test_list.txt": "test"}
_AGE = re.compile(r"^(\d{1,5})([YMWD]?)$", re.ASCII)  # DICOM PS3.5, value representation AS
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
MAX_AGE = 120.0
"""Years; the 2017 table holds ages up to 414, which become unknown."""

# The names of one column in the tables of 2017, of 2020 and of the sample.
_RENAMED = {
    "Patient Sex": "Patient Gender",
    "OriginalImage[Width": "OriginalImageWidth",
    "Height]": "OriginalImageHeight",
}
_NEEDED = ("Image Index", "Finding Labels", "Patient ID")


def read(raw: Path, _params: DatasetParams) -> Catalogue:
    """Read the label table, find its images and the official lists.

    Raises
    ------
    UserError
        If there is no label table, several differ, a column is missing or a finding is unknown.
    """
    left_out: Counter[str] = Counter()
    files = list_files(raw, left_out)
    table = _label_table(raw, [file for file in files if _TABLE.match(file.name)])
    refused: list[Refused] = []
    images = _by_name(raw, [file for file in files if file.suffix.lower() == ".png"], left_out, refused)
    notes: Counter[str] = Counter()
    rows = _rows(table, notes)
    official = _official(raw, files)
    # Series of str throughout: map() makes floats where a dictionary has none of the names.
    rows["path"] = pd.Series([str(images[name]) if name in images else None for name in rows["image_id"]], dtype="str")
    rows["official_split"] = pd.Series([official.get(name, "") for name in rows["image_id"]], dtype="str")
    refused += [
        Refused(name, Reason.LABEL_WITHOUT_IMAGE, "named in the label table, but there is no such file")
        for name in rows.loc[rows["path"].isna(), "image_id"]
    ]
    named = set(rows["image_id"])
    refused += [
        Refused(str(path), Reason.IMAGE_WITHOUT_LABEL, "not named in the label table")
        for name, path in images.items()
        if name not in named
    ]
    rows = rows[rows["path"].notna()]
    odd = rows["image_id"].str.split("_").str[0] != rows["patient_id"]
    refused += [
        Refused(path, Reason.CONFLICTING_NAME, "its name and the label table give different patients")
        for path in rows.loc[odd, "path"]
    ]
    return Catalogue(rows[~odd].reset_index(drop=True), refused, left_out=left_out, notes=notes)


def _label_table(raw: Path, candidates: list[PurePosixPath]) -> pd.DataFrame:
    if not candidates:
        raise UserError(f"{raw}: no label table (Data_Entry_2017*.csv or sample_labels.csv); is it an NIH archive?")
    tables = [_normalised(read_table(raw / name), raw / name) for name in candidates]
    for name, table in zip(candidates[1:], tables[1:], strict=True):
        if not table.equals(tables[0]):
            raise UserError(f"{raw}: {candidates[0]} and {name} differ; keep the one that belongs to the images")
    table = tables[0]
    if table["Image Index"].duplicated().any():
        name = table.loc[table["Image Index"].duplicated(), "Image Index"].iloc[0]
        raise UserError(f"{raw / candidates[0]}: image {name!r} stands in more than one row")
    return table


def _normalised(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    table = table.rename(columns=_RENAMED)
    if missing := [name for name in _NEEDED if name not in table.columns]:
        raise UserError(f"{path}: columns {', '.join(missing)} are missing; found {', '.join(table.columns)}")
    return table


def _by_name(
    raw: Path, files: list[PurePosixPath], left_out: Counter[str], refused: list[Refused]
) -> dict[str, PurePosixPath]:
    images: dict[str, PurePosixPath] = {}
    odd: set[str] = set()
    for file in files:
        name = f"{file.stem}.png"  # the table writes .png; a copy through Windows may say .PNG
        first = images.setdefault(name, file)
        if first is file:
            continue
        if filecmp.cmp(raw / first, raw / file, shallow=False):
            left_out["second copy of an image under the same name"] += 1
        else:
            odd.add(name)
            refused.append(
                Refused(str(file), Reason.CONFLICTING_NAME, f"another picture under the same name as {first}")
            )
    refused += [
        Refused(str(images.pop(name)), Reason.CONFLICTING_NAME, "other pictures have the same name")
        for name in sorted(odd)
    ]
    return images


def _rows(table: pd.DataFrame, notes: Counter[str]) -> pd.DataFrame:
    def column(name: str) -> pd.Series:
        return table[name] if name in table.columns else pd.Series("", index=table.index)

    rows = pd.DataFrame(
        {
            "image_id": table["Image Index"],
            "patient_id": table["Patient ID"].str.zfill(8),
            "view": column("View Position").where(column("View Position").isin(("PA", "AP")), ""),
            "sex": column("Patient Gender").where(column("Patient Gender").isin(("F", "M")), ""),
            "age": [_age(text, notes) for text in column("Patient Age")],
            "followup": _whole(column("Follow-up #"), 0),
            "width": _whole(column("OriginalImageWidth"), 1),
            "height": _whole(column("OriginalImageHeight"), 1),
        }
    )
    found = [_findings(text, name) for text, name in zip(table["Finding Labels"], rows["image_id"], strict=True)]
    for finding in NIH14:
        rows[finding] = pd.array([finding in names for names in found], dtype="Int8")
    return rows


def _whole(column: pd.Series, least: int) -> pd.Series:
    """Turn text into whole numbers from `least`; anything else is unknown."""
    number = pd.to_numeric(column, errors="coerce").astype("float64")
    return number.where(number.between(least, 2**31) & (number % 1 == 0))


def _findings(text: str, image: str) -> set[str]:
    names = {name.strip() for name in text.split("|")} - {NO_FINDING, NO_FINDING.replace(" ", "_")}
    if unknown := sorted(names - set(NIH14)):
        raise UserError(f"image {image}: unknown finding {unknown[0]!r}; allowed: {', '.join(NIH14)}, {NO_FINDING}")
    return names


def _age(text: str, notes: Counter[str]) -> float:
    match = _AGE.match(text.strip())
    years = int(match[1]) * _YEARS[match[2]] if match else float("nan")
    if years <= MAX_AGE:
        return round(years, 2)
    notes["age missing or impossible: unknown"] += 1
    return float("nan")


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
