"""The children among the simulated patients: who they are, and what is different on their films."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.simulated.anatomy import Anatomy, draw_anatomy
from pipeline.datasets.simulated.child import as_child
from pipeline.datasets.simulated.cohort import Patient, draw_patient
from pipeline.datasets.simulated.film import Acquisition, breathe, expose
from pipeline.datasets.simulated.signs import Sign, reshape
from pipeline.params import SimulateParams

SIZE = 220  # pixels of 2 mm
STILL = Acquisition(view="PA", field=440.0, exposure=0, contrast=5.0, noise=0, offset=(0, 0), breath=0, marked=False)


def patients(children: float, count: int = 400) -> list[Patient]:
    params = SimulateParams(children=children, seed=3)
    return [draw_patient(params, number) for number in range(1, count + 1)]


def chest(seed: int, age: int) -> Anatomy:
    """Return a child of an age who stands straight and keeps his arms down."""
    rng = np.random.default_rng(seed)
    child = next(child for _ in range(10_000) if (child := as_child(draw_anatomy(rng), rng)).age == age)
    return replace(child, tilt=0.0, raised=False)


def film(anatomy: Anatomy, *signs: Sign) -> np.ndarray:
    return expose(SIZE, anatomy, signs, STILL, np.random.default_rng(1), np.random.default_rng(2)).astype(np.float64)


def test_as_many_are_children_as_the_knob_says() -> None:
    assert not any(patient.anatomy.age < 18 for patient in patients(0.0))
    assert all(1 <= patient.anatomy.age <= 15 for patient in patients(1.0))
    some = patients(0.3, 1000)
    share = np.mean([patient.anatomy.age <= 15 for patient in some])
    assert share == pytest.approx(0.3, abs=3 * np.sqrt(0.3 * 0.7 / 1000))
    assert {patient.anatomy.age for patient in some} > set(range(1, 16))


def test_the_knob_changes_only_who_is_a_child() -> None:
    few, many = patients(0.1), patients(0.5)
    assert any(patient.anatomy.age <= 15 for patient in few)
    for before, after in zip(few, many, strict=True):
        assert [film.signs for film in before.films] == [film.signs for film in after.films]
        if before.anatomy.age <= 15 or after.anatomy.age > 15:
            assert before == after


def test_a_child_fills_a_smaller_detector() -> None:
    """13 cm of chest at one year and 29 cm at fifteen stand beside an adult's 30 cm (Maresh 1948)."""
    for patient in patients(1.0, 100):
        for one in patient.films:
            side = one.columns * one.spacing
            assert side == pytest.approx(one.acquisition.field * patient.anatomy.size, rel=1e-4)
            width = 2 * patient.anatomy.half_width * patient.anatomy.size
            assert width == pytest.approx(np.interp(patient.anatomy.age, [1, 15], [134, 287]), rel=0.2)
    assert {one.spacing for patient in patients(0.0, 50) for one in patient.films} == {0.143, 0.139, 0.194311}


@given(st.integers(0, 2**32), st.sampled_from(["PA", "AP"]))
def test_the_healthy_heart_is_less_than_half_as_wide_as_the_chest(seed: int, view: str) -> None:
    rng = np.random.default_rng(seed)
    child = as_child(draw_anatomy(rng), rng)
    assert child.calcium == 0
    assert breathe(child, replace(STILL, view=view)).cardiothoracic < 0.5


def test_the_ribs_of_the_young_stand_out() -> None:
    """Contrast, in gray levels, that the skeleton alone makes within a lung, in the mean of several people."""
    lung = slice(60, 150), slice(45, 80)  # the right one: y -100 to 80, x -130 to -60 mm
    contrast = {}
    for age in (1, 8, 15):
        people = [chest(seed, age) for seed in range(5)]
        contrast[age] = np.mean([np.std((film(each) - film(replace(each, bone=0.0)))[lung]) for each in people])
    assert contrast[1] > 1.2 * contrast[8] > 1.2 * 1.2 * contrast[15] > 0, contrast


def test_raised_arms_leave_the_flanks_free() -> None:
    """Beside the trunk lies air, not an arm, and above the shoulders an arm, not air."""
    down = chest(4, 3)
    up = replace(down, raised=True)
    flank, above = (slice(150, 165), slice(3, 12)), (slice(2, 20), slice(14, 40))
    assert film(down)[flank].max() > film(up)[flank].max() + 20
    assert film(up)[above].max() > film(down)[above].max() + 20


def test_pneumonia_of_a_child_is_a_haze_of_its_lungs() -> None:
    """Cherian et al. 2005: densities all over and lost volume; an adult's focus leaves the rest of the lung alone."""
    sign = Sign(name="Pneumonia", severity=0.8, side=1, both=False, seed=1)
    upper = slice(60, 85), slice(140, 165)  # y -100 to -50, x 60 to 110 mm; the focus lies lower
    brighter = {}
    for age in (2, 14):
        changes = [film(each, sign) - film(each) for each in (chest(seed, age) for seed in range(4))]
        brighter[age] = float(np.mean([change[upper].mean() for change in changes]))
    assert brighter[2] > 12 > 6 > brighter[14] > 0, brighter
    child, adult = chest(1, 2), draw_anatomy(np.random.default_rng(1))
    assert reshape(child, sign).domes[1] < child.domes[1] - 5
    assert reshape(child, sign).domes[0] == child.domes[0]
    assert reshape(adult, sign) == adult
