"""How the learning rate goes from step to step. Imports Keras: for the training process only."""

from typing import Any

import keras
from keras import ops
from keras.optimizers.schedules import CosineDecay, ExponentialDecay, LearningRateSchedule, PiecewiseConstantDecay

from pipeline.errors import UserError
from pipeline.params import ScheduleParams


@keras.saving.register_keras_serializable(package="pipeline")
class WarmUp(LearningRateSchedule):  # type: ignore[misc]  # Keras ships no types
    """A line up to a rate, then a schedule of Keras'; of those, `CosineDecay` alone can do that by itself.

    Goyal et al., "Accurate, large minibatch SGD", 2017, section 2.2. Step s of w has rate (s + 1) / (w + 1): the line
    reaches the rate at step w, and no step is wasted on a rate of 0.

    Parameters
    ----------
    rate : float
        The line's end.
    warmup_steps : int
        w, at least 1.
    schedule : LearningRateSchedule
        What follows.
    restart : bool
        Whether `schedule` counts steps from the end of the warm-up (true) or from the start.
    """

    def __init__(self, rate: float, warmup_steps: int, schedule: LearningRateSchedule, restart: bool) -> None:
        super().__init__()
        self.rate = rate
        self.warmup_steps = warmup_steps
        self.schedule = schedule
        self.restart = restart

    def __call__(self, step: Any) -> Any:
        """Return the rate of a step.

        Parameters
        ----------
        step : int or integer tensor of shape ()
            From 0.

        Returns
        -------
        float32 tensor of shape ()
            The rate.
        """
        step = ops.convert_to_tensor(step)
        line = self.rate * ((ops.cast(step, "float32") + 1.0) / (self.warmup_steps + 1.0))
        after = self.schedule(ops.maximum(step - self.warmup_steps, 0) if self.restart else step)
        return ops.where(step < self.warmup_steps, line, after)

    def get_config(self) -> dict[str, Any]:
        """Return what Keras needs to make the schedule again."""
        schedule = keras.optimizers.schedules.serialize(self.schedule)
        return {
            "rate": self.rate,
            "warmup_steps": self.warmup_steps,
            "schedule": schedule,
            "restart": self.restart,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WarmUp":
        """Make the schedule again."""
        return cls(**{**config, "schedule": keras.optimizers.schedules.deserialize(config["schedule"])})


def build_schedule(params: ScheduleParams, rate: float, steps: int, epochs: int) -> float | LearningRateSchedule:
    """Return the learning rate of each step, which is never above `rate`.

    All but plateau rise on a line over the first `warmup_epochs` (of a fraction, the nearest number of steps), see
    `WarmUp`. Then

    - constant stays;
    - cosine falls to `final` times the rate at the end of the last epoch (Loshchilov and Hutter, "SGDR", ICLR 2017,
      equation 5, one period; Keras' `CosineDecay`);
    - exponential falls by `factor` an epoch, a little at each step, from the end of the warm-up (Keras'
      `ExponentialDecay`);
    - step falls by `factor` after each `every` epochs, multi_step after the epochs of `milestones`, both counted from
      the start of the training (Keras' `ExponentialDecay` with staircase, `PiecewiseConstantDecay`);
    - plateau stays, for `keras.callbacks.ReduceLROnPlateau` to change, which takes no schedule.

    Parameters
    ----------
    params : ScheduleParams
        Name and its numbers.
    rate : float
        The highest learning rate.
    steps : int
        Of an epoch.
    epochs : int
        Of the training.

    Returns
    -------
    float or LearningRateSchedule
        What Keras' optimizers take as `learning_rate`; the float for plateau, and for constant without warm-up.

    Raises
    ------
    UserError
        If the warm-up leaves no step for the schedule, or does not end before the first fall.
    """
    warmup = 0 if params.name == "plateau" else round(params.warmup_epochs * steps)
    _check(params, warmup, steps, epochs)
    if params.name == "plateau" or (params.name == "constant" and not warmup):
        return float(rate)
    if params.name == "cosine":
        line = {"warmup_target": rate, "warmup_steps": warmup} if warmup else {}
        return CosineDecay(rate / (warmup + 1), epochs * steps - warmup, alpha=params.final, **line)
    schedule = _after_warmup(params, rate, steps)
    return WarmUp(rate, warmup, schedule, restart=params.name == "exponential") if warmup else schedule


def _after_warmup(params: ScheduleParams, rate: float, steps: int) -> LearningRateSchedule:
    if params.name == "exponential":
        return ExponentialDecay(rate, steps, params.factor)
    if params.name == "step":
        return ExponentialDecay(rate, params.every * steps, params.factor, staircase=True)
    # Keras lowers the rate after a boundary, not at it. Without a milestone, the rate is constant.
    boundaries = [epoch * steps - 1 for epoch in params.milestones] if params.name == "multi_step" else [0]
    factor = params.factor if params.name == "multi_step" else 1.0
    return PiecewiseConstantDecay(boundaries, [rate * factor**falls for falls in range(len(boundaries) + 1)])


def _check(params: ScheduleParams, warmup: int, steps: int, epochs: int) -> None:
    """Refuse a warm-up in which the rate would not come up before it falls or the training ends."""
    if warmup >= steps * epochs:
        raise UserError(
            f"schedule.warmup_epochs is {params.warmup_epochs} and train.epochs is {epochs}: the learning rate would "
            f"only rise; set schedule.warmup_epochs below {epochs}"
        )
    first_fall = {"step": params.every, "multi_step": min(params.milestones, default=epochs)}.get(params.name, epochs)
    if warmup >= first_fall * steps:
        key = "every" if params.name == "step" else "milestones"
        raise UserError(
            f"schedule.warmup_epochs is {params.warmup_epochs}, and with schedule.{key} the learning rate first falls "
            f"after {first_fall} epochs; set schedule.warmup_epochs below {first_fall}"
        )
