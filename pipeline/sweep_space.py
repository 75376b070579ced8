"""What a trial of a sweep may be: its values, and those that make no sense beside each other."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.params.sweep import Space, default_of, edges_of
from pipeline.params_file import as_dict, parse_params

if TYPE_CHECKING:
    from optuna.trial import Trial

_COMBINATIONS = 200  # of words that are looked through; more would take longer than they tell
Choose = Callable[[str, Space], Any]


def base_of(params: Params) -> Params:
    """Return the parameters that all trials share: one training of `sweep.epochs`.

    Raises
    ------
    UserError
        If the training is one of a cluster, or other parameters do not fit that number of epochs.
    """
    if params.train.cluster != "none":
        raise UserError(f"train.cluster is {params.train.cluster}, and a sweep trains on this machine: set it to none")
    epochs = params.sweep.epochs or params.train.epochs
    try:
        train = dataclasses.replace(params.train, epochs=epochs, repeats=1)
        return dataclasses.replace(params, train=train)
    except ValueError as error:  # pydantic's, with the parameters' own sentence in it
        reason = str(error).partition("Value error, ")[2].partition(" [type=")[0]
        raise UserError(f"sweep.epochs is {epochs}: {reason}") from None


def with_values(params: Params, values: Mapping[str, Any]) -> Params:
    """Return the parameters with other values of some keys, such as `loss.name`.

    Raises
    ------
    UserError
        If they are out of range, or make no sense beside each other.
    """
    sections = as_dict(params)
    for key, value in values.items():
        section, _, name = key.partition(".")
        sections[section][name] = value
    return parse_params(sections, "sweep.search")


def choose(params: Params, take: Choose) -> dict[str, Any]:
    """Choose the values of one trial, words before numbers.

    A key is left out, and takes its default, where one of its values makes no sense beside what was chosen before:
    `optimizer.momentum` has no part in a trial with Adam.

    Parameters
    ----------
    params : Params
        Of `base_of`; section `sweep` says what is searched.
    take : callable
        From a key and its space to a value.

    Returns
    -------
    dict
        Every key of the search to its value, also of those left out, which are listed in `left_out`.
    """
    search = params.sweep.search
    values = {key: default_of(key) for key in search}
    for key in _ordered(search):
        if _refusal(params, values, key) is None:
            values[key] = take(key, search[key])
    return values


def used(params: Params, values: Mapping[str, Any]) -> list[str]:
    """Return the keys of the search that have a part in a trial of these values, as `choose` decides."""
    taken = []

    def take(key: str, _space: Space) -> Any:
        taken.append(key)
        return values[key]

    choose(params, take)
    return [key for key in params.sweep.search if key in taken]


def require_possible(params: Params) -> None:
    """Refuse a search with a key that no trial can use, and say why none can.

    Raises
    ------
    UserError
        One line.
    """
    search = params.sweep.search
    words = [key for key in search if "values" in search[key]]
    seen: set[str] = set()
    for combination in itertools.islice(itertools.product(*(edges_of(search[key]) for key in words)), _COMBINATIONS):
        picked = dict(zip(words, combination, strict=True))
        seen |= set(used(params, {key: picked.get(key, edges_of(search[key])[0]) for key in search}))
        if len(seen) == len(search):
            return
    for key in search:
        if key not in seen:
            raise UserError(str(_refusal(params, {other: default_of(other) for other in search}, key)))


def suggested(trial: "Trial") -> Choose:
    """Return what takes a value as Optuna suggests it."""

    def take(key: str, space: Space) -> Any:
        if "values" in space:
            return trial.suggest_categorical(key, space["values"])
        log = bool(space.get("log", False))
        if isinstance(default_of(key), int):
            return trial.suggest_int(key, space["low"], space["high"], log=log)
        return trial.suggest_float(key, space["low"], space["high"], log=log)

    return take


def present_values(params: Params) -> dict[str, Any] | None:
    """Return the values that the parameters have now, for the first trial; None if the search does not hold them."""
    sections = as_dict(params)
    values = {}
    for key, space in params.sweep.search.items():
        section, _, name = key.partition(".")
        value = values[key] = sections[section][name]
        inside = value in space["values"] if "values" in space else space["low"] <= value <= space["high"]
        if not inside:
            return None
    return values


def _ordered(search: Mapping[str, Space]) -> list[str]:
    return sorted(search, key=lambda key: "values" not in search[key])


def _refusal(params: Params, values: Mapping[str, Any], key: str) -> UserError | None:
    """Return why some value of a key makes no sense beside the others; None if all do."""
    for value in edges_of(params.sweep.search[key]):
        try:
            with_values(params, {**values, key: value})
        except UserError as error:
            return error
    return None
