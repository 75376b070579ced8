"""A square field in millimetres: coordinates, masks, lines and smooth noise."""

from collections.abc import Iterable
from functools import cached_property, lru_cache
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
_COARSE = 192  # pixels a side on which what is smooth is drawn: 2.3 mm each
_TILE = 1024


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

    @cached_property
    def coarse(self) -> "Canvas":
        """Return the same field with fewer pixels, on which what is smooth is drawn; itself if it has few."""
        return self if self.size <= _COARSE else Canvas(_COARSE)

    def enlarge(self, image: Array) -> Array:
        """Bring an image of the field, drawn on `coarse`, to this size by linear interpolation."""
        if image.shape[0] == self.size:
            return image
        return np.asarray(cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_LINEAR), np.float32)

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

    def filled(self, polygons: Iterable[tuple[npt.NDArray[np.float64], float]]) -> Array:
        """Fill polygons, later ones over earlier ones.

        Parameters
        ----------
        polygons : iterable of (ndarray of shape (n, 2), float)
            Corners in millimetres and value in 0 to 1.

        Returns
        -------
        ndarray of float32, shape (size, size)
            0 outside.
        """
        mask = np.zeros((self.size, self.size), np.uint8)
        for points, value in polygons:
            cv2.fillPoly(mask, self._pixels(points), round(255 * value), cv2.LINE_AA, _SHIFT)
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

    def texture(self, rng: np.random.Generator) -> Array:
        """Return noise of mean 0 and standard deviation 1 whose power falls as frequency to the power of -2.2.

        Anatomical noise follows a power law, with an exponent near 3 in mammograms (Burgess et al., Med Phys
        2001;28:419-437); this one was chosen by the spectra of real chest films, with nothing below 10 cycles a field,
        where the layers themselves have their power. It is one pattern, displaced and mirrored by `rng`.
        """
        tile = _tile(self.size)
        across, down, flip = rng.integers(0, [self.size, self.size, 4])
        turned = tile[:: -1 if flip & 1 else 1, :: -1 if flip & 2 else 1]
        rolled = np.empty_like(tile)
        rolled[:down, :across] = turned[self.size - down :, self.size - across :]
        rolled[:down, across:] = turned[self.size - down :, : self.size - across]
        rolled[down:, :across] = turned[: self.size - down, self.size - across :]
        rolled[down:, across:] = turned[: self.size - down, : self.size - across]
        return rolled

    def _pixels(self, points: npt.NDArray[np.float64]) -> list[npt.NDArray[np.int32]]:
        position = (points + FIELD_MM / 2) / self.pitch - 0.5
        fixed = np.round(position * 2**_SHIFT).astype(np.int32)
        return list(fixed) if fixed.ndim == 3 else [fixed]


@lru_cache(maxsize=2)
def _tile(size: int) -> Array:
    """Return the periodic pattern of `Canvas.texture`; the same for every seed."""
    white = np.random.default_rng(0).standard_normal((_TILE, _TILE), dtype=np.float32)
    axis = np.fft.fftfreq(_TILE, 1 / _TILE)
    radius = np.hypot(axis[:, None], np.arange(_TILE // 2 + 1)[None, :])
    weight = np.where(radius < 10, 0, np.maximum(radius, 1) ** -1.1)  # nothing wider than 44 mm: the layers draw that
    pattern = np.fft.irfft2(np.fft.rfft2(white) * weight, (_TILE, _TILE)).astype(np.float32)
    pattern /= pattern.std()
    way = cv2.INTER_AREA if size < _TILE else cv2.INTER_CUBIC
    tile = np.asarray(cv2.resize(pattern, (size, size), interpolation=way), np.float32)
    tile.flags.writeable = False
    return tile
