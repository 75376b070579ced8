"""Boxes that readers drew around findings, in the pixels of the file as published."""

from collections import Counter
from collections.abc import Iterable

import pandas as pd

from pipeline.quarantine import Reason, Refused

PLACE = ("x", "y", "width", "height")
COLUMNS = ("image_id", "finding", *PLACE)
MAX_SIDE = 65536.0
"""Pixels; no side of a radiograph is longer (DICOM's Rows and Columns are 16-bit numbers, PS3.3 C.7.6.3)."""


def no_boxes() -> pd.DataFrame:
    """Return a table of boxes without a row."""
    table = pd.DataFrame({name: pd.Series(dtype="str") for name in ("image_id", "finding")})
    return table.assign(**{name: pd.Series(dtype="float64") for name in PLACE})


def numbers(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Return the columns of text as floats named x, y, width, height; what is no number is NaN."""
    return pd.DataFrame(
        {
            name: pd.to_numeric(table[column], errors="coerce").astype("float64")
            for name, column in zip(PLACE, columns, strict=True)
        }
    )


def positives(rows: pd.DataFrame, findings: Iterable[str]) -> set[tuple[str, str]]:
    """Return the pairs of image and finding that the labels call present."""
    return {(str(image), name) for name in findings for image in rows.loc[(rows[name] == 1).fillna(False), "image_id"]}


def is_box(place: pd.DataFrame) -> pd.Series:
    """Say of each x, y, width, height whether it is an area of an image."""
    corner = place[["x", "y"]].ge(0).all(axis=1) & place[["x", "y"]].le(MAX_SIDE).all(axis=1)
    size = place[["width", "height"]].gt(0).all(axis=1) & place[["width", "height"]].le(MAX_SIDE).all(axis=1)
    return corner & size


def keep_boxes(
    boxes: pd.DataFrame, rows: pd.DataFrame, origin: str, refused: list[Refused], notes: Counter[str]
) -> pd.DataFrame:
    """Return the boxes that are areas of an image in `rows`, sorted.

    A box that is no area is refused by the line of its table; those of other images are counted.

    Parameters
    ----------
    boxes : DataFrame
        `COLUMNS`; the index is the row of the table from 0.
    rows : DataFrame
        The catalogue's rows.
    origin : str
        The table, for the reasons.
    """
    good = is_box(boxes[list(PLACE)])
    refused += [
        Refused(
            f"{origin}: line {int(line) + 2}", Reason.BAD_ROW, "a box needs numbers: a corner from 0, sides above 0"
        )
        for line in boxes.index[~good]
    ]
    here = boxes["image_id"].isin(set(rows["image_id"]))
    if elsewhere := int((good & ~here).sum()):
        notes["box of an image that is not here"] += elsewhere
    kept = boxes.loc[good & here, list(COLUMNS)]
    return kept.sort_values(list(COLUMNS), kind="stable").reset_index(drop=True)
