"""From centimetres of water to gray levels: attenuation, scatter, blur, quantum noise, film curve, processing."""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.datasets.simulated.acquisition import Acquisition
from pipeline.datasets.simulated.canvas import Array
from pipeline.datasets.simulated.overlays import collimate
from pipeline.datasets.simulated.scanners import SCANNERS, Scanner

ATTENUATION: Final = 0.2
"""Per centimetre of water, near 60 keV, the mean energy of a chest beam of 120 kV (NIST XCOM: 0.206)."""

_LUNG_CM, _HEART_CM = 9.0, 20.0  # what the film curve is fitted to, as automatic ranging does
_MIDDLE = 0.1  # of the film curve, from lung (0) to heart (1)
_SCATTERED_CM = 15.0
_VEIL = 0.055  # mean exposure that one unit of `Scanner.scatter` adds behind a chest
_BLACK = 1e-12  # of the whitest: no gray level is told from 0 there
_SMALL = 96  # pixels a side on which scatter and equalisation are computed


def primary(thickness: Array) -> Array:
    """Return the exposure that comes straight through, 1 without a patient (Beer-Lambert); thickness in cm of water."""
    passed: Array = np.asarray(cv2.exp(thickness * np.float32(-ATTENUATION)), np.float32)
    return passed


def scattered(thickness: Array, scanner: Scanner, field: float) -> Array:
    """Return the scattered exposure, of the shape of `thickness`.

    Parameters
    ----------
    thickness : ndarray of float32, shape (n, n)
        Centimetres of water.
    scanner : Scanner
        `scatter` is the weight, `scatter_width` the spread.
    field : float
        Side of the detector, millimetres.

    Returns
    -------
    ndarray of float32, shape (n, n)
        The product of thickness (over 15 cm) and primary exposure, as a single scattering in a slab would give it,
        spread by a Gaussian (a convolution of the primary as in Love & Kruger, Med Phys 1987;14:178-185).
    """
    size = len(thickness)
    slab = _shrunk(thickness, _SMALL)
    small = len(slab)
    source = slab * primary(slab) * np.float32(scanner.scatter / _SCATTERED_CM)
    spread = cv2.GaussianBlur(source, (0, 0), scanner.scatter_width * small / field, borderType=cv2.BORDER_REPLICATE)
    return _enlarged(np.asarray(spread, np.float32), size)


def exposure_noise(exposure: Array, acquisition: Acquisition, rng: np.random.Generator) -> Array:
    """Return exposure with quantum noise: its variance is proportional to the exposure (Poisson, as a Gaussian)."""
    pitch = acquisition.field / len(exposure)
    grain = acquisition.noise * 1.64 / pitch * np.exp(-ATTENUATION * 10 / 2)
    quanta = rng.standard_normal(exposure.shape, dtype=np.float32)
    cv2.multiply(quanta, cv2.sqrt(exposure), dst=quanta, scale=grain)
    quanta += exposure
    return quanta


def film_curve(thickness: Array, acquisition: Acquisition) -> Array:
    """Turn centimetres of water into gray levels under a uniform veil of scatter; not clipped.

    Parameters
    ----------
    thickness : ndarray of float32
        Centimetres of water.
    acquisition : Acquisition
        Exposure, contrast and scanner.

    Returns
    -------
    ndarray of float32
        The scanner's `toe` without any, near its `shoulder` behind the most. `develop` has the veil of each place, the
        edge enhancement and the noise instead.
    """
    veil = np.float32(_VEIL * SCANNERS[acquisition.scanner].scatter)
    return _curve(_depth(primary(thickness) + veil), acquisition)


def develop(
    thickness: Array, added: Array | None, acquisition: Acquisition, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Turn what the rays pass through into a picture.

    Parameters
    ----------
    thickness : ndarray of float32, shape (size, size)
        The patient, in centimetres of water on the detector.
    added : ndarray of float32 or None
        Small dense things, likewise; too small to scatter much, so that they change the film only where they lie.
    acquisition : Acquisition
        How the film is taken.
    rng : numpy.random.Generator
        For the quanta.

    Returns
    -------
    ndarray of uint8, shape (size, size)
        0 is black.
    """
    scanner = SCANNERS[acquisition.scanner]
    size = len(thickness)
    pitch, slab = acquisition.field / size, _shrunk(thickness, _SMALL)
    exposure = primary(thickness if added is None else thickness + added)
    exposure += _enlarged(scattered(slab, scanner, acquisition.field), size)
    if scanner.blur > 0.25 * pitch:
        exposure = np.asarray(cv2.GaussianBlur(exposure, (0, 0), scanner.blur / pitch), np.float32)
    if acquisition.noise > 0:
        exposure = exposure_noise(exposure, acquisition, rng)
    depth = _processed(_depth(exposure), slab, scanner, acquisition)
    levels = _curve(depth, acquisition)
    levels = collimate(levels, acquisition.collimation, acquisition.field, acquisition.lean, scanner.border)
    pixels: npt.NDArray[np.uint8] = np.clip(levels, 0, 255).astype(np.uint8)
    return pixels


def _shrunk(image: Array, size: int) -> Array:
    """Return an image at `size` pixels a side, or as it is if it has no more."""
    if len(image) <= size:
        return image
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.float32)


def _enlarged(image: Array, size: int) -> Array:
    if len(image) == size:
        return image
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


def _depth(exposure: Array) -> Array:
    """Return log exposure in centimetres of water without scatter."""
    depth = np.maximum(exposure, np.float32(1e-4))
    cv2.log(depth, dst=depth)
    depth *= np.float32(-1 / ATTENUATION)
    return depth


def _range(scanner: Scanner) -> tuple[float, float]:
    """Return log exposure behind a lung and behind the heart under the mean veil, in centimetres of water."""
    lung, heart = (
        -float(np.log(np.exp(-ATTENUATION * cm) + _VEIL * scanner.scatter)) / ATTENUATION
        for cm in (_LUNG_CM, _HEART_CM)
    )
    return lung, heart


def _processed(depth: Array, slab: Array, scanner: Scanner, acquisition: Acquisition) -> Array:
    """Enhance or soften edges and compress the range; `slab` is the patient, small, without noise and devices."""
    size, field = len(depth), acquisition.field
    factor = (1 + scanner.edge) * acquisition.detail
    if factor != 1:
        smooth = _shrunk(depth, 2 * _SMALL)
        sigma = max(0.3, scanner.edge_width * len(smooth) / field)
        smooth = np.asarray(cv2.GaussianBlur(smooth, (0, 0), sigma), np.float32)
        depth = np.asarray(cv2.addWeighted(depth, factor, _enlarged(smooth, size), 1 - factor, 0), np.float32)
    if scanner.equalisation > 0:
        lung, heart = _range(scanner)
        slow = _depth(primary(slab) + _VEIL * scanner.scatter)
        slow = np.asarray(cv2.GaussianBlur(slow, (0, 0), 25 * len(slab) / field), np.float32)
        slow = np.float32(scanner.equalisation) * (slow - np.float32((lung + heart) / 2))
        depth = depth - _enlarged(slow, size)
    return depth


def _curve(depth: Array, acquisition: Acquisition) -> Array:
    """Apply the sigmoid of Hurter and Driffield's characteristic curve to log exposure."""
    scanner = SCANNERS[acquisition.scanner]
    lung, heart = _range(scanner)
    scale = (heart - lung) / (_HEART_CM - _LUNG_CM)
    middle = np.float32(lung + _MIDDLE * (heart - lung) + scale * acquisition.exposure)
    width = np.float32(scale * acquisition.contrast)
    curve: Array = (middle - depth) / width
    cv2.exp(curve, dst=curve)
    curve += 1
    floor = float(1 / (1 + np.exp(middle / width)))
    np.divide(np.float32(1 / (1 - floor)), curve, out=curve)
    curve -= np.float32(floor / (1 - floor))
    if acquisition.gamma != 1:
        np.maximum(curve, np.float32(_BLACK), out=curve)
        cv2.log(curve, dst=curve)  # OpenCV's logarithm and exponential take a third of the time of its power
        curve *= np.float32(acquisition.gamma)
        cv2.exp(curve, dst=curve)
    curve *= np.float32(scanner.shoulder * acquisition.white - scanner.toe)
    curve += np.float32(scanner.toe)
    return curve
