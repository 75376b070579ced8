"""What the table says of each film: the drawn truth, or that with the mistakes of a text-mined set."""

from functools import lru_cache
from typing import Final

from pipeline.datasets.simulated.cohort import COURSE, LABELS, Patient, film_count, generator
from pipeline.datasets.simulated.course import draw_course, nih_prevalence
from pipeline.findings import NIH14
from pipeline.params import SimulateParams

_PILOT: Final = 2000
"""Patients of `even` whose films are counted for its prevalence; a second or so, and only with label noise."""


def mined_labels(params: SimulateParams, patient: Patient) -> list[set[str]]:
    """Return the findings that the table names for each film of a patient.

    Parameters
    ----------
    params : SimulateParams
        `label_noise` is the rate q; 0 returns what is drawn.
    patient : Patient
        With the truth.

    Returns
    -------
    list of set of str
        In the order of the films.

    Notes
    -----
    Class-conditional noise (Natarajan et al., NeurIPS 2013), independent for each film and finding: a positive label is
    dropped with probability q, and a false one put in with probability q p / (1 - p), where p is the finding's
    prevalence. So as many are put in as dropped, prevalence stays, and both the positive predictive value and the
    sensitivity of the labels are 1 - q. Oakden-Rayner (Academic Radiology 2020;27:106-112) read films of ChestX-ray14
    and found positive predictive values 10 to 30 points below those the labels were published with.
    """
    if params.label_noise == 0:
        return [set(film.findings) for film in patient.films]
    rate, prevalence = params.label_noise, prevalences(params)
    rng = generator(params, patient.number, LABELS)
    mined = []
    for film in patient.films:
        present = set(film.findings)
        rolls = dict(zip(NIH14, rng.random(len(NIH14)).tolist(), strict=True))
        kept = {name for name in present if rolls[name] >= rate}
        false = {
            name
            for name, share in prevalence.items()
            if name not in present and rolls[name] < rate * share / (1 - share)
        }
        mined.append(kept | false)
    return mined


def prevalences(params: SimulateParams) -> dict[str, float]:
    """Return the share of films that show each finding, as the parameters make it in a large set."""
    if params.prevalence == "nih":
        return nih_prevalence(params.prevalence_scale)
    return dict(_counted(params.prevalence_scale))


@lru_cache(maxsize=4)
def _counted(scale: float) -> tuple[tuple[str, float], ...]:
    """Count the findings of a cohort that is the same for every seed: nobody's prevalence may depend on the others."""
    params = SimulateParams(prevalence_scale=scale)
    films = 0
    counts = dict.fromkeys(NIH14, 0)
    for number in range(1, _PILOT + 1):
        course = draw_course(params, film_count(generator(params, number, LABELS)), generator(params, number, COURSE))
        films += len(course)
        for signs in course:
            for sign in signs:
                counts[sign.name] += 1
    return tuple((name, count / films) for name, count in counts.items())
