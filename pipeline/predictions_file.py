"""Anybody's predictions, read and checked at the door: one table, or labels and probabilities in two.

Identifiers of patients never stand in a message; lines and images of the user's own table do.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.datasets.nih import label_rows
from pipeline.datasets.tables import MAX_AGE, ages, sexes, text_of, views
from pipeline.datasets.tree import shown
from pipeline.errors import UserError
from pipeline.findings import in_order
from pipeline.manifest import COLUMNS, SPLITS
from pipeline.predictions_columns import (
    KNOWN,
    few,
    findings_with,
    labels_of,
    lines,
    name_findings,
    probabilities_of,
    read_columns,
    refuse_repeats,
    values,
)
from pipeline.progress import note
from pipeline.reporting.text import counted

Patients = Literal["column", "nih"]

_NIH_NAME = r"^([0-9]{8})_[0-9]{3}(?:\.[A-Za-z]+)?$"


@dataclass(frozen=True)
class Predictions:
    """A checked predictions table.

    Attributes
    ----------
    table : DataFrame
        `image_id, patient_id, split`, `y_<Finding>` (1, 0, NaN), `p_<Finding>` (0 to 1), `view, sex, age`.
    findings : list of str
        In the vocabulary's order.
    notes : list of str
        What a reader should know: what was assumed or left aside.
    """

    table: pd.DataFrame
    findings: list[str]
    notes: list[str] = field(default_factory=list)


def read_predictions(path: Path, labels: Path | None = None, patients: Patients = "column") -> pd.DataFrame:
    """Read and check a predictions table, and say what was assumed; see `load_predictions`."""
    predictions = load_predictions(path, labels, patients)
    for line in predictions.notes:
        note(line)
    return predictions.table


def load_predictions(path: Path, labels: Path | None = None, patients: Patients = "column") -> Predictions:
    """Read and check a predictions table.

    Parameters
    ----------
    path : Path
        `image_id` (or `Image Index`), `p_<Finding>` (or `prob_<Finding>`), `patient_id`, and where `labels` is not
        given `y_<Finding>`; perhaps `split`, `view, sex, age`. Without `split`, all images are the test split.
    labels : Path, optional
        Another table of the same images with `y_<Finding>` or bare names; or the table of a whole data set (a
        manifest, or NIH's Data_Entry_2017.csv), which may hold more images. Then `path` may have bare names, too.
    patients : {'column', 'nih'}
        Where the patient comes from: the column, or NIH's file names (00000013_005.png is of patient 00000013).

    Raises
    ------
    UserError
        For a file that is no such table, or the first column with values that are not allowed: how many rows, and
        the first of them.
    """
    notes: list[str] = []
    table = read_columns(path)
    if labels is None:
        table = name_findings(table, path)
        findings = _paired_findings(table, path)
        answers, whole = table, False
    else:
        table = name_findings(table, path, bare="p_")
        answers, whole = _read_answers(labels)
        findings = _common_findings(table, path, answers, labels, notes)
    refuse_repeats(table, path)
    unused = [name for name in table.columns if name not in KNOWN and name[:2] not in ("p_", "y_")]
    if unused:
        notes.append(f"columns of {path.name} that are not used: {shown(', '.join(unused))}")
    probabilities = {f"p_{name}": probabilities_of(table, f"p_{name}", path) for name in findings}
    truth = pd.DataFrame({f"y_{name}": labels_of(answers, f"y_{name}", labels or path) for name in findings})
    if labels is not None:
        place = _places(table, path, answers, labels, whole, notes)
        truth, answers = truth.iloc[place].reset_index(drop=True), answers.iloc[place].reset_index(drop=True)
    about = _about(table, path, answers, labels or path, patients, notes)
    return Predictions(
        pd.concat([about[list(KNOWN[:3])], truth, pd.DataFrame(probabilities), about[list(KNOWN[3:])]], axis=1),
        findings,
        notes,
    )


def _read_answers(path: Path) -> tuple[pd.DataFrame, bool]:
    """Return the table of labels, and whether it describes a whole data set (and so may hold more images)."""
    table = read_columns(path)
    if "Finding Labels" in table.columns:
        rows = label_rows(path)
        return name_findings(rows.astype("str").fillna(""), path, bare="y_"), True
    whole = set(COLUMNS) <= set(table.columns)
    table = name_findings(table, path, bare="y_")
    refuse_repeats(table, path)
    return table, whole


def _paired_findings(table: pd.DataFrame, path: Path) -> list[str]:
    """Return the findings of a table that holds both labels and probabilities; every finding needs both."""
    known, predicted = findings_with(table, "y_"), findings_with(table, "p_")
    if not known and not predicted:
        found = few(list(table.columns), 8)
        raise UserError(f"{path}: no columns y_<Finding> and p_<Finding>; found {found}. Labels elsewhere: --labels")
    if not known:
        raise UserError(f"{path} has probabilities and no labels (columns y_<Finding>); give a table with --labels")
    for some, other, prefix in ((known, predicted, "p_"), (predicted, known, "y_")):
        if lone := in_order(sorted(set(some) - set(other))):
            columns = few([prefix + name for name in lone])
            raise UserError(f"{path}: missing columns {columns}; every finding needs y_<Finding> and p_<Finding>")
    return in_order(known)


def _common_findings(
    table: pd.DataFrame, path: Path, answers: pd.DataFrame, labels: Path, notes: list[str]
) -> list[str]:
    """Return the findings that are predicted; each needs labels."""
    if findings_with(table, "y_"):
        raise UserError(f"{path} has labels of its own (columns y_<Finding>); leave out --labels, or the columns")
    predicted, known = findings_with(table, "p_"), findings_with(answers, "y_")
    if not predicted:
        raise UserError(f"{path}: no columns p_<Finding>; found {few(list(table.columns), 8)}")
    if lone := in_order(sorted(set(predicted) - set(known))):
        raise UserError(f"{labels}: no labels for {few(lone)}; it has {few(in_order(known), 20)}")
    if spare := in_order(sorted(set(known) - set(predicted))):
        notes.append(f"findings without a prediction, not scored: {', '.join(spare)}")
    return in_order(predicted)


def _places(
    table: pd.DataFrame, path: Path, answers: pd.DataFrame, labels: Path, whole: bool, notes: list[str]
) -> NDArray[np.intp]:
    """Return the row of `answers` that belongs to each row of `table`; the images must be the same."""
    place = pd.Index(answers["image_id"]).get_indexer(pd.Index(table["image_id"]))
    lone = table.loc[place < 0, "image_id"].tolist()
    if lone:
        raise UserError(f"{path}: {len(lone):,} of {len(table):,} images have no row in {labels}, first {few(lone)}")
    if len(answers) > len(table):
        if not whole:
            spare = answers.loc[~answers["image_id"].isin(table["image_id"]), "image_id"].tolist()
            raise UserError(
                f"{labels}: {len(spare):,} of {len(answers):,} images have no row in {path}, first {few(spare)}; "
                "remove them there if they are not to be scored"
            )
        notes.append(f"scored are the {len(table):,} predicted images of the {len(answers):,} in {labels.name}")
    return np.asarray(place, np.intp)


def _about(
    table: pd.DataFrame, path: Path, answers: pd.DataFrame, labels: Path, patients: Patients, notes: list[str]
) -> pd.DataFrame:
    """Return who and what each image is: `image_id, patient_id, split, view, sex, age`."""
    for name in ("patient_id", "split"):
        if name in table.columns and name in answers.columns:
            differ = (table[name] != answers[name]).to_numpy()
            if differ.any() and not (name == "patient_id" and patients == "nih"):
                raise UserError(f"{path} and {labels} give another {name} {lines(table, pd.Series(differ))}")
    both = pd.concat([table, answers[[name for name in answers.columns if name not in table.columns]]], axis=1)
    words = Counter[str]()
    about = pd.DataFrame(
        {
            "image_id": both["image_id"],
            "patient_id": _patients(both, path, patients),
            "split": _split(both, path, notes),
            "view": views(text_of(both, "view"), words),
            "sex": sexes(text_of(both, "sex"), words),
            "age": _ages(text_of(both, "age"), words),
        }
    )
    notes += [f"{what} ({counted(count, 'image')})" for what, count in words.items()]
    return about


def _patients(table: pd.DataFrame, path: Path, patients: Patients) -> pd.Series:
    if patients == "nih":
        found = table["image_id"].str.extract(_NIH_NAME, expand=False)
        if found.isna().any():
            raise UserError(
                f"{path}: the patient cannot be read from image_id {lines(table, found.isna())}; "
                "allowed with --patients nih: names such as 00000013_005.png"
            )
        return found
    if "patient_id" not in table.columns:
        raise UserError(
            f"{path}: column patient_id is missing; add it (for one image a patient it may equal image_id), "
            "or give --patients nih if image_id holds NIH's file names"
        )
    empty = table["patient_id"] == ""
    if empty.any():
        raise UserError(f"{path}: patient_id is empty {lines(table, empty)}; every image needs its patient")
    return table["patient_id"]


def _split(table: pd.DataFrame, path: Path, notes: list[str]) -> pd.Series:
    if "split" not in table.columns:
        notes.append("no column split: all images are the test split")
        return pd.Series("test", index=table.index, dtype="str")
    bad = ~table["split"].isin(SPLITS)
    if bad.any():
        found = values(table, "split", bad)
        raise UserError(f"{path}: split is {found} {lines(table, bad)}; allowed: {', '.join(SPLITS)}")
    return table["split"]


def _ages(column: pd.Series, words: Counter[str]) -> pd.Series:
    """Return ages in years: plain numbers, or DICOM's 058Y and 006M; unknown where impossible."""
    number = pd.to_numeric(column, errors="coerce").astype("float64")
    written = number.isna() & (column != "")
    number = number.fillna(pd.Series(ages(column[written], words), index=column.index[written], dtype="float64"))
    odd = number.notna() & ~number.between(0, MAX_AGE)
    if odd.any():
        words["age missing or impossible: unknown"] += int(odd.sum())
    return number.mask(odd)
