"""One module per data set: from its folder to rows of the manifest. No later stage knows which set it was."""

import importlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.errors import UserError
from pipeline.params import DatasetParams
from pipeline.quarantine import Refused, Suspicious

_JUNK_NAMES = {".DS_Store", "Thumbs.db", "desktop.ini"}


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
        Junk and second copies that are part of the archive as published: reason to number of files.
    notes : Counter
        Values replaced by "unknown": reason to number of rows.
    """

    rows: pd.DataFrame
    refused: list[Refused] = field(default_factory=list)
    suspicious: list[Suspicious] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)


def read_catalogue(raw: Path, params: DatasetParams) -> Catalogue:
    """Let the adapter `pipeline.datasets.<adapter>` read the folder.

    Raises
    ------
    UserError
        If the folder does not have the layout that the adapter knows.
    """
    module = importlib.import_module(f"pipeline.datasets.{params.adapter}")
    catalogue: Catalogue = module.read(raw, params)
    return catalogue


def list_files(raw: Path, left_out: Counter[str]) -> list[PurePosixPath]:
    """List the files below `raw`, sorted, relative; operating systems' junk is counted in `left_out` instead."""
    files = []
    for path in sorted(raw.rglob("*")):
        relative = PurePosixPath(path.relative_to(raw).as_posix())
        if not path.is_file():
            continue
        if not str(relative).isprintable():  # no UTF-8 (a name in GBK), or control characters: no table can hold it
            raise UserError(f"{raw}: the name {str(relative)!a} is not printable UTF-8; rename that file")
        if relative.name in _JUNK_NAMES or relative.name.startswith("._") or "__MACOSX" in relative.parts:
            left_out["junk of the operating system"] += 1
        else:
            files.append(relative)
    return files
