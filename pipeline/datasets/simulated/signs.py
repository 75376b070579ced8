"""One finding on one film, and how it deforms the chest; what it draws on the lungs is in `opacities`."""

from dataclasses import dataclass, replace

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


def reshape(anatomy: Anatomy, sign: Sign) -> Anatomy:
    """Return the chest as the finding deforms it; unchanged for findings that are opacities only.

    Notes
    -----
    "Hansell 2008" is the glossary of the Fleischner Society, Radiology 2008;246:697-722.

    - Cardiomegaly: cardiothoracic ratio above 0.5 (Danzer, Am J Med Sci 1919;157:513-521), here 0.515 to 0.68.
    - Emphysema: low flat diaphragm, long dark lungs, narrow heart; a dome that rises less than 1.5 cm above the
      angles is flat, which takes a severity above 0.55 here (Sutinen et al., Am Rev Respir Dis
      1965;91:69-76; Thurlbeck & Simon, AJR 1978;130:429-440).
    - Atelectasis: "reduced volume", the diaphragm of that side raised, the mediastinum drawn towards it (Hansell 2008).
    - Fibrosis: reduced volume of both lungs, mostly of the bases (Hansell 2008, "pulmonary fibrosis").
    - Pneumothorax: a large one pushes the mediastinum to the other side.
    """
    domes, severity = list(anatomy.domes), sign.severity
    direction = DIRECTION[sign.side]
    if sign.name == "Cardiomegaly":
        return replace(anatomy, cardiothoracic=0.515 + 0.165 * severity)
    if sign.name == "Emphysema":
        drop = 8 + 32 * severity
        return replace(
            anatomy,
            domes=(domes[0] + drop, domes[1] + drop),
            angle_drop=(25 - 18 * severity, 25 - 18 * severity),
            heart_base=anatomy.heart_base + 0.7 * drop,
            cardiothoracic=anatomy.cardiothoracic - 0.02 - 0.08 * severity,
            aeration=anatomy.aeration * (1.03 + 0.22 * severity),
            rib_spacing=anatomy.rib_spacing * (1.05 + 0.06 * severity),
            rib_slope=0.5 * anatomy.rib_slope,
        )
    if sign.name == "Atelectasis":
        domes[sign.side] -= 14 + 26 * severity
        return replace(anatomy, domes=(domes[0], domes[1]), shift=anatomy.shift + direction * (4 + 8 * severity))
    if sign.name == "Fibrosis":
        lift = 6 + 22 * severity
        return replace(
            anatomy,
            domes=(domes[0] - lift, domes[1] - lift),
            heart_base=anatomy.heart_base - 0.6 * lift,
            aeration=anatomy.aeration * 0.96,
        )
    if sign.name == "Pneumothorax":
        return replace(anatomy, shift=anatomy.shift - direction * 9 * max(0.0, severity - 0.4))
    return anatomy
