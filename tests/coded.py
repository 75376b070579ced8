"""Processed images that say which they are: the first pixel is the row's number, the labels spell it in binary."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.files import sha256_file, write_json
from pipeline.params import PreprocessParams
from pipeline.shards import INDEX, META, write_index, write_shard

SIZE, N_TRAIN, N_VAL, N_TEST = 32, 37, 9, 9


def write_coded(folder: Path) -> Path:
    """Write a finished folder of processed images, four shards of train and one each of val and test."""
    rows = np.arange(N_TRAIN + N_VAL + N_TEST)
    splits = np.array(["train"] * N_TRAIN + ["val"] * N_VAL + ["test"] * N_TEST)
    shards = [
        f"{split}-{row // 10 if split == 'train' else 0:05d}.tfrecord" for split, row in zip(splits, rows, strict=True)
    ]
    table = pd.DataFrame({"row": rows, "shard": shards, "split": splits, "image_id": rows, "patient_id": rows})
    table[["view", "sex", "age", "followup", "width", "height", "sha256"]] = ""
    for bit in range(6):
        table[f"Bit{bit}"] = rows >> bit & 1
    listed = []
    for name, group in table.groupby("shard"):
        rng = np.random.default_rng(int(group["row"].iloc[0]))
        write_shard(folder / str(name), [(int(row), coded_image(rng, int(row))) for row in group["row"]])
        listed.append({"name": name, "split": group["split"].iloc[0], "sha256": sha256_file(folder / str(name))})
    index_sha256 = write_index(folder / INDEX, table)
    write_json(
        folder / META,
        {
            "dataset": "coded",
            "protocol": "patient",
            "size": SIZE,
            "findings": [f"Bit{bit}" for bit in range(6)],
            "preprocess": dataclasses.asdict(PreprocessParams(size=SIZE)),
            "manifest_sha256": "0",
            "splits_sha256": "0",
            "shards": listed,
            "index_sha256": index_sha256,
        },
    )
    return folder


def coded_image(rng: np.random.Generator, row: int) -> np.ndarray:
    """Draw noise whose first pixel is the row's number."""
    image = rng.integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
    image[0, 0] = row
    return image
