"""How far simulated films are from real ones, beside how far one half of the real ones is from the other.

    python benchmarks/realism.py FOLDER_OF_REAL_FILMS [--films 246] [--splits 20] [--half final]
                                 [--set bedside=0.6 size=512 ...]

Real films are files named as NIH names them (00000013_005.png is of patient 00000013); another name is a patient of its
own. Simulated ones are drawn with the default parameters but for those of `--set`. Both become 256 x 256 gray pixels by
the project's own preprocessing (area interpolation), once without and once with its CLAHE.

Distances of small samples are never 0, and are larger the smaller the samples. So the real patients are divided into
halves again and again; in each division one half is compared with the other, and with as many simulated films.

`--half` keeps every second of the real patients: `tuning`, whom constants may be tuned on, or `final`, the others, whom
the figures of the documentation are of.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from film_numbers import FREQUENCIES, OCTAVES, PERCENTILES, Films, Floats, octaves, percentiles, read, thumbnails
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from pipeline.datasets.simulated import simulate
from pipeline.errors import UserError
from pipeline.params import EvaluateParams, SimulateParams
from pipeline.params_file import parse_params, read_yaml
from pipeline.statistics.bootstrap import replicate, resample
from pipeline.statistics.ranks import rank_statistic

GRAYS = np.arange(256)
FOLDS = 5


def chosen(settings: list[str], films: int) -> SimulateParams:
    """Return the parameters of the preset `simulated`, with as many patients as films are wanted, and `settings`."""
    preset = read_yaml(Path(__file__).parent.parent / "configs" / "simulated.yaml").get("simulate", {})
    values = {**preset, "patients": max(3, films)}  # each patient has a film or more
    for setting in settings:
        key, _, value = setting.partition("=")
        try:
            values[key] = json.loads(value)
        except json.JSONDecodeError:
            values[key] = value
    return parse_params({"simulate": values}, "--set").simulate


def draw(settings: list[str], films: int) -> Films:
    """Draw simulated films and read them."""
    params = chosen(settings, films)
    with tempfile.TemporaryDirectory() as folder:
        simulate(params, Path(folder) / "raw")
        return read(Path(folder) / "raw" / "sample" / "images", films)


def half_of(films: Films, half: str) -> Films:
    """Return the films of every second patient in the order of their names, so that both halves span the archive.

    Parameters
    ----------
    films : Films
        Of all patients.
    half : {"all", "tuning", "final"}
        The first patient is in `tuning`, the second in `final`, and so on.
    """
    names = np.unique(films.patient)
    kept = {"all": names, "tuning": names[::2], "final": names[1::2]}[half]
    return films[np.isin(films.patient, kept)]


def gray_distance(a: Floats, b: Floats) -> float:
    """Return the Wasserstein distance, in gray levels, of the histograms of all pixels of two sets.

    Pooled, because it answers whether the sets have the same grays, whatever film they are on. How they are shared out
    over the films is in the table of percentiles and in what the classifier sees.
    """
    return float(wasserstein_distance(GRAYS, GRAYS, a.mean(axis=0), b.mean(axis=0)))


def power_distance(a: Floats, b: Floats) -> float:
    """Return the RMS difference, in decades, of the mean logarithms of power, every octave weighing the same."""
    squares = (a.mean(axis=0) - b.mean(axis=0)) ** 2
    return float(np.sqrt(np.average(squares, weights=1 / FREQUENCIES)))


def slope(logarithms: Floats) -> float:
    """Return the exponent of the power law fitted to the mean spectrum from 2 to 100 cycles, in log-log coordinates."""
    used = (FREQUENCIES >= 2) & (FREQUENCIES <= 100)
    x, y = np.log10(FREQUENCIES[used]), logarithms.mean(axis=0)[used]
    return float(np.polyfit(x, y, 1, w=FREQUENCIES[used] ** -0.5)[0])


def picture_correlation(a: Films, b: Films) -> float:
    """Return Pearson's r of the two mean images."""
    means = [one.pixels.mean(axis=0).ravel() for one in (a, b)]
    return float(np.corrcoef(means[0], means[1])[0, 1])


def features(films: Films) -> Floats:
    """Return what the classifier sees: percentiles of gray, power of the octaves, both again after CLAHE."""
    parts = []
    for shares, powers in (
        (films.histogram, films.spectrum),
        (films.histogram_clahe, films.spectrum_clahe),
    ):
        parts += [percentiles(shares), octaves(powers)]
    return np.hstack(parts)


def told_apart(a: Floats, b: Floats, patients_a: NDArray[Any], patients_b: NDArray[Any]) -> tuple[Floats, Floats]:
    """Return labels and held-out scores of a logistic regression that tells two sets apart (Lopez-Paz, ICLR 2017).

    Five folds of whole patients; inputs standardised on the training folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = np.vstack([a, b]), np.r_[np.zeros(len(a)), np.ones(len(b))]
    groups = np.r_[np.char.add("a", patients_a), np.char.add("b", patients_b)]
    scores = np.empty(len(y))
    for train, test in StratifiedGroupKFold(FOLDS, shuffle=True, random_state=7).split(x, y, groups):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        scores[test] = model.fit(x[train], y[train]).predict_proba(x[test])[:, 1]
    return y, scores


def auroc_of(view: Callable[[Films], Floats]) -> Callable[[Films, Films], float]:
    """Return the distance that is a classifier's AUROC on what `view` takes from the films."""

    def distance(a: Films, b: Films) -> float:
        from sklearn.metrics import roc_auc_score

        return float(roc_auc_score(*told_apart(view(a), view(b), a.patient, b.patient)))

    return distance


DISTANCES: dict[str, Callable[[Films, Films], float]] = {
    "gray histogram, Wasserstein, levels": lambda a, b: gray_distance(a.histogram, b.histogram),
    "gray histogram after CLAHE": lambda a, b: gray_distance(a.histogram_clahe, b.histogram_clahe),
    "power spectrum, RMS, decades": lambda a, b: power_distance(a.spectrum, b.spectrum),
    "power spectrum after CLAHE": lambda a, b: power_distance(a.spectrum_clahe, b.spectrum_clahe),
    "slope of the spectrum, difference": lambda a, b: abs(slope(a.spectrum) - slope(b.spectrum)),
    "mean image, Pearson's r": picture_correlation,
    "classifier, grays and spectrum, AUROC": auroc_of(features),
    "classifier, 8 x 8 pixels, AUROC": auroc_of(thumbnails),
}


def compare(real: Films, drawn: Films, splits: int) -> dict[str, tuple[Floats, Floats]]:
    """Return for each distance those of half against half, and of half against as many simulated films."""
    rng = np.random.default_rng(7)
    names = np.unique(real.patient)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in DISTANCES}
    for _ in range(splits):
        inside = np.isin(real.patient, rng.choice(names, len(names) // 2, replace=False))
        half, other = real[inside], real[~inside]
        like = drawn[rng.choice(len(drawn.patient), min(len(other.patient), len(drawn.patient)), replace=False)]
        for name, distance in DISTANCES.items():
            found[name].append((distance(half, other), distance(half, like)))
    return {name: (np.array(rows)[:, 0], np.array(rows)[:, 1]) for name, rows in found.items()}


def print_distances(real: Films, drawn: Films, splits: int) -> None:
    """Print the table of distances, and the classifiers' AUROC on all films with its interval."""
    counts = (
        f"{len(real.patient)} real films of {len(np.unique(real.patient))} patients, {len(drawn.patient)} simulated"
    )
    print(f"\n{counts}; median (range) over {splits} divisions of the real patients\n")
    print("| distance | half of the real, the other half | half of the real, simulated |\n| --- | --- | --- |")
    for name, pair in compare(real, drawn, splits).items():
        cells = [f"{np.median(values):.3f} ({values.min():.3f} to {values.max():.3f})" for values in pair]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\nAll films, by a classifier; 95% interval over patients:\n")
    for name, view in (("grays and spectrum", features), ("8 x 8 pixels", thumbnails)):
        labels, scores = told_apart(view(real), view(drawn), real.patient, drawn.patient)
        patients = np.r_[np.char.add("a", real.patient), np.char.add("b", drawn.patient)]
        resamples = resample(patients, labels[:, None], EvaluateParams())
        score = replicate(rank_statistic(labels, scores, resamples), resamples).estimate()
        print(f"- {name}: AUROC {score.value:.3f} ({score.ci_low:.3f} to {score.ci_high:.3f})")


def print_looks(real: Films, drawn: Films) -> None:
    """Print where the difference lies: percentiles of gray and power by octave, median (5th to 95th) over films."""
    print("\n| over films: median (5 to 95 %) | real | simulated |\n| --- | --- | --- |")
    for kind in ("", "_clahe"):
        for shown, names in (
            (percentiles, [f"gray, percentile {level}" for level in PERCENTILES]),
            (octaves, [f"log10 power, {low} to {high} cycles" for low, high in OCTAVES]),
        ):
            source = ("histogram" if shown is percentiles else "spectrum") + kind
            columns = [np.percentile(shown(getattr(one, source)), (50, 5, 95), axis=0) for one in (real, drawn)]
            for k, name in enumerate(names):
                cells = [f"{c[0, k]:.4g} ({c[1, k]:.4g} to {c[2, k]:.4g})" for c in columns]
                print(f"| {name}{', CLAHE' if kind else ''} | {' | '.join(cells)} |")
    print(f"\nslope of the mean spectrum: real {slope(real.spectrum):.3f}, simulated {slope(drawn.spectrum):.3f}")


def main() -> None:
    """Read the real films, draw the simulated ones, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--films", type=int, help="most films of each kind (default: as many as there are real ones)")
    parser.add_argument("--splits", type=int, default=20, help="divisions into halves")
    parser.add_argument("--half", choices=("all", "tuning", "final"), default="all", help="of the real patients")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="parameters of simulate")
    args = parser.parse_args()
    try:
        real = half_of(read(args.folder, args.films), args.half)
        if len(np.unique(real.patient)) < 2 * FOLDS:
            raise UserError(f"{args.folder}: films of {len(np.unique(real.patient))} patients; 10 or more are needed")
        drawn = draw(args.set, len(real.patient))
    except UserError as error:
        parser.error(str(error))
    print_distances(real, drawn, args.splits)
    print_looks(real, drawn)


if __name__ == "__main__":
    main()
