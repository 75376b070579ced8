"""How each kind of detector turns exposure into gray levels.

Sources: scatter, from Niklason, Sorenson & Nelson, Med Phys 1981;8:677-681 (in the mediastinum some 90 % of the
exposure is scattered without a grid; with a 12:1 grid less than half of the primary contrast is left) and Floyd et al.,
Radiology 1992;183:857-861 (bedside films). Edge enhancement and equalisation are the unsharp masking and the
compression of the dynamic range of digital systems. All values below were chosen by eye and by the histograms and power
spectra of ChestX-ray14's films, within what these sources allow.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """One kind of detector with its grid and its processing.

    Attributes
    ----------
    blur : float
        Standard deviation of the point spread of focal spot and detector, millimetres on the detector: a Gaussian of
        0.25 mm passes 29 % of the modulation at 1 cycle/mm, one of 0.4 mm 4 %.
    noise : float
        Standard deviation of log exposure behind 10 cm of water, for a pixel of 1.64 mm.
    scatter : float
        Weight of the scattered exposure; see `pipeline.datasets.simulated.film.scattered`.
    scatter_width : float
        Standard deviation of the scatter's spread, millimetres.
    contrast : float
        Width of the film curve in centimetres of water; larger is flatter.
    toe, shoulder : float
        Gray levels (0 to 255) behind nothing and behind the most.
    edge : float
        Weight of unsharp masking; 0 is none.
    edge_width : float
        Standard deviation of the mask's blur, millimetres.
    equalisation : float
        Share of the slow variation of the picture that the processing takes away, 0 to 1.
    border : float
        Gray level outside the collimated field.
    """

    blur: float
    noise: float
    scatter: float
    scatter_width: float
    contrast: float
    toe: float
    shoulder: float
    edge: float
    edge_width: float
    equalisation: float
    border: float


SCANNERS: Final[Mapping[str, Scanner]] = MappingProxyType(
    {
        "flat_panel": Scanner(
            blur=0.2,
            noise=0.014,
            scatter=0.9,
            scatter_width=45.0,
            contrast=5.6,
            toe=4.0,
            shoulder=238.0,
            edge=0.08,
            edge_width=5.0,
            equalisation=0.05,
            border=4.0,
        ),
        "computed": Scanner(
            blur=0.25,
            noise=0.012,
            scatter=1.1,
            scatter_width=45.0,
            contrast=5.9,
            toe=9.0,
            shoulder=240.0,
            edge=0.18,
            edge_width=2.6,
            equalisation=0.12,
            border=0.0,
        ),
        "film": Scanner(
            blur=0.22,
            noise=0.016,
            scatter=1.2,
            scatter_width=50.0,
            contrast=6.2,
            toe=10.0,
            shoulder=246.0,
            edge=0.0,
            edge_width=4.0,
            equalisation=0.0,
            border=250.0,
        ),
        "portable": Scanner(
            blur=0.35,
            noise=0.014,
            scatter=2.2,
            scatter_width=55.0,
            contrast=9.7,
            toe=16.0,
            shoulder=252.0,
            edge=0.04,
            edge_width=4.0,
            equalisation=0.0,
            border=2.0,
        ),
    }
)
"""By name: flat panel with grid, storage phosphor (CR) plate, digitised film, and bedside without grid."""
