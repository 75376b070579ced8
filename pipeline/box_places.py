"""Boxes of readers in the pixels of the prepared image: which image and finding, and which pixels they cover.

`boxes.csv` is in pixels of the published file; `file_width` and `file_height` say how large that file is. The
manifest's `width` and `height` do not: NIH's table has the detector's size there, and the files are 1024x1024.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.datasets.boxes import PLACE, is_box
from pipeline.errors import UserError
from pipeline.manifest import as_number, labels_of, read_table
from pipeline.shards import Processed

Mask = NDArray[np.bool_]
Places = NDArray[np.float64]
"""Of shape (n_boxes, 4): left, top, width, height; pixel i covers the interval from i to i + 1."""

FILE_SIZE = ("file_width", "file_height")
_COLUMNS = ("image_id", "finding", *PLACE, *FILE_SIZE)


@dataclass(frozen=True)
class BoxedPairs:
    """The pairs of image and finding for which a reader drew at least one box.

    Attributes
    ----------
    image : ndarray of shape (n_pairs,)
        Position in `data.rows(split)`, rising.
    finding : ndarray of shape (n_pairs,)
        Position in `data.findings`.
    patient : ndarray of shape (n_pairs,)
        Whose image it is.
    places : list of n_pairs ndarrays of shape (n_boxes, 4)
        The boxes, in pixels of the prepared image.
    films : ndarray of shape (n_pairs, 4)
        Where the film lies in the prepared image: all of it with fit 'stretch', else without the black beside it.
    left_out : dict
        Boxes that are not scored, by reason.
    unlabelled : int
        Pairs whose label is not 1 though there is a box; they are scored.
    """

    image: NDArray[np.intp]
    finding: NDArray[np.intp]
    patient: NDArray[np.str_]
    places: list[Places]
    films: NDArray[np.intp]
    left_out: dict[str, int]
    unlabelled: int


def read_boxes(path: Path) -> pd.DataFrame:
    """Read `image_id, finding, x, y, width, height, file_width, file_height`, perhaps only a header.

    Raises
    ------
    UserError
        If the file or a column is missing, or a box is not an area.
    """
    table = read_table(path)
    if missing := [name for name in _COLUMNS if name not in table.columns]:
        raise UserError(f"{path}: columns {', '.join(missing)} are missing; run `cxr ingest` to write it anew")
    for name in (*PLACE, *FILE_SIZE):
        table[name] = as_number(table[name], path).astype("float64")
    good = is_box(table[list(PLACE)]) & (table[list(FILE_SIZE)] >= 1).all(axis=1)
    if not good.all():
        line = int(np.flatnonzero(~good.to_numpy())[0]) + 2
        raise UserError(f"{path}: line {line} is no box: a corner from 0 and sides above 0 are needed")
    return table


def boxed_pairs(data: Processed, boxes: pd.DataFrame, split: str) -> BoxedPairs:
    """Bring the boxes of one split into the pixels of the prepared images, grouped by image and finding.

    Parameters
    ----------
    data : Processed
        Its `size` and its `fit` say how images were resized.
    boxes : DataFrame
        Of `read_boxes`.
    split : str
        train, val or test.

    Returns
    -------
    BoxedPairs
        In the order of the images. Left out and counted are boxes of images of other splits, of findings that the
        model does not know, and those that lie wholly beside the film.
    """
    rows = data.rows(split).reset_index(drop=True)
    position = pd.Series(rows.index, index=rows["image_id"])
    image, finding = boxes["image_id"].map(position), boxes["finding"].map({f: k for k, f in enumerate(data.findings)})
    beside = (boxes["x"] >= boxes["file_width"]) | (boxes["y"] >= boxes["file_height"])
    here, known = image.notna(), finding.notna()
    left_out = {
        "image is not in this split": int((~here).sum()),
        "finding is not the model's": int((here & ~known).sum()),
        "box is beside the film": int((here & known & beside).sum()),
    }
    kept = boxes[here & known & ~beside].assign(image=image, finding=finding)
    groups = [group for _, group in kept.groupby(["image", "finding"])]
    first = kept.drop_duplicates(["image", "finding"]).sort_values(["image", "finding"])
    images, findings = first["image"].to_numpy(np.intp), first["finding"].to_numpy(np.intp)
    size, fit = data.size, str(data.meta["preprocess"]["fit"])
    files = [(int(width), int(height)) for width, height in first[list(FILE_SIZE)].to_numpy()]
    labels = labels_of(rows)[images, findings]
    return BoxedPairs(
        images,
        findings,
        rows["patient_id"].to_numpy(np.str_)[images],
        [
            to_prepared(group[list(PLACE)].to_numpy(), file, size, fit)
            for group, file in zip(groups, files, strict=True)
        ],
        np.array([film_place(file, size, fit) for file in files], np.intp).reshape(-1, 4),
        left_out,
        int((labels != 1).sum()),
    )


def film_place(file: tuple[int, int], size: int, fit: str) -> tuple[int, int, int, int]:
    """Return left, top, width and height of the film in the prepared image, as `pipeline.images.resize` lays it."""
    if fit == "stretch":
        return 0, 0, size, size
    width, height = file
    scale = size / max(height, width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    return (size - new_width) // 2, (size - new_height) // 2, new_width, new_height


def to_prepared(places: Places, file: tuple[int, int], size: int, fit: str) -> Places:
    """Carry boxes from the pixels of a file to those of the prepared image.

    Parameters
    ----------
    places : ndarray of shape (n_boxes, 4)
        Left, top, width, height in the file.
    file : tuple of int
        Width and height of the file.
    size, fit
        Parameters of preprocessing.

    Returns
    -------
    ndarray of shape (n_boxes, 4)
        Not rounded, and not cut at the border.
    """
    left, top, new_width, new_height = film_place(file, size, fit)
    scale = np.array([new_width / file[0], new_height / file[1]] * 2)
    return np.asarray(places * scale + [left, top, 0, 0], np.float64)


def inside(places: Places, size: int) -> Mask:
    """Return the pixels whose centre lies in one of the boxes, shape (size, size).

    A box so small that it holds no centre, as some nodules' on a small image, takes the pixel in which its own
    centre lies: otherwise nothing could hit it.
    """
    mask = np.zeros((size, size), np.bool_)
    for x, y, width, height in places:
        rows, columns = _span(y, height, size), _span(x, width, size)
        mask[rows, columns] = True
    return mask


def _span(start: float, length: float, size: int) -> slice:
    first, end = int(np.ceil(start - 0.5)), int(np.ceil(start + length - 0.5))
    if end <= first:
        first = int(start + length / 2)
        end = first + 1
    first = min(max(first, 0), size - 1)
    return slice(first, min(max(end, first + 1), size))
