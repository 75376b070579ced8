"""One module per data set: from its folder to rows of the manifest. No later stage knows which set it was."""

import dataclasses
import importlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from pipeline.datasets.boxes import no_boxes
from pipeline.params import DatasetParams
from pipeline.quarantine import Refused, Suspicious


@dataclass
class Catalogue:
    """What an adapter found.

    Attributes
    ----------
    rows : DataFrame
        The manifest's columns up to `official_split`, without those that need the pixels (`sha256`, `phash`;
        `width` and `height` where the source does not say), then one Int8 column per finding.
    refused : list of Refused
        Rows without a file, files without a row, names that do not say the patient.
    suspicious : list of Suspicious
        Rows that stay in and that somebody should look at.
    left_out : Counter
        Junk, second copies and films that nobody labelled, all part of the archive as published: reason to number
        of files.
    notes : Counter
        Values replaced by "unknown", and what must be known of the labels: reason to number of rows.
    boxes : DataFrame
        `image_id, finding, x, y, width, height`: where a reader saw the finding; floats, pixels of the file as
        published, origin top left. Possibly empty; only images in `rows`; one row per reader and place.
    """

    rows: pd.DataFrame
    refused: list[Refused] = field(default_factory=list)
    suspicious: list[Suspicious] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    boxes: pd.DataFrame = field(default_factory=no_boxes)


def module_of(adapter: str) -> str:
    """Return the module that reads a set: `rsna-pneumonia` is read by `pipeline.datasets.rsna_pneumonia`."""
    return f"pipeline.datasets.{adapter.replace('-', '_')}"


def read_catalogue(raw: Path, params: DatasetParams) -> Catalogue:
    """Let the adapter that `params` names read the folder, and keep the views that `params` asks for.

    Raises
    ------
    UserError
        If the folder does not have the layout that the adapter knows.
    """
    module = importlib.import_module(module_of(params.adapter))
    catalogue: Catalogue = module.read(raw, params)
    return catalogue if params.views == "all" else _frontal(catalogue)


def _frontal(catalogue: Catalogue) -> Catalogue:
    """Leave out the films known to be lateral; an unknown view stays."""
    lateral = catalogue.rows["view"] == "L"
    if not lateral.any():
        return catalogue
    rows = catalogue.rows[~lateral].reset_index(drop=True)
    left_out = catalogue.left_out + Counter({"lateral film (dataset.views is frontal)": int(lateral.sum())})
    boxes = catalogue.boxes[catalogue.boxes["image_id"].isin(set(rows["image_id"]))].reset_index(drop=True)
    return dataclasses.replace(catalogue, rows=rows, left_out=left_out, boxes=boxes)
