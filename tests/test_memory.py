"""Memory of a training that reads its images from disk: flat over epochs and in the number of images."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.files import sha256_file, write_json
from pipeline.params import PreprocessParams
from pipeline.shards import INDEX, META, write_index, write_shard

SIZE, FILE, VALIDATION = 128, 512, 64
FEW, MANY = 1024, 6144
EPOCH = FEW * SIZE**2 / 1e6  # MB of pixels in an epoch of the few
MORE = (MANY - FEW) * SIZE**2 / 1e6


@pytest.fixture(scope="module")
def peaks(tmp_path_factory):
    """Return the largest memory, in MB, that a training has had after each epoch: of few images and of many."""
    folder = tmp_path_factory.mktemp("memory")
    epochs = {write_set(folder / "few", FEW): 12, write_set(folder / "many", MANY): 3}
    running = [start(processed, number) for processed, number in epochs.items()]
    return [answer_of(process) for process in running]


def write_set(folder, images):
    """Write processed images, one file of them again and again."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (FILE, SIZE, SIZE), dtype=np.uint8)
    rows = np.arange(images + VALIDATION)
    splits = np.where(rows < images, "train", "val")
    shards = [f"{split}-{row // FILE:05d}.tfrecord" for split, row in zip(splits, rows, strict=True)]
    table = pd.DataFrame({"row": rows, "shard": shards, "split": splits, "image_id": rows, "patient_id": rows})
    table[["view", "sex", "age", "followup", "width", "height", "sha256"]] = ""
    table["Mass"] = (rows % 2).astype(int)
    listed = []
    for name, group in table.groupby("shard"):
        write_shard(folder / str(name), [(int(row), pixels[int(row) % FILE]) for row in group["row"]])
        listed.append({"name": name, "split": group["split"].iloc[0], "sha256": sha256_file(folder / str(name))})
    meta = {"dataset": "noise", "protocol": "patient", "size": SIZE, "findings": ["Mass"], "shards": listed}
    meta |= {"preprocess": dataclasses.asdict(PreprocessParams(size=SIZE)), "manifest_sha256": "", "splits_sha256": ""}
    write_json(folder / META, meta | {"index_sha256": write_index(folder / INDEX, table)})
    return folder


def start(processed, epochs):
    script = Path(__file__).with_name("memory_case.py")
    # One arena: otherwise each thread keeps freed memory of its own, and how many threads run is chance.
    surroundings = os.environ | {"MALLOC_ARENA_MAX": "1", "PYTHONPATH": str(script.parents[1])}
    command = [sys.executable, script, processed, str(epochs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=surroundings)


def answer_of(process):
    output, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(output.splitlines()[-1])


def test_memory_does_not_grow_with_the_epochs(peaks):
    few, _ = peaks
    assert len(few) == 12
    # Ten epochs read ten times EPOCH; what Python and TensorFlow themselves gather is 0.4 MB an epoch.
    assert few[-1] - few[1] < 0.7 * EPOCH


def test_memory_does_not_grow_with_the_images(peaks):
    few, many = peaks
    assert len(many) == 3
    # Names, labels and positions of each image are held, some 2 KB; its pixels are not.
    assert many[-1] - few[2] < 0.3 * MORE
    assert many[-1] - many[1] < 0.1 * MORE
