"""The columns of a predictions table: read as text, given their usual names, turned into numbers or refused.

A message names lines and images of the user's own table, the first few of them, and never a patient.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.datasets.tables import read_labels
from pipeline.datasets.tree import shown
from pipeline.errors import UserError
from pipeline.findings import canonical
from pipeline.manifest import COLUMNS

KNOWN = ("image_id", "patient_id", "split", "view", "sex", "age")
"""Columns that say who and what an image is."""

_NAMED_OTHERWISE = {"Image Index": "image_id"}  # as in NIH's tables and in predictions made from them
_PREFIXES = {"p_": "p_", "prob_": "p_", "y_": "y_"}
_NOT_FINDINGS = {*KNOWN, *COLUMNS}
_PACKED = {".gz", ".zip", ".bz2", ".xz", ".zst", ".7z", ".tar"}
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_FEW = 3


def read_columns(path: Path) -> pd.DataFrame:
    """Read a table of strings, `image_id` under that name, and refuse what is no table before it is parsed."""
    if not path.exists():
        raise UserError(f"{path} is missing; the path of a CSV table is needed")
    if path.suffix.lower() in _PACKED:
        raise UserError(f"{path} is packed; unpack it first, a CSV table is needed")
    if path.is_file():
        with path.open("rb") as handle:
            header = handle.readline(2**20).decode("utf-8", "replace")
        for separator, word in _SEPARATORS.items():
            if separator in header and "," not in header:
                raise UserError(f"{path} is separated by {word}; a table separated by commas is needed")
    table = read_labels(path, ())
    for name, usual in _NAMED_OTHERWISE.items():
        if usual not in table.columns:
            table = table.rename(columns={name: usual})
    if "image_id" not in table.columns:
        raise UserError(f"{path}: column image_id (or Image Index) is missing; found {few(list(table.columns), 8)}")
    if not len(table):
        raise UserError(f"{path} has a header and no rows; a row for each image is needed")
    return table


def name_findings(table: pd.DataFrame, path: Path, bare: str = "") -> pd.DataFrame:
    """Give finding columns their usual names: `y_` or `p_` and the vocabulary's word.

    `bare` is the prefix of columns without one, where no column has it.
    """
    names = {}
    for name in table.columns:
        for prefix, usual in _PREFIXES.items():
            if name.startswith(prefix) and len(name) > len(prefix):
                names[name] = usual + canonical(name.removeprefix(prefix))
    if bare and not any(name.startswith(bare) for name in names.values()):
        plain = [name for name in table.columns if name not in {*_NOT_FINDINGS, *names}]
        names |= {name: bare + canonical(name) for name in plain if not name.startswith("Unnamed: ")}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        both = [name for name, usual in names.items() if usual == twice[0]]
        raise UserError(f"{path}: columns {few(both)} mean the same finding ({twice[0]}); remove one")
    return table.rename(columns=names)


def findings_with(table: pd.DataFrame, prefix: str) -> list[str]:
    """Return the findings whose columns have the prefix `y_` or `p_`."""
    return [name.removeprefix(prefix) for name in table.columns if name.startswith(prefix)]


def refuse_repeats(table: pd.DataFrame, path: Path) -> None:
    """Refuse a table in which a row has no `image_id`, or two rows the same."""
    empty = table["image_id"] == ""
    if empty.any():
        raise UserError(f"{path}: image_id is empty {lines(table, empty, named=False)}")
    repeated = table["image_id"].duplicated()
    if repeated.any():
        raise UserError(f"{path}: image_id stands in more than one row: it comes again {lines(table, repeated)}")


def probabilities_of(table: pd.DataFrame, column: str, path: Path) -> pd.Series:
    """Return a column as numbers from 0 to 1; anything else, and an empty cell, is refused."""
    number = pd.to_numeric(table[column], errors="coerce").astype("float64")
    bad = ~number.between(0, 1)
    if bad.any():
        raise UserError(
            f"{path}: {column} is {values(table, column, bad)} {lines(table, bad)}; allowed: numbers from 0 to 1, "
            "probabilities and not outputs before the sigmoid"
        )
    return number


def labels_of(table: pd.DataFrame, column: str, path: Path) -> pd.Series:
    """Return a column as 1, 0 and NaN for an empty cell; anything else is refused."""
    number = pd.to_numeric(table[column], errors="coerce").astype("float64")
    bad = ~number.isin((0, 1)) & (table[column] != "")
    if bad.any():
        raise UserError(
            f"{path}: {column} is {values(table, column, bad)} {lines(table, bad)}; allowed: 1, 0, "
            "or nothing for unknown"
        )
    return number


def values(table: pd.DataFrame, column: str, bad: pd.Series) -> str:
    """Name the first few different values of a column where it is bad."""
    found = table.loc[bad, column].drop_duplicates().head(_FEW)
    return ", ".join(repr(shown(value)[:30]) if value else "empty" for value in found)


def lines(table: pd.DataFrame, bad: pd.Series, *, named: bool = True) -> str:
    """Say where the rows are: how many, and the lines and images of the first."""
    rows = np.flatnonzero(bad.to_numpy())
    places = [
        f"line {row + 2}" + (f" (image {shown(table['image_id'].iloc[row])[:60]})" if named else "")
        for row in rows[:_FEW]
    ]
    return f"in {len(rows):,} row{'s' if len(rows) > 1 else ''}, first {', '.join(places)}"


def few(names: list[str], most: int = _FEW) -> str:
    """Name the first few, and say how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(shown(name)[:60] for name in names[:most]) + more
