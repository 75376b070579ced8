"""Section: example images of the training split, as read and as the network sees them."""

import base64
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.findings import readable
from pipeline.images import Image, ImageError, pixel_sha256, prepare, read_image, resize
from pipeline.params import PreprocessParams
from pipeline.reporting.page import Section
from pipeline.reporting.text import VIEWS

_SIDE = 256  # pixels of a picture on the page, at most
_EXACT_SIDE = 128  # up to here PNG shows the network's very pixels; larger ones as PNG would make the page too heavy
_JPEG_QUALITY = 85


def section(
    index: pd.DataFrame,
    manifest: pd.DataFrame,
    raw: Path,
    findings: list[str],
    preprocess: PreprocessParams,
    count: int,
) -> Section:
    """Gather the examples.

    Parameters
    ----------
    index, manifest : DataFrame
        `index.csv`, of which the training images are shown, and the manifest, for their files.
    raw : Path
        What the manifest's paths are relative to.
    findings : list of str
        Columns of `index`.
    preprocess : PreprocessParams
        How the network's images are made.
    count : int
        How many.
    """
    rows = index[index["split"] == "train"].reset_index(drop=True)
    paths = dict(zip(manifest["image_id"], manifest["path"], strict=True))
    examples = []
    for place in choose_examples(rows[findings], count):
        row = rows.iloc[place]
        pictures = draw_example(raw / paths[row["image_id"]], row["sha256"], preprocess)
        examples.append({"caption": caption(row, findings), "pictures": pictures})
    content = {"examples": examples, "size": preprocess.size, "fit": preprocess.fit, "clahe": preprocess.clahe}
    return Section("examples", "What the network sees", content)


def caption(row: "pd.Series[Any]", findings: list[str]) -> str:
    """Name the findings and the view of one image, never the image or the patient."""
    present = [readable(name) for name in findings if not pd.isna(row[name]) and row[name] == 1]
    unknown = sum(bool(pd.isna(row[name])) for name in findings)
    words = ", ".join([present[0], *(name.lower() for name in present[1:])]) if present else "No finding"
    return f"{words}{f' ({unknown} unknown)' if unknown else ''}; {VIEWS[row['view']]}"


def choose_examples(labels: pd.DataFrame, count: int) -> list[int]:
    """Choose images that show different findings.

    In turn an image without findings and one of each finding, the most frequent first; of those the one with the
    fewest other findings, and then the first.

    Parameters
    ----------
    labels : DataFrame of shape (n_images, n_findings)
        1, 0 or <NA>, in the order of the images.
    count : int
        How many; fewer if there are fewer images.

    Returns
    -------
    list of int
        Positions, without repetition; the same for the same table.
    """
    present = (labels == 1).fillna(False).to_numpy(dtype=bool)
    others = present.sum(axis=1)
    by_number = sorted(range(present.shape[1]), key=lambda k: (-int(present[:, k].sum()), k))
    wanted = [others == 0, *(present[:, k] for k in by_number)]
    chosen: list[int] = []
    while len(chosen) < min(count, len(labels)):
        for matches in wanted:
            free = [place for place in matches.nonzero()[0].tolist() if place not in chosen]
            if free and len(chosen) < count:
                chosen.append(min(free, key=lambda place: (others[place], place)))
    return chosen


def draw_example(path: Path, sha256: str, params: PreprocessParams) -> list[dict[str, Any]]:
    """Show one image as read, resized, and (if CLAHE is on) as the network gets it.

    Returns
    -------
    list of dict
        `title`, `uri` (a data URI), `width` and `height` in pixels.

    Raises
    ------
    UserError
        See `read_ingested`.
    """
    image = read_ingested(path, sha256)
    size = f"{params.size} × {params.size}"
    steps = [("As read", image), (f"Resized to {size}", resize(image, params.size, params.fit))]
    if params.clahe:
        steps.append(("After CLAHE: what the network sees", prepare(image, params)))
    return [{"title": title, **picture(step)} for title, step in steps]


def read_ingested(path: Path, sha256: str) -> Image:
    """Read an image of the manifest again.

    Raises
    ------
    UserError
        If the file cannot be read, or its pixels are not those that were ingested.
    """
    try:
        image = read_image(path, max_pixels=1_000_000_000)  # its size was bounded by ingest
    except ImageError as error:
        raise UserError(f"{path}: {error}; it was readable when it was ingested: run `dvc repro` again") from None
    if pixel_sha256(image) != sha256:
        raise UserError(f"{path} has changed since it was ingested: run `cxr ingest` again")
    return image


def picture(image: Image, most: int = _SIDE) -> dict[str, Any]:
    """Encode an image for the page, reduced to at most `most` pixels a side: `uri`, `width`, `height`."""
    longest = max(image.shape)
    if longest > most:
        height, width = (max(1, round(side * most / longest)) for side in image.shape)
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype("uint8")
    uri = data_uri(image, "png" if longest <= _EXACT_SIDE else "jpeg")
    return {"uri": uri, "width": image.shape[1], "height": image.shape[0]}


def data_uri(pixels: NDArray[Any], kind: str) -> str:
    """Encode pixels, uint8, gray or blue-green-red, as a data URI; `kind` is png or jpeg. No text, date or name."""
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if kind == "jpeg" else []
    done, data = cv2.imencode(f".{kind}", pixels, options)
    if not done:
        raise RuntimeError(f"OpenCV could not encode a {kind} of {pixels.shape}")
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
