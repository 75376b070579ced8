"""The network. It takes uint8 (batch, height, width, 1); channels and normalisation are layers inside it."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.model import BACKBONE, HEAD, load_model
from pipeline.params import FinetuneParams, ModelParams
from pipeline.params.blocks import BLOCKS, require_block
from pipeline.training.backbones import blocks_of, build_application, initialize, normalise, require_size

if TYPE_CHECKING:
    import keras

_PREFIX = "cxr_"
_MOMENTUM = 0.99  # of moving statistics that begin at random weights, at most


def build_model(
    params: ModelParams, size: int, prevalence: NDArray[np.float64], replicas: int = 1, *, fused: bool = False
) -> "keras.Model":
    """Build a backbone without its top, global average pooling and one sigmoid per finding.

    With the same seed (`keras.utils.set_random_seed`) the weights are the same for any `replicas` and `fused`. The
    paths of the backbone's variables begin with "backbone/".

    Parameters
    ----------
    params : ModelParams
        Backbone, weights, initializer, dropout.
    size : int
        Pixels a side of the input, at least 32.
    prevalence : ndarray of shape (n_findings,), dtype=float64
        Share of positives among the known training labels, in (0, 1): the head starts there, so that the first
        steps are not spent on learning that findings are rare (Lin et al. 2017, section 3.3).
    replicas : int
        Devices that train together; with more than one, BatchNormalization is synchronized, because otherwise each
        device keeps moving statistics of its own.
    fused : bool
        Whether the backbone is built of the faster layers of `pipeline.training.fused_norm`; a backbone without
        BatchNormalization (ConvNeXtTiny) stays as it is.

    Returns
    -------
    keras.Model
        From uint8 (batch, size, size, 1) to float32 probabilities (batch, n_findings).

    Raises
    ------
    UserError
        If the images are too small, or the weights are missing, are not the published ones, or do not fit.
    """
    import keras

    require_size(params.backbone, size)
    inputs = keras.Input((size, size, 1), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1.0, dtype="float32", name="to_float")(inputs)
    x = keras.layers.Concatenate(dtype="float32", name="three_channels")([x, x, x])
    x = normalise(params.backbone, x)
    backbone = _backbone(params, size)
    bias = keras.initializers.Constant(np.log(prevalence / (1 - prevalence)).astype(np.float32).tolist())
    head = keras.layers.Dense(
        len(prevalence), activation="sigmoid", bias_initializer=bias, dtype="float32", name=HEAD
    )  # before the backbone is converted, which may use up random numbers
    x = _converted(backbone, replicas, fused)(x)
    x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="pooled")(x)
    if params.dropout:
        x = keras.layers.Dropout(params.dropout, dtype="float32", name="dropout")(x)
    return keras.Model(inputs, head(x), name=_PREFIX + params.backbone.lower())


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


def freeze_backbone(model: "keras.Model") -> None:
    """Let the head alone learn; the whole backbone works as at inference, its moving statistics and dropout too.

    Compile the model afterwards.

    Parameters
    ----------
    model : keras.Model
        Of `build_model`.
    """
    backbone = model.get_layer(BACKBONE)
    for layer in backbone.layers:
        _let_learn(layer, False)
    backbone.trainable = False


def unfreeze(model: "keras.Model", params: FinetuneParams, backbone: str) -> None:
    """Let the head learn, and the backbone from a block on; what is before it works as at inference.

    Compile the model afterwards.

    Parameters
    ----------
    model : keras.Model
        Of `build_model`.
    params : FinetuneParams
        `unfreeze_from`: the first block that learns; empty: all; "none": the backbone stays frozen. `batch_norm`:
        "frozen" keeps BatchNormalization (not LayerNormalization, which has no statistics) of the blocks that learn
        as it is.
    backbone : str
        A key of `pipeline.params.blocks.BLOCKS`.

    Raises
    ------
    ValueError
        If the backbone has no such block.
    """
    require_block(backbone, params.unfreeze_from)
    if params.unfreeze_from == "none":
        freeze_backbone(model)
        return
    network = model.get_layer(BACKBONE)
    network.trainable = True
    order = BLOCKS[backbone]
    learning = order[order.index(params.unfreeze_from or order[0]) :]
    block = blocks_of(backbone, network)
    for layer in network.layers:
        kept = params.batch_norm == "frozen" and _has_statistics(layer)
        _let_learn(layer, block[layer.name] in learning and not kept)


def _let_learn(layer: Any, learns: bool) -> None:
    """Set whether a layer learns; Keras' dropout goes on in a layer that does not, so its rate becomes 0 there."""
    import keras

    layer.trainable = learns
    if isinstance(layer, keras.layers.Dropout):
        if not hasattr(layer, "rate_when_learning"):
            layer.rate_when_learning = layer.rate
        layer.rate = layer.rate_when_learning if learns else 0.0


def _has_statistics(layer: Any) -> bool:
    """Return whether a layer is BatchNormalization, Keras' own or the fused one."""
    return hasattr(layer, "moving_mean")


def _backbone(params: ModelParams, size: int) -> "keras.Model":
    """Return the network of `keras.applications` with the weights to start from."""
    import keras

    path = _file(params)
    with keras.name_scope(BACKBONE):
        stock = build_application(params.backbone, size)
    if path is not None:
        _load(stock, params.backbone, path)
    else:
        initialize(stock, params.initializer)
        _follow(stock)
    return keras.Model(stock.input, stock.output, name=BACKBONE)  # EfficientNetV2 takes no name of ours


def _follow(network: "keras.Model") -> None:
    """Let moving statistics forget where they began within some hundred steps, as those of ResNet50 do.

    With the momentum of MobileNetV3, 0.999, a tenth of the initial variance of 1 is left after 2,400 steps: a small
    set's training would end with features that are nearly 0, and a validation AUC of 0.5.
    """
    for layer in network.layers:
        if _has_statistics(layer):
            layer.momentum = min(layer.momentum, _MOMENTUM)


def _converted(backbone: "keras.Model", replicas: int, fused: bool) -> "keras.Model":
    """Return the backbone of fused layers, or of synchronized ones, or as it is; the weights are the same."""
    import keras

    if not any(_has_statistics(layer) for layer in backbone.layers) or not (fused or replicas > 1):
        return backbone
    with keras.name_scope(BACKBONE):
        if fused:
            from pipeline.training.fused_norm import fuse

            return fuse(backbone, synchronized=replicas > 1)
        clone = keras.models.clone_model(backbone, clone_function=_synchronized)
    clone.set_weights(backbone.get_weights())
    return clone


def _synchronized(layer: Any) -> Any:
    import keras

    config = layer.get_config()
    if isinstance(layer, keras.layers.BatchNormalization):
        config["synchronized"] = True
    return layer.__class__.from_config(config)


def _file(params: ModelParams) -> Path | None:
    """Return the file of the weights, which is there; None: they are random."""
    from pipeline.weights import imagenet_file

    if params.weights == "none":
        return None
    if params.weights == "imagenet":
        return imagenet_file(params.backbone)
    path = Path(params.weights)
    if not path.is_file():
        raise UserError(f"model.weights: {path} is not a file; allowed: imagenet, none, or a .keras or .h5 file")
    return path


def _load(network: Any, backbone: str, path: Path) -> None:
    """Take the backbone's weights from a model of ours (.keras) or from a file of weights (.h5, .weights.h5)."""
    try:
        if path.suffix == ".keras":
            model = load_model(path)
            if model.name.startswith(_PREFIX) and model.name != _PREFIX + backbone.lower():
                raise ValueError(f"it holds {model.name.removeprefix(_PREFIX)}; set model.backbone to that")
            network.set_weights(model.get_layer(BACKBONE).get_weights())
        else:
            with warnings.catch_warnings():  # Keras only warns when it leaves layers at random weights
                warnings.filterwarnings("error", "Skipping nested container")
                network.load_weights(path)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        reason = "its layers are others" if isinstance(error, UserWarning) else " ".join(str(error).split())[:200]
        raise UserError(f"model.weights: {path} does not fit {backbone}: {reason}") from None
