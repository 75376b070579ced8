"""The sections that say how the network is built and fitted."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from pipeline.params.blocks import require_block
from pipeline.params.types import STRICT, Count, Fraction, Positive, Seed, refuse_unread

Backbone = Literal[
    "ResNet50", "DenseNet121", "EfficientNetV2B0", "MobileNetV3Small", "MobileNetV3Large", "ConvNeXtTiny"
]
Initializer = Literal["default", "he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "lecun_normal"]
Cluster = Literal["none", "tf_config", "ray"]

# Which key is read by which choice; a changed key that nothing reads is refused.
_LOSS_READERS = {
    "alpha": ("focal",),
    "gamma": ("focal",),
    "gamma_positive": ("asymmetric",),
    "gamma_negative": ("asymmetric",),
    "clip": ("asymmetric",),
}
_SCHEDULE_READERS = {
    "warmup_epochs": ("cosine", "exponential", "step", "multi_step", "constant"),
    "factor": ("plateau", "exponential", "step", "multi_step"),
    "patience": ("plateau",),
    "every": ("step",),
    "milestones": ("multi_step",),
    "final": ("cosine",),
}
_OPTIMIZER_READERS = {"momentum": ("sgd",), "weight_decay": ("adamw", "sgd")}


@dataclass(frozen=True, config=STRICT, kw_only=True)
class AugmentParams:
    """albumentations on the training images only. No flip by default: the heart lies left."""

    enabled: Annotated[bool, Field(description="false trains on the images as they are")] = True
    rotate: Annotated[float, Field(ge=0, le=45, description="degrees, to either side")] = 7.0
    shift: Annotated[float, Field(ge=0, le=0.5, description="share of the side, in each direction")] = 0.04
    scale: Annotated[float, Field(ge=0, le=0.5, description="zoom in or out by up to this share")] = 0.08
    brightness: Annotated[Fraction, Field(description="change by up to this share")] = 0.1
    contrast: Annotated[Fraction, Field(description="change by up to this share")] = 0.1
    blur: Annotated[
        float, Field(ge=0, le=10, description="soften every second image by a Gaussian of up to so many pixels")
    ] = 0.0
    sharpen: Annotated[
        Fraction, Field(description="sharpen every second image, its detail to up to 1 + sharpen times")
    ] = 0.0
    horizontal_flip: Annotated[Fraction, Field(description="probability of a mirror image")] = 0.0
    mixup: Annotated[
        float, Field(ge=0, le=4, description="mix pairs of a batch, weights from Beta(mixup, mixup); 0 does not")
    ] = 0.0


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ModelParams:
    """The network."""

    backbone: Annotated[Backbone, Field(description="from keras.applications")] = "ResNet50"
    weights: Annotated[
        str,
        Field(min_length=1, description="imagenet (checked by hash), none, or a .keras / .weights.h5 file"),
    ] = "imagenet"
    initializer: Annotated[
        Initializer, Field(description="weights none: of the convolutions; default is the backbone's own")
    ] = "default"
    dropout: Annotated[float, Field(ge=0, lt=1, description="on the pooled features")] = 0.0

    def __post_init__(self) -> None:
        if self.initializer != "default" and self.weights != "none":
            raise ValueError(
                f"initializer is {self.initializer}, and weights is {self.weights}, which replaces it; set initializer "
                "to default, or weights to none"
            )


@dataclass(frozen=True, config=STRICT, kw_only=True)
class LossParams:
    """What is minimised; an unknown label adds nothing to it."""

    name: Annotated[
        Literal["focal", "binary_crossentropy", "asymmetric"],
        Field(description="focal (Lin et al. 2017), binary_crossentropy or asymmetric (Ridnik et al. 2021)"),
    ] = "focal"
    alpha: Annotated[Fraction, Field(gt=0, description="focal: the same factor for both classes")] = 0.25
    gamma: Annotated[float, Field(ge=0, le=10, description="focal: 0 is cross-entropy")] = 2.0
    gamma_positive: Annotated[float, Field(ge=0, le=10, description="asymmetric: exponent for positives")] = 0.0
    gamma_negative: Annotated[float, Field(ge=0, le=10, description="asymmetric: exponent for negatives")] = 4.0
    clip: Annotated[
        float, Field(ge=0, lt=1, description="asymmetric: negatives below this probability add nothing")
    ] = 0.05
    class_weights: Annotated[
        Literal["none", "balanced"],
        Field(description="balanced: positives and negatives of each finding weigh the same in all"),
    ] = "none"
    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="0.1 makes the labels 0.05 and 0.95 (Szegedy et al. 2016)")
    ] = 0.0

    def __post_init__(self) -> None:
        refuse_unread(self, "name", _LOSS_READERS)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class OptimizerParams:
    """Who minimises it, and what holds the weights back."""

    name: Annotated[Literal["adam", "adamw", "sgd"], Field(description="adam, adamw or sgd")] = "adam"
    learning_rate: Annotated[Positive, Field(description="the highest; the schedule changes it")] = 1.0e-4
    reference_batch: Annotated[
        int,
        Field(ge=0, description="above 0: the rate is for that batch, and grows with train.batch_size (Goyal 2017)"),
    ] = 0
    momentum: Annotated[float, Field(ge=0, lt=1, description="sgd: Nesterov's")] = 0.9
    weight_decay: Annotated[
        float, Field(ge=0, lt=1, description="adamw and sgd: decoupled, of the kernels alone (Loshchilov 2019)")
    ] = 0.0
    l1: Annotated[
        float, Field(ge=0, lt=1, description="times the sum of the kernels' absolute values, to the loss")
    ] = 0.0
    l2: Annotated[float, Field(ge=0, lt=1, description="times the sum of the kernels' squares, to the loss")] = 0.0
    clip_norm: Annotated[float, Field(ge=0, description="longest gradient of all weights together; 0: any")] = 0.0
    ema: Annotated[
        float, Field(ge=0, lt=1, description="decay of a moving mean of the weights, which is the model; 0: none")
    ] = 0.0

    def __post_init__(self) -> None:
        refuse_unread(self, "name", _OPTIMIZER_READERS)
        if self.l2 and self.weight_decay:
            raise ValueError(
                f"l2 is {self.l2} and weight_decay is {self.weight_decay}: both shrink the weights; set one to 0"
            )


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ScheduleParams:
    """How the learning rate goes over the epochs."""

    name: Annotated[
        Literal["cosine", "plateau", "exponential", "step", "multi_step", "constant"],
        Field(
            description="cosine, plateau (when validation AUC stands still), exponential, step, multi_step, constant"
        ),
    ] = "cosine"
    warmup_epochs: Annotated[
        float, Field(ge=0, le=1000, description="the rate rises from 0 over these; not with plateau")
    ] = 1.0
    final: Annotated[Fraction, Field(description="cosine: share of the rate at the end")] = 0.0
    factor: Annotated[
        float, Field(gt=0, lt=1, description="plateau, step, multi_step: at each step; exponential: at each epoch")
    ] = 0.1
    patience: Annotated[Count, Field(description="plateau: epochs without a better validation AUC")] = 2
    every: Annotated[Count, Field(description="step: epochs")] = 5
    milestones: Annotated[
        list[Annotated[int, Field(ge=1)]], Field(description="multi_step: epochs after which the rate falls")
    ] = field(default_factory=list)

    def __post_init__(self) -> None:
        refuse_unread(self, "name", _SCHEDULE_READERS)
        if sorted(set(self.milestones)) != self.milestones:
            raise ValueError(f"milestones is {self.milestones}; epochs in rising order are needed, as [10, 15]")
        if self.name == "multi_step" and not self.milestones:
            raise ValueError("milestones is empty, and name is multi_step; give the epochs, as [10, 15]")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class FinetuneParams:
    """How pretrained weights are fitted: the head first, then the backbone. Not read when model.weights is none."""

    head_epochs: Annotated[
        int, Field(ge=0, description="epochs of the head alone, before train.epochs; 0: all at once")
    ] = 5
    head_learning_rate: Annotated[Positive, Field(description="of the head alone, constant")] = 1.0e-3
    head_augment: Annotated[
        bool,
        Field(description="false: the frozen backbone's features are computed once, and the head learns from them"),
    ] = False
    unfreeze_from: Annotated[
        str,
        Field(
            max_length=50, description="first block of the backbone that learns, such as conv4; empty: all; none: none"
        ),
    ] = ""
    backbone_rate: Annotated[
        Fraction, Field(gt=0, description="the backbone's learning rate, as a share of the head's")
    ] = 0.1
    batch_norm: Annotated[
        Literal["frozen", "trained"],
        Field(description="of the blocks that learn; frozen keeps the pretrained statistics"),
    ] = "frozen"

    def check(self, backbone: str) -> None:
        """Refuse a block that the backbone does not have, and phases in which nothing learns."""
        require_block(backbone, self.unfreeze_from)
        if self.unfreeze_from == "none" and not self.head_epochs:
            raise ValueError(
                "finetune.unfreeze_from is none and head_epochs is 0: nothing would be trained; set head_epochs to 1 "
                "or more, or name a block"
            )


@dataclass(frozen=True, config=STRICT, kw_only=True)
class TrainParams:
    """How long, in what order and on what the network is fitted."""

    seed: Annotated[Seed, Field(description="weights, order and augmentation")] = 7
    epochs: Annotated[Count, Field(description="at most; early stopping may end sooner")] = 20
    batch_size: Annotated[Count, Field(description="images a step over all devices together")] = 32
    sampling: Annotated[
        Literal["shuffled", "balanced"],
        Field(description="shuffled: each image once an epoch; balanced: images of rare findings more often"),
    ] = "shuffled"
    stop_patience: Annotated[Count, Field(description="epochs without a better validation AUC, then stop")] = 5
    precision: Annotated[
        Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"],
        Field(description="Keras dtype policy; auto takes the one that pays on the machine and records it"),
    ] = "float32"
    xla: Annotated[bool, Field(description="compile the step with XLA; on GPUs alone, processors become slower")] = (
        False
    )
    fused: Annotated[
        bool, Field(description="TensorFlow's fused BatchNormalization while training; the saved model is the same")
    ] = True
    deterministic: Annotated[bool, Field(description="the same seed, the same numbers; slower on GPUs")] = True
    hold: Annotated[
        Literal["auto", "memory", "disk"],
        Field(description="where the images lie while training; auto: in memory if a quarter of it is enough"),
    ] = "auto"
    auc_images: Annotated[Count, Field(description="training images, fixed and not augmented, for the train AUC")] = 512
    repeats: Annotated[
        int, Field(ge=1, le=50, description="trainings with the seeds seed, seed+1, …; the first is the model")
    ] = 1
    cluster: Annotated[
        Cluster,
        Field(description="none: this machine; tf_config: one of several workers (docs/cluster.md); ray: Ray Train"),
    ] = "none"
    workers: Annotated[int, Field(ge=0, le=1000, description="ray: how many")] = 0
    address: Annotated[str, Field(max_length=300, description="ray: the cluster's; empty: one of this machine")] = ""

    def __post_init__(self) -> None:
        refuse_unread(self, "cluster", {"workers": ("ray",), "address": ("ray",)})
        if self.cluster == "ray" and not self.workers:
            raise ValueError("workers is 0, and cluster is ray; say how many workers")
        if self.cluster != "none" and self.repeats > 1:
            raise ValueError(
                f"repeats is {self.repeats}, and cluster is {self.cluster}; train one seed at a time there"
            )
        if "@" in self.address:  # the parameters are logged and saved beside the model
            raise ValueError("address holds a user name or password; give it as HOST:PORT")
