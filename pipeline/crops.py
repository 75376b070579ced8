"""Copies that were cropped: parts of a picture against whole other pictures, thumbnail by thumbnail.

A hash of the whole picture changes too much when 5 % of a side is cut off. So each thumbnail is also hashed as it would
be after a crop. Cropping, enlarging and the cosine transform are linear, so that one matrix does all three at once.
docs/audit.md measures it.
"""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.near_duplicates import Hashes, Places, pairs_within, similarity
from pipeline.thumbnails import SIDE, Pictures

PARTS = ((0.05, 0.5, 0.5), (0.1, 0.5, 0.5), (0.05, 0.0, 0.0), (0.05, 0.0, 1.0), (0.05, 1.0, 0.0), (0.05, 1.0, 1.0))
"""Parts that are looked for: the share of each side that is cut off, and how much of it at the top and at the left."""
DISTANCE = 4
"""Bits; at 6, a pair more of the pneumonia set is found, of one child, and the search takes three times as long."""

_PIXELS = SIDE * SIDE
Matrix = NDArray[np.float32]


def cropped_pairs(left: Pictures, right: Pictures, least: float) -> tuple[Places, Places, NDArray[np.float64]]:
    """Find pictures of which one looks like a part of the other.

    Parameters
    ----------
    left, right : ndarray of shape (n, 16, 16), dtype=uint8
        Thumbnails (see `pipeline.thumbnails`); the same array for pairs within one set.
    least : float
        What `pipeline.near_duplicates.similarity` of the one and the part of the other must reach.

    Returns
    -------
    i, j : ndarray of int64
        Places in `left` and `right`, sorted, each pair once; i < j within one set.
    alike : ndarray of float
        The similarity, of the part that fits best.

    Raises
    ------
    UserError
        If there are more than 20 million pairs to compare.
    """
    keys, alike = [np.zeros(0, np.int64)], [np.zeros(0)]
    ours, theirs = _hashes(left, _transform()), _hashes(right, _transform())
    for part in PARTS:
        found = [_pairs(left, ours, right, part, least)]
        if left is not right:
            j, i, values = _pairs(right, theirs, left, part, least)
            found.append((i, j, values))
        for i, j, values in found:
            first, second = (np.minimum(i, j), np.maximum(i, j)) if left is right else (i, j)
            keys.append(first * len(right) + second)
            alike.append(values)
    key, value = np.concatenate(keys), np.concatenate(alike)
    order = np.lexsort((-value, key))
    order = order[np.diff(key[order], prepend=-1) > 0]
    i, j = np.divmod(key[order], max(1, len(right)))
    return i, j, value[order]


def _pairs(
    whole: Pictures, hashes: Hashes, cut: Pictures, part: tuple[float, float, float], least: float
) -> tuple[Places, Places, NDArray[np.float64]]:
    crop = _crop(*part)
    i, j, _ = pairs_within(hashes, _hashes(cut, crop @ _transform()), DISTANCE)
    if whole is cut:
        i, j = i[i != j], j[i != j]
    places, number = np.unique(j, return_inverse=True)
    parts = np.clip(np.round(_flat(cut[places]) @ crop), 0, 255).astype(np.uint8).reshape(-1, SIDE, SIDE)
    alike = similarity(whole, parts, i, number.astype(np.int64), least)
    near = np.flatnonzero(alike >= least)
    return i[near], j[near], alike[near]


def _hashes(pictures: Pictures, matrix: Matrix) -> Hashes:
    """Return what `pipeline.images.perceptual_hash` returns, but for the thumbnail in the place of the picture."""
    coefficients = _flat(pictures) @ matrix
    bits = np.packbits(coefficients > np.median(coefficients, axis=1, keepdims=True), axis=1)
    return bits.view(">u8").ravel().astype(np.uint64)


def _flat(pictures: Pictures) -> Matrix:
    return pictures.reshape(len(pictures), _PIXELS).astype(np.float32)


@cache
def _transform() -> Matrix:
    """Enlarge a thumbnail to 32 x 32 and return the 8 x 8 lowest frequencies without the first row and column."""
    enlarged = (cv2.resize(unit, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_CUBIC) for unit in _units())
    return np.stack([np.asarray(cv2.dct(picture), np.float32)[1:9, 1:9].ravel() for picture in enlarged])


@cache
def _crop(share: float, top: float, left: float) -> Matrix:
    """Enlarge a part of a thumbnail to the whole."""
    scale = 1 - share
    x, y = (SIDE * share * place + scale / 2 - 0.5 for place in (left, top))  # centres of pixels, not corners
    way = np.array([[scale, 0, x], [0, scale, y]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    moved = (cv2.warpAffine(unit, way, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE) for unit in _units())
    return np.stack([np.asarray(picture, np.float32).ravel() for picture in moved])


def _units() -> NDArray[np.float32]:
    return np.eye(_PIXELS, dtype=np.float32).reshape(_PIXELS, SIDE, SIDE)
