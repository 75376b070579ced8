"""What a student learns of its teacher where findings are not exclusive. Imports Keras: for the training only."""

from typing import Any

import keras
from keras import ops


class SigmoidDistillation(keras.distillation.DistillationLoss):  # type: ignore[misc]  # Keras ships no types
    """Cross-entropy between the teacher's and the student's softened probability of each finding.

    Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, section 2, for Bernoulli variables:
    with logits z_t of the teacher and z_s of the student the loss is T^2 times the cross-entropy of sigmoid(z_s / T)
    against sigmoid(z_t / T), averaged over findings and images; T^2 keeps the size of the gradient.
    `keras.distillation.LogitsDistillation` takes a softmax over the outputs, as if one film had one finding: it would
    teach the order of the findings of a film and forget whether there are any.

    The models end with a sigmoid; their logits are found again from the probabilities, cut at Keras' epsilon (1e-7).

    Parameters
    ----------
    temperature : float
        T, above 0; 1 compares the probabilities as they are.
    """

    def __init__(self, temperature: float) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; it must be above 0")
        self.temperature = float(temperature)

    def compute_loss(self, teacher_outputs: Any, student_outputs: Any, **_kwargs: Any) -> Any:
        """Return the loss of probabilities, both of shape (batch, n_findings)."""
        target = ops.sigmoid(_logits(teacher_outputs) / self.temperature)
        given = _logits(student_outputs) / self.temperature
        losses = ops.softplus(given) - target * given
        return ops.mean(losses) * self.temperature**2

    def get_config(self) -> dict[str, Any]:
        """Return what Keras needs to make the loss again."""
        return {"temperature": self.temperature}


def _logits(probabilities: Any) -> Any:
    epsilon = keras.config.epsilon()
    cut = ops.clip(ops.cast(probabilities, "float32"), epsilon, 1.0 - epsilon)
    return ops.log(cut) - ops.log1p(-cut)
