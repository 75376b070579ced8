"""Films that something is wrong with, as every archive holds them: what the quarantine is tried on."""

from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datasets.simulated.cohort import SPOILING, Film, generator
from pipeline.params import SimulateParams
from pipeline.quarantine import Reason

Kind = Literal["truncated", "rgba", "inverted", "lateral", "rotated", "blank"]
Pixels = npt.NDArray[np.uint8]

CODES: Final[dict[Kind, str]] = {
    "truncated": Reason.TRUNCATED.value,
    "rgba": "",
    "inverted": Reason.INVERTED.value,
    "lateral": Reason.LATERAL.value,
    "rotated": Reason.ROTATED.value,
    "blank": Reason.BLANK.value,
}
"""What `ingest` should say of each kind; a colour file with equal channels is read as the gray film that it is."""

HIDDEN: Final[frozenset[Kind]] = frozenset({"truncated", "lateral", "blank"})
"""Kinds that show nothing of the patient's findings."""


def spoiling(params: SimulateParams, film: Film) -> Kind | None:
    """Return what is wrong with a film; None: nothing.

    A share `unusable` of the films is spoilt; which of them, and how, depends on seed, patient and film alone.
    """
    rng = generator(params, film.patient, SPOILING + film.number)
    spoilt, kind = rng.random() < params.unusable, list(CODES)[int(rng.integers(len(CODES)))]
    return kind if spoilt else None


def spoil(pixels: Pixels, kind: Kind, rng: np.random.Generator) -> Pixels:
    """Return the pixels of a spoilt film; those of a truncated and of an RGBA file are right, the file is not.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (size, size)
        The film as it should be.
    kind : str
        A key of `CODES`.
    rng : numpy.random.Generator
        For the lateral view and for the way a film is turned.

    Returns
    -------
    ndarray of uint8, shape (size, size)
        `rotated` is turned by 90 or 270 degrees; `blank` is of one gray; `lateral` is a drawing of another view.
    """
    if kind == "inverted":
        return np.asarray(255 - pixels, np.uint8)
    if kind == "rotated":
        return np.ascontiguousarray(np.rot90(pixels, int(rng.choice([1, 3]))))
    if kind == "blank":
        return np.full_like(pixels, int(rng.choice([0, 128, 255])))
    return lateral(len(pixels), rng) if kind == "lateral" else pixels


def lateral(size: int, rng: np.random.Generator) -> Pixels:
    """Draw a chest from the side: no phantom, only what tells a lateral film from a frontal one at a glance.

    Trunk without a middle line, spine behind, sternum in front, the heart between them, dark lung before and behind it,
    two domes below.

    Returns
    -------
    ndarray of uint8, shape (size, size)
        The patient looks to the left.
    """
    side = 256
    film = np.zeros((side, side), np.float32)

    def oval(centre: tuple[float, float], axes: tuple[float, float], angle: float, gray: float) -> None:
        place = (centre[0] * side, centre[1] * side), (2 * axes[0] * side, 2 * axes[1] * side), angle
        cv2.ellipse(film, place, gray, cv2.FILLED, cv2.LINE_AA)

    wide, x = float(rng.uniform(0.28, 0.34)), float(rng.uniform(0.46, 0.54))
    oval((x, 0.62), (wide, 0.62), 0, 150)  # trunk
    oval((x + 0.02, 0.06), (0.62 * wide, 0.22), 0, 190)  # shoulders
    oval((x - 0.01, 0.46), (0.72 * wide, 0.38), 8, 50)  # lungs
    oval((x - 0.3 * wide, 0.58), (0.5 * wide, 0.17), -30, 150)  # heart
    oval((x - 0.2 * wide, 1.0), (0.9 * wide, 0.25), 0, 200)  # anterior dome and abdomen
    oval((x + 0.5 * wide, 1.0), (0.6 * wide, 0.18), 0, 205)  # posterior dome
    spine = np.array([(x + 0.62 * wide + 0.05 * np.sin(4 * t), t) for t in np.linspace(0.05, 1, 12)]) * side
    for vertebra in spine:
        cv2.ellipse(film, ((float(vertebra[0]), float(vertebra[1])), (0.11 * side, 0.06 * side), 0), 210, cv2.FILLED)
    cv2.line(film, (round((x - 0.72 * wide) * side), 60), (round((x - 0.86 * wide) * side), 165), 170, 5, cv2.LINE_AA)
    soft = cv2.GaussianBlur(film, (0, 0), 4) + rng.normal(0, 4, film.shape)
    return np.asarray(cv2.resize(np.clip(soft, 0, 255).astype(np.uint8), (size, size), interpolation=cv2.INTER_AREA))
