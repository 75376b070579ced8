"""How fast a step of the training is: beside stock Keras 3, beside PyTorch 2, and beside itself fed from shards.

    python -m venv torch && torch/bin/pip install torch==2.13.0 numpy
    python benchmarks/train_step.py [--torch torch/bin/python] [--size 256] [--batch 16] [--precision mixed_bfloat16]
        [--rounds 5] [--steps 2] [--frozen] [--epochs 5] [--threads 0] [--only NAME ...]

All contenders train ResNet50 with random weights on one batch that lies in memory, in turns: each is a process of its
own that waits while another works, and each round takes a few steps of each, in changing order. Ours runs as `cxr
train` does, deterministic and under MirroredStrategy; "fed" is our step with the input pipeline in front of it:
shards of noise, augmentation, labels. `--frozen` trains the head alone, and adds its training on features that are
computed once (`cached`: features and `--epochs` epochs together, images of all epochs a second). Ratios are of the
same round. Where other programs run, the processor's time says more than the clock's, and least is wrong with
`--threads 1`. The limit is that of a large matrix product in the same precision.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

GFLOP = 30.2  # of training one image of 256x256: three times 10.07 of the forward pass
FINDINGS = 14
Figures = dict[str, float]


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--torch", help="Python of an environment that has torch; without it PyTorch is left out")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", default="mixed_bfloat16", help="float32, mixed_bfloat16, mixed_float16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="of each contender in each round")
    parser.add_argument("--frozen", action="store_true", help="train the head alone")
    parser.add_argument("--epochs", type=int, default=5, help="with --frozen: that share the computed features")
    parser.add_argument("--images", type=int, default=256, help="in the shards")
    parser.add_argument("--threads", type=int, default=0, help="of each contender; 0: as many as the library takes")
    parser.add_argument("--xla", action="store_true")
    parser.add_argument("--only", nargs="+", default=[], help="some of: ours, fed, stock, torch, cached")
    parser.add_argument("--worker", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        answer(args, *args.worker)
        return
    from training_input import write_noise

    with tempfile.TemporaryDirectory() as folder:
        write_noise(Path(folder), args.images, args.size)
        show(measure(args, folder), args)


def contenders(args: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Return the name of each contender, its process, and what that is asked for."""
    found = {"ours": ("ours", "memory"), "fed": ("ours", "fed"), "stock": ("stock", "memory")}
    if args.torch:
        found["torch"] = ("torch", "memory")
    if args.frozen:
        found["cached"] = ("ours", "cached")
    return {name: each for name, each in found.items() if not args.only or name in args.only}


def measure(args: argparse.Namespace, folder: str) -> dict[str, list[Figures]]:
    """Run all rounds; print who takes part, and the load of the machine."""
    asked = contenders(args)
    processes = {kind: start(args, kind, folder) for kind in dict.fromkeys(kind for kind, _ in asked.values())}
    for process in processes.values():
        print(ask(process)["ready"])
    results: dict[str, list[Figures]] = {name: [] for name in asked}
    names, loads = list(asked), []
    try:
        for number in range(args.rounds):
            loads.append(os.getloadavg()[0])
            for name in names[number % len(names) :] + names[: number % len(names)]:
                kind, what = asked[name]
                results[name].append(ask(processes[kind], f"{what} {args.steps}"))
        if "ours" in processes:
            print(f"limit: {ask(processes['ours'], 'limit 1')['tflops']:.2f} TFLOP/s in a matrix product")
    finally:
        for process in processes.values():
            process.terminate()
            process.wait()
    print(f"load of the machine before each round: {', '.join(f'{load:.1f}' for load in loads)}")
    return results


def start(args: argparse.Namespace, kind: str, folder: str) -> "subprocess.Popen[str]":
    """Start a contender's process."""
    here = Path(__file__)
    if kind == "torch":
        values = (args.size, args.batch, args.precision, "frozen" if args.frozen else "all", args.threads)
        command = [args.torch, str(here.with_name("train_step_torch.py")), *map(str, values)]
    else:
        command = [sys.executable, str(here), *sys.argv[1:], "--worker", kind, folder]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(process: "subprocess.Popen[str]", request: str = "") -> Any:
    """Send a request, if there is one, and return the answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    if request:
        process.stdin.write(request + "\n")
        process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{process.args} ended")
    return json.loads(line)


def show(results: dict[str, list[Figures]], args: argparse.Namespace) -> None:
    """Print images a second and ratios."""
    frozen = "head alone" if args.frozen else "all layers"
    print(
        f"\nResNet50, {frozen}, {args.size}x{args.size}, batch {args.batch}, {args.precision}, {args.rounds} rounds\n"
    )
    print("| | images/s | of the processor | ours to it, by the clock | by processor time |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, rows in results.items():
        cells = [ranged([row["images"] / row[clock] for row in rows], 1) for clock in ("seconds", "cpu")]
        for clock in ("seconds", "cpu"):
            pairs = zip(results.get("ours", rows), rows, strict=True)
            cells.append(ranged([a["images"] / a[clock] / (b["images"] / b[clock]) for a, b in pairs if b is not a], 2))
        print(f"| {name} | {' | '.join(cells)} |")
    if {"ours", "fed"} <= set(results):
        waits = [1 - a["seconds"] / b["seconds"] for a, b in zip(results["ours"], results["fed"], strict=True)]
        print(f"\nshare of the time of a step that goes to input: {100 * statistics.median(waits):.1f} % (median)")
    if "ours" in results and not args.frozen:
        best = max(row["images"] / row["seconds"] for row in results["ours"])
        print(f"ours, best round: {best * GFLOP * (args.size / 256) ** 2 / 1000:.2f} TFLOP/s")


def ranged(values: list[float], digits: int) -> str:
    """Return median, lowest and highest."""
    if not values:
        return "–"
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def answer(args: argparse.Namespace, kind: str, folder: str) -> None:
    """Be a contender: train, and answer requests until stdin ends."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    ways = training(args, kind, folder)
    print(json.dumps({"ready": "Keras " + __import__("keras").__version__ + ", " + kind}), flush=True)
    for line in sys.stdin:
        what, steps = line.split()
        if what == "limit":
            print(json.dumps({"tflops": limit(args.precision)}), flush=True)
            continue
        begun, cpu = time.perf_counter(), time.process_time()
        images = ways[what](int(steps))
        found = {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - cpu, "images": images}
        print(json.dumps(found), flush=True)


def training(args: argparse.Namespace, kind: str, folder: str) -> dict[str, Callable[[int], int]]:
    """Build the network and take two steps; return what can be asked for."""
    from pipeline.quiet import load_tensorflow

    load_tensorflow()
    import keras
    import numpy as np
    import tensorflow as tf

    from pipeline.augment import build_augment
    from pipeline.input_pipeline import training_batches
    from pipeline.params import LossParams, ModelParams, OptimizerParams, Params, TrainParams
    from pipeline.shards import open_processed
    from pipeline.training.cluster import place_of
    from pipeline.training.losses import build_loss
    from pipeline.training.network import build_model, freeze_backbone
    from pipeline.training.optimizers import build_optimizer
    from pipeline.training.trainer import set_up

    if args.threads:
        tf.config.threading.set_intra_op_parallelism_threads(args.threads)
        tf.config.threading.set_inter_op_parallelism_threads(args.threads)
    ours = kind == "ours"
    data = open_processed(Path(folder))
    params = Params(train=TrainParams(batch_size=args.batch, epochs=1_000_000, precision=args.precision))
    set_up(params if ours else replace(params, train=replace(params.train, deterministic=False)))
    with place_of(params.train, {}).strategy.scope() if ours else contextlib.nullcontext():
        model = build_model(ModelParams(weights="none"), args.size, np.full(FINDINGS, 0.1), fused=ours)
        if args.frozen:
            freeze_backbone(model)
        optimizer = build_optimizer(OptimizerParams(), 1e-4) if ours else keras.optimizers.Adam(1e-4)
        model.compile(optimizer, build_loss(LossParams()), jit_compile=args.xla)
    augment = build_augment(params.augment, 7)
    one = next(iter(training_batches(data, params, augment, 1)))
    streams: dict[str, Any] = {"memory": tf.data.Dataset.from_tensors(one).repeat()}
    if kind == "ours":
        whole = training_batches(data, params, augment, 1_000_000)
        streams["fed"] = whole.filter(lambda images, _labels: tf.shape(images)[0] == args.batch)
    model.make_train_function()

    def run(stream: Any) -> Callable[[int], int]:
        batches = iter(stream)

        def steps(count: int) -> int:
            for _ in range(count):
                logs = model.train_function(batches)
            [float(value) for value in keras.tree.flatten(logs)]  # waits for the device
            return count * args.batch

        steps(2)
        return steps

    ways = {name: run(stream) for name, stream in streams.items()}
    if args.frozen and kind == "ours":
        ways["cached"] = cached(model, data, params, args.epochs)
    return ways


def cached(model: Any, data: Any, params: Any, epochs: int) -> Callable[[int], int]:
    """Return what computes the features and trains the head for some epochs on them."""
    import keras

    from pipeline.params import LossParams
    from pipeline.training.features import feature_batches, head_of, pooled_features
    from pipeline.training.losses import build_loss

    head = head_of(model)
    head.compile(keras.optimizers.Adam(1e-3), build_loss(LossParams()), jit_compile=False)

    def run(_steps: int) -> int:
        features = pooled_features(model, data, "train", params.train.batch_size)
        head.fit(feature_batches(features, data.labels, params, epochs), shuffle=False, verbose=0)
        return len(features) * epochs

    run(1)
    return run


def limit(precision: str) -> float:
    """Return TFLOP/s of a matrix product of 4096 on a GPU, 2048 on a processor: the best of five."""
    import tensorflow as tf

    side = 4096 if tf.config.list_physical_devices("GPU") else 2048
    dtype = {"mixed_bfloat16": tf.bfloat16, "mixed_float16": tf.float16}.get(precision, tf.float32)
    matrix = tf.cast(tf.random.stateless_normal((side, side), (1, 2)), dtype)
    product = tf.function(lambda one: tf.reduce_sum(tf.cast(one @ one, tf.float32)))
    seconds = []
    for _ in range(6):
        begun = time.perf_counter()
        float(product(matrix))
        seconds.append(time.perf_counter() - begun)
    return 2 * side**3 / min(seconds[1:]) / 1e12


if __name__ == "__main__":
    main()
