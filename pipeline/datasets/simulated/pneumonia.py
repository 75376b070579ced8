"""Pneumonia in its three forms on a film, and the bronchi that air shows in it.

One focus, foci in both lungs, or thick bronchi in a haze about both hila (bronchopneumonia and the interstitial pattern
of Vilar et al., Eur J Radiol 2004;51:102-113; the latter, the usual one of viruses: Kim et al., RadioGraphics
2002;22:S137-S149). The lobar form is drawn as consolidation. In a child each comes in a haze of its lungs: "other
infiltrates" of the World Health Organization, a lacy pattern of linear and patchy densities with peribronchial
thickening and areas of lost volume (Cherian et al., Bull World Health Organ 2005;83:353-359).
"""

from typing import Literal

import numpy as np

from pipeline.datasets.simulated.anatomy import DIRECTION, LEFT, RIGHT, hilum
from pipeline.datasets.simulated.canvas import Line
from pipeline.datasets.simulated.diffuse import bronchial_cuffs
from pipeline.datasets.simulated.scene import Scene
from pipeline.datasets.simulated.signs import Sign

Point = tuple[float, float]

_INTERSTITIAL = 0.5  # of the pneumonias on both sides


def form(sign: Sign) -> Literal["focus", "foci", "interstitial"]:
    """Return which form a pneumonia has: on one side one focus, on both sides foci or the interstitial pattern."""
    if not sign.both:
        return "focus"
    return "interstitial" if np.random.default_rng(sign.seed).random() < _INTERSTITIAL else "foci"


def pneumonia(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Draw pneumonia in its form, in a child within a haze."""
    kind = form(sign)
    if kind != "focus":
        rng.random()  # the one that the form was drawn with
    if kind == "focus":
        _focus(scene, sign, rng, sign.side, (0.25, 0.5), (0.65, 0.85))
    elif kind == "interstitial":
        _interstitial(scene, sign, rng)
    else:
        for side in (RIGHT, LEFT):
            _focus(scene, sign, rng, side, (0.2, 0.62), (0.6, 0.88))
            _focus(scene, sign, rng, side, (0.2, 0.3), (0.6, 0.55), much=0.55)
    if scene.anatomy.youth > 0:
        _haze(scene, sign, rng)


def _haze(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Fill all of a lung, or of both, a little, most about the hilum."""
    canvas = scene.canvas
    for side in sign.sides:
        haze = np.float32(0.75) * (1 + 0.12 * canvas.noise(rng, 40) + 0.08 * canvas.noise(rng, 10))
        haze += np.float32(0.25) * canvas.blob(hilum(scene.anatomy, side), (45, 60))
        haze = np.clip(haze, 0, 1) * scene.lungs[side]
        scene.markings *= 1 - np.float32(0.4) * haze
        scene.fill(haze * np.float32(scene.anatomy.youth * (0.15 + 0.35 * sign.severity)))


def _focus(
    scene: Scene, sign: Sign, rng: np.random.Generator, side: int, low: Point, high: Point, much: float = 1.0
) -> None:
    """Draw patches that run together about a focus of one lung: bronchopneumonia.

    Denser than infiltration, without the lobar border of consolidation. The focus lies between `low` and `high`, as
    `Scene.place` counts.
    """
    canvas, severity = scene.canvas, sign.severity
    across, down = rng.uniform(low, high).tolist()
    x, y = scene.place(side, across, down)
    cloud = canvas.empty()
    for dx, dy, wide, tall, dense in rng.uniform((-20, -16, 11, 10, 0.5), (20, 16, 18, 16, 0.8), (4, 5)).tolist():
        grown = 0.75 + 0.7 * severity
        cloud += canvas.blob((x + dx * grown, y + dy * grown), (wide * grown, tall * grown)) * np.float32(dense)
    rough = 1 + 0.16 * canvas.noise(rng, 15) + 0.14 * canvas.noise(rng, 6)
    ragged = np.clip(cloud * rough, 0, 1) * scene.lungs[side]
    tubes = canvas.blur(canvas.strokes(bronchi(hilum(scene.anatomy, side), (x, y), rng)), 0.7)
    scene.markings *= 1 - 0.5 * ragged
    scene.fill(ragged * (1 - np.float32(0.3 * severity) * tubes) * np.float32(much * (0.28 + 0.5 * severity)))


def _interstitial(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Draw bronchi with thick walls, along and end on, in a mottled haze that goes from both hila downwards.

    Unlike edema it has neither wide upper vessels nor septal lines, and reaches the bases.
    """
    canvas, anatomy, severity = scene.canvas, scene.anatomy, sign.severity
    mottle = np.clip(1 + 0.14 * canvas.noise(rng, 16) + 0.1 * canvas.noise(rng, 6), 0.3, 1.7)
    outer: list[Line] = []
    rings: list[Line] = []
    for side in (RIGHT, LEFT):
        x, y = hilum(anatomy, side)
        for across, down in rng.uniform((0.3, 0.45), (0.75, 0.95), (2, 2)).tolist():
            outer += bronchi((x, y), scene.place(side, across, down), rng)
        rings += bronchial_cuffs(x + DIRECTION[side] * 18, y + 12, rng)
        low = scene.place(side, 0.42, 0.72)
        haze = canvas.blob((x + DIRECTION[side] * 16, y + 10), (30 + 12 * severity, 44 + 16 * severity))
        haze += np.float32(0.8) * canvas.blob(low, (40 + 10 * severity, 42 + 12 * severity))
        haze = np.clip(haze, 0, 1) * scene.lungs[side]
        scene.markings *= 1 - np.float32(0.4) * haze  # vessels in the haze are blurred
        scene.fill(haze * mottle * np.float32(0.14 + 0.3 * severity))
    lungs = scene.both_lungs
    inner = [(points, 0.45 * width, value) for points, width, value in outer]
    walls = np.clip(canvas.strokes(outer) - np.float32(0.9) * canvas.strokes(inner), 0, 1) + canvas.strokes(rings)
    scene.added += canvas.blur(walls, 0.6) * lungs * np.float32(0.4 + 0.8 * severity)


def bronchi(root: Point, centre: Point, rng: np.random.Generator) -> list[Line]:
    """Return an air-filled bronchus from `root` to `centre` that divides twice on its way."""
    way = np.subtract(centre, root)
    steps = np.linspace(0, 1, 4)[:, None]
    lines: list[Line] = [(root + steps * way * 1.2 + rng.normal(0, 1.5, (4, 2)), 3.2, 1.0)]
    for start, turn, length in rng.uniform((0.25, 0.35, 26), (0.95, 0.9, 44), (5, 3)):
        angle = np.arctan2(way[1], way[0]) + turn * (1 if len(lines) % 2 else -1)
        first = root + start * way
        tip = first + length * np.array([np.cos(angle), np.sin(angle)])
        lines.append((np.stack([first, (first + tip) / 2 + rng.normal(0, 1.5, 2), tip]), 2.1, 0.9))
    return lines
