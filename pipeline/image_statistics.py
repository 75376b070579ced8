"""Numbers that say what an image looks like, whatever is on it: for the input gate, the monitor and the prediction log.

Pure NumPy and OpenCV, the same value from any thread; of an image of 96 pixels a side in some tenths of a millisecond.
"""

from collections.abc import Mapping
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.images import Image

STATISTICS = ("mean", "deviation", "p01", "p50", "p99", "entropy", "sharpness", "symmetry", "border", "slope")
"""Names of what `statistics_of` returns, in its order."""
FILM_STATISTICS = ("film_width", "film_height", "film_mean", "film_deviation", "film_p01", "film_p50", "film_p99")
"""Names of what `film_statistics` returns, in its order."""

_SIDE = 64  # pixels a side of the copy whose spectrum is taken
_SAMPLES = 1 << 16  # of a film's pixels, enough for percentiles to a gray value


def statistics_of(image: Image) -> dict[str, float]:
    """Describe an image, as a rule the prepared one.

    Parameters
    ----------
    image : ndarray of shape (height, width), dtype=uint8
        At least 2 pixels a side.

    Returns
    -------
    dict
        Of `STATISTICS`: mean, standard deviation and percentiles 1, 50 and 99 of the gray values (0 to 255); entropy
        of their histogram in bits (Shannon 1948; 0 to 8); sharpness, log10 of 1 + the variance of the Laplacian (Pech-
        Pacheco et al., ICPR 2000); symmetry, Pearson's r of the image and its mirror image (-1 to 1); border, mean of
        the outermost twentieth less the mean; slope, of log10 power on log10 spatial frequency (about -2 to -4 for
        natural images: Field, J Opt Soc Am A 1987). Undefined (no contrast): symmetry and slope are 0.
    """
    counts = _histogram(image)
    mean, deviation, low, middle, high = _gray(counts)
    share = counts[counts > 0] / image.size
    edges = cv2.meanStdDev(cv2.Laplacian(image, cv2.CV_32F))[1]
    values = (
        *(mean, deviation, low, middle, high, float(-(share * np.log2(share)).sum()) + 0.0),
        *(float(np.log10(1 + edges[0, 0] ** 2)), _symmetry(image), _border(image) - mean, _slope(image)),
    )
    return dict(zip(STATISTICS, values, strict=True))


def film_statistics(film: Image) -> dict[str, float]:
    """Describe a film as decoded, before it was resized and equalised.

    Parameters
    ----------
    film : ndarray of shape (height, width), dtype=uint8
        The decoded film.

    Returns
    -------
    dict
        Of `FILM_STATISTICS`: width and height in pixels; mean, standard deviation and percentiles of the gray values,
        of a film of many pixels from rows at equal distances, some 65,000 pixels.
    """
    height, width = film.shape
    counts = _histogram(film[:: max(1, film.size // _SAMPLES)])
    return dict(zip(FILM_STATISTICS, (float(width), float(height), *_gray(counts)), strict=True))


def as_vector(statistics: Mapping[str, float]) -> NDArray[np.float64]:
    """Return the values of `STATISTICS` in their order; what else the mapping holds is left out."""
    return np.array([statistics[name] for name in STATISTICS])


def _histogram(image: Image) -> NDArray[np.float64]:
    """Count the 256 gray values; OpenCV is ten times as fast as bincount, and exact up to 2^24 pixels of a value."""
    counts = cv2.calcHist([np.ascontiguousarray(image)], [0], None, [256], [0, 256])
    return np.asarray(counts, np.float64).ravel()


def _gray(counts: NDArray[np.float64]) -> tuple[float, float, float, float, float]:
    """Return mean, standard deviation and the percentiles 1, 50 and 99 of a histogram of 256 gray values."""
    levels, total = np.arange(256.0), float(counts.sum())
    mean = float(counts @ levels) / total
    deviation = float(np.sqrt(counts @ (levels - mean) ** 2 / total))
    low, middle, high = np.searchsorted(np.cumsum(counts), np.array([0.01, 0.5, 0.99]) * total)
    return mean, deviation, float(low), float(middle), float(high)


def _symmetry(image: Image) -> float:
    values = image - np.float32(cv2.mean(image)[0])
    power = float(np.vdot(values, values))
    return float(np.vdot(values, cv2.flip(values, 1))) / power if power > 0 else 0.0


def _border(image: Image) -> float:
    edge = max(1, min(image.shape) // 20)
    inner = image[edge:-edge, edge:-edge]
    return (cv2.sumElems(image)[0] - cv2.sumElems(inner)[0]) / (image.size - inner.size)


def _slope(image: Image) -> float:
    """Fit the logarithm of the radial power spectrum with a line, from 2 to 24 cycles a side."""
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    window, ring, size, cycles = _rings()
    parts = cv2.dft((small - small.mean()) * window, flags=cv2.DFT_COMPLEX_OUTPUT)[:, : _SIDE // 2 + 1]
    power = cv2.magnitude(parts[..., 0], parts[..., 1]) ** 2
    radial = np.bincount(ring, power.ravel())[2:25] / size
    if radial.min() <= 0:
        return 0.0
    logs = np.log10(radial)
    return float(cycles @ (logs - logs.mean()) / (cycles @ cycles))


@cache
def _rings() -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return a Hann window, each frequency's ring in cycles a side, and of rings 2 to 24 the size and centred log10."""
    hann = np.hanning(_SIDE).astype(np.float32)
    down, across = np.fft.fftfreq(_SIDE, 1 / _SIDE), np.fft.rfftfreq(_SIDE, 1 / _SIDE)
    ring = np.rint(np.hypot(down[:, None], across[None, :])).astype(np.intp).ravel()
    logs = np.log10(np.arange(2, 25))
    return np.outer(hann, hann), ring, np.bincount(ring)[2:25], logs - logs.mean()
