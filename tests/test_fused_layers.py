"""The convolutions by matrix products beside TensorFlow's own: outputs, and the gradients of both arguments."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.fused_layers import pointwise, small_convolution

SIDES, CHANNELS = st.integers(1, 7), st.integers(1, 4)


def same_as_tensorflows(ours, strides, padding, images, kernel):
    """Compare in float64, so that only a wrong formula differs."""
    weights = None
    results = []
    for function in (ours, lambda x, w: tf.nn.conv2d(x, w, strides, padding)):
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            outputs = function(images, kernel)
            if weights is None:
                weights = np.random.default_rng(3).normal(size=outputs.shape)
            total = tf.reduce_sum(outputs * weights)
        results.append([outputs, *tape.gradient(total, [images, kernel])])
    for one, other in zip(*results, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


def drawn(height, width, rows, columns, channels, filters):
    rng = np.random.default_rng(height * 100 + width * 10 + rows)
    shapes = (2, height, width, channels), (rows, columns, channels, filters)
    return [tf.constant(rng.normal(size=shape)) for shape in shapes]


@settings(max_examples=15, deadline=None)
@given(SIDES, SIDES, CHANNELS, CHANNELS, st.sampled_from([(1, 1), (2, 2), (1, 3)]))
def test_a_kernel_of_one_pixel_is_a_matrix_product(height, width, channels, filters, strides):
    images, kernel = drawn(height, width, 1, 1, channels, filters)
    same_as_tensorflows(lambda x, w: pointwise(x, w, strides), strides, "VALID", images, kernel)


@settings(max_examples=15, deadline=None)
@given(SIDES, SIDES, CHANNELS, CHANNELS, st.integers(1, 4), st.integers(1, 4))
def test_a_kernels_gradient_is_a_product_for_each_of_its_pixels(height, width, channels, filters, rows, columns):
    images, kernel = drawn(height, width, rows, columns, channels, filters)
    same_as_tensorflows(small_convolution, 1, "SAME", images, kernel)


@pytest.mark.parametrize("shape", [(None, 6, 6, 3), (None, None, None, 3)])
def test_sides_and_batch_may_be_unknown_when_the_graph_is_made(shape):
    images, kernel = drawn(6, 6, 1, 1, 3, 2)

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float64)])
    def traced(x):
        return pointwise(x, kernel, (2, 2))

    np.testing.assert_allclose(traced(images), tf.nn.conv2d(images, kernel, 2, "VALID"), rtol=1e-12)
