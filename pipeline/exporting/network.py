"""The network that is exported: stock Keras layers in float32, with the pooled features as its second output."""

from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.model import HEAD

if TYPE_CHECKING:
    import keras


def with_features(model: "keras.Model") -> "keras.Model":
    """Return a model of the same layers and weights with the outputs (probabilities, features).

    The features are what the head gets; its dropout does nothing at inference.

    Raises
    ------
    UserError
        If the model has no layer of the head's name.
    """
    import keras

    if HEAD not in [layer.name for layer in model.layers]:
        raise UserError(f"the model has no layer {HEAD}: it was not trained by `cxr train`")
    features = model.get_layer(HEAD).input
    return keras.Model(model.inputs, [model.outputs[0], features], name=model.name)


def computes_in_float32(model: "keras.Model") -> bool:
    """Return whether no layer computes in a lower precision."""
    return all(layer.compute_dtype in (None, "float32") for layer in model._flatten_layers())


def in_float32(model: "keras.Model") -> "keras.Model":
    """Return the same network computed in float32, whatever the precision it was trained in; weights are copied.

    Every weight is float32 in Keras's mixed policies, so that none is rounded.
    """
    import keras

    from pipeline.cloning import cloned

    def in_full(layer: Any) -> Any:
        if isinstance(layer, keras.Model):
            return cloned(layer, in_full, in_float32=True)
        if not isinstance(layer, keras.layers.Layer):  # an operation; MobileNetV3 has some
            return type(layer).from_config(layer.get_config())
        policy = layer.dtype_policy
        config = layer.get_config()
        if policy.compute_dtype != policy.variable_dtype:
            config["dtype"] = policy.variable_dtype
        return type(layer).from_config(config)

    full = cloned(model, in_full, in_float32=True)
    full.set_weights(model.get_weights())
    _hold_constants(full)
    return full


def _hold_constants(model: Any) -> None:
    """Turn the statistics of Normalization layers into arrays: tensors would become inputs of a converted graph."""
    import keras
    import numpy as np

    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _hold_constants(layer)
        elif isinstance(layer, keras.layers.Normalization):
            layer.mean, layer.variance = (np.asarray(value, np.float32) for value in (layer.mean, layer.variance))
