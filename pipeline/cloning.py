"""A functional model once more, layer by layer: under the same names, each layer as a function makes it."""

from collections.abc import Callable
from typing import Any

import keras


def cloned(model: keras.Model, function: Callable[[Any], Any], *, in_float32: bool = False) -> keras.Model:
    """Return a model of the same graph; it is not compiled and has weights of its own.

    Parameters
    ----------
    model : keras.Model
        Functional or Sequential, with one input.
    function : callable
        From a layer to the one that takes its place. Models within the model and bare operations are given to it too.
    in_float32 : bool
        Whether an input of a lower precision becomes float32: a model casts what it is given to the type of its input,
        and one that was built within another in mixed precision has an input of that precision.
    """
    (tensor,) = model.inputs
    low = in_float32 and tensor.dtype in ("bfloat16", "float16")
    name = tensor._keras_history.operation.name  # left to itself, Keras names new inputs as it likes
    entrance = keras.Input(batch_shape=tensor.shape, dtype="float32" if low else tensor.dtype, name=name)
    # Keras compiles a clone as its origin was, with an optimizer for it: three times the weights, in the file too.
    # `inputs` and `outputs` are of the model's own graph; `input` of a Sequential is of the one in which it stands.
    outputs = model.outputs[0] if len(model.outputs) == 1 else model.outputs
    bare = keras.Model(tensor, outputs, name=model.name)
    return keras.models.clone_model(bare, input_tensors=entrance, clone_function=function)
