"""From values to features whose means are compared: three kinds, each with a covariance that knows of patients.

Films of one patient are alike, so the variance of a mean is taken over patients, not over films (cluster-robust;
Liang and Zeger, Biometrika 1986;73:13-22). The log does not know its patients: it is taken to have as many films of a
patient, and as alike, as the reference.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DEGREE = 3
"""Legendre polynomials of the rank: a shift, a spread, a skew. With four, windows of 50 have too heavy a tail."""
BINS = 20
"""Of the reference's quantiles, for histograms: what KS, PSI and Jensen-Shannon are computed from."""
BANDS = 5
"""Of like outputs, within which it should be chance whose truth is known; a divisor of `BINS`."""
_KNOTS = 256
_FREQUENCIES = 32


@dataclass(frozen=True)
class Ranks:
    """Where a value stands among the reference's, between 0 and 1 (the mean of the shares below and at most it).

    Attributes
    ----------
    knots, levels : tuple of ndarray
        For each signal some values of the reference, rising, and their ranks.
    """

    knots: tuple[Floats, ...]
    levels: tuple[Floats, ...]

    @classmethod
    def of(cls, values: NDArray[Any]) -> "Ranks":
        """Take the ranks of a reference, shape (n, n_signals); NaN is unknown."""
        found = [_levels(values[:, k][~np.isnan(values[:, k])]) for k in range(values.shape[1])]
        return cls(tuple(knots for knots, _ in found), tuple(levels for _, levels in found))

    def __call__(self, values: NDArray[Any]) -> Floats:
        """Return the ranks of values, shape (n, n_signals); NaN stays NaN."""
        ranks = np.empty(values.shape, np.float64)
        for k, (knots, levels) in enumerate(zip(self.knots, self.levels, strict=True)):
            ranks[:, k] = np.interp(values[:, k], knots, levels, left=0.0, right=1.0)
        ranks[np.isnan(values)] = np.nan
        return ranks


def _levels(values: NDArray[Any]) -> tuple[Floats, Floats]:
    if not len(values):
        return np.array([0.0]), np.array([0.5])
    ordered = np.sort(values.astype(np.float64))
    knots = np.unique(ordered)
    if len(knots) > _KNOTS:
        knots = np.unique(np.quantile(ordered, np.linspace(0, 1, _KNOTS), method="nearest"))
    below, most = (np.searchsorted(ordered, knots, side) for side in ("left", "right"))
    return knots, (below + most) / (2 * len(ordered))


def legendre(ranks: Floats) -> Floats:
    """Return the normalised Legendre polynomials of degrees 1 to `DEGREE` of ranks, with a last axis of that length.

    Their means are 0 and their covariance is the identity where the rank is uniform: Neyman's smooth test
    (Skandinavisk Aktuarietidskrift 1937;20:149-199); for two samples Bera, Ghosh and Xiao, Econometrics Journal
    2013;16:S1-S33.
    """
    x = 2 * ranks - 1
    terms = [np.ones_like(x), x]
    for k in range(1, DEGREE):
        terms.append(((2 * k + 1) * x * terms[k] - k * terms[k - 1]) / (k + 1))
    return np.stack([np.sqrt(2 * k + 1) * terms[k] for k in range(1, DEGREE + 1)], axis=-1)


@dataclass(frozen=True)
class Fourier:
    """Random Fourier features of a whitened sketch: the distance of their means is MMD with a Gaussian kernel.

    Rahimi and Recht, NIPS 2007; MMD: Gretton et al., J. Machine Learning Res. 2012;13:723-773; the kernel's width is
    the median distance of pairs of the reference, as there.

    Attributes
    ----------
    mean, scale : ndarray of shape (d,)
        Of the reference's sketches.
    frequencies : ndarray of shape (d, 32)
        Drawn from the kernel's spectrum.
    """

    mean: Floats
    scale: Floats
    frequencies: Floats

    @classmethod
    def of(cls, sketch: NDArray[Any], seed: int) -> "Fourier":
        """Take the scales of a reference."""
        mean, scale = sketch.mean(axis=0), np.maximum(sketch.std(axis=0), 1e-12)
        rng = np.random.default_rng(seed)
        white = (sketch - mean) / scale
        pairs = rng.integers(0, len(white), (2, 2000))
        width = float(np.median(np.linalg.norm(white[pairs[0]] - white[pairs[1]], axis=1))) or 1.0
        return cls(mean, scale, rng.standard_normal((sketch.shape[1], _FREQUENCIES)) / width)

    def __call__(self, sketch: NDArray[Any]) -> Floats:
        """Return the features, shape (n, 64); NaN where the sketch is."""
        angles = ((sketch - self.mean) / self.scale) @ self.frequencies
        return np.asarray(np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / np.sqrt(_FREQUENCIES))


def covariance(features: Floats, patients: NDArray[np.int64]) -> Floats:
    """Return n times the covariance of the mean of n images' features, patients being the independent units.

    Parameters
    ----------
    features : ndarray of shape (n, ..., d)
        Images without a value are left out first.
    patients : ndarray of shape (n,)
        Whose image it is.

    Returns
    -------
    ndarray of shape (..., d, d)
        sum over patients of s s', s being a patient's sum of deviations, times m / (m - 1) / n for m patients.
    """
    _, codes = np.unique(patients, return_inverse=True)
    m = int(codes.max()) + 1
    away = features - features.mean(axis=0)
    sums = np.zeros((m, *features.shape[1:]))
    np.add.at(sums, codes, away)
    return np.asarray(np.einsum("p...i,p...j->...ij", sums, sums) * (m / max(1, m - 1) / len(features)))
