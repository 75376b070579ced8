"""How fast simulated films are drawn, with their boxes, by one core.

    python benchmarks/drawing.py [--sizes 256 512 1024] [--films 48] [--repeats 5]

Each film is drawn, encoded and boxed as `cxr simulate` does it, in this process, with OpenCV on one thread. Films a
second are of processor time, median and range over the repeats, which take turns with those of the other sizes. The
ratio is to a named peer in the same run: `cv2.imencode` with its default settings on the same films.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from pipeline.datasets.simulated.cohort import draw_patient
from pipeline.datasets.simulated.write import draw_patient_files
from pipeline.params import SimulateParams


def seconds(work: Callable[[], object]) -> float:
    """Return the processor time of one call."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def patients_of(params: SimulateParams, films: int) -> tuple[list[int], int]:
    """Return the first patients who have at least so many films together, and how many they have."""
    numbers, count = [], 0
    while count < films:
        numbers.append(len(numbers) + 1)
        count += len(draw_patient(params, numbers[-1]).films)
    return numbers, count


def once(params: SimulateParams, films: int) -> tuple[float, float]:
    """Return films a second, and how many times as long a film takes as its encoding by the peer."""
    numbers, count = patients_of(params, films)
    with TemporaryDirectory() as folder:
        images = Path(folder)
        taken = seconds(lambda: [draw_patient_files(params, images, number) for number in numbers])
        pixels = [np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) for path in sorted(images.glob("*.png"))]
    peer = seconds(lambda: [cv2.imencode(".png", each) for each in pixels])
    return count / taken, taken / peer


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024], help="pixels a side")
    parser.add_argument("--films", type=int, default=48, help="of each size and repeat, at least")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    once(SimulateParams(size=64), 4)  # what is made once a process
    found: dict[int, list[tuple[float, float]]] = {size: [] for size in args.sizes}
    for _ in range(args.repeats):
        for size in args.sizes:
            found[size].append(once(SimulateParams(size=size), args.films))
    print("| pixels | films a second of one core | time of a film, in encodings by cv2.imencode |\n| --- | --- | --- |")
    for size, rows in found.items():
        cells = [f"{np.median(each):.1f} ({min(each):.1f} to {max(each):.1f})" for each in zip(*rows, strict=True)]
        print(f"| {size} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
