"""The network. It takes uint8 (batch, height, width, 1); channels and normalisation are layers inside it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.model import BACKBONE, HEAD, load_model
from pipeline.params import ModelParams

if TYPE_CHECKING:
    import keras

# Simonyan and Zisserman 2014, as keras.applications.resnet.preprocess_input: blue, green, red, of 0 to 255.
_IMAGENET_MEAN = (103.939, 116.779, 123.68)


def build_model(params: ModelParams, size: int, prevalence: NDArray[np.float64], replicas: int = 1) -> "keras.Model":
    """Build ResNet50 without its top, global average pooling and one sigmoid per finding.

    Parameters
    ----------
    params : ModelParams
        Backbone, weights, dropout.
    size : int
        Pixels a side of the input.
    prevalence : ndarray of shape (n_findings,), dtype=float64
        Share of positives among the known training labels, in (0, 1): the head starts there, so that the first
        steps are not spent on learning that findings are rare (Lin et al. 2017, section 3.3).
    replicas : int
        Devices that train together; with more than one, BatchNormalization is synchronized, because otherwise each
        device keeps moving statistics of its own.

    Returns
    -------
    keras.Model
        From uint8 (batch, size, size, 1) to float32 probabilities (batch, n_findings).

    Raises
    ------
    UserError
        If the weights are missing, are not the published ones, or do not fit.
    """
    import keras

    inputs = keras.Input((size, size, 1), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1.0, dtype="float32", name="to_float")(inputs)
    x = keras.layers.Concatenate(dtype="float32", name="three_channels")([x, x, x])
    x = keras.layers.Normalization(
        mean=_IMAGENET_MEAN, variance=(1.0, 1.0, 1.0), dtype="float32", name="imagenet_mean"
    )(x)
    x = _backbone(params.weights, size, replicas)(x)
    x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pooled")(x)
    if params.dropout:
        x = keras.layers.Dropout(params.dropout, dtype="float32", name="dropout")(x)
    bias = keras.initializers.Constant(np.log(prevalence / (1 - prevalence)).astype(np.float32).tolist())
    outputs = keras.layers.Dense(
        len(prevalence), activation="sigmoid", bias_initializer=bias, dtype="float32", name=HEAD
    )(x)
    return keras.Model(inputs, outputs, name="cxr_resnet50")


def prevalence_of(labels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the share of positives among the known labels of each finding.

    One positive and one negative are added (Laplace's rule of succession), which keeps the share within (0, 1) where
    a finding is always absent or never known.

    Parameters
    ----------
    labels : ndarray of shape (n_images, n_findings), dtype=float32
        1, 0 or NaN.
    """
    known = (~np.isnan(labels)).sum(axis=0)
    return np.asarray((np.nansum(labels, axis=0, dtype=np.float64) + 1) / (known + 2), np.float64)


def _backbone(weights: str, size: int, replicas: int) -> Any:
    import keras

    from pipeline.weights import imagenet_file

    backbone = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(size, size, 3), name=BACKBONE)
    if replicas > 1:
        backbone = keras.models.clone_model(backbone, clone_function=_synchronized)
    if weights == "imagenet":
        backbone.load_weights(imagenet_file("ResNet50"))
    elif weights != "none":
        _load_file(backbone, Path(weights))
    return backbone


def _synchronized(layer: Any) -> Any:
    import keras

    config = layer.get_config()
    if isinstance(layer, keras.layers.BatchNormalization):
        config["synchronized"] = True
    return layer.__class__.from_config(config)


def _load_file(backbone: Any, path: Path) -> None:
    """Take the backbone's weights from a model of ours (.keras) or from a file of weights (.h5, .weights.h5)."""
    if not path.is_file():
        raise UserError(f"model.weights: {path} is not a file; allowed: imagenet, none, or a .keras or .h5 file")
    try:
        if path.suffix == ".keras":
            backbone.set_weights(load_model(path).get_layer(BACKBONE).get_weights())
        else:
            backbone.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        raise UserError(f"model.weights: {path} does not fit ResNet50: {str(error)[:200]}") from None
