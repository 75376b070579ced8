"""The head of a frozen network alone: its features are computed once, and the head learns from them.

A frozen backbone gives an image that is not augmented the same features in every epoch, and almost all the arithmetic
of a step is the backbone's. `benchmarks/cached_features.py` measures the saving.
"""

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from pipeline.params import Params
from pipeline.scoring_input import AHEAD, options, predict
from pipeline.shards import Processed
from pipeline.training.sampling import draw_copies, repeat_factors

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

POOLED = "pooled"
_EXTRACTORS: "WeakKeyDictionary[keras.Model, keras.Model]" = WeakKeyDictionary()  # tracing one takes seconds
_STREAM = 3  # keeps the numbers apart from those of the sampling


def pooled_features(model: "keras.Model", data: Processed, split: str, batch_size: int) -> NDArray[np.float32]:
    """Compute what the layer "pooled" gives for all images of a split, in inference mode.

    Returns
    -------
    ndarray of shape (n_images, n_features), dtype=float32
        In the order of `data.rows(split)`.
    """
    extractor = _EXTRACTORS.get(model) or _extractor_of(model)
    return predict(extractor, data, split, batch_size)


def head_of(model: "keras.Model") -> "keras.Model":
    """Return the part of a model behind the layer "pooled": from features to probabilities.

    It consists of the model's own layers, so that fitting it changes the model. Keras builds a model from tensors
    inside another one and shares the layers between them.

    Returns
    -------
    keras.Model
        From float32 (batch, n_features) to float32 (batch, n_findings).
    """
    import keras

    with model.distribute_strategy.scope():
        return keras.Model(model.get_layer(POOLED).output, model.output, name="head")


def feature_batches(
    features: NDArray[np.float32], labels: NDArray[np.float32], params: Params, epochs: int, first_epoch: int = 0
) -> "tf.data.Dataset":
    """Shuffled batches of features for several epochs, one after the other.

    Order depends on `train.seed` and the epoch alone; it is not that of `training_batches`, since here every order is
    equally likely. `train.sampling` balanced counts as there. Nothing is mixed: mixup is of images.

    Parameters
    ----------
    features : ndarray of shape (n_images, n_features), dtype=float32
        See `pooled_features`.
    labels : ndarray of shape (n_images, n_findings), dtype=float32
        1, 0, or NaN for unknown.
    params : Params
        `train.seed, batch_size, sampling` are read.
    epochs, first_epoch : int
        The epochs first_epoch to epochs - 1, counted from 0.

    Returns
    -------
    tf.data.Dataset
        Of (float32 (batch, n_features), float32 (batch, n_findings)); the last batch of an epoch may be smaller.
    """
    import tensorflow as tf

    batch, seed = params.train.batch_size, params.train.seed
    factors = _factors(labels, params)

    def order(epoch: int) -> NDArray[np.int64]:
        return _order(len(features), factors, seed, int(epoch))

    def epoch_batches(epoch: Any) -> Any:
        return tf.data.Dataset.from_tensor_slices(tf.numpy_function(order, [epoch], tf.int64)).batch(batch)

    def load(rows: Any) -> Any:
        # Not a constant of the graph, which would be a second copy.
        found = tf.numpy_function(lambda which: (features[which], labels[which]), [rows], (tf.float32, tf.float32))
        return tuple(
            tf.ensure_shape(part, (None, whole.shape[1])) for part, whole in zip(found, (features, labels), strict=True)
        )

    batches = tf.data.Dataset.range(first_epoch, epochs).flat_map(epoch_batches).map(load)
    steps = -(-len(features) // batch) * (epochs - first_epoch)
    batches = batches.apply(tf.data.experimental.assert_cardinality(steps))
    return batches.prefetch(AHEAD).with_options(options())


def rows_of_feature_batch(labels: NDArray[np.float32], params: Params, epoch: int, step: int) -> NDArray[np.int64]:
    """Return which images a batch of `feature_batches` is of.

    Returns
    -------
    ndarray of shape (batch,), dtype=int64
        Rows of `features` and `labels`.

    Raises
    ------
    ValueError
        If the epoch has no such step.
    """
    steps = -(-len(labels) // params.train.batch_size)
    if not 0 <= step < steps:
        raise ValueError(f"step is {step}; an epoch has the steps 0 to {steps - 1}")
    order = _order(len(labels), _factors(labels, params), params.train.seed, epoch)
    return order[step * params.train.batch_size :][: params.train.batch_size]


def _extractor_of(model: "keras.Model") -> "keras.Model":
    import keras

    with model.distribute_strategy.scope():
        _EXTRACTORS[model] = keras.Model(model.input, model.get_layer(POOLED).output, name="features")
    return _EXTRACTORS[model]


def _factors(labels: NDArray[np.float32], params: Params) -> NDArray[np.float64] | None:
    return repeat_factors(labels) if params.train.sampling == "balanced" else None


def _order(count: int, factors: NDArray[np.float64] | None, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the images of an epoch in the order in which they are seen."""
    images = np.arange(count) if factors is None else np.repeat(np.arange(count), draw_copies(factors, seed, epoch))
    rng = np.random.default_rng(np.random.SeedSequence([seed, epoch], spawn_key=(_STREAM,)))
    return np.asarray(rng.permutation(images), np.int64)
