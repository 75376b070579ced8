"""From a chest to the pixels of one film: acquisition, attenuation, noise, film curve."""

from dataclasses import dataclass, replace
from typing import Final, Literal

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datasets.simulated.anatomy import Anatomy, hilum
from pipeline.datasets.simulated.body import airways, bowel_gas, breasts, leads, marker, skeleton, soft_tissue
from pipeline.datasets.simulated.canvas import FIELD_MM, Array, Canvas
from pipeline.datasets.simulated.opacities import draw, hernia
from pipeline.datasets.simulated.scene import Scene, mediastinum, new_scene, vessels
from pipeline.datasets.simulated.signs import Sign, reshape

ATTENUATION: Final = 0.2
"""Per centimetre of water, near 60 keV, the mean energy of a chest beam of 120 kV (NIST XCOM: 0.206)."""


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """How one film was taken.

    Attributes
    ----------
    view : {"PA", "AP"}
        AP films are taken at the bedside: larger heart, higher diaphragm, less contrast, more noise.
    field : float
        Side of the detector, millimetres.
    exposure : float
        Shift of the film curve, in centimetres of water; positive is darker.
    contrast : float
        Width of the film curve, in centimetres of water.
    noise : float
        Standard deviation of log exposure behind 10 cm of water, for a pixel of 1.64 mm.
    offset : tuple of float
        Displacement of the patient, millimetres.
    breath : float
        How much lower the diaphragm stands than in the patient's anatomy, millimetres.
    """

    view: Literal["PA", "AP"]
    field: float
    exposure: float
    contrast: float
    noise: float
    offset: tuple[float, float]
    breath: float


def draw_acquisition(view: Literal["PA", "AP"], field: float, rng: np.random.Generator) -> Acquisition:
    """Draw the conditions of one film of the given view on a detector of `field` millimetres."""
    bedside = view == "AP"
    return Acquisition(
        view=view,
        field=field,
        exposure=float(rng.normal(0, 0.9)),
        contrast=float(rng.normal(4.5 if bedside else 4.1, 0.25)),
        noise=float(rng.uniform(0.02, 0.04) if bedside else rng.uniform(0.012, 0.028)),
        offset=(float(rng.normal(0, 5)), float(rng.normal(2, 5))),
        breath=float(rng.normal(-7 if bedside else 0, 6)),
    )


def expose(
    size: int,
    anatomy: Anatomy,
    signs: tuple[Sign, ...],
    acquisition: Acquisition,
    tree: np.random.Generator,
    rng: np.random.Generator,
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

    Returns
    -------
    ndarray of uint8, shape (size, size)
        0 is black (air), 255 white (MONOCHROME2).

    Notes
    -----
    The layers add up to centimetres of water along each ray; transmitted exposure falls exponentially with them
    (Beer-Lambert), so the quantum noise of its logarithm grows as exp(mu t / 2). The film curve is the sigmoid of
    Hurter and Driffield's characteristic curve.
    """
    canvas = Canvas(size)
    scene = new_scene(canvas, chest_of(anatomy, signs, acquisition))
    for sign in signs:
        draw(scene, sign)
    thickness = _layers(scene, signs, tree, rng)
    moved = place(thickness, anatomy.tilt, acquisition)
    return _develop(moved, acquisition, rng)


def chest_of(anatomy: Anatomy, signs: tuple[Sign, ...], acquisition: Acquisition) -> Anatomy:
    """Return the chest as one film shows it: at this inspiration, deformed by its findings."""
    chest = breathe(anatomy, acquisition)
    for sign in signs:
        chest = reshape(chest, sign)
    return chest


def breathe(anatomy: Anatomy, acquisition: Acquisition) -> Anatomy:
    """Return the chest at this film's inspiration; AP magnifies the heart, but not above the ratio's limit."""
    lower = acquisition.breath
    magnified = min(0.475, anatomy.cardiothoracic * (1.05 if acquisition.view == "AP" else 1.0))
    return replace(
        anatomy,
        domes=(anatomy.domes[0] + lower, anatomy.domes[1] + lower),
        heart_base=anatomy.heart_base + 0.7 * lower,
        cardiothoracic=magnified,
    )


def add_blood_and_heart(scene: Scene, signs: tuple[Sign, ...], blood: Array) -> None:
    """Draw the vessels of the lungs (`blood`, centimetres of water), then the heart, then a hernia before it."""
    scene.added += blood * scene.markings * (scene.lungs[0] + scene.lungs[1]) * (1 - 0.8 * scene.water)
    heart = mediastinum(scene.canvas, scene.anatomy)
    scene.fill(heart * np.float32(0.93))
    scene.added *= 1 - 0.55 * heart
    for sign in signs:
        if sign.name == "Hernia":
            hernia(scene, sign)


def soft_thickness(scene: Scene, body: Array) -> Array:
    """Return the body less its air, and what is added in the chest, in centimetres of water."""
    air = np.minimum(scene.air, 0.8 * body) * (1 - scene.water)
    thickness: Array = body - air + scene.added
    return thickness


def _layers(scene: Scene, signs: tuple[Sign, ...], tree: np.random.Generator, rng: np.random.Generator) -> Array:
    canvas, chest = scene.canvas, scene.anatomy
    texture = 0.25 * canvas.noise(tree, 9) + 0.25 * canvas.noise(tree, 24)
    blood = vessels(canvas, chest, tree) * 1.6 + texture
    for side in (0, 1):
        blood = blood + canvas.blob(hilum(chest, side), (10, 17)) * np.float32(1.6)
    add_blood_and_heart(scene, signs, blood)
    body = soft_tissue(canvas, chest, float(rng.uniform(0, 60))) + breasts(canvas, chest)
    thickness = soft_thickness(scene, body) + skeleton(canvas, chest)
    thickness = thickness - airways(canvas, chest) - bowel_gas(canvas, chest, rng)
    thickness = thickness + 12 * marker(canvas, rng)
    if rng.random() < 0.12:
        thickness = thickness + 1.8 * leads(canvas, rng)
    result: Array = np.maximum(thickness, 0).astype(np.float32)
    return result


def place(thickness: Array, tilt: float, acquisition: Acquisition) -> Array:
    """Bring the drawn field to the detector: the patient's tilt and offset, the detector's size; any shape (n, n)."""
    size = thickness.shape[0]
    scale = FIELD_MM / acquisition.field
    middle = (size - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), tilt, scale)
    matrix[:, 2] += np.array(acquisition.offset) * size / acquisition.field
    moved = cv2.warpAffine(thickness, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.float32)


def _develop(thickness: Array, acquisition: Acquisition, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    size = thickness.shape[0]
    pitch = acquisition.field / size
    blurred = cv2.GaussianBlur(thickness, (0, 0), max(0.3, 0.7 / pitch))  # focal spot and scintillator, 0.7 mm
    grain = acquisition.noise * np.float32(1.64 / pitch) / ATTENUATION
    quanta = rng.standard_normal(thickness.shape, dtype=np.float32) * np.float32(grain)
    noisy = blurred + quanta * np.exp(np.float32(ATTENUATION / 2) * (np.minimum(blurred, 26) - 10))
    pixels: npt.NDArray[np.uint8] = np.clip(film_curve(noisy, acquisition), 0, 255).astype(np.uint8)
    return pixels


def film_curve(thickness: Array, acquisition: Acquisition) -> Array:
    """Turn centimetres of water into gray levels: 0 without any, near 255 behind the most; not clipped."""
    curve = 1 / (1 + np.exp((10.5 + acquisition.exposure - thickness) / np.float32(acquisition.contrast)))
    floor = 1 / (1 + np.exp((10.5 + acquisition.exposure) / np.float32(acquisition.contrast)))
    levels: Array = 255 * (curve - floor) / (1 - floor)
    return levels
