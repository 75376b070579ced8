"""The same network in faster layers for training, and back into stock Keras layers for the file.

Keras 3 computes BatchNormalization from a dozen elementary operations, in float32 whatever the precision. TensorFlow has
one operation for it. Three things are saved:

- a trained BatchNormalization is that one operation (`FusedBatchNormV3`);
- the bias of a convolution before a trained BatchNormalization is not added at all. The normalisation subtracts it
  again, so the output does not depend on it and its gradient is zero (Ioffe and Szegedy 2015, section 3.2); only the
  moving mean contains it;
- a BatchNormalization that is frozen or only infers is an affine function, and goes into the kernel and the bias of the
  convolution before it.

ZeroPadding2D becomes the explicit padding of the convolution behind it. Layers keep their names and
their weights, and the weights their order, so that freezing, saving and loading do not know of all this.
"""

import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """BatchNormalization over the last axis of four, by TensorFlow's fused operation while it is trained.

    `synchronized` keeps Keras's computation while it is trained, which the fused operation has no counterpart of.
    """

    _convolution: Any = None  # calls to the FusedConv2D before it, which has its frozen form and its bias

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise float (batch, height, width, channels); returns the layer's compute dtype."""
        if self.trains(training):
            return super().call(inputs, training=training, mask=mask) if self.synchronized else self._train(inputs)
        if self._convolution is not None:
            return inputs  # the convolution has done it
        if tf.config.list_physical_devices("GPU"):  # where the fused operation's frozen gradient is not deterministic
            return super().call(inputs, training=False, mask=mask)
        scale, offset = self.factors()
        outputs = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=scale,
            offset=offset,
            mean=tf.zeros_like(scale),
            variance=tf.ones_like(scale),
            epsilon=0.0,
            is_training=False,
        )
        return outputs.y

    def trains(self, training: bool | None) -> bool:
        """Return whether a call with that argument uses the batch's own statistics."""
        return bool(training and self.trainable)

    def factors(self) -> tuple[Any, Any]:
        """Return float32 scale and offset, each (channels,), of the frozen layer: outputs = inputs * scale + offset."""
        scale = tf.math.rsqrt(tf.convert_to_tensor(self.moving_variance) + self.epsilon)
        if self.scale:
            scale *= tf.convert_to_tensor(self.gamma)
        offset = -tf.convert_to_tensor(self.moving_mean) * scale
        return scale, offset + tf.convert_to_tensor(self.beta) if self.center else offset

    def _train(self, inputs: Any) -> Any:
        mean = tf.convert_to_tensor(self.moving_mean)
        bias = self._missing_bias()
        gamma = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones_like(mean)
        beta = tf.convert_to_tensor(self.beta) if self.center else tf.zeros_like(mean)
        if bias is not None:
            beta += 0.0 * bias  # gives the bias its gradient, which is zero, so that no optimizer misses it
        outputs = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=gamma,
            offset=beta,
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=self.epsilon,
            is_training=True,
        )
        self._update(inputs, outputs.batch_mean if bias is None else outputs.batch_mean + bias, outputs.batch_variance)
        return outputs.y

    def _missing_bias(self) -> Any:
        convolution = self._convolution and self._convolution()
        return tf.convert_to_tensor(convolution.bias) if convolution is not None and convolution.use_bias else None

    def _update(self, inputs: Any, mean: Any, variance: Any) -> None:
        """Move the statistics as Keras does; the operation's variance is divided by n - 1, Keras's by n."""
        n = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
        variance = tf.math.multiply_no_nan(variance, (n - 1) / n)
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + new * (1 - self.momentum))


class FusedConv2D(keras.layers.Conv2D):  # type: ignore[misc]
    """A convolution that pads for itself and contains the BatchNormalization behind it while that is frozen."""

    _pads: Any = None  # ((top, bottom), (left, right)) of the ZeroPadding2D before it
    _norm: Any = None  # calls to the FusedBatchNormalization behind it

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        """Add a weight that stays float32 in mixed precision, so that scaling comes before rounding."""
        return super().add_weight(*args, **{**kwargs, "autocast": False})

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Convolve float (batch, height, width, channels)."""
        kernel = tf.convert_to_tensor(self.kernel)
        bias = tf.convert_to_tensor(self.bias) if self.use_bias else None
        norm = self._norm and self._norm()
        if norm is not None and not norm.trains(training):
            scale, offset = norm.factors()
            kernel *= scale
            bias = offset if bias is None else offset + bias * scale
        elif norm is not None and not norm.synchronized:
            bias = None  # see FusedBatchNormalization._missing_bias
        padding = [(0, 0), *self._pads, (0, 0)] if self._pads else self.padding.upper()
        kernel = tf.cast(kernel, self.compute_dtype)
        outputs = tf.nn.conv2d(inputs, kernel, self.strides, padding, dilations=self.dilation_rate)
        if bias is not None:
            outputs = tf.nn.bias_add(outputs, tf.cast(bias, self.compute_dtype))
        return outputs if self.activation is None else self.activation(outputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape after padding and convolution."""
        return super().compute_output_shape(_padded(input_shape, self._pads))


class FusedZeroPadding2D(keras.layers.ZeroPadding2D):  # type: ignore[misc]
    """A ZeroPadding2D whose work the convolution behind it does."""

    def call(self, inputs: Any) -> Any:
        """Return the inputs."""
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the inputs' shape."""
        return input_shape


_STOCK: dict[type, type] = {
    FusedBatchNormalization: keras.layers.BatchNormalization,
    FusedConv2D: keras.layers.Conv2D,
    FusedZeroPadding2D: keras.layers.ZeroPadding2D,
}
_FUSED = {stock: fused for fused, stock in _STOCK.items()}


def fuse(backbone: keras.Model, *, synchronized: bool) -> keras.Model:
    """Return the same network in the layers above, with copies of the weights.

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
    pads = {
        behind[layer.name][0].name: (layer.name, layer.padding)
        for layer in backbone.layers
        if type(layer) is keras.layers.ZeroPadding2D and _takes_padding(layer, behind)
    }
    wanted = norms | set(pairs) | set(pads) | {name for name, _ in pads.values()}

    def replaced(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name not in wanted:
            return layer.__class__.from_config(config)
        if layer.name in norms:
            config["synchronized"] = synchronized
        new = _FUSED[type(layer)].from_config(config)
        if layer.name in pads:
            new._pads = pads[layer.name][1]
        return new

    fused = _cloned(backbone, replaced)
    for convolution, norm in ((fused.get_layer(one), fused.get_layer(other)) for one, other in pairs.items()):
        # Weak references, because a layer that is an attribute would count its weights twice.
        convolution._norm, norm._convolution = weakref.ref(norm), weakref.ref(convolution)
    fused.set_weights(backbone.get_weights())
    return fused


def plain(model: keras.Model) -> keras.Model:
    """Return the same network in stock Keras layers, with copies of the weights; it is not compiled.

    Parameters
    ----------
    model : keras.Model
        Functional; its layers may be models that `fuse` returned. `model.get_weights()` fits the result at any later
        time, so that one result serves all checkpoints of a training.
    """
    stock = _cloned(model, _stock)
    stock.set_weights(model.get_weights())
    return stock


def _cloned(model: keras.Model, function: Callable[[Any], Any]) -> keras.Model:
    # Left to itself, Keras names the new inputs as it likes.
    def renewed(tensor: Any) -> Any:
        name = tensor._keras_history.operation.name
        return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)

    inputs = keras.tree.map_structure(renewed, model.input)
    # Keras compiles a clone as its origin was, with an optimizer for it: three times the weights, in the file too.
    bare = keras.Model(model.input, model.output, name=model.name)
    return keras.models.clone_model(bare, input_tensors=inputs, clone_function=function)


def _stock(layer: Any) -> Any:
    if isinstance(layer, keras.Model):
        return _cloned(layer, _stock)
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


def _goes_into(layer: Any, behind: dict[str, list[Any]], norms: set[str]) -> bool:
    """Return whether the layer is a convolution with nothing but a BatchNormalization behind it."""
    linear = type(layer) is keras.layers.Conv2D and layer.activation in (None, keras.activations.linear)
    alone = len(behind[layer.name]) == 1 and behind[layer.name][0].name in norms
    return linear and alone and layer.groups == 1 and layer.data_format == "channels_last"


def _takes_padding(layer: Any, behind: dict[str, list[Any]]) -> bool:
    """Return whether the padding has nothing but a convolution behind it, which can pad for itself.

    A pooling could too, but XLA knows no such pooling.
    """
    after = behind[layer.name]
    if len(after) != 1 or type(after[0]) is not keras.layers.Conv2D or after[0].groups != 1:
        return False
    return after[0].padding == "valid" and "channels_first" not in (layer.data_format, after[0].data_format)


def _padded(shape: Any, pads: Any) -> Any:
    if not pads:
        return shape
    sides = [None if side is None else side + sum(pad) for side, pad in zip(shape[1:3], pads, strict=True)]
    return (shape[0], *sides, shape[3])
