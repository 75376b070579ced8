"""What is different in a child's chest."""

from dataclasses import replace

import numpy as np

from pipeline.datasets.simulated.anatomy import Anatomy


def as_child(adult: Anatomy, rng: np.random.Generator) -> Anatomy:
    """Return a child in an adult's place.

    Parameters
    ----------
    adult : Anatomy
        Whose sex, tilt, shift and the like he keeps.
    rng : numpy.random.Generator
        The patient's own.

    Returns
    -------
    Anatomy
        1 to 15 years old, the young more often, as in a children's ward. His ribs are bold, because a lower tube
        voltage shows bone better and there is less flesh before them; there is little flesh beside them, a short neck
        under the head, a thymus beside the great vessels, perhaps arms held up. Ribs fall steeply, for films of
        children are wider than high and most archives keep them stretched to squares. Chests grow from 13 cm at one
        year to 29 cm at fifteen (Maresh, Pediatrics 1948;2:382-404); the rest was chosen by eye beside films of
        children. The heart's ratio stays below 0.5, which in the first two years it need not (ibid.).
    """
    age = 1 + int(15 * rng.random() ** 1.7)
    youth = (16 - age) / 15
    right_dome = float(rng.normal(84 - 10 * youth, 8))
    return replace(
        adult,
        age=age,
        youth=youth,
        size=0.41 + 0.036 * age,
        habitus=float(np.clip(rng.normal(-0.5 * youth, 0.8), -2, 2)),
        half_width=float(rng.normal(150 + 4 * youth, 7)),
        domes=(right_dome, right_dome + float(rng.normal(11, 4))),
        angle_drop=(float(rng.normal(44, 6)), float(rng.normal(42, 6))),
        heart_base=right_dome + 8,
        cardiothoracic=float(np.clip(rng.normal(0.44 + 0.025 * youth, 0.03), 0.36, 0.495)),
        rib_spacing=float(rng.normal(27.5 + 1.5 * youth, 2.0)),
        rib_slope=float(rng.normal(30 + 32 * youth, 9)),
        breast=adult.breast if age > 12 else 0.0,
        stomach=float(rng.uniform(0.3, 1)) if rng.random() < 0.75 else 0.0,
        bone=float(np.clip(rng.normal(1 + 1.6 * youth, 0.4), 0.7, 3.6)),
        calcium=0.0,
        raised=bool(rng.random() < 0.7 * youth),
    )
