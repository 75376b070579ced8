"""The blocks of the backbones, from the image to the features: what `finetune.unfreeze_from` can name."""

_CONV = tuple(f"conv{number}" for number in range(1, 6))
BLOCKS: dict[str, tuple[str, ...]] = {
    "ResNet50": _CONV,  # He et al. 2016, table 1
    "DenseNet121": _CONV,  # Huang et al. 2017, table 1; each with the transition behind it
    "EfficientNetV2B0": ("stem", *(f"block{number}" for number in range(1, 7)), "top"),
    "MobileNetV3Small": ("stem", *(f"block{number}" for number in range(11)), "top"),  # Keras' expanded_conv_N
    "MobileNetV3Large": ("stem", *(f"block{number}" for number in range(15)), "top"),
    "ConvNeXtTiny": ("stem", *(f"stage{number}" for number in range(4))),  # each with the downsampling before it
}


def require_block(backbone: str, unfreeze_from: str) -> None:
    """Check that a backbone can be unfrozen from a block.

    Parameters
    ----------
    backbone : str
        A key of `BLOCKS`.
    unfreeze_from : str
        The first block that learns; empty: all; "none": none.

    Raises
    ------
    ValueError
        If the backbone has no such block.
    """
    if unfreeze_from not in ("", "none", *BLOCKS[backbone]):
        raise ValueError(
            f"finetune.unfreeze_from is {unfreeze_from}, and {backbone} has no such block; allowed: "
            f"{', '.join(BLOCKS[backbone])}, none (no block learns) or empty (all learn)"
        )
