"""The section of the input gate."""

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.params.types import STRICT, Count, Seed


@dataclass(frozen=True, config=STRICT, kw_only=True)
class GateParams:
    """The input gate (docs/gate.md), fitted by `export` on train and thresholded on val."""

    pass_rate: Annotated[
        float, Field(ge=0.5, lt=1, description="share of validation films that pass all of its detectors, at least")
    ] = 0.99
    flag_rate: Annotated[
        float,
        Field(ge=0.5, lt=1, description="share of made-up bad images flagged, down to which films get more room"),
    ] = 0.99
    films: Annotated[Count, Field(description="training films it is fitted on, at most")] = 1000
    bad_images: Annotated[int, Field(ge=2, le=50, description="bad images made of each of these films")] = 10
    hidden: Annotated[int, Field(ge=4, le=512, description="units of the pattern network's hidden layer")] = 64
    epochs: Annotated[Count, Field(description="passes of its training")] = 25
    components: Annotated[
        int, Field(ge=2, le=512, description="principal components in which the distance is measured")
    ] = 64
    seed: Annotated[Seed, Field(description="of the films taken, the bad images and the network's start")] = 7
