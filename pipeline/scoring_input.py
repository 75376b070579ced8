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
    data: Processed,
    split: str,
    batch_size: int,
    count: int | None = None,
    *,
    mirrored: bool = False,
    full: bool = False,
) -> "tf.data.Dataset":
    """Batches of images alone, in the order of `data.rows(split)`, at most `count` of them; mirrored left to right.

    With `full` the first images once more fill the last batch, so that all batches have one shape.
    """
    import tensorflow as tf

    count = _existing(data, split, count)
    records = tf.data.TFRecordDataset(data.files(split)).take(count)
    if full:
        records = records.concatenate(records.repeat().take(-count % batch_size))
    records = records.batch(batch_size, drop_remainder=full)

    def images_of(batch: Any) -> Any:
        images = pixels_of(batch, data.size)
        return images[:, :, ::-1] if mirrored else images

    images = records.map(images_of).apply(tf.data.experimental.assert_cardinality(-(-count // batch_size)))
    return images.prefetch(AHEAD).with_options(options())


def predict(
    model: Any, data: Processed, split: str, batch_size: int, count: int | None = None, *, mirrored: bool = False
) -> NDArray[np.float32]:
    """Return the model's outputs, such as probabilities, for a split, or for its images mirrored left to right.

    Returns
    -------
    ndarray of shape (n_images, n_outputs), dtype=float32
        In the order of `data.rows(split)`.
    """
    count = _existing(data, split, count)
    # Full batches alone: a last one of another shape would be traced anew, which takes as long as 400 small images.
    images = images_in_order(data, split, batch_size, count, mirrored=mirrored, full=True)
    return np.asarray(model.predict(images, verbose=0)[:count], np.float32)


def _existing(data: Processed, split: str, count: int | None) -> int:
    """Return how many of the wanted images a split has; None wants all."""
    return min(count or len(data.rows(split)), len(data.rows(split)))


def pixels_of(records: Any, size: int) -> Any:
    """Return the images of a batch of records, uint8 (batch, size, size, 1), in a function that tf.data traces."""
    import tensorflow as tf

    pixels = tf.io.decode_raw(tf.strings.substr(records, HEADER.size, size * size), tf.uint8)
    return tf.reshape(pixels, (-1, size, size, 1))


def options() -> Any:
    """Return the options of every tf.data pipeline here: the same order each time, no tuning, no sharding.

    TensorFlow 2.21 tunes in a thread that sleeps 10 ms, then twice as long each time, and whoever ends an iteration
    waits until it wakes: scoring of 4 seconds ended after 5.12, of 5.2 after 10.24. There is nothing to tune here.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    # Which worker reads which file is decided here; the devices of a machine share its batches.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
