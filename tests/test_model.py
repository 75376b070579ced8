"""The network: its input contract, its normalisation inside, its head, its weights."""

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.params import ModelParams

NONE = ModelParams(weights="none")


@pytest.fixture(scope="module")
def model():
    from pipeline.training.network import build_model

    return build_model(NONE, 32, np.array([0.1, 0.5, 0.02]))


def test_takes_uint8_and_gives_one_probability_per_finding(model):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), dtype=np.uint8)
    out = model.predict(images, verbose=0)
    assert out.shape == (2, 3)
    assert out.dtype == np.float32
    assert ((out > 0) & (out < 1)).all()
    assert model.inputs[0].dtype == "uint8"


def test_normalisation_inside_is_that_of_keras_applications(model):
    import keras
    from keras.applications.resnet import preprocess_input

    gray = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 1), dtype=np.uint8)
    inner = keras.Model(model.inputs, model.get_layer("imagenet_mean").output)
    expected = preprocess_input(np.repeat(gray, 3, axis=3).astype(np.float32))
    np.testing.assert_allclose(inner.predict(gray, verbose=0), expected, atol=1e-4)


def test_head_starts_at_the_prevalence(model):
    # sigmoid(bias) is the prevalence: log(0.1 / 0.9) = -2.19722, log(1) = 0, log(0.02 / 0.98) = -3.89182.
    np.testing.assert_allclose(model.get_layer("findings").get_weights()[1], [-2.19722, 0.0, -3.89182], atol=1e-5)


def test_prevalence_leaves_unknown_out_and_stays_inside():
    from pipeline.training.network import prevalence_of

    labels = np.array([[1, 0, np.nan], [0, 0, np.nan], [np.nan, 0, np.nan]], np.float32)
    # (positives + 1) / (known + 2): 2/4, 1/5, 1/2.
    np.testing.assert_allclose(prevalence_of(labels), [0.5, 0.2, 0.5])


def test_saved_model_predicts_the_same(model, tmp_path):
    from pipeline.model import load_model

    path = tmp_path / "模型 one.keras"
    model.save(path)
    images = np.random.default_rng(2).integers(0, 256, (3, 32, 32, 1), dtype=np.uint8)
    np.testing.assert_array_equal(load_model(path).predict(images, verbose=0), model.predict(images, verbose=0))


def test_weights_come_from_a_model_of_ours(model, tmp_path):
    from pipeline.model import BACKBONE
    from pipeline.training.network import build_model

    path = tmp_path / "before.keras"
    model.save(path)
    again = build_model(ModelParams(weights=str(path)), 32, np.array([0.3]))
    for mine, theirs in zip(
        again.get_layer(BACKBONE).get_weights(), model.get_layer(BACKBONE).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_batch_normalisation_is_synchronized_between_replicas():
    import keras

    from pipeline.model import BACKBONE
    from pipeline.training.network import build_model

    layers = build_model(NONE, 32, np.array([0.3]), replicas=2).get_layer(BACKBONE).layers
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 53
    assert all(layer.synchronized for layer in norms)


@pytest.mark.parametrize("name", ["nowhere.keras", "nowhere.h5"])
def test_missing_weights_are_one_sentence(name, tmp_path):
    from pipeline.training.network import build_model

    with pytest.raises(UserError, match="is not a file; allowed: imagenet, none"):
        build_model(ModelParams(weights=str(tmp_path / name)), 32, np.array([0.3]))


def test_a_file_that_is_no_model_is_one_sentence(tmp_path):
    from pipeline.model import load_model
    from pipeline.training.network import build_model

    for name in ("text.keras", "text.h5"):
        path = tmp_path / name
        path.write_text("not a model")
        with pytest.raises(UserError):
            build_model(ModelParams(weights=str(path)), 32, np.array([0.3]))
    with pytest.raises(UserError, match="is missing"):
        load_model(tmp_path / "none.keras")


def test_imagenet_weights_with_another_hash_are_refused(tmp_path):
    result = _imagenet(tmp_path, b"not the weights")
    assert "is not the published file: MD5" in result
    assert "4d473c1dd8becc155b73f8504c6f6626" in result


def test_imagenet_weights_offline_say_where_to_put_the_file(tmp_path):
    result = _imagenet(tmp_path, None)
    assert "could not be fetched" in result
    assert str(tmp_path / "models" / "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5") in result


def _imagenet(home, content):
    """Ask for the weights in a process of its own, whose proxy is a closed port on this machine: truly offline."""
    import os
    import socket
    import subprocess
    import sys

    if content is not None:
        (home / "models").mkdir()
        (home / "models" / "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5").write_bytes(content)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
        code = (
            "from pipeline.weights import imagenet_file\nfrom pipeline.errors import UserError\n"
            "try: imagenet_file('ResNet50')\nexcept UserError as error: print(error)"
        )
        env = {**os.environ, "KERAS_HOME": str(home), "https_proxy": proxy, "http_proxy": proxy, "no_proxy": ""}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    return done.stdout
