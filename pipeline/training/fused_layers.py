"""Keras layers whose training is faster, with the weights and the configuration of the stock layers.

Their computations depend on each other: see `pipeline.training.fused_norm`, which puts them together. References to
other layers are weak, because a layer that is an attribute would count its weights twice.
"""

from typing import Any

import keras
import tensorflow as tf

_SMALL = 256  # places of an image, up to which `small_convolution` was the faster one (docs/speed.md)


class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """BatchNormalization over the last axis of four, by TensorFlow's fused operation while it is trained.

    `synchronized` keeps Keras's computation while it is trained, which the fused operation has no counterpart of.
    """

    _convolution: Any = None  # calls to the FusedConv2D before it, which has its frozen form and its bias
    _rectified: bool = False  # a FusedActivation behind it leaves its work to the training's computation

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

    def rectifies(self, training: bool | None) -> bool:
        """Return whether a call with that argument does the activation's work too."""
        return self._rectified and self.trains(training) and not self.synchronized

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
            x=in_fours(inputs),
            scale=gamma,
            offset=beta,
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=self.epsilon,
            is_training=True,
        )
        self._update(inputs, outputs.batch_mean if bias is None else outputs.batch_mean + bias, outputs.batch_variance)
        normal = tf.reshape(tf.nn.relu(outputs.y) if self._rectified else outputs.y, tf.shape(inputs))
        normal.set_shape(inputs.shape)
        return normal

    def _missing_bias(self) -> Any:
        convolution = self._convolution and self._convolution()
        return tf.convert_to_tensor(convolution.bias) if convolution is not None and convolution.use_bias else None

    def _update(self, inputs: Any, mean: Any, variance: Any) -> None:
        """Move the statistics as Keras does; the operation's variance is divided by n - 1, Keras's by n."""
        n = tf.cast(tf.reduce_prod(tf.shape(inputs)[:3]), tf.float32)
        variance = tf.math.multiply_no_nan(variance, (n - 1) / n)
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + new * (1 - self.momentum))


class FusedActivation(keras.layers.Activation):  # type: ignore[misc]
    """A ReLU that its BatchNormalization does while it is trained, so that TensorFlow makes one operation of both."""

    _norm: Any = None  # calls to the FusedBatchNormalization before it

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Rectify float (batch, height, width, channels), or leave what is rectified already."""
        norm = self._norm and self._norm()
        return inputs if norm is not None and norm.rectifies(training) else super().call(inputs)


class FusedConv2D(keras.layers.Conv2D):  # type: ignore[misc]
    """A convolution that contains the BatchNormalization behind it while that is frozen.

    On a processor its kernel's gradient comes from products of matrices where those are faster.
    """

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
        outputs = self._convolved(inputs, tf.cast(kernel, self.compute_dtype))
        if bias is not None:
            outputs = tf.nn.bias_add(outputs, tf.cast(bias, self.compute_dtype))
        return outputs if self.activation is None else self.activation(outputs)

    def _convolved(self, inputs: Any, kernel: Any) -> Any:
        """Convolve without a bias; on a processor in the way whose gradient is fastest there."""
        if not tf.config.list_physical_devices("GPU") and self.dilation_rate == (1, 1):
            if self.kernel_size == (1, 1):
                return pointwise(inputs, kernel, self.strides)
            small = inputs.shape[1] * inputs.shape[2] <= _SMALL if all(inputs.shape[1:3]) else False
            if small and self.strides == (1, 1) and self.padding == "same":
                return small_convolution(inputs, kernel)
        return tf.nn.conv2d(inputs, kernel, self.strides, self.padding.upper(), dilations=self.dilation_rate)


def in_fours(inputs: Any) -> Any:
    """Return the same values as many images of four places, where their sides are even and a processor computes.

    Statistics of a channel do not depend on how its places are laid out. oneDNN's BatchNormalization goes through one
    image after the other, and through small ones twice as fast (docs/speed.md).

    Parameters
    ----------
    inputs : tensor of shape (batch, height, width, channels)
        Any float type.
    """
    height, width, channels = inputs.shape[1:]
    if not height or not width or height % 2 or width % 2 or tf.config.list_physical_devices("GPU"):
        return inputs
    return tf.reshape(inputs, (-1, 2, 2, channels))


def pointwise(inputs: Any, kernel: Any, strides: tuple[int, int]) -> Any:
    """Convolve with a kernel of one pixel, as the matrix product that it is.

    oneDNN computes the gradient of such a kernel two to ten times as fast as a product of matrices than as that of a
    convolution (docs/speed.md).

    Parameters
    ----------
    inputs : tensor of shape (batch, height, width, channels)
        Any float type.
    kernel : tensor of shape (1, 1, channels, filters)
        The same type.
    strides : tuple of int
        Rows and columns to the next place.
    """
    # The mean of one pixel is that pixel; a slice by strides, and its gradient, took ten times as long (docs/speed.md).
    kept = tf.nn.avg_pool2d(inputs, 1, strides, "VALID") if strides != (1, 1) else inputs
    places = tf.shape(kept)[:3]
    outputs = tf.matmul(tf.reshape(kept, (-1, kernel.shape[2])), tf.reshape(kernel, kernel.shape[2:]))
    outputs = tf.reshape(outputs, tf.concat([places, kernel.shape[3:]], 0))
    outputs.set_shape((*kept.shape[:3], kernel.shape[3]))
    return outputs


@tf.custom_gradient  # type: ignore[untyped-decorator]
def small_convolution(inputs: Any, kernel: Any) -> Any:
    """Convolve with stride 1 and padding "same"; the kernel's gradient is a matrix product for each of its pixels.

    Where an image has few places, oneDNN's own gradient of the kernel is several times slower (docs/speed.md).

    Parameters
    ----------
    inputs : tensor of shape (batch, height, width, channels)
        Any float type.
    kernel : tensor of shape (rows, columns, channels, filters)
        The same type.
    """
    rows, columns, channels, filters = kernel.shape
    height, width = inputs.shape[1:3]
    top, left = (rows - 1) // 2, (columns - 1) // 2  # of "same": what is odd goes below and to the right

    def gradient(upstream: Any) -> tuple[Any, Any]:
        pads = [[0, 0], [top, rows - 1 - top], [left, columns - 1 - left], [0, 0]]
        padded, flat = tf.pad(inputs, pads), tf.reshape(upstream, (-1, filters))
        products = [
            tf.matmul(tf.reshape(padded[:, y : y + height, x : x + width], (-1, channels)), flat, transpose_a=True)
            for y in range(rows)
            for x in range(columns)
        ]
        of_inputs = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(inputs), filter=kernel, out_backprop=upstream, strides=[1, 1, 1, 1], padding="SAME"
        )
        return of_inputs, tf.reshape(tf.stack(products), kernel.shape)

    return tf.nn.conv2d(inputs, kernel, 1, "SAME"), gradient
