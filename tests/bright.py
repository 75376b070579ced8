"""Processed images with one bright square each, and a model, by hand, whose only feature is brightness."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.files import sha256_file, write_json
from pipeline.params import PreprocessParams
from pipeline.shards import INDEX, META, write_index, write_shard

SIZE, SIDE, IMAGES, PER_PATIENT = 32, 8, 40, 2
FINDINGS = ["Bright", "Dark"]
FILE = 64  # pixels a side of the published files


def square_of(number: int) -> tuple[int, int]:
    """Return row and column of an image's square; multiples of 4, and all 49 of them before one comes again."""
    return 4 * (number % 7), 4 * (number // 7 % 7)


def write_bright(folder: Path) -> Path:
    """Write a finished folder of processed test images; odd ones have a square of 200, even ones of 150, on noise."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 20, (IMAGES, SIZE, SIZE), dtype=np.uint8)
    for number, image in enumerate(images):
        row, column = square_of(number)
        image[row : row + SIDE, column : column + SIDE] = 200 if number % 2 else 150
    numbers = np.arange(IMAGES)
    table = pd.DataFrame({"row": numbers, "shard": "test-00000.tfrecord", "split": "test"})
    table["image_id"] = [f"secret-{number:03d}" for number in numbers]
    table["patient_id"] = [f"patient-{number // PER_PATIENT:03d}" for number in numbers]
    table = table.assign(view="PA", sex="F", age=50, followup=0, width=3000, height=2000, sha256="0")
    table["Bright"], table["Dark"] = numbers % 2, 1 - numbers % 2
    shard = folder / "test-00000.tfrecord"
    write_shard(shard, [(int(number), images[number]) for number in numbers])
    meta = {
        "dataset": "bright",
        "protocol": "patient",
        "size": SIZE,
        "findings": FINDINGS,
        "preprocess": dataclasses.asdict(PreprocessParams(size=SIZE)),
        "manifest_sha256": "0",
        "splits_sha256": "0",
        "shards": [{"name": shard.name, "split": "test", "sha256": sha256_file(shard)}],
        "index_sha256": write_index(folder / INDEX, table),
    }
    write_json(folder / META, meta)
    return folder


def boxes_of(numbers: range, findings: list[str], offset: int = 0) -> pd.DataFrame:
    """Return the boxes around the squares of some images, in pixels of the published files."""
    scale = FILE // SIZE
    rows = []
    for number in numbers:
        row, column = square_of(number + offset)
        place = {"x": scale * column, "y": scale * row, "width": scale * SIDE, "height": scale * SIDE}
        rows += [{"image_id": f"secret-{number:03d}", "finding": name, **place} for name in findings]
    table = pd.DataFrame(rows, columns=["image_id", "finding", "x", "y", "width", "height"])
    return table.assign(file_width=float(FILE), file_height=float(FILE))


def bright_model() -> Any:
    """Build the model: means of 4 x 4 pixels, pooled, and a weight of 1 for Bright and of -1 for Dark."""
    import keras

    inputs = keras.Input((SIZE, SIZE, 1), dtype="uint8")
    x = keras.layers.AveragePooling2D(4, name="maps")(keras.layers.Rescaling(1 / 255)(inputs))
    outputs = keras.layers.Dense(2, activation="sigmoid")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    model.layers[-1].set_weights([np.array([[1, -1]], np.float32), np.zeros(2, np.float32)])
    return model
