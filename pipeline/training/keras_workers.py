"""What Keras 3.15 needs to `fit` over several workers (keras issue 20585), and what only such a training needs.

`mended` is to be removed when `tests/test_cluster.py` says that Keras does it alone. Imports TensorFlow: for the
training process only.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.training.cluster import Place


def mended(model: Any, place: Place) -> Any:
    """Return a compiled and built model that `fit` can train over several workers; call it before every `fit`.

    Two things of Keras are put aside, on these two objects alone and only with more than one worker:

    - `fit` builds the model from a first batch, which is a distributed value here, not a tensor. The model and the
      optimizer are built already, and that batch need not be read either.
    - the figures of a step are scalars, and `reduce_per_replica` takes their mean along an axis that they lack.

    Parameters
    ----------
    model : keras.Model
        Made and compiled in the scope of `place.strategy`, its optimizer built.
    place : Place
        Where it is trained.

    Raises
    ------
    ValueError
        If the model or its optimizer is not built.
    """
    if place.workers == 1:
        return model
    if not model.built or not model.optimizer.built:
        raise ValueError("build the model and model.optimizer.build(model.trainable_variables) before")
    model._maybe_symbolic_build = lambda *_args, **_kwargs: None
    plain = type(place.strategy).reduce

    def reduce(reduce_op: Any, value: Any, axis: Any) -> Any:
        scalar = all(item.shape.rank == 0 for item in place.strategy.experimental_local_results(value))
        return plain(place.strategy, reduce_op, value, axis=None if scalar else axis)

    place.strategy.reduce = reduce
    return model


def own_batches(batches: "tf.data.Dataset", place: Place) -> Any:
    """Return what `fit` takes for batches of which each worker has made its own part.

    Keras would take them for the batches of all workers, and give each worker a part of its own part.

    Parameters
    ----------
    batches : tf.data.Dataset
        Of tuples of tensors, this worker's images of each step; the same number of steps in every worker. A batch
        is split between the worker's devices; one that is too small leaves the last of them none.
    place : Place
        Where it is trained; with one worker the batches are returned as they are.
    """
    if place.workers == 1:
        return batches
    devices = place.replicas // place.workers
    pieces = batches if devices == 1 else batches.flat_map(lambda *batch: _pieces(batch, devices))
    return place.strategy.distribute_datasets_from_function(lambda _context: pieces)


def chiefs(values: NDArray[np.float64], place: Place) -> NDArray[np.float64]:
    """Return the chief's values, in every worker; all must call it at the same point.

    The workers' own may differ in the last digits where their processors do, and a decision that rests on them, such
    as to stop, has to be the same everywhere.

    Parameters
    ----------
    values : ndarray of shape (n,), dtype=float64
        This worker's, at least one; the same number in each.
    place : Place
        With one worker the values are returned as they are.
    """
    if place.workers == 1:
        return values
    gathered = place.strategy.gather(tf.constant(values, tf.float64), axis=0)
    return np.asarray(gathered.numpy()[: len(values)], np.float64)


def _pieces(batch: tuple[Any, ...], devices: int) -> "tf.data.Dataset":
    count = tf.shape(batch[0], out_type=tf.int64)[0]
    length = -(-count // devices)

    def piece(number: Any) -> tuple[Any, ...]:
        return tuple(column[number * length : (number + 1) * length] for column in batch)

    return tf.data.Dataset.range(devices).map(piece)
