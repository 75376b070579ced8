"""What the input of the training costs: images a second without a network, and memory over many epochs.

    python benchmarks/training_input.py [--size 256] [--images 6144] [--epochs 6]

The images are noise. Memory is that of a process of its own, resident and at its peak, after one epoch and after all.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.files import sha256_file, write_json
from pipeline.params import AugmentParams, Params, PreprocessParams, TrainParams
from pipeline.shards import INDEX, META, Processed, open_processed, write_index, write_shard

_FILE = 1024  # images, as preprocess.shard_images
_CASES = (("memory", "plain"), ("disk", "plain"), ("memory", "augmented"), ("memory", "mixup"), ("disk", "balanced"))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--images", type=int, default=6144)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--child", nargs=3, metavar=("FOLDER", "HOLD", "KIND"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(open_processed(Path(args.child[0])), *args.child[1:], args.epochs)))
        return
    print("| images | kind | images/s | ms of processor an image | after 1 epoch, MB | after all, MB | peak, MB |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        write_noise(Path(folder), args.images, args.size)
        for hold, kind in _CASES:
            rest = ["--epochs", str(args.epochs), "--child", folder, hold, kind]
            found = json.loads(subprocess.check_output([sys.executable, __file__, *rest], env=quiet()))
            figures = " | ".join(f"{found[name]:,.0f}" for name in ("first", "last", "peak"))
            print(f"| {hold} | {kind} | {found['rate']:,.0f} | {found['cost']:.3f} | {figures} |", flush=True)


def measure(data: Processed, hold: str, kind: str, epochs: int) -> dict[str, float]:
    """Run through the batches; return what the table shows, times after the first epoch."""
    import psutil

    from pipeline.augment import build_augment
    from pipeline.input_pipeline import steps_per_epoch, training_batches

    params = Params(
        train=TrainParams(hold=hold, sampling="balanced" if kind == "balanced" else "shuffled"),
        augment=AugmentParams(mixup=0.2 if kind == "mixup" else 0.0),
    )
    augment = build_augment(params.augment, 7) if kind in ("augmented", "mixup") else None
    steps, process = steps_per_epoch(data, params), psutil.Process()
    begun = worked = first = peak = 0.0
    for step, _ in enumerate(training_batches(data, params, augment, epochs), 1):
        peak = max(peak, resident := process.memory_info().rss / 1e6)
        if step == steps:
            begun, worked, first = time.perf_counter(), time.process_time(), resident
    count = len(data.rows("train")) * (epochs - 1)
    return {
        "rate": count / (time.perf_counter() - begun),
        "cost": (time.process_time() - worked) / count * 1e3,
        "first": first,
        "last": process.memory_info().rss / 1e6,
        "peak": peak,
    }


def write_noise(folder: Path, images: int, size: int) -> None:
    """Write a finished folder of processed images: noise, with one finding in ten images."""
    rng = np.random.default_rng(0)
    rows = np.arange(images)
    names = [f"train-{row // _FILE:05d}.tfrecord" for row in rows]
    table = pd.DataFrame({"row": rows, "shard": names, "split": "train", "image_id": rows, "patient_id": rows})
    table[["view", "sex", "age", "followup", "width", "height", "sha256"]] = ""
    table["Mass"] = (rows % 10 == 0).astype(int)
    listed = []
    for name, group in table.groupby("shard"):
        pixels = rng.integers(0, 256, (len(group), size, size), dtype=np.uint8)
        write_shard(folder / str(name), zip(map(int, group["row"]), pixels, strict=True))
        listed.append({"name": name, "split": "train", "sha256": sha256_file(folder / str(name))})
    meta = {"dataset": "noise", "protocol": "patient", "size": size, "findings": ["Mass"], "shards": listed}
    meta |= {"preprocess": dataclasses.asdict(PreprocessParams(size=size)), "manifest_sha256": "", "splits_sha256": ""}
    write_json(folder / META, meta | {"index_sha256": write_index(folder / INDEX, table)})


def quiet() -> dict[str, str]:
    """Return the environment of a process that finds the pipeline and whose TensorFlow is silent."""
    return os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(Path(__file__).parents[1])}


if __name__ == "__main__":
    main()
