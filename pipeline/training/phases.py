"""The phases of a training: the head alone first where weights are pretrained, then the backbone with it.

A head that knows nothing yet would spoil pretrained weights with its large gradients (Keras' guide "Transfer learning
and fine-tuning"; Kumar et al. 2022, "Fine-tuning can distort pretrained features", section 4).
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline.model import BACKBONE
from pipeline.params import Params
from pipeline.training.network import freeze_backbone, unfreeze
from pipeline.training.optimizers import build_optimizer, scaled_rate
from pipeline.training.schedules import build_schedule


@dataclass(frozen=True)
class Phase:
    """Epochs that are trained in the same way.

    Attributes
    ----------
    name : {'all', 'head', 'backbone'}
        Everything from random weights; the head on a frozen backbone; the backbone with the head.
    first, end : int
        Its epochs, counted from 0 over all phases; `end` is not one of them.
    cached : bool
        Whether the head learns from features of the backbone that are computed once.
    """

    name: Literal["all", "head", "backbone"]
    first: int
    end: int
    cached: bool = False


def plan(params: Params, workers: int = 1) -> list[Phase]:
    """Return the phases in their order; random weights have one, pretrained ones two by default.

    Features are not cached in a cluster, where every worker has a part of the images only.
    """
    tune, epochs = params.finetune, params.train.epochs
    if params.model.weights == "none":
        return [Phase("all", 0, epochs)]
    cached = not tune.head_augment and workers == 1
    head = [Phase("head", 0, tune.head_epochs, cached)] if tune.head_epochs else []
    whole = [] if tune.unfreeze_from == "none" else [Phase("backbone", tune.head_epochs, tune.head_epochs + epochs)]
    return head + whole


def prepare(network: Any, phase: Phase, params: Params, steps: int) -> Any:
    """Say which layers learn in the phase, and return its optimizer; call it in the strategy's scope.

    Parameters
    ----------
    network : keras.Model
        Of `pipeline.training.network.build_model`.
    phase : Phase
        The phase.
    params : Params
        Sections `model`, `finetune`, `optimizer`, `schedule`, `train`.
    steps : int
        Steps of an epoch.

    Returns
    -------
    keras.optimizers.Optimizer
        Not built yet.
    """
    tune, batch = params.finetune, params.train.batch_size
    if phase.name == "head":
        freeze_backbone(network)
        # The mean of the weights is that of the last phase: a mean over two phases would hold the first one's start.
        alone = replace(params.optimizer, learning_rate=tune.head_learning_rate, ema=0.0)
        return build_optimizer(alone, scaled_rate(alone, batch))
    rate = scaled_rate(params.optimizer, batch)
    schedule = build_schedule(params.schedule, rate, steps, phase.end - phase.first)
    if phase.name == "all":
        return build_optimizer(params.optimizer, schedule)
    unfreeze(network, tune, params.model.backbone)
    return build_optimizer(params.optimizer, schedule, (f"{BACKBONE}/",), tune.backbone_rate)
