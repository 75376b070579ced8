"""Grad-CAM, or LayerCAM: which places of an image raise the model's output for a finding.

Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", ICCV 2017; for
layers before the last Jiang et al., "LayerCAM: exploring hierarchical class activation maps for localization", IEEE
Transactions on Image Processing 2021;30:5875-5888.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.heat_maps import Map

if TYPE_CHECKING:
    import keras

METHODS = ("Grad-CAM", "LayerCAM")
_PLACES = 7  # a side: what the last layer of VGG or ResNet has at 224 pixels (Selvaraju et al., section 3)
_PAIRS = 64  # maps at a time


@dataclass(frozen=True)
class Explainer:
    """A model prepared for its maps.

    Attributes
    ----------
    n_findings : int
        Outputs of the model.
    layer : str
        Whose output is explained.
    method : {'Grad-CAM', 'LayerCAM'}
        How the layer's feature maps are weighed; see `build_explainer`.
    features : callable
        From images to the layer's output, as tensors.
    maps : callable
        From that output, (n, h', w', channels), and a finding for each, (n,), to maps, (n, h', w').
    """

    n_findings: int
    layer: str
    method: str
    features: Callable[[Any], Any]
    maps: Callable[[Any, Any], Any]

    def __call__(self, images: NDArray[np.uint8], findings: Sequence[int] | None = None) -> Map:
        """Return the maps of a batch for some findings.

        Parameters
        ----------
        images : ndarray of shape (n, height, width, 1), dtype=uint8
            What the network takes; all are in memory at once, so give a batch, not a split.
        findings : sequence of int or None
            Positions of the wanted findings among the model's outputs; None: all.

        Returns
        -------
        ndarray of shape (n, h', w', k), dtype=float32
            See `pairs`.
        """
        wanted = np.arange(self.n_findings) if findings is None else np.asarray(findings, np.int32)
        maps = self.pairs(images, np.repeat(np.arange(len(images)), len(wanted)), np.tile(wanted, len(images)))
        return np.moveaxis(maps.reshape(len(images), len(wanted), *maps.shape[1:]), 1, -1)

    def pairs(self, images: NDArray[np.uint8], rows: NDArray[Any], findings: NDArray[Any]) -> Map:
        """Return the maps of pairs of an image and a finding; each image passes through the network once.

        Parameters
        ----------
        images : ndarray of shape (n, height, width, 1), dtype=uint8
            A batch.
        rows, findings : ndarray of shape (n_pairs,), dtype=int
            Positions in `images` and among the model's outputs.

        Returns
        -------
        ndarray of shape (n_pairs, h', w'), dtype=float32
            ReLU of the weighted sum of the feature maps, at least 0, in no unit: only within one map can values be
            compared. A map without a value above 0 says that no place raises this output (see `is_flat`).
        """
        import tensorflow as tf

        features = self.features(tf.constant(images))
        chunks = range(0, len(rows), _PAIRS)
        done = [
            self.maps(
                tf.gather(features, rows[k : k + _PAIRS]), tf.constant(findings[k : k + _PAIRS], tf.int32)
            ).numpy()
            for k in chunks
        ]
        return np.concatenate(done) if done else np.zeros((0, *features.shape[1:3]), np.float32)


def build_explainer(model: "keras.Model", layer: str | None = None, method: str | None = None) -> Explainer:
    """Prepare a model for its maps.

    At the end of the backbone the map is Grad-CAM: the weight of a feature map is the mean over its places of the
    gradient of the logit (Selvaraju et al., equation 1), and the map is the ReLU of the weighted sum (equation 2). A
    layer within the backbone still has layers behind it that tell places apart, and the mean over all places loses
    what they say; there the map is LayerCAM: each place of a feature map is weighed by the ReLU of its own gradient
    (Jiang et al., equations 5 to 7). docs/localisation.md has what the difference is worth.

    The gradient is the logit's, not the sigmoid's: where the output is near 0 or 1 the sigmoid's vanishes. With global
    average pooling and one dense layer Grad-CAM's weights are the dense layer's divided by the number of places (their
    section 3.1); the gradient is taken all the same, so that other heads are explained too.

    Parameters
    ----------
    model : keras.Model
        Of `pipeline.training.network.build_model`, or any functional model from images to a last Dense layer.
    layer : str or None
        Whose output is explained: the nested backbone, or a layer within it. None: the last one that still has 7
        places a side, as the paper's networks have; deeper maps of a small image say next to nothing about places.
    method : {'Grad-CAM', 'LayerCAM'} or None
        None: what is said above.

    Raises
    ------
    UserError
        If the model does not end in a Dense layer, or has no such layer.
    """
    import tensorflow as tf

    name, front, tail, last = _split(model, layer)
    chosen = method or (METHODS[0] if name in {each.name for each in model.layers} else METHODS[1])
    signature = [tf.TensorSpec(tail.inputs[0].shape, tf.float32), tf.TensorSpec([None], tf.int32)]

    @tf.function(input_signature=[tf.TensorSpec(model.inputs[0].shape, tf.uint8)])  # type: ignore[untyped-decorator]
    def features(images: Any) -> Any:
        return tf.cast(front(images, training=False), tf.float32)

    @tf.function(input_signature=signature)  # type: ignore[untyped-decorator]
    def maps(found: Any, findings: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(found)
            pooled = tf.cast(tail(found, training=False), tf.float32)
            logits = tf.reduce_sum(pooled * tf.gather(tf.transpose(last.kernel), findings), axis=1)
        # The images do not touch each other at inference, so this is the gradient of each one's own logit.
        slopes = tape.gradient(logits, found)
        placewise = chosen == METHODS[1]
        weights = tf.nn.relu(slopes) if placewise else tf.reduce_mean(slopes, axis=(1, 2), keepdims=True)
        return _between(tf.nn.relu(tf.reduce_sum(weights * found, axis=-1)))

    return Explainer(int(last.units), name, chosen, features, maps)


def _between(maps: Any) -> Any:
    """Interpolate maps, (n, h', w'), that are 0 at every second row and column; others stay as they are.

    ResNet's strided convolutions of one pixel read every second place of the layer before them, so that the others
    have no gradient. Between the places that have one the map is bilinear, and its maximum stays where it was.
    """
    import tensorflow as tf

    lattice = tf.reduce_all(maps[:, 1::2] == 0) & tf.reduce_all(maps[:, :, 1::2] == 0)
    line = tf.constant([0.5, 1.0, 0.5])
    kernel = (line[:, None] * line)[:, :, None, None]
    return tf.where(lattice, tf.nn.conv2d(maps[..., None], kernel, 1, "SAME")[..., 0], maps)


def _split(model: Any, layer: str | None) -> tuple[str, Any, Any, Any]:
    """Cut the model at a layer: its name, what is up to it, what is from there to the last layer, and that."""
    import keras

    last = model.layers[-1]
    places = [k for k, each in enumerate(model.layers) if len(each.output.shape) == 4]
    if not isinstance(last, keras.layers.Dense) or not places or places[-1] + 2 > len(model.layers):
        raise UserError(
            f"the model ends in {type(last).__name__}: Grad-CAM needs feature maps, a pooling and a last Dense layer"
        )
    backbone = model.layers[places[-1]]
    behind = model.layers[places[-1] + 1].input  # the nested backbone's own `output` lies inside it
    head = keras.Model(behind, last.input)
    nested = isinstance(backbone, keras.Model)
    if layer == backbone.name or (layer is None and (not nested or _side(behind) >= _PLACES)):
        return backbone.name, keras.Model(model.input, behind), head, last
    name, upto, beyond = _inside(backbone, layer)
    images, maps = keras.Input(model.inputs[0].shape[1:], dtype="uint8"), keras.Input(beyond.inputs[0].shape[1:])
    before = keras.Model(model.input, model.layers[places[-1] - 1].output)
    return name, keras.Model(images, upto(before(images))), keras.Model(maps, head(beyond(maps))), last


def _inside(backbone: Any, layer: str | None) -> tuple[str, Any, Any]:
    """Cut the backbone at a layer, or at the last one with places enough: its name, what is up to it, what follows."""
    import keras

    inner = [each for each in getattr(backbone, "layers", []) if len(each.output.shape) == 4]
    for each in reversed(inner):
        if each.name == layer or (layer is None and _side(each.output) >= _PLACES):
            try:
                return each.name, keras.Model(backbone.input, each.output), keras.Model(each.output, backbone.output)
            except ValueError:  # within a residual block, where another path leads past the layer
                continue
    raise UserError(f"the model cannot be cut at a layer {layer!r} of feature maps; at {backbone.name} it can")


def _side(tensor: Any) -> int:
    return int(min(tensor.shape[1:3]))
