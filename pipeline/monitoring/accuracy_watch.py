"""Accuracy watched: windows of labelled images, in the order in which the truth arrives, against the reference.

- Late labels open new windows and do not change one that was judged.
- Window w may spend alpha/(w(w+1)) over its measures, which sums to alpha over all windows ever: a union bound, valid
  although all windows lean on one reference. Within a window: Benjamini and Hochberg.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.log_store.reading import Labelled
from pipeline.monitoring.accuracy import Measured, measures, worse_p
from pipeline.monitoring.betting import bh
from pipeline.monitoring.intervals import bootstrap
from pipeline.monitoring.reference import Reference
from pipeline.monitoring.scores import BANDS
from pipeline.params import MonitorParams

Floats = NDArray[np.float64]
_KEPT = 60  # windows that are remembered: the first and the newest


@dataclass
class AccuracyWatch:
    """The windows of labelled images that were judged.

    Attributes
    ----------
    reference : Reference
        Its test images are what accuracy is compared with.
    params : MonitorParams
        Operating point, levels, resamples.
    expected : dict of str to Measured
        The reference's measures.
    windows : list of dict
        What each window came to, oldest first; of many the first and the newest.
    count : int
        Windows judged.
    raised : dict of str to int
        Measures that alarmed, and the number of the window that raised it.
    answered, labelled : ndarray of shape (n_findings, BANDS)
        Images in bands of like outputs, and those of them whose truth came.
    waiting : int
        Labelled images whose window is not complete.
    """

    reference: Reference
    params: MonitorParams
    expected: dict[str, Measured] = field(default_factory=dict)
    windows: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0
    raised: dict[str, int] = field(default_factory=dict)
    answered: Floats = field(default_factory=lambda: np.zeros((0, BANDS)))
    labelled: Floats = field(default_factory=lambda: np.zeros((0, BANDS)))
    waiting: int = 0
    _newest: tuple[Labelled, Floats] | None = None

    def __post_init__(self) -> None:
        test, point = self._test(), self.params.point
        ones = np.ones((len(test), len(test.findings)))
        self.expected = measures(test, test.labels, test.probabilities, test.patients, ones, point)

    def judge(self, rows: Labelled, weights: Floats) -> None:
        """Take in one window; `weights` (n, n_findings) undo the choice of what was labelled."""
        self.count += 1
        found = measures(self.reference, rows.truth, rows.probabilities, rows.patients, weights, self.params.point)
        p = np.array([worse_p(self.expected[name], found[name], name) for name in found])
        level = self.params.alpha / (self.count * (self.count + 1))
        adjusted = bh(p)
        for name, value in zip(found, adjusted, strict=True):
            if value <= level and name not in self.raised:
                self.raised[name] = self.count
        if len(self.windows) >= _KEPT:
            del self.windows[1]
        self._newest = rows, weights
        about = {"window": self.count, "images": len(rows), "patients": len(np.unique(rows.patients)), "level": level}
        times = {
            "from": float(rows.times.min()),
            "to": float(rows.times.max()),
            "arrived": float(rows.arrived.max()),
            "delay": float(np.median(rows.arrived - rows.times)),
        }
        each = {
            name: {"value": one.value, "error": one.error, "positive": one.positive, "negative": one.negative}
            | {"p": float(p[k]), "q": float(adjusted[k])}
            for k, (name, one) in enumerate(found.items())
        }
        self.windows.append(about | times | {"measures": each})

    def intervals(self) -> tuple[dict[str, tuple[float, float]], dict[str, tuple[float, float]]]:
        """Return the 95 % patient-bootstrap intervals of the reference's and of the newest window's measures."""
        test = self._test()
        about = (
            self.reference.thresholds(self.params.point),
            self.reference.findings,
            self.params.resamples,
            self.params.seed,
        )
        ones = np.ones((len(test), len(test.findings)))
        before = bootstrap(test.labels, test.probabilities, test.patients, ones, *about)
        if self._newest is None:
            return before, {}
        rows, weights = self._newest
        return before, bootstrap(rows.truth, rows.probabilities, rows.patients, weights, *about)

    def selection_p(self) -> float:
        """Return the p value of the truth coming equally often in all bands of outputs; NaN without labels.

        Chi-squared of each finding's table of bands by labelled or not, divided by nothing for clustering, so rather
        too small; the least of the findings times their number (Bonferroni).
        """
        from scipy.stats import chi2_contingency

        found = []
        for answered, labelled in zip(self.answered, self.labelled, strict=True):
            some = answered > 0
            table = np.stack([labelled[some], np.maximum(answered - labelled, 0)[some]])
            if some.sum() > 1 and (table.sum(axis=1) > 0).all():
                found.append(float(chi2_contingency(table).pvalue))
        return min(1.0, min(found) * len(found)) if found else float("nan")

    def _test(self) -> Reference:
        return self.reference.take(np.flatnonzero(self.reference.test))
