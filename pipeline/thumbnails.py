"""Tiny copies of all images, made by `ingest`, so that pictures can be compared without decoding them again.

A file of thumbnails is a NumPy array (.npy) of records: the first 64 bits of the pixels' SHA-256, and 16 x 16 gray
values; sorted by the former. 112,120 images take 30 MB.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.files import atomic_open
from pipeline.images import ImageError, pixel_sha256, read_image

if TYPE_CHECKING:
    import pandas as pd  # for the types alone: worker processes make thumbnails

SIDE = 16
NAME = "thumbnails.npy"
_RECORD = np.dtype([("key", "<u8"), ("pixels", "u1", (SIDE, SIDE))])

Pictures = NDArray[np.uint8]


def thumbnail(image: Pictures) -> Pictures:
    """Reduce an image to 16 x 16 by area averaging; the aspect is not kept.

    Parameters
    ----------
    image : ndarray of shape (height, width), dtype=uint8

    Returns
    -------
    ndarray of shape (16, 16), dtype=uint8
    """
    return np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def thumbnail_of(item: tuple[str, str], raw: Path) -> bytes:
    """Return the thumbnail of a file; nothing if it cannot be read or is not the picture that the manifest means.

    Parameters
    ----------
    item : (path, sha256)
        Relative path and the hash of its pixels in the manifest.
    raw : Path
        The raw folder.
    """
    path, sha256 = item
    try:
        image = read_image(raw / path)
    except ImageError:
        return b""
    return thumbnail(image).tobytes() if pixel_sha256(image) == sha256 else b""


def from_hex(column: "pd.Series") -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Read the first 16 hexadecimal digits of each string.

    Returns
    -------
    values : ndarray of uint64
        0 where the string holds something else.
    known : ndarray of bool
        Where it does not.
    """
    heads = column.str.slice(0, 16)
    known = heads.str.fullmatch("[0-9a-f]{16}").to_numpy(dtype=bool, copy=True)
    digits = "".join(np.where(known, heads.to_numpy(dtype=object), "0" * 16).tolist())
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64), known


@dataclass(frozen=True)
class Thumbnails:
    """What a file of thumbnails holds; it stays on disk until asked for."""

    records: NDArray[np.void]

    def find(self, sha256: "pd.Series") -> tuple[Pictures, NDArray[np.bool_]]:
        """Look thumbnails up by the SHA-256 of the pixels.

        Returns
        -------
        pixels : ndarray of shape (n, 16, 16), dtype=uint8
            0 where there is none.
        known : ndarray of bool, shape (n,)
        """
        wanted, known = from_hex(sha256)
        keys = np.asarray(self.records["key"])
        place = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
        known &= keys[place] == wanted if len(keys) else False
        pixels = np.zeros((len(wanted), SIDE, SIDE), np.uint8)
        pixels[known] = self.records["pixels"][place[known]]
        return pixels, known


def write_thumbnails(path: Path, sha256: "pd.Series", pixels: Pictures) -> None:
    """Write one record per picture; equal pictures share theirs.

    Parameters
    ----------
    path : Path
        A .npy file.
    sha256 : Series of str, length n
        Of the decoded pixels.
    pixels : ndarray of shape (n, 16, 16), dtype=uint8
    """
    keys, _ = from_hex(sha256)
    _, first = np.unique(keys, return_index=True)
    records = np.zeros(len(first), _RECORD)
    records["key"], records["pixels"] = keys[first], pixels[first]
    with atomic_open(path, "wb") as handle:
        np.save(handle, records, allow_pickle=False)


def read_thumbnails(path: Path) -> Thumbnails:
    """Open a file of thumbnails; a file that is missing holds none.

    Raises
    ------
    UserError
        If it is something else.
    """
    if not path.exists():
        return Thumbnails(np.zeros(0, _RECORD))
    try:
        records = np.lib.format.open_memmap(path, mode="r")  # no pickle, no archive, nothing larger than the file
    except Exception:  # NumPy parses the header as Python, and lets out whatever that raises
        records = None
    if records is None or records.dtype != _RECORD or records.ndim != 1:
        raise UserError(f"{path} is not a file of thumbnails of `cxr ingest`; remove it or run `cxr ingest` again")
    return Thumbnails(records)
