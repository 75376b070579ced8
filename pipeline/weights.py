"""ImageNet weights: from the cache or from where Keras publishes them, never without the published hash."""

import hashlib
import os
from pathlib import Path

from pipeline.errors import UserError
from pipeline.progress import note

_TIMEOUT_SECONDS = 30
# The files without the top, as `keras.applications` names them; here, because whoever asks where a file lies does not
# want to import Keras.
_NAMES = {
    "ResNet50": "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "DenseNet121": "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "EfficientNetV2B0": "efficientnetv2-b0_notop.h5",
    "MobileNetV3Small": "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
    "MobileNetV3Large": "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
    "ConvNeXtTiny": "convnext_tiny_notop.h5",
}


def imagenet_path(backbone: str) -> Path:
    """Return where the file of ImageNet weights of a backbone lies, or would lie: where Keras keeps it."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models" / _NAMES[backbone]


def imagenet_file(backbone: str) -> Path:
    """Return the checked file of ImageNet weights without the top.

    The address and the hash are those of `keras.applications` (there called `WEIGHTS_HASHES`, MD5); the file lies
    where Keras itself keeps it, so that one downloaded by hand or by another program is used.

    Raises
    ------
    UserError
        If the file is absent and cannot be fetched, or is not the published one; says where to put it.
    """
    address, published = published_at(backbone)
    path = imagenet_path(backbone)
    if not path.is_file():
        note(f"fetching {path.name}")
        try:
            _fetch(address, path.name, published)
        except Exception as error:  # Keras raises nothing more precise when it is offline
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"the ImageNet weights are not in the cache and could not be fetched ({reason}): put {path.name} "
                f"(MD5 {published}) from {address} at {path}, or set model.weights to none or to a file"
            ) from None
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if found != published:
        raise UserError(
            f"{path} is not the published file: MD5 {found}, published {published}; remove it and run again, "
            "or put the right one there"
        )
    return path


def published_at(backbone: str) -> tuple[str, str]:
    """Return address and MD5 of the ImageNet weights without the top, as `keras.applications` has them."""
    from keras.src.applications import convnext, densenet, efficientnet_v2, mobilenet_v3, resnet

    folder, md5 = {
        "ResNet50": (resnet.BASE_WEIGHTS_PATH, resnet.WEIGHTS_HASHES["resnet50"][1]),
        # Keras has this one in the middle of a function.
        "DenseNet121": (densenet.BASE_WEIGHTS_PATH, "30ee3e1110167f948a6b9946edeeb738"),
        "EfficientNetV2B0": (
            efficientnet_v2.BASE_WEIGHTS_PATH,
            efficientnet_v2.WEIGHTS_HASHES["b0"][1],
        ),
        "MobileNetV3Small": (mobilenet_v3.BASE_WEIGHT_PATH, mobilenet_v3.WEIGHTS_HASHES["small_224_1.0_float"][1]),
        "MobileNetV3Large": (mobilenet_v3.BASE_WEIGHT_PATH, mobilenet_v3.WEIGHTS_HASHES["large_224_1.0_float"][1]),
        "ConvNeXtTiny": (convnext.BASE_WEIGHTS_PATH, convnext.WEIGHTS_HASHES["convnext_tiny"][1]),
    }[backbone]
    return folder + _NAMES[backbone], md5


def _fetch(address: str, name: str, published: str) -> None:
    import socket

    import keras

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)  # Keras' own download has none and would hang behind a firewall
    try:
        keras.utils.get_file(name, address, cache_subdir="models", file_hash=published)
    finally:
        socket.setdefaulttimeout(before)
