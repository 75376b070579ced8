"""Break files on purpose and read them: images, DICOM, label tables, manifests, archives.

    python benchmarks/fuzz.py --files 10000 --seed 1 [--real FOLDER]

Every broken file has to end in a result or in an error of one line. Tracebacks, a process that dies, a file that takes
longer than the limit, or more memory than the bound are faults: they are listed with the seed that makes them again,
and the exit status is 1. The same seed breaks the same files in the same way.
"""

import argparse
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from fuzz_cases import Seed, clear, make_seeds, mutate, read

LIMIT = 90.0  # seconds a file; a decoder in a process of its own is given up after 60
MEMORY = 2048  # MiB of a process that has read many files: the default bound of pixels is far above the one used here
_PLANTED = ("abort", "hang", "traceback", "memory")
OUTCOMES = ("read", "refused", "traceback", "crash", "hang")


def case(number: int, seed: int, seeds: Sequence[Seed]) -> tuple[Seed, bytes]:
    """Return the file that is broken and the result, the same for the same numbers."""
    if seeds[0].kind == "planted":
        return seeds[number % len(seeds)], b""
    rng = random.Random(f"{seed} {number}")
    kinds = sorted({item.kind.split()[0] for item in seeds})
    # A table takes ten times as long as an image, and has fewer ways to be broken.
    weights = [{"image": 4, "dicom": 4, "real": 4}.get(kind, 1) for kind in kinds]
    kind = rng.choices(kinds, weights)[0]
    chosen = rng.choice([item for item in seeds if item.kind.split()[0] == kind])
    other = rng.choice([item for item in seeds if item.kind == chosen.kind]).data
    return chosen, mutate(chosen, other, rng)


def work(pipe: Connection, numbers: range, seed: int, seeds: list[Seed], folder: Path) -> None:
    """Read the cases in this process; say before each which it is, and after it how it ended."""
    from pipeline.errors import UserError
    from pipeline.progress import set_quiet

    set_quiet(True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for number in numbers:
        chosen, data = case(number, seed, seeds)
        pipe.send(("start", number, chosen.kind, chosen.name))
        clear(folder)
        outcome, detail = "read", ""
        try:
            read(chosen.kind, chosen.name, data, folder)
        except UserError as error:
            outcome = "refused" if str(error) and "\n" not in str(error) else "traceback"
            detail = "" if outcome == "refused" else repr(error)
        except Exception as error:  # what must never come out, whatever it is: counted, and the run fails
            last = traceback.extract_tb(error.__traceback__)[-1]
            ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/pipeline/" in frame.filename]
            place = ours[-1] if ours else last
            outcome, detail = "traceback", f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
        used = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        pipe.send(("end", number, outcome, detail, used // 1024))


def watch(
    numbers: range, seed: int, seeds: list[Seed], limit: float
) -> tuple[Counter[tuple[str, str]], list[str], int]:
    """Run the cases in child processes, a new one after each death; return counts, faults and the peak in MiB."""
    counts: Counter[tuple[str, str]] = Counter()
    faults: list[str] = []
    peak, at = 0, numbers.start
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        while at < numbers.stop:
            here, there = context.Pipe(duplex=False)
            batch = range(at, min(at + 500, numbers.stop))
            child = context.Process(target=work, args=(there, batch, seed, seeds, Path(folder) / "case"))
            child.start()
            there.close()
            kind, name = "", ""
            while True:
                if not here.poll(limit):
                    outcome = "hang"
                    break
                try:
                    message = here.recv()
                except EOFError:
                    outcome = "crash"
                    break
                if message[0] == "start":
                    _, at, kind, name = message
                else:
                    counts[kind, message[2]] += 1
                    if message[3]:
                        faults.append(f"{at}: {kind} {name}: {message[2]}: {message[3]}")
                    peak = max(peak, message[4])
                    at += 1
            child.kill()
            child.join()
            if at < batch.stop:
                counts[kind, outcome] += 1
                faults.append(f"{at}: {kind} {name}: {outcome}, status {child.exitcode}")
                at += 1
    return counts, faults, peak


def main() -> int:
    """Run, print a table; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--real", type=Path, help="folder of real images, broken too")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds a file")
    parser.add_argument("--only", type=int, help="one case, to see it again")
    parser.add_argument("--planted", action="store_true", help="faults made on purpose: shows that they are noticed")
    options = parser.parse_args()
    seeds = [Seed("planted", name, b"") for name in _PLANTED] if options.planted else make_seeds(options.real)
    numbers = range(options.files) if options.only is None else range(options.only, options.only + 1)
    counts, faults, peak = watch(numbers, options.seed, seeds, options.limit)
    print(f"{'kind':<22}" + "".join(f"{outcome:>10}" for outcome in OUTCOMES))
    for kind in sorted({kind for kind, _ in counts}):
        print(f"{kind:<22}" + "".join(f"{counts[kind, outcome]:>10}" for outcome in OUTCOMES))
    print(f"{sum(counts.values())} files, seed {options.seed}; peak resident memory {peak} MiB, bound {MEMORY} MiB")
    for fault in faults:
        print(fault)
    return int(bool(faults) or peak > MEMORY)


if __name__ == "__main__":
    sys.exit(main())
