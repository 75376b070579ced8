"""A square field in millimetres: coordinates, masks, lines and smooth noise."""

from collections.abc import Iterable
from functools import cached_property
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Line = tuple[npt.NDArray[np.float64], float, float]
"""Points in millimetres, shape (n, 2) or for several lines (m, n, 2); width in millimetres; value in 0 to 1."""

FIELD_MM: Final = 440.0
"""Side of the drawn field; a 43 cm (17 inch) detector, the usual one for chests, lies inside it."""

_SHIFT = 4  # fractional bits of the coordinates that OpenCV takes


class Canvas:
    """Coordinates of a field of `FIELD_MM` millimetres a side, origin in the middle.

    Parameters
    ----------
    size : int
        Pixels a side.

    Attributes
    ----------
    x : ndarray of float32, shape (1, size)
        Millimetres to the right of the picture, which is the patient's left.
    y : ndarray of float32, shape (size, 1)
        Millimetres downwards.
    pitch : float
        Millimetres a pixel.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.pitch = FIELD_MM / size
        axis = ((np.arange(size) + 0.5) * self.pitch - FIELD_MM / 2).astype(np.float32)
        self.x: Array = axis[None, :]
        self.y: Array = axis[:, None]

    @cached_property
    def rows(self) -> Array:
        """Return `y` as one dimension, shape (size,)."""
        return np.ascontiguousarray(self.y[:, 0])

    def inside(self, distance: Array, soft: float = 0.0) -> Array:
        """Turn a distance to an edge into a mask with a soft edge.

        Parameters
        ----------
        distance : ndarray of float32
            Millimetres; positive inside.
        soft : float
            Width of the transition in millimetres; at least one pixel.

        Returns
        -------
        ndarray of float32
            0 outside to 1 inside.
        """
        width = max(soft, self.pitch)
        clipped: Array = np.clip(distance * np.float32(1 / width) + np.float32(0.5), 0, 1)
        return clipped

    def empty(self) -> Array:
        """Return zeros of shape (size, size)."""
        return np.zeros((self.size, self.size), np.float32)

    def strokes(self, lines: Iterable[Line]) -> Array:
        """Draw polylines.

        Parameters
        ----------
        lines : iterable of Line
            Later ones cover earlier ones.

        Returns
        -------
        ndarray of float32, shape (size, size)
            0 to 1. A line thinner than a pixel is one pixel wide and as much fainter.
        """
        mask = np.zeros((self.size, self.size), np.uint8)
        for points, width, value in lines:
            pixels = width / self.pitch
            level = int(255 * value * min(1.0, pixels))
            thickness = max(1, round(pixels))
            cv2.polylines(mask, self._pixels(points), False, level, thickness, cv2.LINE_AA, _SHIFT)
        return mask.astype(np.float32) * np.float32(1 / 255)

    def blob(self, centre: tuple[float, float], radii: tuple[float, float]) -> Array:
        """Return a Gaussian hill of height 1; `radii` are its standard deviations in x and y, in millimetres."""
        across = np.exp(-0.5 * ((self.x - centre[0]) / radii[0]) ** 2)
        down = np.exp(-0.5 * ((self.y - centre[1]) / radii[1]) ** 2)
        hill: Array = (across * down).astype(np.float32)
        return hill

    def radius(self, centre: tuple[float, float], aspect: float = 1.0) -> Array:
        """Return the distance of every pixel to `centre`, heights divided by `aspect`, in millimetres."""
        distance: Array = np.sqrt((self.x - centre[0]) ** 2 + ((self.y - centre[1]) / np.float32(aspect)) ** 2)
        return distance

    def blur(self, image: Array, sigma: float) -> Array:
        """Blur with a Gaussian of `sigma` millimetres."""
        pixels = sigma / self.pitch
        return np.asarray(cv2.GaussianBlur(image, (0, 0), pixels), np.float32) if pixels > 0.2 else image

    def noise(self, rng: np.random.Generator, grain: float) -> Array:
        """Return smooth noise of mean 0 and standard deviation near 1, with structures of `grain` millimetres.

        It is drawn on a grid of that pitch and interpolated, so the pattern is the same at every picture size.
        """
        cells = max(4, round(FIELD_MM / grain))
        coarse = rng.standard_normal((cells, cells), dtype=np.float32)
        return np.asarray(cv2.resize(coarse, (self.size, self.size), interpolation=cv2.INTER_CUBIC), np.float32)

    def _pixels(self, points: npt.NDArray[np.float64]) -> list[npt.NDArray[np.int32]]:
        position = (points + FIELD_MM / 2) / self.pitch - 0.5
        fixed = np.round(position * 2**_SHIFT).astype(np.int32)
        return list(fixed) if fixed.ndim == 3 else [fixed]
