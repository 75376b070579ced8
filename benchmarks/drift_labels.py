"""How often accuracy cries wolf, and how soon it hears one, when the truth comes late and not for all films.

    python benchmarks/drift_labels.py --cache FOLDER [--repeats 100]

100 films a day are answered (`drift.py` says how they are drawn); the truth of a film comes at once, or after a time
drawn from an exponential distribution; of the films without a call for any finding only a fifth get one. From day 20 on
the outputs of some films are those of another film: the model knows nothing of them any more.
"""

import argparse
from pathlib import Path

import numpy as np
from drift import Pool, films, nothing_known, reference_of
from numpy.typing import NDArray

from pipeline.findings import NIH14
from pipeline.log_store.reading import Labelled
from pipeline.monitoring.accuracy import bands_of, label_weights
from pipeline.monitoring.accuracy_watch import AccuracyWatch
from pipeline.monitoring.scores import BANDS, Ranks
from pipeline.params import MonitorParams

A_DAY, DAYS, BEGIN, SECONDS = 100, 120, 20, 86_400.0


def stream(base: Pool, lost: float, delay: float, rng: np.random.Generator) -> tuple[Labelled, NDArray[np.float32]]:
    """Return the labelled films in the order in which their truth came, and the outputs of all films."""
    n = A_DAY * DAYS
    rows = films(base, rng, n)
    outputs, truth = base.probabilities[rows].copy(), base.labels[rows]
    times = np.arange(n) / A_DAY * SECONDS
    broken = (times >= BEGIN * SECONDS) & (rng.random(n) < lost)
    outputs[broken] = base.probabilities[rng.integers(0, len(base.probabilities), int(broken.sum()))]
    called = (outputs >= np.quantile(base.probabilities, 0.8, axis=0)).any(axis=1)
    labelled = called | (rng.random(n) < 0.2)
    arrived = times + (rng.exponential(delay * SECONDS, n) if delay else 0)
    order = np.flatnonzero(labelled & (arrived < DAYS * SECONDS))
    order = order[np.argsort(arrived[order], kind="stable")]
    starts = np.append(0, np.cumsum([len(part) for part in base.rows]))
    people = np.searchsorted(starts, rows, side="right")
    return Labelled(times[order], arrived[order], people[order], truth[order], outputs[order]), outputs


def deployment(base: Pool, lost: float, delay: float, seed: int) -> tuple[int, int, float]:
    """Return windows, windows with a warning, and the day of the alarm (infinite for none)."""
    rng = np.random.default_rng([20_262, seed])
    params = MonitorParams()
    reference = reference_of(base, *nothing_known(base), rng)
    rows, outputs = stream(base, lost, delay, rng)
    watch, ranks = AccuracyWatch(reference, params), Ranks.of(reference.probabilities)
    answered, labelled = (
        np.stack([(bands_of(ranks(each)) == band).sum(axis=0) for band in range(BANDS)], axis=1).astype(float)
        for each in (outputs, rows.probabilities)
    )
    warned = 0
    for start in range(0, len(rows) - params.labelled, params.labelled):
        window = rows[start : start + params.labelled]
        watch.judge(window, label_weights(answered, labelled, bands_of(ranks(window.probabilities))))
        warned += any(row["q"] <= params.fdr for row in watch.windows[-1]["measures"].values())
        if watch.raised:
            return watch.count, warned, float(window.arrived.max() / SECONDS)
    return watch.count, warned, np.inf


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=100)
    args = parser.parse_args()
    base = Pool.read(args.cache / "base.asked.npz")
    assert base.labels.shape[1] == len(NIH14)
    print("| outputs lost | truth comes after | deployments | alarm | median of the images until it | 95 % within |")
    print("| --- | --- | --- | --- | --- | --- |")
    for lost in (0.0, 0.3, 1.0):
        for delay in (0, 7, 30):
            found = [deployment(base, lost, delay, seed) for seed in range(args.repeats)]
            days = np.array([day for _, _, day in found])
            late = (days - BEGIN) * A_DAY
            middle, most = (np.quantile(late, level, method="higher") for level in (0.5, 0.95))
            shown = [f"{value:,.0f}" if np.isfinite(value) else "–" for value in (middle, most)]
            when = f"{delay} days" if delay else "at once"
            alarms = 100 * np.isfinite(days).mean()
            extra = ""
            if not lost:
                windows = sum(count for count, _, _ in found)
                extra = f" ({100 * sum(warned for _, warned, _ in found) / windows:.1f} warnings per 100 windows)"
                shown = ["", ""]
            print(
                f"| {lost:.0%} | {when} | {len(found)} | {alarms:.0f} %{extra} | {shown[0]} | {shown[1]} |", flush=True
            )


if __name__ == "__main__":
    main()
