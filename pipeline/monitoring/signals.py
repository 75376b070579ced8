"""What is watched: from rows of the reference, or of the log, to one column of values for each signal."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.log_store.reading import Rows
from pipeline.log_store.tables import STATUSES
from pipeline.monitoring.reference import VIEWS, Reference

ATOM = 0.8
"""A statistic with one value for a larger share of the reference is watched as the share that differs from it."""
_LEAST_VIEWS = 30  # patients' images of each view that a view estimate is learnt from


@dataclass(frozen=True)
class Values:
    """Columns of some images.

    Attributes
    ----------
    ids, times : ndarray of shape (n,)
        Number in the log and seconds since 1970.
    continuous : ndarray of shape (n, n_continuous)
        NaN where unknown.
    shares : ndarray of shape (n, n_shares)
        1, 0, NaN.
    sketch : ndarray of shape (n, d)
        Of the features.
    latency : ndarray of shape (n, n_steps)
        Milliseconds.
    rejected : ndarray of shape (n, 2)
        Flagged by the gate, failed: 1 or 0.
    probabilities : ndarray of shape (n, n_findings)
        Raw outputs.
    """

    ids: NDArray[np.int64]
    times: NDArray[np.float64]
    continuous: NDArray[Any]
    shares: NDArray[np.float64]
    sketch: NDArray[Any]
    latency: NDArray[Any]
    rejected: NDArray[np.float64]
    probabilities: NDArray[Any]

    def __len__(self) -> int:
        return len(self.ids)

    def __add__(self, other: "Values") -> "Values":
        """Return these rows and then the other's."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in Values.__dataclass_fields__)
        return Values(*(np.concatenate(pair) for pair in pairs))

    def __getitem__(self, rows: slice) -> "Values":
        """Return some rows."""
        return Values(*(getattr(self, name)[rows] for name in Values.__dataclass_fields__))


@dataclass(frozen=True)
class Signals:
    """Which signals there are, and how their values are had from a row.

    Attributes
    ----------
    findings : tuple of str
        Of the probabilities.
    thresholds : ndarray of shape (n_findings,)
        Of the operating point that is watched, on raw outputs.
    statistics : tuple of str
        Image statistics that are watched as they are.
    constants : dict of str to float
        Those with nearly always the same value, and that value.
    view : ndarray of shape (17,) or None
        Weights of sketch and intercept of the estimate of the view; None: the reference does not know its views.
    sketch : int
        Numbers of a sketch.
    """

    findings: tuple[str, ...]
    thresholds: NDArray[np.float64]
    statistics: tuple[str, ...]
    constants: dict[str, float]
    view: NDArray[np.float64] | None
    sketch: int

    @property
    def continuous(self) -> list[str]:
        """Names of the columns of `Values.continuous`."""
        names = [f"input/{name}" for name in self.statistics] + ["input/view"] * (self.view is not None)
        return names + [f"prediction/{name}" for name in self.findings]

    @property
    def shares(self) -> list[str]:
        """Names of the columns of `Values.shares`."""
        return [f"input/{name}" for name in self.constants] + [f"prediction/{name}/called" for name in self.findings]

    def of_log(self, rows: Rows, steps: tuple[str, ...]) -> Values:
        """Return the values of rows of the log."""
        n, unknown = len(rows), np.full(len(rows), np.nan, np.float32)
        statistics = {name: rows.statistics.get(name, unknown) for name in (*self.statistics, *self.constants)}
        sketch = rows.sketch if rows.sketch.shape[1] == self.sketch else np.full((n, self.sketch), np.nan)
        latency = [rows.latency.get(step, unknown) for step in steps]
        status = [(rows.status == STATUSES.index(name)).astype(np.float64) for name in ("flagged", "failed")]
        return Values(
            rows.ids,
            rows.times,
            *self._columns(statistics, sketch, rows.probabilities),
            sketch,
            np.stack(latency, axis=1) if latency else np.empty((n, 0)),
            np.stack(status, axis=1),
            rows.probabilities,
        )

    def of_reference(self, reference: Reference) -> Values:
        """Return the values of the reference, which knows no time, latency and rejection."""
        n = len(reference)
        columns = self._columns(reference.statistics, reference.sketch, reference.probabilities)
        if self.view is not None:  # what the estimate was learnt from would look too well separated
            columns[0][_learners(reference), len(self.statistics)] = np.nan
        nothing = np.zeros(n)
        return Values(
            np.arange(n),
            nothing,
            *columns,
            reference.sketch,
            np.empty((n, 0)),
            np.zeros((n, 2)),
            reference.probabilities,
        )

    def _columns(
        self, statistics: dict[str, NDArray[Any]], sketch: NDArray[Any], probabilities: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        columns = [statistics[name] for name in self.statistics]
        if self.view is not None:
            columns.append(sketch @ self.view[:-1] + self.view[-1])
        columns += list(probabilities.T)
        shares = [_differs(statistics[name], value) for name, value in self.constants.items()]
        called = (probabilities >= self.thresholds).astype(np.float64)
        called[np.isnan(probabilities) | np.isnan(self.thresholds)] = np.nan
        return np.stack(columns, axis=1).astype(np.float64), np.stack([*shares, *called.T], axis=1)


def signals_of(reference: Reference, point: str) -> Signals:
    """Decide from a reference what is watched: a statistic that it does not know is not."""
    statistics, constants = [], {}
    for name, values in reference.statistics.items():
        known = values[~np.isnan(values)]
        if not len(known):
            continue
        found, counts = np.unique(known, return_counts=True)
        if counts.max() > ATOM * len(known):
            constants[name] = float(found[counts.argmax()])
        else:
            statistics.append(name)
    view = _view_weights(reference)
    thresholds = reference.thresholds(point)
    return Signals(reference.findings, thresholds, tuple(statistics), constants, view, reference.sketch.shape[1])


def _differs(values: NDArray[Any], constant: float) -> NDArray[np.float64]:
    return np.where(
        np.isnan(values), np.nan, (np.abs(values - constant) > 1e-6 * max(1.0, abs(constant))).astype(float)
    )


def _learners(reference: Reference) -> NDArray[np.bool_]:
    """Return the images of every other patient, from which the estimate of the view is learnt."""
    return np.asarray(reference.patients % 2 == 0)


def _view_weights(reference: Reference) -> NDArray[np.float64] | None:
    """Learn to tell AP from PA by the sketch; the log knows no view, because it takes nothing from headers."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    known = _learners(reference) & np.isin(reference.view, [VIEWS.index("PA"), VIEWS.index("AP")])
    bedside = reference.view[known] == VIEWS.index("AP")
    if min(bedside.sum(), (~bedside).sum()) < _LEAST_VIEWS:
        return None
    scaler = StandardScaler().fit(reference.sketch[known].astype(np.float64))
    model = LogisticRegression(max_iter=1000).fit(scaler.transform(reference.sketch[known].astype(np.float64)), bedside)
    weights = model.coef_[0] / scaler.scale_
    return np.append(weights, model.intercept_[0] - float(weights @ scaler.mean_))
