"""The learning rate at each step, against values worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.params import ScheduleParams

RATE = 0.8


def rates(params: ScheduleParams, steps: int, epochs: int, extra: int = 0) -> np.ndarray:
    import tensorflow as tf

    from pipeline.training.schedules import build_schedule

    schedule = build_schedule(params, RATE, steps, epochs)
    count = steps * epochs + extra
    if isinstance(schedule, float):
        return np.full(count, schedule, np.float32)
    # As an optimizer asks: with its counter, an int64 tensor.
    return np.array([float(schedule(tf.constant(step, tf.int64))) for step in range(count)], np.float32)


@pytest.mark.parametrize("name", ["plateau", "constant"])
def test_plateau_and_constant_without_warm_up_are_a_number(name):
    from pipeline.training.schedules import build_schedule

    rate = build_schedule(ScheduleParams(name=name, warmup_epochs=0.0), RATE, 4, 3)
    assert rate == RATE
    assert isinstance(rate, float)


def test_plateau_does_not_warm_up():
    from pipeline.training.schedules import build_schedule

    assert build_schedule(ScheduleParams(name="plateau", warmup_epochs=1.0), RATE, 4, 1) == RATE


def test_constant_with_warm_up():
    # One epoch of 4 steps: 1/5, 2/5, 3/5, 4/5 of the rate, which is reached at step 4.
    by_hand = [0.16, 0.32, 0.48, 0.64, 0.8, 0.8, 0.8, 0.8]
    np.testing.assert_allclose(rates(ScheduleParams(name="constant", warmup_epochs=1.0), 4, 2), by_hand, rtol=1e-6)


def test_cosine_without_warm_up():
    # (1 - 0.1) * (1 + cos(pi s / 8)) / 2 + 0.1, and 0.1 at the end of the last epoch and after it.
    found = rates(ScheduleParams(name="cosine", warmup_epochs=0.0, final=0.1), 4, 2, extra=3)
    by_hand = [RATE * (0.9 * (1 + math.cos(math.pi * min(s, 8) / 8)) / 2 + 0.1) for s in range(11)]
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)
    assert found[0] == pytest.approx(0.8)
    assert found[4] == pytest.approx(0.8 * 0.55)
    assert found[8] == pytest.approx(0.08)


def test_cosine_with_warm_up_over_half_an_epoch():
    # 2 of 8 steps: 1/3 and 2/3 of the rate, then half a period over the other 6.
    found = rates(ScheduleParams(name="cosine", warmup_epochs=0.5), 4, 2, extra=1)
    by_hand = [RATE / 3, 2 * RATE / 3, *(RATE * (1 + math.cos(math.pi * s / 6)) / 2 for s in range(7))]
    np.testing.assert_allclose(found, by_hand, rtol=1e-6, atol=1e-7)


def test_exponential_falls_by_its_factor_an_epoch_from_the_end_of_the_warm_up():
    found = rates(ScheduleParams(name="exponential", warmup_epochs=0.5, factor=0.5), 4, 3)
    by_hand = [RATE / 3, 2 * RATE / 3, *(RATE * 0.5 ** (s / 4) for s in range(10))]
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)
    assert found[[2, 6, 10]] == pytest.approx([0.8, 0.4, 0.2])


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_step_falls_at_the_first_step_after_every_so_many_epochs(warmup):
    found = rates(ScheduleParams(name="step", warmup_epochs=warmup, factor=0.5, every=2), 3, 6)
    by_hand = np.repeat([0.8, 0.4, 0.2], 6)
    if warmup:
        by_hand[:3] = [0.2, 0.4, 0.6]
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_multi_step_falls_at_the_first_step_after_each_milestone(warmup):
    found = rates(ScheduleParams(name="multi_step", warmup_epochs=warmup, factor=0.1, milestones=[2, 3]), 3, 5)
    by_hand = np.repeat([0.8, 0.08, 0.008], [6, 3, 6])
    if warmup:
        by_hand[:3] = [0.2, 0.4, 0.6]
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)


@settings(max_examples=25)
@given(
    name=st.sampled_from(["cosine", "exponential", "step", "multi_step", "constant"]),
    warmup=st.floats(0.0, 1.8),
    factor=st.floats(0.05, 0.95),
    steps=st.integers(3, 9),
)
def test_a_rate_is_above_0_never_above_the_highest_and_rises_on_a_line(name, warmup, factor, steps):
    own = {
        "cosine": {},
        "exponential": {"factor": factor},
        "step": {"factor": factor, "every": 2},
        "multi_step": {"factor": factor, "milestones": [2, 4]},
        "constant": {},
    }
    found = rates(ScheduleParams(name=name, warmup_epochs=warmup, **own[name]), steps, 5)
    up = round(warmup * steps)
    assert (found > 0).all()
    assert (found <= np.float32(RATE)).all()
    assert found[up] == np.float32(RATE)  # it comes up to the rate, and on from there: no jump
    np.testing.assert_allclose(np.diff(found[: up + 1]), RATE / (up + 1), rtol=1e-4)
    assert (np.diff(found[up:]) <= 0).all()


def test_a_warm_up_that_leaves_no_step_is_refused():
    from pipeline.training.schedules import build_schedule

    with pytest.raises(UserError, match=r"schedule.warmup_epochs is 2.0 and train.epochs is 2: .* below 2"):
        build_schedule(ScheduleParams(name="cosine", warmup_epochs=2.0), RATE, 4, 2)


@pytest.mark.parametrize(
    ("params", "key"),
    [
        (ScheduleParams(name="step", warmup_epochs=3.0, every=2), "every"),
        (ScheduleParams(name="multi_step", warmup_epochs=2.0, milestones=[2, 4]), "milestones"),
    ],
    ids=["step", "multi_step"],
)
def test_a_warm_up_beyond_the_first_fall_is_refused(params, key):
    from pipeline.training.schedules import build_schedule

    with pytest.raises(UserError, match=rf"with schedule.{key} the learning rate first falls after 2 epochs"):
        build_schedule(params, RATE, 4, 10)


@pytest.mark.parametrize("name", ["exponential", "step", "multi_step", "constant", "cosine"])
def test_a_schedule_survives_saving_within_an_optimizer(name):
    import keras

    from pipeline.training.schedules import build_schedule

    milestones = {"milestones": [2]} if name == "multi_step" else {}
    schedule = build_schedule(ScheduleParams(name=name, **milestones), RATE, 4, 5)
    optimizer = keras.optimizers.SGD(schedule)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))._learning_rate
    assert [float(again(step)) for step in range(20)] == [float(schedule(step)) for step in range(20)]
