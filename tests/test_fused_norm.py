"""The faster layers beside Keras's own: outputs, gradients, statistics, a training, and the file."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config  # its public module can enable determinism, not disable it

from pipeline.params import ModelParams
from pipeline.training.fused_layers import FusedActivation, FusedBatchNormalization, in_fours
from pipeline.training.fused_norm import fuse, plain
from pipeline.training.network import build_model


def small_network() -> keras.Model:
    """Every case of `fuse`: biases and none, pads, a residual, a normalisation that follows no convolution."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    inputs = keras.Input((16, 16, 3), name="pixels")
    x = layers.ZeroPadding2D(((3, 2), (1, 3)), name="pad")(inputs)
    x = layers.Conv2D(8, 5, strides=2, name="stem")(x)
    x = layers.BatchNormalization(epsilon=1.001e-5, name="stem_bn")(x)
    x = layers.Activation("relu", name="stem_relu")(x)
    x = layers.ZeroPadding2D(1, name="pool_pad")(x)
    short = layers.MaxPooling2D(3, strides=2, name="pool")(x)
    x = layers.Conv2D(12, 1, use_bias=False, name="narrow")(short)
    x = layers.BatchNormalization(scale=False, momentum=0.9, name="narrow_bn")(x)
    x = layers.ReLU(name="narrow_relu")(x)
    x = layers.Conv2D(8, 3, padding="same", name="wide")(x)
    x = layers.BatchNormalization(center=False, name="wide_bn")(x)
    x = layers.Add(name="sum")([x, short])
    x = layers.BatchNormalization(name="late_bn")(x)
    x = layers.Conv2D(6, 1, activation="relu", name="last")(x)
    network = keras.Model(inputs, x, name="backbone")
    rng = np.random.default_rng(5)
    network.set_weights([w + rng.uniform(0, 0.3, w.shape).astype(np.float32) for w in network.get_weights()])
    return network


def pair(policy: str = "float32", synchronized: bool = False) -> tuple[keras.Model, keras.Model]:
    keras.config.set_dtype_policy(policy)
    try:
        stock = small_network()
        return stock, fuse(stock, synchronized=synchronized)
    finally:
        keras.config.set_dtype_policy("float32")


def pixels(count: int = 6, side: int = 16) -> np.ndarray:
    return np.random.default_rng(1).normal(0.3, 1, (count, side, side, 3)).astype(np.float32)


def gradients(model: keras.Model, images: np.ndarray, training: bool) -> list[np.ndarray]:
    with tf.GradientTape() as tape:
        outputs = tf.cast(model(images, training=training), tf.float32)
        loss = tf.reduce_mean(outputs * np.cos(np.arange(outputs.shape[-1], dtype=np.float32)) + outputs**2)
    found = tape.gradient(loss, model.trainable_variables)
    assert None not in found  # Keras would warn
    return [np.asarray(each) for each in found]


def assert_close(one: list[np.ndarray], other: list[np.ndarray], of: list[Any], tolerance: float) -> None:
    for a, b, variable in zip(one, other, of, strict=True):
        scale = max(1.0, float(np.abs(b).max()))
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * scale, err_msg=variable.name)


def losses(model: keras.Model, images: np.ndarray, steps: int, jit: bool = False) -> list[float]:
    keras.utils.set_random_seed(9)
    whole = keras.Sequential([model, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    whole.compile(keras.optimizers.SGD(0.02, momentum=0.9), "mse", jit_compile=jit)
    labels = np.random.default_rng(2).normal(size=(len(images), 2)).astype(np.float32)
    return [float(whole.train_on_batch(images, labels)) for _ in range(steps)]


def test_every_layer_has_its_name_and_its_weights() -> None:
    stock, fused = pair()
    assert [layer.name for layer in fused.layers] == [layer.name for layer in stock.layers]
    assert [w.path for w in fused.weights] == [w.path for w in stock.weights]
    assert [w.path for w in fused.trainable_weights] == [w.path for w in stock.trainable_weights]
    assert_close(fused.get_weights(), stock.get_weights(), stock.weights, 0)


def test_the_layers_that_are_replaced() -> None:
    _, fused = pair()
    named = {layer.name for layer in fused.layers if type(layer).__name__.startswith("Fused")}
    assert named == {"stem", "stem_bn", "stem_relu", "narrow", "narrow_bn", "wide", "wide_bn", "late_bn"}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("synchronized", [True, False])
def test_outputs_gradients_and_statistics_are_those_of_keras(training: bool, synchronized: bool) -> None:
    stock, fused = pair(synchronized=synchronized)
    wanted, found = stock(pixels(), training=training), fused(pixels(), training=training)
    assert_close([np.asarray(found)], [np.asarray(wanted)], stock.outputs, 1e-5)
    assert_close(fused.get_weights(), stock.get_weights(), stock.weights, 1e-6)
    both = gradients(fused, pixels(), training), gradients(stock, pixels(), training)
    assert_close(*both, stock.trainable_variables, 2e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("sides", [(8, 6), (8, 5), (7, 6)])
def test_images_of_four_places_and_a_relu_inside_change_nothing(
    sides: tuple[int, int], frozen: bool, training: bool
) -> None:
    """Even sides are laid out otherwise for the normalisation, odd ones are not; a frozen one leaves the ReLU alone."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((*sides, 3))
    x = keras.layers.Conv2D(5, 3, padding="same")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Activation("relu", name="relu")(x)
    stock = keras.Model(inputs, keras.layers.Conv2D(4, 1)(x))
    fused = fuse(stock, synchronized=False)
    assert isinstance(fused.get_layer("relu"), FusedActivation)
    assert in_fours(np.zeros((4, *sides, 5))).shape[1:3] == ((2, 2) if sides == (8, 6) else sides)
    images = np.random.default_rng(1).normal(0.3, 1, (4, *sides, 3)).astype(np.float32)
    for model in (stock, fused):
        model.get_layer("norm").trainable = not frozen
    found, wanted = fused(images, training=training), stock(images, training=training)
    assert_close([np.asarray(found)], [np.asarray(wanted)], stock.outputs, 1e-5)
    assert_close(fused.get_weights(), stock.get_weights(), stock.weights, 1e-6)
    both = gradients(fused, images, training), gradients(stock, images, training)
    assert_close(*both, stock.trainable_variables, 2e-5)


def test_variance_of_few_values_is_divided_as_keras_does() -> None:
    """One image whose last map has 20 values: dividing by 19 instead of 20 moves the variance by 5 %."""
    stock, fused = pair()
    for model in (stock, fused):
        model(pixels(1), training=True)
    assert_close(fused.get_weights(), stock.get_weights(), stock.weights, 1e-6)


def test_one_value_a_channel_leaves_numbers() -> None:
    layer = FusedBatchNormalization(momentum=0.9)
    layer(np.full((1, 1, 1, 3), 5, np.float32), training=True)
    np.testing.assert_allclose(layer.moving_mean, np.full(3, 0.5), rtol=1e-6)  # 0.9 * 0 + 0.1 * 5
    np.testing.assert_allclose(layer.moving_variance, np.full(3, 0.9), rtol=1e-6)  # 0.9 * 1 + 0.1 * 0


def test_frozen_normalisation_trains_as_keras_does() -> None:
    stock, fused = pair()
    for model in (stock, fused):
        for layer in model.layers:
            layer.trainable = not layer.name.endswith("_bn")
    before = fused.get_layer("stem_bn").get_weights()
    np.testing.assert_allclose(losses(fused, pixels(), 6), losses(stock, pixels(), 6), rtol=2e-5)
    assert_close(fused.get_weights(), stock.get_weights(), stock.weights, 2e-5)
    norm = fused.get_layer("stem_bn")
    assert_close(norm.get_weights(), before, norm.weights, 0)


@pytest.fixture
def undetermined() -> Iterator[None]:
    """XLA is refused where an earlier test of the process made TensorFlow deterministic, as trainings do."""
    before = config.is_op_determinism_enabled()
    config.disable_op_determinism()
    yield
    if before:
        tf.config.experimental.enable_op_determinism()


@pytest.mark.usefixtures("undetermined")
@pytest.mark.parametrize("jit", [False, True])
def test_training_has_the_same_loss_curve(jit: bool) -> None:
    stock, fused = pair()
    wanted = losses(stock, pixels(), 8)
    np.testing.assert_allclose(losses(fused, pixels(), 8, jit), wanted, rtol=1e-4)
    assert wanted[-1] < 0.8 * wanted[0]
    assert_close(fused.get_weights(), stock.get_weights(), stock.weights, 1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_is_as_near_to_float32_as_keras_is(training: bool) -> None:
    images = pixels(64)
    exact = np.asarray(pair()[0](images, training=training))
    stock, fused = pair("mixed_bfloat16")
    far = [np.abs(np.asarray(tf.cast(each(images, training=training), tf.float32)) - exact) for each in (fused, stock)]
    assert fused.output.dtype == "bfloat16"
    assert far[1].mean() > 0
    assert far[0].mean() <= 1.2 * far[1].mean()
    assert {w.dtype for w in fused.weights} == {"float32"}
    np.testing.assert_allclose(
        fused.get_layer("stem_bn").moving_variance, stock.get_layer("stem_bn").moving_variance, rtol=5e-3
    )


def test_a_network_without_batch_normalisation_stays() -> None:
    inputs = keras.Input((8, 8, 3))
    network = keras.Model(inputs, keras.layers.Conv2D(2, 3)(keras.layers.ZeroPadding2D(1)(inputs)))
    assert fuse(network, synchronized=False) is network


@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetV2B0", "DenseNet121"])
def test_networks_of_keras_applications(name: str) -> None:
    keras.utils.set_random_seed(4)
    stock = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(32, 32, 3))
    fused = fuse(stock, synchronized=False)
    assert [w.path for w in fused.weights] == [w.path for w in stock.weights]
    scale = float(np.abs(stock(pixels(2, 32))).max())
    np.testing.assert_allclose(fused(pixels(2, 32)), stock(pixels(2, 32)), rtol=1e-5, atol=2e-5 * scale)


@pytest.fixture(scope="module")
def whole() -> keras.Model:
    """The whole ResNet50 of the pipeline in faster layers; its moving statistics have moved."""
    keras.utils.set_random_seed(8)
    model = build_model(ModelParams(weights="none", dropout=0.1), 32, np.array([0.2, 0.4]), fused=True)
    model(gray(), training=True)
    return model


def gray() -> np.ndarray:
    return np.random.default_rng(6).integers(0, 256, (16, 32, 32, 1), dtype=np.uint8)


def test_resnet50_departs_from_keras_by_rounding_alone(whole: keras.Model) -> None:
    """It goes about as far from Keras's network as that network does with its weights changed by a millionth.

    A ResNet50 with random weights and maps of one pixel at its end makes much of every rounding, so that no fixed
    tolerance says anything, and after more steps than two nothing does.
    """
    stock, shifted, fused = plain(whole), plain(whole), whole
    rng = np.random.default_rng(1)
    shifted.set_weights([w * (1 + 1e-6 * rng.normal(size=w.shape)).astype(np.float32) for w in stock.get_weights()])
    curves = [eager_losses(model, 2) for model in (stock, shifted, fused)]
    assert max(curves[0]) > 2 * min(curves[0])
    assert np.all(np.abs(curves[2] - curves[0]) <= 3 * np.abs(curves[1] - curves[0]))


def eager_losses(model: keras.Model, steps: int) -> np.ndarray:
    """Return the losses of a few steps of Adam, without the seconds of tracing a ResNet50."""
    labels = (np.random.default_rng(2).random((16, 2)) < 0.5).astype(np.float32)
    optimizer, found = keras.optimizers.Adam(1e-5), []
    model.get_layer("dropout").rate = 0.0
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.binary_crossentropy(labels, model(gray(), training=True)))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        found.append(float(loss))
    return np.array(found)


def test_the_plain_model_is_all_keras_and_says_the_same(whole: keras.Model) -> None:
    stock = plain(whole)
    layers = [*stock.layers, *stock.get_layer("backbone").layers]
    assert {type(layer).__module__.split(".")[0] for layer in layers} == {"keras"}
    assert [layer.name for layer in stock.layers] == [layer.name for layer in whole.layers]
    assert_close(stock.get_weights(), whole.get_weights(), whole.weights, 0)
    np.testing.assert_allclose(stock(gray()), whole(gray()), atol=1e-5)


def test_the_plain_file_loads_without_the_pipeline(whole: keras.Model, tmp_path: Path) -> None:
    plain(whole).save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", gray())
    script = """
import sys, keras, numpy
model = keras.models.load_model("model.keras")
numpy.save("found.npy", model(numpy.load("images.npy")))
assert not any(name.split(".")[0] == "pipeline" for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), whole(gray()), atol=1e-5)


REPLICAS = """
import sys, numpy, keras, tensorflow as tf
sys.path.insert(0, {tests!r})
devices = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(devices[0], [tf.config.LogicalDeviceConfiguration()] * 2)
tf.config.experimental.enable_op_determinism()
from test_fused_norm import losses, pixels, small_network
from pipeline.training.fused_norm import fuse
found = []
for _ in range(2):
    with tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]).scope():
        fused = fuse(small_network(), synchronized=True)
        curve = losses(fused, pixels(), 3)
    found.append(fused.get_weights())
once = [fuse(small_network(), synchronized=False) for _ in range(2)]
curves = [losses(each, pixels(), 3) for each in once]
assert curves[0] == curves[1]
assert all((a == b).all() for a, b in zip(once[0].get_weights(), once[1].get_weights()))
numpy.testing.assert_allclose(curve, curves[0], rtol=1e-5)
for weights in found:
    for a, b in zip(weights, once[0].get_weights()):
        numpy.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
"""


def test_two_synchronized_replicas_are_one_and_one_is_deterministic() -> None:
    """Two devices with half of the batch each end where one device with all of it does, twice the same."""
    script = REPLICAS.format(tests=str(Path(__file__).parent))
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True, capture_output=True, text=True)
