"""Put groups into parts so that every label's share comes out right: greedy, then repaired move by move."""

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
_IMAGE_WEIGHT = 100.0  # the shares of the images come before the shares of the findings
_MOST_MOVES = 5000


def assign_groups(counts: Counts, shares: Floats, seed: int) -> NDArray[np.intp]:
    """Assign each group to one part.

    Greedy over the groups' label counts, rarest label first, in the spirit of iterative stratification (Sechidis,
    Tsoumakas, Vlahavas, ECML PKDD 2011) but for whole groups; then the single move that most lowers the squared
    relative deviation from the wanted counts is made until none does.

    Parameters
    ----------
    counts : ndarray of shape (n_groups, 1 + n_labels), dtype=int64
        Column 0: images in the group; then positives of each label.
    shares : ndarray of shape (n_parts,), dtype=float64
        Wanted shares; their sum is 1.
    seed : int
        Decides between equals; the same seed gives the same result.

    Returns
    -------
    ndarray of shape (n_groups,), dtype=intp
        The part of each group.
    """
    order = np.random.default_rng(seed).permutation(len(counts))
    wanted = shares[:, None] * counts.sum(axis=0)
    part = np.empty(len(counts), np.intp)
    part[order] = _greedy(counts[order], wanted)
    return _repair(counts, wanted, part)


def _greedy(counts: Counts, wanted: Floats) -> NDArray[np.intp]:
    part = np.full(len(counts), -1, np.intp)
    missing = wanted.copy()
    totals = counts.sum(axis=0)
    labels = [label for label in np.argsort(totals, kind="stable") if label > 0 and totals[label] > 0]
    for label in [*labels, 0]:  # what carries no label is dealt out last, by images
        open_groups = np.flatnonzero((part < 0) & (counts[:, label] > 0))
        for group in open_groups[np.argsort(-counts[open_groups, label], kind="stable")]:
            # The part that misses most of this label; among equals the one that misses most images.
            chosen = max(range(len(wanted)), key=lambda p: (missing[p, label], missing[p, 0]))
            part[group] = chosen
            missing[chosen] -= counts[group]
    return part


def _repair(counts: Counts, wanted: Floats, part: NDArray[np.intp]) -> NDArray[np.intp]:
    weight = 1.0 / np.maximum(wanted, 1.0) ** 2
    weight[:, 0] *= _IMAGE_WEIGHT
    values = counts.astype(np.float64)
    squares = values**2 @ weight.T  # (n_groups, n_parts)
    surplus = np.array([values[part == p].sum(axis=0) for p in range(len(wanted))]) - wanted
    rows = np.arange(len(counts))
    for _ in range(_MOST_MOVES):
        slope = values @ (2 * surplus * weight).T
        gain = (squares - slope)[rows, part][:, None] + squares + slope
        gain[rows, part] = 0.0
        gain[_alone(part, len(wanted))] = 0.0
        group, target = np.unravel_index(int(np.argmin(gain)), gain.shape)
        if gain[group, target] >= -1e-12:
            break
        surplus[part[group]] -= values[group]
        surplus[target] += values[group]
        part[group] = target
    return part


def _alone(part: NDArray[np.intp], n_parts: int) -> NDArray[np.bool_]:
    """Mark groups that are the only one in their part: moving them would leave it empty."""
    sizes = np.bincount(part, minlength=n_parts)
    return np.asarray(sizes[part] == 1)
