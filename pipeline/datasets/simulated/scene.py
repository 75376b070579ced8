"""The layers of one film, in centimetres of water: air in the lungs, what replaces it, and what is added."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.datasets.simulated.anatomy import (
    DIRECTION,
    Anatomy,
    diaphragm,
    hilum,
    lateral_wall,
    mediastinal_border,
)
from pipeline.datasets.simulated.canvas import Array, Canvas, Line


@dataclass(kw_only=True)
class Scene:
    """What findings draw on.

    Attributes
    ----------
    canvas : Canvas
        The coordinates.
    anatomy : Anatomy
        This film's chest, after the findings that change its shape.
    lungs : tuple of ndarray of float32
        Right and left lung, 0 to 1; the heart hides part of them.
    air : ndarray of float32
        Centimetres of air in a ray through the chest.
    water : ndarray of float32
        Share of that air replaced by water, 0 to 1.
    added : ndarray of float32
        Centimetres of water added (negative: taken away) by thin structures.
    markings : ndarray of float32
        How much of the vessels is visible, 1 is normal.
    """

    canvas: Canvas
    anatomy: Anatomy
    lungs: tuple[Array, Array]
    air: Array
    water: Array
    added: Array
    markings: Array

    def fill(self, share: Array) -> None:
        """Replace a share (0 to 1) of the remaining air by water."""
        self.water = 1 - (1 - self.water) * (1 - share)

    def outwards(self, side: int) -> Array:
        """Return the distance from the midline, positive on `side`; shape (1, size), millimetres."""
        return self.canvas.x * np.float32(DIRECTION[side])

    def place(self, side: int, across: float, down: float) -> tuple[float, float]:
        """Return a point of a lung: `across` from mediastinum (0) to wall (1), `down` from apex (0) to dome (1)."""
        y = self.anatomy.apex + down * (self.anatomy.domes[side] - self.anatomy.apex)
        row = np.array([y], np.float32)
        wall = float(lateral_wall(self.anatomy, row)[0])
        inner = float(np.interp(y, self.canvas.rows, _border(self.canvas, self.anatomy, side)))
        return DIRECTION[side] * (inner + across * (wall - inner)), y


def lung_mask(canvas: Canvas, anatomy: Anatomy, side: int, inset: float = 0.0) -> Array:
    """Return one lung, 0 to 1, from the midline outwards; `inset` as in `lateral_wall`."""
    across = canvas.x * np.float32(DIRECTION[side])
    walls = canvas.inside(lateral_wall(anatomy, canvas.y, inset) - across)
    floor = canvas.inside(diaphragm(anatomy, side, across) - canvas.y)
    # The apex is rounded medially too: its summit lies over the first rib, not beside the spine.
    summit = anatomy.apex + 0.8 * inset + 0.014 * np.maximum(64 - across, 0) ** 2
    mask: Array = walls * floor * canvas.inside(canvas.y - summit, 3) * canvas.inside(across)
    return mask


@lru_cache(maxsize=4)  # every place in a lung asks for it
def _border(canvas: Canvas, anatomy: Anatomy, side: int) -> Array:
    border = mediastinal_border(anatomy, side, canvas.rows)
    border.flags.writeable = False
    return border


def mediastinum(canvas: Canvas, anatomy: Anatomy) -> Array:
    """Return the silhouette of mediastinum and heart, 0 to 1; soft at its edge because the heart beats."""
    right = _border(canvas, anatomy, 0)[:, None] - np.float32(anatomy.shift)
    left = _border(canvas, anatomy, 1)[:, None] + np.float32(anatomy.shift)
    mask: Array = canvas.inside(canvas.x + right, 3) * canvas.inside(left - canvas.x, 3)
    return mask


def new_scene(canvas: Canvas, anatomy: Anatomy) -> Scene:
    """Return the empty chest: two aerated lungs, nothing in them.

    About 12 cm of the 19 cm of an average adult's chest are lung, three quarters of them air.
    """
    lungs = (lung_mask(canvas, anatomy, 0), lung_mask(canvas, anatomy, 1))
    wall = np.maximum(lateral_wall(anatomy, canvas.y), 1)
    offset = np.clip((np.abs(canvas.x) / wall - 0.5) / 0.5, -1, 1)
    depth = (0.55 + 0.45 * np.sqrt(1 - offset**2)) * np.sqrt(np.clip((canvas.y - anatomy.apex) / 90, 0.2, 1))
    air = (lungs[0] + lungs[1]) * depth * np.float32(10.5 * anatomy.aeration)
    markings = canvas.empty() + np.float32(1)
    return Scene(
        canvas=canvas,
        anatomy=anatomy,
        lungs=lungs,
        air=air.astype(np.float32),
        water=canvas.empty(),
        added=canvas.empty(),
        markings=markings,
    )


def vessels(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Array:
    """Return the pulmonary vessels, 0 to 1: they leave the hilum, divide, and taper towards the pleura.

    Parameters
    ----------
    canvas : Canvas
        The field.
    anatomy : Anatomy
        The chest.
    rng : numpy.random.Generator
        The patient's own, so that all his films show the same tree.
    """
    stems = 11
    roots = np.repeat([hilum(anatomy, 0), hilum(anatomy, 1)], stems, axis=0)
    start = roots + rng.normal(0, 10, (2 * stems, 1)) * [0, 1]
    outwards = np.repeat(DIRECTION, stems)
    angle = np.tile(np.linspace(-1.35, 1.45, stems), 2) + rng.normal(0, 0.08, 2 * stems)
    lines: list[Line] = []
    for order, width in enumerate((4.6, 3.1, 2.1, 1.4)):
        length = rng.uniform(14, 23, angle.size) * 0.82**order
        bend = angle + rng.normal(0, 0.15, angle.size)
        middle = start + (length * np.array([outwards * np.cos(angle), np.sin(angle)])).T
        end = middle + (length * np.array([outwards * np.cos(bend), np.sin(bend)])).T
        lines.append((np.stack([start, middle, end], 1), width, 0.35 + 0.1 * width))
        spread = rng.uniform(0.2, 0.5, angle.size)
        angle = np.concatenate([bend + spread, bend - spread])
        start, outwards = np.tile(end, (2, 1)), np.tile(outwards, 2)
    return canvas.blur(canvas.strokes(reversed(lines)), 0.9)
