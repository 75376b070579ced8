"""Where the findings of a film are: boxes like those that NIH's radiologist drew, in pixels of the film.

A film is drawn small, with and without each finding, and the areas that differ get a box.
"""

from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datasets.simulated.anatomy import DIRECTION, Anatomy, hilum, lateral_wall
from pipeline.datasets.simulated.body import soft_tissue
from pipeline.datasets.simulated.canvas import Array, Canvas
from pipeline.datasets.simulated.film import (
    Acquisition,
    add_blood_and_heart,
    chest_of,
    film_curve,
    metered,
    place,
    soft_thickness,
)
from pipeline.datasets.simulated.opacities import draw
from pipeline.datasets.simulated.scene import Scene, lung_mask, mediastinum, new_scene
from pipeline.datasets.simulated.signs import Sign
from pipeline.findings import NIH14

Mask = npt.NDArray[np.bool_]

GRID: Final = 96
"""Pixels a side of the small drawing; 4.6 mm each, half of the smallest nodule."""
VISIBLE: Final = 3.0
"""Gray levels of 255; a finding that changes the film less than this has no box."""
MOST: Final = 4
"""Boxes of one finding on one film."""
SHARE: Final = 0.9
"""Of the energy of a change (the sum of its squares): the least area that holds so much is what gets boxes."""

_EDGE = 0.35  # of the largest change of a nodule or mass: where it ends
_FAINTEST = 0.05  # of the energy of the area that holds most: what holds less has no box
_SMOOTH_MM = 3.0
_NEAR_MM = 16.0  # twice as wide a gap within one finding is closed
_ROUND = {"Mass", "Nodule"}  # each has a box of its own, however near the next
_DARK = {"Pneumothorax"}  # gas; the lung beside it is brighter and belongs to the other side of the pleural line
_UNDIVIDED = {"Atelectasis", "Pneumothorax"}  # one lobe, one space: one box
_SIDED = set(NIH14) - {"Cardiomegaly", "Edema", "Emphysema", "Fibrosis", "Hernia"}
_ORGANS = {"Cardiomegaly", "Emphysema"}  # a reader marks the heart, or both lungs, and not what is new of them
_BLOOD_CM = 0.4  # mean of the vessels, which are not drawn one by one here


@dataclass(frozen=True, kw_only=True)
class Box:
    """An area of a film that shows one finding: its upper left corner and its sides in pixels."""

    finding: str
    x: int
    y: int
    width: int
    height: int


def find_boxes(size: int, anatomy: Anatomy, signs: tuple[Sign, ...], acquisition: Acquisition) -> list[Box]:
    """Find the areas that show the findings of one film.

    Parameters
    ----------
    size : int
        Pixels a side of the film.
    anatomy : Anatomy
        The patient.
    signs : tuple of Sign
        What he has.
    acquisition : Acquisition
        How the film is taken.

    Returns
    -------
    list of Box
        Up to `MOST` for each finding, that with most of the change first; none where the finding changes the film by
        less than `VISIBLE`. All lie inside the film. They depend on nothing but the arguments.

    Notes
    -----
    Cardiomegaly has one box around the heart, as in NIH's `BBox_List_2017.csv`, and emphysema one around each lung.
    For the others, vessels, bones, what lies on the patient and noise are left out, and so are displacements of the
    mediastinum, a sign that lies elsewhere than the finding. A raised diaphragm counts beside the opacity over it.
    """
    if not signs:
        return []
    canvas = Canvas(min(size, GRID))
    chest = chest_of(anatomy, signs, acquisition)
    drawings = _Drawings(canvas, acquisition, soft_tissue(canvas, chest, 30))
    film = drawings.film(chest, signs)
    found: list[Box] = []
    for sign in signs:
        others = tuple(other for other in signs if other is not sign)
        healthy = replace(chest_of(anatomy, others, acquisition), shift=chest.shift)
        changes = []
        for without in (healthy,) if healthy == chest else (healthy, chest):
            change = film - drawings.film(without, others)
            change = np.maximum(-change, 0) if sign.name in _DARK else np.abs(change)
            change *= _reach(canvas, sign, without, chest)
            changes.append(place(canvas.blur(change, _SMOOTH_MM), chest.tilt, acquisition))
        if changes[0].max() < VISIBLE:
            continue
        seen = [one for one in changes if one.max() >= VISIBLE]
        if sign.name in _ORGANS:
            area = _organs(sign.name, canvas, chest, acquisition)
        else:
            area = _close(sign.name, canvas, np.logical_or.reduce([_area(sign.name, canvas, one) for one in seen]))
        found += _boxes(sign.name, area, changes[0], size)
    return found


class _Drawings:
    """Films without bones, vessels and noise; each finding is drawn once for each chest.

    No drawing depends on what is there already, so that findings drawn alone add up to any company of them.
    """

    def __init__(self, canvas: Canvas, acquisition: Acquisition, body: Array) -> None:
        self.canvas, self.acquisition, self.body = canvas, acquisition, body
        self.empty: dict[Anatomy, tuple[Scene, Array]] = {}
        self.alone: dict[tuple[Anatomy, Sign], Scene] = {}

    def film(self, chest: Anatomy, signs: tuple[Sign, ...]) -> Array:
        """Return the gray levels of a chest with some findings, in the place of the drawn field."""
        if chest not in self.empty:
            scene = new_scene(self.canvas, chest)
            blood = scene.canvas.empty() + np.float32(_BLOOD_CM)
            for side in (0, 1):
                blood += scene.canvas.blob(hilum(chest, side), (10, 17)) * np.float32(1.2)
            self.empty[chest] = scene, blood
        empty, blood = self.empty[chest]
        scene = replace(empty, air=empty.air.copy(), added=empty.added.copy(), markings=empty.markings.copy())
        for sign in signs:
            drawn = self._drawn(chest, sign)
            scene.fill(drawn.water)
            scene.air += drawn.air
            scene.added += drawn.added
            scene.markings *= drawn.markings
        add_blood_and_heart(scene, signs, blood)
        thickness = np.maximum(soft_thickness(scene, self.body), 0)
        return film_curve(thickness, metered(self.acquisition, chest))

    def _drawn(self, chest: Anatomy, sign: Sign) -> Scene:
        if (chest, sign) not in self.alone:
            empty = self.empty[chest][0]
            nothing = empty.canvas.empty
            scene = replace(empty, air=nothing(), added=nothing(), markings=empty.markings.copy())
            draw(scene, sign)
            self.alone[chest, sign] = scene
        return self.alone[chest, sign]


def _reach(canvas: Canvas, sign: Sign, without: Anatomy, chest: Anatomy) -> Array:
    """Return where a finding can be, 0 to 1: on its side; atelectasis within the wall, which follows the diaphragm."""
    reach = np.ones((1, canvas.size), np.float32)
    if sign.name in _SIDED and not sign.both:
        reach = canvas.inside(canvas.x * np.float32(DIRECTION[sign.side]) + 30, 8)
    if sign.name == "Atelectasis":
        wall = np.minimum(lateral_wall(without, canvas.y), lateral_wall(chest, canvas.y))
        reach = reach * canvas.inside(wall - 5 - np.abs(canvas.x), 4)
    return reach


def _organs(name: str, canvas: Canvas, chest: Anatomy, acquisition: Acquisition) -> Mask:
    """Return the heart, from the pulmonary trunk to just below the right dome, or what shows of both lungs."""
    middle = mediastinum(canvas, chest)
    if name == "Cardiomegaly":  # heights of `mediastinal_border`
        rows = canvas.inside(canvas.y - (chest.heart_base - 104)) * canvas.inside(chest.heart_base + 12 - canvas.y)
        shape = middle * rows
    else:
        shape = (lung_mask(canvas, chest, 0) + lung_mask(canvas, chest, 1)) * (1 - middle)
    area: Mask = place(shape, chest.tilt, acquisition) > 0.5
    return area


def _square(canvas: Canvas) -> npt.NDArray[np.uint8]:
    side = 2 * round(_NEAR_MM / canvas.pitch) + 1
    return np.ones((side, side), np.uint8)


def _area(name: str, canvas: Canvas, change: Array) -> Mask:
    """Return where a change is seen: the least area with `SHARE` of its energy; each nodule to its own edge."""
    if name in _ROUND:
        most = cv2.dilate(change, _square(canvas))
        return np.asarray((change > _EDGE * most) & (most >= VISIBLE))
    ordered = np.sort(change, axis=None)[::-1].astype(np.float64) ** 2
    last = int(np.searchsorted(np.cumsum(ordered), SHARE * ordered.sum()))
    return np.asarray(change >= max(np.sqrt(ordered[last]), VISIBLE / 3))


def _close(name: str, canvas: Canvas, area: Mask) -> Mask:
    """Close the gaps within an area, so that it gets few boxes."""
    if name in _ROUND:
        return area
    return cv2.morphologyEx(area.astype(np.uint8), cv2.MORPH_CLOSE, _square(canvas)) > 0


def _boxes(name: str, area: Mask, change: Array, size: int) -> list[Box]:
    """Return the boxes of the connected areas (8 neighbours) that hold most of the change, at `size` pixels a side."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(area.astype(np.uint8), connectivity=8)
    energy = np.bincount(labels.ravel(), change.ravel().astype(np.float64) ** 2, count)[1:]
    order = [part for part in np.argsort(-energy, kind="stable") if energy[part] >= _FAINTEST * energy.max()]
    edges = np.asarray(stats[1:][order[:MOST], :4], np.float64)
    edges[:, 2:] += edges[:, :2]  # from width and height to right and lower edge
    if name in _UNDIVIDED:
        edges = np.concatenate([edges[:, :2].min(0), edges[:, 2:].max(0)])[None]
    found = []
    for left, top, right, bottom in np.round(edges * (size / len(area))).astype(int).tolist():
        found.append(Box(finding=name, x=left, y=top, width=right - left, height=bottom - top))
    return found
