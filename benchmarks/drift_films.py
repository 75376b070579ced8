"""Films for `benchmarks/drift.py`: patients whom no model has seen, as they are and as each fault changes them.

    python benchmarks/drift_films.py draw --cache FOLDER              # simulated films, once
    python benchmarks/drift_films.py take --cache FOLDER --manifest data/manifest.csv --raw data/raw    # or real ones
    python benchmarks/drift_films.py ask --cache FOLDER --model models/exported

`ask` sends each film through `pipeline.images.prepare` and the model, and keeps what the prediction log would keep.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.datasets.simulated.cohort import draw_patient
from pipeline.datasets.simulated.write import render
from pipeline.findings import NIH14
from pipeline.images import Preparation, prepare, read_image, resize
from pipeline.manifest import read_manifest
from pipeline.parallel import run_all
from pipeline.params import SimulateParams

if TYPE_CHECKING:
    from pipeline.exported import Exported

Pixels = NDArray[np.uint8]
SEED = 20_260  # not 7, with which the training films are drawn
DRAWN: dict[str, dict[str, float]] = {
    "base": {},
    "exposure-weak": {"exposure": 1.0},
    "exposure-strong": {"exposure": 2.5},
    "view-weak": {"bedside": 0.65},
    "view-strong": {"bedside": 0.9},
}
"""Films that are drawn: name to what differs from `SimulateParams`' defaults."""
BATCH, TIMED, SIDE = 32, 300, 256


def blurred(film: Pixels, sigma: float) -> Pixels:
    """Blur a film, as a scanner out of focus does; sigma in pixels."""
    return np.asarray(cv2.GaussianBlur(film, (0, 0), sigma), np.uint8)


def coarse(film: Pixels, side: int) -> Pixels:
    """Sent at fewer pixels a side and enlarged again."""
    small = cv2.resize(film, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, film.shape[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


def inverted(film: Pixels) -> Pixels:
    """Black for white."""
    return np.asarray(255 - film, np.uint8)


CHANGED: dict[str, tuple[str, Callable[[Pixels], Pixels] | None, bool]] = {
    **{name: (name, None, True) for name in DRAWN},
    "inverted": ("base", inverted, True),
    "blur-weak": ("base", partial(blurred, sigma=1.0), True),
    "blur-strong": ("base", partial(blurred, sigma=2.0), True),
    "resolution-weak": ("base", partial(coarse, side=160), True),
    "resolution-strong": ("base", partial(coarse, side=96), True),
    "clahe-off": ("base", None, False),
}
"""Variant to the drawn films, what is done to each, and whether preprocessing works."""


def draw(cache: Path, patients: int) -> None:
    """Draw the films of all patients, in all the ways of `DRAWN`, to `cache/NAME.npz`."""
    cache.mkdir(parents=True, exist_ok=True)
    for name, changes in DRAWN.items():
        path = cache / f"{name}.films.npz"
        if path.exists():
            continue
        params = dataclasses.replace(SimulateParams(), seed=SEED, **changes)
        numbers = range(1, (patients // 3 if changes else patients) + 1)  # what is as usual makes the reference, too
        found = list(run_all(partial(_drawn, params), numbers, f"drawing {name}", None, 4, "patients"))
        films, labels, views, people = (np.concatenate(part) for part in zip(*found, strict=True))
        np.savez(path, films=films, labels=labels, views=views, patients=people)


def _drawn(params: SimulateParams, number: int) -> tuple[Pixels, NDArray[np.int8], NDArray[np.int8], NDArray[np.int64]]:
    patient = draw_patient(params, number)
    films = np.stack([render(params, patient, film) for film in patient.films])
    labels = np.array([[name in film.findings for name in NIH14] for film in patient.films], np.int8)
    views = np.array([1 + (film.acquisition.view == "AP") for film in patient.films], np.int8)  # as reference.VIEWS
    return films, labels, views, np.full(len(films), number)


def take(cache: Path, manifest: Path, raw: Path, patients: int) -> None:
    """Read the films of some patients of any data set, at most 256 pixels a side, to `cache/base.films.npz`."""
    cache.mkdir(parents=True, exist_ok=True)
    table = read_manifest(manifest)
    names = np.random.default_rng(SEED).permutation(table["patient_id"].unique())[:patients]
    table = table[table["patient_id"].isin(set(names))].sort_values(["patient_id", "image_id"])
    labels = np.stack([(table[name] == 1).to_numpy() if name in table else np.zeros(len(table)) for name in NIH14], 1)
    views = [{"PA": 1, "AP": 2}.get(str(view), 0) for view in table["view"]]
    films = np.stack([resize(read_image(raw / path), SIDE, "stretch") for path in table["path"]])
    people = pd.factorize(table["patient_id"])[0]
    about = {"labels": labels.astype(np.int8), "views": np.array(views, np.int8), "patients": people}
    np.savez(cache / "base.films.npz", films=films, **about)


def ask(cache: Path, model: Path) -> None:
    """Send every variant of every film through the model; `cache/NAME.asked.npz`, with the time of each step."""
    from pipeline.exported import open_exported
    from pipeline.feature_sketch import sketch_features
    from pipeline.image_statistics import film_statistics, statistics_of
    from pipeline.progress import note

    exported = open_exported(model, threads=1)
    for name, (source, change, works) in CHANGED.items():
        preprocess = exported.manifest.preprocess
        preprocess = preprocess if works else dataclasses.replace(preprocess, clahe=False)
        if (cache / f"{name}.asked.npz").exists() or not (cache / f"{source}.films.npz").exists():
            continue
        stored = np.load(cache / f"{source}.films.npz")
        films = stored["films"]
        rows: list[tuple[NDArray[np.float32], ...]] = []
        for first in range(0, len(films), BATCH):
            sent = [change(film) if change else film for film in films[first : first + BATCH]]
            pixels = np.stack([prepare(film, preprocess) for film in sent])
            raw, features = exported.outputs(pixels[..., None])
            described = [statistics_of(one) | film_statistics(film) for one, film in zip(pixels, sent, strict=True)]
            names = list(described[0])
            rows.append((np.array([list(one.values()) for one in described]), sketch_features(features), raw))
        statistics, sketch, probabilities = (
            np.concatenate(part).astype(np.float32) for part in zip(*rows, strict=True)
        )
        np.savez(
            cache / f"{name}.asked.npz",
            names=names,
            statistics=statistics,
            sketch=sketch,
            probabilities=probabilities,
            latency=_timed(films[:TIMED], preprocess, exported) if name == "base" else np.empty((0, 2)),
            **{key: stored[key] for key in ("labels", "views", "patients")},
        )
        note(f"asked: {name}")


def _timed(films: Pixels, preprocess: Preparation, exported: "Exported") -> NDArray[np.float32]:
    """Return the milliseconds of preparing and of asking, film by film, after a few for warming up."""
    rows = []
    for film in [*films[:10], *films]:
        start = time.perf_counter()
        pixels = prepare(film, preprocess)
        prepared = time.perf_counter()
        exported.outputs(pixels[None, ..., None])
        rows.append((1000 * (prepared - start), 1000 * (time.perf_counter() - prepared)))
    return np.array(rows[10:], np.float32)


def main() -> None:
    """Draw, take, or ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("draw", "take", "ask"))
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--patients", type=int, default=600)
    parser.add_argument("--manifest", type=Path, default=Path("data/manifest.csv"))
    parser.add_argument("--raw", type=Path, default=Path("data/raw"))
    parser.add_argument("--model", type=Path, default=Path("models/exported"))
    args = parser.parse_args()
    if args.what == "draw":
        draw(args.cache, args.patients)
    elif args.what == "take":
        take(args.cache, args.manifest, args.raw, args.patients)
    else:
        ask(args.cache, args.model)


if __name__ == "__main__":
    main()
