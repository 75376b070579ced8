"""Does a picture look like an upright frontal chest film? Suspicions from simple statistics.

docs/audit.md measures them. What is flagged stays in the set, unless the parameter `ingest.refuse` says otherwise.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from pipeline.quarantine import Reason
from pipeline.thumbnails import SIDE, Pictures, thumbnail

DARK = 50.0
"""Mean gray below which a film is dark all over; the darkest of 6,102 real films has 59 (docs/audit.md)."""
BRIGHT = 205.0
"""Mean gray above which it is bright all over; one of 6,102 real films is."""
CONTRAST = 96
"""Least distance of the 1st and 99th percentile of gray; one of 6,102 real films has less."""
MARGIN = 0.1
"""By how much another position must fit the pattern better than the upright one."""
LEAST_FIT = 0.3
"""Correlation with the pattern from which on another position is believed; what fits nothing is no turned film."""

_PART = 1 << 20  # pixels counted at a time: bincount makes eight bytes of each

Notes = tuple[tuple[Reason, str], ...]


def suspicions(image: Pictures) -> Notes:
    """Look for a film that is too dark, too bright, flat, turned or inverted.

    Parameters
    ----------
    image : ndarray of shape (height, width), dtype=uint8
        0 = black = air.

    Returns
    -------
    tuple of (Reason, str)
        With a sentence each; empty for nearly every real frontal film.
    """
    return (*_exposure(image), *_position(thumbnail(image)))


def _exposure(image: Pictures) -> Notes:
    flat = image.ravel()
    parts = [np.bincount(flat[start : start + _PART], minlength=256) for start in range(0, flat.size, _PART)]
    counts = np.sum(parts, axis=0)
    share = np.cumsum(counts) / image.size
    mean = float(counts @ np.arange(256)) / image.size
    low, high = int(np.searchsorted(share, 0.01)), int(np.searchsorted(share, 0.99))
    notes: list[tuple[Reason, str]] = []
    if mean < DARK:
        notes.append((Reason.TOO_DARK, f"its mean gray is {mean:.0f} of 255; real films have {DARK:.0f} or more"))
    if mean > BRIGHT:
        notes.append((Reason.TOO_BRIGHT, f"its mean gray is {mean:.0f} of 255; real films have {BRIGHT:.0f} or less"))
    if high - low < CONTRAST:
        text = f"98% of its pixels are within {high - low} gray values; real films need {CONTRAST} or more"
        notes.append((Reason.LOW_CONTRAST, text))
    return tuple(notes)


def _position(small: Pictures) -> Notes:
    """Compare the film with the pattern in four positions, each also inverted; the best fit decides."""
    fits = position_fits(small)
    turned, inverted = fits[1:].max(), -fits[0]
    if inverted >= max(LEAST_FIT, turned) and inverted - fits[0] > MARGIN:
        return ((Reason.INVERTED, f"its negative fits the pattern of a chest film better (r = {inverted:.2f})"),)
    if turned >= LEAST_FIT and turned - fits[0] > MARGIN:
        angle = 90 * (1 + int(fits[1:].argmax()))
        text = f"it fits the pattern of a chest film better when turned clockwise by {angle} degrees (r = {turned:.2f})"
        return ((Reason.ROTATED, text),)
    return ()


def position_fits(small: Pictures) -> NDArray[np.float64]:
    """Correlate a thumbnail with the pattern of an upright film.

    Parameters
    ----------
    small : ndarray of shape (16, 16), dtype=uint8
        See `pipeline.thumbnails.thumbnail`.

    Returns
    -------
    ndarray of shape (4,)
        Pearson's r of the thumbnail turned clockwise by 0, 90, 180 and 270 degrees; 0 for a thumbnail without
        contrast.
    """
    values = small - small.mean(dtype=float)
    norm = float(np.linalg.norm(values))
    if norm == 0:
        return np.zeros(4)
    return np.asarray(_patterns() @ values.ravel() / norm)


@cache
def _patterns() -> NDArray[np.float64]:
    """Return the pattern turned back by 0, 90, 180 and 270 degrees, which stands for a film turned on; (4, 256)."""
    return np.stack([np.rot90(_pattern(), k).ravel() for k in range(4)])


def _pattern() -> NDArray[np.float64]:
    """Draw the coarse anatomy of an upright frontal film, centred, of norm 1; shape (16, 16).

    A bright midline (spine, mediastinum), two dark lungs above the middle, a bright abdomen below, dark air beside the
    body and beside the neck. Drawn by hand, not fitted to any data set.
    """
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    x, y = (columns + 0.5) / SIDE * 2 - 1, (rows + 0.5) / SIDE * 2 - 1  # -1 to 1, y downwards

    def spot(x0: float, y0: float, width: float, height: float) -> NDArray[np.float64]:
        return np.asarray(np.exp(-(((x - x0) / width) ** 2 + ((y - y0) / height) ** 2) / 2))

    midline = np.exp(-((x / 0.18) ** 2) / 2)
    lungs = spot(-0.4, -0.15, 0.2, 0.4) + spot(0.4, -0.15, 0.2, 0.4)
    air = 1.2 * np.abs(x) ** 4 + 0.5 * np.exp(-(((y + 1) / 0.2) ** 2) / 2) * np.abs(x)
    drawn = midline - lungs + 1.6 * spot(0, 1.1, 0.55, 0.45) - air
    drawn = drawn - drawn.mean()
    return np.asarray(drawn / np.linalg.norm(drawn))
