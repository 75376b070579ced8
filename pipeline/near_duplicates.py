"""Which pictures are nearly the same: perceptual hashes find candidates, aligned thumbnails confirm them.

Both steps are measured in docs/audit.md. Chest films look alike, so that a 64-bit hash alone is wrong most of the time.
"""

from collections.abc import Iterator
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.thumbnails import SIDE, Pictures

_FEW_BITS = 8  # up to this distance, and for many hashes, three bands are faster than four
_MANY = 4096  # hashes; for fewer, tables of 2^22 places take longer than they save
_CHUNK = 1 << 20  # comparisons at a time
_MOST_PAIRS = 20_000_000  # some hundred times what 112,120 real films give at the default distance
_COMPARED_AT_ONCE = 512  # images; what they need then stays in the processor's cache
_INNER = (SIDE - 2) ** 2  # pixels of a thumbnail without its rim

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]


def pairs_within(left: Hashes, right: Hashes, distance: int) -> tuple[Places, Places, NDArray[np.uint8]]:
    """Find all pairs of hashes that differ in few bits; exact, and without comparing all with all.

    Multi-index hashing (Norouzi, Punjani, Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012),
    with the generalised pigeonhole principle (Qin et al., "GPH: similarity search in Hamming space", ICDE 2018): cut
    into bands, two hashes at most d apart differ in at most r bits of some band, for any radii r that satisfy
    sum(r + 1) = d + 1. Which bit belongs to which band is free; bits that are nearly always the same say little, so
    that they are shared out evenly.

    Parameters
    ----------
    left, right : ndarray of uint64
        The same array for pairs within one set; each pair is then found once, and no hash is paired with itself.
    distance : int
        Bits, 0 to 16.

    Returns
    -------
    i, j : ndarray of int64
        Places in `left` and `right`, sorted; i < j within one set.
    distances : ndarray of uint8

    Raises
    ------
    UserError
        If there are more than 20 million such pairs.
    """
    within = left is right
    found: list[Places] = []
    total = 0
    plan = _plan(left, right, distance) if len(left) and len(right) else []
    for bits, radius in plan:
        for i, j in _band_pairs(left, right, bits, radius, distance):
            first, second = (np.minimum(i, j), np.maximum(i, j)) if within else (i, j)
            found.append(first * len(right) + second)
            total += len(i)
            _require_few(total, len(plan) * _MOST_PAIRS, distance)  # a pair may be found once in each band
    places = np.sort(np.concatenate([np.zeros(0, np.int64), *found]))  # ten times as fast as np.unique
    places = places[np.diff(places, prepend=-1) > 0]  # a pair that is near in several bands was found several times
    _require_few(len(places), _MOST_PAIRS, distance)
    i, j = np.divmod(places, max(1, len(right)))
    return i, j, np.bitwise_count(left[i] ^ right[j])


def _require_few(count: int, most: int, distance: int) -> None:
    if count > most:
        raise UserError(
            f"more than {_MOST_PAIRS:,} pairs of images have perceptual hashes within audit.distance "
            f"{distance}; set it lower, and look whether the column phash holds what `cxr ingest` wrote"
        )


def _plan(left: Hashes, right: Hashes, distance: int) -> list[tuple[list[int], int]]:
    """Return the bits of each band and its radius: the larger radii for the bands whose values are spread most evenly.

    A band whose radius would be -1 is left out.
    """
    count = 3 if distance <= _FEW_BITS and len(left) + len(right) > 2 * _MANY else 4
    both = np.concatenate([left, right])
    ones = np.array([np.count_nonzero(both & np.uint64(1 << bit)) for bit in range(64)])
    order = np.argsort(np.abs(ones / len(both) - 0.5), kind="stable").tolist()
    bands = [order[band::count] for band in range(count)]
    common, more = divmod(distance + 1, count)
    crowding = [float(_counts(_values(left, bits), bits) @ _counts(_values(right, bits), bits)) for bits in bands]
    even = sorted(range(count), key=lambda band: crowding[band])[:more]
    radii = [common if band in even else common - 1 for band in range(count)]
    return [(bits, radius) for bits, radius in zip(bands, radii, strict=True) if radius >= 0]


def _band_pairs(
    left: Hashes, right: Hashes, bits: list[int], radius: int, distance: int
) -> Iterator[tuple[Places, Places]]:
    """Yield the near pairs among those whose values in one band differ in at most `radius` bits."""
    within = left is right
    left_values, right_values = _values(left, bits), _values(right, bits)
    left_order, right_order = np.argsort(left_values, kind="stable"), np.argsort(right_values, kind="stable")
    values, one, two = left_values[left_order], left[left_order], right[right_order]
    starts = np.concatenate([[0], np.cumsum(_counts(right_values, bits))]).astype(np.int32)
    everyone = np.arange(len(left))
    # Within one set a pair is met from both sides; only the side whose value is the smaller one is followed.
    smaller = [np.flatnonzero(values >> bit & 1 == 0) for bit in range(len(bits))] if within else []
    for mask in _masks(len(bits), radius):
        chosen = smaller[mask.bit_length() - 1] if within and mask else everyone
        wanted = values[chosen] ^ mask
        first = chosen + 1 if within and not mask else starts[wanted]
        sizes = starts[wanted + 1] - first
        some = np.flatnonzero(sizes > 0)
        for i, j in _near(one, two, chosen[some], first[some], sizes[some], distance):
            yield left_order[i], right_order[j]


def _near(
    one: Hashes, two: Hashes, places: Places, first: Places, sizes: Places, distance: int
) -> Iterator[tuple[Places, Places]]:
    """Compare each hash of `one` at `places` with a run of `two`; yield in chunks where the near pairs stand."""
    ends = np.cumsum(sizes)
    cut = 0
    while cut < len(places):
        done = int(ends[cut - 1]) if cut else 0
        stop = max(cut + 1, int(np.searchsorted(ends, done + _CHUNK, side="right")))
        part = sizes[cut:stop]
        shift = first[cut:stop] - (ends[cut:stop] - part - done)
        runs = np.repeat(shift, part) + np.arange(int(ends[stop - 1]) - done)
        bits = np.bitwise_count(np.repeat(one[places[cut:stop]], part) ^ two[runs])
        near = np.flatnonzero(bits <= distance)
        owner = np.searchsorted(ends[cut:stop] - done, near, side="right")
        yield places[cut:stop][owner], runs[near]
        cut = stop


def _values(hashes: Hashes, bits: list[int]) -> Places:
    """Gather some bits of each hash to a number."""
    values = np.zeros(len(hashes), np.uint64)
    for place, bit in enumerate(bits):
        values |= (hashes >> np.uint64(bit) & np.uint64(1)) << np.uint64(place)
    return values.astype(np.int64)


def _counts(values: Places, bits: list[int]) -> Places:
    return np.bincount(values, minlength=1 << len(bits))


@cache
def _masks(width: int, radius: int) -> list[int]:
    bits = [1 << bit for bit in range(width)]
    return [sum(chosen) for size in range(radius + 1) for chosen in combinations(bits, size)]


def similarity(left: Pictures, right: Pictures, i: Places, j: Places, least: float = 0.0) -> NDArray[np.float64]:
    """Compare thumbnails after aligning them to first order.

    Each thumbnail, smoothed, is explained by least squares from the other one and from what a small shift and a small
    change of width and height would add to it: its derivatives, and these times the distance from the centre (Lucas
    and Kanade, "An iterative image registration technique", IJCAI 1981, one step), with any gain and offset of the
    gray values. So copies stay similar when they are cropped a little, brightened or compressed.

    Parameters
    ----------
    left, right : ndarray of shape (n, 16, 16), dtype=uint8
        See `pipeline.thumbnails`.
    i, j : ndarray of int64
        The pairs, places in `left` and `right`.
    least : float
        What matters; of pairs that are less similar, the result says only that they are.

    Returns
    -------
    ndarray of float, one per pair
        The smaller of the two multiple correlations, 0 to 1; NaN where a thumbnail has no contrast.
    """
    result = _explained(left, right, i, j)
    open_still = np.flatnonzero(result >= least)
    other = _explained(right, left, j[open_still], i[open_still])
    result[open_still] = np.minimum(result[open_still], other)
    return result


def renumbered(places: Places, count: int) -> tuple[Places, Places]:
    """Return the different places, all below `count`, in their order, and the number of each among them.

    What `np.unique` with `return_inverse` gives, without sorting millions of places.
    """
    used = np.zeros(count, bool)
    used[places] = True
    return np.flatnonzero(used), (np.cumsum(used) - 1)[places]


def _explained(by: Pictures, what: Pictures, i: Places, j: Places) -> NDArray[np.float64]:
    """Return the multiple correlation of `what[j]` with what `by[i]` can become; NaN without contrast."""
    places, j = renumbered(j, len(what))
    targets = _targets(what[places])
    result = np.empty(len(i))
    order = np.argsort(i, kind="stable")
    counts = np.bincount(i, minlength=len(by))
    images = np.flatnonzero(counts)
    ends = np.cumsum(counts[images])
    starts = ends - counts[images]
    for low in range(0, len(images), _COMPARED_AT_ONCE):
        part = slice(low, low + _COMPARED_AT_ONCE)
        bases = _basis(_smooth(by[images[part]]))
        pairs = order[starts[part][0] : ends[part][-1]]
        wanted, weights = targets[j[pairs]], np.empty((len(pairs), bases.shape[2]), np.float32)
        cuts = (ends[part] - starts[part][0]).tolist()
        for basis, start, end in zip(bases, [0, *cuts], cuts, strict=False):
            np.matmul(wanted[start:end], basis, out=weights[start:end])
        result[pairs] = np.einsum("nk,nk->n", weights, weights)
    return np.sqrt(np.minimum(result, 1.0))


def _smooth(pictures: Pictures) -> NDArray[np.float32]:
    """Weigh neighbours 1:2:1 along each axis (a standard deviation of 0.7 pixels); shape (n, 16, 16)."""
    padded = np.pad(pictures.astype(np.float32), ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return np.asarray((rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16, np.float32)


def _targets(pictures: Pictures) -> NDArray[np.float32]:
    """Smooth and normalise, a few pictures at a time; shape (n, 196)."""
    parts = [pictures[low : low + _COMPARED_AT_ONCE] for low in range(0, len(pictures), _COMPARED_AT_ONCE)]
    return np.concatenate([np.empty((0, _INNER), np.float32), *(_normalised(_smooth(part)) for part in parts)])


def _normalised(smooth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut the rim off, subtract the mean and divide by the norm; shape (n, 196), NaN without contrast."""
    flat = smooth[:, 1:-1, 1:-1].reshape(len(smooth), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.where(norm > 1e-3, norm, np.nan), np.float32)


def _basis(smooth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an orthonormal basis of what an image can become; shape (n, 196, 5)."""
    down, across = (np.asarray(np.gradient(smooth, axis=axis)) for axis in (1, 2))
    centred = np.arange(smooth.shape[1], dtype=np.float32) - (smooth.shape[1] - 1) / 2
    shapes = (smooth, across, down, across * centred, down * centred[:, None])
    flat = np.stack([shape[:, 1:-1, 1:-1].reshape(len(smooth), -1) for shape in shapes], axis=1)
    flat -= flat.mean(axis=2, keepdims=True)  # along the axis that lies together in memory, so the transposition
    return np.linalg.qr(flat.transpose(0, 2, 1)).Q.astype(np.float32)
