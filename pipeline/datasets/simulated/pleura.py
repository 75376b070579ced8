"""Findings of the pleura: fluid, gas and thickening between lung and chest wall.

"Hansell 2008" is the glossary of the Fleischner Society, Radiology 2008;246:697-722.
"""

from dataclasses import replace

import numpy as np

from pipeline.datasets.simulated.anatomy import angle_height, lateral_wall
from pipeline.datasets.simulated.canvas import Array
from pipeline.datasets.simulated.scene import Scene, lung_mask
from pipeline.datasets.simulated.signs import Sign


def effusion(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Draw free fluid: a meniscus on an upright film, a veil on one of a patient who lies or half sits.

    Upright, about 200 ml blunt the lateral costophrenic angle (Collins et al., Radiology 1972;105:51-53), which is
    severity 0: its lowest 1.6 cm. From a severity near 0.4 the dome is hidden; at 1 the fluid reaches 14 cm above the
    angle. The surface is concave upwards, highest at the wall. Lying, fluid spreads behind the lung: haze that grows
    downwards, through which vessels show, over a blurred angle (Woodring, AJR 1984;142:59-64).
    """
    for side in sign.sides:
        other = float(rng.normal(0, 0.12))  # drawn always, so that the pattern does not depend on `both`
        severity = float(np.clip(sign.severity + (other if sign.both else 0), 0, 1))
        half = scene.canvas.inside(scene.outwards(side))
        if not scene.anatomy.supine:
            scene.fill(_meniscus(scene, side, severity, 5 + 8 * severity) * half * np.float32(0.96))
            continue
        scene.fill(_meniscus(scene, side, 0.55 * severity, 14 + 20 * severity) * half * np.float32(0.85))
        span = scene.anatomy.domes[side] - scene.anatomy.apex
        depth = np.clip((scene.canvas.y - scene.anatomy.apex - 0.2 * span) / (0.8 * span), 0, 1)
        veil = depth * scene.lungs[side] * np.float32(0.08 + 0.5 * severity)
        scene.fill(veil)
        scene.markings *= 1 + np.float32(0.5) * veil


def _meniscus(scene: Scene, side: int, severity: float, soft: float) -> Array:
    """Return what lies under the surface of fluid, 0 to 1; it climbs the wall, and the mediastinum a little."""
    out = scene.outwards(side)
    dip = 26 + 16 * severity
    lateral = np.exp(-np.maximum(scene.anatomy.half_width - out, 0) / 26)
    medial = severity * np.exp(-np.maximum(out - 45, 0) / 20)
    top = angle_height(scene.anatomy, side) - (16 + 124 * severity)
    return scene.canvas.inside(scene.canvas.y - (top + dip * (1 - lateral - 0.4 * medial)), soft)


def pneumothorax(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Draw gas between the chest wall and a thin visceral pleural line, without vessels in it (Hansell 2008).

    Upright, gas rises: a rim of 12 mm over the apex at severity 0, which ends half way down, and 7 cm at 1, where the
    lung is denser. Lying, gas collects in front of the base: a lower zone too dark and a deep costophrenic sulcus
    (Gordon, Radiology 1980;136:25-27), beside a thinner rim.
    """
    canvas, side, severity = scene.canvas, sign.side, sign.severity
    gap = (12 + 60 * severity + float(rng.uniform(0, 4))) * (0.55 if scene.anatomy.supine else 1.0)
    collapsed = _collapsed(scene, side, gap, severity)
    line = np.clip(collapsed - _collapsed(scene, side, gap + 1.8, severity), 0, 1)
    rim = scene.lungs[side] * (1 - collapsed)
    scene.markings *= 1 - rim
    scene.air += rim * np.float32(1.0 + 1.4 * severity)
    scene.fill(collapsed * scene.lungs[side] * np.float32(0.04 + 0.16 * severity))
    clear = canvas.inside(scene.anatomy.domes[side] - canvas.y, 12) * canvas.inside(scene.outwards(side) - 42, 10)
    freed = np.clip(4 * canvas.blur(rim, 2.5), 0, 1)  # no line where the lung still touches the wall
    scene.added += line * clear * freed * scene.lungs[side] * np.float32(1.2 + 0.5 * severity)
    if scene.anatomy.supine:
        _deep_sulcus(scene, side, severity)


def _collapsed(scene: Scene, side: int, gap: float, severity: float) -> Array:
    """Return the lung that has drawn back from the wall, 0 to 1; a little of it only from the apex."""
    canvas, anatomy = scene.canvas, scene.anatomy
    level = np.clip((canvas.y - anatomy.apex) / (max(anatomy.domes) - anatomy.apex), 0, 1)
    back = min(1.0, 0.2 + 1.3 * severity)
    wall = lateral_wall(anatomy, canvas.y, gap)
    wall = (wall + np.sign(wall) * level * (gap * (1 - back))).astype(np.float32)
    out = scene.outwards(side)
    summit = (anatomy.apex + 0.8 * gap + 0.014 * np.maximum(64 - out, 0) ** 2).astype(np.float32)
    beside: Array = canvas.inside(wall - out)
    return beside * canvas.inside(canvas.y - summit, 3)


def _deep_sulcus(scene: Scene, side: int, severity: float) -> None:
    canvas, anatomy, out = scene.canvas, scene.anatomy, scene.outwards(side)
    drops = list(anatomy.angle_drop)
    drops[side] += 8 + 34 * severity
    deep = replace(anatomy, angle_drop=(drops[0], drops[1]))
    lower = lung_mask(canvas, deep, side) - scene.lungs[side]
    scene.air += np.maximum(lower, 0) * np.float32(5 + 3 * severity)
    centre = (float(np.sign(out[0, -1])) * 0.72 * anatomy.half_width, anatomy.domes[side] - 5)
    scene.air += canvas.blob(centre, (30, 38)) * scene.lungs[side] * np.float32(0.3 + 1.6 * severity)


def pleural_thickening(scene: Scene, sign: Sign, rng: np.random.Generator) -> None:
    """Draw a band of soft tissue along the lateral wall down to a filled angle, or a cap over the apex.

    8 mm thick at severity 0 and 28 mm at 1. With it goes haze of the pleura beside it, seen face on. Diffuse thickening
    is one that obliterates the costophrenic angle (ILO, International Classification of Radiographs of
    Pneumoconioses, 2011); the cap: Hansell 2008, "apical cap".
    """
    canvas, anatomy, severity = scene.canvas, scene.anatomy, sign.severity
    for side in sign.sides:
        wave, phase, top, low, capped = rng.uniform((14, 0, -120, 0, 0), (30, 6, -60, 8, 1)).tolist()
        thickness = 8 + 20 * severity
        wavy = thickness * (1 + 0.3 * np.sin(canvas.y / wave + phase))
        inwards = lateral_wall(anatomy, canvas.y) - scene.outwards(side)
        if capped < 0.25:
            band = 1 - lung_mask(canvas, anatomy, side, 1.5 * thickness)
            extent = canvas.inside(anatomy.apex + 38 - canvas.y, 25)
        else:
            corner = angle_height(anatomy, side) - (14 + low + 22 * severity)
            angle = canvas.inside(canvas.y - corner - np.maximum(inwards, 0), 3)
            band = np.maximum(canvas.inside(wavy - inwards, 2.5), angle * canvas.inside(70 - inwards, 10))
            extent = canvas.inside(canvas.y - top, 30)
        haze = np.clip(1 - inwards / np.float32(16 + 2 * thickness), 0, 1)
        solid = band * extent * scene.lungs[side]
        veil = haze * extent * scene.lungs[side] * np.float32(0.1 + 0.25 * severity)
        scene.fill(np.maximum(solid * np.float32(0.9), veil))
        scene.added += solid * np.float32(1.2 + 1.6 * severity)
