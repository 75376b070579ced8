"""How often `cxr monitor` cries wolf, and after how many images it hears one: simulated deployments, many times over.

    python benchmarks/drift_films.py draw --cache FOLDER
    python benchmarks/drift_films.py ask --cache FOLDER --model models/exported
    python benchmarks/drift.py --cache FOLDER [--repeats 200]

Patients are the population: each deployment draws its own reference (280 patients, some 670 films, as many as
validation and test of the default run have) and its own stream with replacement, whole patients with all their films,
one after another. Without a change 100 windows of 50 are judged; with one, 20 windows are as usual, then the change
begins within a window, and images are counted until an alarm names a signal.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.findings import NIH14
from pipeline.log_store.reading import Rows
from pipeline.monitoring.reference import Reference
from pipeline.monitoring.watch import Watch
from pipeline.params import MonitorParams

QUIET, WATCHED, REFERENCE_PATIENTS = 1010, 1000, 280
STEPS = ("prepare", "model")
Draw = Callable[[np.random.Generator, int], NDArray[np.intp]]


@dataclasses.dataclass(frozen=True)
class Pool:
    """Films that were asked, as one of `drift_films.CHANGED` left them; `rows` lists each patient's."""

    names: list[str]
    statistics: NDArray[np.float32]
    sketch: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int8]
    views: NDArray[np.int8]
    rows: list[NDArray[np.intp]]
    latency: NDArray[np.float32]

    @classmethod
    def read(cls, path: Path) -> "Pool":
        """Read what `drift_films.py ask` wrote."""
        with np.load(path) as stored:
            people = stored["patients"]
            rows = [np.flatnonzero(people == number) for number in np.unique(people)]
            columns = (stored[name] for name in ("statistics", "sketch", "probabilities", "labels", "views"))
            return cls(list(stored["names"]), *columns, rows, stored["latency"])


def films(pool: Pool, rng: np.random.Generator, n: int, weights: NDArray[Any] | None = None) -> NDArray[np.intp]:
    """Draw n films of patients, whole patients one after another, some more likely than others."""
    share = None if weights is None else weights / weights.sum()
    drawn = rng.choice(len(pool.rows), size=n, p=share)
    return np.concatenate([pool.rows[number] for number in drawn])[:n]


def reference_of(
    pool: Pool, calibration: dict[str, Any], points: dict[str, Any], rng: np.random.Generator
) -> Reference:
    """Draw a reference of its own."""
    drawn = rng.integers(0, len(pool.rows), REFERENCE_PATIENTS)
    rows = np.concatenate([pool.rows[number] for number in drawn])
    people = np.repeat(np.arange(len(drawn)), [len(pool.rows[number]) for number in drawn])
    return Reference(
        model="drawn",
        findings=tuple(NIH14),
        calibration=calibration,
        points=points,
        dataset="simulated",
        patients=people,
        test=rng.permutation(len(rows)) < len(rows) / 3,
        view=pool.views[rows],
        statistics={name: pool.statistics[rows, k] for k, name in enumerate(pool.names)},
        sketch=pool.sketch[rows],
        probabilities=pool.probabilities[rows],
        labels=pool.labels[rows],
    )


def log_rows(
    pool: Pool, rows: NDArray[np.intp], times: NDArray[np.float32], start: int, slower: float, rng: np.random.Generator
) -> Rows:
    """Return films as rows of the log; latencies are drawn from those that were measured, times `slower`."""
    n = len(rows)
    took = times[rng.integers(0, len(times), n)] * slower
    return Rows(
        ids=np.arange(start, start + n),
        times=np.arange(start, start + n, dtype=np.float64),
        status=np.zeros(n, np.int8),
        statistics={name: pool.statistics[rows, k] for k, name in enumerate(pool.names)},
        sketch=pool.sketch[rows],
        probabilities=pool.probabilities[rows],
        decisions=np.zeros((n, len(NIH14)), np.int8),
        latency={step: took[:, k] for k, step in enumerate(STEPS)},
    )


@dataclasses.dataclass(frozen=True)
class Change:
    """A change: the pool its films come from, how many of them, whom it brings, and how much slower answers are.

    `heavier`: a patient is so many times as likely for each of these findings that his films show in the mean.
    """

    name: str
    pool: str
    share: float = 1.0
    heavier: tuple[tuple[str, ...], float] = ((), 1.0)
    slower: float = 1.0


WINTER = ("Pneumonia", "Consolidation", "Effusion", "Infiltration")
CHANGES = (
    Change("inverted films, 20 %", "inverted", 0.2),
    Change("inverted films, all", "inverted"),
    Change("exposure +1 cm of water", "exposure-weak"),
    Change("exposure +2.5 cm of water", "exposure-strong"),
    Change("scanner blur, sigma 1 pixel", "blur-weak"),
    Change("scanner blur, sigma 2 pixels", "blur-strong"),
    Change("resolution 160 pixels, enlarged", "resolution-weak"),
    Change("resolution 96 pixels, enlarged", "resolution-strong"),
    Change("views: 65 % AP for 45 %", "view-weak"),
    Change("views: 90 % AP for 45 %", "view-strong"),
    Change("prevalence: 0.7 findings a film for 1.2", "base", heavier=(tuple(NIH14), 0.5)),
    Change("prevalence: 0.3 findings a film for 1.2", "base", heavier=(tuple(NIH14), 0.2)),
    Change("winter: four findings 2.3 times as often", "base", heavier=(WINTER, 3.0)),
    Change("winter: four findings 3.7 times as often", "base", heavier=(WINTER, 6.0)),
    Change("latency 1.25 times", "base", slower=1.25),
    Change("latency 2 times", "base", slower=2.0),
    Change("CLAHE off for 20 % of the films", "clahe-off", 0.2),
    Change("CLAHE off", "clahe-off"),
)


def deployment(
    pools: dict[str, Pool], about: tuple[dict[str, Any], dict[str, Any]], change: Change | None, seed: int, quiet: int
) -> dict[str, Any]:
    """Watch one deployment; return windows, warnings, false alarms and the images from the change to the alarm."""
    rng = np.random.default_rng([20_261, seed])
    base, params = pools["base"], MonitorParams(first_rows=500)
    watch = Watch(reference_of(pools.get("reference", base), *about, rng), params, STEPS)
    before = log_rows(base, films(base, rng, quiet), base.latency, 0, 1.0, rng)
    watch.take(watch.signals.of_log(before, STEPS))
    false = int((watch.tally.raised >= 0).sum())
    found = {"windows": watch.tally.windows, "warned": watch.tally.warned, "false": false, "images": None, "named": ""}
    if change is None or false:
        return found
    for start in range(quiet, quiet + WATCHED, params.window):
        rows = changed_rows(pools, change, start, params.window, rng)
        watch.take(watch.signals.of_log(rows, STEPS))
        if (watch.tally.raised >= 0).any():
            named = [watch.names[k] for k in np.flatnonzero(watch.tally.raised >= 0)]
            # The window that alarmed ends where it is complete, not where the block that completed it ends.
            judged = watch.tally.windows * params.window
            return found | {"images": judged - quiet, "named": named}
    return found


def changed_rows(pools: dict[str, Pool], change: Change, start: int, n: int, rng: np.random.Generator) -> Rows:
    """Return n films of a changed deployment."""
    base, other = pools["base"], pools[change.pool]
    names, factor = change.heavier
    wanted = [NIH14.index(name) for name in names]
    weights = np.array([factor ** base.labels[rows][:, wanted].sum(axis=1).mean() for rows in other.rows])
    rows = log_rows(other, films(other, rng, n, weights if names else None), base.latency, start, change.slower, rng)
    if change.share == 1:
        return rows
    usual = log_rows(base, films(base, rng, n), base.latency, start, 1.0, rng)
    taken = rng.random(n) < change.share
    mixed = {
        name: {key: np.where(taken, values, getattr(usual, name)[key]) for key, values in getattr(rows, name).items()}
        for name in ("statistics", "latency")
    }
    arrays = {
        name: np.where(taken[:, None], getattr(rows, name), getattr(usual, name))
        for name in ("sketch", "probabilities")
    }
    return dataclasses.replace(rows, **mixed, **arrays)


def nothing_known(base: Pool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a calibration that changes nothing, and thresholds that call a fifth of the films."""
    calibration = {"findings": {name: {"method": "none", "parameters": {}} for name in NIH14}}
    levels = np.quantile(base.probabilities, 0.8, axis=0)
    return calibration, {name: {"youden": float(level)} for name, level in zip(NIH14, levels, strict=True)}


def quiet_line(found: list[dict[str, Any]]) -> str:
    """Say what nothing led to."""
    windows = sum(row["windows"] for row in found)
    alarms = sum(row["false"] > 0 for row in found)
    warned = sum(row["warned"] for row in found)
    return (
        f"no change: {len(found)} deployments of {windows // len(found)} windows; false warnings "
        f"{100 * warned / windows:.2f} per 100 windows (nominal 5); deployments with a false alarm "
        f"{100 * alarms / len(found):.1f} % ({alarms}), which is {100 * alarms / windows:.3f} per 100 windows "
        "(nominal 5 % of 200 windows: 0.025)"
    )


def change_line(change: Change, found: list[dict[str, Any]]) -> str:
    """Return a row of the table."""
    usable = [row for row in found if not row["false"]]
    images = np.array([row["images"] if row["images"] is not None else np.inf for row in usable])
    middle, most = (np.quantile(images, level, method="higher") for level in (0.5, 0.95))
    within = 100 * float((images <= 200).mean())
    shown = [f"{value:.0f}" if np.isfinite(value) else f"> {WATCHED}" for value in (middle, most)]
    detected = 100 * float(np.isfinite(images).mean())
    return f"| {change.name} | {len(usable)} | {detected:.0f} % | {within:.0f} % | {shown[0]} | {shown[1]} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument(
        "--repeats", type=int, default=200, help="deployments of each change; without one twice as many"
    )
    parser.add_argument("--only", default="", help="changes whose name holds this")
    parser.add_argument(
        "--reference", type=Path, help="a cache asked with another format, as the Keras model is evaluated"
    )
    parser.add_argument("--quiet-windows", type=int, default=100)
    args = parser.parse_args()
    names = sorted({change.pool for change in CHANGES})
    pools = {name: Pool.read(path) for name in names if (path := args.cache / f"{name}.asked.npz").exists()}
    if args.reference:
        pools["reference"] = Pool.read(args.reference / "base.asked.npz")
    about = nothing_known(pools["base"])
    if not args.only:
        quiet = [deployment(pools, about, None, seed, 50 * args.quiet_windows) for seed in range(2 * args.repeats)]
        print(quiet_line(quiet), flush=True)
        (args.cache / "quiet.json").write_text(json.dumps(quiet), encoding="utf-8")
    print(
        "| change | deployments | detected | within 200 images | median | 95 % within |\n"
        "| --- | --- | --- | --- | --- | --- |"
    )
    for change in CHANGES:
        known = not change.heavier[0] or pools["base"].labels.any()
        if change.pool in pools and known and args.only in change.name:
            found = [deployment(pools, about, change, seed, QUIET) for seed in range(args.repeats)]
            print(change_line(change, found), flush=True)


if __name__ == "__main__":
    main()
