"""A reference and the log of a deployment of the same made-up films as in `log_case`."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from log_case import FINDINGS, MODEL, STATISTICS, answers, manifest

from pipeline.log_store.reading import Rows
from pipeline.monitoring.reference import Reference
from pipeline.params import LogParams
from pipeline.prediction_log import PredictionLog

STEPS = ("decode", "model")


def reference(seed: int = 0, patients: int = 200, films: int = 3) -> Reference:
    """Return the reference: three films a patient, a third of the patients for test, outputs that are calibrated."""
    rng = np.random.default_rng([1, seed])
    made = answers(patients * films, rng, films=films)
    outputs = np.stack([one.raw for one in made])
    n = len(made)
    return Reference(
        model=MODEL,
        findings=FINDINGS,
        calibration={"findings": {name: {"method": "none", "parameters": {}} for name in FINDINGS}},
        points={name: {"youden": 0.5} for name in FINDINGS},
        dataset="made up",
        patients=np.repeat(np.arange(patients), films),
        test=np.arange(n) >= n * 2 // 3,
        view=rng.integers(1, 3, n).astype(np.int8),
        statistics={name: np.array([one.statistics[name] for one in made], np.float32) for name in STATISTICS},
        sketch=np.stack([one.sketch for one in made]),
        probabilities=outputs,
        labels=(rng.random(outputs.shape) < outputs).astype(np.int8),
    )


def write_log(path: Path, *parts: tuple[int, float, float], seed: int = 0) -> None:
    """Write a log: for each part so many films, shifted by so many deviations, so many times slower; ids r0, r1, …"""
    rng = np.random.default_rng([2, seed])
    number = 0
    with PredictionLog(str(path), manifest(), LogParams(batch=500)) as log:
        for n, shift, slower in parts:
            for one in answers(n, rng, shift, slower):
                log.append([one], f"r{number}")
                number += 1


def rows(n: int, rng: np.random.Generator, start: int = 0, shift: float = 0.0, slower: float = 1.0) -> Rows:
    """Return rows as they come out of the log, without one."""
    made = answers(n, rng, shift, slower)
    return Rows(
        ids=np.arange(start, start + n),
        times=np.arange(start, start + n, dtype=np.float64),
        status=np.zeros(n, np.int8),
        statistics={name: np.array([one.statistics[name] for one in made], np.float32) for name in STATISTICS},
        sketch=np.stack([one.sketch for one in made]),
        probabilities=np.stack([one.raw for one in made]),
        decisions=np.stack([one.decisions for one in made]),
        latency={step: np.array([one.timings[step] for one in made], np.float32) for step in STEPS},
    )


def pieces(whole: Rows, sizes: list[int]) -> Iterator[Rows]:
    """Cut rows into pieces of these sizes, and what is left."""
    start = 0
    for size in [*sizes, len(whole)]:
        part = slice(start, min(len(whole), start + size))
        start = part.stop
        if part.stop > part.start:
            arrays = {
                name: {key: values[part] for key, values in each.items()} if isinstance(each, dict) else each[part]
                for name in Rows.__dataclass_fields__
                for each in [getattr(whole, name)]
            }
            yield Rows(**arrays)
