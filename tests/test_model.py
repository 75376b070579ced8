"""The network: its input contract, its normalisation inside, its head, its weights."""

import os
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.params import ModelParams
from pipeline.params.blocks import BLOCKS

NONE = ModelParams(weights="none")
SMALL = ModelParams(backbone="MobileNetV3Small", weights="none")  # built in a second; the others: test_backbones.py


@pytest.fixture(scope="module")
def model():
    from pipeline.training.network import build_model

    return build_model(SMALL, 32, np.array([0.1, 0.5, 0.02]))


def test_takes_uint8_and_gives_one_probability_per_finding(model):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), dtype=np.uint8)
    out = model.predict(images, verbose=0)
    assert out.shape == (2, 3)
    assert out.dtype == np.float32
    assert ((out > 0) & (out < 1)).all()
    assert model.inputs[0].dtype == "uint8"


def test_head_starts_at_the_prevalence(model):
    # sigmoid(bias) is the prevalence: log(0.1 / 0.9) = -2.19722, log(1) = 0, log(0.02 / 0.98) = -3.89182.
    np.testing.assert_allclose(model.get_layer("findings").get_weights()[1], [-2.19722, 0.0, -3.89182], atol=1e-5)


def test_prevalence_leaves_unknown_out_and_stays_inside():
    from pipeline.training.network import prevalence_of

    labels = np.array([[1, 0, np.nan], [0, 0, np.nan], [np.nan, 0, np.nan]], np.float32)
    # (positives + 1) / (known + 2): 2/4, 1/5, 1/2.
    np.testing.assert_allclose(prevalence_of(labels), [0.5, 0.2, 0.5])


def test_batch_normalisation_is_synchronized_between_replicas():
    import keras

    from pipeline.model import BACKBONE
    from pipeline.training.network import build_model

    layers = build_model(NONE, 32, np.array([0.3]), replicas=2).get_layer(BACKBONE).layers
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 53
    assert all(layer.synchronized for layer in norms)


def test_weights_of_the_parameters_go_into_the_backbone(model, tmp_path):
    from pipeline.model import BACKBONE
    from pipeline.training.network import build_model

    path = tmp_path / "before.keras"
    model.save(path)
    again = build_model(replace(SMALL, weights=str(path)), 32, np.array([0.3]))
    for mine, theirs in zip(
        again.get_layer(BACKBONE).get_weights(), model.get_layer(BACKBONE).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", ["nowhere.keras", "nowhere.h5"])
def test_missing_weights_are_one_sentence(name, tmp_path):
    from pipeline.training.network import build_model

    with pytest.raises(UserError, match="is not a file; allowed: imagenet, none"):
        build_model(replace(SMALL, weights=str(tmp_path / name)), 32, np.array([0.3]))


def test_a_file_that_is_no_model_is_one_sentence(tmp_path):
    from pipeline.model import load_model
    from pipeline.training.network import build_model

    for name in ("text.keras", "text.h5"):
        path = tmp_path / name
        path.write_text("not a model")
        with pytest.raises(UserError):
            build_model(replace(SMALL, weights=str(path)), 32, np.array([0.3]))
    with pytest.raises(UserError, match="is missing"):
        load_model(tmp_path / "none.keras")


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """Ask for all weights where there are none and where there are others, in a process that is truly offline.

    Its proxy is a closed port on this machine. Returns Keras' folder, and the messages of both times.
    """
    home = tmp_path_factory.mktemp("keras")
    code = f"""
from pipeline.errors import UserError
from pipeline.weights import imagenet_file, imagenet_path
for turn in (1, 2):
    for backbone in {tuple(BLOCKS)}:
        try:
            imagenet_file(backbone)
        except UserError as error:
            print(f"turn {{turn}}: {{error}}")
        imagenet_path(backbone).parent.mkdir(exist_ok=True)
        imagenet_path(backbone).write_bytes(b"not the weights")
"""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
        env = {**os.environ, "KERAS_HOME": str(home), "https_proxy": proxy, "http_proxy": proxy, "no_proxy": ""}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()  # Keras draws its progress there too
    return home, *([line for line in lines if line.startswith(f"turn {turn}: ")] for turn in (1, 2))


def test_imagenet_weights_offline_say_where_to_put_the_file(refused):
    from pipeline.weights import imagenet_path

    home, lines, _ = refused
    for backbone, line in zip(BLOCKS, lines, strict=True):
        assert "could not be fetched" in line
        assert f" at {home / 'models' / imagenet_path(backbone).name}, or set model.weights to none" in line
    assert "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5" in lines[0]


def test_imagenet_weights_with_another_hash_are_refused(refused):
    _, _, lines = refused
    assert len(lines) == len(BLOCKS)
    assert all("is not the published file: MD5" in line for line in lines)
    assert "4d473c1dd8becc155b73f8504c6f6626" in lines[0]
    assert "30ee3e1110167f948a6b9946edeeb738" in lines[1]
