"""How large a change is, from two histograms over the reference's quantiles, and quantiles of latencies."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LATENCY_EDGES = np.logspace(-2, 6, 513)
"""Milliseconds; a bin is 3.7 % wide, so a quantile of a histogram is off by less."""


def sizes(before: NDArray[np.number], after: NDArray[np.number]) -> dict[str, float]:
    """Return the distances of two distributions; NaN where one has no value.

    Parameters
    ----------
    before, after : ndarray of shape (n_bins,)
        Counts.

    Returns
    -------
    dict
        `ks`: largest difference of the cumulated shares, 0 to 1. `psi`: population stability index, the symmetrised
        Kullback-Leibler divergence in nats (Jeffreys 1946), half a count added to each bin. `js`: Jensen-Shannon
        divergence in bits, 0 to 1 (Lin, IEEE Trans. Inform. Theory 1991;37:145-151).
    """
    a, b = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if not a.sum() or not b.sum():
        return dict.fromkeys(("ks", "psi", "js"), float("nan"))
    p, q = a / a.sum(), b / b.sum()
    smooth_p, smooth_q = (x + 0.5 for x in (a, b))
    smooth_p, smooth_q = smooth_p / smooth_p.sum(), smooth_q / smooth_q.sum()
    middle = (p + q) / 2
    return {
        "ks": float(np.abs(np.cumsum(p - q)).max()),
        "psi": float(((smooth_q - smooth_p) * np.log(smooth_q / smooth_p)).sum()),
        "js": float((_divergence(p, middle) + _divergence(q, middle)) / 2),
    }


def latency_counts(values: NDArray[np.floating], starts: NDArray[np.intp]) -> NDArray[np.int32]:
    """Count latencies (n, n_steps) in `LATENCY_EDGES`, shape (n_windows, n_steps, n_bins); NaN is left out."""
    n, s = values.shape
    bins = len(LATENCY_EDGES) + 1
    window = np.zeros(n, np.int64)
    window[starts[1:]] = 1
    place = (np.cumsum(window)[:, None] * s + np.arange(s)) * bins + np.searchsorted(LATENCY_EDGES, values)
    counts = np.bincount(place[~np.isnan(values)], minlength=len(starts) * s * bins)
    return counts.reshape(len(starts), s, bins).astype(np.int32)


def latency_quantiles(counts: NDArray[np.number], shares: tuple[float, ...] = (0.5, 0.95, 0.99)) -> list[float]:
    """Return quantiles in milliseconds, each the upper edge of its bin; NaN without a value."""
    total = float(counts.sum())
    if not total:
        return [float("nan")] * len(shares)
    places = np.searchsorted(np.cumsum(counts), np.array(shares) * total)
    return [float(LATENCY_EDGES[min(place, len(LATENCY_EDGES) - 1)]) for place in places]


def _divergence(p: Floats, q: Floats) -> float:
    some = p > 0
    return float((p[some] * np.log2(p[some] / q[some])).sum())
