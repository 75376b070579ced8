"""The stages of a small project with the shape of the real one, for the tests of ablations: `python stages.py STAGE`.

They need no image and no network; each writes what the real stage would, from the same parameters. Training with
cross-entropy says that it has begun, and goes on when nobody holds the lock of the file `go`.
"""

import csv
import fcntl
import json
import os
import random
import sys
from pathlib import Path

from ruamel.yaml import YAML

FINDINGS = ("Mass", "Edema")


def download(params):
    folder = Path("data/raw")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "films.txt").write_text(str(params["simulate"]["seed"]))


def preprocess(params):
    seed = Path("data/raw/films.txt").read_text()
    folder = Path("data/processed")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "images.txt").write_text(f"{seed} {params['preprocess']['clahe']}")


def train(params):
    signal = 1.5 if "True" in Path("data/processed/images.txt").read_text() else 0.5
    loss = params["loss"]["name"]
    notes = Path(os.environ["NOTES"])
    if loss == "binary_crossentropy":
        print("begun", flush=True)
        with (notes / "go").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
    if os.environ.get("FAILING") == "augment" and not params["augment"]["enabled"]:
        raise SystemExit("the loss became NaN")
    Path("models/repeats").mkdir(parents=True, exist_ok=True)
    Path("models/repeats/repeats.csv").write_text("seed\n7\n")
    Path("models/model.keras").write_text(str(signal + (loss == "focal")))
    repeats = [{"seed": seed, "val_auc": value} for seed, value in ((7, 0.75), (8, 0.25))]
    Path("models/training.json").write_text(json.dumps({"repeats": repeats}))
    with (notes / "trained.txt").open("a") as handle:
        handle.write(f"{signal} {loss} {params['tracking']['register']!r} {os.environ.get('MLFLOW_TRACKING_URI')}\n")


def evaluate(_params):
    signal = float(Path("models/model.keras").read_text())
    rng = random.Random(7)
    Path("reports").mkdir(exist_ok=True)
    with Path("reports/predictions.csv").open("w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["image_id", "patient_id", "split", *(f"{kind}_{name}" for kind in "yp" for name in FINDINGS)])
        for image in range(120):
            labels = [rng.randint(0, 1), rng.randint(0, 1)]
            scores = [1 / (1 + 2.718281828 ** -(signal * label + rng.gauss(0, 1))) for label in labels]
            split = "val" if image < 80 else "test"
            writer.writerow([f"i{image}", f"p{image // 2}", split, *labels, *scores])
    Path("reports/metrics.json").write_text('{"val": 1}')


if __name__ == "__main__":
    globals()[sys.argv[1]](YAML(typ="safe", pure=True).load(Path("params.yaml").read_text()))
