"""One table of every exported format beside the Keras model, OpenVINO and PyTorch, on the same images in one run.

    python -m venv peers && peers/bin/pip install torch==2.13.0 openvino==2026.4.1 numpy
    python benchmarks/inference.py [--peers peers/bin/python] [--also student=models/student/exported/int8 ...]
    python benchmarks/inference.py --random 256 [--peers peers/bin/python]

The first measures the models of `cxr export`, with the mean AUROC of the validation images (`--split test` for those of
test) and its interval. The second measures a ResNet50 of random weights at a size of one's own, without AUROC.

Every contender is a process of its own that waits while another works. In each round each is asked for some images
alone and for some batches, in changing order; p50 and p99 are over the images of all rounds, ratios are of the same
round, given as median and range. Where other programs run, the processor's time of an image alone, over all threads,
says more than the clock's. ONNX Runtime runs our `onnx`, so that is its row. PyTorch has the Keras weights in its own
ResNet50, with BatchNormalization folded and the graph frozen; for another backbone it is left out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from inference_worker import answer

Figures = dict[str, Any]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--exported", default="models/exported")
    parser.add_argument("--model", default="models/model.keras")
    parser.add_argument("--processed", default="data/processed")
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--random", type=int, metavar="SIZE", help="a ResNet50 of random weights instead")
    parser.add_argument("--also", nargs="+", default=[], metavar="NAME=FOLDER", help="more exported folders")
    parser.add_argument("--peers", help="Python of an environment that has openvino, torch or both")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--images", type=int, default=20, help="alone, of each contender in each round")
    parser.add_argument("--batches", type=int, default=2, help="of 16 images, of each contender in each round")
    parser.add_argument("--worker", nargs=2, metavar=("PATH", "IMAGES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(*args.worker, args.threads)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labels = random_models(args, folder) if args.random else trained_models(args, folder)
        results = measure(args, folder, contenders(args, folder))
        show(args, results, labels)


def work(path: str, images: str, threads: int) -> None:
    """Be a contender: an exported folder or a Keras model."""
    from pipeline.exported import open_exported
    from pipeline.exporting.runtimes import open_keras

    place = Path(path)
    keras = place.suffix == ".keras"  # without its evaluation, which a random model lacks
    engine = open_keras(place, threads) if keras else open_exported(place, threads=threads).engine
    answer(engine, np.load(images), place.name)


def trained_models(args: argparse.Namespace, folder: Path) -> Any:
    """Write the images; return the rows that they are of."""
    from pipeline.quiet import load_tensorflow
    from pipeline.shards import open_processed

    load_tensorflow()
    from pipeline.exporting.samples import read_images
    from pipeline.model import load_model

    data = open_processed(Path(args.processed))
    rows = data.rows(args.split)
    np.save(folder / "images.npy", read_images(data, args.split, np.arange(len(rows))))
    write_weights(load_model(Path(args.model)), folder / "weights.npz")
    args.exported, args.model = Path(args.exported), Path(args.model)
    return data, rows


def random_models(args: argparse.Namespace, folder: Path) -> None:
    """Export a ResNet50 of random weights, and write images of noise."""
    from pipeline.quiet import load_tensorflow

    load_tensorflow()
    import keras

    from pipeline.exporting.convert import convert
    from pipeline.exporting.manifest import FORMATS, MANIFEST, Manifest, hashes
    from pipeline.exporting.network import in_float32, with_features
    from pipeline.files import sha256_file, write_json
    from pipeline.params import ModelParams, PreprocessParams
    from pipeline.training.network import build_model

    keras.utils.set_random_seed(7)
    model = build_model(ModelParams(weights="none"), args.random, np.full(14, 0.1))
    args.exported, args.model = folder / "exported", folder / "model.keras"
    model.save(args.model)
    images = np.random.default_rng(7).integers(0, 256, (32, args.random, args.random, 1), dtype=np.uint8)
    np.save(folder / "images.npy", images)
    write_weights(model, folder / "weights.npz")
    network = with_features(in_float32(model))
    names = tuple(f"F{number}" for number in range(14))
    none = {"findings": {name: {"method": "none", "parameters": {}} for name in names}}
    for kind in FORMATS:
        place = args.exported / kind
        place.mkdir(parents=True)
        convert(kind, network, place, images[:8])
        about = Manifest(
            format=kind,
            files=hashes(place),
            model_sha256=sha256_file(args.model),
            findings=names,
            preprocess=PreprocessParams(size=args.random),
            calibration=none,
            operating_points={name: {} for name in names},
            flip=False,
            versions={},
            training={},
            title="random weights",
        )
        write_json(place / MANIFEST, about.as_dict())


def write_weights(model: Any, path: Path) -> None:
    """Write the weights of a ResNet50 for PyTorch, by name; nothing for another backbone."""
    from pipeline.model import BACKBONE, HEAD

    if not model.name.endswith("resnet50"):
        return
    backbone, head = model.get_layer(BACKBONE), model.get_layer(HEAD)
    weights = {
        f"{layer.name}/{variable.name}": np.asarray(variable) for layer in backbone.layers for variable in layer.weights
    }
    weights |= {f"{head.name}/{variable.name}": np.asarray(variable) for variable in head.weights}
    np.savez(path, size=np.array(model.input_shape[1:3]), **weights)


def contenders(args: argparse.Namespace, folder: Path) -> dict[str, tuple[list[str], Path]]:
    """Return the command of each contender, and what its size on disk is taken of."""
    images, here = str(folder / "images.npy"), Path(__file__)
    mine = {"keras": args.model}
    mine |= {path.parent.name: path.parent for path in sorted(Path(args.exported).glob("*/manifest.json"))}
    mine |= {name: Path(path) for name, _, path in (item.partition("=") for item in args.also)}
    threads = ["--threads", str(args.threads)]
    found = {
        name: ([sys.executable, str(here), *threads, "--worker", str(path), images], path)
        for name, path in mine.items()
    }
    peer = [str(args.peers), str(here.with_name("inference_worker.py"))]
    onnx, weights = Path(args.exported) / "onnx" / "model.onnx", folder / "weights.npz"
    if args.peers and onnx.is_file():
        found["openvino"] = ([*peer, "openvino", str(onnx), images, str(args.threads)], onnx)
    if args.peers and weights.is_file():
        found["torch"] = ([*peer, "torch", str(weights), images, str(args.threads)], weights)
    return found


def measure(args: argparse.Namespace, folder: Path, commands: dict[str, tuple[list[str], Path]]) -> dict[str, Figures]:
    """Run all rounds; return times and outputs of each contender."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
    pipes: Figures = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    processes, results = {}, {}
    for name, (command, path) in commands.items():
        process = subprocess.Popen(command, **pipes)
        ready = ask(process)
        if ready is None:
            print(f"{name} is left out: it could not be opened", file=sys.stderr)
            continue
        processes[name] = process
        results[name] = {"latency": [], "cpu": [], "throughput": [], "mib": mib(path), "what": ready["ready"]}
    names, loads = list(processes), []
    for number in range(args.rounds):
        loads.append(os.getloadavg()[0])
        for name in names[number % len(names) :] + names[: number % len(names)]:
            found = ask(processes[name], f"latency {args.images}")
            results[name]["latency"].append(found["seconds"])
            results[name]["cpu"].append(found["cpu"])
            found = ask(processes[name], f"throughput {args.batches}")
            results[name]["throughput"].append(found["images"] * len(found["seconds"]) / sum(found["seconds"]))
    for name, process in processes.items():
        ask(process, f"outputs {folder / name}.npy")
        results[name]["outputs"] = np.load(folder / f"{name}.npy")
        process.terminate()
        process.wait()
    print(f"load of the machine before each round: {', '.join(f'{load:.1f}' for load in loads)}")
    return results


def ask(process: "subprocess.Popen[str]", request: str = "") -> Any:
    """Send a request, if there is one, and return the answer; None if the process has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    if request:
        process.stdin.write(request + "\n")
        process.stdin.flush()
    for line in process.stdout:
        if line.startswith("{"):  # libraries print lines of their own
            return json.loads(line)
    return None


def mib(path: Path) -> float:
    """Return the MiB of a file, or of a folder without its manifest."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files if each.name != "manifest.json") / 2**20


def show(args: argparse.Namespace, results: dict[str, Figures], labels: Any) -> None:
    """Print the table."""
    what = f"ResNet50 of random weights, {args.random}x{args.random}" if args.random else f"{args.model}, {args.split}"
    print(f"\n{what}; {args.threads} threads; {args.rounds} rounds of {args.images} images alone\n")
    print("| | MiB | p50, ms | p99, ms | SavedModel takes … times as long | processor, ms | images/s | mean AUROC |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    middles = {name: [statistics.median(one) for one in row["latency"]] for name, row in results.items()}
    for name, row in results.items():
        times = 1000 * np.concatenate(row["latency"])
        base = middles.get("saved_model", middles[name])
        ratio = ranged([a / b for a, b in zip(base, middles[name], strict=True)], 2)
        p50, p99 = np.quantile(times, (0.5, 0.99))
        speed = ranged(row["throughput"], 1)
        auc = auroc(args, labels, row["outputs"]) if labels else "–"
        cpu = f"{1000 * statistics.median(row['cpu']):.1f}"
        print(f"| {name} | {row['mib']:.1f} | {p50:.1f} | {p99:.1f} | {ratio} | {cpu} | {speed} | {auc} |")
    print()
    for name in sorted({"openvino", "torch"} & set(results)):
        apart = np.abs(results[name]["outputs"] - results["keras"]["outputs"]).max()
        print(f"{results[name]['what']}: probabilities within {apart:.1g} of the Keras model's")


def auroc(args: argparse.Namespace, labels: Any, outputs: Any) -> str:
    """Return the mean AUROC with its interval."""
    from pipeline.params_file import load_params
    from pipeline.training.closing import validation_estimate

    data, rows = labels
    known = rows[data.findings].to_numpy(np.float64, na_value=np.nan)
    params = load_params(Path(args.params)).evaluate
    found = validation_estimate(known, outputs, rows["patient_id"].to_numpy(), params)
    return f"{found.value:.4f} ({found.ci_low:.4f}–{found.ci_high:.4f})"


def ranged(values: list[float], digits: int) -> str:
    """Return median, lowest and highest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


if __name__ == "__main__":
    main()
