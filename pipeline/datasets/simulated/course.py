"""Which findings a patient has on each of his films: two kinds of case mix, and how findings stay and go."""

from dataclasses import replace
from functools import lru_cache
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.datasets.simulated.signs import Sign
from pipeline.findings import NIH14
from pipeline.params import SimulateParams

Course = list[tuple[Sign, ...]]
Floats = npt.NDArray[np.float64]

NIH_FILMS: Final = 112_120
NIH_COUNTS: Final[dict[str, int]] = {
    "Atelectasis": 11_559,
    "Cardiomegaly": 2_776,
    "Effusion": 13_317,
    "Infiltration": 19_894,
    "Mass": 5_782,
    "Nodule": 6_331,
    "Pneumonia": 1_431,
    "Pneumothorax": 5_302,
    "Consolidation": 4_667,
    "Edema": 2_303,
    "Emphysema": 2_516,
    "Fibrosis": 1_686,
    "Pleural_Thickening": 3_385,
    "Hernia": 227,
}
"""Films of ChestX-ray14 with each finding (`Data_Entry_2017_v2020.csv`; Wang et al., CVPR 2017)."""

# Tetrachoric correlations of the labels of ChestX-ray14, below the diagonal, in the order of NIH14: the correlation of
# two normal variables that exceed their thresholds together as often as the two labels stand on one film. The ten most
# frequent pairs are those counted in the full table (tests/test_simulated_cohort.py says by whom); the others were not
# recounted. The shares of films with none, one, two and more findings, which were not fitted, come out within three
# points of the counted ones (docs/datasets/simulated.md).
_CORRELATIONS: Final[tuple[tuple[float, ...], ...]] = (
    (),
    (0.07,),
    (0.37, 0.39),
    (0.21, 0.05, 0.25),
    (0.06, -0.07, 0.2, 0.04),
    (-0.03, -0.07, 0.06, 0.12, 0.3),
    (0.14, 0.02, 0.12, 0.29, -0.01, -0.03),
    (0.1, -0.17, 0.15, 0, 0.12, 0.03, -0.09),
    (0.31, 0.08, 0.28, 0.14, 0.25, 0.12, 0.15, 0),
    (-0.02, 0.16, 0.23, 0.31, 0.02, 0, 0.56, -0.2, 0.11),
    (0.13, -0.06, 0.05, 0, 0.11, -0.04, -0.05, 0.51, 0, -0.09),
    (0.06, 0.04, -0.01, 0.04, 0.06, 0.12, -0.09, 0, 0.02, -0.19, -0.01),
    (0.1, 0.06, 0.23, 0.07, 0.24, 0.19, 0.02, 0.14, 0.13, -0.01, 0.14, 0.26),
    (0.11, 0.03, -0.05, -0.04, 0.13, -0.04, 0, -0.03, -0.11, -0.05, -0.03, 0.12, 0.02),
)
_COMPANIONS: Final[dict[str, dict[str, float]]] = {
    "Atelectasis": {"Effusion": 0.2},
    "Cardiomegaly": {"Edema": 0.2, "Effusion": 0.2},
    "Effusion": {"Atelectasis": 0.15, "Cardiomegaly": 0.1},
    "Edema": {"Effusion": 0.35, "Cardiomegaly": 0.3},
    "Pneumonia": {"Infiltration": 0.15, "Effusion": 0.1},
    "Consolidation": {"Effusion": 0.15, "Pneumonia": 0.1},
    "Mass": {"Nodule": 0.15, "Atelectasis": 0.1},
    "Emphysema": {"Pneumothorax": 0.12, "Nodule": 0.05},
    "Fibrosis": {"Pleural_Thickening": 0.15},
    "Pneumothorax": {"Pleural_Thickening": 0.05},
}
_WEIGHTS: Final[dict[str, float]] = {  # of the first finding of an illness; chronic and accompanying ones need less
    "Atelectasis": 1.2,
    "Cardiomegaly": 0.75,
    "Effusion": 0.7,
    "Infiltration": 1.1,
    "Mass": 1.4,
    "Nodule": 1.1,
    "Pneumonia": 1.2,
    "Pneumothorax": 1.2,
    "Consolidation": 1.4,
    "Edema": 1.5,
    "Emphysema": 1.8,
    "Fibrosis": 1.6,
    "Pleural_Thickening": 1.1,
    "Hernia": 1.5,
}
_CHRONIC: Final = {"Cardiomegaly", "Emphysema", "Fibrosis", "Hernia", "Mass", "Nodule", "Pleural_Thickening"}
_CONFLICTS: Final = (  # shapes that exclude each other on one film
    {"Emphysema", "Fibrosis"},
    {"Emphysema", "Cardiomegaly"},
    {"Emphysema", "Edema"},
    {"Fibrosis", "Edema"},
)
_EVEN_CONFLICTS: Final = (*_CONFLICTS, {"Emphysema", "Atelectasis"})  # which stand together on 424 films of NIH's
_TWO_SIDED: Final = {"Effusion": 0.3, "Infiltration": 0.6, "Nodule": 0.5, "Pleural_Thickening": 0.25, "Pneumonia": 0.6}
_LASTING: Final = 0.9  # share of a chronic finding's liability that all films of a patient have in common
_PASSING: Final = 0.6  # that of the others


def draw_course(params: SimulateParams, films: int, rng: np.random.Generator) -> Course:
    """Draw the findings of a patient's films, one after the other.

    Parameters
    ----------
    params : SimulateParams
        `prevalence`, `prevalence_scale` and `severity`.
    films : int
        How many.
    rng : numpy.random.Generator
        For this and nothing else.

    Returns
    -------
    list of tuple of Sign
        Of each film, in the order of `pipeline.findings.NIH14`.

    Notes
    -----
    `even`: a quarter of the patients hardly ever fall ill, the others nearly all do; each finding comes to 7 to 13 %
    of the films, in company that is medically plausible. `nih`: each finding is there when a standard normal variable
    exceeds the quantile of its prevalence, and these variables have the tetrachoric correlations of NIH's labels, so
    that single and pair rates are those of ChestX-ray14 (the method: Emrich & Piedmonte, American Statistician
    1991;45:302-304). Of two shapes that exclude each other the weaker is left out, which takes some 2 % of the films
    with emphysema. The odds of each prevalence are multiplied by `prevalence_scale`.
    """
    return _nih_course(params, films, rng) if params.prevalence == "nih" else _even_course(params, films, rng)


def scaled(probability: float, scale: float) -> float:
    """Return the probability whose odds are `scale` times those of `probability`."""
    return scale * probability / (1 - probability + scale * probability)


def nih_prevalence(scale: float) -> dict[str, float]:
    """Return the share of films with each finding in ChestX-ray14, its odds multiplied by `scale`."""
    return {name: scaled(NIH_COUNTS[name] / NIH_FILMS, scale) for name in NIH14}


def _nih_course(params: SimulateParams, films: int, rng: np.random.Generator) -> Course:
    factor, lasting, thresholds = _copula(params.prevalence_scale)
    common = factor @ rng.standard_normal(len(NIH14))
    course: Course = []
    known: dict[str, Sign] = {}
    for _ in range(films):
        own = factor @ rng.standard_normal(len(NIH14))
        excess = np.sqrt(lasting) * common + np.sqrt(1 - lasting) * own - thresholds
        present = _compatible({name: float(value) for name, value in zip(NIH14, excess, strict=True) if value > 0})
        # What comes back, comes back where it was.
        known |= {
            name: _drift(params, known[name], rng) if name in known else _draw_sign(params, name, rng)
            for name in NIH14
            if name in present
        }
        course.append(tuple(known[name] for name in NIH14 if name in present))
    return course


@lru_cache(maxsize=8)
def _copula(scale: float) -> tuple[Floats, Floats, Floats]:
    """Return the Cholesky factor of the correlations, each finding's share in common, and its threshold.

    The variable of a film is a sum of two, one common to the patient's films; correlations of findings with different
    shares would come out smaller by the factor that is divided off here.
    """
    lasting = np.array([_LASTING if name in _CHRONIC else _PASSING for name in NIH14])
    wanted = np.eye(len(NIH14))
    for row, values in enumerate(_CORRELATIONS):
        wanted[row, :row] = wanted[:row, row] = values
    shrink = np.sqrt(np.outer(lasting, lasting)) + np.sqrt(np.outer(1 - lasting, 1 - lasting))
    factor = np.linalg.cholesky(wanted / shrink)
    prevalence = nih_prevalence(scale)
    return factor, lasting, np.array([NormalDist().inv_cdf(1 - prevalence[name]) for name in NIH14])


def _compatible(excess: dict[str, float]) -> set[str]:
    present = set(excess)
    for pair in _CONFLICTS:
        if pair <= present:
            present.remove(min(pair, key=lambda name: excess[name]))
    return present


def _even_course(params: SimulateParams, films: int, rng: np.random.Generator) -> Course:
    healthy = rng.random() < 0.26
    course: Course = []
    signs: tuple[Sign, ...] = ()
    for film in range(films):
        signs = _next_film(params, signs, healthy, film == 0, rng)
        course.append(signs)
    return course


def _next_film(
    params: SimulateParams, signs: tuple[Sign, ...], healthy: bool, first: bool, rng: np.random.Generator
) -> tuple[Sign, ...]:
    """Let findings persist or clear, then let new ones come."""
    kept: dict[str, Sign] = {}
    for sign in signs:
        if rng.random() < (0.88 if sign.name in _CHRONIC else 0.6):
            kept[sign.name] = _drift(params, sign, rng)
    falls_ill = 0.1 if healthy else (0.95 if first else 0.32)
    if rng.random() < scaled(falls_ill, params.prevalence_scale):
        # Chronic findings come late in a course as rarely as they go, so that the number of a film tells nothing.
        slow = 1.0 if first else 0.3
        weights = np.array([_WEIGHTS[name] * (slow if name in _CHRONIC else 1) for name in NIH14])
        for _ in range(1 + int(rng.random() < 0.45)):
            _add(params, kept, str(rng.choice(NIH14, p=weights / weights.sum())), rng, companions=True)
    return tuple(kept[name] for name in NIH14 if name in kept)


def _add(
    params: SimulateParams, kept: dict[str, Sign], name: str, rng: np.random.Generator, *, companions: bool
) -> None:
    sign = _draw_sign(params, name, rng)
    if name in kept or any(pair - {name} <= kept.keys() for pair in _EVEN_CONFLICTS if name in pair):
        return
    kept[name] = sign
    if companions:
        for other, chance in _COMPANIONS.get(name, {}).items():
            if rng.random() < chance:
                _add(params, kept, other, rng, companions=False)


def _draw_sign(params: SimulateParams, name: str, rng: np.random.Generator) -> Sign:
    low, high = params.severity
    return Sign(
        name=name,
        severity=low + (high - low) * float(rng.beta(2.0, 1.6)),
        side=int(rng.random() < 0.5),
        both=bool(rng.random() < _TWO_SIDED.get(name, 0.0)),
        seed=int(rng.integers(2**31)),
    )


def _drift(params: SimulateParams, sign: Sign, rng: np.random.Generator) -> Sign:
    low, high = params.severity
    return replace(sign, severity=float(np.clip(sign.severity + rng.normal(0, 0.1), low, high)))
