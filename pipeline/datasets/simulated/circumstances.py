"""What surrounds the disease: the view, the detector, and the lines and tubes in the patient.

Without a shortcut none of them says anything of the findings. With one they do as in hospitals: who is sick is filmed
in bed (AP) with electrodes and tubes, and a pneumothorax that is known has a drain (Oakden-Rayner et al., "Hidden
stratification", ACM CHIL 2020: most pneumothoraces of ChestX-ray14 are treated ones; Zech et al., PLOS Medicine
2018;15:e1002683; DeGrave et al., Nature Machine Intelligence 2021;3:610-619).
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from pipeline.datasets.simulated.devices import KINDS, Device
from pipeline.datasets.simulated.film import Acquisition, draw_acquisition
from pipeline.datasets.simulated.signs import Sign
from pipeline.params import SimulateParams

View = Literal["PA", "AP"]

_TUBES: Final = ("tracheal_tube", "venous_line", "gastric_tube")
# How often each is seen where chance decides. Chosen; the pacemaker's is a share of the patients.
_USUAL: Final[dict[View, dict[str, float]]] = {
    "PA": {"drain": 0.01, "tracheal_tube": 0.0, "venous_line": 0.06, "gastric_tube": 0.01, "electrodes": 0.04},
    "AP": {"drain": 0.04, "tracheal_tube": 0.12, "venous_line": 0.35, "gastric_tube": 0.15, "electrodes": 0.5},
}
_PACEMAKER: Final = 0.03
_SCANNERS: Final[dict[View, dict[str, float]]] = {  # chosen: bedside films come from mobile units
    "PA": {"flat_panel": 0.55, "computed": 0.3, "film": 0.15},
    "AP": {"flat_panel": 0.1, "computed": 0.25, "portable": 0.65},
}


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """What a patient has, or would have, in or on him: the course of each device, and whether there is a pacemaker."""

    sides: dict[str, int]
    seeds: dict[str, int]
    pacemaker: bool


def draw_equipment(rng: np.random.Generator) -> Equipment:
    """Draw a patient's equipment, so that a line lies in the same place on all his films."""
    sides = {kind: int(rng.random() < 0.5) for kind in KINDS}
    seeds = {kind: int(rng.integers(2**31)) for kind in KINDS}
    return Equipment(sides=sides, seeds=seeds, pacemaker=bool(rng.random() < _PACEMAKER))


def draw_circumstances(
    params: SimulateParams, signs: tuple[Sign, ...], equipment: Equipment, field: float, rng: np.random.Generator
) -> tuple[Acquisition, tuple[Device, ...]]:
    """Draw how one film is taken, and what lies in the patient.

    Parameters
    ----------
    params : SimulateParams
        `shortcut`, `bedside`, `scanner` and `exposure`.
    signs : tuple of Sign
        What the film shows.
    equipment : Equipment
        The patient's.
    field : float
        Side of the detector, millimetres.
    rng : numpy.random.Generator
        For this film's circumstances and nothing else.

    Notes
    -----
    With probability `shortcut`, drawn for each film, a film is AP with electrodes and at least one tube if it shows
    any finding, and PA with neither if it shows none; else view and devices come by chance. With the same probability,
    drawn apart, there is a drain if and only if there is a pneumothorax, on its side. Other keys and findings being
    equal, a film of another `shortcut` shows the same patient with the same findings.
    """
    chance = rng.random(4)
    told, drained = chance[:2] < params.shortcut
    ap = bool(signs) if told else chance[2] < params.bedside
    view: View = "AP" if ap else "PA"
    usual = _USUAL[view]
    present = {kind for kind, roll in zip(usual, rng.random(len(usual)), strict=True) if roll < usual[kind]}
    tube = _TUBES[int(chance[3] * len(_TUBES))]
    if told:
        present -= {*_TUBES, "electrodes"}
        present |= {"electrodes", tube} if signs else set()
    sides = dict(equipment.sides)
    if drained:
        present -= {"drain"}
        for sign in signs:
            if sign.name == "Pneumothorax":
                present.add("drain")
                sides["drain"] = sign.side
    if equipment.pacemaker:
        present.add("pacemaker")
    scanner = _scanner(params, view, rng)
    acquisition = draw_acquisition(view, field, rng, scanner=scanner, exposure=params.exposure)
    return acquisition, tuple(
        Device(kind=kind, side=sides[kind], seed=equipment.seeds[kind]) for kind in KINDS if kind in present
    )


def _scanner(params: SimulateParams, view: View, rng: np.random.Generator) -> str:
    names, shares = zip(*_SCANNERS[view].items(), strict=True)
    drawn = str(rng.choice(names, p=shares))  # always, so that the rest of the film does not depend on the key
    return drawn if params.scanner == "mixed" else params.scanner
