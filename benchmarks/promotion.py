"""How often the rule of `cxr promote` errs: models of known skill, test sets of known size.

Findings are as frequent as NIH's fourteen; two models' scores are normal, correlated as those of two trainings of one
network, and the candidate's AUROC differs from the champion's by what the scenario says. Prints, for each scenario and
size of the test set, how often the rule promotes, which part refuses, and how often two other rules for findings and
subgroups would refuse: the lower bound of the interval below minus the margin, and the upper bound below it.

    python benchmarks/promotion.py [--repeats 60] [--images 500 2000 8000] [--resamples 100]
"""

import argparse

import numpy as np
from scipy.stats import norm

from pipeline.params import EvaluateParams, PromoteParams
from pipeline.promotion_rule import Check, Pair, accepted, compare

PREVALENCES = (0.002, 0.013, 0.015, 0.02, 0.021, 0.022, 0.03, 0.041, 0.047, 0.052, 0.056, 0.103, 0.119, 0.177)
"""Of NIH ChestX-ray14 (Wang et al., CVPR 2017), from Hernia to Infiltration."""

AUROC = 0.82
CORRELATION = 0.85
IMAGES_PER_PATIENT = 2
SCENARIOS = {
    "equal": np.zeros(14),
    "better by 0.01 everywhere": np.full(14, 0.01),
    "worse by 0.02 everywhere": np.full(14, -0.02),
    "worse by 0.10 in one finding of 2 %": np.where(np.arange(14) == 4, -0.10, 0.0),
    "worse by 0.10 in one finding of 0.2 %": np.where(np.arange(14) == 0, -0.10, 0.0),
}


def drawn(n_images: int, loss: np.ndarray, rng: np.random.Generator) -> Pair:
    """Draw labels and two models' scores; the AUROC of two normals d apart is Phi(d / sqrt 2)."""
    labels = (rng.random((n_images, 14)) < PREVALENCES).astype(np.float64)
    noise = rng.normal(size=(2, n_images, 14))
    noise[1] = CORRELATION * noise[0] + np.sqrt(1 - CORRELATION**2) * noise[1]
    champion = labels * np.sqrt(2) * norm.ppf(AUROC) + noise[0]
    candidate = labels * np.sqrt(2) * norm.ppf(AUROC + loss) + noise[1]
    patients = np.array([f"{n // IMAGES_PER_PATIENT:06d}" for n in range(n_images)])
    women = (np.arange(n_images) // IMAGES_PER_PATIENT) % 2 == 0
    age = rng.choice(4, n_images, p=[0.05, 0.25, 0.5, 0.2])
    frontal = rng.random(n_images) < 0.6
    groups = {"sex female": women, "sex male": ~women, "view PA": frontal, "view AP": ~frontal}
    groups |= {f"age {band}": age == band for band in range(4)}
    return Pair([f"finding {k}" for k in range(14)], labels, candidate, champion, patients, groups)


def verdicts(checks: list[Check]) -> list[bool]:
    """Return whether the rule promotes, which part refuses, and whether two other rules for the parts would refuse."""
    parts = [check for check in checks if check.kind in ("finding", "subgroup")]
    refused = [
        any(check.outcome == "fail" for check in checks if check.kind == kind)
        for kind in ("macro", "finding", "subgroup")
    ]
    others = [any(getattr(check, bound) < -check.limit for check in parts) for bound in ("ci_low", "ci_high")]
    return [accepted(checks), *refused, *others]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--resamples", type=int, default=100)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 2000, 8000])
    args = parser.parse_args()
    evaluate, promote = EvaluateParams(resamples=args.resamples), PromoteParams()
    print(
        "| candidate | test images | promoted | refused by macro | finding | subgroup | lower bounds | upper bounds |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for name, loss in SCENARIOS.items():
        for n_images in args.images:
            rng = np.random.default_rng(7)
            rows = [verdicts(compare(drawn(n_images, loss, rng), promote, evaluate)) for _ in range(args.repeats)]
            shares = " | ".join(f"{share:.0%}" for share in np.mean(rows, axis=0))
            print(f"| {name} | {n_images:,} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
