"""The section that says what a sweep searches; each key of it is checked against the section that it names."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from pipeline.params.training import (
    AugmentParams,
    FinetuneParams,
    LossParams,
    ModelParams,
    OptimizerParams,
    ScheduleParams,
    TrainParams,
)
from pipeline.params.types import STRICT, Count, Seed

SEARCHED: Mapping[str, Any] = {
    "augment": AugmentParams,
    "model": ModelParams,
    "loss": LossParams,
    "optimizer": OptimizerParams,
    "schedule": ScheduleParams,
    "finetune": FinetuneParams,
    "train": TrainParams,
}
"""The sections whose keys may be searched: those that decide a training."""

# What they mean is how a sweep works, not what it looks for.
_NOT_SEARCHED = {
    "train.epochs": "sweep.epochs says how long all trials are",
    "train.repeats": "a trial is one training",
    "train.cluster": "a sweep trains on this machine",
    "train.workers": "a sweep trains on this machine",
    "train.address": "a sweep trains on this machine",
}
_FORMS = "{low: 0.1, high: 10, log: true} or {values: [a, b]} is needed"

Space = dict[str, Any]
"""`low`, `high` and perhaps `log`, or `values`."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class SweepParams:
    """What `cxr sweep` searches for the highest validation AUC. No stage reads it."""

    trials: Annotated[Count, Field(le=10_000, description="trainings; those that are finished are not repeated")] = 20
    seed: Annotated[Seed, Field(description="of the search; that of the trainings is train.seed")] = 7
    epochs: Annotated[int, Field(ge=0, description="of each trial; 0: train.epochs")] = 0
    search: Annotated[
        dict[str, Space],
        Field(min_length=1, description="key to its range, {low, high, log}, or its values, {values: […]}"),
    ] = field(
        default_factory=lambda: {
            "optimizer.learning_rate": {"low": 1.0e-5, "high": 1.0e-2, "log": True},
            "loss.name": {"values": ["focal", "binary_crossentropy", "asymmetric"]},
            "model.dropout": {"low": 0.0, "high": 0.5},
        }
    )

    def __post_init__(self) -> None:
        for key, space in self.search.items():
            _check(key, space)


def edges_of(space: Space) -> list[Any]:
    """Return the values of a list, or both ends of a range."""
    return list(space["values"]) if "values" in space else [space["low"], space["high"]]


def default_of(key: str) -> Any:
    """Return the default of `section.key`."""
    item = _field_of(key)
    return item.default if item.default_factory is dataclasses.MISSING else item.default_factory()


def _check(key: str, space: Space) -> None:
    """Refuse a key that does not exist or may not be searched, and a space that is empty or out of range."""
    section, _, name = key.partition(".")
    if section not in SEARCHED:
        raise ValueError(f"search: {key} cannot be searched; allowed are keys of {', '.join(SEARCHED)}")
    names = [item.name for item in dataclasses.fields(SEARCHED[section])]
    if name not in names:
        raise ValueError(f"search: unknown key {key}; allowed: {', '.join(f'{section}.{item}' for item in names)}")
    if key in _NOT_SEARCHED:
        raise ValueError(f"search: {key} cannot be searched: {_NOT_SEARCHED[key]}")
    if set(space) == {"values"}:
        _check_values(key, space["values"])
    elif {"low", "high"} <= set(space) <= {"low", "high", "log"}:
        _check_range(key, space)
    else:
        raise ValueError(f"search: {key} is {space}; {_FORMS}")
    for value in edges_of(space):
        try:
            _adapter(key).validate_json(json.dumps({"value": value}))
        except ValidationError as error:
            text = error.errors()[0]["msg"]
            raise ValueError(f"search: {key} holds {value!r}: {text[0].lower()}{text[1:]}") from None


def _check_values(key: str, values: Any) -> None:
    plain = isinstance(values, list) and all(isinstance(value, bool | int | float | str) for value in values)
    if not plain or not values or len({repr(value) for value in values}) < len(values):
        raise ValueError(f"search: the values of {key} are {values!r}; a list of different words or numbers is needed")


def _check_range(key: str, space: Space) -> None:
    low, high, log = space["low"], space["high"], space.get("log", False)
    numbers = [isinstance(value, int | float) and not isinstance(value, bool) for value in (low, high, default_of(key))]
    if not all(numbers):
        raise ValueError(f"search: {key} is {space}, and a range is for numbers; {{values: […]}} is needed")
    if not isinstance(log, bool):
        raise ValueError(f"search: log of {key} is {log!r}; true or false is needed")
    if not low < high:
        raise ValueError(f"search: {key} goes from {low} to {high}; low must lie below high")
    if log and not low > 0:
        raise ValueError(f"search: {key} has low {low} and log true; a logarithm needs a low above 0")


def _field_of(key: str) -> Any:
    section, _, name = key.partition(".")
    return SEARCHED[section].__dataclass_fields__[name]


@functools.cache
def _adapter(key: str) -> TypeAdapter[Any]:
    """Return what checks one value of a key, as strictly as the section itself does."""
    annotation = _field_of(key).type
    section = dataclass(config=STRICT)(dataclasses.make_dataclass("Value", [("value", annotation)]))
    adapter: TypeAdapter[Any] = TypeAdapter(section)
    return adapter
