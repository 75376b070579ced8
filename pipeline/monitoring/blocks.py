"""The three kinds of signals: each keeps the sums of all it has seen and judges the windows of some more rows."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.monitoring.contrasts import mmd_p, share_p, smooth_p
from pipeline.monitoring.scores import BINS, Fourier, Ranks, covariance, legendre

Floats = NDArray[np.float64]
_RCOND = 1e-3  # smaller eigenvalues of a covariance are those of ties
_WINDOWS = 2000  # drawn from the reference, to see how heavy the tails are
_STRETCHES = (1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
_LEVELS = (0.01, 0.001, 0.0003)
_SAFE = 0.8  # of its level may each be reached, because the reference is a sample, too
_FREE = np.array([8.0, 4.0, 2.0, 1.4, 1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12])  # degrees of freedom an image


@dataclass
class Smooth:
    """Continuous values: their ranks' means, spreads and skews.

    Attributes
    ----------
    ranks : Ranks
        Of the reference.
    inverse, rank, patients : ndarray of shape (n_signals, 3, 3), (n_signals,), (n_signals,)
        Of the covariances of one image; see `contrasts.smooth_p`.
    free : float
        Degrees of freedom of a window for each of its images; see `freedom`.
    sums, counts : ndarray of shape (n_signals, 3), (n_signals,)
        Of the features of everything so far, the reference first.
    """

    ranks: Ranks
    inverse: Floats
    rank: Floats
    patients: Floats
    free: float
    sums: Floats
    counts: Floats

    @classmethod
    def of(cls, values: NDArray[Any], patients: NDArray[np.int64], window: int, seed: int) -> "Smooth":
        """Start from a reference: values (n, n_signals), NaN unknown, and whose image each is; windows of that size."""
        ranks = Ranks.of(values)
        features = legendre(ranks(values))
        parts = [_inverse(features[known, k], patients[known]) for k, known in enumerate(~np.isnan(values.T))]
        inverse, rank, people = (np.array(part, np.float64) for part in zip(*parts, strict=True))
        counts = (~np.isnan(values)).sum(axis=0).astype(np.float64)
        free = freedom(features, patients, inverse, np.maximum(rank, 1), window, seed)
        return cls(ranks, inverse, rank, people, free, np.nansum(features, axis=0), counts)

    def judge(self, values: NDArray[Any], starts: NDArray[np.intp], least: int) -> tuple[Floats, Floats]:
        """Take in windows that begin at `starts`; return p values (NaN: too few values) and the ranks.

        Returns
        -------
        p : ndarray of shape (n_windows, n_signals)
        ranks : ndarray of shape (n, n_signals)
        """
        ranks = self.ranks(values)
        unknown = np.isnan(ranks)
        features = legendre(np.where(unknown, 0.5, ranks))
        features[unknown] = 0.0
        sums, counts = window_sums(features, starts), window_sums((~unknown).astype(np.float64), starts)
        before_sums = np.cumsum(np.concatenate([self.sums[None], sums]), axis=0)
        before = np.cumsum(np.concatenate([self.counts[None], counts]), axis=0)
        self.sums, self.counts = before_sums[-1], before[-1]
        tested = (counts >= least) & (before[:-1] >= least) & (self.rank > 0)
        n, n_before = np.maximum(counts, 1), np.maximum(before[:-1], 1)
        difference = sums / n[..., None] - before_sums[:-1] / n_before[..., None]
        free = np.maximum(self.free * n, 2.0)
        rank, per_image = np.maximum(self.rank, 1), 1 / n + 1 / n_before
        p = smooth_p(difference, per_image, self.inverse, rank, self.patients, free)
        return np.where(tested, p, np.nan), ranks


@dataclass
class Shares:
    """Things that are so or not: alerts, rejections, values that differ from the usual one.

    Attributes
    ----------
    effect : ndarray of shape (n_signals,)
        Design effects: how many times the variance of a share is that of independent images.
    hits, counts : ndarray of shape (n_signals,)
        Of everything so far.
    """

    effect: Floats
    hits: Floats
    counts: Floats

    @classmethod
    def of(cls, values: Floats, patients: NDArray[np.int64], usual: float) -> "Shares":
        """Start from a reference; `usual` is the design effect where a share of 0 or 1 says none."""
        effects = []
        for column in values.T:
            known = ~np.isnan(column)
            share = float(column[known].mean()) if known.any() else 0.0
            if not 0 < share < 1:
                effects.append(usual)
                continue
            spread = covariance(column[known, None], patients[known])[0, 0]
            effects.append(max(1.0, float(spread) / (share * (1 - share))))
        return cls(np.array(effects), np.nansum(values, axis=0), (~np.isnan(values)).sum(axis=0).astype(np.float64))

    def judge(self, values: Floats, starts: NDArray[np.intp], least: int) -> tuple[Floats, Floats, Floats]:
        """Take in windows; return p values, hits and counts, each of shape (n_windows, n_signals)."""
        hits, counts = window_sums(np.nan_to_num(values), starts), window_sums((~np.isnan(values)) + 0.0, starts)
        before_hits = np.cumsum(np.concatenate([self.hits[None], hits]), axis=0)
        before = np.cumsum(np.concatenate([self.counts[None], counts]), axis=0)
        self.hits, self.counts = before_hits[-1], before[-1]
        p = share_p(hits, counts, before_hits[:-1], before[:-1], self.effect)
        return np.where((counts >= least) & (before[:-1] >= least), p, np.nan), hits, counts


@dataclass
class Embedding:
    """The sketch of the features: MMD.

    Attributes
    ----------
    fourier : Fourier
        Its features.
    eigenvalues : ndarray of shape (64,)
        Of the covariance of one image, times `stretch_of`.
    sums : ndarray of shape (64,)
        Of everything so far.
    count : float
        How many images those are.
    """

    fourier: Fourier
    eigenvalues: Floats
    sums: Floats
    count: float

    @classmethod
    def of(cls, sketch: NDArray[Any], patients: NDArray[np.int64], window: int, seed: int) -> "Embedding":
        """Start from a reference; windows of that size."""
        fourier = Fourier.of(sketch, seed)
        features: Floats = fourier(sketch)
        eigenvalues = np.asarray(np.linalg.eigvalsh(covariance(features, patients)), np.float64)
        stretch = stretch_of(features, patients, eigenvalues, window, seed)
        return cls(
            fourier,
            stretch * eigenvalues,
            features.sum(axis=0),
            float(len(sketch)),
        )

    def judge(self, sketch: NDArray[Any], starts: NDArray[np.intp], least: int) -> tuple[Floats, Floats]:
        """Take in windows; return p values and MMD (not squared), each of shape (n_windows,)."""
        features = self.fourier(sketch)
        known = ~np.isnan(features[:, 0])
        sums = window_sums(np.where(known[:, None], features, 0.0), starts)
        counts = window_sums(known.astype(np.float64), starts)
        before_sums = np.cumsum(np.concatenate([self.sums[None], sums]), axis=0)
        before = np.cumsum(np.append(self.count, counts))
        self.sums, self.count = before_sums[-1], float(before[-1])
        n, n_before = np.maximum(counts, 1), before[:-1]
        difference = sums / n[:, None] - before_sums[:-1] / n_before[:, None]
        p = mmd_p(difference, 1 / n + 1 / n_before, self.eigenvalues)
        return np.where(counts >= least, p, np.nan), np.sqrt((difference**2).sum(axis=1))


def window_sums(values: Floats, starts: NDArray[np.intp]) -> Floats:
    """Return the sums over windows, along the first axis; windows of one length are added up without an index."""
    size = int(starts[1]) if len(starts) > 1 else len(values)
    if len(values) == size * len(starts) and (np.diff(starts) == size).all():
        return np.asarray(values.reshape(len(starts), size, *values.shape[1:]).sum(axis=1))
    return np.asarray(np.add.reduceat(values, starts, axis=0))


def histograms(ranks: Floats, starts: NDArray[np.intp], weights: Floats | None = None) -> NDArray[Any]:
    """Count ranks, or add up their weights, in `BINS` bins, shape (n_windows, n_signals, BINS); NaN is left out."""
    n, s = ranks.shape
    window = np.zeros(n, np.int64)
    window[starts[1:]] = 1
    known = ~np.isnan(ranks)
    bins = np.minimum(np.where(known, ranks, 0.0) * BINS, BINS - 1).astype(np.int64)
    place = (np.cumsum(window)[:, None] * s + np.arange(s)) * BINS + bins
    counts = np.bincount(place[known], None if weights is None else weights[known], len(starts) * s * BINS)
    return counts.reshape(len(starts), s, BINS).astype(np.int32 if weights is None else np.float64)


def freedom(
    features: Floats, patients: NDArray[np.int64], inverse: Floats, rank: Floats, window: int, seed: int
) -> float:
    """Return the degrees of freedom, for each image of a window, with which small p values are right.

    Windows are drawn from the reference, whole patients one after another, as they might come in; the F distribution
    whose p values are not too small at 0.01, 0.001 and 0.0003, over all signals together, is taken. With few and
    unequal patients in a window the tail is heavier than that of chi^2.
    """
    from scipy.stats import f

    clean = np.nan_to_num(features - np.nanmean(features, axis=0))
    means = clean[drawn_windows(patients, window, seed)].mean(axis=1)
    squares = window * np.einsum("wsi,sij,wsj->ws", means, inverse, means) / rank
    squares = squares * (~np.isnan(features[..., 0])).mean(axis=0)  # where few values are known a mean is of fewer
    for free in _FREE * window:
        p = f.sf(squares, rank, free)
        if all((p <= level).mean() <= _SAFE * level for level in _LEVELS):
            return float(free / window)
    return float(_FREE[-1])


def stretch_of(features: Floats, patients: NDArray[np.int64], eigenvalues: Floats, window: int, seed: int) -> float:
    """Return what squared distances are divided by so that their small p values are right; see `freedom`."""
    means = (features - features.mean(axis=0))[drawn_windows(patients, window, seed)].mean(axis=1)
    for stretch in _STRETCHES:
        p = mmd_p(means / np.sqrt(stretch), np.full(len(means), 1 / window), eigenvalues)
        if all((p <= level).mean() <= _SAFE * level for level in _LEVELS):
            return stretch
    return _STRETCHES[-1]


def drawn_windows(patients: NDArray[np.int64], window: int, seed: int) -> NDArray[np.intp]:
    """Draw windows from a reference, whole patients one after another; rows of it, shape (n_windows, window)."""
    rng = np.random.default_rng(seed)
    _, codes = np.unique(patients, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    begin = np.searchsorted(codes[order], np.arange(codes.max() + 2))
    lengths = np.diff(begin)
    drawn = rng.integers(0, len(lengths), (_WINDOWS * window) // max(1, int(lengths.mean())) + window)
    count = lengths[drawn]
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)  # 0, 1, … of each patient drawn
    rows = order[np.repeat(begin[drawn], count) + within]
    return np.asarray(rows[: len(rows) // window * window].reshape(-1, window), np.intp)


def _inverse(features: Floats, patients: NDArray[np.int64]) -> tuple[Floats, int, int]:
    """Return the pseudo-inverse of the covariance of one image, its rank, and the number of patients."""
    people = len(np.unique(patients))
    if people < 2:
        return np.zeros((features.shape[1], features.shape[1])), 0, people
    values, vectors = np.linalg.eigh(covariance(features, patients))
    kept = values > _RCOND * max(float(values.max()), 1e-12)
    return (vectors[:, kept] / values[kept]) @ vectors[:, kept].T, int(kept.sum()), people
