"""A square field in millimetres: coordinates, masks, lines and smooth noise."""

from collections.abc import Iterable
from functools import cached_property, lru_cache
from math import ceil, floor
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Part = tuple[slice, slice]
"""Rows and columns of a field."""
Line = tuple[npt.NDArray[np.float64], float, float]
"""Points in millimetres, shape (n, 2) or for several lines (m, n, 2); width in millimetres; value in 0 to 1."""

FIELD_MM: Final = 440.0
"""Side of the drawn field; a 43 cm (17 inch) detector, the usual one for chests, lies inside it."""

_SHIFT = 4  # fractional bits of the coordinates that OpenCV takes
_COARSE = 192  # pixels a side on which what is smooth is drawn: 2.3 mm each
_TILE = 1024
_WHOLE: Final = (slice(None), slice(None))


class Canvas:
    """Coordinates of a field of `FIELD_MM` millimetres a side, origin in the middle, or of a part of it.

    Parameters
    ----------
    size : int
        Pixels a side of the whole field.
    part : tuple of slice
        Rows and columns of the field that are drawn; each pixel is as it would be in the whole.

    Attributes
    ----------
    x : ndarray of float32, shape (1, columns)
        Millimetres to the right of the picture, which is the patient's left.
    y : ndarray of float32, shape (rows, 1)
        Millimetres downwards.
    shape : tuple of int
        Rows and columns; (size, size) of the whole.
    pitch : float
        Millimetres a pixel.
    """

    def __init__(self, size: int, part: Part = _WHOLE) -> None:
        self.size, self.part = size, part
        self.pitch = FIELD_MM / size
        axis = ((np.arange(size) + 0.5) * self.pitch - FIELD_MM / 2).astype(np.float32)
        self.x: Array = axis[None, part[1]]
        self.y: Array = axis[part[0], None]
        self.shape = (self.y.shape[0], self.x.shape[1])
        self._scale = 2**_SHIFT / self.pitch
        corner = np.array([part[1].start or 0, part[0].start or 0])
        self._offset = (FIELD_MM / 2 / self.pitch - 0.5 - corner) * 2**_SHIFT

    @cached_property
    def whole(self) -> "Canvas":
        """Return the canvas of the whole field; itself if it is no part."""
        return self if self.part == _WHOLE else Canvas(self.size)

    def window(self, left: float, top: float, right: float, bottom: float) -> "Canvas":
        """Return the part between these edges in millimetres, with every pixel that they touch; at least one."""

        def pixels(low: float, high: float, own: slice) -> slice:
            start, stop, _ = own.indices(self.size)
            first, last = ((edge + FIELD_MM / 2) / self.pitch - 0.5 for edge in (low, high))
            begin = min(max(start, floor(first)), stop - 1)
            return slice(begin, max(begin + 1, min(stop, ceil(last) + 1)))

        rows, columns = self.part
        window = Canvas(self.size, (pixels(top, bottom, rows), pixels(left, right, columns)))
        window.whole = self.whole
        return window

    def around(self, centre: tuple[float, float], reach: float) -> tuple["Canvas", Part]:
        """Return the part no farther from `centre` than `reach` millimetres, and where it lies in this canvas."""
        x, y = centre
        near = self.window(x - reach, y - reach, x + reach, y + reach)
        rows, columns = (
            slice(inner.start - (own.start or 0), inner.stop - (own.start or 0))
            for inner, own in zip(near.part, self.part, strict=True)
        )
        return near, (rows, columns)

    @cached_property
    def rows(self) -> Array:
        """Return `y` as one dimension, shape (rows,)."""
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
        mask: Array = distance * np.float32(1 / width)
        mask += np.float32(0.5)
        return np.clip(mask, 0, 1, out=mask)

    def between(self, far: Array, near: Array, soft: float = 0.0) -> Array:
        """Return `inside(far - near, soft)`; faster where each of the two varies along one axis only."""
        scale = np.float32(1 / max(soft, self.pitch))
        mask: Array = (far * scale + np.float32(0.5)) - near * scale
        return np.clip(mask, 0, 1, out=mask)

    @cached_property
    def coarse(self) -> "Canvas":
        """Return the whole field with fewer pixels, on which what is smooth is drawn; itself if it has few."""
        if self is not self.whole:
            return self.whole.coarse
        return self if self.size <= _COARSE else Canvas(_COARSE)

    def enlarge(self, image: Array) -> Array:
        """Bring an image of the field, drawn on `coarse`, to this size by linear interpolation."""
        return self._resized(image, cv2.INTER_LINEAR)

    def empty(self) -> Array:
        """Return zeros of the canvas's shape."""
        return np.zeros(self.shape, np.float32)

    def strokes(self, *groups: Iterable[Line], full: float = 1.0) -> Array:
        """Draw polylines.

        Parameters
        ----------
        *groups : iterable of Line
            Later lines of a group cover earlier ones; of the groups, the greatest value counts.
        full : float
            What a line of value 1 gets.

        Returns
        -------
        ndarray of float32
            0 to `full`. A line thinner than a pixel is one pixel wide and as much fainter.
        """
        greatest, *others = (self._stroked(lines) for lines in groups)
        for mask in others:
            cv2.max(greatest, mask, dst=greatest)
        drawn = greatest.astype(np.float32)
        drawn *= np.float32(full / 255)
        return drawn

    def filled(self, polygons: Iterable[tuple[npt.NDArray[np.float64], float]]) -> Array:
        """Fill polygons, later ones over earlier ones.

        Parameters
        ----------
        polygons : iterable of (ndarray of shape (n, 2), float)
            Corners in millimetres and value in 0 to 1.

        Returns
        -------
        ndarray of float32
            0 outside.
        """
        mask = np.zeros(self.shape, np.uint8)
        for points, value in polygons:
            cv2.fillPoly(mask, self._pixels(points), round(255 * value), cv2.LINE_AA, _SHIFT)
        return mask.astype(np.float32) * np.float32(1 / 255)

    def blob(self, centre: tuple[float, float], radii: tuple[float, float]) -> Array:
        """Return a Gaussian hill of height 1; `radii` are its standard deviations in x and y, in millimetres."""
        across = np.exp(-0.5 * ((self.x - centre[0]) / radii[0]) ** 2)
        down = np.exp(-0.5 * ((self.y - centre[1]) / radii[1]) ** 2)
        hill: Array = (across * down).astype(np.float32, copy=False)
        return hill

    def radius(self, centre: tuple[float, float], aspect: float = 1.0) -> Array:
        """Return the distance of every pixel to `centre`, heights divided by `aspect`, in millimetres."""
        distance: Array = (self.x - centre[0]) ** 2 + ((self.y - centre[1]) / np.float32(aspect)) ** 2
        return np.sqrt(distance, out=distance)

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
        return self._resized(coarse, cv2.INTER_CUBIC)

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
        return rolled[self.part]

    def _resized(self, image: Array, interpolation: int) -> Array:
        """Bring an image of the whole field to this size, and return this part of it."""
        if image.shape[0] != self.size:
            image = np.asarray(cv2.resize(image, (self.size, self.size), interpolation=interpolation), np.float32)
        return image[self.part]

    def _stroked(self, lines: Iterable[Line]) -> npt.NDArray[np.uint8]:
        mask = np.zeros(self.shape, np.uint8)
        for points, width, value in lines:
            pixels = width / self.pitch
            level = int(255 * value * min(1.0, pixels))
            thickness = max(1, round(pixels))
            cv2.polylines(mask, self._pixels(points), False, level, thickness, cv2.LINE_AA, _SHIFT)
        return mask

    def _pixels(self, points: npt.NDArray[np.float64]) -> list[npt.NDArray[np.int32]]:
        fixed = np.rint(points * self._scale + self._offset).astype(np.int32)
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
