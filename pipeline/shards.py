"""The processed images on disk: a few large TFRecord files, a table of their rows, and checksums.

A record is the row's number (uint32, little-endian) and the raw pixels, so nothing has to be decoded, and labels can
never be paired with the wrong image: they are looked up in the table by that number.
"""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.files import atomic_open, read_json, sha256_file
from pipeline.images import Image
from pipeline.manifest import as_number, findings_of, labels_of, read_table

META = "meta.json"
INDEX = "index.csv"
HEADER = struct.Struct("<I")
_CRC_DELTA = 0xA282EAD8  # TensorFlow, core/lib/hash/crc32c.h: the mask of stored checksums


def write_shard(path: Path, records: Iterable[tuple[int, Image]]) -> str:
    """Write rows and images as one TFRecord file, whole or not at all; return its SHA-256.

    TensorFlow's framing (core/lib/io/record_writer.h: length, its masked CRC-32C, data, its masked CRC-32C) is
    written with google-crc32c, so that this stage does not have to load TensorFlow.
    """
    digest = hashlib.sha256()
    with atomic_open(path, "wb") as handle:
        for row, image in records:
            data = HEADER.pack(row) + image.tobytes()
            length = struct.pack("<Q", len(data))
            record = length + _masked_crc(length) + data + _masked_crc(data)
            digest.update(record)
            handle.write(record)
    return digest.hexdigest()


def write_index(path: Path, table: pd.DataFrame) -> str:
    """Write the table of rows (`row, shard, split`, the manifest's columns, the findings); return its SHA-256."""
    with atomic_open(path) as handle:
        table.to_csv(handle, index=False, lineterminator="\n")
    return sha256_file(path)


@dataclass(frozen=True)
class Processed:
    """The opened folder of processed images.

    Attributes
    ----------
    folder : Path
        Where the shards lie.
    meta : dict
        `size`, `findings`, `preprocess` (parameters), `shards` (name, split, images, sha256), `index_sha256` and
        where they came from (`manifest_sha256`, `splits_sha256`, `dataset`, `protocol`).
    table : DataFrame
        One row per image, in the order of `row`.
    """

    folder: Path
    meta: dict[str, Any]
    table: pd.DataFrame

    @property
    def findings(self) -> list[str]:
        """The findings, in the order of the model's outputs."""
        return list(self.meta["findings"])

    @property
    def size(self) -> int:
        """Pixels a side."""
        return int(self.meta["size"])

    @property
    def labels(self) -> NDArray[np.float32]:
        """Labels of all rows, shape (n_images, n_findings): 1, 0, NaN for unknown."""
        return labels_of(self.table)

    def rows(self, split: str) -> pd.DataFrame:
        """Return the rows of one split, in the order in which its shards hold them."""
        return self.table[self.table["split"] == split]

    def files(self, split: str) -> list[str]:
        """Return the paths of one split's shards."""
        return [str(self.folder / shard["name"]) for shard in self.meta["shards"] if shard["split"] == split]


def open_processed(folder: Path) -> Processed:
    """Open a folder that `preprocess` finished, and check every shard and the index against their checksums.

    Raises
    ------
    UserError
        If the folder is unfinished, or a shard or the index is missing or differs from what was written.
    """
    if not (folder / META).is_file():
        raise UserError(f"{folder} holds no finished images ({META} is missing): run `cxr preprocess` or `dvc repro`")
    meta = read_json(folder / META)
    try:
        checksums = {shard["name"]: shard["sha256"] for shard in meta["shards"]} | {INDEX: meta.get("index_sha256")}
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{folder / META} is damaged: run `cxr preprocess` again") from None
    for name, sha256 in checksums.items():
        path = folder / name
        if not path.is_file() or sha256_file(path) != sha256:
            raise UserError(f"{path} is missing or differs from its checksum: remove {folder} and run `dvc repro`")
    table = read_table(folder / INDEX)
    for name in ("row", "age", "followup", "width", "height", *findings_of(table)):
        table[name] = as_number(table[name], folder / INDEX).astype("Float64")
    return Processed(folder, meta, table)


def _masked_crc(data: bytes) -> bytes:
    import google_crc32c

    crc = google_crc32c.value(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + _CRC_DELTA) & 0xFFFFFFFF)
