"""Losses over several findings, where some labels are unknown. Imports Keras: for the training process only."""

from typing import Any

import keras
from keras import ops

from pipeline.params import LossParams


@keras.saving.register_keras_serializable(package="pipeline")
class MaskedFocal(keras.losses.Loss):  # type: ignore[misc]  # Keras ships no types
    """Binary focal loss, averaged over findings; an unknown label (NaN) adds nothing.

    Lin et al., "Focal loss for dense object detection", ICCV 2017, equation 5, with one constant factor for both
    classes: -alpha (1 - p_t)^gamma log p_t. Keras' `binary_focal_crossentropy` computes the term; its own class
    balancing is off, because with 0.25 it would weigh the rare positives down threefold.

    Parameters
    ----------
    alpha : float
        Factor in (0, 1].
    gamma : float
        Focusing exponent; 0 is binary cross-entropy.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, name: str = "focal", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.alpha = alpha
        self.gamma = gamma

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each image.

        Parameters
        ----------
        y_true : tensor of shape (batch, n_findings)
            1, 0 or NaN.
        y_pred : tensor of shape (batch, n_findings)
            Probabilities.

        Returns
        -------
        tensor of shape (batch,)
            Sum over the known findings divided by the number of all findings, so that the mean over a batch is the
            same however the batch is shared out between devices.
        """
        y_pred = ops.cast(y_pred, "float32")
        y_true = ops.cast(y_true, "float32")
        known = ops.logical_not(ops.isnan(y_true))
        term = keras.losses.binary_focal_crossentropy(
            ops.where(known, y_true, 0.0)[..., None], y_pred[..., None], gamma=self.gamma
        )
        return self.alpha * ops.mean(ops.where(known, term, 0.0), axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return what Keras needs to make the loss again."""
        return {**super().get_config(), "alpha": self.alpha, "gamma": self.gamma}


def build_loss(params: LossParams) -> MaskedFocal:
    """Return the loss that the parameters name; cross-entropy is the focal loss with alpha 1 and gamma 0."""
    if params.name == "binary_crossentropy":
        return MaskedFocal(alpha=1.0, gamma=0.0, name="binary_crossentropy")
    return MaskedFocal(alpha=params.alpha, gamma=params.gamma)
