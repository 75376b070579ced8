"""Tables of the people in the splits: rows of strings that are ready to print, no computation of scores."""

from typing import Any

import pandas as pd

from pipeline.findings import readable
from pipeline.manifest import SPLITS
from pipeline.reporting.text import SPLITS as SPLIT_NAMES
from pipeline.reporting.text import percent

_WORDS = {
    "view": {"PA": "View: PA", "AP": "View: AP", "L": "View: lateral", "": "View: unknown"},
    "sex": {"F": "Sex: female", "M": "Sex: male", "": "Sex: unknown"},
}


def characteristics(groups: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """Describe groups of images: how many, of how many patients, view, sex and age.

    Parameters
    ----------
    groups : dict of str to DataFrame
        Name of the column to its images; the first one is all of them.

    Returns
    -------
    dict
        `columns` (names of the groups) and `rows` (label, one string per group). Sex and age are counted per image;
        age as median, quartiles and range in years. Words that occur in no group have no row.
    """
    tables = list(groups.values())
    rows = [
        ("Images", [f"{len(table):,}" for table in tables]),
        ("Share of the images", [_part(len(table), len(tables[0])) for table in tables]),
        ("Patients", [f"{table['patient_id'].nunique():,}" for table in tables]),
    ]
    for column, words in _WORDS.items():
        for word, label in words.items():
            counts = [int((table[column] == word).sum()) for table in tables]
            if any(counts):
                rows.append((label, [_share(n, len(table)) for n, table in zip(counts, tables, strict=True)]))
    return {"columns": list(groups), "rows": rows + _ages(tables)}


def prevalence(split: dict[str, Any], findings: list[str]) -> dict[str, Any]:
    """Return each finding's positives and prevalence among the images where it is known, per split."""
    rows = []
    for name in findings:
        cells = []
        for part in SPLITS:
            counts = split[part]["findings"][name]
            cells.append((f"{counts['positive']:,}", percent(counts["prevalence"]), f"{counts['known']:,}"))
        rows.append((readable(name), cells))
    all_known = all(
        split[part]["findings"][name]["known"] == split[part]["images"] for part in SPLITS for name in findings
    )
    return {"columns": [SPLIT_NAMES[name] for name in SPLITS], "rows": rows, "all_known": all_known}


def _ages(tables: list[pd.DataFrame]) -> list[tuple[str, list[str]]]:
    ages = [table["age"].dropna() for table in tables]
    unknown = [int(table["age"].isna().sum()) for table in tables]
    rows: list[tuple[str, list[str]]] = []
    if any(len(age) for age in ages):
        cells = [[f"{age.quantile(q):.0f}" for q in (0.5, 0.25, 0.75, 0, 1)] if len(age) else None for age in ages]
        rows.append(("Age in years: median (quartiles)", [f"{c[0]} ({c[1]} to {c[2]})" if c else "–" for c in cells]))
        rows.append(("Age in years: range", [f"{c[3]} to {c[4]}" if c else "–" for c in cells]))
    if any(unknown):
        rows.append(("Age: unknown", [_share(n, len(table)) for n, table in zip(unknown, tables, strict=True)]))
    return rows


def _part(count: int, total: int) -> str:
    return percent(count / total) if total else "–"


def _share(count: int, total: int) -> str:
    return f"{count:,} ({percent(count / total)})" if total else "0"
