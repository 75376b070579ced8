"""One patient's chest as numbers, and the curves that bound the lungs, the heart and the diaphragm.

Lengths are millimetres on the detector. Sides are indices: 0 is the patient's right (left of the picture), 1 the
left. `DIRECTION` turns an index into a sign.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.datasets.simulated.canvas import Array

DIRECTION: Final = (-1.0, 1.0)
RIGHT: Final = 0
LEFT: Final = 1

FloatOrArray = TypeVar("FloatOrArray", float, npt.NDArray[np.float64], Array)


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """What all films of a patient share, before any finding.

    Attributes
    ----------
    sex : {"M", "F"}
        As in the table.
    age : int
        Years at the first film.
    habitus : float
        0 is average, 1 one standard deviation heavier.
    half_width : float
        From the midline to the inner margin of the ribs at its widest; the whole is the thoracic diameter of the
        cardiothoracic ratio, about 300 mm in an adult on a 43 cm film.
    apex : float
        Height (y) of the lung apex.
    domes : tuple of float
        Height (y) of the diaphragm's domes; the right one is about 1.5 cm higher (normally up to 3 cm; Felson,
        *Chest Roentgenology*, 1973).
    angle_drop : tuple of float
        How far the costophrenic angle lies below the dome.
    heart_base : float
        Height (y) at which the heart rests on the diaphragm.
    cardiothoracic : float
        Widest heart over widest thorax; below 0.5 without cardiomegaly (Danzer, Am J Med Sci 1919;157:513-521).
    shift : float
        Displacement of the mediastinum to the patient's left.
    aeration : float
        1 is normal; more air, darker lungs.
    rib_spacing, rib_slope : float
        Distance of posterior ribs, and how far each falls from spine to lateral wall.
    breast : float
        Size of the breast shadow in centimetres of tissue; 0 is none.
    stomach : float
        Size of the gas bubble under the left dome, 0 to 1.
    tilt : float
        Rotation in the picture's plane, degrees.
    scoliosis : float
        Sideways swing of the spine, millimetres.
    bone : float
        Density of the skeleton; 1 is that of a young adult.
    calcium : float
        Calcification of the aortic knob, 0 to 1.
    shoulders : float
        How much higher the shoulders stand than on average, millimetres.
    turn : float
        Rotation about the patient's long axis on this film, degrees; positive turns his front to his left.
    supine : bool
        Taken from the front at the bedside, so that the scapulae lie over the lungs and the clavicles high.
    youth : float
        0 is grown up, 1 one year old; what a child's chest has that an adult's has not goes by it.
    size : float
        Width of the chest beside an adult's. A child fills a smaller detector: lengths here are those of an adult of
        his proportions, and the film's pixels are smaller by this.
    raised : bool
        Arms held up beside the head, as young children's are.
    """

    sex: Literal["M", "F"]
    age: int
    habitus: float
    half_width: float
    apex: float
    domes: tuple[float, float]
    angle_drop: tuple[float, float]
    heart_base: float
    cardiothoracic: float
    shift: float
    aeration: float
    rib_spacing: float
    rib_slope: float
    breast: float
    stomach: float
    tilt: float
    scoliosis: float = 0.0
    bone: float = 1.0
    calcium: float = 0.0
    shoulders: float = 0.0
    turn: float = 0.0
    supine: bool = False
    youth: float = 0.0
    size: float = 1.0
    raised: bool = False

    def across(self, x: FloatOrArray, z: float) -> FloatOrArray:
        """Return where a point `x` beside and `z` before the middle of the chest falls on the film, millimetres."""
        angle = np.deg2rad(self.turn)
        return x * float(np.cos(angle)) + z * float(np.sin(angle))


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw one adult.

    Parameters
    ----------
    rng : numpy.random.Generator
        The patient's own.

    Returns
    -------
    Anatomy
        Ages 18 to 94 about a mean near 50, as in NIH ChestX-ray14; women narrower than men.
    """
    woman = rng.random() < 0.46
    habitus = float(np.clip(rng.normal(), -2, 2.2))
    right_dome = float(rng.normal(84, 9))
    age = int(np.clip(rng.normal(50, 16), 18, 94))
    return Anatomy(
        sex="F" if woman else "M",
        age=age,
        habitus=habitus,
        half_width=float(rng.normal(141 if woman else 151, 6.5)),
        apex=float(rng.normal(-152, 8)),
        domes=(right_dome, right_dome + float(rng.normal(13, 4))),
        angle_drop=(float(rng.normal(40, 6)), float(rng.normal(37, 6))),
        heart_base=right_dome + 8,
        cardiothoracic=float(np.clip(rng.normal(0.44, 0.03), 0.36, 0.495)),
        shift=float(rng.normal(0, 2.5)),
        aeration=float(rng.normal(1, 0.07)),
        rib_spacing=float(rng.normal(27.5, 1.8)),
        rib_slope=float(rng.normal(30, 6)),
        breast=float(rng.uniform(0.5, 3)) if woman and rng.random() < 0.75 else 0.0,
        stomach=float(rng.uniform(0.3, 1)) if rng.random() < 0.6 else 0.0,
        tilt=float(rng.normal(0, 1.6)),
        scoliosis=float(rng.normal(0, 3.5)),
        # Bone is lost with age, by women more; slopes and spread were chosen by eye.
        bone=float(np.clip(1.05 - (0.007 if woman else 0.004) * max(0, age - 40) + rng.normal(0, 0.1), 0.55, 1.3)),
        calcium=float(np.clip((age - 55) / 40 + rng.normal(0, 0.25), 0, 1)),
        shoulders=float(rng.normal(0, 9)),
    )


def lateral_wall(anatomy: Anatomy, y: Array, inset: float = 0.0) -> Array:
    """Return the distance from the midline to the inner chest wall.

    Parameters
    ----------
    anatomy : Anatomy
        The chest.
    y : ndarray of float32
        Heights in millimetres.
    inset : float
        Millimetres by which the outline is drawn inwards at the apex, and half as far at the base: the border of a
        collapsed lung.

    Returns
    -------
    ndarray of float32
        As `y`; 0 above the apex. A quarter of a superellipse: steep at the apex, nearly straight below.
    """
    apex = anatomy.apex + 0.8 * inset
    floor = max(anatomy.domes) + 20
    level = np.clip((y - apex) / (floor - apex), 0, 1)
    reach = anatomy.half_width - inset * (1 - 0.55 * level)
    wall: Array = (reach * (1 - (1 - level) ** 2.6) ** 0.41).astype(np.float32)
    return wall


def diaphragm(anatomy: Anatomy, side: int, across: Array) -> Array:
    """Return the height (y) of a hemidiaphragm at the distances `across` from the midline (positive outwards)."""
    middle = 0.45 * anatomy.half_width
    lateral = np.maximum(across - middle, 0) / (anatomy.half_width - middle)
    medial = np.maximum(middle - across, 0) / middle
    curve: Array = (anatomy.domes[side] + anatomy.angle_drop[side] * lateral**2.2 + 10 * medial**2).astype(np.float32)
    return curve


def angle_height(anatomy: Anatomy, side: int) -> float:
    """Return the height (y) of the costophrenic angle."""
    return anatomy.domes[side] + anatomy.angle_drop[side]


def hilum(anatomy: Anatomy, side: int) -> tuple[float, float]:
    """Return the position (x, y) of a hilum; the left one is higher in most people (Felson, 1973)."""
    height = anatomy.apex + 0.47 * (anatomy.heart_base - anatomy.apex)
    return anatomy.shift + DIRECTION[side] * 40, height - (8 if side == LEFT else 0)


def mediastinal_border(anatomy: Anatomy, side: int, rows: Array) -> Array:
    """Return the distance from the midline to the border of mediastinum and heart, widest above the diaphragm.

    Parameters
    ----------
    anatomy : Anatomy
        The chest; `cardiothoracic` sets the width of the heart, a third of it to the right.
    side : int
        0 right, 1 left.
    rows : ndarray of float32, shape (n,)
        Heights in millimetres, evenly spaced.

    Returns
    -------
    ndarray of float32, shape (n,)
        Right: superior vena cava, right atrium. Left: aortic knob, pulmonary trunk, left ventricle.
    """
    heart = anatomy.cardiothoracic * 2 * anatomy.half_width * (0.33, 0.67)[side]
    top, base = anatomy.apex, anatomy.heart_base
    if side == RIGHT:
        knots = [
            (top - 60, 24),
            (top + 5, 20),
            (top + 50, 25),
            (top + 72, 30),
            (base - 112, 27),
            (base - 84, 0.84 * heart),
        ]
        knots += [(base - 62, heart), (base - 26, heart), (base + 10, 0.86 * heart), (base + 60, 0.6 * heart)]
    else:
        knots = [(top - 60, 22), (top + 20, 25), (top + 44, 30), (top + 56, 41), (top + 68, 41), (top + 82, 34)]
        knots += [(base - 104, max(40, 0.48 * heart)), (base - 76, 0.74 * heart), (base - 52, 0.94 * heart)]
        knots += [(base - 38, heart), (base - 10, heart), (base + 20, 0.9 * heart), (base + 60, 0.6 * heart)]
    heights, widths = zip(*knots, strict=True)
    border = np.interp(rows, heights, widths)
    # The thymus fills the angle between the vessels of the neck and the heart.
    border += anatomy.youth**2 * np.interp(rows, [top + 10, top + 60, base - 90, base - 50], [0, 10, 8, 0])
    window = max(1, round(17 / float(rows[1] - rows[0])))
    smooth = np.convolve(extended(border, window), np.ones(window) / window, mode="same")
    return smooth[window:-window].astype(np.float32)


def extended(values: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """Repeat the first and the last value `count` times; for so few, quicker than `numpy.pad`."""
    return np.concatenate([np.full(count, values[0]), values, np.full(count, values[-1])])
