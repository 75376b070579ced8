"""ImageNet weights: from the cache or from where Keras publishes them, never without the published hash."""

import hashlib
import os
from pathlib import Path

from pipeline.errors import UserError
from pipeline.progress import note

_TIMEOUT_SECONDS = 30
_NAME = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"


def imagenet_path() -> Path:
    """Return where the file of ImageNet weights lies, or would lie: where Keras keeps it."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models" / _NAME


def imagenet_file(backbone: str) -> Path:
    """Return the checked file of ImageNet weights without the top.

    The address and the hash are those of `keras.applications` (there called `WEIGHTS_HASHES`, MD5); the file lies
    where Keras itself keeps it, so that one downloaded by hand or by another program is used.

    Raises
    ------
    UserError
        If the file is absent and cannot be fetched, or is not the published one; says where to put it.
    """
    from keras.src.applications import resnet

    assert backbone == "ResNet50"  # the only one that the parameters allow
    address = resnet.BASE_WEIGHTS_PATH + _NAME
    published = resnet.WEIGHTS_HASHES["resnet50"][1]
    path = imagenet_path()
    if not path.is_file():
        note(f"fetching {_NAME}")
        try:
            _fetch(address, _NAME, published)
        except Exception as error:  # Keras raises nothing more precise when it is offline
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"the ImageNet weights are not in the cache and could not be fetched ({reason}): put {_NAME} "
                f"(MD5 {published}) from {address} at {path}, or set model.weights to none or to a file"
            ) from None
    found = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if found != published:
        raise UserError(
            f"{path} is not the published file: MD5 {found}, published {published}; remove it and run again, "
            "or put the right one there"
        )
    return path


def _fetch(address: str, name: str, published: str) -> None:
    import socket

    import keras

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)  # Keras' own download has none and would hang behind a firewall
    try:
        keras.utils.get_file(name, address, cache_subdir="models", file_hash=published)
    finally:
        socket.setdefaulttimeout(before)
