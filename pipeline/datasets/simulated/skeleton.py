"""Ribs, clavicles, shoulders, spine: curves in three dimensions, projected along the ray; centimetres of water.

Bone counts about double: cortical bone weakens a chest beam some 3 times as much as water (NIST XCOM: 0.315 cm²/g at
60 keV and 1.92 g/cm³ against 0.206), and the marrow between hardly more than water. The thicknesses were chosen by
eye beside real films. `x` is to the patient's left, `y` down, `z` to the front, all in millimetres.
"""

import numpy as np
import numpy.typing as npt

from pipeline.datasets.simulated.anatomy import DIRECTION, Anatomy, lateral_wall
from pipeline.datasets.simulated.canvas import Array, Canvas, Line

_Points = npt.NDArray[np.float64]

_DEPTH_MM = 82.0  # from the middle of the chest to the ribs behind and before
_ENDS = np.array([140, 148, 150, 150, 148, 146, 140, 132, 122, 112, 100])  # of the ribs' courses, degrees
_PAIRS = len(_ENDS)
_PEDICLE = np.array([[0.0, 0.0], [0.0, 4.0]])
_STEPS = 15  # of a rib's course behind, and before


def skeleton(canvas: Canvas, anatomy: Anatomy) -> Array:
    """Return all bones in centimetres of water.

    Parameters
    ----------
    canvas : Canvas
        The field.
    anatomy : Anatomy
        The chest as the film shows it; `bone` scales the density, `turn` and `supine` displace the parts.
    """
    field = canvas.coarse
    lines, plain = _girdle(field, anatomy)
    details, column = _spine(field, anatomy)
    bones = ribs(canvas, anatomy)
    bones += canvas.strokes([*details, *lines], full=1.9)
    bones += canvas.enlarge(plain + column)
    bones *= np.float32(anatomy.bone)
    return canvas.blur(bones, 0.5)


def spine_line(anatomy: Anatomy, y: Array) -> Array:
    """Return how far the vertebrae lie from the midline at the heights `y`; a scoliosis is one gentle S."""
    level = (y - anatomy.apex) / 260
    line: Array = (anatomy.scoliosis * np.sin(2 * np.pi * level + 0.6)).astype(np.float32)
    return line + np.float32(anatomy.across(0.0, -45.0))


def ribs(canvas: Canvas, anatomy: Anatomy) -> Array:
    """Return posterior and anterior arcs in centimetres of water.

    Each rib is a curve about the chest that falls from the spine to its front end. Its margins, where the ray runs
    along the cortex, are denser than its middle, and so is its lateral part, which the ray meets lengthwise.
    """
    x, y, z = _courses(anatomy)
    sides = [np.stack([anatomy.across(way * x, 0.0) + _z_shift(anatomy, z), y], 2) for way in DIRECTION]
    both = np.concatenate(sides)
    back, front = both[:, : _STEPS + 1], both[:, _STEPS:]
    field = canvas.coarse
    wall = np.maximum(lateral_wall(anatomy, field.y), 30) + 6
    lengthwise = np.minimum(np.abs(field.x) / wall, 1) ** 4
    lengthwise *= 0.8 - 0.5 * field.inside(field.y - max(anatomy.domes), 40)
    full = 1.15  # by the spectra of real films
    wide = 9.0 + 2.5 * anatomy.youth  # a child's ribs leave less room between them
    arcs = canvas.strokes(_hollow([(back, wide, 1.0)], 1.0), full=full)
    arcs += canvas.strokes(_hollow([(front, wide + 2, 1.0)], 0.6), full=(0.55 + 0.25 * anatomy.youth) * full)
    arcs *= canvas.enlarge((1 + lengthwise).astype(np.float32))
    return arcs


def _z_shift(anatomy: Anatomy, z: _Points) -> _Points:
    return z * float(np.sin(np.deg2rad(anatomy.turn)))


def _courses(anatomy: Anatomy) -> tuple[_Points, _Points, _Points]:
    """Return the courses of the ribs that have room, each of shape (ribs, points); most lateral at point `_STEPS`."""
    number = np.arange(_PAIRS)[:, None]
    start = anatomy.apex + 3 + number * anatomy.rib_spacing - np.where(number < 2, 5, 0)
    drop = anatomy.rib_slope * (1.55 + 0.24 * number) + 10
    wall = lateral_wall(anatomy, (start + 0.5 * drop).astype(np.float32)).astype(np.float64) + 4
    wall[0] = np.minimum(wall[0], 56.0)
    angle = np.concatenate(
        [
            np.broadcast_to(np.linspace(0.09, np.pi / 2, _STEPS + 1), (_PAIRS, _STEPS + 1)),
            np.linspace(np.pi / 2, np.deg2rad(_ENDS), _STEPS, axis=1)[:, 1:],
        ],
        axis=1,
    )
    x = 10 + (wall - 10) * np.sin(angle) ** 0.85
    y = start + drop * (1 - np.cos(angle)) / 2 - 7 * np.sin(2 * angle).clip(0)
    # Before the lateral wall the rib falls faster, to the costal cartilage.
    y += np.maximum(angle - np.pi / 2, 0) ** 1.3 * (16 + 3 * number)
    room = wall[:, 0] >= 40
    return x[room], y[room], -_DEPTH_MM * np.cos(angle[room])


def _girdle(field: Canvas, anatomy: Anatomy) -> tuple[list[Line], Array]:
    """Return the lines of clavicles and scapulae, and what is smooth of scapulae and arms (centimetres of water)."""
    top, wide = anatomy.apex - anatomy.shoulders, anatomy.half_width
    high = 14.0 if anatomy.supine else 0.0
    late = 1 - 0.4 * anatomy.youth  # shoulder blades and arms turn to bone later than ribs and spine
    steps = np.linspace(0, 1, 14)
    collars: list[Line] = []
    edges: list[Line] = []
    blades: list[tuple[_Points, float]] = []
    joints: list[Line] = []
    for direction in DIRECTION:
        # Medial end before the third rib, S-shaped, lateral end above the shoulder joint.
        length = wide + 4 - 14
        x = direction * (14 + length * steps)
        y = top + 60 - 1.6 * high - (46 - 0.9 * high) * steps**0.8 + 3 * np.sin(2 * np.pi * steps)
        collar = np.stack([anatomy.across(x, 0.0) + _z_shift(anatomy, 75 * (1 - steps)), y], 1)
        collars += [(collar[:4], 15.0, late), (collar[3:], 11.5, late)]
        # The blade: outside the lungs on an upright film with the shoulders rolled forwards, over them at the bedside.
        inner = wide - (42 if anatomy.supine else 10)
        joint = np.array([wide + 14.0, top + 34 - 0.4 * high])
        corners = np.array(
            [
                [inner + 6, top + 10],
                [inner - 2, top + 55],
                [inner + 12, top + 130],
                [inner + 24, top + 134],
                [wide + 6, top + 62],
                joint + np.array([-6, 14]),
                joint + np.array([-8, -16]),
            ]
        )
        corners *= [direction, 1]
        blades.append((corners, 1.0))
        edges.append((corners[[2, 3, 4, 5]], 5.0, 1.0))
        edges.append((np.concatenate([corners[:3]]), 2.5, 0.5))
        # Its spine and the acromion; the coracoid below the clavicle.
        acromion = np.array([[inner + 8, top + 36], [wide + 8, top + 8], [wide + 34, top + 4]]) * [direction, 1]
        edges.append((acromion, 8.0, 0.75))
        edges.append((np.array([[wide - 4, top + 24], [wide + 10, top + 32]]) * [direction, 1], 9.0, 0.8))
        head = (joint + np.array([17, 2])) * [direction, 1]
        arm = [[0, 0], [40, -60], [90, -200]] if anatomy.raised else [[0, 0], [12, 60], [34, 400]]
        shaft = head + np.array(arm) * [direction, 1]
        joints += [(shaft, 26.0, 0.8), (np.stack([head, head + 0.1]), 46.0, 0.8)]
    plain = field.blur(field.filled(blades), 2.0) * np.float32(0.7 * late)
    plain += field.strokes(_hollow(joints, 0.55)) * np.float32(2.3 * late)
    fine = [(points, width, 0.73 * late * value) for points, width, value in edges]
    return [*fine, *_hollow(collars, 0.9)], plain


def _spine(field: Canvas, anatomy: Anatomy) -> tuple[list[Line], Array]:
    """Return the lines of end plates, pedicles and processes, and the vertebral bodies with discs between them."""
    # Thoracic vertebrae grow from 18 mm (T1) to 25 mm (T12); chosen by eye with the magnification.
    heights = [anatomy.apex - 66.0]
    while heights[-1] < 225:
        heights.append(heights[-1] + float(_vertebra(heights[-1])))
    y = np.array(heights)
    tall = _vertebra(y)
    half = 0.62 * tall + 3
    x = spine_line(anatomy, y.astype(np.float32)).astype(np.float64)
    lean = anatomy.across(0.0, -25.0)
    corners = np.array([(-1, -0.41), (1, -0.41), (0.9, 0), (1, 0.41), (-1, 0.41), (-0.9, 0), (-1, -0.41)])
    plates = np.stack([x, y], 1)[:, None] + corners * np.stack([half, tall], 1)[:, None]
    left = np.concatenate([-half, half])
    pedicles = np.stack([np.tile(x, 2) + 0.62 * left, np.tile(y - 0.08 * tall, 2)], 1)[:, None] + _PEDICLE
    roots = np.stack([np.tile(x - 0.5 * lean, 2) + 0.9 * left, np.tile(y - 0.1 * tall, 2)], 1)[:, None]
    roots = roots + np.array([[0.0, 0.0], [17.0, -3.0]]) * np.stack([np.sign(left), np.ones(len(left))], 1)[:, None]
    tips = np.stack([x - lean, y + 0.2 * tall], 1)[:, None] + np.array([[0.0, 0.0], [0.0, 8.0]])
    bodies: list[Line] = [
        (np.array([[a, b - 0.1 * c], [a, b + 0.1 * c]]), 2 * d, 0.8)
        for a, b, c, d in zip(x, y, tall, half, strict=True)
    ]
    details: list[Line] = [(roots, 8.0, 0.26), (plates, 1.8, 0.5), (pedicles, 6.0, 0.37), (tips, 5.0, 0.66)]
    return details, field.blur(field.strokes(bodies), 2.0) * np.float32(1.9)


def _vertebra(height: float | _Points) -> _Points:
    return np.asarray(np.interp(height, [-220, -120, 120, 220], [17, 20, 27, 31]))


def _hollow(lines: list[Line], cortex: float) -> list[Line]:
    """Return lines whose margin is denser than their middle; the lower margin is the thicker one."""
    rim = 1.5 * cortex
    inner = [(points - [0, 0.5], max(width - 2 * rim, 0.4 * width), 0.58 * value) for points, width, value in lines]
    return [*lines, *inner]
