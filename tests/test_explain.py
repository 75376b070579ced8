"""Grad-CAM and LayerCAM against closed forms, other ways to the gradient and numerical gradients."""

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.explain import build_explainer
from pipeline.heat_maps import enlarge, is_flat, peaks
from pipeline.params import ModelParams

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    import keras

    from pipeline.training.network import build_model

    keras.utils.set_random_seed(2)
    built = build_model(ModelParams(weights="none", dropout=0.5), 64, np.array([0.1, 0.5, 0.02]))
    rng = np.random.default_rng(1)  # moving statistics as of a trained network, so that no map is flat by chance
    built.set_weights([each + rng.normal(0, 0.01, each.shape).astype(np.float32) for each in built.get_weights()])
    return built


@pytest.fixture(scope="module")
def small():
    """A head that is no closed form: feature maps, flattened, a hidden layer, two findings."""
    import keras

    keras.utils.set_random_seed(3)
    inputs = keras.Input((6, 6, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="conv")(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(5, activation="tanh", name="hidden")(x)
    outputs = keras.layers.Dense(2, activation="sigmoid", name="out")(keras.layers.Dropout(0.5)(x))
    return keras.Model(inputs, outputs)


def test_equals_the_closed_form_of_pooling_and_one_dense_layer(model):
    import keras

    explain = build_explainer(model, "backbone")
    assert explain.method == "Grad-CAM"
    features = keras.Model(model.input, model.get_layer("pooled").input).predict(IMAGES, verbose=0)
    kernel = model.get_layer("findings").get_weights()[0]
    # Selvaraju et al. 2017, section 3.1: the weights are the dense layer's, over the number of places (here 2 x 2).
    expected = np.maximum(features @ kernel / 4, 0)
    maps = explain(IMAGES)
    assert maps.shape == (3, 2, 2, 3)
    assert maps.dtype == np.float32
    assert (maps > 0).any()
    np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-5 * expected.max())


def test_equals_numerical_gradients_through_another_head(small):
    images = np.random.default_rng(4).integers(0, 256, (2, 6, 6, 1), dtype=np.uint8)
    explain = build_explainer(small)
    features = _conv(small, images)
    expected = np.zeros((2, 3, 3, 2))
    for k in range(2):
        slope = np.zeros_like(features)
        for place in np.ndindex(features.shape):
            step = np.zeros_like(features)
            step[place] = 1e-6
            change = _logits(small, features + step) - _logits(small, features - step)
            slope[place] = change[place[0], k] / 2e-6
        weights = slope.mean(axis=(1, 2), keepdims=True)
        expected[..., k] = np.maximum((weights * features).sum(axis=-1), 0)
    assert (expected > 0).any()
    np.testing.assert_allclose(explain(images), expected, rtol=1e-3, atol=1e-6)


def _conv(model, images):
    import keras

    return keras.Model(model.input, model.get_layer("conv").output).predict(images, verbose=0).astype(np.float64)


def _logits(model, features):
    (hidden, bias), (kernel, last) = model.get_layer("hidden").get_weights(), model.get_layer("out").get_weights()
    return np.tanh(features.reshape(len(features), -1) @ hidden.astype(np.float64) + bias) @ kernel + last


def test_a_layer_within_the_backbone_is_weighed_place_by_place_with_the_gradient_of_the_whole_rest(model):
    import keras
    import tensorflow as tf

    backbone, name = model.get_layer("backbone"), "conv5_block2_out"
    before = keras.Model(model.input, model.get_layer("imagenet_mean").output)
    both = keras.Model(backbone.input, [backbone.get_layer(name).output, backbone.output])
    kernel = model.get_layer("findings").kernel
    with tf.GradientTape() as tape:  # one tape from the image on, where ours begins at the layer
        found, last = both(before(IMAGES, training=False), training=False)
        logit = tf.reduce_sum(tf.reduce_mean(last, axis=(1, 2)) @ kernel[:, 1:2])
    # Jiang et al. 2021, equations 5 to 7.
    slopes = tape.gradient(logit, found).numpy()
    expected = (np.maximum(slopes, 0) * found.numpy()).sum(axis=-1)
    assert (expected > 0).any()
    explain = build_explainer(model, name)
    assert explain.method == "LayerCAM"
    maps = explain(IMAGES, [1])[..., 0]
    np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-5 * expected.max())


def test_between_places_that_alone_have_a_gradient_the_map_is_interpolated(model):
    # Behind conv3 ResNet50's strided convolutions of one pixel read every second row and column.
    maps = build_explainer(model)(IMAGES)
    assert (maps[:, 2:-1:2, 1:-1:2] > 0).any()
    np.testing.assert_allclose(maps[:, ::2, 1:-1:2], (maps[:, ::2, :-2:2] + maps[:, ::2, 2::2]) / 2, rtol=1e-4)
    np.testing.assert_allclose(maps[:, 1:-1:2], (maps[:, :-2:2] + maps[:, 2::2]) / 2, rtol=1e-4)


def test_the_explained_layer_has_at_least_seven_places_a_side(model):
    # ResNet50 halves the side five times: 64 pixels end in 2 x 2, and in 8 x 8 three blocks of layers earlier.
    explain = build_explainer(model)
    assert explain.layer == "conv3_block4_out"
    assert explain(IMAGES[:1], [0]).shape == (1, 8, 8, 1)


def test_the_last_layer_is_explained_where_it_has_places_enough():
    from pipeline.training.network import build_model

    assert build_explainer(build_model(ModelParams(weights="none"), 224, np.array([0.3]))).layer == "backbone"


def test_each_map_depends_on_its_own_image_and_finding_alone(small):
    images = np.random.default_rng(5).integers(0, 256, (70, 6, 6, 1), dtype=np.uint8)  # more pairs than one portion
    explain = build_explainer(small)
    together = explain(images)
    alone = np.concatenate([explain(images[k : k + 1], [1]) for k in (0, 31, 69)])
    np.testing.assert_allclose(together[[0, 31, 69]][..., 1:], alone, rtol=1e-5, atol=1e-7)
    pairs = explain.pairs(images, np.array([69, 0, 31]), np.array([1, 1, 0]))
    np.testing.assert_allclose(pairs[0], together[69, :, :, 1], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(pairs[2], together[31, :, :, 0], rtol=1e-5, atol=1e-7)
    assert explain.pairs(images[:1], np.array([], int), np.array([], int)).shape == (0, 3, 3)


def _bright(weight: float):
    """A model whose one feature is brightness, by hand: pooled, times `weight`."""
    import keras

    inputs = keras.Input((32, 32, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.AveragePooling2D(4, name="maps")(x)
    outputs = keras.layers.Dense(1, activation="sigmoid")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    model.layers[-1].set_weights([np.array([[weight]], np.float32), np.zeros(1, np.float32)])
    return model


def test_points_at_what_raises_the_output_also_where_the_sigmoid_is_saturated():
    image = np.zeros((1, 32, 32, 1), np.uint8)
    image[0, 20:24, 8:12] = 255
    model = _bright(1e6)
    assert float(model.predict(image, verbose=0)[0, 0]) == 1.0  # the sigmoid's gradient is 0 here
    heat = build_explainer(model)(image)[0, :, :, 0]
    assert np.unravel_index(heat.argmax(), heat.shape) == (5, 2)
    assert peaks(heat, 32).tolist() == [[10.0, 22.0]]


def test_a_map_without_a_value_above_zero_is_flat_and_has_no_enlargement():
    image = np.full((1, 32, 32, 1), 200, np.uint8)
    heat = build_explainer(_bright(-1.0))(image)[0, :, :, 0]
    assert is_flat(heat)
    assert len(peaks(heat, 32)) == 0
    assert np.isnan(enlarge(heat, 32)).all()
    assert is_flat(np.full((2, 2), np.nan, np.float32))
    assert is_flat(np.stack([heat, heat + 1])).tolist() == [True, False]


def test_models_without_a_last_dense_layer_are_refused():
    import keras

    inputs = keras.Input((8, 8, 1), dtype="uint8")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1.0)(inputs))
    with pytest.raises(UserError, match="ends in GlobalAveragePooling2D"):
        build_explainer(keras.Model(inputs, pooled))


def test_layers_that_are_none_or_that_paths_lead_past_are_refused(model):
    for name in ("conv9_out", "conv5_block2_2_conv"):
        with pytest.raises(UserError, match=f"cannot be cut at a layer '{name}'"):
            build_explainer(model, name)
