"""The tf.data pipeline of scoring: shards to batches of images. Imports TensorFlow where it is called."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.shards import HEADER, Processed

if TYPE_CHECKING:
    import tensorflow as tf

AHEAD = 4
"""Batches made while the network is busy; a fixed number, so that memory does not grow."""


def images_in_order(
    data: Processed, split: str, batch_size: int, count: int | None = None, *, mirrored: bool = False
) -> "tf.data.Dataset":
    """Batches of images alone, in the order of `data.rows(split)`, at most `count` of them; mirrored left to right."""
    import tensorflow as tf

    count = min(count or len(data.rows(split)), len(data.rows(split)))
    records = tf.data.TFRecordDataset(data.files(split)).take(count).batch(batch_size)

    def images_of(batch: Any) -> Any:
        images = pixels_of(batch, data.size)
        return images[:, :, ::-1] if mirrored else images

    images = records.map(images_of).apply(tf.data.experimental.assert_cardinality(-(-count // batch_size)))
    return images.prefetch(AHEAD).with_options(options())


def predict(
    model: Any, data: Processed, split: str, batch_size: int, count: int | None = None, *, mirrored: bool = False
) -> NDArray[np.float32]:
    """Return the model's probabilities for a split, or for its images mirrored left to right.

    Returns
    -------
    ndarray of shape (n_images, n_findings), dtype=float32
        In the order of `data.rows(split)`.
    """
    probabilities = model.predict(images_in_order(data, split, batch_size, count, mirrored=mirrored), verbose=0)
    return np.asarray(probabilities, np.float32)


def pixels_of(records: Any, size: int) -> Any:
    """Return the images of a batch of records, uint8 (batch, size, size, 1), in a function that tf.data traces."""
    import tensorflow as tf

    pixels = tf.io.decode_raw(tf.strings.substr(records, HEADER.size, size * size), tf.uint8)
    return tf.reshape(pixels, (-1, size, size, 1))


def options() -> Any:
    """Return the options of every tf.data pipeline here: the same order each time, and no sharding by TensorFlow."""
    import tensorflow as tf

    options = tf.data.Options()
    options.deterministic = True
    # Which worker reads which file is decided here; the devices of a machine share its batches.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
