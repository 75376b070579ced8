"""How fast the bootstrap of AUROC is, beside a loop over scikit-learn with the same weights, and how far they differ.

    python benchmarks/bootstrap.py [--images 25596] [--patients 2797] [--resamples 2000] [--loop 20] [--full]

Both in one run, on one core, on the same simulated table of 14 findings with NIH ChestX-ray14's prevalences (counts of
the whole set). The loop calls `sklearn.metrics.roc_auc_score` with `sample_weight` once a finding and resample. It
takes minutes, so its first `--loop` resamples of every finding are timed and scaled to all; `--full` runs it whole.
Times are of the processor, which other programs disturb less than the clock.
"""

import argparse
import os
import time

import numpy as np

from pipeline.params import EvaluateParams
from pipeline.statistics.bootstrap import Resamples, replicate, resample
from pipeline.statistics.intervals import Floats
from pipeline.statistics.ranks import rank_statistic

# Positive images of 112,120, in the order of pipeline.findings.NIH14.
COUNTS = (11559, 2776, 13317, 19894, 5782, 6331, 1431, 5302, 4667, 2303, 2516, 1686, 3385, 227)
ALL = 112_120


def simulate(images: int, patients: int, seed: int) -> tuple[np.ndarray, Floats, Floats]:
    """Return patients, labels and probabilities (float32, as a network gives them); both cluster in patients."""
    rng = np.random.default_rng(seed)
    share = rng.lognormal(0, 1.2, patients)
    patient = np.concatenate([np.arange(patients), rng.choice(patients, images - patients, p=share / share.sum())])
    shape = (patients, len(COUNTS))
    burden = rng.normal(size=shape)[patient] + rng.normal(size=(images, len(COUNTS)))
    limits = [np.quantile(burden[:, k], 1 - count / ALL) for k, count in enumerate(COUNTS)]
    labels = (burden > limits).astype(np.float64)
    logit = 1.5 * labels - 3 + rng.normal(size=shape)[patient] + rng.normal(size=labels.shape)
    return patient.astype(str), labels, (1 / (1 + np.exp(-logit))).astype(np.float32).astype(np.float64)


def ours(labels: Floats, probabilities: Floats, resamples: Resamples) -> Floats:
    """Return the AUROCs, shape (n_findings, n_resamples), as the pipeline computes them."""
    return np.stack(
        [
            replicate(rank_statistic(labels[:, k], probabilities[:, k], resamples), resamples).draws[0]
            for k in range(labels.shape[1])
        ]
    )


def loop(labels: Floats, probabilities: Floats, resamples: Resamples, first: int) -> Floats:
    """Return those of the first resamples by scikit-learn."""
    from sklearn.metrics import roc_auc_score

    result = np.empty((labels.shape[1], first))
    for draw in range(first):
        weights = resamples.draws[:, draw][resamples.patient].astype(np.float64)
        for k in range(labels.shape[1]):
            result[k, draw] = roc_auc_score(labels[:, k], probabilities[:, k], sample_weight=weights)
    return result


def main() -> None:
    """Time both and compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=25_596, help="as in NIH's official test list")
    parser.add_argument("--patients", type=int, default=2_797)
    parser.add_argument("--resamples", type=int, default=2_000)
    parser.add_argument("--loop", type=int, default=20, help="resamples of scikit-learn's loop that are timed")
    parser.add_argument("--full", action="store_true", help="time the whole loop (minutes)")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    first = args.resamples if args.full else min(args.loop, args.resamples)
    patients, labels, probabilities = simulate(args.images, args.patients, args.seed)
    resamples = resample(patients, labels, EvaluateParams(resamples=args.resamples, seed=args.seed))
    loop(labels, probabilities, resamples, 1)  # imports and first calls
    start = time.process_time()
    fast = ours(labels, probabilities, resamples)
    seconds = time.process_time() - start
    start = time.process_time()
    slow = loop(labels, probabilities, resamples, first)
    looped = (time.process_time() - start) * args.resamples / first
    print(
        f"{labels.shape[1]} findings x {args.images:,} images of {args.patients:,} patients x {args.resamples:,} draws"
    )
    print(f"pipeline.statistics, AUROC, average precision and jackknife   {seconds:8.1f} s")
    said = "whole" if first == args.resamples else f"{first} of {args.resamples:,} resamples timed and scaled"
    print(f"loop over sklearn.metrics.roc_auc_score, AUROC alone          {looped:8.1f} s   ({said})")
    print(f"ratio                                                         {looped / seconds:8.1f}")
    print(f"largest difference of {slow.size:,} AUROCs                     {np.abs(fast[:, :first] - slow).max():.1e}")


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    main()
