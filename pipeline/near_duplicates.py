"""Which pictures are nearly the same: perceptual hashes find candidates, aligned thumbnails confirm them.

Both steps are measured in docs/audit.md. Chest films look alike, so that a 64-bit hash alone is wrong most of the time.
"""

from collections.abc import Iterator
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.thumbnails import Pictures

_BANDS, _BITS = 4, 16
_CHUNK = 1 << 21  # comparisons at a time
_MOST_PAIRS = 20_000_000  # some hundred times what 112,120 real films give at the default distance
_COMPARED_AT_ONCE = 8192

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]


def pairs_within(left: Hashes, right: Hashes, distance: int) -> tuple[Places, Places, NDArray[np.uint8]]:
    """Find all pairs of hashes that differ in few bits; exact, and without comparing all with all.

    Multi-index hashing (Norouzi, Punjani, Fleet, "Fast search in Hamming space with multi-index hashing", CVPR 2012),
    with the generalised pigeonhole principle (Qin et al., "GPH: similarity search in Hamming space", ICDE 2018): cut
    into 4 bands of 16 bits, two hashes at most d apart differ in at most r bits of some band, for any radii r that
    satisfy sum(r + 1) = d + 1.

    Parameters
    ----------
    left, right : ndarray of uint64
        The same array for pairs within one set; each pair is then found once, and no hash is paired with itself.
    distance : int
        Bits, 0 to 16.

    Returns
    -------
    i, j : ndarray of int64
        Places in `left` and `right`, sorted.
    distances : ndarray of uint8

    Raises
    ------
    UserError
        If there are more than 20 million such pairs.
    """
    within = left is right
    found: list[Places] = []
    total = 0
    for band, radius in enumerate(_radii(left, right, distance)):
        for i, j in _band_pairs(left, right, band, radius):
            near = np.bitwise_count(left[i] ^ right[j]) <= distance
            near &= i < j if within else True
            found.append(i[near] * len(right) + j[near])
            total += len(found[-1])
            _require_few(total, _BANDS * _MOST_PAIRS, distance)  # a pair may be found once in each band
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


def _radii(left: Hashes, right: Hashes, distance: int) -> list[int]:
    """Share the radii out: the larger ones to the bands whose values are spread most evenly; -1 leaves a band out."""
    common, more = divmod(distance + 1, _BANDS)
    crowding = [float(_counts(left, band) @ _counts(right, band)) for band in range(_BANDS)]
    order = sorted(range(_BANDS), key=lambda band: crowding[band])
    return [common if band in order[:more] else common - 1 for band in range(_BANDS)]


def _band_pairs(left: Hashes, right: Hashes, band: int, radius: int) -> Iterator[tuple[Places, Places]]:
    """Yield, in chunks, all pairs whose values in one band differ in at most `radius` bits."""
    if radius < 0 or not len(left) or not len(right):
        return
    left_values, right_values = _values(left, band), _values(right, band)
    left_order, right_order = np.argsort(left_values, kind="stable"), np.argsort(right_values, kind="stable")
    sorted_values = left_values[left_order]
    starts = np.concatenate([[0], np.cumsum(_counts(right, band))]).astype(np.int64)
    for mask in _masks(radius):
        wanted = sorted_values ^ mask
        first, sizes = starts[wanted], starts[wanted + 1] - starts[wanted]
        ends = np.cumsum(sizes)
        cut = 0
        while cut < len(left):
            done = int(ends[cut - 1]) if cut else 0
            stop = max(cut + 1, int(np.searchsorted(ends, done + _CHUNK, side="right")))
            part = sizes[cut:stop]
            if size := int(part.sum()):
                inner = np.arange(size) - np.repeat(np.cumsum(part) - part, part)
                i = np.repeat(left_order[cut:stop], part)
                yield i, right_order[np.repeat(first[cut:stop], part) + inner]
            cut = stop


def _values(hashes: Hashes, band: int) -> Places:
    return (hashes >> np.uint64(band * _BITS) & np.uint64(2**_BITS - 1)).astype(np.int64)


def _counts(hashes: Hashes, band: int) -> Places:
    return np.bincount(_values(hashes, band), minlength=2**_BITS).astype(np.int64)


@cache
def _masks(radius: int) -> list[int]:
    bits = [1 << bit for bit in range(_BITS)]
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


def _explained(by: Pictures, what: Pictures, i: Places, j: Places) -> NDArray[np.float64]:
    result = np.empty(len(i))
    order = np.argsort(i, kind="stable")  # so that each basis is made once or twice
    for start in range(0, len(order), _COMPARED_AT_ONCE):
        part = order[start : start + _COMPARED_AT_ONCE]
        images, place = np.unique(i[part], return_inverse=True)
        target = _normalised(_smooth(what[j[part]]))
        weights = np.einsum("np,npk->nk", target, _basis(_smooth(by[images]))[place])
        result[part] = np.sqrt(np.minimum((weights**2).sum(axis=1), 1.0))
    return result


def _smooth(pictures: Pictures) -> NDArray[np.float32]:
    """Weigh neighbours 1:2:1 along each axis (a standard deviation of 0.7 pixels); shape (n, 16, 16)."""
    padded = np.pad(pictures.astype(np.float32), ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return np.asarray((rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16, np.float32)


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
    flat = np.stack([shape[:, 1:-1, 1:-1].reshape(len(smooth), -1) for shape in shapes], axis=2)
    return np.linalg.qr(flat - flat.mean(axis=1, keepdims=True)).Q.astype(np.float32)
