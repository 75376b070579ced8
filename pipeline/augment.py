"""Random changes of the training images, with albumentations; validation and test images never come here."""

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.images import Image
from pipeline.params import AugmentParams

Augment = Callable[[int, NDArray[np.integer], Image], Image]


def build_augment(params: AugmentParams, seed: int) -> Augment:
    """Return a function that changes a batch of images.

    Parameters
    ----------
    params : AugmentParams
        Ranges.
    seed : int
        Together with epoch and row it decides each image's change, whatever the order of the images.

    Returns
    -------
    callable
        From epoch, rows (shape (batch,)) and images (uint8, shape (batch, height, width, 1)) to images of the same
        shape. Safe for several threads: albumentations keeps its generator in the transform, so that seeding and
        applying it are done under a lock.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network at import
    from albumentations import Affine, Compose, HorizontalFlip, RandomBrightnessContrast

    spatial = Affine(
        rotate=(-params.rotate, params.rotate),
        translate_percent=(-params.shift, params.shift),
        scale=(1 - params.scale, 1 + params.scale),
        p=1.0,
    )
    contrast = RandomBrightnessContrast(
        brightness_limit=(-params.brightness, params.brightness),
        contrast_limit=(-params.contrast, params.contrast),
        p=1.0,
    )
    steps = [spatial, *_detail(params), contrast, HorizontalFlip(p=params.horizontal_flip)]
    pipeline = Compose(steps, seed=seed)

    lock = threading.Lock()

    def augment(epoch: int, rows: NDArray[np.integer], images: Image) -> Image:
        changed = np.empty_like(images)
        for position, row in enumerate(rows):
            state = np.random.SeedSequence([seed, int(epoch), int(row)]).generate_state(1)
            with lock:  # tf.data may call from several threads; the lock costs nothing, Python runs one at a time
                pipeline.set_random_seed(int(state[0]))
                changed[position, :, :, 0] = pipeline(image=images[position, :, :, 0])["image"]
        return changed

    return augment


def _detail(params: AugmentParams) -> list[Any]:
    """Return what softens and sharpens, each every second image; nothing where the parameters are 0."""
    from albumentations import GaussianBlur, UnsharpMask

    steps: list[Any] = []
    if params.blur > 0:
        steps.append(GaussianBlur(sigma_limit=(0.0, params.blur), p=0.5))
    if params.sharpen > 0:
        steps.append(UnsharpMask((7, 7), sigma_limit=(1.0, 1.0), alpha=(0.0, params.sharpen), threshold=0, p=0.5))
    return steps
