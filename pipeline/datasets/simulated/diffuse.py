"""Findings that change both lungs: edema, emphysema, fibrosis. Their changes of shape are in `signs.reshape`.

"Hansell 2008" is the glossary of the Fleischner Society, Radiology 2008;246:697-722.
"""

import numpy as np

from pipeline.datasets.simulated.anatomy import DIRECTION, LEFT, RIGHT, angle_height, hilum, lateral_wall
from pipeline.datasets.simulated.canvas import Array, Line
from pipeline.datasets.simulated.scene import Scene
from pipeline.datasets.simulated.signs import Sign


def edema(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Draw the stages of hydrostatic edema, each over the one before.

    Wide upper vessels first (severity 0), then haze about the hila, cuffs of bronchi seen end on and Kerley's B lines
    at the bases, at last the alveolar "bat's wing" that spares the periphery (Milne et al., AJR 1985;144:879-894;
    Gluecker et al., RadioGraphics 1999;19:1507-1531; Hansell 2008, "interlobular septal thickening").
    """
    canvas, anatomy, severity = scene.canvas, scene.anatomy, sign.severity
    grain = np.clip(1 + 0.13 * canvas.noise(rng, 14) + 0.1 * canvas.noise(rng, 5), 0.3, 1.6)
    septa: list[Line] = []
    cuffs: list[Line] = []
    for side in (RIGHT, LEFT):
        x, y = hilum(anatomy, side)
        septa += _septal_lines(scene, side, rng)
        cuffs += bronchial_cuffs(x + DIRECTION[side] * 14, y, rng)
        wings = canvas.blob((x + DIRECTION[side] * 22, y + 12), (24 + 14 * severity, 36 + 20 * severity))
        spared = np.clip((lateral_wall(anatomy, canvas.y) - scene.outwards(side)) / 22, 0, 1)
        share = np.float32(0.04 + 0.5 * severity**1.3)
        scene.fill(np.clip(wings * grain * 1.15, 0, 1) * spared * scene.lungs[side] * share)
    lungs = scene.both_lungs
    scene.added += canvas.blur(canvas.strokes(septa), 0.4) * lungs * np.float32(0.15 + 0.55 * severity)
    scene.added += canvas.blur(canvas.strokes(cuffs), 0.5) * lungs * np.float32(0.5 + 0.9 * severity)
    upper = canvas.inside(hilum(anatomy, LEFT)[1] - canvas.y, 50)
    scene.markings *= 1 + upper * np.float32(0.15 + 0.35 * severity) + np.float32(0.02 + 0.1 * severity)


def _septal_lines(scene: Scene, side: int, rng: np.random.Generator) -> list[Line]:
    """Return short level lines that start at the pleura, 1 to 2 cm long (Hansell 2008)."""
    lines: list[Line] = []
    for rise, length, fall in rng.uniform((22, 11, -1), (85, 19, 1), (11, 3)).tolist():
        height = angle_height(scene.anatomy, side) - rise
        wall = float(lateral_wall(scene.anatomy, np.array([height], np.float32))[0])
        ends = np.array([[wall - 1, height], [wall - length, height + fall]])
        lines.append((ends * [DIRECTION[side], 1], 1.2, 1.0))
    return lines


def bronchial_cuffs(x: float, y: float, rng: np.random.Generator) -> list[Line]:
    """Return three thick rings about bronchi, 6 to 9 mm wide."""
    turn = np.linspace(0, 2 * np.pi, 13)
    circle = np.stack([np.cos(turn), np.sin(turn)], 1)
    places = rng.uniform((-14, -34, 3), (18, 34, 4.5), (3, 3)).tolist()
    return [(np.array([x + dx, y + dy]) + radius * circle, 2.2, 1.0) for dx, dy, radius in places]


def emphysema(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Thin the vessels out and place bullae, thin-walled gas of over 1 cm (Hansell 2008); `reshape` does the rest."""
    scene.markings *= np.float32(0.92 - 0.6 * sign.severity)
    lungs = scene.both_lungs
    for number in range(int(4 * sign.severity)):
        side, across, down, radius = rng.uniform((0, 0.4, 0.1, 13), (2, 0.75, 0.45, 27)).tolist()
        centre = scene.place(int(side), across, down)
        near, here = scene.canvas.around(centre, radius + 2 + scene.canvas.pitch)
        inwards = np.float32(radius) - near.radius(centre)
        bulla = near.inside(inwards, 2)
        wall = bulla - near.inside(inwards - 1.4, 2)
        scene.markings[here] *= 1 - 0.9 * bulla
        scene.air[here] += bulla * lungs[here] * np.float32(0.9 - 0.1 * number)
        scene.added[here] += wall * lungs[here] * np.float32(0.5)


def fibrosis(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Draw a net of fine lines at the bases and along the pleura, and haze between (Hansell 2008, "reticular pattern").

    The net is where smooth noise is near zero: closed meshes of some 5 and 9 mm, the size of honeycomb cysts
    (3 to 10 mm, Hansell 2008, "honeycombing").
    """
    canvas, severity = scene.canvas, sign.severity
    meshes = [np.clip(1 - np.abs(canvas.noise(rng, grain)) / np.float32(0.42), 0, 1) for grain in (5.0, 8.5)]
    patchy = np.clip(1 + 0.35 * canvas.noise(rng, 34), 0.3, 1.6)
    zone = _basal(scene, severity) * patchy
    net = np.maximum(meshes[0], meshes[1]) - np.float32(0.4)
    scene.added += net * zone * np.float32(0.45 + 2.0 * severity)
    scene.fill(np.clip(zone * np.float32(0.04 + 0.2 * severity), 0, 0.9))


def _basal(scene: Scene, severity: float) -> Array:
    """Return where fibrosis is, 0 to 1: the bases and the periphery, more of the lungs the worse it is."""
    anatomy, canvas = scene.anatomy, scene.canvas
    depth = np.clip((canvas.y - anatomy.apex) / (max(anatomy.domes) - anatomy.apex), 0, 1.2)
    rim = np.clip(np.abs(canvas.x) / np.maximum(lateral_wall(anatomy, canvas.y), 1), 0, 1)
    lungs = scene.both_lungs
    zone: Array = np.clip(2 * (depth - 0.66 + 0.3 * severity) + 0.7 * (rim - 0.6), 0, 1) * lungs
    return zone
