"""What findings draw on the lungs: opacities, lines, gas. Their changes of shape are in `signs.reshape`.

Definitions follow the glossary of the Fleischner Society (Hansell et al., Radiology 2008;246:697-722) where it has
the term ("Hansell 2008" below), and the sources named at each function elsewhere.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from pipeline.datasets.simulated.anatomy import DIRECTION, LEFT, RIGHT, angle_height, hilum, lateral_wall
from pipeline.datasets.simulated.canvas import Array, Line
from pipeline.datasets.simulated.scene import Scene, lung_mask
from pipeline.datasets.simulated.signs import Sign


def draw(scene: Scene, sign: Sign) -> None:
    """Draw the finding's opacities and lines on `scene`, in place; `hernia` comes later, in front of the heart."""
    drawing = DRAWINGS.get(sign.name)
    if drawing is not None:
        drawing(scene, sign, np.random.default_rng(sign.seed))


def _atelectasis(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Draw bands of dense lung above the raised diaphragm (linear or plate atelectasis, Hansell 2008)."""
    canvas, side, lines = scene.canvas, sign.side, []
    for level in (0.9, 0.72, 0.55)[: 1 + int(2.2 * sign.severity)]:
        start = scene.place(side, rng.uniform(0.0, 0.15), level + rng.normal(0, 0.03))
        end = scene.place(side, rng.uniform(0.75, 0.95), level + rng.normal(0.03, 0.05))
        middle = (np.add(start, end) / 2) + [0, -6]
        lines.append((np.stack([start, middle, end]), rng.uniform(6, 9) + 5 * sign.severity, 1.0))
    band = canvas.blur(canvas.strokes(lines), 2.2)
    scene.fill(band * scene.lungs[side] * np.float32(0.5 + 0.35 * sign.severity))
    crowded = canvas.inside(canvas.y - (scene.anatomy.domes[side] - 34), 50)
    scene.fill(crowded * scene.lungs[side] * np.float32(0.1 + 0.25 * sign.severity))


def _effusion(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Fill the costophrenic angle up to a meniscus that climbs the lateral wall.

    On an upright film about 200 ml blunt the lateral angle (Collins et al., Radiology 1972;105:51-53).
    """
    canvas, anatomy = scene.canvas, scene.anatomy
    for side in sign.sides:
        severity = np.clip(sign.severity + (rng.normal(0, 0.12) if sign.both else 0), 0.05, 1)
        level = angle_height(anatomy, side) - (34 + 88 * severity)
        wall = anatomy.half_width - scene.outwards(side)
        climb = (30 + 25 * severity) * np.exp(-np.maximum(wall, 0) / 28)
        surface = canvas.inside(canvas.y - (level + 12 - climb), 5)
        scene.fill(surface * canvas.inside(scene.outwards(side)) * np.float32(0.96))


def _infiltration(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Scatter faint ill-defined patches over the lungs; the reports' word for them, discouraged by Hansell 2008."""
    canvas = scene.canvas
    patches = canvas.empty()
    count = 6 + int(6 * sign.severity)
    for number in range(count):
        side = sign.side if not sign.both or number % 2 else 1 - sign.side
        centre = scene.place(side, rng.uniform(0.2, 0.85), rng.uniform(0.18, 0.88))
        patches += canvas.blob(centre, (rng.uniform(9, 15), rng.uniform(9, 15))) * np.float32(rng.uniform(0.7, 1.1))
    mottle = np.clip(1 + 0.45 * canvas.noise(rng, 11), 0.2, 1.8)
    scene.fill(np.clip(patches, 0, 1.2) * mottle * np.float32(0.27 + 0.2 * sign.severity))


def _mass(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Draw one round opacity of more than 3 cm (Hansell 2008, "mass"): 36 to 80 mm."""
    diameter = 36 + 40 * sign.severity + rng.uniform(0, 4)
    centre = scene.place(sign.side, rng.uniform(0.3, 0.65), rng.uniform(0.22, 0.74))
    _ball(scene, centre, diameter, 1.4, float(rng.uniform(0.88, 1.12)))


def _nodule(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Draw one to four round opacities of up to 3 cm (Hansell 2008, "nodule"): 20 to 29 mm.

    Denser than water, as healed granulomas are; smaller and fainter nodules exist and are missed on radiographs.
    """
    for number in range(1 + int(rng.integers(0, 3)) + int(sign.severity > 0.3)):
        side = sign.side if number % 2 == 0 or not sign.both else 1 - sign.side
        centre = scene.place(side, rng.uniform(0.25, 0.8), rng.uniform(0.2, 0.85))
        _ball(scene, centre, min(29.0, 21 + 7 * sign.severity + rng.uniform(-1, 3)), 3.0, 1.0)


def _pneumonia(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Draw one ill-defined opacity in a middle or lower zone: bronchopneumonia of one focus (Hansell 2008)."""
    canvas = scene.canvas
    centre = scene.place(sign.side, rng.uniform(0.35, 0.65), rng.uniform(0.58, 0.82))
    radii = (rng.uniform(21, 27) + 8 * sign.severity, rng.uniform(18, 23) + 8 * sign.severity)
    cloud = canvas.blob(centre, radii)
    ragged = np.clip(cloud * (1.15 + 0.3 * canvas.noise(rng, 17)), 0, 1)
    scene.fill(ragged * np.float32(0.42 + 0.3 * sign.severity))


def _pneumothorax(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Draw gas between the chest wall and a thin visceral pleural line, without vessels in it (Hansell 2008)."""
    canvas, side = scene.canvas, sign.side
    gap = 17 + 42 * sign.severity + float(rng.uniform(0, 6))
    collapsed = lung_mask(canvas, scene.anatomy, side, gap)
    edge = np.clip(4 * collapsed * (1 - collapsed), 0, 1)
    inner = lung_mask(canvas, scene.anatomy, side, gap + 3.2)
    line = np.clip(collapsed - inner, 0, 1) * scene.lungs[side]
    rim = scene.lungs[side] * (1 - collapsed)
    scene.markings *= 1 - rim
    scene.air += rim * np.float32(1.9)
    scene.fill(collapsed * scene.lungs[side] * np.float32(0.1 + 0.16 * sign.severity))
    above_dome = canvas.inside(scene.anatomy.domes[side] - canvas.y, 12)
    scene.added += np.maximum(line, 0.4 * edge) * above_dome * np.float32(1.5)


def _consolidation(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Fill a lobe: homogeneous, sharp at the fissure, vessels hidden, bronchi left as dark branches (Hansell 2008)."""
    canvas, side, anatomy = scene.canvas, sign.side, scene.anatomy
    span = anatomy.domes[side] - anatomy.apex
    slope = 0.12 * scene.outwards(side)
    upper = rng.random() < 0.5
    if upper:  # above the horizontal fissure, or its height on the left
        border = anatomy.apex + span * (0.38 + 0.16 * sign.severity) + slope * rng.uniform(-1, 0.6)
        lobe = canvas.inside(border - canvas.y, 4)
    else:  # the lower zone down to the dome
        border = anatomy.apex + span * (0.68 - 0.14 * sign.severity) + slope * rng.uniform(0.5, 1.5)
        lobe = canvas.inside(canvas.y - border, 7)
    scene.markings *= 1 - 0.9 * lobe * scene.lungs[side]
    x, y = hilum(anatomy, side)
    bronchi = []
    for angle in rng.uniform(0.15, 1.2, 5):
        steps = np.linspace(0.15, 1, 5)[:, None]
        way = np.array([DIRECTION[side] * np.cos(angle) * 80, (-1 if upper else 1) * np.sin(angle) * 85])
        bronchi.append((np.array([x, y]) + steps * way + rng.normal(0, 2, (5, 2)), 4.0, 1.0))
    open_airways = canvas.blur(canvas.strokes(bronchi), 0.8)
    patchy = np.clip(1 + 0.1 * canvas.noise(rng, 20), 0.7, 1)
    density = lobe * patchy * (1 - 0.4 * open_airways) * scene.lungs[side]
    scene.fill(density * np.float32(0.68 + 0.26 * sign.severity))


def _edema(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Haze about both hila that spares the periphery, distended upper vessels, and Kerley's B lines at the bases.

    Milne et al., AJR 1985;144:879-894; Hansell 2008 for the septal lines.
    """
    canvas, anatomy, lines = scene.canvas, scene.anatomy, []
    for side in (RIGHT, LEFT):
        x, y = hilum(anatomy, side)
        wings = canvas.blob((x + DIRECTION[side] * 22, y + 8), (27 + 8 * sign.severity, 42 + 10 * sign.severity))
        grain = np.clip(1 + 0.22 * canvas.noise(rng, 14), 0.3, 1.5)
        scene.fill(np.clip(wings * grain, 0, 1) * scene.lungs[side] * np.float32(0.16 + 0.5 * sign.severity))
        for _ in range(8):
            height = angle_height(anatomy, side) - rng.uniform(25, 85)
            wall = float(lateral_wall(anatomy, np.array([height], np.float32))[0])
            ends = np.array([[wall - 1, height], [wall - 18, height + rng.normal(0, 1)]])
            lines.append((ends * [DIRECTION[side], 1], 1.6, 1.0))
    scene.added += canvas.strokes(lines) * (scene.lungs[0] + scene.lungs[1]) * np.float32(0.5)
    scene.markings *= np.float32(1.1 + 0.5 * sign.severity)


def _emphysema(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Thin the vessels out and place bullae; `reshape` does the rest (Hansell 2008)."""
    scene.markings *= np.float32(0.85 - 0.55 * sign.severity)
    for _ in range(int(3 * sign.severity)):
        centre = scene.place(int(rng.integers(0, 2)), rng.uniform(0.4, 0.7), rng.uniform(0.15, 0.5))
        bulla = scene.canvas.inside(rng.uniform(14, 26) - scene.canvas.radius(centre), 3)
        scene.markings *= 1 - 0.9 * bulla
        scene.air += bulla * (scene.lungs[0] + scene.lungs[1]) * np.float32(0.8)


def _fibrosis(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Draw a net of lines at the bases and along the pleura, with some haze between (Hansell 2008, "reticular")."""
    canvas, anatomy = scene.canvas, scene.anatomy
    lungs = scene.lungs[0] + scene.lungs[1]
    span = max(anatomy.domes) - anatomy.apex
    wall = np.maximum(lateral_wall(anatomy, canvas.y), 1)
    depth = np.clip((canvas.y - anatomy.apex) / span, 0, 1.2)
    rim = np.clip(np.abs(canvas.x) / wall, 0, 1)
    zone = np.clip(1.5 * (depth - 0.42 + 0.14 * sign.severity) + 0.5 * (rim - 0.5), 0, 1) * lungs
    start = np.stack(
        [rng.uniform(-1, 1, 210) * anatomy.half_width, anatomy.apex + span * rng.uniform(0.35, 1.15, 210)], 1
    )
    steps = np.concatenate([start[:, None], rng.normal(0, 9, (210, 3, 2))], 1).cumsum(1)
    net: list[Line] = [(steps[first::3], width, 1.0) for first, width in enumerate((1.6, 2.2, 2.9))]
    scene.added += canvas.strokes(net) * zone * np.float32(1.0 + 2.2 * sign.severity)
    scene.fill(zone * np.float32(0.06 + 0.2 * sign.severity))


def _pleural_thickening(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Draw a band of soft tissue along the lateral wall, and over the apex as an apical cap (Hansell 2008)."""
    canvas, anatomy = scene.canvas, scene.anatomy
    for side in sign.sides:
        thickness = 9 + 12 * sign.severity
        wavy = thickness * (1 + 0.12 * np.sin(canvas.y / rng.uniform(14, 30) + rng.uniform(0, 6)))
        band = canvas.inside(scene.outwards(side) - (lateral_wall(anatomy, canvas.y) - wavy), 2.5)
        top, bottom = rng.uniform(-135, -80), anatomy.domes[side] + rng.uniform(-30, 20)
        band *= canvas.inside(canvas.y - top, 20) * canvas.inside(bottom - canvas.y, 20)
        if rng.random() < 0.5:
            cap = 1 - lung_mask(canvas, anatomy, side, 1.3 * thickness)
            band = np.maximum(band, cap * canvas.inside(anatomy.apex + 55 - canvas.y, 15))
        solid = band * scene.lungs[side]
        scene.fill(solid * np.float32(0.9))
        scene.added += solid * np.float32(0.8 + 0.8 * sign.severity)


def hernia(scene: Scene, sign: Sign) -> None:
    """Draw a round retrocardiac shape with air above a fluid level: a hiatus hernia.

    Eren & Ciris, Eur J Radiol 2005;54:448-459.

    To be called after the heart has been drawn, in front of which its gas appears.
    """
    canvas, rng = scene.canvas, np.random.default_rng(sign.seed)
    size = 25 + 21 * sign.severity + float(rng.uniform(0, 3))
    base = scene.anatomy.heart_base
    distance = canvas.radius((scene.anatomy.shift + rng.uniform(8, 34), base - 0.75 * size), 0.88)
    body = canvas.inside(size - distance, 2.5)
    lumen = canvas.inside(size - 6 - distance, 2.5)
    gas = lumen * canvas.inside(base - 0.75 * size + size * rng.uniform(-0.1, 0.8) - canvas.y, 2)
    chest = scene.lungs[0] + scene.lungs[1]
    scene.added += body * (1 - gas) * np.clip(chest, 0, 1) * np.float32(2.2)
    scene.added -= gas * np.float32(1.5 + 5 * sign.severity)


def _ball(scene: Scene, centre: tuple[float, float], diameter: float, density: float, aspect: float) -> None:
    """Add the chord of a ball (an ellipsoid of `aspect`) of `density` times water, in centimetres."""
    half = diameter / 2
    distance = scene.canvas.radius(centre, aspect)
    chord: Array = 2 * np.sqrt(np.clip(half**2 - distance**2, 0, None)) / 10
    scene.added += (scene.lungs[0] + scene.lungs[1]) * chord * np.float32(density)


DRAWINGS: Final[dict[str, Callable[[Scene, Sign, np.random.Generator], None]]] = {
    "Atelectasis": _atelectasis,
    "Effusion": _effusion,
    "Infiltration": _infiltration,
    "Mass": _mass,
    "Nodule": _nodule,
    "Pneumonia": _pneumonia,
    "Pneumothorax": _pneumothorax,
    "Consolidation": _consolidation,
    "Edema": _edema,
    "Emphysema": _emphysema,
    "Fibrosis": _fibrosis,
    "Pleural_Thickening": _pleural_thickening,
}
"""Cardiomegaly is a shape alone (`reshape`); a hernia is drawn last (`hernia`)."""
