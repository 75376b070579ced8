"""The backbones by name: what they compute, how their layers form blocks, what learns, what they start from."""

import subprocess
import sys
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.params import FinetuneParams, ModelParams
from pipeline.params.blocks import BLOCKS, require_block
from pipeline.training.backbones import blocks_of, initialize, require_size

FAMILIES = {
    "ResNet50": "resnet",
    "DenseNet121": "densenet",
    "EfficientNetV2B0": "efficientnet_v2",
    "MobileNetV3Small": "mobilenet_v3",
    "MobileNetV3Large": "mobilenet_v3",
    "ConvNeXtTiny": "convnext",
}
SMALL = ModelParams(backbone="MobileNetV3Small", weights="none")  # the one that is built in a second
PREVALENCE = np.array([0.1, 0.3])
GRAY = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), dtype=np.uint8)


@dataclass
class Case:
    name: str
    model: Any  # ours
    stock: Any  # of keras.applications, with the weights of ours, which Keras took for ImageNet's
    asked: tuple[str, str, str]  # file, address, MD5 that Keras asked for

    @property
    def backbone(self) -> Any:
        return self.model.get_layer("backbone")


@pytest.fixture(scope="module", params=list(FAMILIES))
def case(request, tmp_path_factory):
    """Build a backbone, and let Keras build its own with `weights="imagenet"`, without a network."""
    import h5py
    import keras
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group
    from keras.src.utils import file_utils

    from pipeline.training.network import build_model

    keras.utils.set_random_seed(1)
    model = build_model(ModelParams(backbone=request.param, weights="none"), 32, PREVALENCE)
    path = tmp_path_factory.mktemp("published") / "weights.h5"
    with h5py.File(path, "w") as file:  # the format of the published files
        save_weights_to_hdf5_group(file, model.get_layer("backbone"))
    asked = []

    def get_file(name, address, file_hash, **_):
        asked.append((name, address, file_hash))
        return str(path)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(file_utils, "get_file", get_file)
        warnings.filterwarnings("ignore", "`input_shape` is undefined or non-square")
        stock = getattr(keras.applications, request.param)(include_top=False, input_shape=(32, 32, 3))
    (once,) = asked
    return Case(request.param, model, stock, once)


@pytest.fixture
def small():
    """Return a function that builds the small backbone's model from a seed."""
    import keras

    from pipeline.training.network import build_model

    def build(params=SMALL, seed=5, **options):
        keras.utils.set_random_seed(seed)
        return build_model(params, 32, PREVALENCE, **options)

    return build


def run(model, training):
    return np.asarray(model(GRAY, training=training))


def statistics(layers):
    return {layer.name: np.asarray(layer.moving_mean) for layer in layers if hasattr(layer, "moving_mean")}


def moved(before, layers):
    return {name for name, value in statistics(layers).items() if not np.array_equal(before[name], value)}


def test_features_are_those_of_keras_applications(case):
    import keras

    family = getattr(keras.applications, FAMILIES[case.name])
    expected = np.asarray(case.stock(family.preprocess_input(np.repeat(GRAY, 3, axis=3).astype(np.float32))))
    case.backbone.set_weights(case.stock.get_weights())
    features = keras.Model(case.model.input, case.model.get_layer("pooled").input)
    np.testing.assert_allclose(run(features, False), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_contract_of_the_model(case):
    out = run(case.model, False)
    assert case.model.name == f"cxr_{case.name.lower()}"
    assert case.model.inputs[0].dtype == "uint8"
    assert out.shape == (2, 2)
    assert out.dtype == np.float32
    assert ((out > 0) & (out < 1)).all()
    # By this the optimizer knows which variables learn more slowly.
    of_backbone = {variable.path for variable in case.backbone.variables}
    assert of_backbone == {v.path for v in case.model.variables if v.path.startswith("backbone/")}


def test_published_weights_are_those_that_keras_asks_for(case):
    from pipeline.weights import imagenet_path, published_at

    assert (imagenet_path(case.name).name, *published_at(case.name)) == case.asked


def test_blocks_follow_each_other(case):
    block = blocks_of(case.name, case.backbone)
    assert list(block) == [layer.name for layer in case.backbone.layers]
    assert tuple(dict.fromkeys(block.values())) == BLOCKS[case.name]  # all of them, none of them comes again


# Convolutions and dense layers of each block, biases not counted: He et al. 2016, table 1 (with the projection of each
# stage); Huang et al. 2017, table 1 (two a layer, one a transition); EfficientNetV2-B0's depths of 1, 2, 2, 3, 5 and 8
# as its authors published them with their code (fused: 2, or 1 without expansion; others: 3 and 2 of
# squeeze-and-excitation, Tan and Le 2021, figure 2); Howard et al. 2019, tables 2 and 1 (3, and 2 of
# squeeze-and-excitation); Liu et al. 2022, table 9 (three a block, one between stages).
CONVOLUTIONS = {
    "ResNet50": (1, 10, 13, 19, 10),
    "DenseNet121": (1, 13, 25, 49, 32),
    "EfficientNetV2B0": (1, 1, 4, 4, 15, 25, 40, 1),
    "MobileNetV3Small": (1, 4, 3, 3, *[5] * 8, 1),
    "MobileNetV3Large": (1, 2, 3, 3, *[5] * 3, *[3] * 4, *[5] * 5, 1),
    "ConvNeXtTiny": (1, 9, 10, 28, 10),
}


def test_blocks_hold_what_the_papers_say(case):
    block = blocks_of(case.name, case.backbone)
    found = dict.fromkeys(BLOCKS[case.name], 0)
    for layer in case.backbone.layers:
        inner = getattr(layer, "layers", [layer])  # ConvNeXt has its downsampling in models of their own
        found[block[layer.name]] += sum(hasattr(each, "kernel") for each in inner)
    assert tuple(found.values()) == CONVOLUTIONS[case.name]


def test_frozen_backbone_works_as_at_inference(case):
    from pipeline.training.network import freeze_backbone, unfreeze

    layers = case.backbone.layers
    unfreeze(case.model, FinetuneParams(batch_norm="trained"), case.name)
    if case.name != "ConvNeXtTiny":  # which has neither BatchNormalization nor dropout
        assert np.abs(run(case.model, True) - run(case.model, False)).max() > 1e-3
    freeze_backbone(case.model)
    before = statistics(layers)
    np.testing.assert_array_equal(run(case.model, True), run(case.model, False))
    assert not moved(before, layers)
    assert [variable.path for variable in case.model.trainable_variables] == ["findings/kernel", "findings/bias"]


@pytest.mark.parametrize("batch_norm", ["frozen", "trained"])
def test_blocks_learn_from_the_named_one_on(case, batch_norm):
    from pipeline.training.network import freeze_backbone, unfreeze

    first = BLOCKS[case.name][-2]
    layers = case.backbone.layers
    block = blocks_of(case.name, case.backbone)
    late = {layer.name for layer in layers if block[layer.name] in BLOCKS[case.name][-2:]}
    norms = set(statistics(layers))
    freeze_backbone(case.model)
    unfreeze(case.model, FinetuneParams(unfreeze_from=first, batch_norm=batch_norm), case.name)

    learning = {layer.name for layer in layers if layer.trainable_variables}
    having = {layer.name for layer in layers if layer.weights and layer.name in late}
    assert learning == (having if batch_norm == "trained" else having - norms)
    before = statistics(layers)
    run(case.model, True)
    assert moved(before, layers) == (late & norms if batch_norm == "trained" else set())


def test_everything_learns_again_after_freezing(small):
    from pipeline.training.network import freeze_backbone, unfreeze

    model = small()
    count = len(model.trainable_variables)
    freeze_backbone(model)
    unfreeze(model, FinetuneParams(batch_norm="trained"), "MobileNetV3Small")
    assert len(model.trainable_variables) == count
    unfreeze(model, FinetuneParams(unfreeze_from="none"), "MobileNetV3Small")
    assert len(model.trainable_variables) == 2
    with pytest.raises(ValueError, match="unfreeze_from is conv4, and MobileNetV3Small has no such block"):
        unfreeze(model, FinetuneParams(unfreeze_from="conv4"), "MobileNetV3Small")


def test_stochastic_depth_returns_with_its_block():
    import keras

    from pipeline.training.network import _let_learn

    layer = keras.layers.Dropout(0.2)
    ones = np.ones((1, 1000), np.float32)
    for learns, dropped in ((True, True), (False, False), (False, False), (True, True)):
        _let_learn(layer, learns)
        assert (np.asarray(layer(ones, training=True)) == 0).any() == dropped


@pytest.mark.parametrize("case", ["ResNet50", "MobileNetV3Small", "ConvNeXtTiny"], indirect=True)
def test_loaded_model_predicts_the_same(case, tmp_path):
    from pipeline.model import load_model, save_model

    save_model(case.model, tmp_path / "model.keras")
    np.testing.assert_array_equal(run(load_model(tmp_path / "model.keras"), False), run(case.model, False))


def test_the_network_for_the_file_predicts_the_same(case):
    """Every training makes one: ConvNeXt has models within its own, MobileNetV3 operations that are no layers."""
    from pipeline.training.fused_norm import plain

    stock = plain(case.model)
    assert [w.shape for w in stock.weights] == [w.shape for w in case.model.weights]
    np.testing.assert_allclose(stock.predict(GRAY, verbose=0), case.model.predict(GRAY, verbose=0), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "policy"),
    list(zip(FAMILIES, ("mixed_bfloat16", "mixed_float16") * 3, strict=True)),
)
def test_head_stays_float32_in_mixed_precision(name, policy):
    import keras

    from pipeline.training.network import build_model

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = build_model(ModelParams(backbone=name, weights="none"), 32, PREVALENCE)
    finally:
        keras.config.set_dtype_policy(before)
    low = policy.removeprefix("mixed_")
    assert model.get_layer("backbone").output.dtype == low
    assert [model.get_layer(each).compute_dtype for each in ("three_channels", "pooled", "findings")] == ["float32"] * 3
    assert model.output.dtype == "float32"
    if name == "MobileNetV3Small":
        assert run(model, True).dtype == np.float32


def test_replicas_and_fused_layers_change_no_weight(small):
    expected = small().get_weights()
    for options in ({"replicas": 2}, {"fused": True}):
        model = small(**options)
        for mine, theirs in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert {v.path.split("/")[0] for v in model.variables} - {"seed_generator"} == {"backbone", "findings"}


# Connections of an output and of an input of the layers in `drawn`, counted by hand.
FANS = {"conv": (9 * 40, 9 * 240), "grouped": (49, 49), "depthwise": (25, 25 * 2), "dense": (80, 1200)}


@pytest.fixture(scope="module")
def drawn():
    import keras

    image = keras.Input((8, 8, 40))
    x = keras.layers.Conv2D(240, 3, name="conv")(image)
    x = keras.Sequential([keras.layers.Conv2D(240, 7, padding="same", groups=240, name="grouped")], name="inner")(x)
    x = keras.layers.DepthwiseConv2D(5, padding="same", depth_multiplier=2, name="depthwise")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dense(80, name="thin")(x)
    return keras.Model(image, keras.layers.Dense(1200, name="dense")(x))


@pytest.mark.parametrize("fused", [False, True])
def test_moving_statistics_follow_within_some_hundred_steps(fused):
    """MobileNetV3 has 0.999, which 300 steps leave at 74 % of where they began: 0.99 leaves 5 %."""
    from pipeline.training.network import build_model

    network = build_model(SMALL, 32, PREVALENCE, fused=fused)
    momenta = {layer.momentum for layer in network.get_layer("backbone").layers if hasattr(layer, "moving_mean")}
    assert len(momenta) == 1
    assert max(momenta) ** 300 < 0.05


def test_default_changes_nothing(drawn):
    before = drawn.get_weights()
    initialize(drawn, "default")
    for mine, theirs in zip(drawn.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_initializer_follows_the_seed(drawn):
    import keras

    kernels = []
    for seed in (5, 5, 6):
        keras.utils.set_random_seed(seed)
        initialize(drawn, "he_normal")
        kernels.append(np.asarray(drawn.get_layer("conv").kernel))
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert (kernels[0] != kernels[2]).all()


def test_initializer_is_that_of_the_parameters(small):
    kernel = small(replace(SMALL, initializer="he_normal")).get_layer("backbone").get_layer("conv_1").kernel
    assert np.asarray(kernel).var() == pytest.approx(2 / 96, rel=0.03)  # 1 x 1 pixels of 96 channels; Keras: 2 / 672


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("he_normal", lambda fan_in, _: 2 / fan_in),  # He et al. 2015, equation 10
        ("he_uniform", lambda fan_in, _: 2 / fan_in),
        ("glorot_normal", lambda fan_in, fan_out: 2 / (fan_in + fan_out)),  # Glorot and Bengio 2010, equation 12
        ("glorot_uniform", lambda fan_in, fan_out: 2 / (fan_in + fan_out)),
        ("lecun_normal", lambda fan_in, _: 1 / fan_in),
    ],
)
def test_variance_is_that_of_the_papers(drawn, name, variance):
    import keras

    keras.utils.set_random_seed(3)
    initialize(drawn, name)
    for layer, fans in FANS.items():
        inner = drawn.get_layer("inner")
        values = np.asarray((inner if layer == "grouped" else drawn).get_layer(layer).kernel)
        expected = variance(*fans)
        # At least 11,760 values: the standard error of their variance is 1.3 % or less.
        assert values.var() == pytest.approx(expected, rel=0.05), layer
        # A uniform distribution ends at sqrt(3) standard deviations, the cut normal one at 2 / 0.8796 (scipy's
        # truncnorm(-2, 2).std()).
        end = np.sqrt(3) if "uniform" in name else 2 / 0.8796
        assert np.abs(values).max() == pytest.approx(end * np.sqrt(expected), rel=0.01), layer
    assert not np.asarray(drawn.get_layer("dense").bias).any()
    assert (np.asarray(drawn.get_layer("norm").gamma) == 1).all()


def test_weights_come_from_a_file(small, drawn, tmp_path):
    """The backbone's, whatever the head is; into another backbone they do not go."""
    from pipeline.model import save_model
    from pipeline.training.network import _load

    backbone, model, file = small().get_layer("backbone"), tmp_path / "模型 one.keras", tmp_path / "backbone.weights.h5"
    again = small(seed=6)
    save_model(again, model)
    again.get_layer("backbone").save_weights(file)
    for path in (model, file):
        _load(backbone, SMALL.backbone, path)
        for mine, theirs in zip(backbone.get_weights(), again.get_layer("backbone").get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        backbone.set_weights([0 * weight for weight in backbone.get_weights()])
        with pytest.raises(UserError) as refused:
            _load(drawn, "MobileNetV3Large", path)
        assert f"model.weights: {path} does not fit MobileNetV3Large: it" in str(refused.value)
        assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="it holds mobilenetv3small; set model"):
        _load(drawn, "MobileNetV3Large", model)


def test_too_small_images_are_one_sentence():
    from pipeline.training.network import build_model

    require_size("ConvNeXtTiny", 32)
    with pytest.raises(UserError, match=r"preprocess\.size is 31, and ConvNeXtTiny needs at least 32 pixels a side"):
        build_model(ModelParams(backbone="ConvNeXtTiny", weights="none"), 31, PREVALENCE)


@pytest.mark.parametrize("name", FAMILIES)
def test_block_names_are_checked(name):
    for allowed in ("", "none", *BLOCKS[name]):
        require_block(name, allowed)
    with pytest.raises(ValueError, match=f"{name} has no such block; allowed: {', '.join(BLOCKS[name])}, none"):
        require_block(name, "layer4")


def test_blocks_are_checked_without_keras():
    code = (
        "import sys\n"
        "from pipeline.params.blocks import require_block\n"
        "from pipeline.weights import imagenet_path\n"
        "require_block('ResNet50', 'conv4'), imagenet_path('ResNet50'), print({'keras', 'tensorflow'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
