"""How fast `preprocess` is: beside OpenCV's reading alone, beside other libraries, and beside itself on one core.

    python benchmarks/preprocess.py FOLDER [--peers PYTHON] [--rounds N] [--copies N] [--block N]

A machine's speed changes from minute to minute. So all contenders take the same few files, one contender after the
other on the same core, before anybody goes on to the next few; who begins changes from block to block. The whole stage
runs on one core and on all, in turns, in new processes.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from peers import BASE, CONTENDERS, OURS

from pipeline.parallel import available_cores
from pipeline.progress import set_quiet

# A worker process imports this file anew, as it imports the program `cxr`: what is slow is imported where it is used.

ONE, ALL = "one core", "all cores"
Figures = dict[str, Any]
Files = Sequence[tuple[str, str]]
"""Path and SHA-256 of the pixels."""


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="PNG or JPEG files, also in its subfolders")
    parser.add_argument("--peers", default=sys.executable, help="Python that has the packages of requirements.txt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--copies", type=int, default=8, help="rows for each file when cores are compared")
    parser.add_argument("--block", type=int, default=8, help="files of a turn")
    parser.add_argument("--stage", nargs=2, metavar=("TABLES", "CORES"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        print(json.dumps(run_stage(Path(args.stage[0]), args.folder, args.stage[1])))
        return
    from tables import write_tables

    from pipeline.images import pixel_sha256, read_image

    paths = sorted(path for path in args.folder.rglob("*") if path.suffix.lower() in (".png", ".jpeg", ".jpg"))
    files = [(str(path.resolve()), pixel_sha256(read_image(path))) for path in paths]
    print(f"{len(files)} files in blocks of {args.block}, {args.rounds} rounds")
    show_files(measure_files(files, args))
    with tempfile.TemporaryDirectory() as folder:
        write_tables(Path(folder), args.folder, paths, len(files) * args.copies)
        show_stage(measure_stage(Path(folder), args), len(files) * args.copies)


def measure_files(files: Files, args: argparse.Namespace) -> dict[str, list[Figures]]:
    """Let the contenders take turns; return for each the sums of each round, or why it could not take part."""
    blocks = [files[first : first + args.block] for first in range(0, len(files), args.block)]
    with ExitStack() as stack:
        interpreters = {name: sys.executable if name in (BASE, OURS) else args.peers for name in CONTENDERS}
        running = {name: stack.enter_context(contender(name, python)) for name, python in interpreters.items()}
        first = {name: take_turn(name, process, blocks[0]) for name, process in running.items()}
        results = {name: [figures] if "missing" in figures else [] for name, figures in first.items()}
        names = [name for name, rounds in results.items() if not rounds]
        for number in range(args.rounds):
            sums: dict[str, Figures] = {name: {"wall": 0.0, "cpu": 0.0, "images": 0} for name in names}
            for turn, block in enumerate(blocks, number):
                start = turn % len(names)
                for name in names[start:] + names[:start]:
                    figures = take_turn(name, running[name], block)
                    sums[name] = {key: sums[name][key] + figures[key] for key in sums[name]}
            for name in names:
                results[name].append(sums[name])
            print(f"files: round {number + 1} of {args.rounds}", file=sys.stderr)
    return results


@contextmanager
def contender(name: str, python: str) -> Iterator[subprocess.Popen[str]]:
    """Run `peers.py` until the block ends."""
    command = [python, "peers.py", name]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def take_turn(name: str, process: subprocess.Popen[str], files: Files) -> Figures:
    """Give a contender its files and wait for its answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(files) + "\n")
        process.stdin.flush()
    except BrokenPipeError:  # it has ended; its last line says why
        pass
    # A library may print lines of its own.
    for line in process.stdout:
        if line.startswith("{"):
            return dict(json.loads(line))
    sys.exit(f"{name} failed: its message stands above")


def measure_stage(tables: Path, args: argparse.Namespace) -> dict[str, list[Figures]]:
    """Run the whole stage on one core and on all, in turns, a new process each time."""
    results: dict[str, list[Figures]] = {ONE: [], ALL: []}
    for number in range(args.rounds):
        for cores in (ONE, ALL) if number % 2 == 0 else (ALL, ONE):
            command = [sys.executable, __file__, str(args.folder), "--stage", str(tables), cores]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                sys.exit(f"the stage on {cores} failed: its message stands above")
            results[cores].append(json.loads(done.stdout.splitlines()[-1]))
        print(f"whole stage: round {number + 1} of {args.rounds}", file=sys.stderr)
    return results


def run_stage(tables: Path, raw: Path, cores: str) -> Figures:
    """Take the time of the whole stage: tables, checks of every image against its hash, shards synced to disk."""
    if cores == ONE and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
    set_quiet(True)
    import cv2

    from pipeline.params import Params
    from pipeline.preprocess import preprocess

    cv2.setNumThreads(1)
    workers = 1 if cores == ONE else available_cores()
    with tempfile.TemporaryDirectory(dir=tables) as folder:
        wall, cpu = time.perf_counter(), cpu_seconds()
        preprocess(tables / "manifest.csv", tables / "splits.csv", Path(folder, "out"), raw, Params(), workers)
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
        meta = json.loads(Path(folder, "out", "meta.json").read_text(encoding="utf-8"))
    return {"wall": wall, "cpu": cpu, "images": sum(shard["images"] for shard in meta["shards"])}


def cpu_seconds() -> float:
    """Return the processor time of this process and of those that it has started and that have ended."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def show_files(results: dict[str, list[Figures]]) -> None:
    """Print medians and ranges, over the rounds, of the ratios to the base in the same round."""
    base = results[BASE]
    print(f"Time of a file on one core, as a multiple of {BASE} in the same round:")
    print(f"| {'contender':26} | wall: median (range) | processor: median (range) | ms |")
    print(f"| {'-' * 26} | ---: | ---: | ---: |")
    for name, rounds in results.items():
        if "missing" in rounds[0]:
            print(f"| {name:26} | not installed: {rounds[0]['missing']} | | |")
            continue
        cells = [spread([a[kind] / b[kind] for a, b in zip(rounds, base, strict=True)]) for kind in ("wall", "cpu")]
        milliseconds = statistics.median(each["wall"] / each["images"] * 1e3 for each in rounds)
        print(f"| {name:26} | {cells[0]} | {cells[1]} | {milliseconds:.2f} |")


def show_stage(results: dict[str, list[Figures]], images: int) -> None:
    """Print the stage's speed, and the gain of the cores within a round."""
    print(f"The whole stage, {images} images:")
    for name, rounds in results.items():
        rate = spread([each["images"] / each["wall"] for each in rounds], 0)
        cost = spread([each["cpu"] / each["images"] * 1e3 for each in rounds])
        print(f"{name}: {rate} images/s, {cost} ms of processor an image")
    gain = spread([a["wall"] / b["wall"] for a, b in zip(results[ONE], results[ALL], strict=True)])
    print(f"{available_cores()} cores against one: {gain} times faster")


def spread(values: list[float], digits: int = 2) -> str:
    """Return the median and the range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
