"""`cxr labels`: add the truth to the prediction log when it arrives, by request id."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import sqlalchemy as sa

from pipeline.errors import UserError
from pipeline.findings import canonical
from pipeline.log_store.opening import open_store
from pipeline.log_store.reading import models_of
from pipeline.log_store.tables import LABELS, PREDICTIONS, WHOLE
from pipeline.progress import note, warn

VALUES = {"1": 1, "0": 0, "1.0": 1, "0.0": 0, "": -1}
"""What a finding's cell may hold; nothing is unknown."""
_AT_ONCE = 500  # request ids in a query; SQLite allows 32,766 bound values


def add_labels(address: str, path: Path, now: float | None = None) -> int:
    """Add a table of truths to the log; an image that has one already gets the new one.

    Parameters
    ----------
    address : str
        The log.
    path : Path
        CSV with `request_id`, a column for each finding that is known (1, 0 or nothing), perhaps `image` (which of the
        request's images, from 0; default 0) and `patient` (anything that is equal for images of one patient). The
        patient is not stored: a number drawn for this file stands for him, so that images of one patient are not
        taken for independent.
    now : float, optional
        When the truth arrived; default: now.

    Returns
    -------
    int
        How many images got a truth.

    Raises
    ------
    UserError
        If the table is faulty, or no row of it is in the log.
    """
    table = read_table(path)
    engine = open_store(address, create=False)
    try:
        found = _found(engine, table)
        findings = {number: names.findings for number, names in models_of(engine).items()}
        known = {name for names in findings.values() for name in names}
        columns = {name: canonical(name) for name in table.columns if canonical(name) in known}
        if not columns:
            raise UserError(f"{path} has no column of a finding that the log's models know: {', '.join(sorted(known))}")
        rows = _rows(table, columns, found, findings, time.time() if now is None else now)
        if not rows:
            raise UserError(f"{path}: none of its {len(table):,} request ids is in the log")
        with engine.begin() as connection:
            connection.execute(sa.insert(LABELS), rows)
    finally:
        engine.dispose()
    note(f"{len(rows):,} images have their truth now ({', '.join(columns.values())})")
    if missing := len(table) - len(rows):
        warn(f"{missing:,} of {len(table):,} rows of {path} are of no image in the log: mistyped, or trimmed away")
    return len(rows)


def read_table(path: Path) -> pd.DataFrame:
    """Read and check a table of truths; all cells are text.

    Raises
    ------
    UserError
        If a column is missing, a cell holds something else than 1, 0 or nothing, or an image is there twice.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: give a CSV file with request_id and a column for each finding") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no CSV file in UTF-8: {str(error)[:100]}") from None
    if "request_id" not in table.columns:
        raise UserError(f"{path} has no column request_id; it has {', '.join(map(str, table.columns))[:200]}")
    if "image" not in table.columns:
        table["image"] = "0"
    wrong = ~table["image"].str.fullmatch("[0-9]{1,4}")
    if wrong.any():
        raise UserError(
            f"{path}: image is {table.loc[wrong, 'image'].iloc[0]!r} in line {_line(wrong)}; 0, 1, 2 … is needed"
        )
    twice = table.duplicated(["request_id", "image"])
    if twice.any():
        raise UserError(f"{path}: line {_line(twice)} repeats request {table.loc[twice, 'request_id'].iloc[0]!r}")
    return table


def _found(engine: sa.Engine, table: pd.DataFrame) -> dict[tuple[str, int], int]:
    """Return the model of each image of the table that the log holds."""
    found: dict[tuple[str, int], int] = {}
    names = table["request_id"].unique().tolist()
    with engine.connect() as connection:
        for start in range(0, len(names), _AT_ONCE):
            where = PREDICTIONS.c.request_id.in_(names[start : start + _AT_ONCE])
            query = sa.select(PREDICTIONS.c.request_id, PREDICTIONS.c.image, PREDICTIONS.c.model).where(where)
            found |= {(request, image): model for request, image, model in connection.execute(query)}
    return found


def _rows(
    table: pd.DataFrame,
    columns: dict[str, str],
    found: dict[tuple[str, int], int],
    findings: dict[int, tuple[str, ...]],
    now: float,
) -> list[dict[str, object]]:
    values = pd.DataFrame({finding: table[name].str.strip().map(VALUES) for name, finding in columns.items()})
    for name, finding in columns.items():
        if (wrong := values[finding].isna()).any():
            raise UserError(
                f"{table.loc[wrong, name].iloc[0]!r} in line {_line(wrong)}, column {name}, is no truth; "
                "1, 0 or nothing"
            )
    people = _numbers(table["patient"]) if "patient" in table.columns else _numbers(table["request_id"])
    rows: list[dict[str, object]] = []
    for k, (request, image) in enumerate(zip(table["request_id"], table["image"].astype(int), strict=True)):
        if (model := found.get((request, image))) is None:
            continue
        truth = np.array([values[name].iloc[k] if name in values else -1 for name in findings[model]], WHOLE)
        rows.append(
            {"request_id": request, "image": image, "time": now, "patient": people[k], "truth": truth.tobytes()}
        )
    return rows


def _numbers(patients: pd.Series) -> list[int]:
    """Return a random number for each patient of this file; which is whose is forgotten with it."""
    codes, names = pd.factorize(patients)
    drawn = np.random.default_rng().choice(2**31 - 1, size=len(names), replace=False)
    return [int(drawn[code]) for code in codes]


def _line(wrong: pd.Series) -> int:
    return int(np.flatnonzero(wrong.to_numpy())[0]) + 2
