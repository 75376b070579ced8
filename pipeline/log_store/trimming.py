"""Keeping the prediction log small: rows that are too old or too many are removed, with their labels."""

import sqlalchemy as sa

from pipeline.log_store.tables import LABELS, PREDICTIONS
from pipeline.params import LogParams

_DAY = 86_400.0
_AT_ONCE = 20_000  # rows a transaction, so that no writer waits long for it


def trim(engine: sa.Engine, params: LogParams, now: float) -> int:
    """Remove rows older than `keep_days` and all but the newest `keep_rows`; give the space back.

    Parameters
    ----------
    engine : Engine
        Of `open_store`.
    params : LogParams
        What is kept.
    now : float
        Seconds since 1970, UTC.

    Returns
    -------
    int
        How many rows were removed.
    """
    with engine.connect() as connection:
        newest = connection.execute(sa.select(sa.func.max(PREDICTIONS.c.id))).scalar() or 0
        old = connection.execute(
            sa.select(sa.func.max(PREDICTIONS.c.id)).where(PREDICTIONS.c.time < now - params.keep_days * _DAY)
        ).scalar()
    last = max(old or 0, newest - params.keep_rows)  # rows are numbered in the order of writing
    removed = 0
    while last > 0:
        with engine.begin() as connection:
            some = sa.select(PREDICTIONS.c.id).where(PREDICTIONS.c.id <= last).limit(_AT_ONCE)
            count = connection.execute(sa.delete(PREDICTIONS).where(PREDICTIONS.c.id.in_(some))).rowcount
        removed += count
        if count < _AT_ONCE:
            break
    if removed:
        _remove_labels(engine)
        _give_back(engine)
    return removed


def _remove_labels(engine: sa.Engine) -> None:
    """Remove the labels whose image is gone."""
    kept = sa.exists().where(PREDICTIONS.c.request_id == LABELS.c.request_id)
    with engine.begin() as connection:
        connection.execute(sa.delete(LABELS).where(~kept))


def _give_back(engine: sa.Engine) -> None:
    """Return freed pages to the disk; PostgreSQL's autovacuum uses them again by itself."""
    if engine.dialect.name == "sqlite":
        raw = engine.raw_connection()
        try:
            cursor = raw.cursor()
            # Not execute, which takes one step, and each step frees one page.
            cursor.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")
            cursor.close()
        finally:
            raw.close()
