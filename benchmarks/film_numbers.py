"""Films as numbers: gray levels, power spectra and small copies, after the project's own preprocessing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.images import Image, ImageError, prepare, read_image
from pipeline.parallel import run_all
from pipeline.params import PreprocessParams

SIZE = 256
FREQUENCIES = np.arange(1, SIZE // 2)
OCTAVES = [(2**k, 2 ** (k + 1)) for k in range(7)]
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)

Floats = NDArray[np.float64]
Looked = tuple[Image, Floats, Floats, Floats, Floats]


@dataclass(frozen=True)
class Films:
    """A set of films as numbers; `histogram` and `spectrum` have a second one after CLAHE.

    Attributes
    ----------
    patient : ndarray of shape (n,)
        Whose film it is.
    pixels : ndarray of shape (n, 256, 256), dtype=uint8
        The films without CLAHE.
    histogram, histogram_clahe : ndarray of shape (n, 256)
        Share of each gray level.
    spectrum, spectrum_clahe : ndarray of shape (n, 127)
        Decimal logarithm of the mean power at 1 to 127 cycles a side.
    """

    patient: NDArray[np.str_]
    pixels: NDArray[np.uint8]
    histogram: Floats
    spectrum: Floats
    histogram_clahe: Floats
    spectrum_clahe: Floats

    def __getitem__(self, rows: NDArray[Any]) -> "Films":
        """Return some of the films."""
        return Films(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def histogram(image: Image) -> Floats:
    """Return the share of each gray level."""
    counts = np.bincount(image.ravel(), minlength=256)
    return counts / image.size


def spectrum(image: Image) -> Floats:
    """Return the decimal logarithm of the radially averaged power, under a Hann window so that the edges do not count.

    Frequencies are 1 to 127 cycles a side: rings of one cycle's width.
    """
    window = np.outer(np.hanning(SIZE), np.hanning(SIZE))
    power = np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    axis = np.fft.fftfreq(SIZE, 1 / SIZE)
    ring = np.round(np.hypot(axis[:, None], axis[None, :])).astype(int).ravel()
    mean = np.bincount(ring, power.ravel()) / np.bincount(ring)
    return np.log10(mean[FREQUENCIES] + 1)


def look(path: Path) -> Looked | None:
    """Return the numbers of one film; None if it cannot be read."""
    try:
        image = read_image(path)
    except ImageError:
        return None
    plain, equalised = (prepare(image, PreprocessParams(size=SIZE, clahe=clahe)) for clahe in (False, True))
    return plain, histogram(plain), spectrum(plain), histogram(equalised), spectrum(equalised)


def read(folder: Path, most: int | None = None) -> Films:
    """Read the films below a folder in the order of their names, the first `most` of them.

    Raises
    ------
    UserError
        If none can be read.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")][:most]
    looked = dict(zip(paths, run_all(look, paths, "reading"), strict=True))
    seen = {path: numbers for path, numbers in looked.items() if numbers is not None}
    if not seen:
        raise UserError(f"{folder} holds no image that can be read; a folder of radiographs is needed")
    patients = np.array([path.stem.split("_")[0] for path in seen])
    return Films(patients, *(np.array(column) for column in zip(*seen.values(), strict=True)))


def percentiles(shares: Floats) -> Floats:
    """Return percentiles of gray of each film, shape (n, 7)."""
    below = shares.cumsum(axis=1)
    return np.array([[np.searchsorted(row, level / 100 - 1e-9) for level in PERCENTILES] for row in below], np.float64)


def octaves(powers: Floats) -> Floats:
    """Return the mean logarithm of power in each octave, shape (n, 7)."""
    bands = [(low <= FREQUENCIES) & (high > FREQUENCIES) for low, high in OCTAVES]
    return np.stack([powers[:, band].mean(axis=1) for band in bands], axis=1)


def thumbnails(films: Films) -> Floats:
    """Return an 8 x 8 copy of each film, shape (n, 64)."""
    side = SIZE // 8
    means: Floats = films.pixels.reshape(-1, 8, side, 8, side).mean(axis=(2, 4)).reshape(-1, 64)
    return means
