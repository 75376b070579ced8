"""What surrounds the lungs but the bones: soft tissue, airways, breasts, gas in the bowel, folds of skin."""

import numpy as np
import numpy.typing as npt

from pipeline.datasets.simulated.anatomy import DIRECTION, LEFT, Anatomy, diaphragm, extended, hilum
from pipeline.datasets.simulated.canvas import Array, Canvas, Line

_Points = npt.NDArray[np.float64]


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
    field = canvas.coarse
    heavy, top, young = anatomy.habitus, anatomy.apex, anatomy.youth
    trunk = anatomy.half_width + max(24.0 - 6 * young, 46 - 20 * young + 13 * heavy)
    raised = top - anatomy.shoulders
    heights = [-220, raised - 52, raised - 30, raised - 8, raised + 20, top + 70, top + 115, top + 160, 80, 220]
    halves = [62 + 5 * heavy, 68 + 6 * heavy, 98, 172, 232, 236, trunk + 26, trunk + 8, trunk, trunk + 2 + 7 * heavy]
    halves[0] += 45 * young  # the head
    if anatomy.raised:
        halves[3:7] = [132, trunk - 16, trunk - 2, trunk + 8]
    half = _smooth(np.interp(field.rows, heights, halves), 18 / field.pitch)[:, None]
    levels = [-220, top - 30, top + 20, top + 70, 0, 80, 140, 220]
    depth = np.interp(field.rows, levels, [12.0, 11.5, 13.2, 16.2, 18.5, 19.5, 20.5, 21])[:, None].astype(np.float32)
    depth += 1.4 * heavy * np.clip((field.y + 200) / 200, 0.3, 1)
    edge = np.clip(np.abs(field.x) / half, 0, 1)
    body = depth * np.sqrt(1 - edge**3.8)
    for direction in DIRECTION:
        shoulder = np.array([direction * (anatomy.half_width + 52 - 24 * young), raised + 52])
        elbow = shoulder + 1.7 * (np.array([direction * (trunk + 50 + arms), 200.0]) - shoulder)
        if anatomy.raised:
            shoulder[1] -= 30
            elbow = shoulder + np.array([direction * (60 + arms), -200.0])
        body = np.maximum(body, _limb(field, shoulder, elbow, 46 - 14 * young + 7 * heavy))
    if young > 0:
        body = np.maximum(body, 14 * young * field.blob((0.0, top - 95.0), (62.0, 24.0)))  # the chin
    tissue: Array = canvas.enlarge(field.blur(body.astype(np.float32), 2.5))
    return tissue


def airways(canvas: Canvas, anatomy: Anatomy) -> Array:
    """Return trachea and main bronchi in centimetres of air; the aortic arch pushes the trachea a little to the right.

    The trachea is 13 to 25 mm wide in men and 10 to 21 mm in women (Breatnach et al., AJR 1984;142:903-906).
    """
    carina = anatomy.apex + 78
    middle = anatomy.shift
    wide = 17.0 if anatomy.sex == "M" else 15.0
    way = np.array([[0.2 * middle, -240], [0.4 * middle, anatomy.apex], [middle - 2.5, carina - 28], [middle, carina]])
    lines: list[Line] = [(way, wide, 1.0)]
    for side in (0, 1):
        x, y = hilum(anatomy, side)
        reach = np.array([[middle, carina], [0.6 * x + 0.4 * middle, 0.55 * carina + 0.45 * y], [x, y + 4]])
        lines += [(reach[1:], 8.0, 0.42), (reach[:2], 11.5, 0.62)]
    field = canvas.coarse
    return canvas.enlarge(field.blur(field.strokes(lines[::-1]), 2.4)) * np.float32(3.0)


def aortic_calcium(canvas: Canvas, anatomy: Anatomy) -> Array:
    """Return the calcified rim of the aortic knob in centimetres of water; a common sight in old age."""
    if anatomy.calcium <= 0.15:
        return canvas.empty()
    angle = np.linspace(-1.5, 0.9, 12)
    centre = np.array([anatomy.shift + 23, anatomy.apex + 63])
    rim = centre + np.stack([15 * np.cos(angle), 16 * np.sin(angle)], 1)
    calcium = canvas.empty()
    knob, here = canvas.around((centre[0], centre[1]), 22)
    calcium[here] = knob.blur(knob.strokes([(rim, 2.4, 1.0)], full=1.6 * anatomy.calcium), 0.6)
    return calcium


def breasts(canvas: Canvas, anatomy: Anatomy) -> Array:
    """Return the breasts in centimetres of water: sharp below, fading upwards."""
    if anatomy.breast <= 0:
        return canvas.empty()
    field, size = canvas.coarse, anatomy.breast
    shadow = field.empty()
    wide, high = 72 + 8 * size, 56 + 8 * size
    fall = -52.0 if anatomy.supine else -40.0
    for direction in DIRECTION:
        x = anatomy.across(direction * (0.78 if anatomy.supine else 0.68) * anatomy.half_width, 100.0)
        y = anatomy.domes[0] + fall - 0.6 * high + 9 * size
        distance = ((field.x - x) / wide) ** 2 + ((field.y - y) / high) ** 2
        fade = np.clip((field.y - (y - 0.9 * high)) / (1.3 * high), 0, 1)
        shadow += np.clip(1 - distance, 0, 1) ** 0.5 * fade
    return canvas.enlarge(field.blur(shadow, 1.5)) * np.float32(1.45 * size)


def bowel_gas(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Array:
    """Return gas under the left dome in centimetres of air: the stomach's, with a level below it if the patient stands.

    Beside it, in some, the colon's: round pouches.
    """
    if anatomy.stomach <= 0:
        return canvas.empty()
    field = canvas.coarse
    across = field.x * np.float32(DIRECTION[LEFT])
    wide, high = 20 + 16 * anatomy.stomach, 13 + 13 * anatomy.stomach
    centre = (rng.uniform(48, 74), anatomy.domes[LEFT] + 0.75 * high)
    hill = 1 - ((field.x - centre[0]) / wide) ** 2 - ((field.y - centre[1]) / np.float32(high)) ** 2
    gas = np.sqrt(np.clip(hill, 0, 1)) * field.inside(field.y - diaphragm(anatomy, LEFT, across) - 6, 5)
    level = centre[1] + rng.uniform(-0.1, 0.5) * high
    gas = gas * field.inside(level - field.y, 30 if anatomy.supine else 2.5) * np.float32(2 + 3.5 * anatomy.stomach)
    if rng.random() < 0.4:
        for _ in range(int(rng.integers(2, 6))):
            centre = (rng.uniform(40, 125) * rng.choice([1, 1, -1]), anatomy.domes[1] + rng.uniform(45, 120))
            radius = rng.uniform(9, 20)
            near, here = field.around(centre, radius)
            pouch = np.clip(1 - (near.radius(centre) / np.float32(radius)) ** 2, 0, 1)
            gas[here] += np.sqrt(pouch) * np.float32(0.16 * radius)
    return canvas.enlarge(field.blur(gas, 1.6))


def skin_folds(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Array:
    """Return folds of skin behind a patient who lies on the detector, in centimetres of water.

    A fold is an edge, not a line: dense on one side, gone at the other (Fisher, AJR 1978;130:791-792).
    """
    field, folds = canvas.coarse, canvas.coarse.empty()
    for _ in range(int(rng.integers(1, 4))):
        direction = float(rng.choice(DIRECTION))
        foot = direction * anatomy.half_width * rng.uniform(0.55, 0.95)
        lean = rng.uniform(-0.25, 0.25)
        bend = rng.normal(0, 3) * np.sin(field.y / rng.uniform(25, 60))
        distance = (field.x - foot - lean * field.y - bend) * np.float32(direction)
        ends = field.inside(field.y - rng.uniform(-120, -40), 40) * field.inside(rng.uniform(40, 150) - field.y, 40)
        folds += np.clip(1 - distance / 38, 0, 1) * field.inside(distance, 1.5) * ends * np.float32(rng.uniform(0.4, 1))
    return canvas.enlarge(folds)


def _limb(field: Canvas, start: _Points, end: _Points, radius: float) -> Array:
    """Return a cylinder between two points, a little flattened along the ray."""
    (x, y), (wide, high) = start.tolist(), (end - start).tolist()  # plain numbers keep the field's precision
    across, down = field.x - x, field.y - y
    share = across * (wide / (wide**2 + high**2)) + down * (high / (wide**2 + high**2))
    np.clip(share, 0, 1, out=share)
    squared = (across - share * wide) ** 2 + (down - share * high) ** 2
    chord: Array = np.sqrt(np.maximum(radius**2 - squared, 0))
    chord *= np.float32(0.24)
    return chord


def _smooth(values: npt.NDArray[np.float64], window: float) -> Array:
    width = 2 * max(1, round(window / 2)) + 1
    return np.convolve(extended(values, width // 2), np.ones(width) / width, mode="valid").astype(np.float32)
