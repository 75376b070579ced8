"""Mixup: the formula, its weights, and numbers that follow from seed, epoch and step."""

import numpy as np
import pytest

from pipeline.training.mixup import mix

COUNT = 16
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 1), dtype=np.uint8)
# Image k has the finding k alone, so that its mixed labels say with what and how it was mixed.
NAMES = np.eye(COUNT, dtype=np.float32)


def pairs_of(mixed_labels):
    """Return weights and partners; an image that met itself has the weight 1."""
    weights = np.diagonal(mixed_labels).copy()
    others = mixed_labels - np.diag(weights)
    return weights, np.where(others.any(axis=1), others.argmax(axis=1), np.arange(COUNT))


def test_images_and_labels_are_mixed_with_the_same_weights_as_in_keras():
    import keras

    images, labels = mix(IMAGES, NAMES, 1.0, 7, 0, 0)
    assert images.dtype == np.uint8
    assert labels.dtype == np.float32
    weights, partners = pairs_of(labels)
    assert sorted(partners) == list(range(COUNT))
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
    transformation = {"mix_weight": weights, "permutation_order": partners}
    layer = keras.layers.MixUp(1.0)
    expected = keras.ops.convert_to_numpy(layer.transform_images(IMAGES, transformation))
    assert np.abs(images - expected).max() <= 0.5 + 1e-4  # rounded to the nearest
    expected = keras.ops.convert_to_numpy(layer.transform_labels(NAMES, transformation))
    np.testing.assert_allclose(labels, expected, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 2.0])
def test_weights_are_of_the_beta_distribution(alpha):
    from scipy import stats

    weights = []
    for step in range(100):
        found, partners = pairs_of(mix(IMAGES, NAMES, alpha, 7, 0, step)[1])
        weights += found[partners != np.arange(COUNT)].tolist()
    # Tiny weights round to 0 in float32 labels and look like no partner; they are too few to matter.
    assert stats.kstest(weights, stats.beta(alpha, alpha).cdf).statistic < 0.06


def test_seed_epoch_step_and_worker_decide_the_numbers():
    first = mix(IMAGES, NAMES, 0.4, 7, 2, 3)
    for one, again in zip(first, mix(IMAGES, NAMES, 0.4, 7, 2, 3), strict=True):
        np.testing.assert_array_equal(one, again)
    for other in ((8, 2, 3, 0), (7, 1, 3, 0), (7, 2, 4, 0), (7, 2, 3, 1)):
        assert not np.array_equal(first[1], mix(IMAGES, NAMES, 0.4, *other)[1])


def test_an_unknown_label_of_either_image_stays_unknown():
    labels = np.random.default_rng(1).integers(0, 2, (COUNT, 4)).astype(np.float32)
    labels[::3, 1] = np.nan
    _, partners = pairs_of(mix(IMAGES, NAMES, 1.0, 7, 0, 0)[1])
    _, mixed = mix(IMAGES, labels, 1.0, 7, 0, 0)
    np.testing.assert_array_equal(np.isnan(mixed), np.isnan(labels) | np.isnan(labels[partners]))
    assert ((mixed >= 0) & (mixed <= 1) | np.isnan(mixed)).all()


def test_labels_on_which_both_agree_are_left_alone():
    labels = np.tile(np.array([0, 1], np.float32), (COUNT, 1))
    np.testing.assert_array_equal(mix(IMAGES, labels, 0.4, 7, 0, 0)[1], labels)


def test_a_single_image_meets_itself():
    images, labels = mix(IMAGES[:1], NAMES[:1], 0.4, 7, 0, 0)
    np.testing.assert_array_equal(images, IMAGES[:1])
    np.testing.assert_array_equal(labels, NAMES[:1])
