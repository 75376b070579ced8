"""RSNA Pneumonia Detection Challenge 2018 (Kaggle: competitions/rsna-pneumonia-detection-challenge), DICOM.

Shih et al., Radiology: Artificial Intelligence 2019;1:e180041. The films are from NIH ChestX-ray14.
"""

import json
import re
from collections import Counter
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.datasets import Catalogue
from pipeline.datasets.boxes import PLACE, is_box, keep_boxes, numbers
from pipeline.datasets.headers import with_facts
from pipeline.datasets.patients import every_image_its_own
from pipeline.datasets.tables import MAX_BYTES, complete, only, single_table
from pipeline.datasets.tree import DICOM_SUFFIXES, attach, by_key, list_files, shown
from pipeline.errors import UserError
from pipeline.findings import RSNA
from pipeline.params import DatasetParams
from pipeline.progress import note
from pipeline.quarantine import Reason, Refused

_LABELS = "stage_2_train_labels.csv"
_CLASSES = "stage_2_detailed_class_info.csv"
_MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
_TEST = "stage_2_test_images"
_POSITIVE, _FINDING = next(iter(RSNA.items()))
_WORDS = {_POSITIVE: "1", "Normal": "0", "No Lung Opacity / Not Normal": "0"}
_ID = re.compile(r"[0-9A-Za-z.-]{1,64}", re.ASCII)
_NIH_NAME = re.compile(r"(\d{8})_\d{3}\.png", re.ASCII)


def read(raw: Path, _params: DatasetParams) -> Catalogue:
    """Read the labels with their boxes, the detailed classes, the headers and, if it is there, RSNA's mapping to NIH.

    Raises
    ------
    UserError
        If the labels are missing, or a table or the mapping is not what was published.
    """
    left_out: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    refused: list[Refused] = []
    files = list_files(raw, left_out)
    table = _table(raw, files, refused, notes)
    pictures = [file for file in files if file.suffix.lower() in DICOM_SUFFIXES]
    unlabelled = [file for file in pictures if _TEST in file.parts]
    if unlabelled:
        left_out["test image of the challenge, whose labels are not published"] = len(unlabelled)
    pictures = [file for file in pictures if _TEST not in file.parts]
    images = by_key(raw, pictures, lambda file: file.stem, left_out, refused)
    first = table.drop_duplicates("patientId")
    rows = pd.DataFrame({"image_id": first["patientId"], _FINDING: (first["Target"] == "1").astype("Int8")})
    bad = {item.path for item in refused if item.code is Reason.BAD_ROW}
    rows = attach(rows, {name: file for name, file in images.items() if name not in bad}, refused)
    rows = with_facts(_with_patients(raw, files, rows, notes), raw, notes)
    boxed = table[table["Target"] == "1"]
    boxes = numbers(boxed, list(PLACE)).assign(image_id=boxed["patientId"], finding=_FINDING)
    boxes = keep_boxes(boxes, rows, _LABELS, refused, notes)
    return Catalogue(complete(rows, [_FINDING]), refused, left_out=left_out, notes=notes, boxes=boxes)


def _table(raw: Path, files: list[PurePosixPath], refused: list[Refused], notes: Counter[str]) -> pd.DataFrame:
    """Return the label table without the images whose rows contradict each other or the detailed classes."""
    found = [file for file in files if file.name == _LABELS]
    if not found:
        raise UserError(f"{raw}: no {_LABELS}; is it the archive of the RSNA Pneumonia Detection Challenge?")
    table = single_table(raw, found, ("patientId", *PLACE, "Target"))
    only(table, "Target", {"0": 0, "1": 1}, raw / found[0])
    _check_ids(table, raw / found[0])
    if twice := int(table.duplicated().sum()):
        notes["the same row twice: counted once"] += twice
        table = table.drop_duplicates()
    blank = (table[list(PLACE)] == "").all(axis=1)
    boxed = is_box(numbers(table, list(PLACE)))
    wrong = ((table["Target"] == "1") & ~boxed) | ((table["Target"] == "0") & ~blank)
    faults = dict.fromkeys(table.loc[wrong, "patientId"], "Target 1 needs a box in its row, and 0 none")
    mixed = table.groupby("patientId")["Target"].nunique()
    faults |= dict.fromkeys(mixed.index[mixed > 1], "rows with Target 0 and 1")
    faults |= _against_classes(raw, files, table, notes)
    refused += [Refused(str(name), Reason.BAD_ROW, reason) for name, reason in sorted(faults.items())]
    return table[~table["patientId"].isin(list(faults))]


def _check_ids(table: pd.DataFrame, path: Path) -> None:
    odd = ~table["patientId"].str.fullmatch(_ID)
    if odd.any():
        line = int(table.index[odd][0]) + 2
        found = shown(str(table.loc[odd, "patientId"].iloc[0]))
        raise UserError(f"{path}: patientId is {found!r} in line {line}; letters, digits, . and - are allowed")


def _against_classes(raw: Path, files: list[PurePosixPath], table: pd.DataFrame, notes: Counter[str]) -> dict[str, str]:
    """Return the images whose detailed class says something else than their Target."""
    found = [file for file in files if file.name == _CLASSES]
    if not found:
        return {}
    classes = single_table(raw, found, ("patientId", "class"))
    target = only(classes, "class", _WORDS, raw / found[0]).astype("str")
    says = target.groupby(classes["patientId"]).agg(set)
    labels = table.drop_duplicates("patientId").set_index("patientId")["Target"]
    both = labels.index.intersection(says.index)
    odd = [name for name in both if says[name] != {labels[name]}]
    abnormal = classes.loc[classes["class"] == "No Lung Opacity / Not Normal", "patientId"].nunique()
    if abnormal:
        notes["negative, but not normal (No Lung Opacity / Not Normal)"] = int(abnormal)
    return dict.fromkeys(odd, f"its class in {_CLASSES} says something else than Target")


def _with_patients(raw: Path, files: list[PurePosixPath], rows: pd.DataFrame, notes: Counter[str]) -> pd.DataFrame:
    """Take the patients from RSNA's mapping to NIH's file names; `patientId` names one image, not a person."""
    found = [file for file in files if file.name == _MAPPING]
    patients = _mapping(raw / found[0]) if found else {}
    if not patients.keys() & set(rows["image_id"]):
        return every_image_its_own(rows, notes)
    known = [patients.get(name, name) for name in rows["image_id"]]
    if unknown := sum(name not in patients for name in rows["image_id"]):
        notes["not in the mapping to NIH: counts as its own patient"] = unknown
    note(f"the patients are NIH's, from {found[0]}")
    return rows.assign(patient_id=pd.Series(known, rows.index, dtype="str"))


def _mapping(path: Path) -> dict[str, str]:
    """Read `[{"subset_img_id": RSNA's name, "img_id": NIH's file name, …}, …]`: image to NIH's patient."""
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES >> 20} MiB; is it RSNA's mapping?")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        pairs = {str(entry["subset_img_id"]): _NIH_NAME.fullmatch(str(entry["img_id"])) for entry in entries}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UserError(
            f"{path}: a list of entries with subset_img_id and img_id is needed; remove or mend it"
        ) from None
    if odd := [name for name, match in pairs.items() if not match]:
        raise UserError(f"{path}: img_id of {shown(odd[0])!r} is no file name of NIH such as 00000001_000.png")
    return {name: match[1] for name, match in pairs.items() if match}
