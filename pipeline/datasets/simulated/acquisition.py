"""How one film was taken."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.datasets.simulated.scanners import SCANNERS

Edges = tuple[float, float, float, float]

_WITHOUT_GRID = 0.45
"""Logarithm of how much wider the film curve is for a detector that is carried to the bedside without its grid.

Chosen by the spectra of real AP films."""

_DETAIL = 0.2
"""Standard deviation of the logarithm of `Acquisition.detail`.

Real films differ in detail beside their contrast: the logarithm of their power at 32 to 64 cycles a side less that at 4
to 8 has a standard deviation of 0.183 decades in one half of NIH's sample; of the simulated ones 0.115 without this and
0.21 with it."""

_WINDOW = 0.25
"""Standard deviation of the logarithm of `Acquisition.gamma`, chosen by the percentiles of gray of real films."""


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """How one film was taken.

    Attributes
    ----------
    view : {"PA", "AP"}
        AP films are taken at the bedside: larger heart, higher diaphragm, less contrast, more noise.
    field : float
        Side of the detector, millimetres.
    exposure : float
        Shift of the film curve, in centimetres of water; positive is darker.
    contrast : float
        Width of the film curve, in centimetres of water.
    noise : float
        Standard deviation of log exposure behind 10 cm of water, for a pixel of 1.64 mm.
    offset : tuple of float
        Displacement of the patient, millimetres.
    breath : float
        How much lower the diaphragm stands than in the patient's anatomy, millimetres.
    scanner : str
        One of `pipeline.datasets.simulated.scanners.SCANNERS`.
    turn : float
        Rotation of the patient about his long axis, degrees; positive turns his front to his left.
    collimation : tuple of float
        Millimetres of the detector that the collimator covers at the left, the top, the right and the bottom.
    lean : float
        How far the collimator's edges run askew from end to end, millimetres.
    folds : bool
        Whether folds of skin show.
    magnification : float
        Of the patient on the detector, beyond the drawn field's.
    white : float
        Share of the scanner's whitest level that the film's window leaves.
    detail : float
        Factor of everything finer than the mask of the scanner's edge enhancement; below 1 is softer.
    gamma : float
        Exponent of the film's window: gray levels, as a share of the whitest, are raised to it; above 1 is darker.
    marked : bool
        Whether the film has a lead letter and words.
    """

    view: Literal["PA", "AP"]
    field: float
    exposure: float
    contrast: float
    noise: float
    offset: tuple[float, float]
    breath: float
    scanner: str = "flat_panel"
    turn: float = 0.0
    collimation: Edges = (0.0, 0.0, 0.0, 0.0)
    lean: float = 0.0
    folds: bool = False
    magnification: float = 1.0
    white: float = 1.0
    detail: float = 1.0
    gamma: float = 1.0
    marked: bool = True


def draw_acquisition(
    view: Literal["PA", "AP"],
    field: float,
    rng: np.random.Generator,
    *,
    scanner: str = "flat_panel",
    exposure: float = 0.0,
) -> Acquisition:
    """Draw the conditions of one film.

    Parameters
    ----------
    view : {"PA", "AP"}
        As in the table.
    field : float
        Side of the detector, millimetres.
    rng : numpy.random.Generator
        The patient's or the film's.
    scanner : str
        One of `SCANNERS`.
    exposure : float
        Added to the film curve's shift, centimetres of water; positive is darker.

    Returns
    -------
    Acquisition
        Chosen by eye, and by grays and mean images of ChestX-ray14's films; bedside films are worse exposed, less
        deeply inspired, more often turned and worse centred.
    """
    bedside = view == "AP"
    kind = SCANNERS[scanner]
    latitude = 0.08 if not bedside else 0.2 if scanner == "portable" else 0.2 + _WITHOUT_GRID
    return Acquisition(
        view=view,
        field=field,
        exposure=float(rng.normal(-5.5 if bedside else -1.8, 1.5 if bedside else 1.2)) + exposure,
        contrast=float(kind.contrast * np.exp(rng.normal(latitude, 0.2))),
        noise=float(kind.noise * np.exp(rng.normal(0, 0.3))),
        offset=(float(rng.normal(0, 9)), float(rng.normal(-10 if bedside else -2, 17 if bedside else 14))),
        breath=float(rng.normal(-9 if bedside else 4, 11 if bedside else 8)),
        scanner=scanner,
        turn=float(rng.normal(0, 3.2 if bedside else 1.6)),
        collimation=_collimation(rng, bedside),
        lean=float(rng.normal(0, 2)),
        folds=bool(rng.random() < (0.12 if bedside else 0.0)),
        magnification=float(np.clip(rng.normal(0.97 if bedside else 1.0, 0.065 if bedside else 0.055), 0.88, 1.2)),
        white=float(np.clip(rng.normal(0.97 if bedside else 1.0, 0.06), 0.75, 1.06)),
        detail=float(np.exp(rng.normal(0, _DETAIL))),
        gamma=float(np.clip(np.exp(rng.normal(0, _WINDOW)), 0.75, 2.0)),
    )


def _collimation(rng: np.random.Generator, bedside: bool) -> Edges:
    """Cover a few millimetres of some edges, and now and then centimetres of an upper or lower one."""
    thin = rng.uniform(1, 9, 4) * (rng.random(4) < 0.3)
    if rng.random() < 0.12:
        thin[1 if bedside else 3] += rng.uniform(5, 28)
    left, top, right, bottom = (float(value) for value in thin)
    return left, top, right, bottom
