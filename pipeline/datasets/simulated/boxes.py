"""Where the findings of a film are: boxes like those that NIH's radiologist drew, in pixels of the film.

A film is drawn small, with and without each finding, and the areas that differ get a box.
"""

from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datasets.simulated.anatomy import Anatomy, hilum
from pipeline.datasets.simulated.body import soft_tissue
from pipeline.datasets.simulated.canvas import Array, Canvas
from pipeline.datasets.simulated.film import (
    Acquisition,
    add_blood_and_heart,
    chest_of,
    film_curve,
    place,
    soft_thickness,
)
from pipeline.datasets.simulated.opacities import draw
from pipeline.datasets.simulated.scene import Scene, mediastinum, new_scene
from pipeline.datasets.simulated.signs import Sign

GRID: Final = 96
"""Pixels a side of the small drawing; 4.6 mm each, a fifth of the smallest nodule."""
VISIBLE: Final = 4.0
"""Gray levels of 255; a finding that changes the film less than this has no box."""
MOST: Final = 4
"""Boxes of one finding on one film."""

_EDGE = 0.35  # of the largest change: where an area ends
_SMALLEST = 0.2  # of the largest area: what is smaller has no box
_SMOOTH_MM = 4.4
_NEAR_MM = 16.0  # twice as wide a gap within one finding is closed
_ROUND = {"Mass", "Nodule"}  # each has a box of its own, however near the next
_DARK = {"Pneumothorax"}  # gas; the lung beside it is brighter and belongs to the other side of the pleural line
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
        Up to `MOST` for each finding, largest first; none where it changes the film by less than `VISIBLE`. All lie
        inside the film. They depend on nothing but the arguments.

    Notes
    -----
    Cardiomegaly has one box around the heart, as in NIH's `BBox_List_2017.csv`. For the others, vessels, bones, what
    lies on the patient and noise are left out, and so are displacements of diaphragm and mediastinum.
    """
    canvas = Canvas(min(size, GRID))
    chest = chest_of(anatomy, signs, acquisition)
    found: list[Box] = []
    areas = {sign.name: _heart(canvas, chest, acquisition) for sign in signs if sign.name == "Cardiomegaly"}
    rest = tuple(sign for sign in signs if sign.name not in areas)
    if rest:
        areas |= _changes(canvas, anatomy, signs, rest, acquisition)
    for name, area in areas.items():
        found += _boxes(name, area, size)
    return found


def _heart(canvas: Canvas, chest: Anatomy, acquisition: Acquisition) -> npt.NDArray[np.bool_]:
    """Return the heart from the pulmonary trunk to just below the right dome; heights of `mediastinal_border`."""
    rows = canvas.inside(canvas.y - (chest.heart_base - 104)) * canvas.inside(chest.heart_base + 12 - canvas.y)
    area: npt.NDArray[np.bool_] = place(mediastinum(canvas, chest) * rows, chest.tilt, acquisition) > 0.5
    return area


def _changes(
    canvas: Canvas, anatomy: Anatomy, signs: tuple[Sign, ...], chosen: tuple[Sign, ...], acquisition: Acquisition
) -> dict[str, npt.NDArray[np.bool_]]:
    """Return for each chosen finding the pixels at which the film would look otherwise without it.

    The chest keeps its outline: a raised diaphragm would else outweigh what is in the lung above it.
    """
    chest = chest_of(anatomy, signs, acquisition)
    body = soft_tissue(canvas, chest, 30)
    empty = new_scene(canvas, chest)
    traces = _traces(empty, signs)
    film = _develop(empty, traces, body, acquisition)
    areas = {}
    for sign in chosen:
        others = {other: trace for other, trace in traces.items() if other is not sign}
        less = chest_of(anatomy, tuple(others), acquisition).aeration / chest.aeration
        change = film - _develop(replace(empty, air=empty.air * np.float32(less)), others, body, acquisition)
        change = np.maximum(-change, 0) if sign.name in _DARK else np.abs(change)
        areas[sign.name] = _area(sign.name, canvas, place(canvas.blur(change, _SMOOTH_MM), chest.tilt, acquisition))
    return areas


def _copy(scene: Scene) -> Scene:
    return replace(scene, air=scene.air.copy(), added=scene.added.copy(), markings=scene.markings.copy())


def _traces(empty: Scene, signs: tuple[Sign, ...]) -> dict[Sign, Scene]:
    """Draw each finding alone; no drawing depends on what is there already."""
    traces = {sign: replace(_copy(empty), air=empty.canvas.empty()) for sign in signs}
    for sign, scene in traces.items():
        draw(scene, sign)
    return traces


def _develop(empty: Scene, traces: dict[Sign, Scene], body: Array, acquisition: Acquisition) -> Array:
    """Put findings drawn alone into one chest; return gray levels, in the place of the drawn field."""
    canvas, scene = empty.canvas, _copy(empty)
    for trace in traces.values():
        scene.fill(trace.water)
        scene.air += trace.air
        scene.added += trace.added
        scene.markings *= trace.markings
    blood = canvas.empty() + np.float32(_BLOOD_CM)
    for side in (0, 1):
        blood += canvas.blob(hilum(empty.anatomy, side), (10, 17)) * np.float32(1.6)
    add_blood_and_heart(scene, tuple(traces), blood)
    return film_curve(np.maximum(soft_thickness(scene, body), 0), acquisition)


def _area(name: str, canvas: Canvas, change: Array) -> npt.NDArray[np.bool_]:
    """Return where a change is seen: above `_EDGE` of its maximum, which for a nodule is that of this nodule."""
    side = 2 * round(_NEAR_MM / canvas.pitch) + 1
    square = np.ones((side, side), np.uint8)
    most = cv2.dilate(change, square) if name in _ROUND else np.full_like(change, change.max())
    seen = (change > _EDGE * most) & (most >= VISIBLE)
    if name in _ROUND:
        return seen
    return cv2.morphologyEx(seen.astype(np.uint8), cv2.MORPH_CLOSE, square) > 0


def _boxes(name: str, area: npt.NDArray[np.bool_], size: int) -> list[Box]:
    """Return the boxes of the largest connected areas (8 neighbours), brought to `size` pixels a side."""
    outlines, _ = cv2.findContours(area.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    parts = sorted((cv2.boundingRect(outline) for outline in outlines), key=lambda part: (-part[2] * part[3], part))
    parts = [part for part in parts if part[2] * part[3] >= _SMALLEST * parts[0][2] * parts[0][3]][:MOST]
    scale = size / len(area)
    return [
        Box(
            finding=name,
            x=(left := round(x * scale)),
            y=(top := round(y * scale)),
            width=round((x + width) * scale) - left,
            height=round((y + height) * scale) - top,
        )
        for x, y, width, height in parts
    ]
