"""Heat maps: where they are largest, how they are enlarged, and how they are laid over a film."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.images import Image

Map = NDArray[np.float32]
"""Of shape (h', w'): one value for each place of a layer's output."""
Picture = NDArray[np.uint8]
"""Of shape (height, width, 3): blue, green, red, as OpenCV has them."""
Box = tuple[float, float, float, float]
"""Left, top, width, height, in pixels; pixel i covers the interval from i to i + 1."""

_TIE = 1e-6  # relative, of float32 sums
_OPACITY = 0.6  # of the heat map where it is strongest
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def is_flat(maps: Map) -> NDArray[np.bool_]:
    """Say of each map (the last two axes are its places) whether it has no value above 0, or one that is no number."""
    top = maps.max(axis=(-2, -1))
    return np.asarray(~(np.isfinite(top) & (top > 0)))


def peaks(heat: Map, size: int) -> NDArray[np.float64]:
    """Return where a map is largest: the centre of that place, in pixels of the image; of all that share the maximum.

    There the interpolated map has its maximum too. Its pixels are no measure of it: on the border they keep a place's
    full value, and elsewhere, where no pixel's centre meets the place's, they do not.

    Parameters
    ----------
    heat : ndarray of shape (h', w'), dtype=float32
        One map.
    size : int
        Pixels a side of the prepared image.

    Returns
    -------
    ndarray of shape (n, 2)
        x and y, in (0, size); of no row if the map is flat.
    """
    if is_flat(heat):
        return np.zeros((0, 2))
    rows, columns = np.nonzero(heat >= heat.max() * (1 - _TIE))
    return np.stack([(columns + 0.5) * size / heat.shape[1], (rows + 0.5) * size / heat.shape[0]], axis=1)


def enlarge(heat: Map, size: int) -> Map:
    """Enlarge a map to the image by bilinear interpolation (Selvaraju et al., section 3), and scale its top to 1.

    Parameters
    ----------
    heat : ndarray of shape (h', w'), dtype=float32
        One map.
    size : int
        Pixels a side of the prepared image.

    Returns
    -------
    ndarray of shape (size, size), dtype=float32
        0 to 1; NaN everywhere if the map is flat. The centres of the outer places are half a place from the border,
        as those of pixels are; beyond them the value stays the same.
    """
    if is_flat(heat):
        return np.full((size, size), np.nan, np.float32)
    large = cv2.resize(heat / heat.max(), (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large / large.max(), np.float32)


def overlay(film: Image, heat: Map) -> Picture:
    """Lay a map over a film, the stronger the more opaque, so that the film stays visible where the map is weak.

    The colours are viridis (van der Walt and Smith 2015), whose lightness rises evenly, also for colour-blind readers.

    Parameters
    ----------
    film : ndarray of shape (size, size), dtype=uint8
        The prepared image.
    heat : ndarray of shape (size, size), dtype=float32
        0 to 1; NaN: nothing is drawn.

    Returns
    -------
    ndarray of shape (size, size, 3), dtype=uint8
        Blue, green, red, as OpenCV has them.
    """
    gray = np.repeat(film[:, :, None], 3, axis=2).astype(np.float32)
    strength = np.nan_to_num(heat, nan=0.0)[:, :, None]
    levels = np.rint(255 * strength[:, :, 0]).astype(np.uint8)
    colour = cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS).astype(np.float32)
    mixed = gray + _OPACITY * strength * (colour - gray)
    return np.rint(mixed).astype(np.uint8)


def outline(picture: Picture, boxes: Sequence[Box]) -> Picture:
    """Return a copy with the boxes' borders drawn, white beside black, which is seen on every ground."""
    drawn = picture.copy()
    for x, y, width, height in boxes:
        left, top, right, bottom = round(x), round(y), round(x + width) - 1, round(y + height) - 1
        for out, colour in ((1, _BLACK), (-1, _BLACK), (0, _WHITE)):
            cv2.rectangle(drawn, (left - out, top - out), (right + out, bottom + out), colour, 1)
    return drawn
