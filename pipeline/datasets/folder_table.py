"""The label table of your own films: any CSV with one row an image."""

from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.datasets import Catalogue
from pipeline.datasets.folder import NEGATIVE, drop_unknown, finding_names, with_patients
from pipeline.datasets.tables import ages, complete, one_row_each, only, read_labels, sexes, splits, text_of, views
from pipeline.datasets.tree import IMAGE_SUFFIXES, safe_path, shown
from pipeline.errors import UserError
from pipeline.findings import canonical
from pipeline.params import DatasetParams
from pipeline.progress import note, warn
from pipeline.quarantine import Reason, Refused

KNOWN = ("split", "view", "sex", "age")
"""Columns that are read wherever a table has them."""
VALUES = {"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0, "": float("nan")}
"""What a finding's column may hold; nothing is unknown."""
_STRAY = 0.5  # share of other cells from which on a column is not meant for a finding


def read_rows(raw: Path, files: list[PurePosixPath], params: DatasetParams) -> Catalogue:
    """Read `params.table` and find the image of each row.

    A row may give the image's path below the raw folder or beside the table, the end of it, or its name, all with or
    without the suffix, as long as it means one file.
    """
    table, path = _table(raw, files, params)
    refused: list[Refused] = []
    notes: Counter[str] = Counter()
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    found = _images(table[params.image_column], images, path, params.table, refused)
    findings = _findings(table, path, params)
    patients = _patients(table, params)[found.notna()]  # before a column of the same name is replaced
    rows = table.assign(path=found)[found.notna()]
    rows["image_id"] = rows["path"]
    one_row_each(rows, "image_id", path)
    labels = {finding: only(rows, name, VALUES, path).astype("float64") for name, finding in findings.items()}
    rows = rows[["image_id", "path"]].assign(**_facts(rows, path, notes), **labels)
    named = set(rows["path"])
    refused += [
        Refused(str(file), Reason.IMAGE_WITHOUT_LABEL, "not named in the label table")
        for file in images
        if str(file) not in named
    ]
    if params.patient_column:
        rows["patient_id"] = patients
        rows = drop_unknown(rows, refused, f"nothing in its column {params.patient_column}")
    else:
        rows = with_patients(rows.reset_index(drop=True), params, refused, notes)
    return Catalogue(complete(rows, list(findings.values())), refused, notes=notes)


def _table(raw: Path, files: list[PurePosixPath], params: DatasetParams) -> tuple[pd.DataFrame, Path]:
    name = safe_path(params.table, "dataset.table")
    if name not in files:
        tables = [str(file) for file in files if file.suffix.lower() == ".csv"]
        raise UserError(
            f"dataset.table is {str(name)!r}; in {raw} there is: {shown(', '.join(tables)) or 'no CSV file'}"
        )
    columns = [params.image_column, *([params.patient_column] if params.patient_column else [])]
    return read_labels(raw / name, [*columns, *params.finding_columns]), raw / name


def _findings(table: pd.DataFrame, path: Path, params: DatasetParams) -> dict[str, str]:
    """Return the finding of each column of findings."""
    names = list(params.finding_columns)
    if not names:
        taken = {params.image_column, params.patient_column, *KNOWN}
        rest = [name for name in table.columns if name not in taken]
        names = [name for name in rest if table[name].isin(list(VALUES)).all() and table[name].ne("").any()]
        names = [name for name in names if canonical(name).casefold() not in NEGATIVE]
        _say_what_is_not_taken(table[[name for name in rest if name not in names]])
    if not names:
        raise UserError(
            f"{path}: no column holds only 1, 0 or nothing; name those of the findings in dataset.finding_columns"
        )
    found = finding_names(names, str(path))
    note(f"findings: {', '.join(found.values())}")
    return found


def _say_what_is_not_taken(table: pd.DataFrame) -> None:
    """Warn of columns that look like those of a finding; no cell is quoted, because it may say who the patient is."""
    for name in table.columns:
        odd = ~table[name].isin(list(VALUES))
        if odd.mean() >= _STRAY or table[name].eq("").all():
            continue
        why = "it means that nothing was found"
        if odd.any():
            line = int(table.index[odd][0]) + 2
            why = f"{int(odd.sum())} of {len(table)} cells, first in line {line}, hold no 1, 0 or nothing; mend them"
        warn(f"column {shown(str(name))!r} is not taken for a finding: {why}, or name it in dataset.finding_columns")


def _images(
    column: pd.Series, images: list[PurePosixPath], path: Path, table: str, refused: list[Refused]
) -> pd.Series:
    """Return the path of each row's image; a row that means none or several files gets nothing and is refused."""
    ends = _ends(images)
    beside = "".join(f"{part}/" for part in safe_path(table, "dataset.table").parts[:-1])
    found: list[str | None] = []
    for line, text in enumerate(column, start=2):
        wanted = str(safe_path(text, f"{path}: {column.name} in line {line}"))
        meant = ends.get(wanted, [])
        exact = [file for file in meant if {wanted, beside + wanted} & {file, _stem(file)}]
        meant = exact if len(exact) == 1 else meant
        found.append(meant[0] if len(meant) == 1 else None)
        if not meant:
            reason = "named in the label table, but there is no such file"
            refused.append(Refused(shown(text), Reason.LABEL_WITHOUT_IMAGE, reason))
        elif len(meant) > 1:
            reason = f"line {line} of the label table may mean {len(meant)} files"
            refused.append(Refused(shown(text), Reason.CONFLICTING_NAME, reason))
    return pd.Series(found, column.index, dtype="str")


def _ends(images: list[PurePosixPath]) -> dict[str, list[str]]:
    """Return the files that each end of a path, with and without its suffix, may mean."""
    ends: dict[str, list[str]] = defaultdict(list)
    for file in map(str, images):
        end = file
        while end:
            ends[end].append(file)
            ends[_stem(end)].append(file)
            end = end.partition("/")[2]
    return ends


def _stem(file: str) -> str:
    return file.rpartition(".")[0]


def _facts(rows: pd.DataFrame, path: Path, notes: Counter[str]) -> dict[str, pd.Series]:
    facts: dict[str, pd.Series] = {}
    if "view" in rows.columns:
        facts["view"] = views(rows["view"], notes)
    if "sex" in rows.columns:
        facts["sex"] = sexes(rows["sex"], notes)
    if "age" in rows.columns:
        facts["age"] = pd.Series(ages(rows["age"], notes), rows.index, dtype="float64")
    if "split" in rows.columns:
        facts["official_split"] = splits(rows, "split", path)
    return facts


def _patients(table: pd.DataFrame, params: DatasetParams) -> pd.Series:
    return text_of(table, params.patient_column).str.strip()
