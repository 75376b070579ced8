"""Mixup: every image of a batch is laid over another one of it, and so are their labels."""

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.images import Image

_STREAM = 1  # keeps the numbers apart from those of the order and of the augmentation


def mix(
    images: Image, labels: NDArray[np.float32], alpha: float, seed: int, epoch: int, step: int, worker: int = 0
) -> tuple[Image, NDArray[np.float32]]:
    """Mix each image and its labels with a partner drawn from the same batch.

    Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018, section 2: x = w x_i + (1 - w) x_j and
    y = w y_i + (1 - w) y_j, with w from Beta(alpha, alpha), drawn for each pair. The partners are the same batch
    shuffled, as in the authors' implementation, so an image may meet itself and stay as it is.

    `keras.layers.MixUp` computes the same. It is not used because its numbers follow from how often it was called and
    not from the step, so that a training could not go on from the middle, and because it gives floats.

    Parameters
    ----------
    images : ndarray of shape (batch, height, width, 1), dtype=uint8
        The batch.
    labels : ndarray of shape (batch, n_findings), dtype=float32
        1, 0, or NaN for unknown.
    alpha : float
        Above 0; 0.2 mixes a little, 1 draws w uniformly.
    seed, epoch, step, worker : int
        The numbers drawn follow from these alone.

    Returns
    -------
    ndarray of shape (batch, height, width, 1), dtype=uint8
        Rounded to the nearest, since the network takes uint8.
    ndarray of shape (batch, n_findings), dtype=float32
        In [0, 1]; NaN where the label of either image is unknown, however little it weighs.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, epoch, step, worker], spawn_key=(_STREAM,)))
    partners = rng.permutation(len(images))
    weights = rng.beta(alpha, alpha, len(images)).astype(np.float32)
    mixed = np.empty_like(images)
    for image, (partner, weight) in enumerate(zip(partners, weights.tolist(), strict=True)):
        cv2.addWeighted(images[image], weight, images[partner], 1 - weight, 0, dst=mixed[image])  # rounds
    others = labels[partners]
    return mixed, np.clip(others + weights[:, None] * (labels - others), 0.0, 1.0)
