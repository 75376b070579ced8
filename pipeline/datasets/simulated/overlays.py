"""What is on a film beside the patient: the lead letter of a side, burned-in words, and the edges of the collimator."""

from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datasets.simulated.canvas import FIELD_MM, Array

_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX
_FONT_UNITS: Final = 21.0  # height of a capital letter at scale 1, pixels
_LEAD_CM: Final = 14.0  # centimetres of water
_REACH: Final = 32.0  # millimetres; no part of a lead letter is farther from its middle
_BEDSIDE: Final = ("PORTABLE", "AP", "SEMI-ERECT", "SUPINE", "AP PORTABLE", "ERECT")

Picture = npt.NDArray[np.uint8]


def lead_letter(size: int, rng: np.random.Generator) -> Array:
    """Return the lead letter of a side with its technician's initials, in centimetres of water.

    Parameters
    ----------
    size : int
        Pixels a side of the film, taken as `FIELD_MM` wide.
    rng : numpy.random.Generator
        The film's; which side is marked says nothing of the findings.

    Returns
    -------
    ndarray of float32, shape (size, size)
        0 where there is none; a letter in an upper corner, turned by some degrees.
    """
    pitch = FIELD_MM / size
    left = rng.random() < 0.62
    centre = ((1 if left else -1) * rng.uniform(140, 192), rng.uniform(-205, -150))
    angle = float(rng.normal(0, 14)) + (90.0 if rng.random() < 0.1 else 0.0)
    initials = "".join(rng.choice(list("ABCDEFGHJKMNPRSTW"), 2))
    ringed = rng.random() < 0.2
    if rng.random() < 0.12:
        return np.zeros((size, size), np.float32)
    page = np.zeros((size, size), np.uint8)
    words = [("L" if left else "R", 14.0, (-5.0, 3.0)), (initials, 6.0, (-6.0, 13.0))]
    for text, height, (x, y) in words[: 1 if ringed else 2]:
        _write(page, text, height / pitch, ((centre[0] + x) / pitch + size / 2, (centre[1] + y) / pitch + size / 2))
    pixel = (centre[0] / pitch + size / 2, centre[1] / pitch + size / 2)
    if ringed:
        cv2.circle(
            page, (round(pixel[0]), round(pixel[1] - 4 / pitch)), round(12 / pitch), 255, max(1, round(2 / pitch))
        )
    return _turned(page, pixel, angle, round(_REACH / pitch))


def annotate(picture: Picture, view: Literal["PA", "AP"], rng: np.random.Generator) -> None:
    """Burn words into the gray levels, as the archive does for bedside films; in place.

    Parameters
    ----------
    picture : ndarray of uint8, shape (size, size)
        The film.
    view : {"PA", "AP"}
        Most AP films have a word and an arrow that points up, few PA films anything.
    rng : numpy.random.Generator
        The film's; the words say nothing of the findings.
    """
    size = len(picture)
    draws = rng.random(4)
    words = [str(word) for word in rng.choice(_BEDSIDE, 2, replace=False)]
    place = rng.uniform(0.02, 0.12, 2)
    if draws[0] > (0.55 if view == "AP" else 0.06):
        return
    if view == "PA":
        words = ["PA", "ERECT"]
    x = place[0] if draws[1] < 0.5 else 0.72 + place[0]
    for number in range(1 if draws[2] < 0.6 else 2):
        _write(picture, words[number], 0.015 * size, (x * size, (place[1] + 0.035 * number) * size))
    if draws[3] < 0.5:
        foot = (round(size * (0.5 + 2 * place[1])), round(size * (place[1] + 0.03)))
        cv2.arrowedLine(
            picture, foot, (foot[0], foot[1] - round(0.035 * size)), 255, max(1, size // 160), tipLength=0.5
        )


def collimate(
    levels: Array, edges: tuple[float, float, float, float], field: float, lean: float, border: float
) -> Array:
    """Cover what the collimator keeps from the beam.

    Parameters
    ----------
    levels : ndarray of float32, shape (size, size)
        Gray levels.
    edges : tuple of float
        Millimetres covered at the left, the top, the right and the bottom.
    field : float
        Side of the detector, millimetres.
    lean : float
        How far an edge runs askew from end to end, millimetres.
    border : float
        Gray level outside.

    Returns
    -------
    ndarray of float32, shape (size, size)
        The same inside; the edges are some 3 mm wide, because the focal spot is not a point.
    """
    size = len(levels)
    axis = ((np.arange(size, dtype=np.float32) + 0.5) * np.float32(field / size))[None, :]
    skew = ((axis / np.float32(field) - np.float32(0.5)) * np.float32(lean)).T
    result = levels.copy() if any(edges) else levels
    # Each edge seen with itself at the left: turned a quarter as often as it takes.
    views = (result, result.T, result[:, ::-1], result.T[:, ::-1])
    for covered, view, turn in zip(edges, views, (skew, -skew, -skew, skew), strict=True):
        if covered > 0:
            strip = view[:, : int(np.ceil((covered + 2 + abs(lean)) * size / field))]
            inside = np.clip((axis[:, : strip.shape[1]] + turn - np.float32(covered)) / 3 + np.float32(0.5), 0, 1)
            strip -= np.float32(border)
            strip *= inside
            strip += np.float32(border)
    return result


def _turned(page: Picture, centre: tuple[float, float], angle: float, reach: int) -> Array:
    """Turn what lies within `reach` pixels of `centre` by `angle` degrees about it; white becomes `_LEAD_CM`."""
    turned = np.zeros(page.shape, np.float32)
    left, top = (max(0, round(place) - reach) for place in centre)
    here = (slice(top, round(centre[1]) + reach + 1), slice(left, round(centre[0]) + reach + 1))
    near = page[here]
    matrix = cv2.getRotationMatrix2D((centre[0] - left, centre[1] - top), angle, 1)
    turned[here] = cv2.warpAffine(near, matrix, near.shape[::-1]) * np.float32(_LEAD_CM / 255)
    return turned


def _write(picture: Picture, text: str, height: float, corner: tuple[float, float]) -> None:
    """Write `text` in letters of `height` pixels from its lower left corner."""
    thick = max(1, round(0.16 * height))
    position = (round(corner[0]), round(corner[1]))
    cv2.putText(picture, text, position, _FONT, height / _FONT_UNITS, 255, thick, cv2.LINE_AA)
