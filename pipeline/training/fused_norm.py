"""The same network in faster layers for training, and back into stock Keras layers for the file.

Keras 3 computes BatchNormalization from a dozen elementary operations, in float32 whatever the precision. TensorFlow
has one operation for it. Five things are saved:

- a trained BatchNormalization is that one operation (`FusedBatchNormV3`);
- the ReLU behind it is part of that operation, which goes through the batch as through many images of four places;
- the bias of a convolution before a trained BatchNormalization is not added at all. The normalisation subtracts it
  again, so the output does not depend on it and its gradient is zero (Ioffe and Szegedy 2015, section 3.2); only the
  moving mean contains it;
- a BatchNormalization that is frozen or only infers is an affine function, and goes into the kernel and the bias of the
  convolution before it;
- on a processor a convolution with a kernel of one pixel is a product of matrices, and the gradient of any kernel of a
  small image is one for each of its pixels, because oneDNN is slow at the gradients of kernels.

ZeroPadding2D stays: oneDNN takes it into the convolution by itself, and has no gradient of a convolution with explicit
padding (docs/speed.md). Layers keep their names and their weights, and the weights their order, so that freezing,
saving and loading do not know of all this.
"""

import weakref
from collections import defaultdict
from typing import Any

import keras

from pipeline.cloning import cloned
from pipeline.training.fused_layers import FusedActivation, FusedBatchNormalization, FusedConv2D

_STOCK: dict[Any, Any] = {
    FusedBatchNormalization: keras.layers.BatchNormalization,
    FusedConv2D: keras.layers.Conv2D,
    FusedActivation: keras.layers.Activation,
}
_FUSED = {stock: fused for fused, stock in _STOCK.items()}


def fuse(backbone: keras.Model, *, synchronized: bool) -> keras.Model:
    """Return the same network in the layers of `pipeline.training.fused_layers`, with copies of the weights.

    Parameters
    ----------
    backbone : keras.Model
        Functional, of layers that are each called once, as those of keras.applications. A network without
        BatchNormalization is returned as it is.
    synchronized : bool
        Several replicas train together: a trained BatchNormalization takes its statistics over all of them, with
        Keras's own computation. Frozen ones are as fast as with one replica.

    Returns
    -------
    keras.Model
        Layers of the same names in the same order, each with the same weights.
    """
    behind = _consumers(backbone)
    norms = {layer.name for layer in backbone.layers if _is_image_norm(layer)}
    if not norms:
        return backbone
    pairs = {layer.name: behind[layer.name][0].name for layer in backbone.layers if _goes_into(layer, behind, norms)}
    rectified = {name: behind[name][0].name for name in norms if _is_rectified(behind[name])}

    def replaced(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name not in {*norms, *pairs, *rectified.values()}:
            return layer.__class__.from_config(config)
        if layer.name in norms:
            config["synchronized"] = synchronized
        return _FUSED[type(layer)].from_config(config)

    fused = cloned(backbone, replaced)
    for convolution, norm in ((fused.get_layer(one), fused.get_layer(other)) for one, other in pairs.items()):
        convolution._norm, norm._convolution = weakref.ref(norm), weakref.ref(convolution)
    for norm, activation in ((fused.get_layer(one), fused.get_layer(other)) for one, other in rectified.items()):
        activation._norm, norm._rectified = weakref.ref(norm), True
    fused.set_weights(backbone.get_weights())
    return fused


def fuse_within(model: keras.Model) -> keras.Model:
    """Return a whole network, as it is loaded from a file, with its backbone fused for one device; see `fuse`."""

    def replaced(layer: Any) -> Any:
        if isinstance(layer, keras.Model):
            return fuse(layer, synchronized=False)
        return type(layer).from_config(layer.get_config())

    fused = cloned(model, replaced)
    fused.set_weights(model.get_weights())
    return fused


def plain(model: keras.Model) -> keras.Model:
    """Return the same network in stock Keras layers, with copies of the weights; it is not compiled.

    Parameters
    ----------
    model : keras.Model
        Functional; its layers may be models that `fuse` returned. `model.get_weights()` fits the result at any later
        time, so that one result serves all checkpoints of a training.
    """
    stock = cloned(model, _stock)
    stock.set_weights(model.get_weights())
    return stock


def _stock(layer: Any) -> Any:
    if isinstance(layer, keras.Model):
        return cloned(layer, _stock)
    config = layer.get_config()
    if isinstance(layer, keras.layers.BatchNormalization):
        config["synchronized"] = False  # a matter of the devices that trained it
    return _STOCK.get(type(layer), type(layer)).from_config(config)


def _consumers(model: keras.Model) -> dict[str, list[Any]]:
    """Return the layers that take each layer's output; the model itself, where that is an output of it."""
    producer = {id(tensor): each.name for each in model.operations for tensor in keras.tree.flatten(each.output)}
    behind: dict[str, list[Any]] = defaultdict(list)
    for each in model.operations:
        if not isinstance(each, keras.layers.InputLayer):
            for tensor in keras.tree.flatten(each.input):
                behind[producer[id(tensor)]].append(each)
    for tensor in model.outputs:
        behind[producer[id(tensor)]].append(model)
    return behind


def _is_image_norm(layer: Any) -> bool:
    """Return whether the fused operation can do this layer."""
    norm = type(layer) is keras.layers.BatchNormalization and not layer.renorm
    return norm and len(layer.input.shape) == 4 and layer.axis in (-1, 3)


def _is_rectified(behind: list[Any]) -> bool:
    """Return whether nothing but a ReLU is behind a layer."""
    alone = [type(layer) for layer in behind] == [keras.layers.Activation]
    return alone and behind[0].activation is keras.activations.relu


def _goes_into(layer: Any, behind: dict[str, list[Any]], norms: set[str]) -> bool:
    """Return whether the layer is a convolution with nothing but a BatchNormalization behind it."""
    linear = type(layer) is keras.layers.Conv2D and layer.activation in (None, keras.activations.linear)
    alone = len(behind[layer.name]) == 1 and behind[layer.name][0].name in norms
    return linear and alone and layer.groups == 1 and layer.data_format == "channels_last"
