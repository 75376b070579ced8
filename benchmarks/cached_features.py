"""What computing a frozen backbone's features once saves: the head's epochs with and without, in one run.

    python benchmarks/cached_features.py [--size 64] [--images 256] [--epochs 5] [--rounds 3]

The images are noise and the weights random, neither of which changes the time. Tracing is left out: each way trains
one epoch beforehand. Both end with the same head up to rounding only if they take the images in the same order, which
tests/test_features.py sees to; here each takes its own.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training_input import write_noise

from pipeline.params import LossParams, ModelParams, Params, TrainParams
from pipeline.shards import Processed, open_processed


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3, help="of each way in turn; the fastest counts")
    args = parser.parse_args()
    params = Params(train=TrainParams(batch_size=args.batch), model=ModelParams(weights="none"))
    with tempfile.TemporaryDirectory() as folder:
        write_noise(Path(folder), args.images, args.size)
        once, cached, whole = measure(open_processed(Path(folder)), params, args.epochs, args.rounds)
    print(f"{args.images} images of {args.size}x{args.size}, {args.epochs} epochs of the head, ResNet50 frozen\n")
    print("| | features, s | epochs, s | together, s | images/s over all epochs |\n| --- | ---: | ---: | ---: | ---: |")
    seen = args.images * args.epochs
    print(f"| every epoch from images | – | {whole:.2f} | {whole:.2f} | {seen / whole:,.0f} |")
    print(f"| features once | {once:.2f} | {cached:.2f} | {once + cached:.2f} | {seen / (once + cached):,.0f} |")
    print(f"\n{whole / (once + cached):.1f} times as fast; an epoch alone {whole / cached:,.0f} times")


def measure(data: Processed, params: Params, epochs: int, rounds: int) -> tuple[float, float, float]:
    """Return the seconds of computing the features, of the head's epochs on them, and of those from images."""
    import keras

    from pipeline.input_pipeline import training_batches
    from pipeline.training.features import feature_batches, head_of, pooled_features
    from pipeline.training.losses import build_loss

    batch = params.train.batch_size
    labels = data.labels
    model, other = frozen_network(params, data), frozen_network(params, data)
    features = pooled_features(model, data, "train", batch)  # traces
    head = head_of(model)
    for each in (head, other):
        each.compile(keras.optimizers.Adam(1e-3), build_loss(LossParams()), jit_compile=False)
    ways: list[Callable[[], Any]] = [
        lambda: pooled_features(model, data, "train", batch),
        lambda: fit(head, feature_batches(features, labels, params, epochs), epochs),
        lambda: fit(other, training_batches(data, params, None, epochs), epochs),
    ]
    fit(head, feature_batches(features, labels, params, 1), 1)
    fit(other, training_batches(data, params, None, 1), 1)
    best = [float("inf")] * len(ways)
    for _ in range(rounds):
        for number, way in enumerate(ways):
            start = time.perf_counter()
            way()
            best[number] = min(best[number], time.perf_counter() - start)
    return best[0], best[1], best[2]


def fit(model: Any, batches: Any, epochs: int) -> None:
    """Train for so many epochs."""
    model.fit(batches, epochs=epochs, steps_per_epoch=int(batches.cardinality()) // epochs, shuffle=False, verbose=0)


def frozen_network(params: Params, data: Processed) -> Any:
    """Return the project's network, of which only the head learns."""
    from pipeline.training.network import build_model, freeze_backbone, prevalence_of

    model = build_model(params.model, data.size, prevalence_of(data.labels))
    freeze_backbone(model)
    return model


if __name__ == "__main__":
    main()
