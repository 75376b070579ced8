"""The sections that say what is exported, how near it must be, and how a smaller model is made."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.params.training import Backbone
from pipeline.params.types import STRICT, Count, Fraction, Positive, Seed

Format = Literal["saved_model", "float16", "int8", "onnx"]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ExportParams:
    """What `cxr export` writes, and how near it must be to the Keras model on validation images (docs/export.md)."""

    formats: Annotated[
        list[Format], Field(min_length=1, description="saved_model, float16 and int8 (LiteRT), onnx")
    ] = field(default_factory=lambda: ["saved_model", "float16", "int8", "onnx"])
    representative_images: Annotated[
        Count, Field(le=100_000, description="int8: training images that set the ranges of its numbers")
    ] = 200
    seed: Annotated[Seed, Field(description="of the choice of images")] = 7
    parity_images: Annotated[
        Count, Field(description="validation images that are compared, of whole patients; fewer if there are fewer")
    ] = 2000
    float_tolerance: Annotated[
        Fraction, Field(description="saved_model, onnx: largest difference of a probability")
    ] = 1.0e-4
    float16_tolerance: Annotated[Fraction, Field(description="float16: largest difference of a probability")] = 0.01
    int8_tolerance: Annotated[Fraction, Field(description="int8: largest difference of a probability")] = 0.1
    auc_loss: Annotated[Fraction, Field(description="int8: largest loss of mean AUC on the images compared")] = 0.005

    def __post_init__(self) -> None:
        if len(set(self.formats)) != len(self.formats):
            raise ValueError(f"formats is {self.formats}; name each once")

    def tolerance(self, name: str) -> float:
        """Return the largest difference of a probability that a format may have."""
        return {"float16": self.float16_tolerance, "int8": self.int8_tolerance}.get(name, self.float_tolerance)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class DistillParams:
    """The student of `cxr distill`; what is not here is as in training (docs/export.md)."""

    backbone: Annotated[Backbone, Field(description="of the student, from keras.applications")] = "MobileNetV3Small"
    weights: Annotated[
        str, Field(min_length=1, description="none, imagenet (checked by hash), or a .keras / .weights.h5 file")
    ] = "none"
    temperature: Annotated[
        float, Field(gt=0, le=100, description="softens both outputs (Hinton et al. 2015); 1 does not")
    ] = 2.0
    hard: Annotated[Fraction, Field(description="share of the loss on labels; the rest is on the teacher")] = 0.3
    epochs: Annotated[Count, Field(description="of the student")] = 20
    learning_rate: Annotated[Positive, Field(description="the highest")] = 2.0e-3


@dataclass(frozen=True, config=STRICT, kw_only=True)
class PruneParams:
    """The fine-tuning of `cxr prune` (Zhu and Gupta 2017); what is not here is as in training (docs/export.md)."""

    sparsity: Annotated[float, Field(gt=0, lt=1, description="share of zeros at the end, of each kernel")] = 0.8
    epochs: Annotated[Count, Field(description="of the fine-tuning")] = 5
    learning_rate: Annotated[Positive, Field(description="the highest")] = 1.0e-4
    begin: Annotated[Fraction, Field(description="share of the steps before the first weight is pruned")] = 0.0
    end: Annotated[Fraction, Field(description="share of the steps after which no more weights are pruned")] = 0.6
    every: Annotated[Count, Field(description="steps between two raises of the sparsity")] = 20

    def __post_init__(self) -> None:
        if not self.begin < self.end:
            raise ValueError(f"begin is {self.begin:g} and end {self.end:g}; begin must lie before end")
