"""Label tables: bounded, complete, and their words for sex, view, age and split turned into the manifest's."""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.datasets.tree import shown
from pipeline.errors import UserError
from pipeline.findings import in_order
from pipeline.manifest import NUMBERS, read_table

MAX_BYTES = 256 * 2**20
"""The largest label table of the sets here, CheXpert's train.csv, has some 30 MB."""
MAX_COLUMNS = 1000
MAX_AGE = 120.0
"""Years; NIH's table of 2017 holds ages up to 414 and RSNA's headers up to 155, which become unknown."""

_MAX_HEADER = 2**20
_AGE = re.compile(r"^(\d{1,5})(?:\.0)?([YMWD]?)$", re.ASCII)  # DICOM PS3.5, value representation AS
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
_SEX = {"f": "F", "female": "F", "m": "M", "male": "M"}
_VIEW = {"pa": "PA", "ap": "AP", "l": "L", "ll": "L", "rl": "L", "lateral": "L", "lat": "L"}
_SPLIT = {name: name for name in ("train_val", "train", "val", "test")} | {"valid": "val", "validation": "val"}


def read_labels(path: Path, needed: Sequence[str], renamed: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read a label table as strings, '' for nothing.

    Parameters
    ----------
    path : Path
        CSV, UTF-8.
    needed : sequence of str
        Columns it must have, after renaming.
    renamed : mapping, optional
        Other names of columns to the usual ones.

    Raises
    ------
    UserError
        If it is too large, is not CSV, repeats a column or lacks one.
    """
    _check_header(path)
    table = read_table(path)
    table = table.rename(columns=dict(renamed or {}))
    if table.columns.has_duplicates:
        twice = shown(str(table.columns[table.columns.duplicated()][0]))
        raise UserError(f"{path}: two columns mean {twice!r}; remove one")
    if missing := [name for name in needed if name not in table.columns]:
        found = shown(", ".join(table.columns))
        raise UserError(f"{path}: columns {', '.join(missing)} are missing; found {found}")
    return table


def _check_header(path: Path) -> None:
    """Refuse what would fill the memory or be read wrongly, before the table is parsed."""
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            start = handle.readline(_MAX_HEADER + 1)
    except OSError:
        return  # `read_table` says what is wrong
    if size > MAX_BYTES:
        raise UserError(f"{path} has {size / 2**20:.0f} MiB; a label table of at most {MAX_BYTES >> 20} MiB is needed")
    line = (start.splitlines() or [b""])[0]  # of the bytes: lines may end with CR alone, which readline() passes by
    try:
        names = next(csv.reader([line.decode("utf-8-sig")]), [])
    except UnicodeDecodeError:
        return
    except csv.Error as error:
        raise UserError(f"{path}: the header is not that of a CSV table ({error})") from None
    if len(line) > _MAX_HEADER or len(names) > MAX_COLUMNS:
        raise UserError(f"{path}: the header has more than {MAX_COLUMNS} columns; is it a label table?")
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise UserError(f"{path}: column {shown(twice[0])!r} stands twice in the header; remove one")


def one_row_each(table: pd.DataFrame, column: str, path: Path) -> None:
    """Refuse a table that names an image in more than one row."""
    repeated = table[column].duplicated()
    if repeated.any():
        name = shown(str(table.loc[repeated, column].iloc[0]))
        raise UserError(f"{path}: image {name!r} stands in more than one row")


def only(table: pd.DataFrame, column: str, allowed: Mapping[str, object], path: Path) -> pd.Series:
    """Return what `allowed` maps each text of a column to.

    Raises
    ------
    UserError
        For the first other text, with its line.
    """
    bad = ~table[column].isin(list(allowed))
    if bad.any():
        line = int(table.index[bad][0]) + 2
        found = shown(str(table.loc[bad, column].iloc[0]))
        words = ", ".join(repr(word) if word else "nothing" for word in allowed)
        raise UserError(f"{path}: {column} is {found!r} in line {line}; allowed: {words}")
    return table[column].map(dict(allowed))


def text_of(table: pd.DataFrame, column: str) -> pd.Series:
    """Return a column, or '' in every row where the table lacks it."""
    return table[column] if column in table.columns else pd.Series("", index=table.index, dtype="str")


def sexes(column: pd.Series, notes: Counter[str]) -> pd.Series:
    """Turn F, female, M, male into F and M; anything else is unknown, and another word is counted."""
    return _words(column, _SEX, notes, "sex")


def views(column: pd.Series, notes: Counter[str]) -> pd.Series:
    """Turn PA, AP, lateral…, lat. and DICOM's LL and RL (PS3.3 C.8.1.1) into PA, AP and L.

    Anything else is unknown, and another word is counted.
    """
    lateral = column.str.strip().str.lower().str.match(r"lateral|lat\b")
    return _words(column.mask(lateral, "lateral"), _VIEW, notes, "view position")


def splits(table: pd.DataFrame, column: str, path: Path) -> pd.Series:
    """Turn train, val (valid, validation), test, train_val or nothing into the manifest's words, or refuse."""
    lower = table.assign(**{column: table[column].str.strip().str.lower()})
    return only(lower, column, {"": ""} | _SPLIT, path).astype("str")


def split_folder(name: str) -> str:
    """Return the split that a folder's name means, or ''."""
    return _SPLIT.get(name.lower(), "")


def _words(column: pd.Series, words: Mapping[str, str], notes: Counter[str], what: str) -> pd.Series:
    texts = [text.strip().lower() for text in column.tolist()]
    if others := sum(text not in words for text in texts if text):
        notes[f"{what} of another word: unknown"] += others
    return pd.Series([words.get(text, "") for text in texts], index=column.index, dtype="str")


def ages(column: pd.Series, notes: Counter[str], least: float = 0.0) -> list[float]:
    """Turn ages such as 58, 058Y and 006M into years; what is below `least` or impossible is unknown and counted."""
    return [_age(text, notes, least) for text in column.tolist()]


def _age(text: str, notes: Counter[str], least: float) -> float:
    match = _AGE.match(text.strip())
    return plausible(int(match[1]) * _YEARS[match[2]] if match else float("nan"), notes, least)


def plausible(years: float, notes: Counter[str], least: float = 0.0) -> float:
    """Return an age in years, or NaN (counted in `notes`) if nobody is that old."""
    if least <= years <= MAX_AGE:
        return round(years, 2)
    notes["age missing or impossible: unknown"] += 1
    return float("nan")


def whole(column: pd.Series, least: int) -> pd.Series:
    """Turn text into whole numbers from `least`; anything else is unknown."""
    number = pd.to_numeric(column, errors="coerce").astype("float64")
    return number.where(number.between(least, 2**31) & (number % 1 == 0))


def complete(rows: pd.DataFrame, findings: Sequence[str]) -> pd.DataFrame:
    """Return a catalogue's rows: what they lack is unknown, findings are Int8 in the vocabulary's order."""
    rows = rows.reset_index(drop=True)
    for name in ("view", "sex", "official_split"):
        rows[name] = text_of(rows, name)
    for name in NUMBERS:
        rows[name] = (rows[name] if name in rows.columns else pd.Series(float("nan"), rows.index)).astype("float64")
    ordered = in_order(list(findings))
    fixed = ["image_id", "path", "patient_id", "view", "sex", *NUMBERS, "official_split"]
    words = dict.fromkeys(("image_id", "path", "patient_id", "view", "sex", "official_split"), "str")
    return rows[[*fixed, *ordered]].astype(words | dict.fromkeys(ordered, "Int8"))


def single_table(
    raw: Path, files: Sequence[PurePosixPath], needed: Sequence[str], renamed: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Read a table that may lie there in several equal copies; copies that differ are refused (see `read_labels`)."""
    tables = [read_labels(raw / name, needed, renamed) for name in files]
    for name, table in zip(files[1:], tables[1:], strict=True):
        if not table.equals(tables[0]):
            raise UserError(f"{raw}: {files[0]} and {name} differ; keep the one that belongs to the images")
    return tables[0]
