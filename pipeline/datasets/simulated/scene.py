"""The layers of one film, in centimetres of water: air in the lungs, what replaces it, and what is added."""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from pipeline.datasets.simulated.anatomy import (
    DIRECTION,
    Anatomy,
    diaphragm,
    hilum,
    lateral_wall,
    mediastinal_border,
)
from pipeline.datasets.simulated.canvas import FIELD_MM, Array, Canvas, Line

_ORDERS = 7  # divisions of the vessels that are drawn


@dataclass(kw_only=True)
class Scene:
    """What findings draw on.

    Attributes
    ----------
    canvas : Canvas
        The coordinates, of no more of the field than holds the lungs.
    anatomy : Anatomy
        This film's chest, after the findings that change its shape.
    lungs : tuple of ndarray of float32
        Right and left lung, 0 to 1; the heart hides part of them.
    air : ndarray of float32
        Centimetres of air in a ray through the chest.
    water : ndarray of float32
        Share of that air replaced by water, 0 to 1.
    added : ndarray of float32
        Centimetres of water added (negative: taken away) by thin structures.
    markings : ndarray of float32
        How much of the vessels is visible, 1 is normal.
    """

    canvas: Canvas
    anatomy: Anatomy
    lungs: tuple[Array, Array]
    air: Array
    water: Array
    added: Array
    markings: Array

    def fill(self, share: Array) -> None:
        """Replace a share (0 to 1) of the remaining air by water."""
        filled = 1 - self.water
        filled *= share
        filled += self.water
        self.water = filled

    @cached_property
    def both_lungs(self) -> Array:
        """Return the sum of both lungs."""
        return self.lungs[0] + self.lungs[1]

    def outwards(self, side: int) -> Array:
        """Return the distance from the midline, positive on `side`; shape (1, columns), millimetres."""
        return self.canvas.x * np.float32(DIRECTION[side])

    def place(self, side: int, across: float, down: float) -> tuple[float, float]:
        """Return a point of a lung: `across` from mediastinum (0) to wall (1), `down` from apex (0) to dome (1)."""
        y = self.anatomy.apex + down * (self.anatomy.domes[side] - self.anatomy.apex)
        row = np.array([y], np.float32)
        wall = float(lateral_wall(self.anatomy, row)[0])
        field = self.canvas.whole
        inner = float(np.interp(y, field.rows, border(field, self.anatomy, side)))
        return DIRECTION[side] * (inner + across * (wall - inner)), y


def lung_mask(canvas: Canvas, anatomy: Anatomy, side: int, inset: float = 0.0) -> Array:
    """Return one lung, 0 to 1, from the midline outwards; `inset` as in `lateral_wall`."""
    middle = int(np.searchsorted(canvas.x[0], 0))
    half = slice(0, middle + 1) if side == 0 else slice(max(0, middle - 1), None)
    across = canvas.x[:, half] * np.float32(DIRECTION[side])
    walls = canvas.between(lateral_wall(anatomy, canvas.y, inset), across, 2.5)
    walls *= canvas.between(diaphragm(anatomy, side, across), canvas.y, 4)
    # The apex is rounded medially too: its summit lies over the first rib, not beside the spine.
    summit = anatomy.apex + 0.8 * inset + 0.019 * np.maximum(66 - across, 0) ** 2
    walls *= canvas.between(canvas.y, summit, 3)
    walls *= canvas.inside(across)
    mask = canvas.empty()
    mask[:, half] = walls
    return mask


@lru_cache(maxsize=4)  # every place in a lung asks for it
def _border(canvas: Canvas, anatomy: Anatomy, side: int) -> Array:
    border = mediastinal_border(anatomy, side, canvas.rows)
    border.flags.writeable = False
    return border


def border(canvas: Canvas, anatomy: Anatomy, side: int) -> Array:
    """Return `mediastinal_border` at the rows of a canvas, shape (rows,)."""
    return _border(canvas.whole, anatomy, side)[canvas.part[0]]


def mediastinum(canvas: Canvas, anatomy: Anatomy) -> Array:
    """Return the silhouette of mediastinum and heart, 0 to 1; soft at its edge because the heart beats."""
    right = border(canvas, anatomy, 0)[:, None] - np.float32(anatomy.shift)
    left = border(canvas, anatomy, 1)[:, None] + np.float32(anatomy.shift)
    mask: Array = canvas.inside(canvas.x + right, 3) * canvas.inside(left - canvas.x, 3)
    return mask


def heart_density(canvas: Canvas, anatomy: Anatomy) -> Array:
    """Return the share of air that mediastinum and heart take the place of: less at their rounded border, 0 to 1."""
    return canvas.enlarge(_heart(canvas.coarse, anatomy))


@lru_cache(maxsize=4)  # `boxes` draws the same chest with and without a finding
def _heart(field: Canvas, anatomy: Anatomy) -> Array:
    right = field.x + (border(field, anatomy, 0)[:, None] - np.float32(anatomy.shift))
    left = (border(field, anatomy, 1)[:, None] + np.float32(anatomy.shift)) - field.x
    deep: Array = np.minimum(right, left)
    edge = field.inside(deep, 3)
    # The ray that grazes a rounded border meets little of it: half of the step comes within the next centimetres.
    chord = np.clip(deep * np.float32(1 / 16), 0, 1)
    chord *= 2 - chord
    # Above the heart there is hardly any lung before or behind the great vessels and the spine, but more and more of it
    # towards their borders, which therefore are no steps there.
    upper = field.inside(anatomy.heart_base - 112 - field.y, 50)
    step = np.float32(0.3) + upper * (np.float32(0.46) * np.clip(deep * np.float32(1 / 26), 0, 1) - np.float32(0.2))
    deep *= np.float32(1 / 36)
    np.clip(deep, 0, 1, out=deep)
    deep *= 2 - deep  # the chord of a rounded body
    deep *= np.float32(0.17)
    # Under the heart the domes of the diaphragm meet.
    lower = np.float32(0.3) * field.inside(field.y - (anatomy.heart_base - 6), 26)
    deep += step + np.float32(0.22) * chord + lower
    deep *= edge
    deep.flags.writeable = False
    return deep


def _thorax(canvas: Canvas, anatomy: Anatomy) -> Canvas:
    """Return the part of the field that holds all air of the chest, with some millimetres to spare on all sides.

    Below it is the posterior recess (`_recess`), or the sulcus that gas deepens (`pleura.pneumothorax`).
    """
    wide = anatomy.half_width + 12
    return canvas.window(-wide, anatomy.apex - 12, wide, max(anatomy.domes) + max(anatomy.angle_drop) + 56)


def new_scene(canvas: Canvas, anatomy: Anatomy) -> Scene:
    """Return the empty chest: two aerated lungs, nothing in them; on the part of `canvas` that holds them.

    About 12 cm of the 19 cm of an average adult's chest are lung, three quarters of them air.
    """
    canvas = _thorax(canvas, anatomy)
    lungs = (lung_mask(canvas, anatomy, 0), lung_mask(canvas, anatomy, 1))
    both = lungs[0] + lungs[1]
    field = canvas.coarse
    wall = np.maximum(lateral_wall(anatomy, field.y), 1)
    offset = np.clip((np.abs(field.x) / wall - 0.5) / 0.5, -1, 1)
    depth = (0.22 + 0.78 * np.sqrt(1 - offset**2)) * np.sqrt(np.clip((field.y - anatomy.apex) / 90, 0.2, 1))
    # The chest is deepest in its middle; below, liver and spleen rise into it from behind and before.
    depth = depth * (1 - 0.05 * np.clip((field.y - (anatomy.apex + 120)) / 120, 0, 1))
    air = canvas.enlarge((depth * (11.1 * anatomy.aeration)).astype(np.float32)) * both
    air += _recess(canvas, anatomy) * (1 - both)
    return Scene(
        canvas=canvas,
        anatomy=anatomy,
        lungs=lungs,
        air=air,
        water=canvas.empty(),
        added=canvas.empty(),
        markings=np.ones(canvas.shape, np.float32),
    )


def _recess(canvas: Canvas, anatomy: Anatomy) -> Array:
    """Return the air behind the domes, in the posterior recess, in centimetres; to be drawn outside the lungs."""
    behind = canvas.coarse.empty()
    for side in (0, 1):
        left, right = sorted((0.0, DIRECTION[side] * anatomy.half_width))
        field = canvas.coarse.window(left, anatomy.apex, right, FIELD_MM / 2)
        across, wall = field.x * np.float32(DIRECTION[side]), lateral_wall(anatomy, field.y)
        fade = field.between(diaphragm(anatomy, side, across) + 21, field.y, 42)
        fade *= field.inside(across - 20, 20) * field.between(wall - 4, across, 6)
        behind[field.part] += fade * np.sqrt(fade)
    return canvas.enlarge(behind * np.float32(2.2 * anatomy.aeration))


def vessels(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Array:
    """Return the pulmonary vessels in centimetres of water: they leave the hilum, divide, and taper to the pleura.

    Parameters
    ----------
    canvas : Canvas
        The field.
    anatomy : Anatomy
        The chest.
    rng : numpy.random.Generator
        The patient's own, so that all his films show the same tree.

    Notes
    -----
    Diameters fall by about 0.8 at each division, near the cube root of one half of Murray's law (Proc Natl Acad Sci
    1926;12:207-214); the trunks of the lower lobes are 10 to 16 mm wide. A vessel is as deep as it is wide, so wide
    ones are denser.
    """
    stems = 9
    roots = np.repeat([hilum(anatomy, 0), hilum(anatomy, 1)], stems, axis=0)
    outwards = np.repeat(DIRECTION, stems)
    fan = np.linspace(-1.3, 1.45, stems)
    # The lower trunks run down beside the heart and give off branches on their way, the upper ones upwards.
    along = np.tile(np.linspace(-16, 34, stems), 2)
    start = roots + rng.normal(0, 1, (2 * stems, 2)) * [4, 9] + np.stack([0 * along, along], 1)
    angle = np.tile(fan, 2) + rng.normal(0, 0.2, 2 * stems)
    # In an upright chest the lower vessels are wider than the upper ones.
    calibre = np.tile(0.8 + 0.3 * np.clip(np.sin(fan), -0.5, 1), 2) * rng.uniform(0.75, 1.2, 2 * stems)
    lines: list[Line] = []
    for order in range(_ORDERS):
        length = rng.uniform(15, 27, angle.size) * 0.83**order
        bend = angle + rng.normal(0, 0.3, angle.size)
        middle = start + (0.5 * length * np.array([outwards * np.cos(angle), np.sin(angle)])).T
        end = middle + (0.5 * length * np.array([outwards * np.cos(bend), np.sin(bend)])).T
        ways = np.stack([start, middle, end], 1)
        widths = 6.4 * 0.78**order * calibre
        groups = np.array_split(np.argsort(widths), 3 if order < 4 else 1)
        for group in groups:
            width = float(widths[group].mean())
            lines.append((ways[group], width, min(1.0, 0.2 * width**0.7)))
        spread = rng.uniform(0.15, 0.5, angle.size) * rng.choice([-1, 1], angle.size)
        angle = np.concatenate([bend + 0.5 * spread, bend - spread])
        calibre = np.concatenate([calibre, calibre * rng.uniform(0.55, 0.95, calibre.size)])
        start, outwards = np.tile(end, (2, 1)), np.tile(outwards, 2)
    trunks: list[Line] = []
    for side, way in enumerate(DIRECTION):  # the pulmonary arteries: the right one descends, the left one arches over
        x, y = hilum(anatomy, side)
        high = (-2.0, -13.0)[side]
        trunk = np.array([[x - way * 26, y + high], [x - way * 4, y + high - 2], [x + way * 2, y + 16]])
        tail = np.array([trunk[2], [x + way * 5, y + 38], [x + way * 14, y + 62]])
        trunks += [(trunk, 12.5, 0.8), (tail[:2], 10.5, 0.7), (tail[1:], 7.5, 0.5)]
    ends = roots[rng.integers(0, len(roots), 14)] + rng.normal(0, 1, (14, 2)) * [14, 24]
    lines.append((np.stack([ends, ends + 0.1], 1), 3.6, 0.75))  # vessels seen end on
    field = canvas.coarse
    roots_of_lung = field.blur(field.strokes(trunks), 2.6) * np.float32(2)
    for side in (0, 1):
        roots_of_lung += field.blob(hilum(anatomy, side), (9, 17)) * np.float32(1.1)
    tree = canvas.blur(canvas.strokes(reversed(lines), full=2.9), 0.45)
    return np.maximum(tree, canvas.enlarge(roots_of_lung), out=tree)
