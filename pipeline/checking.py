"""What a worker of `ingest` does with one file.

Apart from the stage, because every worker process imports this module anew: it needs neither pandas nor pydantic.
"""

from dataclasses import dataclass
from pathlib import Path

from pipeline.images import ImageError, perceptual_hash, pixel_sha256, read_film
from pipeline.quality import Notes, suspicions
from pipeline.quarantine import Reason
from pipeline.thumbnails import thumbnail


@dataclass(frozen=True)
class Checked:
    """What decoding a file told: size in pixels, hashes and what looks wrong, or why it is refused."""

    width: int = 0
    height: int = 0
    sha256: str = ""
    phash: str = ""
    thumbnail: bytes = b""
    notes: Notes = ()
    code: Reason | None = None
    reason: str = ""


def check_file(path: str, raw: Path, max_pixels: int, min_side: int) -> Checked:
    """Open, decode and hash one image file.

    Parameters
    ----------
    path : str
        Relative to `raw`.
    raw : Path
        The raw folder.
    max_pixels, min_side : int
        Bounds on width x height, and on the shorter side.

    Returns
    -------
    Checked
        `code` is None when the file is usable. An image whose pixels are all equal holds nothing and is refused.
    """
    try:
        film = read_film(raw / path, max_pixels)
    except ImageError as error:
        return Checked(code=error.code, reason=str(error))
    image = film.pixels
    height, width = image.shape
    if min(height, width) < min_side:
        reason = f"{width}x{height} is smaller than the required {min_side} pixels a side"
        return Checked(code=Reason.TINY, reason=reason)
    if image.min() == image.max():
        return Checked(code=Reason.BLANK, reason="all pixels are equal")
    notes = (*film.notes, *suspicions(image))
    return Checked(width, height, pixel_sha256(image), perceptual_hash(image), thumbnail(image).tobytes(), notes)
