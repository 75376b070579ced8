"""The watch over a deployment: rows go in, windows are closed, tested and bet on; memory does not grow with the log."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.monitoring.betting import Wealth, e_bh, e_values
from pipeline.monitoring.blocks import Embedding, Shares, Smooth, histograms, window_sums
from pipeline.monitoring.effects import latency_counts
from pipeline.monitoring.history import History
from pipeline.monitoring.reference import Reference
from pipeline.monitoring.scores import BANDS, BINS, Ranks
from pipeline.monitoring.signals import Signals, Values, signals_of
from pipeline.params import MonitorParams
from pipeline.statistics.calibration import apply_all

Floats = NDArray[np.float64]
_PAST = 50  # alarms that are remembered
_AT_ONCE = 200  # windows judged in one go
_RUN = 10  # neighbouring rows whose latencies are taken to hang together, as films of a patient do
_REJECTED = ("gate/flagged", "gate/failed")


@dataclass
class Tally:
    """What the bets came to.

    Attributes
    ----------
    windows, rows : int
        Judged so far.
    p : ndarray of shape (n_signals,)
        Of the newest window.
    wealth, raised : ndarray of shape (n_signals,)
        Wealth after it; the window that raised the signal's alarm, -1 for none.
    since : ndarray of shape (n_signals,)
        For a signal that alarmed: the window in which its change began, most likely.
    warned : int
        Windows of which at least one signal was discovered at the false discovery rate.
    past : list of dict
        Alarms that are more than a period old, with `name`, `raised` and `since` (times); the newest 50.
    """

    windows: int
    rows: int
    p: Floats
    wealth: Floats
    raised: NDArray[np.int64]
    since: NDArray[np.int64]
    warned: int = 0
    past: list[dict[str, Any]] = field(default_factory=list)


class Watch:
    """Everything `cxr monitor` knows after some rows of the log.

    Parameters
    ----------
    reference : Reference
        What is normal.
    params : MonitorParams
        Windows, levels.
    steps : tuple of str
        Of the latencies that the log holds.
    """

    def __init__(self, reference: Reference, params: MonitorParams, steps: tuple[str, ...] = ()) -> None:
        self.reference, self.params, self.steps = reference, params, steps
        self.signals: Signals = signals_of(reference, params.point)
        values = self.signals.of_reference(reference)
        self._smooth = Smooth.of(values.continuous, reference.patients, params.window, params.seed)
        effects = Shares.of(values.shares, reference.patients, 1.0).effect
        self.effect = float(np.median(effects[effects > 1])) if (effects > 1).any() else 1.0
        self._shares = Shares.of(values.shares, reference.patients, self.effect)
        self._embedding = Embedding.of(reference.sketch, reference.patients, params.window, params.seed)
        self._latency: Smooth | None = None
        self._rejected: Shares | None = None
        self._first: list[Values] = []
        self._usual: tuple[Floats, NDArray[np.int32]] | None = None
        self.before = histograms(self._smooth.ranks(values.continuous), np.array([0]))[0]
        self.means = np.nanmean(values.continuous, axis=0)
        self.rates = np.nanmean(np.where(np.isnan(values.shares).all(axis=0), 0.0, values.shares), axis=0)
        self.history = History()
        self._rest: Values | None = None
        n = len(self.names)
        self.tally = Tally(0, 0, np.full(n, np.nan), np.ones(n), np.full(n, -1), np.zeros(n, np.int64))
        self._bets = Wealth.of(n, params.period)

    @property
    def names(self) -> list[str]:
        """The signals, in the order of the tally."""
        latency = [f"latency/{step}" for step in self.steps]
        return [*self.signals.continuous, *self.signals.shares, "input/embedding", *_REJECTED, *latency]

    @property
    def waiting(self) -> int:
        """Rows that wait for their window to be complete; an open window is not judged."""
        return 0 if self._rest is None else len(self._rest)

    def usual_rejections(self) -> list[float]:
        """Return the shares flagged and failed among the log's first rows; NaN while there are too few."""
        return [float("nan")] * 2 if self._usual is None else [float(share) for share in self._usual[0]]

    def usual_latency(self) -> NDArray[np.int32] | None:
        """Return the latencies of the log's first rows, counted in `effects.LATENCY_EDGES`; None: too few rows."""
        return None if self._usual is None else self._usual[1]

    def output_ranks(self, probabilities: NDArray[Any]) -> Floats:
        """Return where raw outputs stand among the reference's, 0 to 1, shape (n, n_findings)."""
        k = len(self.reference.findings)
        return Ranks(self._smooth.ranks.knots[-k:], self._smooth.ranks.levels[-k:])(probabilities)

    def bands_seen(self) -> Floats:
        """Count all answered images in bands of like outputs (`accuracy.bands_of`), (n_findings, BANDS)."""
        k = len(self.reference.findings)
        if not len(self.history):
            return np.zeros((k, BANDS))
        counts = self.history.sums["ranks"].sum(axis=0)[-k:]
        return np.asarray(counts.reshape(k, BANDS, -1).sum(axis=2), np.float64)

    def take(self, values: Values) -> None:
        """Take in rows, and judge the windows that they complete."""
        rows = values if self._rest is None else self._rest + values
        starts = self._starts(rows.times)
        for k in range(0, len(starts) - 1, _AT_ONCE):
            some = starts[k : k + _AT_ONCE + 1]
            self._judge(rows[some[0] : some[-1]], some[:-1] - some[0])
        self._rest = rows[starts[-1] :]

    def _starts(self, times: Floats) -> NDArray[np.intp]:
        """Return where windows begin; the last one is not complete."""
        if self.params.hours:
            window = np.floor(times / (3600 * self.params.hours))
            later = np.maximum.accumulate(window) if len(window) else window
            return np.flatnonzero(np.diff(later, prepend=-1.0)) if len(later) else np.array([0])
        return np.arange(0, len(times) + 1, self.params.window)

    def _judge(self, values: Values, starts: NDArray[np.intp]) -> None:
        least = self.params.least
        p_smooth, ranks = self._smooth.judge(values.continuous, starts, least)
        p_shares, hits, counts = self._shares.judge(values.shares, starts, least)
        p_embedding, distance = self._embedding.judge(values.sketch, starts, least)
        p_own, own = self._judge_own(values, starts)
        p = np.concatenate([p_smooth, p_shares, p_embedding[:, None], p_own], axis=1)
        sums = {"ranks": histograms(ranks, starts), "hits": hits, "counts": counts, "distance": distance, **own}
        sums |= self._sums(values, ranks, starts)
        ends = np.append(starts[1:], len(values)) - 1
        self.history.add(sums, self.tally.windows, values.times[starts], values.times[ends])
        self._bet(p)
        self.tally.windows += len(starts)
        self.tally.rows += len(values)

    def _judge_own(self, values: Values, starts: NDArray[np.intp]) -> tuple[Floats, dict[str, NDArray[Any]]]:
        """Judge latencies and rejections, which the evaluation does not know: against the log's own first rows."""
        n, s = len(starts), len(self.steps)
        hits = window_sums(values.rejected, starts)
        latencies = latency_counts(values.latency, starts)
        sums: dict[str, NDArray[Any]] = {"rejected": hits, "latency": latencies}
        sums["latency_ranks"] = np.zeros((n, s, BINS), np.int32)
        p = np.full((n, s + len(_REJECTED)), np.nan)
        known = 0
        if self._rejected is None:
            seen = sum(len(some) for some in self._first)
            ends = np.append(starts[1:], len(values))
            known = min(n, int(np.searchsorted(ends + seen, self.params.first_rows)) + 1)
            self._first.append(values[: ends[known - 1]])
            if ends[known - 1] + seen < self.params.first_rows:
                return p, sums
            self._begin()
        if known < n:
            assert self._rejected is not None
            rows, later = values[starts[known] :], starts[known:] - starts[known]
            p[known:, : len(_REJECTED)] = self._rejected.judge(rows.rejected, later, self.params.least)[0]
            if self._latency is not None:
                latencies = np.log(np.maximum(rows.latency, 1e-3))
                p[known:, len(_REJECTED) :], places = self._latency.judge(latencies, later, self.params.least)
                sums["latency_ranks"][known:] = histograms(places, later)
        return p, sums

    def _begin(self) -> None:
        """Take the first rows of the log as what is normal for latencies and rejections."""
        first = self._first[0]
        for some in self._first[1:]:
            first = first + some
        runs = np.arange(len(first)) // _RUN
        self._rejected = Shares.of(first.rejected, runs, self.effect)
        if self.steps:
            latencies = np.log(np.maximum(first.latency, 1e-3))
            self._latency = Smooth.of(latencies, runs, self.params.window, self.params.seed)
        self._usual = first.rejected.mean(axis=0), latency_counts(first.latency, np.array([0]))[0]
        self._first = []

    def _sums(self, values: Values, ranks: Floats, starts: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
        """Return what the page and the confidence-based estimates need of windows."""
        reference = self.reference
        some = ~np.isnan(values.probabilities).any(axis=1)
        calibrated = np.full(values.probabilities.shape, np.nan)
        calibrated[some] = apply_all(reference.calibration, list(reference.findings), values.probabilities[some])
        called = values.shares[:, len(self.signals.constants) :]
        known = ~np.isnan(calibrated) & ~np.isnan(called)
        chance = np.where(known, calibrated, 0.0)
        parts = {
            "expected": chance,
            "expected_called": chance * np.where(known, called, 0.0),
            "called": np.where(known, called, 0.0),
            "known": known.astype(np.float64),
        }
        sums = {name: window_sums(part, starts) for name, part in parts.items()}
        sums["expected_bins"] = histograms(ranks[:, -len(reference.findings) :], starts, chance)
        sums["totals"] = window_sums(np.nan_to_num(values.continuous), starts)
        sums["rows"] = np.diff(np.append(starts, len(values))).astype(np.float64)
        return sums

    def _bet(self, p: Floats) -> None:
        tally = self.tally
        e = e_values(p)
        for k, row in enumerate(e):
            number = tally.windows + k
            if number and number % self.params.period == 0:
                self._lay_aside(number - self.params.period)
            tally.wealth = self._bets.bet(row, number)
            found = e_bh(tally.wealth, self.params.alpha) & (tally.raised < 0)
            tally.raised[found] = number
            tally.since[found] = self._bets.since[found]
        tally.p = p[-1]
        ordered = np.sort(np.where(np.isnan(p), 2.0, p), axis=1)
        tests = np.maximum((~np.isnan(p)).sum(axis=1), 1)
        steps = self.params.fdr * np.arange(1, p.shape[1] + 1) / tests[:, None]
        tally.warned += int((ordered <= steps).any(axis=1).sum())

    def _lay_aside(self, before: int) -> None:
        """Move alarms that were raised before a window to the past: else a long log would end in one for certain."""
        tally = self.tally
        for k in np.flatnonzero((tally.raised >= 0) & (tally.raised < before)):
            raised, since = (self.history.time_of(int(window)) for window in (tally.raised[k], tally.since[k]))
            tally.past = [*tally.past, {"name": self.names[k], "raised": raised, "since": since}][-_PAST:]
            tally.raised[k] = -1
