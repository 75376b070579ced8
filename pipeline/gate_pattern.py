"""The gate's eye: a small network that tells an upright chest film from what is none, by its coarse pattern.

The network sees 24 x 24 area averages and no more: fine structure would tell it how an image was made (enlarged,
compressed, noisy), and not what is on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.images import Image

SIDE = 24
"""Places a side."""
CLASSES = ("film", "rotated", "inverted", "cropped", "no-film")
"""What the network tells apart: a film, or one of the reasons of `pipeline.gate.REASONS`."""

_FLOOR = 4.0  # gray values added to the deviation, so that a blank image stays blank
Floats = NDArray[np.float32]


def patterns(images: Sequence[Image] | NDArray[np.uint8]) -> Floats:
    """Return what the network sees of prepared images.

    Parameters
    ----------
    images : sequence of ndarray of shape (size, size), dtype=uint8
        Prepared images.

    Returns
    -------
    ndarray of shape (n, SIDE * SIDE + 1), dtype=float32
        Area averages, centred and divided by their standard deviation, and that deviation in units of 64.
    """
    small = np.stack([cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in images])
    values = small.reshape(len(small), -1).astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    deviation = values.std(axis=1, keepdims=True)
    return np.concatenate([values / (deviation + np.float32(_FLOOR)), deviation / np.float32(64)], axis=1)


@dataclass(frozen=True, eq=False)
class PatternNet:
    """A fitted network of one hidden layer.

    Attributes
    ----------
    centre : ndarray of shape (n_inputs,), dtype=float32
        Taken from the patterns first.
    inner, inner_bias : ndarray of shape (n_inputs, n_hidden) and (n_hidden,), dtype=float32
        To the hidden layer, whose units are rectified.
    outer, outer_bias : ndarray of shape (n_hidden, 5) and (5,), dtype=float32
        To the logits of `CLASSES`.
    """

    centre: Floats
    inner: Floats
    inner_bias: Floats
    outer: Floats
    outer_bias: Floats

    def logits(self, seen: Floats) -> Floats:
        """Return the logits of `CLASSES`, shape (n, 5), of `patterns`."""
        hidden = np.maximum((seen - self.centre) @ self.inner + self.inner_bias, np.float32(0))
        return np.asarray(hidden @ self.outer + self.outer_bias, np.float32)


def strangeness(logits: Floats) -> NDArray[np.float64]:
    """Return the log odds of "no upright film", shape (n,): large for what is to be flagged."""
    others = logits[:, 1:].astype(np.float64)
    top = others.max(axis=1)
    return np.asarray(top + np.log(np.exp(others - top[:, None]).sum(axis=1)) - logits[:, 0])


def fit_pattern_net(seen: Floats, kinds: NDArray[np.intp], hidden: int, epochs: int, seed: int) -> PatternNet:
    """Fit the network (scikit-learn's multi-layer perceptron with Adam) on patterns in random order.

    Parameters
    ----------
    seen : ndarray of shape (n, n_inputs), dtype=float32
        Of `patterns`.
    kinds : ndarray of shape (n,), dtype=int
        Positions in `CLASSES`.
    hidden, epochs, seed : int
        Units of the hidden layer, passes over the patterns, start and order.

    Returns
    -------
    PatternNet
        It works on the 120 strongest principal components, which are folded into its first layer.
    """
    from sklearn.decomposition import PCA
    from sklearn.neural_network import MLPClassifier

    pca = PCA(min(_COMPONENTS, *seen.shape), random_state=seed).fit(seen)
    scale = _SPREAD / np.sqrt(pca.explained_variance_[0])
    inputs = (seen - pca.mean_) @ pca.components_.T * scale
    net = MLPClassifier((hidden,), alpha=_DECAY, learning_rate_init=_RATE, batch_size=200, random_state=seed)
    for _ in range(epochs):
        net.partial_fit(inputs, kinds, classes=np.arange(len(CLASSES)))
    (inner, outer), (inner_bias, outer_bias) = net.coefs_, net.intercepts_
    arrays = (pca.mean_, pca.components_.T @ inner * scale, inner_bias, outer, outer_bias)
    return PatternNet(*(np.asarray(values, np.float32) for values in arrays))


_COMPONENTS = 120
_SPREAD = 8.0  # standard deviation of the first component, so that Adam's usual rate suits
_DECAY = 1e-2
_RATE = 1e-3
