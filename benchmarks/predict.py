"""How fast `cxr predict` is beside the bare runtime: decode, prepare and invoke LiteRT, with the same threads.

    python benchmarks/predict.py models/exported/int8 FOLDER [--films 1000] [--threads N] [--rounds 5]

A thousand films (the folder's, again and again if they are fewer) in blocks: both contenders take the same block, one
after the other, before anybody goes on; who begins changes from block to block. The bare runtime is what one would
write by hand: a thread for each core, each with an interpreter of one thread, its files one after the other; no gate,
no calibration, no statistics, no order to keep. With `--layouts` also: one interpreter of N threads and a pool that
decodes ahead of it.
"""

import argparse
import contextlib
import io
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import images
from pipeline.exported import Manifest
from pipeline.exporting.manifest import read_manifest
from pipeline.parallel import available_cores, use_one_thread
from pipeline.predict_files import find_films
from pipeline.predict_output import CsvRows
from pipeline.predict_stream import open_predictors, stream

Contender = Callable[[Sequence[str]], None]


def main() -> None:
    """Measure and print ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path, help="a folder of LiteRT, int8 or float16")
    parser.add_argument("folder", type=Path, help="PNG or JPEG files, also in its subfolders")
    parser.add_argument("--films", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--block", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layouts", action="store_true", help="also measure one interpreter of all threads")
    args = parser.parse_args()
    use_one_thread()
    found = sorted(str(path) for path in args.folder.rglob("*") if path.suffix.lower() in (".png", ".jpeg", ".jpg"))
    files = list(itertools.islice(itertools.cycle(found), args.films))
    contenders = {"bare runtime": bare(args.model, args.threads), "cxr predict": whole(args.model, args.threads)}
    if args.layouts:
        contenders["one interpreter, all threads"] = one_interpreter(args.model, args.threads)
        contenders["cxr predict without its gate"] = whole(args.model, args.threads, gate=False)
    for call in contenders.values():
        call(files[:16])
    rounds = [measure(files, args.block, contenders, number) for number in range(args.rounds)]
    print(f"{len(files)} films ({len(found)} different ones), {args.threads} threads, {args.rounds} rounds")
    base = [each["bare runtime"] for each in rounds]
    for name in contenders:
        wall, cpu = ([each[name][k] / first[k] for each, first in zip(rounds, base, strict=True)] for k in (0, 1))
        rate = statistics.median(len(files) / each[name][0] for each in rounds)
        print(f"{name:30} {rate:7.1f} films/s  time {ratios(wall)}  processor time {ratios(cpu)}")


def measure(
    files: Sequence[str], block: int, contenders: dict[str, Contender], number: int
) -> dict[str, tuple[float, float]]:
    """Let the contenders take turns on every block; return wall and processor seconds of each."""
    spent = {name: [0.0, 0.0] for name in contenders}
    names = list(contenders)
    for turn, start in enumerate(range(0, len(files), block), number):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            wall, cpu = time.perf_counter(), time.process_time()
            contenders[name](files[start : start + block])
            spent[name][0] += time.perf_counter() - wall
            spent[name][1] += time.process_time() - cpu
    return {name: (wall, cpu) for name, (wall, cpu) in spent.items()}


def bare(model: Path, threads: int) -> Contender:
    """Decode, prepare and invoke, as one would write it: a share of the files for each thread."""
    manifest = read_manifest(model)
    interpreters = [interpreter(model, 1) for _ in range(threads)]
    pool = ThreadPoolExecutor(threads)

    def work(engine: Any, files: Sequence[str]) -> list[Any]:
        return [invoke(engine, prepared(path, manifest)) for path in files]

    def call(files: Sequence[str]) -> None:
        shares = [files[k::threads] for k in range(threads)]
        list(pool.map(work, interpreters, shares))

    return call


def one_interpreter(model: Path, threads: int) -> Contender:
    """Decode and prepare in a pool, and invoke one interpreter of all threads."""
    manifest, engine = read_manifest(model), interpreter(model, threads)
    pool = ThreadPoolExecutor(threads)

    def call(files: Sequence[str]) -> None:
        for pixels in pool.map(lambda path: prepared(path, manifest), files):
            invoke(engine, pixels)

    return call


def whole(model: Path, threads: int, *, gate: bool = True) -> Contender:
    """Do what the command does without `--log` between opening the model and its last line, with a CSV table."""
    predictors = [replace(each, described=False) for each in open_predictors(model, threads, "youden")]
    if not gate:
        predictors = [replace(each, gate=None) for each in predictors]

    def call(files: Sequence[str]) -> None:
        table = CsvRows(io.StringIO(), predictors[0].exported.manifest.findings)
        with find_films(files) as films, contextlib.closing(stream(predictors, films.items)) as batches:
            for answers in batches:
                table(answers)

    return call


def prepared(path: str, manifest: Manifest) -> Any:
    """Read, decode and prepare a film."""
    return images.prepare(images.read_image(Path(path)), manifest.preprocess)


def interpreter(model: Path, threads: int) -> Any:
    """Open LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    opened = Interpreter(model_path=str(model / "model.tflite"), num_threads=threads)
    opened.allocate_tensors()
    return opened


def invoke(engine: Any, pixels: Any) -> list[Any]:
    """Run one image, and fetch the outputs as they are."""
    (entry,) = engine.get_input_details()
    batch = pixels[None, :, :, None]
    engine.set_tensor(entry["index"], batch if entry["dtype"] == np.uint8 else batch.astype(entry["dtype"]))
    engine.invoke()
    return [engine.get_tensor(each["index"]) for each in engine.get_output_details()]


def ratios(values: Sequence[float]) -> str:
    """Return median and range."""
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
