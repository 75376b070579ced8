"""What the input gate lets pass and what it flags: held-out films, and bad images of kinds it knows and does not know.

    python benchmarks/gate.py --archive chest-xray-pneumonia.zip --adapter pneumonia [--model models/exported]
    python benchmarks/gate.py --archive nih-sample.zip --adapter nih [--model models/exported]
    python benchmarks/gate.py --project . [--model models/exported]

Of an archive the patients are dealt into folds. Each fold is judged once, by a gate that was fitted on the others: one
of them sets the thresholds, the rest trains. Of a project the splits are those of `data/splits.csv`, and the test split
is judged. The bad images are made of the judged films as they came, and then prepared as any film. With `--model` the
gate has its distance in that model's feature space; the model need not have been trained on these films.
"""

import argparse
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from gate_cases import CASES
from numpy.typing import NDArray

from pipeline import images
from pipeline.exported import open_exported
from pipeline.gate import FilmFacts, Gate, Verdict
from pipeline.gate_fit import Embed, FitInput, equaliser, fit
from pipeline.manifest import read_manifest, read_splits
from pipeline.params import DatasetParams, GateParams, Params, PreprocessParams
from pipeline.statistics.proportions import exact_interval
from pipeline.terminal import columns


@dataclass(frozen=True)
class Films:
    """The films of a data set: files, patients, prepared pixels."""

    table: pd.DataFrame
    raw: Path
    pixels: NDArray[np.uint8]
    shapes: NDArray[np.int64]
    preprocess: PreprocessParams

    def read(self, row: int) -> NDArray[np.uint8]:
        """Return a film as decoded."""
        return images.read_image(self.raw / self.table["path"].iloc[row])


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--archive", type=Path)
    source.add_argument("--project", type=Path)
    parser.add_argument("--adapter", default="nih", help="who reads the archive")
    parser.add_argument("--model", type=Path, help="an exported model, or model.keras")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--each", type=int, default=300, help="bad images of each kind, at most")
    parser.add_argument("--size", type=int, default=96, help="pixels a side, without --model")
    args = parser.parse_args()
    exported = open_exported(args.model) if args.model else None
    embed: Embed | None = exported.embedding if exported else None
    preprocess = exported.manifest.preprocess if exported else PreprocessParams(size=args.size)
    with tempfile.TemporaryDirectory() as folder:
        films = of_archive(args, Path(folder), preprocess) if args.archive else of_project(args.project, preprocess)
        show(films, embed, args)


def of_archive(args: argparse.Namespace, folder: Path, preprocess: PreprocessParams) -> Films:
    """Unpack and ingest an archive, and deal its patients into folds."""
    from pipeline.ingest import ingest

    with zipfile.ZipFile(args.archive) as zipped:
        zipped.extractall(folder / "raw")
    ingest(folder / "raw", folder / "m.csv", folder / "q.csv", Params(dataset=DatasetParams(adapter=args.adapter)))
    table = read_manifest(folder / "m.csv")
    patients = np.random.default_rng(7).permutation(table["patient_id"].unique())
    fold = {patient: number % args.folds for number, patient in enumerate(patients)}
    return prepared(table.assign(fold=table["patient_id"].map(fold)), folder / "raw", preprocess)


def of_project(project: Path, preprocess: PreprocessParams) -> Films:
    """Take the films of a project; its test split is the only fold that is judged."""
    manifest, splits = read_manifest(project / "data/manifest.csv"), read_splits(project / "data/splits.csv")
    table = manifest.merge(splits[["image_id", "split"]], on="image_id")
    return prepared(
        table.assign(fold=table["split"].map({"test": 0, "val": 1, "train": 2})), project / "data/raw", preprocess
    )


def prepared(table: pd.DataFrame, raw: Path, preprocess: PreprocessParams) -> Films:
    """Read and prepare all films."""
    pixels, shapes = [], []
    for path in table["path"]:
        film = images.read_image(raw / path)
        pixels.append(images.prepare(film, preprocess))
        shapes.append(film.shape[::-1])
    return Films(table.reset_index(drop=True), raw, np.stack(pixels), np.array(shapes), preprocess)


def show(films: Films, embed: Embed | None, args: argparse.Namespace) -> None:
    """Fit and judge fold by fold; print what passed and what was flagged."""
    passed: list[tuple[str, Verdict]] = []
    flagged: dict[str, list[Verdict]] = {name: [] for name in CASES}
    folds = range(args.folds) if args.archive else range(1)
    for fold in folds:
        gate = fitted(films, fold, args.folds, embed)
        rows = np.flatnonzero(films.table["fold"] == fold)
        passed += list(judged_films(gate, films, rows, embed))
        some = rows[np.linspace(0, len(rows) - 1, min(len(rows), -(-args.each // len(folds)))).astype(int)]
        for number, name in enumerate(CASES):
            flagged[name] += judged_cases(gate, films, some, name, embed, seed=1000 * fold + number)
    rows_of_table = [["", "images", "share", "95 % interval", "reasons"], pass_row(passed)]
    rows_of_table += [case_row(name, verdicts) for name, verdicts in flagged.items()]
    print(columns(rows_of_table))


def fitted(films: Films, fold: int, folds: int, embed: Embed | None) -> Gate:
    """Fit a gate on all folds but the judged one; the one after it sets the thresholds."""
    number = films.table["fold"].to_numpy()
    val = number == ((fold + 1) % max(folds, 3))
    train = np.flatnonzero((number != fold) & ~val)
    params = GateParams()
    taken = np.random.default_rng(params.seed).permutation(train)[: params.films]
    parts = FitInput(
        films.pixels[taken],
        films.pixels[val],
        films.shapes[train].astype(float),
        films.table["patient_id"].to_numpy(np.str_)[val],
        equaliser(vars(films.preprocess)),
    )
    gate = fit(parts, embed, "0" * 64, params)
    print(f"fold {fold}: thresholds {gate.net_threshold:.2f} and {gate.distance_threshold:.2f}; {gate.record}")
    return gate


def judged_films(
    gate: Gate, films: Films, rows: NDArray[np.intp], embed: Embed | None
) -> Iterator[tuple[str, Verdict]]:
    """Judge films as they are; with whose they are."""
    for some in np.array_split(rows, -(-len(rows) // 64)):
        facts = [FilmFacts(*map(int, films.shapes[row])) for row in some]
        for row, verdict in zip(some, asked(gate, films.pixels[some], facts, embed), strict=True):
            yield str(films.table["patient_id"].iloc[row]), verdict


def judged_cases(
    gate: Gate, films: Films, rows: NDArray[np.intp], name: str, embed: Embed | None, seed: int
) -> list[Verdict]:
    """Judge bad images of one kind; their size and proportion are not judged, as if they were a film's."""
    rng, maker = np.random.default_rng(seed), CASES[name][0]
    made = [images.prepare(np.ascontiguousarray(maker(rng, films.read(row))), films.preprocess) for row in rows]
    return asked(gate, np.stack(made), [FilmFacts(1024, 1024)] * len(made), embed)


def asked(gate: Gate, pixels: NDArray[np.uint8], facts: list[FilmFacts], embed: Embed | None) -> list[Verdict]:
    """Judge prepared images."""
    batch = pixels[..., None]
    return gate.judge(batch, None if embed is None else embed(batch), facts)


def pass_row(passed: list[tuple[str, Verdict]]) -> list[str]:
    """Say how many films passed; the interval counts patients, because films of one are alike."""
    accepted = [verdict.accepted for _, verdict in passed]
    share = float(np.mean(accepted))
    low, high = exact_interval(share, len({patient for patient, _ in passed}), 0.95)
    return ["films that pass", str(len(passed)), *shares(share, low, high), reasons(v for _, v in passed)]


def case_row(name: str, verdicts: list[Verdict]) -> list[str]:
    """Say how many of a kind were flagged, and why."""
    share = float(np.mean([not verdict.accepted for verdict in verdicts]))
    low, high = exact_interval(share, len(verdicts), 0.95)
    label = f"{name} (new)" if CASES[name][1] else name
    return [label, str(len(verdicts)), *shares(share, low, high), reasons(verdicts)]


def shares(share: float, low: float, high: float) -> list[str]:
    """Return the cells of a share and its interval."""
    return [f"{100 * share:.1f} %", f"{100 * low:.1f} to {100 * high:.1f}"]


def reasons(verdicts: Any) -> str:
    """Count the reasons."""
    counts = Counter(reason for verdict in verdicts for reason in verdict.reasons)
    return ", ".join(f"{reason} {count}" for reason, count in counts.most_common())


if __name__ == "__main__":
    main()
