"""How fast `preprocess` is: beside OpenCV's reading alone, beside itself on one core, and beside other libraries.

    python benchmarks/preprocess.py FOLDER [--peers PYTHON] [--rounds N] [--copies N]

All contenders take the same files, in turns, each round of each in a new process.
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
from pathlib import Path
from typing import Any

from peers import CONTENDERS

from pipeline.parallel import available_cores
from pipeline.progress import set_quiet

# A worker process imports this file anew, as it imports the program `cxr`: what is slow is imported where it is used.

BASE = "cv2.imread"
ONE, ALL = "preprocess, 1 core", "preprocess, all cores"
MANY = "preprocess, 1 core, many"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="PNG or JPEG files, also in its subfolders")
    parser.add_argument("--peers", default=sys.executable, help="Python that has the packages of requirements.txt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--copies", type=int, default=8, help="rows for each file when cores are compared")
    parser.add_argument("--ours", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ours:
        print(json.dumps(run_ours(*map(Path, args.ours[:2]), args.folder, int(args.ours[2]), args.ours[3] == "one")))
        return
    from tables import write_tables

    files = sorted(path for path in args.folder.rglob("*") if path.suffix.lower() in (".png", ".jpeg", ".jpg"))
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder, "few"), Path(folder, "many")
        for tables, rows in ((few, len(files)), (many, len(files) * args.copies)):
            tables.mkdir()
            write_tables(tables, args.folder, files, rows)
        results = measure(args, files, few, many)
    show(results, len(files), args)


def measure(args: argparse.Namespace, files: list[Path], few: Path, many: Path) -> dict[str, list[dict[str, Any]]]:
    """Run all contenders in turns."""
    ours = [sys.executable, __file__, str(args.folder), "--ours"]
    commands = {name: [sys.executable if name == BASE else args.peers, "peers.py", name] for name in CONTENDERS}
    commands |= {ONE: [*ours, str(few), "out", "1", "one"], MANY: [*ours, str(many), "out", "1", "one"]}
    commands[ALL] = [*ours, str(many), "out", str(available_cores()), "all"]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    names = json.dumps([str(path.resolve()) for path in files])
    for number in range(args.rounds):
        for name, command in commands.items():
            done = subprocess.run(
                command, input=names, capture_output=True, text=True, cwd=Path(__file__).parent, check=False
            )
            if done.returncode:
                sys.exit(f"{name} failed: {done.stderr}")
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
    return results


def run_ours(tables: Path, out: Path, raw: Path, workers: int, one: bool) -> dict[str, Any]:
    """Take the time of the whole stage: tables, checks of every image against its hash, shards synced to disk."""
    if one and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
    set_quiet(True)
    import cv2

    from pipeline.params import Params
    from pipeline.preprocess import preprocess

    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(dir=tables) as folder:
        wall, cpu = time.perf_counter(), cpu_seconds()
        preprocess(tables / "manifest.csv", tables / "splits.csv", Path(folder, out), raw, Params(), workers)
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
        meta = json.loads(Path(folder, out, "meta.json").read_text(encoding="utf-8"))
    return {"wall": wall, "cpu": cpu, "images": sum(shard["images"] for shard in meta["shards"])}


def cpu_seconds() -> float:
    """Return the processor time of this process and of those that it has started and that have ended."""
    usages = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def show(results: dict[str, list[dict[str, Any]]], files: int, args: argparse.Namespace) -> None:
    """Print medians and ranges of the ratios within a round."""
    print(f"{files} files, {args.rounds} rounds; time an image, as a multiple of {BASE} in the same round")
    print(f"| {'contender':26} | images | wall: median (range) | processor: median (range) |")
    print(f"| {'-' * 26} | ---: | ---: | ---: |")
    for name, rounds in results.items():
        if "missing" in rounds[0]:
            print(f"| {name:26} | not installed: {rounds[0]['missing']} | | |")
            continue
        cells = [spread(ratios(rounds, results[BASE], kind)) for kind in ("wall", "cpu")]
        print(f"| {name:26} | {rounds[0]['images']} | {cells[0]} | {cells[1]} |")
    gain = spread(ratios(results[MANY], results[ALL], "wall"))
    print(f"{available_cores()} cores against one, {files * args.copies} images, whole stage: {gain} times faster")


def ratios(rounds: list[dict[str, Any]], base: list[dict[str, Any]], kind: str) -> list[float]:
    """Return the ratios of the time an image, round by round."""
    return [a[kind] / a["images"] / (b[kind] / b["images"]) for a, b in zip(rounds, base, strict=True)]


def spread(values: list[float]) -> str:
    """Return the median and the range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
