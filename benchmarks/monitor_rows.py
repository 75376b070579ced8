"""How long `cxr monitor` takes over a long log, and how much memory: 1,000,000 rows by default, and a tenth of it.

    python benchmarks/monitor_rows.py [--rows N] [--folder FOLDER] [--labelled SHARE]

The rows are drawn like those of a model of 14 findings: 17 statistics, a sketch, outputs, decisions, four latencies.
Each log is judged in a process of its own, which prints its wall time, its processor time and its peak resident set.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from pipeline.findings import NIH14
from pipeline.image_statistics import FILM_STATISTICS, STATISTICS
from pipeline.log_store.opening import open_store
from pipeline.log_store.tables import LABELS, MODELS, PREDICTIONS
from pipeline.monitoring.reference import Reference, write_reference

NAMES = (*STATISTICS, *FILM_STATISTICS)
STEPS = ("queue", "decode", "prepare", "model")
MODEL = "0123456789ab"


def reference(path: Path, rng: np.random.Generator) -> None:
    """Write a reference of 2,000 images of 800 patients."""
    n, k = 2000, len(NIH14)
    outputs = rng.beta(1, 4, (n, k)).astype(np.float32)
    plain = {name: {"method": "none", "parameters": {}} for name in NIH14}
    points: dict[str, dict[str, float | None]] = {name: {"youden": 0.3} for name in NIH14}
    write_reference(
        path,
        Reference(
            model=MODEL,
            findings=tuple(NIH14),
            calibration={"findings": plain},
            points=points,
            dataset="drawn",
            patients=np.sort(rng.integers(0, 800, n)),
            test=rng.random(n) < 0.3,
            view=rng.integers(1, 3, n).astype(np.int8),
            statistics={name: rng.standard_normal(n).astype(np.float32) for name in NAMES},
            sketch=rng.standard_normal((n, 16)).astype(np.float32),
            probabilities=outputs,
            labels=(rng.random((n, k)) < outputs).astype(np.int8),
        ),
    )


def fill(path: Path, rows: int, labelled: float, rng: np.random.Generator) -> None:
    """Write a log of so many rows, in blocks of 20,000; every block has the same packed values in another order."""
    engine = open_store(str(path))
    names = {"findings": list(NIH14), "statistics": NAMES, "steps": STEPS}
    with engine.begin() as connection:
        connection.execute(sa.insert(MODELS).values(id=1, version=f"{MODEL}-int8", names=json.dumps(names)))
    start = time.time() - rows
    for first in range(0, rows, 20_000):
        n = min(20_000, rows - first)
        outputs = rng.beta(1, 4, (n, len(NIH14))).astype("<f4")
        packed = {
            "statistics": rng.standard_normal((n, len(NAMES))).astype("<f4"),
            "sketch": rng.standard_normal((n, 16)).astype("<f4"),
            "probabilities": outputs,
            "decisions": (outputs >= 0.3).astype("i1"),
            "latency": rng.lognormal(1, 0.3, (n, len(STEPS))).astype("<f4"),
        }
        values = [
            {
                "time": start + first + k,
                "request_id": f"{first + k:x}",
                "image": 0,
                "model": 1,
                "status": 0,
                "reasons": "",
            }
            | {name: table[k].tobytes() for name, table in packed.items()}
            for k in range(n)
        ]
        truth = (rng.random(outputs.shape) < outputs).astype("i1")
        known = np.flatnonzero(rng.random(n) < labelled)
        labels = [
            {
                "request_id": f"{first + k:x}",
                "image": 0,
                "time": start + first + k + 9e4,
                "patient": int(k),
                "truth": truth[k].tobytes(),
            }
            for k in known
        ]
        with engine.begin() as connection:
            connection.execute(sa.insert(PREDICTIONS), values)
            if labels:
                connection.execute(sa.insert(LABELS), labels)
    engine.dispose()


def measure(folder: Path, log: Path) -> None:
    """Judge a log in a process of its own and print what it took."""
    params = folder / "params.yaml"
    params.write_text("monitor: {track: false}\n", encoding="utf-8")
    paths = [str(folder / "reference.npz"), str(log), "--out", str(folder / "out"), "--params", str(params), "-q"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "pipeline.cli", "monitor", *paths], check=False)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"{log.stem}: status {done.returncode}, {seconds:.1f} s, {used:.1f} s of processor time, peak so far "
        f"{after.ru_maxrss / 1024:.0f} MiB; log {log.stat().st_size / 2**20:.0f} MiB",
        flush=True,
    )


def main() -> None:
    """Make the logs and judge them, the small one first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--labelled", type=float, default=0.1)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(7)
        reference(folder / "reference.npz", rng)
        for rows in (args.rows // 10, args.rows):
            log = folder / f"{rows} rows.db"
            if not log.exists():
                fill(log, rows, args.labelled, rng)
            measure(folder, log)


if __name__ == "__main__":
    main()
