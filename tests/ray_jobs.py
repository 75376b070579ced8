"""What tests/test_cluster.py has done by workers of Ray Train."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster_worker import build, fit, params_of, write

from pipeline.shards import open_processed


def train(send: Callable[..., None], processed: Path, folder: Path) -> dict[str, Any]:
    """Train as one of the workers; the chief writes, and sends each figure."""
    from pipeline.input_pipeline import steps_per_epoch, training_batches
    from pipeline.training.cluster import place_of
    from pipeline.training.keras_workers import mended, own_batches

    data, params = open_processed(processed), params_of(6, "ray", workers=2)
    place = place_of(params.train, wait=120)
    batches = training_batches(data, params, None, 2, worker=place.worker, workers=place.workers)
    model = mended(build(place, params), place)
    history = fit(model, own_batches(batches, place), steps_per_epoch(data, params, place.workers))
    for epoch, loss in enumerate(history["image_loss"]):
        send(loss, epoch)
    if place.chief:
        write(folder, "ray", model, history)
    return history


def die(send: Callable[..., None], never: Path) -> None:
    """Let worker 1 be killed while worker 0 waits for it."""
    from ray.train import get_context

    if get_context().get_world_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    send("waits")
    while not never.exists():
        time.sleep(0.05)
