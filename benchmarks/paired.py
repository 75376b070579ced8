"""How often `cxr compare` shows a difference where none exists, beside DeLong's test by image, and how long it takes.

Simulated tables: patients with one to seven images, a disease of the patient, two models equally good on average that
err on different patients. Usage: python benchmarks/paired.py [TABLES] (default 600; some minutes).
"""

import sys
import time

import numpy as np
import pandas as pd

from pipeline.compare import compare_tables
from pipeline.findings import NIH14
from pipeline.params import EvaluateParams
from pipeline.statistics.bootstrap import resample
from pipeline.statistics.delong import delong
from pipeline.statistics.intervals import Floats
from pipeline.statistics.paired import p_value, scores_of


def drawn(seed: int, patients: int) -> tuple[Floats, Floats, Floats]:
    """Return owners (n_images,), labels (n_images, 1) and the outputs of two models (n_images, 2)."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), rng.integers(1, 8, patients))
    labels = (rng.random(patients)[owner] < 0.15).astype(float)
    of_patient = 0.8 * rng.normal(size=(patients, 2))[owner]
    of_image = 0.6 * rng.normal(size=(len(owner), 1)) + 0.5 * rng.normal(size=(len(owner), 2))
    return owner, labels[:, None], 1 / (1 + np.exp(-(1.2 * labels[:, None] + of_patient + of_image)))


def false_alarms(patients: int, tables: int) -> None:
    """Print the share of tables with a p value of at most 0.05."""
    params, shown, naive = EvaluateParams(resamples=400), [], []
    for seed in range(tables):
        owner, labels, outputs = drawn(seed, patients)
        resamples = resample(owner.astype(str), labels, params)
        a, b = (scores_of(labels, outputs[:, k : k + 1], resamples, params.bins) for k in (0, 1))
        shown.append(p_value(b - a) <= 0.05)
        naive.append(delong(labels[:, 0], outputs[:, 0], outputs[:, 1]).p_value() <= 0.05)
    print(f"{patients} patients, {tables} tables: shown {np.mean(shown):.3f}, DeLong by image {np.mean(naive):.3f}")


def seconds(patients: int) -> None:
    """Print the processor time of one comparison over 14 findings with the parameters' default resamples."""
    parts = [drawn(seed, patients) for seed in range(len(NIH14))]
    n = min(len(owner) for owner, _, _ in parts)
    owner = parts[0][0][:n]
    about = pd.DataFrame({"image_id": np.arange(n).astype(str), "patient_id": owner.astype(str)})
    labels = {f"y_{name}": part[1][:n, 0] for name, part in zip(NIH14, parts, strict=True)}
    tables = [
        about.assign(**labels, **{f"p_{name}": part[2][:n, k] for name, part in zip(NIH14, parts, strict=True)})
        for k in (0, 1)
    ]
    start = time.process_time()
    compare_tables(*tables, list(NIH14), EvaluateParams())
    print(f"{n} images, {len(np.unique(owner))} patients: {time.process_time() - start:.1f} s of processor time")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    seconds(6187)
    for size in (150, 800):
        false_alarms(size, count)
