"""Who has what: patients, their films, and the course of their findings.

Prevalence is far above NIH's (Hernia 0.2 %, Pneumonia 1.3 % of 112,120 films), at some 7 to 13 % for each finding:
with a few thousand films a finding at NIH's rate would leave its test AUROC undefined or its interval useless.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from pipeline.datasets.simulated.anatomy import Anatomy, draw_anatomy
from pipeline.datasets.simulated.film import Acquisition, draw_acquisition
from pipeline.datasets.simulated.signs import Sign
from pipeline.findings import NIH14

MAX_FILMS: Final = 6

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
    {"Emphysema", "Atelectasis"},
    {"Fibrosis", "Edema"},
)
_TWO_SIDED: Final = {"Effusion": 0.3, "Infiltration": 0.6, "Nodule": 0.5, "Pleural_Thickening": 0.25}
_DETECTORS: Final = ((2992, 2991, 0.143), (3056, 3056, 0.139), (2021, 2021, 0.194311))
"""Columns, rows and pixel spacing in millimetres of square detectors in the NIH table."""


@dataclass(frozen=True, kw_only=True)
class Film:
    """One image of one patient: its number, findings, acquisition and row of the table."""

    patient: int
    number: int
    age: int
    columns: int
    rows: int
    spacing: float
    signs: tuple[Sign, ...]
    acquisition: Acquisition

    @property
    def name(self) -> str:
        """Return the file name as NIH has it."""
        return f"{self.patient:08d}_{self.number:03d}.png"

    @property
    def findings(self) -> list[str]:
        """Return the names of its findings in the order of the vocabulary."""
        present = {sign.name for sign in self.signs}
        return [name for name in NIH14 if name in present]


@dataclass(frozen=True, kw_only=True)
class Patient:
    """One patient: anatomy and films. `seed` draws the vessels."""

    number: int
    anatomy: Anatomy
    films: tuple[Film, ...]


def draw_patient(seed: int, number: int) -> Patient:
    """Draw patient `number` (from 1); nothing but the two numbers decides what comes out.

    Parameters
    ----------
    seed : int
        Of the data set.
    number : int
        Of the patient.

    Returns
    -------
    Patient
        With 1 to 6 films (geometric, mean near 2.4).
    """
    rng = np.random.default_rng([seed, number, 0])
    anatomy = draw_anatomy(rng)
    count = min(MAX_FILMS, int(rng.geometric(0.4)))
    healthy = rng.random() < 0.26
    age, films = anatomy.age, []
    signs: tuple[Sign, ...] = ()
    for film in range(count):
        signs = _course(signs, healthy, film == 0, rng)
        films.append(_film(number, film, age, signs, rng))
        age = min(94, age + int(rng.random() < 0.3))
    return Patient(number=number, anatomy=anatomy, films=tuple(films))


def _film(patient: int, number: int, age: int, signs: tuple[Sign, ...], rng: np.random.Generator) -> Film:
    bedside = 0.36 + 0.14 * bool(signs)
    view: Literal["PA", "AP"] = "AP" if rng.random() < bedside else "PA"
    columns, rows, spacing = _DETECTORS[int(rng.choice(len(_DETECTORS), p=[0.6, 0.25, 0.15]))]
    acquisition = draw_acquisition(view, columns * spacing, rng)
    return Film(
        patient=patient,
        number=number,
        age=age,
        columns=columns,
        rows=rows,
        spacing=spacing,
        signs=signs,
        acquisition=acquisition,
    )


def _course(signs: tuple[Sign, ...], healthy: bool, first: bool, rng: np.random.Generator) -> tuple[Sign, ...]:
    """Let findings persist or clear, then let new ones come."""
    kept: dict[str, Sign] = {}
    for sign in signs:
        if rng.random() < (0.88 if sign.name in _CHRONIC else 0.6):
            drift = float(np.clip(sign.severity + rng.normal(0, 0.1), 0, 1))
            kept[sign.name] = replace(sign, severity=drift)
    falls_ill = 0.1 if healthy else (0.95 if first else 0.32)
    if rng.random() < falls_ill:
        # Chronic findings come late in a course as rarely as they go, so that the number of a film tells nothing.
        slow = 1.0 if first else 0.3
        weights = np.array([_WEIGHTS[name] * (slow if name in _CHRONIC else 1) for name in NIH14])
        for _ in range(1 + int(rng.random() < 0.45)):
            _add(kept, str(rng.choice(NIH14, p=weights / weights.sum())), rng, companions=True)
    return tuple(kept[name] for name in NIH14 if name in kept)


def _add(kept: dict[str, Sign], name: str, rng: np.random.Generator, companions: bool) -> None:
    sign = Sign(
        name=name,
        severity=float(rng.beta(2.0, 1.6)),
        side=int(rng.random() < 0.5),
        both=bool(rng.random() < _TWO_SIDED.get(name, 0.0)),
        seed=int(rng.integers(2**31)),
    )
    if name in kept or any(pair - {name} <= kept.keys() for pair in _CONFLICTS if name in pair):
        return
    kept[name] = sign
    if companions:
        for other, chance in _COMPANIONS.get(name, {}).items():
            if rng.random() < chance:
                _add(kept, other, rng, companions=False)
