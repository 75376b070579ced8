"""The patient-cluster bootstrap that all scores share, and its expanded percentile, percentile and BCa intervals.

A score is a `Statistic`: a function from the patients' weights to values. The same weights go to every score of a
table, so that differences between scores are paired.
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.params import EvaluateParams
from pipeline.statistics.intervals import Estimate, Floats, Method, estimate

Statistic = Callable[[Floats], Floats]
"""From weights of the patients, (n_patients, n_draws), to scores, (n_scores, n_draws); NaN where undefined."""

_CHUNK_VALUES = 1_000_000  # weights turned to floats at a time: they fit in the processor's cache
VANISHING = 10
"""A label that so many patients have is missing from one resample in e^10 = 22,000, fewer have a stratum."""
_GROUPS = 400  # of the jackknife; the skewness it estimates needs no more


@dataclass(frozen=True)
class Resamples:
    """The draws of whole patients, with replacement, within strata.

    Attributes
    ----------
    patient : ndarray of shape (n_images,)
        The number of each image's patient, from 0.
    n_patients : int
        How many patients there are.
    draws : ndarray of shape (n_patients, n_resamples), dtype=uint16
        How often each patient is drawn.
    groups : ndarray of shape (n_patients,)
        Each patient's group in the jackknife.
    confidence : float
        Level of the intervals.
    interval : {'expanded', 'percentile', 'bca'}
        The interval that `Estimate` calls `ci_low` and `ci_high`.
    """

    patient: NDArray[np.intp]
    n_patients: int
    draws: NDArray[np.uint16]
    groups: NDArray[np.intp]
    confidence: float
    interval: Method


@dataclass(frozen=True)
class Replicates:
    """Scores of the data itself, of each resample, and of the data without each group of the jackknife.

    Attributes
    ----------
    point : ndarray of shape (n_scores,)
        The scores.
    draws : ndarray of shape (n_scores, n_resamples)
        Of the resamples.
    jackknife : ndarray of shape (n_scores, n_groups)
        Of the data without one group.
    confidence, interval
        As in `Resamples`.
    """

    point: Floats
    draws: Floats
    jackknife: Floats
    confidence: float
    interval: Method

    def __getitem__(self, rows: Sequence[int]) -> "Replicates":
        """Return the scores of some rows."""
        index = np.asarray(rows, np.intp)
        return self._like(self.point[index], self.draws[index], self.jackknife[index])

    def __sub__(self, other: "Replicates") -> "Replicates":
        """Return the paired differences; both must come from the same resamples."""
        return self._like(self.point - other.point, self.draws - other.draws, self.jackknife - other.jackknife)

    def centred(self) -> "Replicates":
        """Return the scores with each one's draws moved so that their mean is the score itself.

        For scores of at least 0 that resampling raises, such as a calibration error: drawing twice adds the noise
        twice. The moved draws show how far the score spreads from sample to sample around its mean at this size.
        """
        raised = np.array([[np.nanmean(row) if (~np.isnan(row)).any() else 0.0] for row in self.draws])
        return self._like(self.point, np.maximum(self.draws - (raised - self.point[:, None]), 0.0), self.jackknife)

    def mean(self, rows: Sequence[int] | None = None) -> "Replicates":
        """Return one score: the mean over those of the rows that are defined in the data.

        A resample that has lost one of them, such as the last positive of a finding, takes the mean of the others.
        """
        wanted = np.arange(len(self.point)) if rows is None else np.asarray(rows, np.intp)
        kept = wanted[~np.isnan(self.point[wanted])]
        means = [column_means(values[kept])[None] for values in (self.point[:, None], self.draws, self.jackknife)]
        return self._like(means[0][0], means[1], means[2])

    def estimate(self, k: int = 0) -> Estimate:
        """Return score `k` with its intervals."""
        return estimate(float(self.point[k]), self.draws[k], self.jackknife[k], self.confidence, self.interval)

    def _like(self, point: Floats, draws: Floats, jackknife: Floats) -> "Replicates":
        return Replicates(point, draws, jackknife, self.confidence, self.interval)


def stack(parts: Sequence[Replicates]) -> Replicates:
    """Return the scores of several replicates, from the same resamples, one after another."""
    return Replicates(
        np.concatenate([part.point for part in parts]),
        np.concatenate([part.draws for part in parts]),
        np.concatenate([part.jackknife for part in parts]),
        parts[0].confidence,
        parts[0].interval,
    )


def resample(patients: NDArray[Any], labels: NDArray[np.floating[Any]], params: EvaluateParams) -> Resamples:
    """Draw the resamples of a table.

    Whole patients are drawn, because the images of one patient are not independent (cluster bootstrap; Field and
    Welsh, J. R. Statist. Soc. B 2007;69:369-390); the few who hold a very rare label apart (see `strata_of`).

    Parameters
    ----------
    patients : ndarray of shape (n_images,)
        Whose image it is.
    labels : ndarray of shape (n_images, n_findings)
        1, 0 or NaN; they make the strata.
    params : EvaluateParams
        Number of resamples, level, seed, interval.
    """
    names, patient = np.unique(patients, return_inverse=True)
    strata = strata_of(patient, len(names), labels)
    rng = np.random.default_rng(params.seed)
    draws = np.zeros((len(names), params.resamples), np.uint16)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        share = np.full(len(members), 1 / len(members))
        draws[members] = rng.multinomial(len(members), share, size=params.resamples).T
    groups = np.empty(len(names), np.intp)
    spread = strata_of(patient, len(names), labels, below=len(names) + 1)  # rare labels over as many groups as can be
    groups[np.argsort(spread, kind="stable")] = np.arange(len(names)) % min(len(names), _GROUPS)
    return Resamples(patient, len(names), draws, groups, params.confidence, params.interval)


def strata_of(
    patient: NDArray[np.intp], n_patients: int, labels: NDArray[np.floating[Any]], below: int = VANISHING
) -> NDArray[np.intp]:
    """Put the patients of very rare labels into strata, so that no finding vanishes from a resample.

    A label is a finding's presence or its absence, whichever fewer patients have. Each that fewer than `below`
    patients have is a stratum, and a patient of several belongs to the rarest; all others are one stratum. More
    strata would hold the numbers of patients with more frequent findings fixed, and so make intervals too short
    (docs/statistics.md measures it).

    Parameters
    ----------
    patient : ndarray of shape (n_images,)
        Number of each image's patient.
    n_patients : int
        How many there are.
    labels : ndarray of shape (n_images, n_findings)
        1, 0 or NaN.
    below : int
        From how many patients on a label needs no stratum.

    Returns
    -------
    ndarray of shape (n_patients,)
        Number of the stratum.
    """
    held = [_held(labels == value, patient, n_patients) for value in (1, 0)]
    counts = np.array([kind.sum(axis=0) for kind in held])  # (2, n_findings)
    rarer, fewest = counts.argmin(axis=0), counts.min(axis=0)
    columns = np.where(rarer[None, :] == 0, held[0], held[1])
    strata = np.full(n_patients, labels.shape[1], np.intp)
    for position in np.argsort(fewest, kind="stable")[::-1]:  # the rarest last, so that it wins
        if fewest[position] < below:
            strata[columns[:, position]] = position
    return strata


def replicate(statistic: Statistic, resamples: Resamples) -> Replicates:
    """Compute the scores of the data, of every resample and of the jackknife."""
    with _one_thread():
        point = statistic(np.ones((resamples.n_patients, 1)))
        at_once = max(1, _CHUNK_VALUES // resamples.n_patients)
        draws = [
            statistic(resamples.draws[:, start : start + at_once].astype(np.float64))
            for start in range(0, resamples.draws.shape[1], at_once)
        ]
        n_groups = int(resamples.groups.max()) + 1
        without = [
            statistic(
                (resamples.groups[:, None] != np.arange(start, min(start + at_once, n_groups))).astype(np.float64)
            )
            for start in range(0, n_groups, at_once)
        ]
    return Replicates(
        point[:, 0], np.concatenate(draws, 1), np.concatenate(without, 1), resamples.confidence, resamples.interval
    )


def patient_sums(values: NDArray[np.floating[Any]], resamples: Resamples) -> Floats:
    """Sum values over the images of each patient.

    Parameters
    ----------
    values : ndarray of shape (n_images, n_values)
        What to add up; NaN is not allowed.

    Returns
    -------
    ndarray of shape (n_values, n_patients)
        `patient_sums(values) @ weights` are the sums over the images that weights draw.
    """
    columns = [
        np.bincount(resamples.patient, weights=values[:, k], minlength=resamples.n_patients)
        for k in range(values.shape[1])
    ]
    return np.array(columns, np.float64).reshape(values.shape[1], resamples.n_patients)


def column_means(values: Floats) -> Floats:
    """Return the mean of each column over what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    means: Floats = np.divide(total, count, out=np.full(values.shape[1], np.nan), where=count > 0)
    return means


def divide(above: Floats, below: Floats) -> Floats:
    """Divide, NaN where the divisor is 0."""
    result: Floats = np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below != 0)
    return result


def _one_thread() -> AbstractContextManager[object]:
    """Keep matrix products on one thread: they are small, and threads that wait for each other cost a hundredfold."""
    return cast("AbstractContextManager[object]", _thread_pools().limit(limits=1, user_api="blas"))


@functools.cache
def _thread_pools() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _held(holds: NDArray[np.bool_], patient: NDArray[np.intp], n_patients: int) -> NDArray[np.bool_]:
    table = np.zeros((n_patients, holds.shape[1]), np.bool_)
    rows, columns = np.nonzero(holds)
    table[patient[rows], columns] = True
    return table
