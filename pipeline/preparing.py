"""What a worker of `preprocess` does with one file.

Apart from the stage, because every worker process imports this module anew: it needs neither pandas nor pydantic, whose
imports take longer than the decoding of a hundred films.
"""

from pathlib import Path
from typing import NamedTuple

from pipeline import images
from pipeline.errors import UserError
from pipeline.images import Image, Preparation


class Recipe(NamedTuple):
    """The parameters that decide the pixels (see `pipeline.params.PreprocessParams`), as plain values."""

    size: int
    fit: str
    clahe: bool
    clip_limit: float
    tiles: int

    @classmethod
    def of(cls, params: Preparation) -> "Recipe":
        """Copy what decides the pixels, and nothing else."""
        return cls(params.size, params.fit, params.clahe, params.clip_limit, params.tiles)


def process_file(item: tuple[str, str], raw: Path, params: Preparation) -> Image:
    """Read one image and prepare it.

    Parameters
    ----------
    item : (path, sha256)
        Relative path and the hash of its pixels in the manifest.
    raw : Path
        The raw folder.
    params : Preparation
        Size, fit and CLAHE: a `Recipe`, or the section of the parameters.

    Returns
    -------
    ndarray of shape (params.size, params.size), dtype=uint8

    Raises
    ------
    UserError
        If the file can no longer be read, or its pixels are not those that were ingested.
    """
    path, sha256 = item
    try:
        image = images.read_image(raw / path, max_pixels=1_000_000_000)  # its size was bounded by ingest
    except images.ImageError as error:
        raise UserError(f"{raw / path}: {error}; it was readable when it was ingested: run `dvc repro` again") from None
    if images.pixel_sha256(image) != sha256:
        raise UserError(f"{raw / path} has changed since it was ingested: run `cxr ingest` again")
    return images.prepare(image, params)
