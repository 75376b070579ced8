"""What `gate.py` shows the input gate: bad images made of whole films before they are prepared, and drawn ones.

Those marked new are of kinds that the gate was not fitted on.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.gate_bad import blobs, coloured_noise, grating, stretched

Image = NDArray[np.uint8]
Maker = Callable[[np.random.Generator, Image], Image]
SIDE = 512  # pixels of what is drawn


def turned(angle: float) -> Maker:
    """Turn by any angle; the corners are black, as where a film was scanned askew."""

    def make(_rng: np.random.Generator, film: Image) -> Image:
        height, width = film.shape
        move = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), angle, 1)
        return np.asarray(cv2.warpAffine(film, move, (width, height), flags=cv2.INTER_LINEAR), np.uint8)

    return make


def window(side: float) -> Maker:
    """Cut out a window of `side` times the film's sides, anywhere."""

    def make(rng: np.random.Generator, film: Image) -> Image:
        height, width = (round(side * n) for n in film.shape)
        top, left = (int(rng.integers(n - m + 1)) for n, m in zip(film.shape, (height, width), strict=True))
        return np.ascontiguousarray(film[top : top + height, left : left + width])

    return make


def noise(power: float) -> Maker:
    """Draw noise whose amplitude falls with the frequency to this power."""
    return lambda rng, _film: coloured_noise(rng, SIDE, power)


def constant(rng: np.random.Generator, film: Image) -> Image:
    """Fill with one gray."""
    return np.full(film.shape, int(rng.integers(256)), np.uint8)


def leaves(rng: np.random.Generator, _film: Image) -> Image:
    """Draw dead leaves: overlapping discs whose radii follow a power law, the statistics of natural images.

    Lee, Mumford and Huang, "Occlusion models for natural images", Int J Comput Vision 2001;41:35-59.
    """
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(1500):
        radius = int(min(SIDE / 2, 8 * (rng.random() + 1e-3) ** -0.5))
        cv2.circle(canvas, rng.integers(0, SIDE, 2).tolist(), radius, int(rng.integers(256)), -1)
    return canvas


def cells(rng: np.random.Generator, _film: Image) -> Image:
    """Draw cells: the distance to the nearest less that to the second nearest of random points (Worley 1996)."""
    points = rng.uniform(0, 128, (int(rng.integers(5, 60)), 2))
    y, x = np.mgrid[0:128, 0:128]
    near = np.sort(np.hypot(y[..., None] - points[:, 0], x[..., None] - points[:, 1]), axis=-1)
    return _large(stretched(near[..., 1] - near[..., 0]))


def wood(rng: np.random.Generator, _film: Image) -> Image:
    """Draw rings of wood around a point, bent by noise."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    centre, bent = rng.uniform(-0.5, 1.5, 2), coloured_noise(rng, SIDE, 1.8) / 255
    return stretched(np.sin(rng.uniform(20, 80) * (np.hypot((x - centre[0]) * 1.5, y - centre[1]) + 0.15 * bent)))


def photograph(rng: np.random.Generator, _film: Image) -> Image:
    """Cut a window out of one of scikit-learn's two photographs, in gray."""
    from sklearn.datasets import load_sample_images

    pictures = load_sample_images().images
    gray = cv2.cvtColor(pictures[int(rng.integers(len(pictures)))], cv2.COLOR_RGB2GRAY)
    side = float(rng.uniform(0.35, 1)) * min(gray.shape)
    return window(1.0)(rng, window(side / max(gray.shape))(rng, np.asarray(gray, np.uint8)))


def hand(rng: np.random.Generator, _film: Image) -> Image:
    """Draw the radiograph of a hand: soft tissue, five rays of bones, the wrist."""
    soft, bones = np.zeros((2, SIDE, SIDE), np.float32)
    x, y = SIDE * 0.5 + float(rng.normal(0, SIDE * 0.03)), SIDE * float(rng.uniform(0.72, 0.82))
    cv2.circle(soft, (int(x), int(y)), int(SIDE * 0.2), 0.45, -1)
    cv2.rectangle(soft, (int(x - SIDE * 0.12), int(y)), (int(x + SIDE * 0.12), SIDE), 0.45, -1)
    angles = np.deg2rad(np.array([-50, -18, -4, 10, 24]) + rng.normal(0, 4, 5))
    for angle, length in zip(angles, (0.35, 0.52, 0.58, 0.54, 0.45), strict=True):
        way = np.array([np.sin(angle), -np.cos(angle)])
        root, reach = np.array([x, y]) + way * SIDE * 0.1, SIDE * length * float(rng.uniform(0.9, 1.1))
        _line(soft, root, root + way * reach, 0.5, SIDE * 0.09)
        for start, end in ((0, 0.35), (0.4, 0.65), (0.68, 0.85), (0.88, 1)):
            _line(bones, root + way * reach * start, root + way * reach * end, 0.45, SIDE * 0.035)
    for _ in range(8):
        place = np.array([x, y]) + rng.normal(0, SIDE * 0.05, 2)
        cv2.circle(bones, place.astype(int).tolist(), int(SIDE * 0.035), 0.4, -1)
    for side in (-1, 1):
        _line(bones, np.array([x + side * SIDE * 0.06, y + SIDE * 0.12]), np.array([x, SIDE]), 0.5, SIDE * 0.07)
    return _exposed(rng, cv2.GaussianBlur(soft, (0, 0), 8) + cv2.GaussianBlur(bones, (0, 0), 3))


def skull(rng: np.random.Generator, _film: Image) -> Image:
    """Draw the frontal radiograph of a skull."""
    film = np.zeros((SIDE, SIDE), np.float32)
    x, y = SIDE // 2 + int(rng.normal(0, 10)), int(SIDE * 0.45)
    wide, high = int(SIDE * rng.uniform(0.28, 0.38)), int(SIDE * rng.uniform(0.36, 0.42))
    for inset, gray in ((0, 0.9), (18, 0.55)):
        cv2.ellipse(film, (x, y), (wide - inset, high - inset), 0, 0, 360, gray, -1)
    for side in (-1, 1):
        place = (x + side * int(SIDE * 0.12), y + int(SIDE * 0.12))
        cv2.ellipse(film, place, (int(SIDE * 0.075), int(SIDE * 0.06)), 0, 0, 360, 0.3, -1)
    cv2.ellipse(film, (x, y + int(SIDE * 0.24)), (int(SIDE * 0.04), int(SIDE * 0.08)), 0, 0, 360, 0.35, -1)
    cv2.rectangle(film, (x - int(SIDE * 0.14), int(SIDE * 0.79)), (x + int(SIDE * 0.14), int(SIDE * 0.9)), 0.75, -1)
    cv2.rectangle(film, (x - int(SIDE * 0.07), int(SIDE * 0.88)), (x + int(SIDE * 0.07), SIDE), 0.6, -1)
    return _exposed(rng, cv2.GaussianBlur(film, (0, 0), 5))


def slice_of_ct(rng: np.random.Generator, _film: Image) -> Image:
    """Draw a transverse slice of a chest as CT shows it."""
    film = np.zeros((SIDE, SIDE), np.float32)
    middle = SIDE // 2
    wide, high = int(SIDE * rng.uniform(0.38, 0.46)), int(SIDE * rng.uniform(0.28, 0.36))
    cv2.ellipse(film, (middle, middle), (wide, high), 0, 0, 360, 0.6, -1)
    for side in (-1, 1):
        lung = (middle + side * int(wide * 0.48), middle)
        cv2.ellipse(film, lung, (int(wide * 0.36), int(high * 0.72)), 0, 0, 360, 0.12, -1)
    cv2.circle(film, (middle, middle + int(high * 0.65)), int(SIDE * 0.05), 1.0, -1)
    cv2.circle(film, (middle, middle - int(high * 0.1)), int(SIDE * 0.09), 0.65, -1)
    for angle in np.arange(10) * np.pi / 5 + 0.3:
        rib = (int(middle + wide * 0.9 * np.cos(angle)), int(middle + high * 0.9 * np.sin(angle)))
        cv2.circle(film, rib, int(SIDE * 0.018), 0.95, -1)
    return _exposed(rng, cv2.GaussianBlur(film, (0, 0), 3))


def _as_fitted(maker: Callable[..., Image]) -> Maker:
    """Use a maker of the gate's own; it draws as large as the image that it is given."""
    return lambda rng, _film: maker(rng, np.zeros((128, 128), np.uint8), np.asarray)


CASES: dict[str, tuple[Maker, bool]] = {
    "turned by 90 degrees": (lambda _, film: np.rot90(film), False),
    "turned by 180 degrees": (lambda _, film: np.rot90(film, 2), False),
    "turned by 270 degrees": (lambda _, film: np.rot90(film, 3), False),
    "upside down": (lambda _, film: film[::-1], False),
    "turned by 45 degrees": (turned(45), True),
    "turned by 30 degrees": (turned(30), True),
    "inverted": (lambda _, film: np.asarray(255 - film, np.uint8), False),
    "crop of half the sides": (window(0.5), False),
    "crop of 60 % of the sides": (window(0.6), False),
    "crop of 70 % of the sides": (window(0.7), False),
    "crop of 80 % of the sides": (window(0.8), True),
    "blank": (constant, False),
    "white noise": (noise(0), False),
    "noise, 1/f": (noise(1), False),
    "noise, 1/f²": (noise(2), False),
    "noise, 1/f³": (noise(3), True),
    "gratings": (_as_fitted(grating), False),
    "ellipses and bars": (_as_fitted(blobs), False),
    "texture: dead leaves": (leaves, True),
    "texture: cells": (cells, True),
    "texture: wood": (wood, True),
    "photographs in gray": (photograph, True),
    "hand": (hand, True),
    "skull": (skull, True),
    "slice of CT": (slice_of_ct, True),
}
"""What is shown: how it is made, and whether its kind is new to the gate."""


def _line(
    canvas: NDArray[np.float32], start: NDArray[np.float64], end: NDArray[np.float64], gray: float, w: float
) -> None:
    cv2.line(canvas, start.astype(int).tolist(), end.astype(int).tolist(), gray, max(1, int(w)))


def _exposed(rng: np.random.Generator, film: NDArray[np.float32]) -> Image:
    return stretched(np.clip(film + rng.normal(0, 0.03, film.shape), 0, 1.2))


def _large(image: Image) -> Image:
    return np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR), np.uint8)
