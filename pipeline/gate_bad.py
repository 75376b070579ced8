"""Bad images, made of good films or of nothing, that the gate is fitted on; docs/gate.md shows and counts them.

Each maker takes a random generator, a prepared film and how to equalise, and returns an image of the film's size.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.images import Image

Equalise = Callable[[Image], Image]
Maker = Callable[[np.random.Generator, Image, Equalise], Image]

CROP_SIDES = (0.3, 0.7)
"""Sides of a crop as a share of the film's sides, from and to: at most half of the film is left."""


def jittered(rng: np.random.Generator, film: Image, _equalise: Equalise) -> Image:
    """Shift, turn and enlarge a film a little, as positioning does, and change its gamma: it is a film still."""
    size = len(film)
    middle = (size / 2, size / 2)
    turned = cv2.getRotationMatrix2D(middle, float(rng.normal(0, 4)), float(rng.uniform(0.93, 1.1)))
    move = np.asarray(turned, np.float64)
    move[:, 2] += rng.normal(0, 0.03 * size, 2)
    moved = _warped(film, move)
    gamma = float(np.exp(rng.normal(0, 0.2)))
    table = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    return np.asarray(table[moved], np.uint8)


def quarter_turned(rng: np.random.Generator, film: Image, _equalise: Equalise) -> Image:
    """Turn by a quarter or a half, or put upside down."""
    turns = int(rng.integers(4))
    return np.ascontiguousarray(np.rot90(film, turns) if turns else film[::-1])


def turned(rng: np.random.Generator, film: Image, _equalise: Equalise) -> Image:
    """Turn by any angle from 60 to 300 degrees, the corners black or as the border."""
    size = len(film)
    move = cv2.getRotationMatrix2D((size / 2 - 0.5, size / 2 - 0.5), float(rng.uniform(60, 300)), 1)
    return _warped(film, move, black=bool(rng.integers(2)))


def inverted(rng: np.random.Generator, film: Image, _equalise: Equalise) -> Image:
    """Invert; one in four is turned as well."""
    negative = np.asarray(255 - film, np.uint8)
    return np.ascontiguousarray(np.rot90(negative, int(rng.integers(1, 4)))) if rng.random() < 0.25 else negative


def cropped(rng: np.random.Generator, film: Image, equalise: Equalise) -> Image:
    """Enlarge a window of `CROP_SIDES` anywhere within the film."""
    size = len(film)
    height, width = (max(2, round(size * float(rng.uniform(*CROP_SIDES)))) for _ in range(2))
    top, left = int(rng.integers(size - height + 1)), int(rng.integers(size - width + 1))
    window = film[top : top + height, left : left + width]
    return equalise(_of_size(window, size))


def shuffled(rng: np.random.Generator, film: Image, _equalise: Equalise) -> Image:
    """Cut a film into 4, 9 or 16 tiles in another order: its texture without its anatomy."""
    cuts = int(rng.integers(2, 5))
    side = len(film) // cuts
    tiles = [film[y : y + side, x : x + side] for y in range(0, side * cuts, side) for x in range(0, side * cuts, side)]
    order = rng.permutation(len(tiles))
    while (order == np.arange(len(tiles))).mean() > 0.25:  # too much of the film would be left
        order = rng.permutation(len(tiles))
    rows = [np.concatenate([tiles[k] for k in order[y * cuts : (y + 1) * cuts]], axis=1) for y in range(cuts)]
    return _of_size(np.concatenate(rows), len(film))


def blank(rng: np.random.Generator, film: Image, equalise: Equalise) -> Image:
    """Fill with one gray, or with a gradient."""
    size = len(film)
    if rng.random() < 0.5:
        return np.full((size, size), int(rng.integers(256)), np.uint8)
    x, y = _grid(size)
    angle = float(rng.uniform(0, 2 * np.pi))
    slope = x * np.cos(angle) + y * np.sin(angle) + rng.uniform(-1, 1) * np.hypot(x - 0.5, y - 0.5)
    return equalise(stretched(slope + rng.normal(0, 0.02, slope.shape)))


def noise(rng: np.random.Generator, film: Image, equalise: Equalise) -> Image:
    """Draw Gaussian noise whose amplitude falls with the spatial frequency to the power of 0 (white) to 2.5."""
    return equalise(coloured_noise(rng, len(film), float(rng.uniform(0, 2.5))))


def grating(rng: np.random.Generator, film: Image, equalise: Equalise) -> Image:
    """Draw one to three gratings, smooth or hard, with noise."""
    x, y = _grid(len(film))
    waves = np.zeros_like(x)
    for _ in range(int(rng.integers(1, 4))):
        cycles, angle, phase = rng.uniform(1, 16), rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
        waves += np.sin(2 * np.pi * cycles * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    if rng.random() < 0.4:
        waves = np.sign(waves)
    return equalise(stretched(waves + rng.normal(0, rng.uniform(0, 0.5), waves.shape)))


def blobs(rng: np.random.Generator, film: Image, equalise: Equalise) -> Image:
    """Draw some ellipses and bars of random grays, softened."""
    size = len(film)
    canvas = np.full((size, size), int(rng.integers(256)), np.uint8)
    for _ in range(int(rng.integers(1, 12))):
        centre, radii = rng.integers(0, size, 2).tolist(), rng.integers(2, max(3, size // 2), 2).tolist()
        gray, angle = int(rng.integers(256)), float(rng.uniform(0, 180))
        if rng.random() < 0.7:
            cv2.ellipse(canvas, centre, radii, angle, 0, 360, gray, -1)
        else:
            cv2.line(canvas, centre, rng.integers(0, size, 2).tolist(), gray, max(1, radii[0] // 3))
    return equalise(np.asarray(cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(0.5, 4)) * size / 96), np.uint8))


MAKERS: tuple[tuple[str, Maker, float], ...] = (
    ("rotated", quarter_turned, 3),
    ("rotated", turned, 2),
    ("inverted", inverted, 2),
    ("cropped", cropped, 5),
    ("no-film", shuffled, 2),
    ("no-film", blank, 1),
    ("no-film", noise, 2),
    ("no-film", grating, 1.5),
    ("no-film", blobs, 1.5),
)
"""What is made: the class of `pipeline.gate_pattern`, how, and its weight among the bad images."""


def make_bad(
    rng: np.random.Generator, films: NDArray[np.uint8], count: int, equalise: Equalise
) -> tuple[list[Image], list[str]]:
    """Make `count` bad images of each film.

    Parameters
    ----------
    rng : Generator
        Decides all.
    films : ndarray of shape (n, size, size), dtype=uint8
        Prepared films.
    count : int
        Of each film.
    equalise : callable
        What `pipeline.images.prepare` does after it has resized.

    Returns
    -------
    images : list of ndarray of shape (size, size), dtype=uint8
    kinds : list of str
        The class of each.
    """
    weights = np.array([weight for _, _, weight in MAKERS])
    images, kinds = [], []
    for film in films:
        for choice in rng.choice(len(MAKERS), count, p=weights / weights.sum()):
            kind, maker, _ = MAKERS[choice]
            start = film if rng.random() < 0.3 else jittered(rng, film, equalise)
            images.append(maker(rng, start, equalise))
            kinds.append(kind)
    return images, kinds


def coloured_noise(rng: np.random.Generator, size: int, power: float) -> Image:
    """Return noise whose amplitude is the spatial frequency to the power of `-power`."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = np.inf
    spectrum = (rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)) * frequency**-power
    spectrum[0, 0] = 0
    return stretched(np.fft.irfft2(spectrum, s=(size, size)))


def stretched(values: NDArray[Any]) -> Image:
    """Scale to 0..255."""
    low, high = values.min(), values.max()
    return np.asarray(255 * (values - low) / max(high - low, 1e-9), np.uint8)


def _warped(film: Image, move: NDArray[Any], *, black: bool = False) -> Image:
    border = cv2.BORDER_CONSTANT if black else cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpAffine(film, move, film.shape[::-1], flags=cv2.INTER_LINEAR, borderMode=border), np.uint8)


def _of_size(image: Image, size: int) -> Image:
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)


def _grid(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y of the pixels, 0 to 1."""
    y, x = np.mgrid[0:size, 0:size] / size
    return x, y
