"""Train a tiny network in this process and print the largest memory it has had, in MB, after each epoch.

`python memory_case.py PROCESSED EPOCHS`. All is the real training but the network and the bound of the shuffle, which
is made smaller than the data.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from pipeline import input_pipeline
from pipeline.params import AugmentParams, ModelParams, Params, TrainParams
from pipeline.progress import set_quiet
from pipeline.shards import open_processed
from pipeline.training import trainer

_STATUS = Path("/proc/self/status")


def run(processed: Path, epochs: int, folder: Path) -> list[float]:
    """Train; return the figure after each epoch."""
    train = TrainParams(epochs=epochs, batch_size=64, hold="disk", auc_images=64, precision="float32", stop_patience=99)
    params = Params(model=ModelParams(weights="none"), augment=AugmentParams(enabled=False), train=train)
    peaks: list[float] = []

    def log(_figures: dict[str, float], _epoch: int) -> None:
        peaks.append(peak())

    trainer.build_model = tiny  # type: ignore[assignment]
    input_pipeline._SHUFFLE_BYTES = 0  # leaves the 1,024 images that it always holds
    trainer.Trainer(open_processed(processed), params, log, folder / "checkpoints", folder / "boards", "").run()
    return peaks


def tiny(_params: ModelParams, size: int, prevalence: Any, _replicas: int, *, fused: bool) -> Any:  # noqa: ARG001
    """Return a network that costs next to nothing."""
    import keras

    image = keras.Input((size, size, 1), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(size // 4)(x))
    return keras.Model(image, keras.layers.Dense(len(prevalence), "sigmoid")(x))


def peak() -> float:
    """Return the peak of this program; `ru_maxrss` would know that of the process that started it."""
    if not _STATUS.is_file():  # not Linux: what is in use now
        return float(psutil.Process().memory_info().rss / 1e6)
    lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii").splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    set_quiet(True)
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]), Path(scratch))))
