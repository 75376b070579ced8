"""Whether the memory of `preprocess` grows with the number of images: peak of all its processes, for several numbers.

    python benchmarks/preprocess_memory.py [--rows 1000 10000 100000]

The images are small and few, and each is named by many rows, so that the disk stays small; tables and shards are whole.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import cv2
import numpy as np
import psutil
from tables import write_tables

RUN = """
import sys
from pathlib import Path
from pipeline.params import Params, PreprocessParams
from pipeline.preprocess import preprocess

if __name__ == "__main__":
    manifest, splits, out, raw = map(Path, sys.argv[1:])
    preprocess(manifest, splits, out, raw, Params(preprocess=PreprocessParams(size=64)))
"""


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    args = parser.parse_args()
    print("| images | owner, MB | largest worker, MB | all together, MB |\n| ---: | ---: | ---: | ---: |")
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            owner, worker, together = measure(Path(folder), rows)
        print(f"| {rows:,} | {owner:.0f} | {worker:.0f} | {together:.0f} |", flush=True)


def measure(folder: Path, rows: int) -> tuple[float, float, float]:
    """Run the stage in a process of its own; return peaks in MB."""
    raw = folder / "raw"
    raw.mkdir()
    rng = np.random.default_rng(0)
    files = [raw / f"{n}.png" for n in range(20)]
    for path in files:
        cv2.imwrite(str(path), rng.integers(0, 256, (64, 64), dtype=np.uint8))
    tables = write_tables(folder, raw, files, rows)
    script = folder / "run.py"
    script.write_text(RUN, encoding="utf-8")
    command = [sys.executable, str(script), *map(str, tables), str(folder / "out"), str(raw)]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}) as process:
        peaks = watch(psutil.Process(process.pid), process)
    if process.returncode:
        sys.exit("the stage failed")
    return peaks


def watch(owner: psutil.Process, process: subprocess.Popen[bytes]) -> tuple[float, float, float]:
    """Look at the resident memory twenty times a second until the process ends; pages that are shared count twice."""
    peaks = [0, 0, 0]
    ended = threading.Event()
    threading.Thread(target=lambda: (process.wait(), ended.set())).start()
    while not ended.wait(0.05):
        try:
            mine = owner.memory_info().rss
            children = [child.memory_info().rss for child in owner.children()]
        except psutil.NoSuchProcess:
            continue
        for index, value in enumerate((mine, max(children, default=0), mine + sum(children))):
            peaks[index] = max(peaks[index], value)
    return peaks[0] / 1e6, peaks[1] / 1e6, peaks[2] / 1e6


if __name__ == "__main__":
    main()
