"""Losses over several findings, where some labels are unknown. Imports Keras: for the training process only."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from pipeline.params import LossParams


class MaskedLoss(keras.losses.Loss):  # type: ignore[misc]  # Keras ships no types
    """A loss per finding, averaged over the findings; an unknown label (NaN) adds nothing and has no gradient.

    With L+ and L- the losses of a positive and of a negative, an image's loss is the mean over all findings of
    w+ y L+(p) + w- (1 - y) L-(p). A label y between 0 and 1 thus mixes the losses of both classes, which is what mixup
    does (Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018, section 2, and the authors' code).
    Probabilities are held within Keras' epsilon (1e-7) of 0 and 1; beyond, the gradient is 0, as in Keras' own
    losses. All is computed in `dtype` (Keras' floatx, float32), whatever precision the network has.

    Parameters
    ----------
    label_smoothing : float
        s in [0, 1) makes a label y (1 - s) y + s / 2 (Szegedy et al., "Rethinking the Inception architecture for
        computer vision", CVPR 2016, section 7, for two classes); before the weights.
    weights : sequence of (float, float), optional
        w- and w+ of each finding; all 1 by default.
    share : float, optional
        None: the loss of a batch is the mean over its images. A number: the sum over its images times `share`.

        Keras 3.15 multiplies a loss of reduction "sum_over_batch_size" by 1 / replicas on each replica
        (`keras/src/losses/loss.py`, `reduce_values` and `scale_loss_for_distribution`; not with reduction "sum") and
        sums the gradients of the replicas (`keras/src/backend/tensorflow/optimizer.py`, `_all_reduce_sum_gradients`).
        With the mean, images of a replica that got fewer of them weigh more. With `share` = replicas / images of a
        full batch over all replicas, each image weighs 1 / images of a full batch, however a batch is split. The
        mean that Keras takes is undone by multiplying with the number of images, so that its division by the number
        of replicas stays.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        weights: Sequence[Sequence[float]] | None = None,
        share: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.label_smoothing = label_smoothing
        self.weights = None if weights is None else [[float(value) for value in pair] for pair in weights]
        self.share = share

    def positive(self, probability: Any) -> Any:
        """Return the loss of a positive label at each probability, a tensor within (0, 1) of any shape."""
        raise NotImplementedError

    def negative(self, probability: Any) -> Any:
        """Return the loss of a negative label at each probability, a tensor within (0, 1) of any shape."""
        raise NotImplementedError

    def per_image(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each image, whatever `share` is.

        Parameters
        ----------
        y_true : tensor of shape (batch, n_findings)
            0 to 1, or NaN.
        y_pred : tensor of shape (batch, n_findings)
            Probabilities.

        Returns
        -------
        tensor of shape (batch,)
            Sum over the known findings divided by the number of all findings, so that the mean over images is the
            same however they are shared out between batches and devices.
        """
        y_true, y_pred = ops.cast(y_true, self.dtype), ops.cast(y_pred, self.dtype)
        known = ops.logical_not(ops.isnan(y_true))
        # Unknown entries are replaced before the logarithms: 0 times the gradient of an unused branch could be NaN.
        label = ops.where(known, y_true, 0.0) * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
        epsilon = keras.config.epsilon()
        probability = ops.clip(ops.where(known, y_pred, 0.5), epsilon, 1.0 - epsilon)
        positive, negative = label * self.positive(probability), (1.0 - label) * self.negative(probability)
        if self.weights is not None:
            weights = ops.convert_to_tensor(self.weights, dtype=self.dtype)
            negative, positive = weights[:, 0] * negative, weights[:, 1] * positive
        return ops.mean(ops.where(known, positive + negative, 0.0), axis=-1)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return what Keras takes the mean of: `per_image`, times `share` and the number of images if there is one."""
        losses = self.per_image(y_true, y_pred)
        if self.share is None:
            return losses
        return losses * (self.share * ops.cast(ops.shape(losses)[0], self.dtype))

    def get_config(self) -> dict[str, Any]:
        """Return what Keras needs to make the loss again."""
        own = {"label_smoothing": self.label_smoothing, "weights": self.weights, "share": self.share}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="pipeline")
class MaskedFocal(MaskedLoss):
    """Binary focal loss; cross-entropy with alpha 1 and gamma 0.

    Lin et al., "Focal loss for dense object detection", ICCV 2017, equation 5, with one constant factor for both
    classes: -alpha (1 - p_t)^gamma log p_t. Keras' `binary_focal_crossentropy` computes the term; its own class
    balancing is off, because with 0.25 it would weigh the rare positives down threefold.

    Parameters
    ----------
    alpha : float
        Factor in (0, 1].
    gamma : float
        Focusing exponent, at least 0.
    name, **kwargs
        As of `MaskedLoss`.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, name: str = "focal", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.alpha = alpha
        self.gamma = gamma

    def positive(self, probability: Any) -> Any:
        """Return -alpha (1 - p)^gamma log p."""
        return self._term(ops.ones_like(probability), probability)

    def negative(self, probability: Any) -> Any:
        """Return -alpha p^gamma log(1 - p)."""
        return self._term(ops.zeros_like(probability), probability)

    def _term(self, label: Any, probability: Any) -> Any:
        # The function takes the mean over the last axis, so it is given one of length 1.
        term = keras.losses.binary_focal_crossentropy(label[..., None], probability[..., None], gamma=self.gamma)
        return self.alpha * term

    def get_config(self) -> dict[str, Any]:
        """Return what Keras needs to make the loss again."""
        return {**super().get_config(), "alpha": self.alpha, "gamma": self.gamma}


@keras.saving.register_keras_serializable(package="pipeline")
class MaskedAsymmetric(MaskedLoss):
    """Asymmetric loss: easy negatives weigh less than easy positives, and the easiest nothing.

    Ridnik et al., "Asymmetric loss for multi-label classification", ICCV 2021, equations 4 to 7:
    L+ = -(1 - p)^gamma_positive log p, L- = -p_m^gamma_negative log(1 - p_m), p_m = max(p - clip, 0).

    Parameters
    ----------
    gamma_positive, gamma_negative : float
        Exponents, at least 0.
    clip : float
        Probability shift m in [0, 1): a negative below it adds nothing and has no gradient.
    name, **kwargs
        As of `MaskedLoss`.
    """

    def __init__(
        self,
        gamma_positive: float = 0.0,
        gamma_negative: float = 4.0,
        clip: float = 0.05,
        name: str = "asymmetric",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.gamma_positive = gamma_positive
        self.gamma_negative = gamma_negative
        self.clip = clip

    def positive(self, probability: Any) -> Any:
        """Return -(1 - p)^gamma_positive log p."""
        return -ops.power(1.0 - probability, self.gamma_positive) * ops.log(probability)

    def negative(self, probability: Any) -> Any:
        """Return -p_m^gamma_negative log(1 - p_m)."""
        shifted = probability - self.clip
        # The gradient of a power below 1 is infinite at 0, so the power never sees less than epsilon.
        kept = ops.maximum(shifted, keras.config.epsilon())
        return ops.where(shifted > 0, -ops.power(kept, self.gamma_negative) * ops.log1p(-kept), 0.0)

    def get_config(self) -> dict[str, Any]:
        """Return what Keras needs to make the loss again."""
        own = {"gamma_positive": self.gamma_positive, "gamma_negative": self.gamma_negative, "clip": self.clip}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="pipeline")
class ImageLoss(keras.metrics.MeanMetricWrapper):  # type: ignore[misc]  # Keras ships no types
    """Mean of a loss over images, each counted once; see `reported_loss`.

    Parameters
    ----------
    loss : MaskedLoss
        The loss, as compiled.
    name : str
        The figure's name.
    dtype : str, optional
        Of the sums; float32 by default.
    """

    def __init__(self, loss: MaskedLoss, name: str = "image_loss", dtype: str | None = None) -> None:
        super().__init__(loss.per_image, name=name, dtype=dtype)
        self._loss = loss

    def get_config(self) -> dict[str, Any]:
        """Return what Keras needs to make the metric again."""
        loss = keras.saving.serialize_keras_object(self._loss)
        return {"name": self.name, "dtype": self.dtype, "loss": loss}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ImageLoss":
        """Make the metric again."""
        loss = keras.saving.deserialize_keras_object(config["loss"])
        return cls(loss, config["name"], config["dtype"])


def balanced_weights(labels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the weights with which the positives and the negatives of a finding weigh the same in all.

    n / (2 n_negative) and n / (2 n_positive), with n = n_negative + n_positive the known labels: scikit-learn's
    `compute_class_weight("balanced")`. The mean weight of the known labels is 1. A finding of which only one class,
    or nothing, is known has weights of 1.

    Parameters
    ----------
    labels : ndarray of shape (n_images, n_findings), dtype=float32
        1, 0 or NaN.

    Returns
    -------
    ndarray of shape (n_findings, 2), dtype=float64
        Of negatives and of positives.
    """
    counts = np.stack([(labels == value).sum(axis=0) for value in (0, 1)], axis=1)
    known = counts.sum(axis=1, keepdims=True)
    both = (counts > 0).all(axis=1, keepdims=True)
    return np.where(both, known / np.maximum(2 * counts, 1), 1.0)


def build_loss(params: LossParams, labels: NDArray[np.float32] | None = None, share: float | None = None) -> MaskedLoss:
    """Return the loss that the parameters name; cross-entropy is the focal loss with alpha 1 and gamma 0.

    Parameters
    ----------
    params : LossParams
        Name and its numbers.
    labels : ndarray of shape (n_images, n_findings), dtype=float32, optional
        1, 0 or NaN of the training images; needed for `class_weights: balanced`, see `balanced_weights`.
    share : float, optional
        See `MaskedLoss`.

    Raises
    ------
    ValueError
        If the labels are needed and missing.
    """
    common: dict[str, Any] = {"label_smoothing": params.label_smoothing, "share": share}
    if params.class_weights == "balanced":
        if labels is None:
            raise ValueError("class_weights is balanced, which needs the training labels")
        common["weights"] = balanced_weights(labels).tolist()
    if params.name == "asymmetric":
        return MaskedAsymmetric(params.gamma_positive, params.gamma_negative, params.clip, **common)
    if params.name == "binary_crossentropy":
        return MaskedFocal(alpha=1.0, gamma=0.0, name="binary_crossentropy", **common)
    return MaskedFocal(alpha=params.alpha, gamma=params.gamma, **common)


def reported_loss(loss: MaskedLoss) -> ImageLoss:
    """Return the metric that reports the loss: its mean over an epoch's images, named image_loss.

    Keras' own figure, `logs["loss"]`, weighs each batch's loss by its number of images. That is the mean over images
    if the loss is a batch's mean; with `share`, a last batch of k of n images counts k / n times too little. This
    figure is exact either way, over replicas too (Keras sums its two variables), and without L1 and L2 penalties,
    which `logs["loss"]` contains.

    Parameters
    ----------
    loss : MaskedLoss
        The loss that is compiled.
    """
    return ImageLoss(loss)
