"""What every decoder gives back, and the few things that they share: sizes, gray values, silence.

A film is uint8, grayscale, shape (height, width), 0 = black = air (MONOCHROME2).
"""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.quarantine import Reason

Image = NDArray[np.uint8]
MAX_PIXELS = 100_000_000
MAX_BYTES = 1 << 30
"""No file of more bytes is read: one film of 100 million pixels, 16 bits and three channels has 600 million."""

_LOGGERS = ("PIL", "pydicom", "pylibjpeg", "openjpeg")


class ImageError(UserError):
    """An image file that cannot be used; the message is the reason, without the path.

    Attributes
    ----------
    code : Reason
        The kind of fault.
    """

    def __init__(self, code: Reason, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type["ImageError"], tuple[Reason, str]]:  # it crosses processes
        return type(self), (self.code, str(self))


@dataclass(frozen=True)
class Film:
    """A decoded film.

    Attributes
    ----------
    pixels : ndarray of shape (height, width), dtype=uint8
        0 is black.
    notes : tuple of (Reason, str)
        What is suspicious though usable, with one sentence each.
    """

    pixels: Image
    notes: tuple[tuple[Reason, str], ...] = ()


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture whose header announces no pixel or too many; call it before anything is decoded."""
    if width < 1 or height < 1:
        raise ImageError(Reason.EMPTY, f"the header announces {width}x{height} pixels; at least 1x1 is needed")
    if width * height > max_pixels:
        raise ImageError(Reason.TOO_LARGE, f"{width}x{height} is more than the allowed {max_pixels} pixels")


def to_8_bits(values: NDArray[Any], full: int) -> Image:
    """Scale integers from 0..`full` to 0..255 and round; `full` is at most 65535, larger values become 255."""
    if full == 255 and values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    table = np.full(65536, 255, np.uint8)
    table[: full + 1] = np.round(np.arange(full + 1) * (255 / full))
    return np.asarray(table[values], np.uint8)


def gray_film(pixels: NDArray[Any], full: int = 255, *, alpha: bool = False) -> Film:
    """Turn gray or colour samples into a film.

    Parameters
    ----------
    pixels : ndarray of shape (height, width) or (height, width, channels), unsigned integers from 0 to `full`
        Gray, or one or three colour channels and then, if `alpha`, the opacity.
    full : int
        The value of white, and of an opaque pixel.
    alpha : bool
        Whether the last channel is opacity. Transparent pixels are laid over black.

    Returns
    -------
    Film
        Channels that are equal give that channel; others give luma (ITU-R BT.601-7, section 2.5.1) and a note.
    """
    if pixels.ndim == 2:
        return Film(to_8_bits(pixels, full))
    opacity = pixels[..., -1] if alpha else None
    colour = pixels[..., : pixels.shape[2] - alpha]
    notes: tuple[tuple[Reason, str], ...] = ()
    if (colour == colour[..., :1]).all():
        gray = to_8_bits(colour[..., 0], full)
    else:
        gray = np.asarray(cv2.cvtColor(to_8_bits(colour, full), cv2.COLOR_RGB2GRAY), np.uint8)
        notes = ((Reason.COLOUR, "the channels differ: a colour picture, read as its luma"),)
    if opacity is not None and opacity.min() < full:
        gray = np.round(gray * (opacity.astype(np.float32) / np.float32(full))).astype(np.uint8)
    return Film(np.ascontiguousarray(gray), notes)


class _Silence:
    """Counts who is inside: `warnings.catch_warnings` saves and restores a list of the whole process.

    Two threads that each used it would restore it in the wrong order, so the first to enter saves and the last to
    leave restores. In between, other threads' warnings are lost too.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.saved: warnings.catch_warnings[None] | None = None
        self.levels: dict[str, int] = {}

    def enter(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside > 1:
                return
            self.saved = warnings.catch_warnings()
            self.saved.__enter__()
            warnings.simplefilter("ignore")
            for name in _LOGGERS:
                self.levels[name] = logging.getLogger(name).level
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside or self.saved is None:
                return
            for name, level in self.levels.items():
                logging.getLogger(name).setLevel(level)
            self.saved.__exit__(None, None, None)
            self.saved = None


_SILENCE = _Silence()


@contextmanager
def silence() -> Iterator[None]:
    """Keep the decoders' warnings and log lines away: they quote what the file says, a patient's name included.

    Threads may overlap. Lines that a library written in C prints by itself are not caught here.
    """
    _SILENCE.enter()
    try:
        yield
    finally:
        _SILENCE.leave()
