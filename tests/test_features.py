"""A head that learns from cached features learns what it learns behind the frozen network."""

from itertools import chain

import numpy as np
import pytest
from coded import N_TRAIN

from pipeline.model import BACKBONE, HEAD
from pipeline.params import Params, TrainParams
from pipeline.shards import open_processed

BATCH = 8


@pytest.fixture(scope="module")
def data(coded_images):
    return open_processed(coded_images)


def params_of(**train):
    return Params(train=TrainParams(**{"batch_size": BATCH, "seed": 1} | train))


def network():
    """Build a small network with the layers that the project's has; the backbone is frozen."""
    import keras

    keras.utils.set_random_seed(3)
    backbone = keras.Sequential(
        [
            keras.Input((32, 32, 1)),
            keras.layers.Conv2D(8, 5, strides=4, activation="relu"),
            keras.layers.BatchNormalization(),
        ],
        name=BACKBONE,
    )
    backbone.trainable = False
    inputs = keras.Input((32, 32, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pooled")(backbone(x))
    x = keras.layers.Dropout(0.0, name="dropout")(x)
    return keras.Model(inputs, keras.layers.Dense(6, activation="sigmoid", name=HEAD)(x))


def images_of(data):
    from pipeline.scoring_input import images_in_order

    return np.concatenate([batch.numpy() for batch in images_in_order(data, "train", 10)])


def rows_of(batches):
    return [features.numpy()[:, 0].astype(int).tolist() for features, _ in batches]


def numbered(data):
    """Return features that say which image they are of, and the labels."""
    return np.arange(N_TRAIN, dtype=np.float32)[:, None], data.labels[:N_TRAIN]


def test_features_are_those_behind_the_pooling_in_the_order_of_the_table(data):
    import keras

    from pipeline.training.features import head_of, pooled_features

    model = network()
    images = images_of(data)
    x = model.layers[1](images)
    expected = keras.ops.mean(model.get_layer(BACKBONE)(x, training=False), axis=(1, 2))
    features = pooled_features(model, data, "train", 10)
    assert features.dtype == np.float32
    assert features.shape == (N_TRAIN, 8)
    np.testing.assert_allclose(features, keras.ops.convert_to_numpy(expected), atol=1e-5)
    together = head_of(model).predict(features, verbose=0)
    np.testing.assert_allclose(together, model.predict(images, verbose=0), atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_head_learns_the_same_with_and_without_the_cache(data, optimizer):
    import keras

    from pipeline.training.features import feature_batches, head_of, pooled_features

    params, images, labels = params_of(), images_of(data), data.labels[:N_TRAIN]
    rates = {"sgd": lambda: keras.optimizers.SGD(0.5, 0.9), "adam": lambda: keras.optimizers.Adam(0.05)}
    whole, cached = network(), network()
    start = whole.get_layer(HEAD).get_weights()
    whole.compile(rates[optimizer](), "binary_crossentropy", jit_compile=False)
    batches = feature_batches(*numbered(data), params, 3)
    for rows, batch_labels in batches:  # the order of the features, of images
        whole.train_on_batch(images[rows.numpy()[:, 0].astype(int)], batch_labels)

    head = head_of(cached)
    head.compile(rates[optimizer](), "binary_crossentropy", jit_compile=False)
    features = pooled_features(cached, data, "train", 10)
    head.fit(feature_batches(features, labels, params, 3), epochs=3, steps_per_epoch=5, shuffle=False, verbose=0)
    for begun, expected, found in zip(
        start, whole.get_layer(HEAD).get_weights(), cached.get_layer(HEAD).get_weights(), strict=True
    ):
        assert np.abs(expected - begun).max() > 0.02
        np.testing.assert_allclose(found, expected, atol=1e-4)
    # What was fitted is the model itself.
    np.testing.assert_allclose(cached.predict(images, verbose=0), whole.predict(images, verbose=0), atol=1e-4)


def test_a_model_whose_head_was_taken_off_is_still_written_whole(data, tmp_path):
    from pipeline.model import load_model, save_model
    from pipeline.training.features import head_of

    model = network()
    alone = network()
    head_of(model)
    head_of(model)
    save_model(model, tmp_path / "model.keras")
    save_model(alone, tmp_path / "alone.keras")
    images = images_of(data)
    np.testing.assert_array_equal(
        load_model(tmp_path / "model.keras").predict(images, verbose=0), alone.predict(images, verbose=0)
    )


def test_every_image_once_an_epoch_with_its_labels_in_an_order_of_seed_and_epoch(data):
    from pipeline.training.features import feature_batches, rows_of_feature_batch

    epochs = rows_of(feature_batches(*numbered(data), params_of(), 3))
    for epoch, step in ((0, 0), (1, 4), (2, 3)):
        rows = rows_of_feature_batch(data.labels[:N_TRAIN], params_of(), epoch, step)
        assert rows.tolist() == epochs[epoch * 5 + step]
    with pytest.raises(ValueError, match="step is 5; an epoch has the steps 0 to 4"):
        rows_of_feature_batch(data.labels[:N_TRAIN], params_of(), 0, 5)
    assert [len(batch) for batch in epochs] == [8, 8, 8, 8, 5] * 3
    orders = [list(chain(*epochs[start : start + 5])) for start in (0, 5, 10)]
    assert all(sorted(order) == list(range(N_TRAIN)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert epochs == rows_of(feature_batches(*numbered(data), params_of(), 3))
    assert epochs[5:] == rows_of(feature_batches(*numbered(data), params_of(), 3, first_epoch=1))
    assert epochs != rows_of(feature_batches(*numbered(data), params_of(seed=2), 3))
    for features, labels in feature_batches(*numbered(data), params_of(), 1):
        np.testing.assert_array_equal(labels.numpy() @ (2 ** np.arange(6)), features.numpy()[:, 0])


def test_balanced_features_come_as_often_as_balanced_images(data):
    from pipeline.training.features import feature_batches
    from pipeline.training.sampling import draw_copies, repeat_factors

    batches = rows_of(feature_batches(*numbered(data), params_of(sampling="balanced"), 1))
    copies = draw_copies(repeat_factors(data.labels[:N_TRAIN]), 1, 0)
    assert np.bincount(list(chain(*batches)), minlength=N_TRAIN).tolist() == copies.tolist()
