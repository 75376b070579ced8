"""Keras' optimizers, with a slower backbone and with the same steps on many replicas. Imports Keras: for training only.

Keras 3.15 has `MultiOptimizer` for parts of a network, which does not serve here: it has no `learning_rate` (which the
plateau schedule and the log use), and each part would be clipped by a norm of its own.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from pipeline.params import OptimizerParams


class _Parts(keras.optimizers.Optimizer):  # type: ignore[misc]  # Keras ships no types
    """What is added to a Keras optimizer; stands before it among the bases.

    - Variables whose `path` begins with one of `slow` learn at `slow_rate` times the rate, and decay at it.
    - Decoupled weight decay (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2:
      w - rate * decay * w) shrinks kernels alone: no biases, and nothing of a normalisation. Keras'
      `exclude_from_weight_decay` is given the variables themselves: it looks for names in TensorFlow's, which contain
      those of the layers.
    - `global_clipnorm` is the norm of the gradient summed over replicas. Keras clips each replica's own before the
      sum, so that many replicas would take another step than one.

    Parameters
    ----------
    *args, **kwargs
        As of the Keras optimizer.
    slow : collection of str
        Beginnings of paths, such as "backbone/".
    slow_rate : float
        Factor of their rate.
    """

    def __init__(self, *args: Any, slow: Collection[str] = (), slow_rate: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slow = tuple(slow)
        self.slow_rate = slow_rate
        self._slow_indices: frozenset[int] = frozenset()

    def build(self, variables: Any) -> None:
        """Make the optimizer's variables, and note which of the network's are slow and which decay."""
        if self.built:
            return
        self.exclude_from_weight_decay(var_list=[variable for variable in variables if not is_kernel(variable)])
        super().build(variables)
        self._slow_indices = frozenset(
            index for index, variable in enumerate(variables) if self.slow and variable.path.startswith(self.slow)
        )
        if self.slow and not self._slow_indices:
            raise ValueError(f"no variable that learns has a path that begins with one of {self.slow[:3]}")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Let a variable decay, then take Keras' step, both at the variable's own rate."""
        slow = self._get_variable_index(variable) in self._slow_indices
        rate = learning_rate * self.slow_rate if slow else learning_rate
        if self.weight_decay and self._use_weight_decay(variable):
            self.assign_sub(variable, variable * self.weight_decay * rate)
        super().update_step(gradient, variable, rate)

    def _apply_weight_decay(self, variables: Any) -> None:
        """Do nothing: `update_step` does it, where the variable's rate is known."""

    def _clip_gradients(self, grads: Any) -> Any:
        return grads  # once they are summed

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> list[Any]:
        pairs = super()._all_reduce_sum_gradients(grads_and_vars)
        clipped = super()._clip_gradients([gradient for gradient, _ in pairs])
        return list(zip(clipped, [variable for _, variable in pairs], strict=True))

    def get_config(self) -> dict[str, Any]:
        """Return what Keras needs to make the optimizer again."""
        return {**super().get_config(), "slow": list(self.slow), "slow_rate": self.slow_rate}


class _OnePass(keras.optimizers.Adam):  # type: ignore[misc]
    """Keras' Adam, whose step is one operation a variable instead of a dozen: each number is read and written once.

    The step is that of Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, section 2, end, which
    Keras computes too. TensorFlow's `ResourceApplyAdam` does it for dense gradients; docs/speed.md has what it saves.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Change a float32 variable and its two moments by a gradient of the same shape."""
        if self.amsgrad or isinstance(gradient, tf.IndexedSlices) or variable.dtype != tf.float32:
            super().update_step(gradient, variable, learning_rate)
            return
        number = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[number].value.handle,
            v=self._velocities[number].value.handle,
            beta1_power=tf.pow(tf.constant(self.beta_1, tf.float32), step),
            beta2_power=tf.pow(tf.constant(self.beta_2, tf.float32), step),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, tf.float32),
        )


@keras.saving.register_keras_serializable(package="pipeline")
class Adam(_Parts, _OnePass):
    """Keras' Adam in one operation, with what `_Parts` adds."""


@keras.saving.register_keras_serializable(package="pipeline")
class AdamW(_Parts, _OnePass, keras.optimizers.AdamW):  # type: ignore[misc]
    """Keras' AdamW in one operation, with what `_Parts` adds."""


@keras.saving.register_keras_serializable(package="pipeline")
class SGD(_Parts, keras.optimizers.SGD):  # type: ignore[misc]
    """Keras' SGD with what `_Parts` adds."""


@keras.saving.register_keras_serializable(package="pipeline")
class LossScale(keras.optimizers.LossScaleOptimizer):  # type: ignore[misc]
    """Keras' dynamic loss scaling for float16, which skips a step that is not finite on any replica.

    Keras 3.15 looks at the first replica alone (`LossScaleOptimizer._tf_apply` takes the gradients for summed, which
    they are not yet): an overflow on another one would end in the weights.
    """

    def check_finite(self, grads: Any) -> Any:
        """Return whether the gradients of all replicas are finite, a bool tensor of shape ()."""
        finite = super().check_finite(grads)
        context = tf.distribute.get_replica_context()
        if context is None:
            return finite
        good = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(finite, tf.int32))
        return tf.equal(good, context.num_replicas_in_sync)


def is_kernel(variable: Any) -> bool:
    """Return whether a Keras variable is a kernel of a layer: what decays and what L1 and L2 penalise.

    Keras' names end so for dense, convolution, depthwise and separable layers; biases, and the gamma and beta of
    normalisations and of ConvNeXt's layer scale, do not.
    """
    return str(variable.name).endswith("kernel")


def scaled_rate(params: OptimizerParams, batch_size: int) -> float:
    """Return the highest learning rate for a batch.

    With `reference_batch` above 0 it is learning_rate times batch_size / reference_batch (Goyal et al., "Accurate,
    large minibatch SGD", 2017, section 2.1, the linear scaling rule).

    Parameters
    ----------
    params : OptimizerParams
        The rate, and the batch that it is for.
    batch_size : int
        Images a step over all replicas.
    """
    if not params.reference_batch:
        return params.learning_rate
    return params.learning_rate * batch_size / params.reference_batch


def build_optimizer(
    params: OptimizerParams, rate: float | LearningRateSchedule, slow: Collection[str] = (), slow_rate: float = 1.0
) -> keras.optimizers.Optimizer:
    """Return the optimizer that the parameters name; call it in the strategy's scope.

    It is Keras' Adam, AdamW, or SGD with Nesterov momentum, with what `_Parts` adds. EMA is Keras' (`use_ema`), which
    is the mean of the weights after each step, w_ema = ema * w_ema + (1 - ema) * w, beginning with the first step's:
    see `averaged_weights`. Under the dtype policy mixed_float16 it comes within `LossScale`, and `keras.Model.compile`
    adds no loss scaling of its own.

    Parameters
    ----------
    params : OptimizerParams
        Name and its numbers; `learning_rate` is not read.
    rate : float or LearningRateSchedule
        From `pipeline.training.schedules.build_schedule`.
    slow : collection of str
        Beginnings of the `path` of variables that learn at `slow_rate` times the rate: "backbone/" in the networks of
        `pipeline.training.network.build_model`.
    slow_rate : float
        In (0, 1].

    Raises
    ------
    ValueError
        When it is built (at the first step), if `slow` names no variable that learns.
    """
    optimizer = _plain_optimizer(params, {"learning_rate": rate, "slow": slow, "slow_rate": slow_rate})
    return LossScale(optimizer) if keras.config.dtype_policy().name == "mixed_float16" else optimizer


def _plain_optimizer(params: OptimizerParams, common: dict[str, Any]) -> Any:
    if params.clip_norm:
        common["global_clipnorm"] = params.clip_norm
    if params.ema:
        common |= {"use_ema": True, "ema_momentum": params.ema}
    if params.name == "adam":
        return Adam(**common)
    common["weight_decay"] = params.weight_decay
    if params.name == "adamw":
        return AdamW(**common)
    return SGD(momentum=params.momentum, nesterov=True, **common)


def penalise(model: keras.Model, params: OptimizerParams) -> None:
    """Add L1 and L2 penalties to the loss: l1 * sum |w| + l2 * sum w^2 over the kernels that learn.

    The kernels get Keras' `L1L2` as their regularizer. The layers' own settings stay as they are, so that a saved
    model has no trace of it. Keras adds penalties of variables that are trainable alone, once whatever the number of
    replicas.

    Parameters
    ----------
    model : keras.Model
        Built; changed.
    params : OptimizerParams
        `l1` and `l2`; with both 0 nothing is done.
    """
    if not params.l1 and not params.l2:
        return
    penalty = keras.regularizers.L1L2(params.l1, params.l2)
    for variable in model.variables:
        if is_kernel(variable):
            variable.regularizer = penalty


@contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Give a model the moving mean of its weights for a while; without one, leave it as it is.

    `keras.callbacks.SwapEMAWeights` swaps by sums and differences, which round: the weights would not come back as
    they were, and a resumed training would go another way. Here they are kept aside. The moving statistics of
    BatchNormalization stay those of the training.

    Parameters
    ----------
    model : keras.Model
        Compiled with an optimizer of `build_optimizer`, or not compiled.
    """
    compiled = getattr(model, "optimizer", None)  # Keras makes the attribute when it compiles
    optimizer = getattr(compiled, "inner_optimizer", compiled)
    if optimizer is None or not optimizer.use_ema or not optimizer.built or not int(optimizer.iterations.numpy()):
        yield
        return
    kept = [variable.numpy() for variable in optimizer._trainable_variables]
    optimizer.finalize_variable_values(optimizer._trainable_variables)
    try:
        yield
    finally:
        for variable, value in zip(optimizer._trainable_variables, kept, strict=True):
            variable.assign(value)
