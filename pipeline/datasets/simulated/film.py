"""From a chest to the pixels of one film: the layers, and their place on the detector."""

from dataclasses import replace
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datasets.simulated.acquisition import Acquisition, draw_acquisition
from pipeline.datasets.simulated.anatomy import Anatomy
from pipeline.datasets.simulated.body import airways, aortic_calcium, bowel_gas, breasts, skin_folds, soft_tissue
from pipeline.datasets.simulated.canvas import FIELD_MM, Array, Canvas
from pipeline.datasets.simulated.development import ATTENUATION, develop, film_curve
from pipeline.datasets.simulated.devices import Device, draw_devices
from pipeline.datasets.simulated.opacities import draw, hernia
from pipeline.datasets.simulated.overlays import annotate, lead_letter
from pipeline.datasets.simulated.scene import Scene, heart_density, new_scene, vessels
from pipeline.datasets.simulated.signs import Sign, reshape
from pipeline.datasets.simulated.skeleton import skeleton

__all__ = [
    "ATTENUATION",
    "Acquisition",
    "add_blood_and_heart",
    "breathe",
    "chest_of",
    "draw_acquisition",
    "expose",
    "film_curve",
    "metered",
    "place",
    "soft_thickness",
]

_LIMIT: Final = 0.495  # cardiothoracic ratio without cardiomegaly, also where the view magnifies


def expose(
    size: int,
    anatomy: Anatomy,
    signs: tuple[Sign, ...],
    acquisition: Acquisition,
    tree: np.random.Generator,
    rng: np.random.Generator,
    devices: tuple[Device, ...] = (),
) -> npt.NDArray[np.uint8]:
    """Draw one radiograph.

    Parameters
    ----------
    size : int
        Pixels a side.
    anatomy : Anatomy
        The patient.
    signs : tuple of Sign
        What he has.
    acquisition : Acquisition
        How the film is taken.
    tree : numpy.random.Generator
        For the vessels: fresh from the same seed for every film of the patient.
    rng : numpy.random.Generator
        For everything that differs from film to film.
    devices : tuple of Device
        Lines, tubes and devices in or on the patient.

    Returns
    -------
    ndarray of uint8, shape (size, size)
        0 is black (air), 255 white (MONOCHROME2).

    Notes
    -----
    The layers add up to centimetres of water along each ray; transmitted exposure falls exponentially with them
    (Beer-Lambert), so the quantum noise of its logarithm grows as exp(mu t / 2). `develop` does the rest.
    """
    canvas = Canvas(size)
    scene = new_scene(canvas, chest_of(anatomy, signs, acquisition))
    for sign in signs:
        draw(scene, sign)
    moved = place(_layers(scene, signs, acquisition, tree, rng), anatomy.tilt, acquisition)
    added = place(draw_devices(canvas, scene.anatomy, devices), anatomy.tilt, acquisition) if devices else None
    if acquisition.marked:
        letter = lead_letter(size, rng)
        if added is not None:
            letter += added
        added = letter
    picture = develop(moved, added, metered(acquisition, scene.anatomy), rng)
    if acquisition.marked:
        annotate(picture, acquisition.view, rng)
    return picture


def metered(acquisition: Acquisition, anatomy: Anatomy) -> Acquisition:
    """Return the acquisition as this patient asks for it: exposure by his size (a phototimer's), a child's contrast."""
    exposure = acquisition.exposure + 0.8 * anatomy.habitus + 0.15 * anatomy.breast
    # A small body scatters little, and a lower tube voltage gives more contrast.
    return replace(
        acquisition,
        exposure=exposure + 1.5 * anatomy.youth,
        contrast=acquisition.contrast * (1 - 0.15 * anatomy.youth),
        detail=acquisition.detail * (1 + 0.2 * anatomy.youth),
    )


def chest_of(anatomy: Anatomy, signs: tuple[Sign, ...], acquisition: Acquisition) -> Anatomy:
    """Return the chest as one film shows it: at this inspiration, deformed by its findings."""
    chest = breathe(anatomy, acquisition)
    for sign in signs:
        chest = reshape(chest, sign)
    return chest


def breathe(anatomy: Anatomy, acquisition: Acquisition) -> Anatomy:
    """Return the chest at this film's inspiration; AP magnifies the heart, but not above the ratio's limit."""
    lower = acquisition.breath
    bedside = acquisition.view == "AP"
    magnified = min(_LIMIT, anatomy.cardiothoracic * (1.05 if bedside else 1.0))
    return replace(
        anatomy,
        domes=(anatomy.domes[0] + lower, anatomy.domes[1] + lower),
        heart_base=anatomy.heart_base + 0.7 * lower,
        cardiothoracic=magnified,
        turn=acquisition.turn,
        supine=bedside,
        shift=anatomy.shift + 40 * float(np.sin(np.deg2rad(acquisition.turn))),  # heart and vessels lie before the axis
    )


def add_blood_and_heart(scene: Scene, signs: tuple[Sign, ...], blood: Array) -> None:
    """Draw the vessels of the lungs (`blood`, centimetres of water), then the heart, then a hernia before it."""
    seen = scene.water * np.float32(-0.8)
    seen += 1
    for share in (blood, scene.markings, scene.both_lungs):
        seen *= share
    scene.added += seen
    heart = heart_density(scene.canvas, scene.anatomy)
    scene.fill(heart)
    scene.added *= 1 - np.float32(0.55) * heart
    for sign in signs:
        if sign.name == "Hernia":
            hernia(scene, sign)


def soft_thickness(scene: Scene, body: Array) -> Array:
    """Return the body, drawn on the whole field, less its air, and with what is added in the chest, in cm of water."""
    part = scene.canvas.part
    air = body[part] * np.float32(0.8)
    np.minimum(air, scene.air, out=air)
    air *= 1 - scene.water
    thickness = body.copy()
    thickness[part] -= air
    thickness[part] += scene.added
    return thickness


def _layers(
    scene: Scene, signs: tuple[Sign, ...], acquisition: Acquisition, tree: np.random.Generator, rng: np.random.Generator
) -> Array:
    canvas, chest = scene.canvas.whole, scene.anatomy
    field = canvas.coarse  # what is smooth is brought to the canvas's size at once
    blood = vessels(scene.canvas, chest, tree)
    blood *= np.float32(1 - 0.35 * chest.youth)  # seen less in small lungs
    blood += np.float32(0.25) * scene.canvas.texture(tree)
    add_blood_and_heart(scene, signs, blood)
    body = canvas.enlarge(soft_tissue(field, chest, float(rng.uniform(-25, 45))) + breasts(field, chest))
    thickness = soft_thickness(scene, body)
    thickness += skeleton(canvas, chest)
    smooth = -airways(field, chest)
    smooth -= bowel_gas(field, chest, rng)
    thickness += aortic_calcium(canvas, chest)
    mottle = np.minimum(body, 15)
    mottle *= canvas.texture(tree)
    mottle *= np.float32(0.019)
    thickness += mottle
    if acquisition.folds:
        smooth += skin_folds(field, chest, rng)
    thickness += canvas.enlarge(smooth)
    return np.maximum(thickness, 0, out=thickness)


def place(thickness: Array, tilt: float, acquisition: Acquisition) -> Array:
    """Bring the drawn field to the detector: the patient's tilt and offset, the detector's size; any shape (n, n)."""
    size = thickness.shape[0]
    scale = FIELD_MM / acquisition.field * acquisition.magnification
    middle = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), tilt, scale)
    matrix[:, 2] += np.array(acquisition.offset) * size / acquisition.field
    moved = cv2.warpAffine(thickness, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.float32)
