"""The prediction log: one row an image, without pixels and without anything that says who the patient is.

    with PredictionLog("predictions.db", manifest) as log:
        log.append(answers, request_id)

`append` hands rows to a thread and returns; it never waits for the database and never raises. What waits is bounded:
when `log.queue` rows wait, further ones are dropped and counted. A process that is killed loses the rows that wait:
those of the last `log.flush_seconds`, or, while the database is away, at most `log.queue`.
"""

import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from pipeline.log_store.opening import open_store, reason_of, shown
from pipeline.log_store.tables import FLOATS, MODELS, PREDICTIONS, STATUSES, WHOLE
from pipeline.log_store.trimming import trim
from pipeline.params import LogParams
from pipeline.progress import warn

if TYPE_CHECKING:
    from pipeline.exporting.manifest import Manifest
    from pipeline.predicting import Answer

_TRIM_ROWS = 5000  # rows written between two looks at what has become too old
_RETRY_SECONDS = 5.0  # between two tries while the database is away


@dataclass(frozen=True)
class LogState:
    """How the log fares; `cxr serve` shows it among its metrics.

    Attributes
    ----------
    appended, written, dropped : int
        Rows that were handed over, that are in the database, and that were lost because too many waited or because
        they could not be turned into a row.
    waiting : int
        Rows that a kill would lose now.
    error : str
        Why the last write failed; '' if it did not.
    """

    appended: int = 0
    written: int = 0
    dropped: int = 0
    waiting: int = 0
    error: str = ""


class PredictionLog:
    """A log that is being written.

    Parameters
    ----------
    address : str
        SQLAlchemy URL, or the name of an SQLite file.
    manifest : Manifest
        The model that answers.
    params : LogParams, optional
        What may wait and what is kept.

    Raises
    ------
    UserError
        If the log cannot be opened; later faults are counted, never raised.
    """

    def __init__(self, address: str, manifest: "Manifest", params: LogParams | None = None) -> None:
        self.params = params or LogParams()
        self.address = shown(address)
        self._engine = open_store(address)
        self._version, self._findings = manifest.version, list(manifest.findings)
        self._models: dict[str, int] = {}
        self._waiting: deque[dict[str, Any]] = deque()
        self._state, self._since_trim, self._warned = LogState(), _TRIM_ROWS, False
        self._changed, self._closing = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def append(
        self, answers: "Sequence[Answer]", request_id: str = "", *, timings: Mapping[str, float] | None = None
    ) -> list[str]:
        """Hand over the answers of one request; returns at once and never raises.

        Parameters
        ----------
        answers : sequence of Answer
            In the order of the request's images, which are numbered from 0. Their names are not logged.
        request_id : str
            What `cxr labels` will know them by, at most 64 characters; '': a random one for each image. It must not be
            made from anything that says who the patient is.
        timings : mapping, optional
            Milliseconds of steps outside `Answer.timings`, such as `queue`; the same for all images.

        Returns
        -------
        list of str
            The request id of each image, which `cxr labels` wants.
        """
        rows, faults, identities = [], 0, []
        for position, answer in enumerate(answers):
            identity = (request_id[:64], position) if request_id else (str(uuid.uuid4()), 0)
            identities.append(identity[0])
            try:
                rows.append(self._row(answer, *identity, timings or {}))
            except Exception:  # whatever an answer holds: the request goes on
                faults += 1
        with self._changed:
            room = max(0, self.params.queue - len(self._waiting))
            self._waiting.extend(rows[:room])
            lost = faults + len(rows[room:])
            state = self._state
            self._state = replace(
                state, appended=state.appended + len(answers), dropped=state.dropped + lost, waiting=len(self._waiting)
            )
            if len(self._waiting) >= self.params.batch:
                self._changed.notify()
        return identities

    def state(self) -> LogState:
        """Return how the log fares."""
        with self._changed:
            return replace(self._state, waiting=len(self._waiting))

    def close(self, seconds: float = 10.0) -> LogState:
        """Write what waits, for at most so many seconds, and close; return what became of all rows."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)
        with self._changed:
            left = 0 if not self._thread.is_alive() else len(self._waiting)
            state = replace(self._state, waiting=0, dropped=self._state.dropped + left)
        if lost := state.dropped:
            warn(f"{lost:,} of {state.appended:,} rows did not get into {self.address}: {state.error or 'too many'}")
        return state

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _row(self, answer: "Answer", request_id: str, image: int, timings: Mapping[str, float]) -> dict[str, Any]:
        """Pack an answer; see `pipeline.log_store.tables` for the columns."""
        verdict = answer.verdict
        steps = {**timings, **answer.timings}
        return {
            "time": time.time(),
            "request_id": request_id,
            "image": image,
            "names": {"findings": self._findings, "statistics": list(answer.statistics), "steps": list(steps)},
            "status": STATUSES.index(answer.status),
            "reasons": " ".join(str(reason) for reason in (verdict.reasons if verdict else ()))[:200],
            "statistics": _packed(list(answer.statistics.values()), FLOATS),
            "sketch": _packed(answer.sketch, FLOATS),
            "probabilities": _packed(answer.raw, FLOATS),
            "decisions": _packed(answer.decisions, WHOLE),
            "latency": _packed(list(steps.values()), FLOATS),
        }

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._closing and len(self._waiting) < self.params.batch:
                    self._changed.wait(self.params.flush_seconds)
                rows = [self._waiting[k] for k in range(min(len(self._waiting), self.params.batch))]
                closing = self._closing
            written = self._write(rows) if rows else True
            with self._changed:
                if written:
                    for _ in rows:
                        self._waiting.popleft()
                    self._state = replace(self._state, written=self._state.written + len(rows))
                elif not closing:
                    self._changed.wait(_RETRY_SECONDS)
                if closing and (not written or not self._waiting):
                    self._state = replace(self._state, dropped=self._state.dropped + len(self._waiting))
                    break
        self._engine.dispose()

    def _write(self, rows: list[dict[str, Any]]) -> bool:
        try:
            with self._engine.begin() as connection:
                packed = [self._with_model(connection, row) for row in rows]
                connection.execute(sa.insert(PREDICTIONS), packed)
            self._since_trim += len(rows)
            if self._since_trim >= _TRIM_ROWS:
                trim(self._engine, self.params, time.time())
                self._since_trim = 0
        except Exception as error:  # the database's, its driver's, the file system's: tried again, then said
            reason = reason_of(error) if isinstance(error, SQLAlchemyError) else type(error).__name__
            self._models.clear()  # what was inserted was rolled back
            with self._changed:
                self._state = replace(self._state, error=reason)
            if not self._warned:
                self._warned = True
                warn(f"the prediction log {self.address} cannot be written ({reason}): rows wait, answers go on")
            return False
        with self._changed:
            self._state = replace(self._state, error="")
        self._warned = False
        return True

    def _with_model(self, connection: sa.Connection, row: dict[str, Any]) -> dict[str, Any]:
        names = json.dumps(row["names"])
        if names not in self._models:
            where = (MODELS.c.version == self._version) & (MODELS.c.names == names)
            known = connection.execute(sa.select(MODELS.c.id).where(where).order_by(MODELS.c.id).limit(1)).scalar()
            if known is None:
                made = connection.execute(sa.insert(MODELS).values(version=self._version, names=names))
                known = made.inserted_primary_key[0] if made.inserted_primary_key else 0
            self._models[names] = int(known)
        return {key: value for key, value in row.items() if key != "names"} | {"model": self._models[names]}


def _packed(values: Any, kind: np.dtype[Any]) -> bytes | None:
    """Return numbers as the bytes of one column; None for none."""
    if values is None or len(values) == 0:
        return None
    return np.ascontiguousarray(values, kind).tobytes()
