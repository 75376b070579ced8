"""The backbones of `keras.applications` by name: their blocks, how they normalise, how they start from random."""

import re
from math import prod
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.params.blocks import BLOCKS

if TYPE_CHECKING:
    import keras

MINIMUM_SIZE = 32  # pixels a side: each of them halves the image five times, and Keras refuses less

# By backbone: the beginning of layers' names, and their block. A layer that none fits goes with the one before it.
_MOBILENET = (
    (r"conv(_bn)?$", "stem"),
    (r"expanded_conv_(\d+)_", r"block\1"),
    (r"expanded_conv_\D", "block0"),
    (r"conv_1(_bn)?$", "top"),
)
_PATTERNS: dict[str, tuple[tuple[str, str], ...]] = {
    "ResNet50": ((r"(?:conv|pool)(\d)_", r"conv\1"),),
    "DenseNet121": ((r"(?:conv|pool)(\d)(?:_|$)", r"conv\1"), (r"(?:bn|relu)$", "conv5")),
    "EfficientNetV2B0": ((r"stem_", "stem"), (r"block(\d)[a-z]_", r"block\1"), (r"top_", "top")),
    "MobileNetV3Small": _MOBILENET,
    "MobileNetV3Large": _MOBILENET,
    "ConvNeXtTiny": (
        (r"convnext_tiny_(?:pre)?stem", "stem"),
        (r"convnext_tiny_stage_(\d)_", r"stage\1"),
        (r"convnext_tiny_downsampling_block_0", "stage1"),
        (r"convnext_tiny_downsampling_block_1", "stage2"),
        (r"convnext_tiny_downsampling_block_2", "stage3"),
    ),
}

# Name, mean and variance of the layer before the backbone, for pixels of 0 to 255; the other backbones normalise
# inside. ResNet50: Simonyan and Zisserman 2014, blue, green, red, as keras.applications.resnet.preprocess_input (its
# mode "caffe"). DenseNet121: as keras.applications.densenet.preprocess_input (its mode "torch").
_NORMALISATION = {
    "ResNet50": ("imagenet_mean", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    "DenseNet121": (
        "imagenet_mean_variance",
        tuple(255 * mean for mean in (0.485, 0.456, 0.406)),
        tuple((255 * deviation) ** 2 for deviation in (0.229, 0.224, 0.225)),
    ),
}


def require_size(backbone: str, size: int) -> None:
    """Check that images are large enough.

    Raises
    ------
    UserError
        If a side has fewer than `MINIMUM_SIZE` pixels.
    """
    if size < MINIMUM_SIZE:
        raise UserError(
            f"preprocess.size is {size}, and {backbone} needs at least {MINIMUM_SIZE} pixels a side; set "
            f"preprocess.size to {MINIMUM_SIZE} or more"
        )


def build_application(backbone: str, size: int) -> "keras.Model":
    """Return the network of `keras.applications` without its top and with weights drawn at random.

    EfficientNetV2, MobileNetV3 and ConvNeXt normalise with their own first layers (`include_preprocessing`).

    Parameters
    ----------
    backbone : str
        A key of `pipeline.params.blocks.BLOCKS`.
    size : int
        Pixels a side, at least `MINIMUM_SIZE`.

    Returns
    -------
    keras.Model
        From (batch, size, size, 3) to features (batch, side, side, channels).
    """
    import keras

    model: keras.Model = getattr(keras.applications, backbone)(
        include_top=False, weights=None, input_shape=(size, size, 3)
    )
    return model


def normalise(backbone: str, images: Any) -> Any:
    """Add the layer that does what `preprocess_input` of the family does, if its network does not do it itself.

    Parameters
    ----------
    backbone : str
        A key of `pipeline.params.blocks.BLOCKS`.
    images : keras.KerasTensor of shape (batch, size, size, 3), dtype=float32
        Three equal channels of 0 to 255, so that their order (blue first or red first) is that of the constants.
    """
    import keras

    if backbone not in _NORMALISATION:
        return images
    name, mean, variance = _NORMALISATION[backbone]
    return keras.layers.Normalization(mean=mean, variance=variance, dtype="float32", name=name)(images)


def blocks_of(backbone: str, network: "keras.Model") -> dict[str, str]:
    """Return the block of each layer.

    Parameters
    ----------
    backbone : str
        A key of `pipeline.params.blocks.BLOCKS`.
    network : keras.Model
        Of `build_application`, or a copy of it whose layers have the same names.

    Returns
    -------
    dict
        Block by the layer's name, in the order of the layers. Layers that Keras names by counting, such as `re_lu_3`,
        belong to the block of the layer before them.
    """
    found = {}
    block = BLOCKS[backbone][0]
    for layer in network.layers:
        for pattern, template in _PATTERNS[backbone]:
            if match := re.match(pattern, layer.name):
                block = match.expand(template)
                break
        found[layer.name] = block
    return found


def initialize(network: "keras.Model", name: str) -> None:
    """Draw the kernels of all convolutions and dense layers anew; biases and normalisation layers stay.

    The variance is that of the papers, with the connections of one response counted as they are: in a depthwise or
    grouped convolution only those of its own group (Keras counts all input channels of a depthwise kernel, which
    makes it too small by that factor).

    * he_normal, he_uniform: 2 / fan_in (He et al. 2015, "Delving deep into rectifiers", equation 10)
    * glorot_normal, glorot_uniform: 2 / (fan_in + fan_out) (Glorot and Bengio 2010, equations 12 and 16)
    * lecun_normal: 1 / fan_in (LeCun et al. 1998, "Efficient BackProp", equation 16)

    The normal ones are cut at two standard deviations and widened to keep the variance, as
    `keras.initializers.VarianceScaling` does it. The seed is that of `keras.utils.set_random_seed`.

    Parameters
    ----------
    network : keras.Model
        Its weights are changed.
    name : str
        One of the above, or "default", which changes nothing.
    """
    import keras

    if name == "default":
        return
    rule = keras.initializers.get(name)
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            initialize(layer, name)
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)):
            shape = tuple(layer.kernel.shape)
            scale = rule.scale * _connections(shape, rule.mode) / _connections(_group(layer, shape), rule.mode)
            draw = keras.initializers.VarianceScaling(scale, rule.mode, rule.distribution)
            layer.kernel.assign(draw(shape, dtype=layer.kernel.dtype))


def _group(layer: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the kernel of one group of channels that are connected with each other."""
    import keras

    if isinstance(layer, keras.layers.DepthwiseConv2D):  # kernel: height, width, inputs, outputs for each input
        return (*shape[:-2], 1, shape[-1])
    return (*shape[:-1], shape[-1] // getattr(layer, "groups", 1))


def _connections(shape: tuple[int, ...], mode: str) -> float:
    fan_in, fan_out = (prod(shape[:-2]) * channels for channels in shape[-2:])
    return {"fan_in": fan_in, "fan_avg": (fan_in + fan_out) / 2}[mode]
