"""Training's tf.data pipeline: shards to batches of (image, labels). Imports TensorFlow where it is called.

Apart from `pipeline.scoring_input`, so that a change of how a training draws its images leaves evaluation as it is.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.augment import Augment
from pipeline.images import Image
from pipeline.params import Params
from pipeline.scoring_input import AHEAD, options, pixels_of
from pipeline.shards import HEADER, Processed
from pipeline.training.holding import hold
from pipeline.training.mixup import mix
from pipeline.training.sampling import Portion, draw_copies, portion_of, repeat_factors

if TYPE_CHECKING:
    import tensorflow as tf

_SHUFFLE_BYTES = 256 * 1024 * 1024
_OPEN_FILES = 8


def training_batches(
    data: Processed,
    params: Params,
    augment: Augment | None,
    epochs: int,
    first_epoch: int = 0,
    worker: int = 0,
    workers: int = 1,
) -> "tf.data.Dataset":
    """Shuffled, augmented batches of the training split for several epochs, one after the other.

    Order, augmentation and mixing of an epoch depend on `train.seed` and the epoch alone, so that training can start
    at any epoch. They do not depend on where the images lie (`train.hold`): the same tf.data shuffles run over
    positions in memory as over records on disk, where files are read from start to end, once an epoch.

    Parameters
    ----------
    data, params
        The images; of the parameters `train.seed, batch_size, hold, sampling` and `augment.mixup` are read.
    augment : callable or None
        See `pipeline.augment`; None gives the images as they are, and then nothing is mixed either.
    epochs, first_epoch : int
        The epochs first_epoch to epochs - 1, counted from 0.
    worker, workers : int
        This process among those that train together. Each reads files of its own (`Portion`), and a batch holds
        batch_size / workers images.

    Returns
    -------
    tf.data.Dataset
        Of (uint8 (batch, size, size, 1), float32 (batch, n_findings)); the last batch of an epoch may be smaller.
        Each image once an epoch; with `train.sampling` balanced as often as `draw_copies` says.

    Raises
    ------
    UserError
        As `portion_of` and `pipeline.training.holding.hold`.
    """
    import tensorflow as tf

    portion = portion_of(data, params, worker, workers)
    held = hold(data, params, portion)
    labels = data.labels
    finish = _finisher(labels, params, augment, worker)
    rows_at = tf.constant(portion.rows)

    def epoch_batches(epoch: Any) -> Any:
        batches = _ordered(data, params, portion, epoch, records=held is None).batch(portion.batch)
        return batches.enumerate().map(lambda step, items: (epoch, step, *items))

    def load(epoch: Any, step: Any, positions: Any, *records: Any) -> Any:
        rows = tf.gather(rows_at, positions)
        if held is None:
            images = _decode(records[0], rows, data.size)
        else:
            images = tf.numpy_function(held.__getitem__, [positions], tf.uint8)
        images, batch_labels = tf.numpy_function(finish, [epoch, step, rows, images], (tf.uint8, tf.float32))
        return (
            tf.ensure_shape(images, (None, data.size, data.size, 1)),
            tf.ensure_shape(batch_labels, (None, labels.shape[1])),
        )

    batches = tf.data.Dataset.range(first_epoch, epochs).flat_map(epoch_batches).map(load)
    batches = batches.apply(tf.data.experimental.assert_cardinality(portion.steps * (epochs - first_epoch)))
    return batches.prefetch(AHEAD).with_options(options())


def steps_per_epoch(data: Processed, params: Params, workers: int = 1) -> int:
    """Return the batches of an epoch, as many for every worker: what the one with the most images needs."""
    return portion_of(data, params, 0, workers).steps


def rows_of_batch(
    data: Processed, params: Params, epoch: int, step: int, worker: int = 0, workers: int = 1
) -> NDArray[np.int64]:
    """Return which images a batch of `training_batches` holds, without reading any.

    Parameters
    ----------
    epoch, step : int
        Both from 0.

    Returns
    -------
    ndarray of shape (batch,), dtype=int64
        Rows of `data.table`, in the order of the batch. With mixup, every image is mixed with another of these.

    Raises
    ------
    ValueError
        If the epoch has no such step.
    """
    import tensorflow as tf

    portion = portion_of(data, params, worker, workers)
    if not 0 <= step < portion.steps:
        raise ValueError(f"step is {step}; an epoch has the steps 0 to {portion.steps - 1}")
    items = tf.data.Dataset.range(epoch, epoch + 1).flat_map(
        lambda each: _ordered(data, params, portion, each, records=False)
    )
    (positions,) = next(iter(items.batch(portion.batch).skip(step).with_options(options())))
    return np.asarray(portion.rows[positions.numpy()], np.int64)


def _ordered(data: Processed, params: Params, portion: Portion, epoch: Any, *, records: bool) -> Any:
    """Return the (position,) or (position, record) of an epoch's images; call it in a function that tf.data traces."""
    import tensorflow as tf

    buffer = int(min(len(portion.rows), max(1024, _SHUFFLE_BYTES // data.size**2)))
    factors = repeat_factors(data.labels[portion.rows]) if params.train.sampling == "balanced" else None
    files, bounds = tf.constant(portion.files), tf.constant(portion.bounds)
    seed = params.train.seed

    def of_file(file: Any) -> Any:
        first, end = bounds[file], bounds[file + 1]
        positions = tf.data.Dataset.range(first, end)
        if not records:
            return tf.data.Dataset.zip((positions,))
        # A shard that holds fewer records than the table says is an error, not a shorter epoch.
        whole = tf.data.experimental.assert_cardinality(end - first)
        return tf.data.Dataset.zip((positions, tf.data.TFRecordDataset(files[file]).apply(whole)))

    def one_pass(number: Any) -> Any:
        run = epoch * portion.passes + number
        tf.random.set_seed(seed)  # of the function that is being traced alone: the order follows from no other state
        order = tf.data.Dataset.range(len(portion.files)).shuffle(len(portion.files), seed=2 * run)
        items = order.interleave(of_file, cycle_length=_OPEN_FILES)
        if factors is not None:
            copies = tf.numpy_function(lambda n: draw_copies(factors, seed, int(n)), [run], tf.int64)
            items = items.batch(_OPEN_FILES * 8).map(lambda *columns: _repeated(columns, copies)).unbatch()
        return items.shuffle(buffer, seed=2 * run + 1)

    return tf.data.Dataset.range(portion.passes).flat_map(one_pass).take(portion.images)


def _repeated(columns: tuple[Any, ...], copies: Any) -> tuple[Any, ...]:
    import tensorflow as tf

    counts = tf.gather(copies, columns[0])
    return tuple(tf.repeat(column, counts) for column in columns)


def _finisher(labels: NDArray[np.float32], params: Params, augment: Augment | None, worker: int) -> Any:
    """Return what is done to a batch in NumPy: augmentation image by image, labels, mixing."""
    alpha, seed = params.augment.mixup, params.train.seed

    def finish(epoch: int, step: int, rows: NDArray[np.int64], images: Image) -> tuple[Image, NDArray[np.float32]]:
        if augment is None:
            return images, labels[rows]
        changed = augment(epoch, rows, images)
        return (
            mix(changed, labels[rows], alpha, seed, int(epoch), int(step), worker) if alpha else (changed, labels[rows])
        )

    return finish


def _decode(records: Any, rows: Any, size: int) -> Any:
    """Return the pixels of a batch of records, which must be of these rows."""
    import tensorflow as tf

    found = tf.io.decode_raw(tf.strings.substr(records, 0, HEADER.size), tf.int32)[:, 0]
    same = tf.debugging.assert_equal(tf.cast(found, tf.int64), rows, "a shard holds other images than the index says")
    with tf.control_dependencies([same]):
        return pixels_of(records, size)
