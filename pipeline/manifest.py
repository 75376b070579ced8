"""The table that every stage shares: one row per usable image."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.files import atomic_open

COLUMNS = (
    "image_id",  # unique in the data set
    "path",  # POSIX, relative to the raw folder
    "patient_id",
    "view",  # PA, AP or L; empty: unknown
    "sex",  # F or M; empty: unknown
    "age",  # years at the examination; empty: unknown or impossible
    "followup",  # number of the examination of this patient, from 0; empty: unknown
    "width",  # pixels as acquired where the source says so, else of the file
    "height",
    "sha256",  # of the decoded grayscale pixels, so that a copy in another encoding is the same image
    "phash",  # 64-bit perceptual hash, hexadecimal
    "official_split",  # what the source says: train_val, train, val, test; empty: nothing
)
"""The fixed columns; one column per finding follows, holding 1, 0 or nothing (unknown)."""

NUMBERS = {"age": 0, "followup": 0, "width": 1, "height": 1}
"""Columns of numbers and the least that each may hold."""

ALLOWED = {
    "view": ("", "PA", "AP", "L"),
    "sex": ("", "F", "M"),
    "official_split": ("", "train_val", "train", "val", "test"),
}
SPLITS = ("train", "val", "test")


def findings_of(table: pd.DataFrame) -> list[str]:
    """Return the finding columns of a manifest or of an index, in their order."""
    other = {*COLUMNS, "split", "row", "shard"}
    return [name for name in table.columns if name not in other]


def labels_of(table: pd.DataFrame) -> NDArray[np.float32]:
    """Return the labels of a manifest.

    Returns
    -------
    ndarray of shape (n_images, n_findings), dtype=float32
        1 present, 0 absent, NaN unknown.
    """
    return table[findings_of(table)].to_numpy(dtype=np.float32, na_value=np.nan)


def check_manifest(table: pd.DataFrame, origin: str) -> None:
    """Check columns, identifiers, allowed words and labels.

    Raises
    ------
    UserError
        For the first fault, with the first offending value.
    """
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise UserError(f"{origin}: columns {', '.join(missing)} are missing; run `cxr ingest` to write it anew")
    if not findings_of(table):
        raise UserError(f"{origin}: no finding column after {COLUMNS[-1]}; at least one is needed")
    for name in ("image_id", "path", "patient_id", "sha256"):
        empty = table[name].isna() | (table[name] == "")
        if empty.any():
            raise UserError(f"{origin}: {int(empty.sum())} rows have no {name}, first in line {_line(empty)}")
        odd = table[name].str.contains(r"[\x00-\x1f]", regex=True)
        if odd.any():
            found = table.loc[odd, name].iloc[0]
            raise UserError(f"{origin}: {name} is {found!r} in line {_line(odd)}; control characters are not allowed")
    leaves = table["path"].str.contains(r"^/|(?:^|/)\.\.(?:/|$)", regex=True)
    if leaves.any():
        found = table.loc[leaves, "path"].iloc[0]
        raise UserError(f"{origin}: path {found!r} in line {_line(leaves)} leaves the raw folder; relative paths only")
    for name, least in NUMBERS.items():
        number = table[name].astype("Float64")
        bad = (number.notna() & ~number.between(least, 2**53)).fillna(False).astype(bool)
        if name != "age":
            bad |= (number.notna() & (number % 1 != 0)).fillna(False).astype(bool)
        if bad.any():
            found = number[bad].iloc[0]
            raise UserError(
                f"{origin}: {name} is {found:g} in line {_line(bad)}; allowed: "
                f"{'' if name == 'age' else 'whole '}numbers from {least}, or empty"
            )
    repeated = table["image_id"].duplicated()
    if repeated.any():
        raise UserError(f"{origin}: image_id {table.loc[repeated, 'image_id'].iloc[0]!r} stands in more than one row")
    for name, words in ALLOWED.items():
        bad = ~table[name].isin(words)
        if bad.any():
            found = table.loc[bad, name].iloc[0]
            raise UserError(
                f"{origin}: {name} is {found!r} in line {_line(bad)}; allowed: {', '.join(words[1:])}, or empty"
            )
    for name in findings_of(table):
        bad = ~(table[name].isna() | table[name].isin((0, 1)))
        if bad.any():
            found = table.loc[bad, name].iloc[0]
            raise UserError(f"{origin}: {name} is {found:g} in line {_line(bad)}; allowed: 1, 0, or empty for unknown")


def write_manifest(table: pd.DataFrame, path: Path) -> None:
    """Check the manifest and write it, sorted by image_id, whole or not at all."""
    check_manifest(table, str(path))
    ordered = table[[*COLUMNS, *findings_of(table)]].sort_values("image_id", kind="stable")
    with atomic_open(path) as handle:
        ordered.to_csv(handle, index=False, lineterminator="\n")


def read_manifest(path: Path) -> pd.DataFrame:
    """Read and check a manifest.

    Returns
    -------
    DataFrame
        Identifiers and words are strings ('' for unknown), numbers Float64, findings Int8 with <NA> for unknown.

    Raises
    ------
    UserError
        If the file is missing or breaks the schema (see `check_manifest`).
    """
    table = read_table(path)
    for name in NUMBERS:
        if name in table.columns:
            table[name] = as_number(table[name], path).astype("Float64")
    for name in findings_of(table):
        table[name] = as_number(table[name], path).astype("Float64")
    check_manifest(table, str(path))
    return table.astype(dict.fromkeys(findings_of(table), "Int8"))


def read_splits(path: Path) -> pd.DataFrame:
    """Read `image_id, patient_id, split`.

    Raises
    ------
    UserError
        If the file is missing, lacks a column, repeats an image or names another split.
    """
    table = read_table(path)
    missing = [name for name in ("image_id", "patient_id", "split") if name not in table.columns]
    if missing:
        raise UserError(f"{path}: columns {', '.join(missing)} are missing; run `cxr split` to write it anew")
    if not set(table["split"]) <= set(SPLITS):
        raise UserError(f"{path}: split is {sorted(set(table['split']) - set(SPLITS))}; allowed: {', '.join(SPLITS)}")
    if table["image_id"].duplicated().any():
        raise UserError(f"{path}: an image_id stands in more than one row; run `cxr split` to write it anew")
    return table


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file with every value as a string and nothing as ''.

    Raises
    ------
    UserError
        If the file is missing or is not a CSV table in UTF-8.
    """
    try:
        # index_col=False: otherwise one comma too many in every line moves all values one column to the left.
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # it means that values were dropped
            table = pd.read_csv(path, dtype="str", keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the stage that makes it first (`dvc repro` runs all)") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): a CSV table is needed") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a CSV table in UTF-8: {error}") from None
    table = table.fillna("")  # lines that end early
    # A comma at the end of every line (NIH's table of 2017, some spreadsheets) makes a column without name or value.
    nameless = [name for name in table.columns if name.startswith("Unnamed: ") and (table[name] == "").all()]
    return table.drop(columns=nameless)


def as_number(column: pd.Series, path: Path) -> pd.Series:
    """Turn a column of strings into numbers, '' into <NA>; raise `UserError` for anything else."""
    codes, words = pd.factorize(column)  # there are few different ones, and converting is slow
    known = pd.Series(words).replace("", None)
    numbers = pd.to_numeric(known, errors="coerce")
    bad = numbers.isna() & known.notna()
    if bad.any():
        word = known[bad].iloc[0]
        line = int(np.flatnonzero(column == word)[0]) + 2
        raise UserError(f"{path}: column {column.name} holds {word!r} in line {line}, which is not a number")
    return pd.Series(numbers.array[codes], index=column.index, name=column.name)


def _line(bad: pd.Series) -> int:
    return int(np.flatnonzero(bad.to_numpy())[0]) + 2  # line 1 is the header
