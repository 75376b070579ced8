"""The layers outside the lungs: soft tissue, skeleton, airways, breasts, and what lies on the patient."""

import cv2
import numpy as np

from pipeline.datasets.simulated.anatomy import DIRECTION, Anatomy, hilum, lateral_wall
from pipeline.datasets.simulated.canvas import Array, Canvas, Line


def soft_tissue(canvas: Canvas, anatomy: Anatomy, arms: float) -> Array:
    """Return neck, shoulders, arms and trunk in centimetres of water.

    Parameters
    ----------
    canvas : Canvas
        The field.
    anatomy : Anatomy
        The chest; habitus adds to its width and depth.
    arms : float
        Distance of the elbows from the trunk, millimetres.
    """
    trunk = anatomy.half_width + 27 + 9 * anatomy.habitus
    top = anatomy.apex
    heights = [-220, top - 38, top - 16, top + 15, top + 60, top + 110, 60, 220]
    halves = [56, 60, 110, 178, 205, trunk + 14, trunk, trunk + 4 + 6 * anatomy.habitus]
    half = np.interp(canvas.y, heights, halves)
    depth = np.interp(canvas.y, [-220, top - 20, top + 40, 20, 90, 220], [11, 12, 15.5, 18.5, 20, 20.5])
    depth = depth + 1.5 * anatomy.habitus
    edge = np.clip(np.abs(canvas.x) / half, 0, 1)
    body = depth * (1 - edge**4) ** 0.5
    limbs: list[Line] = []
    for direction in DIRECTION:
        shoulder = [direction * 186, top + 62]
        elbow = [direction * (trunk + 44 + arms), 210]
        limbs.append((np.array([shoulder, elbow]), 62 + 8 * anatomy.habitus, 1.0))
    arm = canvas.blur(canvas.strokes(limbs), 9) * 9
    tissue: Array = np.maximum(body, arm).astype(np.float32)
    return tissue


def ribs(canvas: Canvas, anatomy: Anatomy) -> Array:
    """Return posterior and anterior arcs of ten ribs a side in centimetres of water.

    A rib's margins, where the ray runs along the cortex, are denser than its middle.
    """
    posterior, anterior = [], []
    steps = np.linspace(0, 1, 14)
    for number in range(10):
        start = anatomy.apex - 4 + number * anatomy.rib_spacing
        fall = anatomy.rib_slope * (0.55 + 0.09 * number)
        end = np.array([start + fall + 6], np.float32)
        wall = float(lateral_wall(anatomy, end)[0]) + 3
        if wall < 45:
            continue
        # Posterior arc: out from the spine, level at first, then down to the axillary line.
        back_y = start - 10 * np.sin(np.pi * np.minimum(steps * 1.25, 1)) + (fall + 6) * steps**1.9
        back_x = 16 + (wall - 16) * np.sin(steps * np.pi / 2)
        # Anterior arc: from there obliquely down and medially to the costal cartilage.
        reach = 0.42 if number < 6 else 0.6
        front_x = wall * (1 - (1 - reach) * steps**1.5)
        front_y = back_y[-1] + (42 + 3.2 * number) * steps**0.9
        for direction in DIRECTION:
            posterior.append(np.stack([direction * back_x, back_y], 1))
            if number < 8:
                anterior.append(np.stack([direction * front_x, front_y], 1))
    arcs = _hollow(canvas, [(np.array(posterior), 9.5, 1.0)]) * 1.9
    arcs += _hollow(canvas, [(np.array(anterior), 10.5, 1.0)]) * 0.8
    return canvas.blur(arcs, 0.8)


def skeleton(canvas: Canvas, anatomy: Anatomy) -> Array:
    """Return ribs, clavicles, shoulders and spine in centimetres of water."""
    top = anatomy.apex
    lines: list[Line] = []
    steps = np.linspace(0, 1, 10)
    for direction in DIRECTION:
        reach = anatomy.half_width + 18
        collar = np.stack([direction * (12 + (reach - 12) * steps), top + 22 - 26 * np.sqrt(steps) - 6 * steps], 1)
        lines.append((collar, 11.0, 1.0))
        joint = np.array([direction * (anatomy.half_width + 40), top + 32])
        lines.append((np.stack([joint, joint + np.array([direction * 14, 150])]), 23.0, 0.9))
        lines.append((np.stack([joint, joint + np.array([0, 4])]), 44.0, 0.8))
        blade = np.array([[reach - 12, top + 12], [reach - 22, top + 60], [reach - 34, top + 118]])
        lines.append((blade * [direction, 1], 7.0, 0.55))
    return ribs(canvas, anatomy) + canvas.blur(_hollow(canvas, lines), 0.8) * 2.4 + _spine(canvas, anatomy)


def airways(canvas: Canvas, anatomy: Anatomy) -> Array:
    """Return trachea and main bronchi in centimetres of air."""
    carina = anatomy.apex + 78
    middle = anatomy.shift
    lines: list[Line] = [(np.array([[0.3 * middle, -225], [middle, carina]]), 16.0, 1.0)]
    for side in (0, 1):
        x, y = hilum(anatomy, side)
        lines.append((np.array([[middle, carina], [0.85 * x + 0.15 * middle, y - 2]]), 11.0, 0.6))
    return canvas.blur(canvas.strokes(lines), 1.8) * 2.6


def breasts(canvas: Canvas, anatomy: Anatomy) -> Array:
    """Return the breasts in centimetres of water: sharp below, fading upwards."""
    shadow = canvas.empty()
    if anatomy.breast <= 0:
        return shadow
    for direction in DIRECTION:
        x = direction * 0.6 * anatomy.half_width
        y = anatomy.heart_base - 42 + 8 * anatomy.breast
        distance = np.sqrt(((canvas.x - x) / 62) ** 2 + ((canvas.y - y) / 50) ** 2)
        fade = np.clip((canvas.y - (y - 50)) / 70, 0, 1)
        shadow = shadow + np.sqrt(np.clip(1 - distance**2, 0, 1)) * fade
    return shadow * np.float32(anatomy.breast)


def bowel_gas(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Array:
    """Return the gas of the stomach, under the left dome, in centimetres of air."""
    if anatomy.stomach <= 0:
        return canvas.empty()
    centre = (rng.uniform(46, 68), anatomy.domes[1] + 26)
    width = 20 + 18 * anatomy.stomach
    distance = canvas.radius(centre, 0.5)
    return canvas.inside(width - distance, 5) * np.float32(2 + 4 * anatomy.stomach)


def marker(canvas: Canvas, rng: np.random.Generator) -> Array:
    """Return the lead letter of a side, 0 to 1, in an upper corner of the film; it says nothing of the findings."""
    mask = np.zeros((canvas.size, canvas.size), np.uint8)
    letter, x = ("L", 160.0) if rng.random() < 0.6 else ("R", -178.0)
    position = (np.array([x + rng.normal(0, 6), -172 + rng.normal(0, 8)]) + 220) / canvas.pitch
    scale = 14 / canvas.pitch / 22
    origin = (int(position[0]), int(position[1]))
    cv2.putText(
        mask, letter, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, max(1, round(2 / canvas.pitch)), cv2.LINE_AA
    )
    return mask.astype(np.float32) * np.float32(1 / 255)


def leads(canvas: Canvas, rng: np.random.Generator) -> Array:
    """Return electrodes and cables of a monitor, 0 to 1, as bedside films show them."""
    lines: list[Line] = []
    for _ in range(int(rng.integers(2, 5))):
        start = np.array([rng.uniform(-110, 110), rng.uniform(-120, 60)])
        end = start + np.array([rng.normal(0, 60), rng.uniform(80, 200)])
        bend = (start + end) / 2 + rng.normal(0, 25, 2)
        steps = np.linspace(0, 1, 9)[:, None]
        curve = (1 - steps) ** 2 * start + 2 * steps * (1 - steps) * bend + steps**2 * end
        lines += [(curve, 1.3, 0.8), (np.stack([start, start + 0.1]), 9.0, 0.8)]
    return canvas.strokes(lines)


def _hollow(canvas: Canvas, lines: list[Line]) -> Array:
    inner = [(points, 0.55 * width, 0.62 * value) for points, width, value in lines]
    return canvas.strokes([*lines, *inner])


def _spine(canvas: Canvas, anatomy: Anatomy) -> Array:
    column = canvas.inside(16 - np.abs(canvas.x), 6)
    pitch = anatomy.rib_spacing
    discs = 0.5 + 0.5 * np.cos(2 * np.pi * (canvas.y - anatomy.apex) / pitch)
    spine: Array = column * (1.5 + 0.8 * np.sqrt(discs)).astype(np.float32)
    return spine
