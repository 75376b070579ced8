"""One finding on one film, and how it deforms the chest.

What it draws is in `opacities`, `nodules`, `pleura` and `diffuse`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from pipeline.datasets.simulated.anatomy import DIRECTION, LEFT, RIGHT, Anatomy


@dataclass(frozen=True, kw_only=True)
class Sign:
    """One finding on one film.

    Attributes
    ----------
    name : str
        One of `pipeline.findings.NIH14`.
    severity : float
        0 (subtle) to 1 (gross).
    side : int
        0 the patient's right, 1 the left.
    both : bool
        On both sides, where the finding can be.
    seed : int
        Of its place and pattern; kept while the finding persists, so that it stays where it was.
    """

    name: str
    severity: float
    side: int
    both: bool
    seed: int

    @property
    def sides(self) -> tuple[int, ...]:
        """Return the sides it is on."""
        return (RIGHT, LEFT) if self.both else (self.side,)


def collapse(sign: Sign) -> Literal["plate", "lower", "upper"]:
    """Return which atelectasis a sign is: plates in half of the cases, else a lobe, more often a lower one."""
    kinds: tuple[Literal["plate", "lower", "upper"], ...] = ("plate", "lower", "upper")
    return kinds[int(np.random.default_rng([sign.seed, 1]).choice(3, p=[0.5, 0.3, 0.2]))]


def reshape(anatomy: Anatomy, sign: Sign) -> Anatomy:
    """Return the chest as the finding deforms it; unchanged for findings that are opacities only.

    Notes
    -----
    "Hansell 2008" is the glossary of the Fleischner Society, Radiology 2008;246:697-722.

    - Cardiomegaly: cardiothoracic ratio above 0.5 (Danzer, Am J Med Sci 1919;157:513-521), here 0.505 to 0.66.
    - Emphysema: low flat diaphragm, long dark lungs, narrow heart; a dome that rises less than 1.5 cm above the
      costophrenic angle is flat (Sutinen et al., Am Rev Respir Dis 1965;91:69-76; Thurlbeck & Simon, AJR
      1978;130:429-440), which takes a severity of some 0.65 here.
    - Atelectasis: "reduced volume", the diaphragm of that side raised, the mediastinum drawn towards it (Hansell 2008);
      a collapsed upper lobe raises the fissure instead of the diaphragm.
    - Fibrosis: reduced volume of both lungs, mostly of the bases (Hansell 2008, "pulmonary fibrosis").
    - Pneumonia: areas of lost volume in a child (Cherian et al., Bull World Health Organ 2005;83:353-359).
    - Pneumothorax and effusion: a large one pushes the mediastinum to the other side.
    """
    change = _CHANGES.get(sign.name)
    return change(anatomy, sign) if change else anatomy


def _cardiomegaly(anatomy: Anatomy, sign: Sign) -> Anatomy:
    return replace(anatomy, cardiothoracic=0.505 + 0.155 * sign.severity)


def _emphysema(anatomy: Anatomy, sign: Sign) -> Anatomy:
    severity = sign.severity
    drop = 3 + 37 * severity
    right, left = (angle * (0.92 - 0.5 * severity) - 12 * severity for angle in anatomy.angle_drop)
    return replace(
        anatomy,
        domes=(anatomy.domes[0] + drop, anatomy.domes[1] + drop),
        angle_drop=(max(6, right), max(6, left)),
        heart_base=anatomy.heart_base + 0.7 * drop,
        cardiothoracic=max(0.28, anatomy.cardiothoracic - 0.01 - 0.09 * severity),
        aeration=anatomy.aeration * (1.01 + 0.18 * severity),
        rib_spacing=anatomy.rib_spacing * (1.01 + 0.1 * severity),
        rib_slope=anatomy.rib_slope * (1 - 0.55 * severity),
    )


def _atelectasis(anatomy: Anatomy, sign: Sign) -> Anatomy:
    domes, kind = list(anatomy.domes), collapse(sign)
    lift = {"plate": 5 + 24 * sign.severity, "lower": 4 + 18 * sign.severity, "upper": 0.0}
    domes[sign.side] -= lift[kind]
    pull = (1 + 4 * sign.severity) if kind == "plate" else (2 + 12 * sign.severity)
    return replace(anatomy, domes=(domes[0], domes[1]), shift=anatomy.shift + DIRECTION[sign.side] * pull)


def _fibrosis(anatomy: Anatomy, sign: Sign) -> Anatomy:
    lift = 3 + 22 * sign.severity
    return replace(
        anatomy,
        domes=(anatomy.domes[0] - lift, anatomy.domes[1] - lift),
        heart_base=anatomy.heart_base - 0.4 * lift,
        aeration=anatomy.aeration * (1 - 0.05 * sign.severity),
    )


def _pneumonia(anatomy: Anatomy, sign: Sign) -> Anatomy:
    lift = anatomy.youth * (3 + 11 * sign.severity)
    right, left = (dome - lift * (side in sign.sides) for side, dome in enumerate(anatomy.domes))
    return replace(anatomy, domes=(right, left))


def _pneumothorax(anatomy: Anatomy, sign: Sign) -> Anatomy:
    domes, tension = list(anatomy.domes), max(0.0, sign.severity - 0.5)
    domes[sign.side] += 16 * tension
    return replace(anatomy, domes=(domes[0], domes[1]), shift=anatomy.shift - DIRECTION[sign.side] * 20 * tension)


def _effusion(anatomy: Anatomy, sign: Sign) -> Anatomy:
    push = 0.0 if sign.both else 18 * max(0.0, sign.severity - 0.6)
    return replace(anatomy, shift=anatomy.shift - DIRECTION[sign.side] * push)


_CHANGES: Final[dict[str, Callable[[Anatomy, Sign], Anatomy]]] = {
    "Atelectasis": _atelectasis,
    "Cardiomegaly": _cardiomegaly,
    "Effusion": _effusion,
    "Emphysema": _emphysema,
    "Fibrosis": _fibrosis,
    "Pneumonia": _pneumonia,
    "Pneumothorax": _pneumothorax,
}
