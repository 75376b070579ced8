"""Reading the prediction log in the order it was written, some thousand rows at a time, as arrays.

What a row does not have, such as the probabilities of a film that was refused, is NaN (-1 for decisions and labels).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.log_store.tables import FLOATS, LABELS, MODELS, PREDICTIONS, WHOLE

CHUNK = 10_000


@dataclass(frozen=True)
class Names:
    """What the packed numbers of a row are.

    Attributes
    ----------
    version : str
        Of the model.
    findings, statistics, steps : tuple of str
        Of probabilities and decisions; of `statistics`; of `latency`.
    """

    version: str
    findings: tuple[str, ...]
    statistics: tuple[str, ...]
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Rows:
    """Some rows of the log.

    Attributes
    ----------
    ids : ndarray of shape (n,), dtype=int64
        Rising.
    times : ndarray of shape (n,)
        Seconds since 1970, UTC.
    status : ndarray of shape (n,), dtype=int8
        Index into `tables.STATUSES`.
    statistics, sketch, probabilities, latency : dict of str to ndarray of shape (n,), or ndarray of shape (n, d)
        By name; the sketch as one array.
    decisions : ndarray of shape (n, n_findings), dtype=int8
        1, 0 or -1.
    """

    ids: NDArray[np.int64]
    times: NDArray[np.float64]
    status: NDArray[np.int8]
    statistics: dict[str, NDArray[np.float32]]
    sketch: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    decisions: NDArray[np.int8]
    latency: dict[str, NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Labelled:
    """Rows whose truth has arrived, in the order of its arrival.

    Attributes
    ----------
    times, arrived : ndarray of shape (n,)
        When the image was answered, and when its truth came; seconds since 1970.
    patients : ndarray of shape (n,), dtype=int64
        Numbers drawn for each file of labels.
    truth : ndarray of shape (n, n_findings), dtype=int8
        1, 0, -1 unknown.
    probabilities : ndarray of shape (n, n_findings), dtype=float32
        Raw outputs; NaN where there was no answer.
    """

    times: NDArray[np.float64]
    arrived: NDArray[np.float64]
    patients: NDArray[np.int64]
    truth: NDArray[np.int8]
    probabilities: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.times)

    def __add__(self, other: "Labelled") -> "Labelled":
        """Return these rows and then the other's."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in Labelled.__dataclass_fields__)
        return Labelled(*(np.concatenate(pair) for pair in pairs))

    def __getitem__(self, rows: slice) -> "Labelled":
        """Return some rows."""
        return Labelled(*(getattr(self, name)[rows] for name in Labelled.__dataclass_fields__))


def models_of(engine: sa.Engine) -> dict[int, Names]:
    """Return what the rows of each model hold."""
    with engine.connect() as connection:
        found = connection.execute(sa.select(MODELS.c.id, MODELS.c.version, MODELS.c.names)).all()
    known = {}
    for number, version, text in found:
        names = json.loads(text)
        known[number] = Names(version, *(tuple(names[key]) for key in ("findings", "statistics", "steps")))
    return known


def counts_of(engine: sa.Engine) -> dict[str, int]:
    """Return how many rows of each model version the log holds."""
    versions = {number: names.version for number, names in models_of(engine).items()}
    query = sa.select(PREDICTIONS.c.model, sa.func.count()).group_by(PREDICTIONS.c.model)
    counts: dict[str, int] = {}
    with engine.connect() as connection:
        for number, count in connection.execute(query):
            counts[versions[number]] = counts.get(versions[number], 0) + count
    return counts


def read_rows(
    engine: sa.Engine, model: str, findings: tuple[str, ...], since: float = 0.0, chunk: int = CHUNK
) -> Iterator[Rows]:
    """Yield the rows of one model, whatever format it was exported to, oldest first.

    Parameters
    ----------
    engine : Engine
        Of `open_store`.
    model : str
        The first characters of its version.
    findings : tuple of str
        What its outputs are; the log must agree.
    since : float
        Leave out rows before this time.
    chunk : int
        Rows at a time.

    Raises
    ------
    UserError
        If rows of that model are of other findings.
    """
    known = {number: names for number, names in models_of(engine).items() if names.version.startswith(model)}
    for names in known.values():
        if names.findings != findings:
            raise UserError(
                f"the log's rows of model {names.version} are of {', '.join(names.findings)}, and the reference is of "
                f"{', '.join(findings)}: give the reference that `cxr evaluate` wrote for that model"
            )
    columns = ("id", "time", "status", "model", "statistics", "sketch", "probabilities", "decisions", "latency")
    query = (
        sa.select(*(PREDICTIONS.c[name] for name in columns))
        .where(PREDICTIONS.c.model.in_(known), PREDICTIONS.c.time >= since)
        .order_by(PREDICTIONS.c.id)
    )
    with engine.connect() as connection:
        result = connection.execution_options(stream_results=True, yield_per=chunk).execute(query)
        for rows in result.partitions():
            yield _rows_of(list(zip(*rows, strict=True)), known, len(findings))


def read_labelled(
    engine: sa.Engine, model: str, findings: tuple[str, ...], since: float = 0.0, chunk: int = CHUNK
) -> Iterator[Labelled]:
    """Yield the rows of one model whose truth has arrived, in the order of arrival; of several truths the last.

    Parameters
    ----------
    engine, model, findings, since, chunk
        As for `read_rows`.
    """
    known = [number for number, names in models_of(engine).items() if names.version.startswith(model)]
    last = sa.select(sa.func.max(LABELS.c.id)).group_by(LABELS.c.request_id, LABELS.c.image)
    query = (
        sa.select(PREDICTIONS.c.time, LABELS.c.time, LABELS.c.patient, LABELS.c.truth, PREDICTIONS.c.probabilities)
        .join(LABELS, (LABELS.c.request_id == PREDICTIONS.c.request_id) & (LABELS.c.image == PREDICTIONS.c.image))
        .where(PREDICTIONS.c.model.in_(known), PREDICTIONS.c.time >= since, LABELS.c.id.in_(last))
        .order_by(LABELS.c.id)
    )
    with engine.connect() as connection:
        result = connection.execution_options(stream_results=True, yield_per=chunk).execute(query)
        for rows in result.partitions():
            times, arrived, patients, truth, outputs = zip(*rows, strict=True)
            yield Labelled(
                np.array(times, np.float64),
                np.array(arrived, np.float64),
                np.array(patients, np.int64),
                _unpacked(truth, WHOLE, len(findings), -1),
                _unpacked(outputs, FLOATS, len(findings), np.nan),
            )


def _rows_of(columns: list[tuple[Any, ...]], known: dict[int, Names], k: int) -> Rows:
    ids, times, status, models, statistics, sketch, probabilities, decisions, latency = columns
    model = np.array(models, np.int64)
    width = max((len(value) // FLOATS.itemsize for value in sketch if value), default=0)
    return Rows(
        np.array(ids, np.int64),
        np.array(times, np.float64),
        np.array(status, np.int8),
        _named(statistics, model, {number: names.statistics for number, names in known.items()}),
        _unpacked(sketch, FLOATS, width, np.nan),
        _unpacked(probabilities, FLOATS, k, np.nan),
        _unpacked(decisions, WHOLE, k, -1),
        _named(latency, model, {number: names.steps for number, names in known.items()}),
    )


def _named(
    values: tuple[bytes | None, ...], model: NDArray[np.int64], names: dict[int, tuple[str, ...]]
) -> dict[str, NDArray[np.float32]]:
    """Return a column for each name; rows of different models may have different ones."""
    found: dict[str, NDArray[np.float32]] = {}
    for number in np.unique(model):
        rows = np.flatnonzero(model == number)
        table = _unpacked(tuple(values[row] for row in rows), FLOATS, len(names[int(number)]), np.nan)
        for column, name in enumerate(names[int(number)]):
            found.setdefault(name, np.full(len(model), np.nan, np.float32))[rows] = table[:, column]
    return found


def _unpacked(values: tuple[bytes | None, ...], kind: np.dtype[Any], width: int, absent: float) -> NDArray[Any]:
    """Return packed values as an array (n, width); what is missing or of another length is `absent`."""
    missing = np.full(width, absent, kind).tobytes()
    whole = b"".join(value if value and len(value) == len(missing) else missing for value in values)
    return np.frombuffer(whole, kind).reshape(len(values), width)
