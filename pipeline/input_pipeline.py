"""The tf.data pipelines: shards to batches of (image, labels). Imports TensorFlow where it is called."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.augment import Augment
from pipeline.shards import HEADER, Processed

if TYPE_CHECKING:
    import tensorflow as tf

_SHUFFLE_BYTES = 256 * 1024 * 1024
_OPEN_FILES = 8


def training_batches(
    data: Processed, batch_size: int, epochs: int, seed: int, augment: Augment | None, first_epoch: int = 0
) -> "tf.data.Dataset":
    """Shuffled, augmented batches of the training split for several epochs, one after the other.

    Order and augmentation of an epoch depend on seed and epoch alone, so that training can start at any epoch.

    Returns
    -------
    tf.data.Dataset
        Of (uint8 (batch, size, size, 1), float32 (batch, n_findings)); the last batch of an epoch may be smaller.
    """
    import tensorflow as tf

    labels = tf.constant(data.labels)
    count = len(data.rows("train"))
    steps = -(-count // batch_size)
    buffer = int(min(count, max(1024, _SHUFFLE_BYTES // data.size**2)))

    def epoch_batches(epoch: Any) -> Any:
        files = tf.data.Dataset.from_tensor_slices(data.files("train"))
        files = files.shuffle(len(data.files("train")), seed=epoch + seed)
        records = files.interleave(tf.data.TFRecordDataset, cycle_length=_OPEN_FILES)
        records = records.shuffle(buffer, seed=epoch + seed).map(_parser(data.size))
        return records.batch(batch_size).map(lambda rows, images: (epoch, rows, images))

    def finish(epoch: Any, rows: Any, images: Any) -> Any:
        if augment is not None:
            shape = images.shape
            images = tf.numpy_function(augment, [epoch, rows, images], tf.uint8)
            images.set_shape(shape)
        return images, tf.gather(labels, rows)

    batches = tf.data.Dataset.range(first_epoch, epochs).flat_map(epoch_batches).map(finish)
    # A shard that holds fewer records than the table says is an error, not a shorter epoch.
    batches = batches.apply(tf.data.experimental.assert_cardinality(steps * (epochs - first_epoch)))
    return batches.prefetch(tf.data.AUTOTUNE).with_options(_options())


def images_in_order(
    data: Processed, split: str, batch_size: int, count: int | None = None, *, mirrored: bool = False
) -> "tf.data.Dataset":
    """Batches of images alone, in the order of `data.rows(split)`, at most `count` of them; mirrored left to right."""
    import tensorflow as tf

    records = tf.data.TFRecordDataset(data.files(split)).map(_parser(data.size))
    count = min(count or len(data.rows(split)), len(data.rows(split)))
    images = records.map(lambda _row, image: image[:, ::-1] if mirrored else image).take(count).batch(batch_size)
    images = images.apply(tf.data.experimental.assert_cardinality(-(-count // batch_size)))
    return images.prefetch(tf.data.AUTOTUNE).with_options(_options())


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


def _parser(size: int) -> Any:
    import tensorflow as tf

    def parse(record: Any) -> Any:
        row = tf.io.decode_raw(tf.strings.substr(record, 0, HEADER.size), tf.int32)[0]
        pixels = tf.io.decode_raw(tf.strings.substr(record, HEADER.size, size * size), tf.uint8)
        return row, tf.reshape(pixels, (size, size, 1))

    return parse


def _options() -> Any:
    import tensorflow as tf

    options = tf.data.Options()
    options.deterministic = True
    # One machine reads every file; its devices share the batches, not the files.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
