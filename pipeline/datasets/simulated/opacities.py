"""What findings draw on a chest: here opacities of the lung and the hernia.

The rest is in `nodules`, `pleura`, `pneumonia` and `diffuse`.

Their changes of shape are in `signs.reshape`. Definitions follow the glossary of the Fleischner Society (Hansell et
al., Radiology 2008;246:697-722) where it has the term ("Hansell 2008"), and the sources named at each function
elsewhere. Severity 0 is hard to see, 1 obvious; lengths and shares of severities between are interpolated and chosen.
Every drawing takes the same random numbers whatever the severity, so that a finding stays in its place as it grows.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from pipeline.datasets.simulated.anatomy import DIRECTION, LEFT, RIGHT, hilum, lateral_wall
from pipeline.datasets.simulated.canvas import Array
from pipeline.datasets.simulated.diffuse import edema, emphysema, fibrosis
from pipeline.datasets.simulated.nodules import mass, nodule
from pipeline.datasets.simulated.pleura import effusion, pleural_thickening, pneumothorax
from pipeline.datasets.simulated.pneumonia import bronchi, pneumonia
from pipeline.datasets.simulated.scene import Scene, border
from pipeline.datasets.simulated.signs import Sign, collapse


def draw(scene: Scene, sign: Sign) -> None:
    """Draw the finding's opacities and lines on `scene`, in place; `hernia` comes later, in front of the heart.

    Parameters
    ----------
    scene : Scene
        The chest, reshaped by all findings of the film. Fluid and gas lie elsewhere if `anatomy.supine`.
    sign : Sign
        What to draw; nothing for Cardiomegaly, which is a shape alone.
    """
    drawing = _DRAWINGS.get(sign.name)
    if drawing is not None:
        drawing(scene, sign, np.random.default_rng(sign.seed))


def hernia(scene: Scene, sign: Sign) -> None:
    """Draw a round retrocardiac shape with gas above a fluid level: a hiatus hernia.

    Eren & Ciris, Eur J Radiol 2005;54:448-459. 4 cm wide at severity 0, when its gas hardly shows, 10 cm at 1.

    To be called after the heart has been drawn, in front of which its gas appears.
    """
    canvas, severity = scene.canvas, sign.severity
    size, across, level = np.random.default_rng(sign.seed).uniform((0, 0, -0.25), (3, 22, 0.35)).tolist()
    size += 20 + 27 * severity
    middle = scene.anatomy.heart_base + 4 - 0.8 * size
    distance = canvas.radius((scene.anatomy.shift + 6 + across, middle), 0.9)
    body = canvas.inside(size - distance, 2.5)
    gas = canvas.inside(size - 4 - distance, 2) * canvas.inside(middle + size * level - canvas.y, 1.5)
    chest = np.clip(scene.both_lungs, 0, 1)
    scene.fill(body * chest * np.float32(0.5 + 0.4 * severity))
    scene.added += body * (1 - gas) * np.float32(0.5 + 0.9 * severity)
    scene.added -= gas * np.float32(1.2 + 6 * severity)


def _atelectasis(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Draw lung without air: plates above a raised diaphragm, or a lobe that has shrunk (Hansell 2008)."""
    kind = collapse(sign)
    if kind == "plate":
        _plates(scene, sign, rng)
    else:
        _collapsed_lobe(scene, sign, rng, upper=kind == "upper")


def _plates(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Draw one to three bands, 2 to 6 mm thick, level ("linear atelectasis", Hansell 2008), over crowded lung."""
    canvas, side, severity, lines = scene.canvas, sign.side, sign.severity, []
    chosen = rng.uniform((0.02, 0.6, -0.03, -0.03, 0), (0.25, 0.95, 0.03, 0.06, 2), (3, 5)).tolist()
    for (inner, outer, rise, fall, thick), level in zip(chosen, (0.86, 0.74, 0.61), strict=True):
        start, end = scene.place(side, inner, level + rise), scene.place(side, outer, level + rise + fall)
        middle = np.add(start, end) / 2 + [0, -4]
        lines.append((np.stack([start, middle, end]), 2 + 2.5 * severity + thick, 1.0))
    band = canvas.blur(canvas.strokes(lines[: 1 + int(2.6 * severity)]), 1.0) * scene.lungs[side]
    scene.fill(band * np.float32(0.45 + 0.4 * severity))
    crowded = canvas.inside(canvas.y - (scene.anatomy.domes[side] - 24), 56) * scene.lungs[side]
    scene.fill(crowded * np.float32(0.12 + 0.3 * severity))


def _collapsed_lobe(scene: Scene, sign: Sign, rng: np.random.Generator, upper: bool) -> None:
    """Draw a lobe behind its displaced fissure (Woodring & Reed, J Thorac Imaging 1996;11:109-144).

    Right upper: a wedge above the horizontal fissure, which is raised and concave. Left upper: a veil that fades
    downwards, without a border. Lower: a triangle beside and behind the heart, from the hilum to the diaphragm.
    """
    canvas, side, severity, anatomy = scene.canvas, sign.side, sign.severity, scene.anatomy
    out, (_, root) = scene.outwards(side), hilum(anatomy, side)
    dome, lift = anatomy.domes[side], float(rng.uniform(0, 8))
    if upper and side == RIGHT:
        raised = np.clip((out - 30) / (anatomy.half_width - 30), 0, 1) ** 0.7
        lobe = canvas.inside(root - 6 - (26 + 22 * severity + lift) * raised - canvas.y, 2)
    elif upper:
        fade = np.clip((dome - canvas.y) / (dome - anatomy.apex), 0, 1)
        lobe = fade * np.clip(1.25 - out / np.float32(anatomy.half_width), 0, 1)
    else:
        down = np.clip((canvas.y - root) / (dome + 12 - root), 0, 1.1)
        reach = 34 + (0.44 * anatomy.half_width + lift) * down
        lobe = canvas.inside(reach - out, 2) * canvas.inside(canvas.y - root, 12)
        scene.added += lobe * canvas.inside(out) * canvas.inside(dome - canvas.y, 8) * np.float32(0.7 + 2.4 * severity)
    density = lobe * scene.lungs[side]
    scene.markings *= 1 - 0.7 * density
    scene.fill(density * np.float32((0.3 + 0.4 * severity) if upper and side == LEFT else (0.28 + 0.6 * severity)))


def _consolidation(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Fill part of a lobe, or all of it: dense, sharp at the fissure, vessels hidden, bronchi left dark (Hansell 2008).

    Where it touches heart or diaphragm their outline goes (silhouette sign: Felson & Felson, Radiology
    1950;55:363-374): the middle lobe hides the right border of the heart, a lower lobe the dome.
    """
    canvas, side, severity = scene.canvas, sign.side, sign.severity
    choice, across, down = rng.uniform((0, 0.3, -0.06), (1, 0.6, 0.06)).tolist()
    lobe, level = _lobe(scene, side, choice)
    centre = scene.place(side, across, level + down)
    ragged = 1.35 + 0.35 * canvas.noise(rng, 16)
    extent = np.clip(canvas.blob(centre, (19 + 95 * severity, 17 + 85 * severity)) * ragged, 0, 1)
    share = lobe * extent * scene.lungs[side]
    tubes = canvas.blur(canvas.strokes(bronchi(hilum(scene.anatomy, side), centre, rng)), 1.0)
    scene.markings *= 1 - 0.9 * share
    patchy = np.clip(1 + 0.09 * canvas.noise(rng, 9), 0.7, 1.1)
    dense = np.float32(0.24 + 0.68 * severity)
    scene.fill(np.clip(share * patchy * (1 - 0.38 * tubes) * dense, 0, 0.97))


def _lobe(scene: Scene, side: int, choice: float) -> tuple[Array, float]:
    """Return a lobe as it projects on a frontal film, 0 to 1, and the height of its middle (apex 0, dome 1)."""
    canvas, anatomy, out = scene.canvas, scene.anatomy, scene.outwards(side)
    fissure = hilum(anatomy, RIGHT)[1] + 4 + 0.05 * (out - 80)
    below = canvas.y - fissure
    if side == RIGHT and choice < 0.33:
        return canvas.inside(-below, 2), 0.28
    if side == RIGHT and choice < 0.62:
        down = np.clip(below / (anatomy.domes[side] - fissure), 0, 1)
        lateral = lateral_wall(anatomy, canvas.y) * (1.02 - 0.6 * down) - out
        return canvas.inside(below, 2) * canvas.inside(lateral, 14), 0.68
    if side == LEFT and choice < 0.5:
        return canvas.inside(30 - below, 90), 0.4
    # The middle lobe, or the lingula, lies before a lower one along the heart and keeps its border in sight.
    heart = border(canvas, anatomy, side)[:, None] + np.float32(DIRECTION[side] * anatomy.shift)
    lateral = (0.42 + 0.58 * np.clip((out - heart - 6) / 24, 0, 1)).astype(np.float32)
    return lateral * canvas.inside(below - 34, 70), 0.84


def _infiltration(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Lay ill-defined haze and coarse streaks over one or two zones.

    The word of the reports that NIH's labels were mined from (Wang et al., CVPR 2017); "no longer recommended"
    (Hansell 2008), as it says no more than opacity. Its fainter films look like early pneumonia, as NIH's do.
    """
    canvas, severity = scene.canvas, sign.severity
    patches, mottle = canvas.empty(), 1 + 0.22 * canvas.noise(rng, 11) + 0.2 * canvas.noise(rng, 5)
    for number, (across, down, wide, high, much) in enumerate(
        rng.uniform((0.15, 0.25, 15, 14, 0.6), (0.7, 0.88, 28, 26, 1.0), (6, 5)).tolist()
    ):
        side = 1 - sign.side if sign.both and number % 2 else sign.side
        if number < 3 + 3 * severity:
            patches += canvas.blob(scene.place(side, across, down), (wide, high)) * np.float32(much)
    patches = np.clip(patches, 0, 1.2) * scene.both_lungs
    scene.markings *= 1 + patches * np.float32(0.3 + 0.7 * severity)
    scene.fill(np.clip(patches * np.clip(mottle, 0.15, 1.9) * np.float32(0.14 + 0.28 * severity), 0, 0.9))


_DRAWINGS: Final[dict[str, Callable[[Scene, Sign, np.random.Generator], None]]] = {
    "Atelectasis": _atelectasis,
    "Consolidation": _consolidation,
    "Edema": edema,
    "Effusion": effusion,
    "Emphysema": emphysema,
    "Fibrosis": fibrosis,
    "Infiltration": _infiltration,
    "Mass": mass,
    "Nodule": nodule,
    "Pleural_Thickening": pleural_thickening,
    "Pneumonia": pneumonia,
    "Pneumothorax": pneumothorax,
}
"""Cardiomegaly is a shape alone (`reshape`); a hernia is drawn last (`hernia`)."""
