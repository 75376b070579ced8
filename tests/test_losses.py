"""The losses against hand-computed values, Keras, scikit-learn and finite differences."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.params import LossParams

EVERY = [
    LossParams(name="focal"),
    LossParams(name="focal", gamma=0.5),
    LossParams(name="binary_crossentropy"),
    LossParams(name="asymmetric"),
    LossParams(name="asymmetric", gamma_positive=1.0, gamma_negative=0.5, clip=0.0),
    LossParams(name="asymmetric", gamma_positive=1.0, gamma_negative=0.5),
]
NAMES = [f"{params.name}-{i}" for i, params in enumerate(EVERY)]
every_loss = pytest.mark.parametrize("params", EVERY, ids=NAMES)


def build(params: LossParams, *args, **kwargs):
    from pipeline.training.losses import build_loss

    return build_loss(params, *args, **kwargs)


def draw(seed: int, images: int, findings: int = 3, *, unknown: bool = True, dtype=np.float32):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0.0, 1.0, np.nan] if unknown else [0.0, 1.0], (images, findings)).astype(dtype)
    return labels, rng.uniform(0.02, 0.98, (images, findings)).astype(dtype)


def gradient_of(loss, labels, p):
    import tensorflow as tf

    variable = tf.Variable(p)
    with tf.GradientTape() as tape:
        value = loss(labels, variable)
    return tape.gradient(value, variable).numpy()


@pytest.fixture(scope="module")
def focal():
    from pipeline.training.losses import MaskedFocal

    return MaskedFocal(alpha=0.25, gamma=2.0)


def test_focal_hand_computed_values(focal):
    # -0.25 (1 - p_t)^2 log p_t for p_t = 0.9 (present, 0.9), 0.8 (absent, 0.2), 0.1 (present, 0.1), 0.5.
    by_hand = [
        0.25 * 0.01 * 0.105360516,
        0.25 * 0.04 * 0.223143551,
        0.25 * 0.81 * 2.302585093,
        0.25 * 0.25 * 0.693147181,
    ]
    loss = float(focal(np.array([[1.0, 0.0, 1.0, 0.0]]), np.array([[0.9, 0.2, 0.1, 0.5]])))
    assert loss == pytest.approx(sum(by_hand) / 4, rel=1e-5)


def test_focal_equals_the_tutorials_formula_up_to_the_number_of_findings(focal):
    rng = np.random.default_rng(0)
    labels, p = (rng.random((32, 14)) < 0.2).astype(np.float32), rng.uniform(0.01, 0.99, (32, 14)).astype(np.float32)
    p_t = np.where(labels == 1, p, 1 - p)
    tutorial = np.mean(-np.sum(0.25 * (1 - p_t) ** 2 * np.log(p_t), axis=1))
    assert float(focal(labels, p)) == pytest.approx(tutorial / 14, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_kerass_own_also_with_smoothed_and_mixed_labels(smoothing):
    import keras

    rng = np.random.default_rng(3)
    p = rng.uniform(0.01, 0.99, (8, 5)).astype(np.float32)
    ours = build(LossParams(name="binary_crossentropy", label_smoothing=smoothing))
    for labels in (rng.integers(0, 2, (8, 5)).astype(np.float32), rng.random((8, 5)).astype(np.float32)):
        expected = float(keras.losses.BinaryCrossentropy(label_smoothing=smoothing)(labels, p))
        assert float(ours(labels, p)) == pytest.approx(expected, rel=1e-5)


def test_asymmetric_hand_computed_values():
    # Present at 0.8: -(0.2)^1 log 0.8. Absent at 0.3: p_m = 0.25, -(0.25)^4 log 0.75. Absent at 0.04 < 0.05: 0.
    by_hand = [0.2 * 0.223143551, 0.25**4 * 0.287682072, 0.0]
    loss = build(LossParams(name="asymmetric", gamma_positive=1.0, gamma_negative=4.0, clip=0.05))
    labels, p = np.array([[1.0, 0.0, 0.0]]), np.array([[0.8, 0.3, 0.04]])
    assert float(loss(labels, p)) == pytest.approx(sum(by_hand) / 3, rel=1e-5)
    assert gradient_of(loss, labels.astype(np.float32), p.astype(np.float32))[0, 2] == 0


@pytest.mark.parametrize("gamma", [0.0, 0.5, 4.0])
def test_asymmetric_easy_negatives_have_no_loss_and_no_gradient_whatever_the_exponent(gamma):
    loss = build(LossParams(name="asymmetric", gamma_negative=gamma, clip=0.05))
    labels, p = np.zeros((1, 3), np.float32), np.array([[0.0, 0.02, 0.049]], np.float32)
    assert float(loss(labels, p)) == 0
    np.testing.assert_array_equal(gradient_of(loss, labels, p), np.zeros((1, 3)))


def test_asymmetric_with_equal_exponents_and_no_shift_is_kerass_focal_loss():
    import keras

    labels, p = draw(4, 16, unknown=False)
    ours = build(LossParams(name="asymmetric", gamma_positive=2.0, gamma_negative=2.0, clip=0.0))
    theirs = keras.losses.BinaryFocalCrossentropy(gamma=2.0)
    assert float(ours(labels, p)) == pytest.approx(float(theirs(labels, p)), rel=1e-5)


@every_loss
def test_a_mixed_label_mixes_the_losses_of_both_classes(params):
    loss = build(params)
    p = draw(5, 6)[1]
    both = [np.asarray(loss.per_image(np.full_like(p, value), p)) for value in (0.0, 1.0)]
    mixed = np.asarray(loss.per_image(np.full_like(p, 0.3), p))
    np.testing.assert_allclose(mixed, 0.7 * both[0] + 0.3 * both[1], rtol=1e-5)


@every_loss
def test_smoothing_is_a_mixed_label(params):
    import dataclasses

    smoothed = build(dataclasses.replace(params, label_smoothing=0.2))
    labels, p = draw(6, 6, unknown=False)
    assert float(smoothed(labels, p)) == pytest.approx(float(build(params)(0.8 * labels + 0.1, p)), rel=1e-5)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), smoothing=st.sampled_from([0.0, 0.1]), weighted=st.booleans())
@every_loss
def test_gradients_equal_central_finite_differences_in_float64(params, seed, smoothing, weighted):
    loss = build(params)
    config = loss.get_config() | {"label_smoothing": smoothing, "dtype": "float64"}
    config["weights"] = [[0.6, 3.0], [1.5, 0.75], [1.0, 1.0], [2.0, 2 / 3]] if weighted else None
    loss = type(loss)(**config)
    rng = np.random.default_rng(seed)
    labels, p = rng.choice([0.0, 0.3, 1.0, np.nan], 4), rng.uniform(0.06, 0.98, 4)  # above the kink at clip
    step = 1e-6
    moved = np.concatenate([p + step * np.eye(4), p - step * np.eye(4)])
    values = np.asarray(loss.per_image(np.tile(labels, (8, 1)), moved))
    assert values.dtype == np.float64
    numeric = (values[:4] - values[4:]) / (2 * step)
    analytic = gradient_of(loss, labels[None], p[None])[0]
    np.testing.assert_allclose(analytic, numeric, rtol=1e-6, atol=1e-8)
    assert (analytic[np.isnan(labels)] == 0).all()


@every_loss
def test_unknown_labels_add_nothing_even_where_the_network_gives_nan(params):
    loss = build(params)
    labels = np.array([[1.0, np.nan, 0.0]], np.float32)
    some, other = (np.array([[0.3, unknown, 0.6]], np.float32) for unknown in (0.7, np.nan))
    assert float(loss(labels, some)) == float(loss(labels, other))
    alone = float(loss(labels[:, [0, 2]], some[:, [0, 2]]))
    assert float(loss(labels, some)) == pytest.approx(alone * 2 / 3, rel=1e-6)
    gradient = gradient_of(loss, labels, other)
    assert gradient[0, 1] == 0
    assert np.isfinite(gradient).all()


@every_loss
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_probabilities_of_exactly_0_and_1_have_finite_losses_and_gradients(params, dtype):
    import tensorflow as tf

    loss = build(params)
    labels = np.array([[0, 1, 0, 1, np.nan, np.nan, 0.3, 0.3]], np.float32)
    p = tf.cast([[0, 0, 1, 1, 0, 1, 0, 1]], dtype)
    value = loss(labels, p)
    assert value.dtype == tf.float32
    assert np.isfinite(float(value))
    assert np.isfinite(tf.cast(gradient_of(loss, labels, p), tf.float32)).all()


@every_loss
def test_half_precision_probabilities_are_reckoned_with_in_float32(params):
    import tensorflow as tf

    labels, p = draw(7, 64)
    half = tf.cast(p, "bfloat16")
    loss = build(params)
    assert float(loss(labels, half)) == float(loss(labels, tf.cast(half, "float32")))


@pytest.mark.parametrize("split", [(4, 4), (5, 3), (8, 0)])
@every_loss
def test_halves_of_a_batch_with_share_give_exactly_the_gradient_of_the_whole(params, split):
    labels, p = draw(8, 8)
    whole, shared = build(params), build(params, share=2 / 8)
    expected = gradient_of(whole, labels, p)
    # Keras divides by the number of replicas within a strategy; here that is done by hand.
    cut = split[0]
    parts = [gradient_of(shared, labels[part], p[part]) / 2 for part in (slice(cut), slice(cut, 8)) if len(p[part])]
    np.testing.assert_allclose(np.concatenate(parts), expected, rtol=1e-6)


def test_mean_over_a_batch_is_the_mean_of_its_parts(focal):
    labels, p = draw(2, 8, 5)
    halves = [float(focal(labels[part], p[part])) for part in (slice(0, 4), slice(4, 8))]
    assert float(focal(labels, p)) == pytest.approx(sum(halves) / 2, rel=1e-6)


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    from pipeline.training.losses import balanced_weights

    rng = np.random.default_rng(9)
    labels = rng.choice([0.0, 1.0, np.nan], (200, 3), p=[0.7, 0.1, 0.2]).astype(np.float32)
    weights = balanced_weights(labels)
    for finding in range(3):
        known = labels[:, finding][~np.isnan(labels[:, finding])]
        expected = compute_class_weight("balanced", classes=np.array([0.0, 1.0]), y=known)
        np.testing.assert_allclose(weights[finding], expected)
        each = weights[finding][known.astype(int)]
        assert each.mean() == pytest.approx(1)
        assert each[known == 1].sum() == pytest.approx(each[known == 0].sum())


def test_balanced_weights_of_one_class_or_nothing_known_are_1():
    from pipeline.training.losses import balanced_weights

    labels = np.array([[0, 1, np.nan], [0, 1, np.nan]], np.float32)
    np.testing.assert_array_equal(balanced_weights(labels), np.ones((3, 2)))


def test_balanced_loss_weighs_each_class_of_each_finding():
    # Finding 0: one positive of four, weights 4/6 and 2. Finding 1: two of two known, so 1.
    labels = np.array([[1, 1], [0, 1], [0, np.nan], [0, np.nan]], np.float32)
    p = np.full((4, 2), 0.5, np.float32)
    loss = build(LossParams(name="binary_crossentropy", class_weights="balanced"), labels)
    by_hand = math.log(2) / 2 * np.array([2 + 1, 4 / 6 + 1, 4 / 6, 4 / 6])
    np.testing.assert_allclose(np.asarray(loss.per_image(labels, p)), by_hand, rtol=1e-6)


def test_balanced_without_labels_is_refused():
    with pytest.raises(ValueError, match="needs the training labels"):
        build(LossParams(class_weights="balanced"))


@every_loss
def test_a_loss_survives_saving_with_all_its_settings(params):
    import dataclasses

    import keras

    labels, p = draw(10, 8)
    loss = build(dataclasses.replace(params, label_smoothing=0.1, class_weights="balanced"), labels, share=0.25)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.get_config() == loss.get_config()
    assert float(again(labels, p)) == float(loss(labels, p))


def test_the_reported_loss_is_the_mean_over_images_of_a_ragged_epoch():
    import keras
    import tensorflow as tf

    from pipeline.training.losses import reported_loss

    labels, x = draw(11, 11)
    loss = build(LossParams(name="binary_crossentropy"), share=1 / 4)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, "sigmoid")])
    model.compile(keras.optimizers.SGD(0.0), loss, metrics=[reported_loss(loss)], jit_compile=False)
    expected = float(np.mean(loss.per_image(labels, model(x))))
    batches = tf.data.Dataset.from_tensor_slices((x, labels)).batch(4)
    history = model.fit(batches, shuffle=False, verbose=0).history
    assert history["image_loss"][0] == pytest.approx(expected, rel=1e-5)
    # Why it is needed: Keras weighs the last batch's 3/4 of a share by its 3 images once more.
    assert history["loss"][0] != pytest.approx(expected, rel=1e-3)


def test_the_reported_loss_survives_saving():
    import keras

    from pipeline.training.losses import reported_loss

    labels, p = draw(12, 8)
    metric = reported_loss(build(EVERY[3], share=0.25))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
    for one in (metric, again):
        one.update_state(labels, p)
    assert again.name == "image_loss"
    assert float(again.result()) == float(metric.result())
