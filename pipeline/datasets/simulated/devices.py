"""Lines, tubes and devices on or in the patient, in centimetres of water.

Each lies where it belongs: the tip of a tracheal tube about 5 cm above the carina, that of a central venous line in
the superior vena cava, a gastric tube's below the left dome, a drain's at the apex of its lung, the leads of a
pacemaker in right atrium and right ventricle (Goodman & Putman, *Intensive Care Radiology*, 1983; Godoy et al.,
AJR 2012;198:563-571 and 572-581).

Plastic is marked with barium: a stripe with 60 % of barium sulphate weakens a chest beam some 30 times as much as
water, a catheter with 20 to 40 % throughout 7 to 16 times (by NIST XCOM, barium at 60 keV). So a stripe of 2 mm
counts 6 cm, a catheter of 2 mm up to 3 cm: enough to be seen in 256 pixels.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datasets.simulated.anatomy import DIRECTION, Anatomy, lateral_wall
from pipeline.datasets.simulated.canvas import Array, Canvas, Line

KINDS: Final = ("drain", "tracheal_tube", "venous_line", "gastric_tube", "electrodes", "pacemaker")
"""What `draw_devices` can draw."""

CARINA_MM: Final = 78.0
"""From the lung apex down to the carina."""

_Points = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Device:
    """One device.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    side : int
        0 the patient's right, 1 the left; where it enters, or the pocket of a pacemaker. Tubes in the midline have
        none and ignore it.
    seed : int
        Of its course; kept while it stays in the patient.
    """

    kind: str
    side: int
    seed: int


def draw_devices(canvas: Canvas, anatomy: Anatomy, devices: Iterable[Device]) -> Array:
    """Return what devices add to the rays through the chest.

    Parameters
    ----------
    canvas : Canvas
        The field.
    anatomy : Anatomy
        The chest as this film shows it.
    devices : iterable of Device
        What lies in or on the patient.

    Returns
    -------
    ndarray of float32, shape (size, size)
        Centimetres of water, 0 where there is none of them.

    Raises
    ------
    KeyError
        For a kind that is not in `KINDS`.
    """
    added = canvas.empty()
    for device in devices:
        added += _DRAWINGS[device.kind](canvas, anatomy, device.side, np.random.default_rng(device.seed))
    return added


def _curve(points: list[tuple[float, float]], steps: int = 48) -> _Points:
    """Return a smooth way through points: the Catmull-Rom spline (Catmull & Rom, 1974)."""
    knots = np.array([points[0], *points, points[-1]], np.float64)
    t = np.linspace(0, 1, max(2, steps // (len(points) - 1)))[:, None]
    parts = []
    for a, b, c, d in zip(knots, knots[1:], knots[2:], knots[3:], strict=False):
        parts.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate(parts)


def _tube(canvas: Canvas, way: _Points, width: float, wall: float, stripe: float) -> Array:
    """Draw a tube: walls of `wall` cm seen edge on, half as much between them, and an opaque stripe of `stripe` cm."""
    top = max(wall, stripe, 1e-3)
    body = [(way, width, wall / top), (way, 0.6 * width, 0.5 * wall / top)]
    offset = np.gradient(way, axis=0)
    length = np.maximum(np.hypot(offset[:, 0], offset[:, 1]), 1e-6)
    aside = way + 0.2 * width * np.stack([-offset[:, 1], offset[:, 0]], 1) / length[:, None]
    marked = [(aside, min(2.0, 0.4 * width), stripe / top)]
    return canvas.strokes(body, marked, full=top)


def _tracheal_tube(canvas: Canvas, anatomy: Anatomy, _side: int, rng: np.random.Generator) -> Array:
    carina = anatomy.apex + CARINA_MM
    tip = carina - float(rng.uniform(20, 60))
    middle = anatomy.shift
    way = _curve([(0.3 * middle + rng.normal(0, 3), -240.0), (0.6 * middle, anatomy.apex - 30), (middle, tip)])
    return _tube(canvas, way, 10.0, 0.7, 6.0)


def _gastric_tube(canvas: Canvas, anatomy: Anatomy, _side: int, rng: np.random.Generator) -> Array:
    dome, middle = anatomy.domes[1], anatomy.shift
    points = [(rng.normal(0, 4), -240.0), (middle - 3 + rng.normal(0, 2), anatomy.apex)]
    points += [(middle + 4, anatomy.apex + CARINA_MM), (middle + 10, dome - 40), (middle + 22, dome + 18)]
    points += [(rng.uniform(50, 75), dome + rng.uniform(30, 60))]
    return _tube(canvas, _curve(points), 5.5, 0.7, 5.0)


def _venous_line(canvas: Canvas, anatomy: Anatomy, side: int, rng: np.random.Generator) -> Array:
    cava = (anatomy.shift - 22.0, anatomy.apex + CARINA_MM + float(rng.uniform(-25, 25)))
    direction = DIRECTION[side]
    if rng.random() < 0.5:  # by the internal jugular vein
        points = [(direction * 62 + rng.normal(0, 5), anatomy.apex - 110.0), (direction * 34, anatomy.apex - 45)]
    else:  # by the subclavian vein or the arm
        points = [(direction * 150, anatomy.apex + 40.0), (direction * 92, anatomy.apex + 16)]
        points += [(direction * 50, anatomy.apex + 8)]
    points += [(direction * 22 + (0 if side == 0 else -10), anatomy.apex + 28), (cava[0], cava[1] - 35), cava]
    return _tube(canvas, _curve(points), 2.4, 3.0, 3.0)


def _drain(canvas: Canvas, anatomy: Anatomy, side: int, rng: np.random.Generator) -> Array:
    """Lead a drain from the skin at the fifth intercostal space along the wall to the apex."""
    direction = DIRECTION[side]
    entry = anatomy.apex + float(rng.uniform(120, 165))
    wall = float(lateral_wall(anatomy, np.array([entry], np.float32))[0])
    points = [(direction * (wall + 55), entry + rng.uniform(10, 45)), (direction * (wall + 4), entry)]
    points += [(direction * (wall - rng.uniform(8, 22)), entry - 45), (direction * (0.62 * wall), anatomy.apex + 52)]
    points += [(direction * rng.uniform(34, 52), anatomy.apex + rng.uniform(14, 36))]
    return _tube(canvas, _curve(points), 9.0, 1.0, 6.0)


def _electrodes(canvas: Canvas, _anatomy: Anatomy, _side: int, rng: np.random.Generator) -> Array:
    """Draw three to five electrodes on the skin, and their cables hanging down or over a shoulder."""
    spots = [(-95, -118), (95, -118), (100, 40), (-100, 40), (-10, 20)][: int(rng.integers(3, 6))]
    cables: list[list[Line]] = []
    skin = canvas.empty()
    leave = (float(rng.normal(0, 60)), 240.0) if rng.random() < 0.6 else (float(rng.choice([-190, 190])), -240.0)
    for x, y in spots:
        start = (x + float(rng.normal(0, 14)), y + float(rng.normal(0, 16)))
        bend = ((start[0] + leave[0]) / 2 + rng.normal(0, 40), (start[1] + leave[1]) / 2 + rng.normal(0, 20))
        cables.append([(_curve([start, bend, (leave[0] + rng.normal(0, 14), leave[1])]), 1.5, 0.9)])
        near, here = canvas.around(start, 20)
        snap = near.inside(5 - near.radius(start)) * np.float32(4)
        pad = near.inside(14 - near.radius(start)) * np.float32(0.35)
        skin[here] = np.maximum(skin[here], np.maximum(snap, pad))
    return np.maximum(skin, canvas.strokes(*cables, full=3.0), out=skin)


def _pacemaker(canvas: Canvas, anatomy: Anatomy, side: int, rng: np.random.Generator) -> Array:
    """Draw a generator below the clavicle, one lead to the right atrium and one to the apex of the right ventricle."""
    direction = DIRECTION[side]
    pocket = (direction * (104 + float(rng.normal(0, 6))), anatomy.apex + 62 + float(rng.normal(0, 8)))
    case = np.array([(-22, -10), (-14, -22), (14, -22), (22, -10), (22, 14), (10, 24), (-10, 24), (-22, 14)])
    turned = case @ cv2.getRotationMatrix2D((0, 0), float(rng.normal(0, 20)), 1)[:, :2].T + pocket
    lines: list[list[Line]] = [[(np.concatenate([turned, turned[:1]]), 3.0, 1.0)]]
    shape = np.zeros(canvas.shape, np.uint8)
    cv2.fillPoly(shape, [np.round((turned + 220) / canvas.pitch * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    vein = [pocket, (direction * 70, anatomy.apex + 20), (direction * 24, anatomy.apex + 26)]
    cava = (anatomy.shift - 22, anatomy.apex + CARINA_MM)
    base = anatomy.heart_base
    atrium = [*vein, cava, (anatomy.shift - 40, base - 44), (anatomy.shift - 26, base - 60)]
    apex = [*vein, cava, (anatomy.shift - 30, base - 34), (anatomy.shift + 12, base - 12)]
    apex += [(anatomy.shift + 0.52 * anatomy.half_width * anatomy.cardiothoracic / 0.45, base - 16)]
    lines += [[(way, 1.9, 1.0), (way[-3:], 2.6, 1.0)] for way in (_curve(atrium), _curve(apex))]
    added: Array = shape.astype(np.float32) * np.float32(9 / 255)
    return np.maximum(added, canvas.strokes(*lines, full=3.0), out=added)


_DRAWINGS: Final[dict[str, Callable[[Canvas, Anatomy, int, np.random.Generator], Array]]] = {
    "drain": _drain,
    "tracheal_tube": _tracheal_tube,
    "venous_line": _venous_line,
    "gastric_tube": _gastric_tube,
    "electrodes": _electrodes,
    "pacemaker": _pacemaker,
}
