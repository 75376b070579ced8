"""Kill trainings at random moments, start each again, and compare its weights with those of one that was not killed.

    python benchmarks/kill.py [--moments 20] [--seed 1] [--backbone MobileNetV3Small] [--phases 1]

Draws simulated films, trains once undisturbed, then for every moment: trains, sends SIGKILL at a time drawn uniformly
from the last three quarters of the undisturbed run's length (before, libraries are being loaded), trains again to the
end. Exit status 1 if one differs.
"""

import argparse
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.params_file import as_dict, parse_params, write_yaml

CXR = str(Path(sys.executable).with_name("cxr"))
STAGES = (
    ("download",),
    ("ingest", "data/raw", "data/manifest.csv"),
    ("split", "data/manifest.csv", "data/splits.csv"),
    ("preprocess", "data/manifest.csv", "data/splits.csv", "data/processed", "--raw", "data/raw"),
)
TRAIN = (CXR, "train", "../data/processed", "models")


def write_params(path: Path, backbone: str, weights: str) -> None:
    """Write parameters with a state in everything: dropout, mixup, moving means of the weights, plateau."""
    values: dict[str, Any] = {
        "download": {"source": "simulated"},
        "simulate": {"patients": 60, "size": 64},
        "preprocess": {"size": 32},
        "augment": {"mixup": 0.3},
        "model": {"weights": weights, "backbone": backbone, "dropout": 0.2},
        "optimizer": {"name": "adamw", "weight_decay": 1e-3, "learning_rate": 1e-3, "ema": 0.9},
        "schedule": {"name": "plateau", "patience": 2, "factor": 0.5},
        "finetune": {"head_epochs": 3},
        "train": {"epochs": 8, "stop_patience": 8, "batch_size": 16, "auc_images": 32},
        "tracking": {"system_metrics": False, "register": ""},
    }
    write_yaml(path, as_dict(parse_params(values, "the benchmark")))


def draw(folder: Path, backbone: str) -> None:
    """Make the processed images in `folder/data`."""
    write_params(folder / "params.yaml", backbone, "none")
    for stage in STAGES:
        subprocess.run([CXR, *stage, "-q"], cwd=folder, check=True)


def trained(folder: Path, backbone: str, weights: str) -> tuple[str, float, str]:
    """Train to the end in a folder; return the hash of the model, the seconds and what was said."""
    folder.mkdir(exist_ok=True)
    write_params(folder / "params.yaml", backbone, weights)
    start = time.monotonic()
    done = subprocess.run(TRAIN, cwd=folder, check=True, stderr=subprocess.PIPE, text=True)
    model = hashlib.sha256((folder / "models/model.keras").read_bytes()).hexdigest()
    return model, time.monotonic() - start, done.stderr


def killed(folder: Path, backbone: str, weights: str, seconds: float) -> bool:
    """Begin a training and kill it after some seconds; return whether it was still at work."""
    folder.mkdir()
    write_params(folder / "params.yaml", backbone, weights)
    with subprocess.Popen(TRAIN, cwd=folder, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return True
    return False


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backbone", default="MobileNetV3Small")
    parser.add_argument("--phases", type=int, choices=(1, 2), default=1, help="2: the head alone first")
    args = parser.parse_args()
    choose = random.Random(args.seed)
    same = 0
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        draw(root, args.backbone)
        weights = "none"
        if args.phases == 2:  # the weights of a first training stand for pretrained ones
            trained(root / "pretrained", args.backbone, "none")
            weights = str(root / "pretrained/models/model.keras")
        expected, length, _ = trained(root / "undisturbed", args.backbone, weights)
        print("| killed at | went on after epoch | model.keras |\n| ---: | ---: | --- |", flush=True)
        for number in range(args.moments):
            seconds = choose.uniform(length / 4, length)
            folder = root / str(number)
            at_work = killed(folder, args.backbone, weights, seconds)
            model, _, said = trained(folder, args.backbone, weights)
            found = re.search(r"going on after epoch (\d+)", said)
            rest = "all" if "all epochs were done" in said else "none" if at_work else "(had ended)"
            epoch = found[1] if found else rest
            same += model == expected
            verdict = "the same bytes" if model == expected else "DIFFERENT"
            print(f"| {seconds / length:.0%} of the run | {epoch} | {verdict} |", flush=True)
    print(f"{same} of {args.moments} the same as undisturbed")
    return 0 if same == args.moments else 1


if __name__ == "__main__":
    sys.exit(main())
