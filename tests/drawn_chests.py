"""Something like chest films, drawn in a moment: dark lungs, a bright spine, heart and abdomen, dark air outside."""

import cv2
import numpy as np
from numpy.typing import NDArray


def draw_chest(rng: np.random.Generator, size: int = 48) -> NDArray[np.uint8]:
    """Draw a film of `size` pixels a side; no two are alike."""
    side = 4 * size
    film = np.zeros((side, side), np.float32)
    x, y = side * (0.5 + rng.normal(0, 0.02)), side * (0.45 + rng.normal(0, 0.02))
    wide, high = side * rng.uniform(0.13, 0.16), side * rng.uniform(0.27, 0.32)
    cv2.ellipse(film, (int(x), int(side * 0.75)), (int(side * 0.44), int(side * 0.7)), 0, 0, 360, 0.6, -1)
    for way in (-1, 1):
        place = (int(x + way * side * 0.2), int(y))
        cv2.ellipse(film, place, (int(wide), int(high)), -way * 4, 0, 360, float(rng.uniform(0.15, 0.25)), -1)
        for rib in np.linspace(-0.8, 0.8, 7):
            start = (int(x), int(y + rib * high))
            cv2.line(film, start, (int(x + way * side * 0.35), int(y + rib * high + 8)), 0.35, 2)
    cv2.line(film, (int(x), 0), (int(x), side), 0.8, int(side * 0.09))
    cv2.ellipse(
        film, (int(x + side * 0.07), int(y + high * 0.6)), (int(side * 0.13), int(side * 0.11)), 20, 0, 360, 0.75, -1
    )
    cv2.ellipse(film, (int(x), int(side * 0.98)), (int(side * 0.4), int(side * 0.2)), 0, 0, 360, 0.9, -1)
    film = cv2.GaussianBlur(film, (0, 0), side / 60) * float(rng.uniform(0.8, 1.1))
    noisy = np.clip(255 * film + rng.normal(0, 4, film.shape), 0, 255)
    return np.asarray(cv2.resize(noisy, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def draw_chests(count: int, seed: int, size: int = 48) -> NDArray[np.uint8]:
    """Draw several, of shape (count, size, size)."""
    rng = np.random.default_rng(seed)
    return np.stack([draw_chest(rng, size) for _ in range(count)])
