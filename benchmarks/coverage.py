"""How often the intervals hold the truth: simulated studies whose true scores are known.

    python benchmarks/coverage.py [--studies 500] [--patients 1000] [--resamples 1000] [--jobs 2] [--single]

A study is a test set of `--patients` patients with as many images each as in NIH ChestX-ray14 (mean 3.6, more than half
of the patients with one, a few with tens; `--single`: one each). Whether a patient has a finding is drawn once for the
patient, whether an image shows it for each image; the score is normal, with a part that all images of a patient share.
So AUROC, average precision, sensitivity and Brier score are known from the binormal model, and the probabilities are
calibrated. The intervals are those of `pipeline.statistics`: of patients, as the pipeline draws them, and of images,
for comparison.
"""

import argparse
import os
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from scipy import special  # its functions cannot be sent to other processes by name
from scipy.integrate import quad
from scipy.stats import norm

from pipeline.params import EvaluateParams
from pipeline.statistics.bootstrap import Replicates, Resamples, replicate, resample, stack
from pipeline.statistics.intervals import Estimate, Floats
from pipeline.statistics.probability import SCORES, probability_statistic
from pipeline.statistics.ranks import rank_statistic
from pipeline.statistics.student import t_test
from pipeline.statistics.subgroups import rate_statistic

POSITIVE_PATIENTS = (5, 10, 20, 20, 50, 50, 300)  # expected in 1,000 patients, each a finding
EFFECT = (1.2, 1.2, 1.2, 2.0, 1.2, 2.0, 1.2)  # distance of the classes' mean scores: AUROC 0.80 and 0.92
SHOWN = 0.6  # of the images of a patient who has the finding
SHARED = 0.5  # of the score's variance lies between patients
CUT = 1.0  # the fixed threshold
BINS = 10
SCORED = ("AUROC", "AP", "sensitivity", "Brier")
METHODS = tuple(name.removesuffix("_low") for name in Estimate.__dataclass_fields__ if name.endswith("_low"))[1:]


@dataclass(frozen=True)
class Study:
    """Simulated images: patient, labels (n_images, n_findings), scores, calibrated probabilities, and a random half."""

    patient: Any
    labels: Floats
    scores: Floats
    probabilities: Floats
    half: Any


def sizes(rng: np.random.Generator, patients: int, single: bool) -> Any:
    """Return images a patient: 57 % have one, the mean is 3.6, none has more than 100 (NIH: 57 %, 3.64, 184)."""
    if single:
        return np.ones(patients, int)
    return np.minimum(np.ceil(rng.lognormal(-0.30, 1.70, patients)), 100).astype(int)


@dataclass(frozen=True)
class Setting:
    """What all studies have in common; `ill` is the share of patients who have each finding."""

    patients: int
    resamples: int
    single: bool
    ill: Floats
    truths: list[dict[str, float]]


def setting(patients: int, resamples: int, single: bool) -> Setting:
    """Choose the shares so that the wanted number of patients has a positive image, and compute the true scores."""
    drawn = sizes(np.random.default_rng(0), 1_000_000, single)
    ill = np.array(POSITIVE_PATIENTS) / 1000 / (1 - (1 - SHOWN) ** drawn).mean()
    truths = [truth(share * SHOWN, effect) for share, effect in zip(ill, EFFECT, strict=True)]
    return Setting(patients, resamples, single, ill, truths)


def simulate(seed: int, to: Setting) -> Study:
    """Draw a study."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(to.patients), sizes(rng, to.patients, to.single))
    wide, long = (to.patients, len(EFFECT)), (len(patient), len(EFFECT))
    labels = ((rng.random(wide) < to.ill)[patient] & (rng.random(long) < SHOWN)).astype(np.float64)
    noise = np.sqrt(SHARED) * rng.normal(size=wide)[patient] + np.sqrt(1 - SHARED) * rng.normal(size=long)
    scores = np.array(EFFECT) * labels + noise
    half = rng.random(to.patients)[patient] < 0.5
    return Study(patient, labels, scores, posterior(scores, to.ill * SHOWN, np.array(EFFECT)), half)


def posterior(score: Any, prevalence: Any, effect: Any) -> Any:
    """Return the probability of the finding given the score (Bayes, two normal classes of variance 1)."""
    return special.expit(special.logit(prevalence) + effect * score - effect**2 / 2)


def truth(prevalence: float, effect: float) -> dict[str, float]:
    """Return the true scores of one finding, from the binormal model by formula or quadrature."""

    def brier(z: float) -> float:
        p = posterior(z, prevalence, effect)
        return float(p * (1 - p) * (prevalence * norm.pdf(z - effect) + (1 - prevalence) * norm.pdf(z)))

    def precision(z: float) -> float:
        true, false = prevalence * norm.sf(z - effect), (1 - prevalence) * norm.sf(z)
        return float(true / (true + false) * norm.pdf(z - effect))

    return {
        "AUROC": float(norm.cdf(effect / np.sqrt(2))),
        "AP": quad(precision, -8, 8 + effect, limit=400)[0],
        "sensitivity": float(norm.sf(CUT - effect)),
        "Brier": quad(brier, -8, 8 + effect, limit=400)[0],
    }


def replicates(study: Study, k: int, resamples: Resamples) -> Replicates:
    """Return AUROC, average precision, sensitivity, Brier score and calibration error of one finding."""
    y, z, p = study.labels[:, k], study.scores[:, k], study.probabilities[:, k]
    hit = rate_statistic((z >= CUT)[:, None].astype(np.float64), (y == 1)[:, None], resamples)
    errors = replicate(probability_statistic(y, p, resamples, BINS), resamples)
    wanted = [SCORES.index("brier"), SCORES.index("ece")]
    return stack([replicate(rank_statistic(y, z, resamples), resamples), replicate(hit, resamples), errors[wanted]])


def half_against_half(study: Study, k: int, resamples: Resamples) -> float:
    """Return the p value of the AUROCs' difference between two halves of the patients that do not differ."""
    sides = [np.where(side, study.labels[:, k], np.nan) for side in (study.half, ~study.half)]
    one, other = (replicate(rank_statistic(side, study.scores[:, k], resamples), resamples)[[0]] for side in sides)
    difference = one - other
    return t_test(float(difference.point[0]), difference.draws[0], difference.jackknife[0])


def examine(seed: int, to: Setting) -> dict[tuple[Any, ...], tuple[float, ...]]:
    """Return one study's figures: of each bootstrap, finding and score whether the truth is below, above, the width."""
    study = simulate(seed, to)
    params = EvaluateParams(resamples=to.resamples, seed=seed)
    found: dict[tuple[Any, ...], tuple[float, ...]] = {}
    for unit, of in (("patients", study.patient), ("images", np.arange(len(study.patient)))):
        resamples = resample(of, study.labels, params)
        scored = [replicates(study, k, resamples) for k in range(len(EFFECT))]
        for k, row in enumerate(scored):
            for number, name in enumerate(SCORED):
                _note(found, (unit, k, name), row, number, to.truths[k][name])
            found["ece", unit, k] = (float(row.point[4]),)
        aurocs = stack([row[[0]] for row in scored])
        defined = ~np.isnan(aurocs.point)
        mean = float(np.mean([row["AUROC"] for row in to.truths], where=defined))
        _note(found, (unit, "macro", "AUROC"), aurocs.mean(), 0, mean)
        if unit == "patients":
            for k in range(len(EFFECT)):
                found["p", k] = (half_against_half(study, k, resamples),)
    return found


def _note(found: dict[Any, Any], key: tuple[Any, ...], scores: Replicates, number: int, true: float) -> None:
    estimate = scores.estimate(number)
    for method in METHODS:
        low, high = (getattr(estimate, f"{method}_{end}") for end in ("low", "high"))
        if not np.isnan(low):
            found[(*key, method)] = (float(true < low), float(true > high), high - low)


def main() -> None:
    """Simulate, count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--patients", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--single", action="store_true", help="one image a patient")
    parser.add_argument("--seed", type=int, default=0, help="of the first study; the others follow")
    args = parser.parse_args()
    to = setting(args.patients, args.resamples, args.single)
    studies = Parallel(n_jobs=args.jobs)(delayed(examine)(args.seed + number, to) for number in range(args.studies))
    found = defaultdict(list)
    for study in studies:
        for key, value in study.items():
            found[key].append(value)
    error = 100 * np.sqrt(0.95 * 0.05 / args.studies)
    print(f"{args.studies} studies of {args.patients} patients, {args.resamples} resamples, 95 % intervals")
    print(f"Monte Carlo error of a coverage of 95 %: {error:.1f} percentage points")
    _print_coverage(found, to)
    _print_calibration(found)
    _print_false_alarms(found, args.patients)


def _print_coverage(found: dict[tuple[Any, ...], list[tuple[float, ...]]], to: Setting) -> None:
    print("\ncoverage in % (truth below, above the interval) mean width; bootstrap of patients, and of images")
    columns = [("patients", method) for method in METHODS] + [("images", "percentile")]
    print(f"{'':28}" + "".join(f"{unit + ', ' + method:30}" for unit, method in columns))
    for name in SCORED:
        for k, positive in enumerate(POSITIVE_PATIENTS):
            said = f"{name:12} {positive * to.patients / 1000:5g} {to.truths[k][name]:7.3f}"
            print(f"{said:28}" + "".join(f"{_cell(found[unit, k, name, method]):30}" for unit, method in columns))
    cells = [_cell(found[unit, "macro", "AUROC", method]) for unit, method in columns]
    print(f"{'mean AUROC':28}" + "".join(f"{cell:30}" for cell in cells))


def _cell(values: list[tuple[float, ...]]) -> str:
    low, high, width = np.array(values).T
    below, above = 100 * low.mean(), 100 * high.mean()
    return f"{100 - below - above:5.1f} ({below:4.1f}, {above:4.1f}) {width.mean():.3f}"


def _print_calibration(found: dict[tuple[Any, ...], list[tuple[float, ...]]]) -> None:
    print(f"\nexpected calibration error ({BINS} bins) of probabilities that are calibrated: true value 0")
    for k, positive in enumerate(POSITIVE_PATIENTS):
        values = np.array(found["ece", "patients", k])
        print(
            f"{positive:4} positive patients: mean {values.mean():.4f}, 95th percentile {np.quantile(values, 0.95):.4f}"
        )


def _print_false_alarms(found: dict[tuple[Any, ...], list[tuple[float, ...]]], patients: int) -> None:
    print("\nfalse alarms: share of p < 0.05 for the AUROCs of two halves that do not differ")
    for k, positive in enumerate(POSITIVE_PATIENTS):
        values = np.array(found["p", k])
        values = values[~np.isnan(values)]
        print(f"{positive * patients / 2000:6g} positive patients in each half: {(values < 0.05).mean():.1%}")


if __name__ == "__main__":
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    main()
