"""The focal loss against hand-computed values, Keras and finite differences."""

import math

import numpy as np
import pytest

from pipeline.params import LossParams


@pytest.fixture(scope="module")
def focal():
    from pipeline.training.losses import MaskedFocal

    return MaskedFocal(alpha=0.25, gamma=2.0)


def test_hand_computed_values(focal):
    # -0.25 (1 - p_t)^2 log p_t for p_t = 0.9 (present, 0.9), 0.8 (absent, 0.2), 0.1 (present, 0.1), 0.5.
    by_hand = [
        0.25 * 0.01 * 0.105360516,
        0.25 * 0.04 * 0.223143551,
        0.25 * 0.81 * 2.302585093,
        0.25 * 0.25 * 0.693147181,
    ]
    loss = float(focal(np.array([[1.0, 0.0, 1.0, 0.0]]), np.array([[0.9, 0.2, 0.1, 0.5]])))
    assert loss == pytest.approx(sum(by_hand) / 4, rel=1e-5)


def test_equals_the_tutorials_formula_up_to_the_number_of_findings(focal):
    rng = np.random.default_rng(0)
    labels, p = (rng.random((32, 14)) < 0.2).astype(np.float32), rng.uniform(0.01, 0.99, (32, 14)).astype(np.float32)
    p_t = np.where(labels == 1, p, 1 - p)
    tutorial = np.mean(-np.sum(0.25 * (1 - p_t) ** 2 * np.log(p_t), axis=1))
    assert float(focal(labels, p)) == pytest.approx(tutorial / 14, rel=1e-5)


def test_unknown_labels_add_nothing_and_have_no_gradient(focal):
    import tensorflow as tf

    labels = np.array([[1.0, np.nan, 0.0]], np.float32)
    p = tf.Variable([[0.3, 0.7, 0.6]])
    with tf.GradientTape() as tape:
        loss = focal(labels, p)
    gradient = tape.gradient(loss, p).numpy()
    assert float(loss) == pytest.approx(0.25 * (0.49 * -math.log(0.3) + 0.36 * -math.log(0.4)) / 3, rel=1e-5)
    assert gradient[0, 1] == 0
    assert np.isfinite(gradient).all()


def test_gradient_equals_finite_differences(focal):
    import tensorflow as tf

    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (4, 3)).astype(np.float32)
    p = rng.uniform(0.1, 0.9, (4, 3)).astype(np.float32)
    variable = tf.Variable(p)
    with tf.GradientTape() as tape:
        loss = focal(labels, variable)
    analytic = tape.gradient(loss, variable).numpy()
    step = 1e-2
    for i, j in np.ndindex(p.shape):
        up, down = p.copy(), p.copy()
        up[i, j] += step
        down[i, j] -= step
        numeric = (float(focal(labels, up)) - float(focal(labels, down))) / (2 * step)
        assert analytic[i, j] == pytest.approx(numeric, rel=0.02, abs=2e-4)


def test_mean_over_a_batch_is_the_mean_of_its_parts(focal):
    rng = np.random.default_rng(2)
    labels = rng.choice([0.0, 1.0, np.nan], (8, 5)).astype(np.float32)
    p = rng.uniform(0.1, 0.9, (8, 5)).astype(np.float32)
    halves = [float(focal(labels[part], p[part])) for part in (slice(0, 4), slice(4, 8))]
    assert float(focal(labels, p)) == pytest.approx(sum(halves) / 2, rel=1e-6)


def test_cross_entropy_is_kerass_own():
    import keras

    from pipeline.training.losses import build_loss

    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, (8, 5)).astype(np.float32)
    p = rng.uniform(0.01, 0.99, (8, 5)).astype(np.float32)
    ours = float(build_loss(LossParams(name="binary_crossentropy"))(labels, p))
    assert ours == pytest.approx(float(keras.losses.BinaryCrossentropy()(labels, p)), rel=1e-5)


def test_loss_survives_saving(focal):
    import keras

    again = keras.losses.deserialize(keras.losses.serialize(focal))
    assert (again.alpha, again.gamma) == (0.25, 2.0)
