"""Who has what: patients, their films, and how each film was taken.

With the default case mix, `even`, prevalence is far above NIH's (Hernia 0.2 %, Pneumonia 1.3 % of 112,120 films), at
some 7 to 13 % for each finding: with a few thousand films a finding at NIH's rate would leave its test AUROC undefined
or its interval useless.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from pipeline.datasets.simulated.anatomy import Anatomy, draw_anatomy
from pipeline.datasets.simulated.child import as_child
from pipeline.datasets.simulated.circumstances import draw_circumstances, draw_equipment
from pipeline.datasets.simulated.course import draw_course
from pipeline.datasets.simulated.devices import Device
from pipeline.datasets.simulated.film import Acquisition
from pipeline.datasets.simulated.signs import Sign
from pipeline.findings import NIH14
from pipeline.params import SimulateParams

MAX_FILMS: Final = 6

# What a patient's generators are for, the last of the three numbers they start from. The films' own noise has
# 1 to MAX_FILMS; whatever has a stream of its own does not change when another part draws more or less.
ANATOMY: Final = 0
VESSELS: Final = MAX_FILMS + 1
COURSE: Final = 8
EQUIPMENT: Final = 9
LABELS: Final = 10
CHILD: Final = 11
CIRCUMSTANCES: Final = 20  # and the film's number
SPOILING: Final = 30  # and the film's number
SPOILT: Final = 40  # and the film's number
FILE: Final = 50  # and the film's number

_DETECTORS: Final = ((2992, 2991, 0.143), (3056, 3056, 0.139), (2021, 2021, 0.194311))
"""Columns, rows and pixel spacing in millimetres of square detectors in the NIH table."""


@dataclass(frozen=True, kw_only=True)
class Film:
    """One image of one patient: its number, findings, acquisition, devices and row of the table."""

    patient: int
    number: int
    age: int
    columns: int
    rows: int
    spacing: float
    signs: tuple[Sign, ...]
    acquisition: Acquisition
    devices: tuple[Device, ...] = ()
    suffix: str = ".png"

    @property
    def name(self) -> str:
        """Return the file name as NIH has it."""
        return f"{self.patient:08d}_{self.number:03d}{self.suffix}"

    @property
    def findings(self) -> list[str]:
        """Return the names of its findings in the order of the vocabulary."""
        present = {sign.name for sign in self.signs}
        return [name for name in NIH14 if name in present]


@dataclass(frozen=True, kw_only=True)
class Patient:
    """One patient: anatomy and films."""

    number: int
    anatomy: Anatomy
    films: tuple[Film, ...]


def generator(params: SimulateParams, patient: int, stream: int) -> np.random.Generator:
    """Return a fresh generator of one patient for one purpose; see the numbers above."""
    return np.random.default_rng([params.seed, patient, stream])


def film_count(rng: np.random.Generator) -> int:
    """Draw how many films a patient has: 1 to `MAX_FILMS`, mean near 2.4."""
    return min(MAX_FILMS, int(rng.geometric(0.4)))


def draw_patient(params: SimulateParams, number: int) -> Patient:
    """Draw patient `number` (from 1); nothing but the parameters and the number decides what comes out.

    Parameters
    ----------
    params : SimulateParams
        All but `patients`, `size`, `label_noise` and `unusable`, which change nothing here.
    number : int
        Of the patient.

    Returns
    -------
    Patient
        With 1 to 6 films (geometric, mean near 2.4).
    """
    rng = generator(params, number, ANATOMY)
    anatomy = draw_anatomy(rng)
    count = film_count(rng)
    young = generator(params, number, CHILD)
    if young.random() < params.children:
        anatomy = as_child(anatomy, young)
    equipment = draw_equipment(generator(params, number, EQUIPMENT))
    age, films = anatomy.age, []
    for film, signs in enumerate(draw_course(params, count, generator(params, number, COURSE))):
        columns, rows, spacing = _DETECTORS[int(rng.choice(len(_DETECTORS), p=[0.6, 0.25, 0.15]))]
        own = generator(params, number, CIRCUMSTANCES + film)
        acquisition, devices = draw_circumstances(params, signs, equipment, columns * spacing, own)
        if anatomy.youth > 0:  # no detector is made for every size of child
            zoom = float(np.clip(young.normal(1.12, 0.1), 0.92, 1.35))
            acquisition = replace(acquisition, magnification=acquisition.magnification * zoom)
        films.append(
            Film(
                patient=number,
                number=film,
                age=age,
                columns=columns,
                rows=rows,
                spacing=round(spacing * anatomy.size, 6),
                signs=signs,
                acquisition=acquisition,
                devices=devices,
                suffix=".dcm" if params.format == "dicom" else ".png",
            )
        )
        age = min(94, age + int(rng.random() < 0.3))
    return Patient(number=number, anatomy=anatomy, films=tuple(films))
