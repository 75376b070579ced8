"""Reading, checking and writing files of parameters; what they may hold stands in `pipeline.params`."""

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import UserError
from pipeline.files import atomic_open
from pipeline.params import Params


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping as DVC does (YAML 1.2: `1e-4` is a number, `NO` is a word, a repeated key an error).

    Raises
    ------
    UserError
        If the file is missing, is not YAML, or holds something else than a mapping.
    """
    try:
        value = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: give another (--params), or write it with `cxr preset NAME`") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): a YAML file is needed") from None
    except (YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, or a date that does not exist
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}; a mapping of sections is needed")
    return value


def parse_params(values: dict[str, Any], origin: str) -> Params:
    """Turn nested dictionaries into `Params`.

    Parameters
    ----------
    values : dict
        Section name to key to value. What is left out takes its default.
    origin : str
        The file, for the error message.

    Raises
    ------
    UserError
        For an unknown section or key, a wrong type or a value outside its range; names key, value and what is
        allowed.
    """
    try:
        # As JSON, because in strict mode pydantic makes dataclasses from JSON objects but not from dictionaries.
        text = json.dumps(values, default=str)
    except (TypeError, ValueError, RecursionError) as error:  # a list as a key, a section that contains itself
        raise UserError(f"{origin}: only words, numbers, lists and mappings can stand here ({error})") from None
    try:
        return TypeAdapter(Params).validate_json(text)
    except ValidationError as error:
        raise UserError(f"{origin}: " + "; ".join(_explain(dict(item)) for item in error.errors())) from None


def load_params(path: Path) -> Params:
    """Read and check a parameter file (see `read_yaml` and `parse_params` for the errors)."""
    return parse_params(read_yaml(path), str(path))


def as_dict(params: Params) -> dict[str, dict[str, Any]]:
    """Return the resolved parameters as plain dictionaries, in the order of the file."""
    return dataclasses.asdict(params)


def write_yaml(path: Path, values: dict[str, dict[str, Any]]) -> None:
    """Write sections as YAML, whole or not at all."""
    with atomic_open(path) as handle:
        yaml: Any = YAML(typ="safe", pure=True)
        yaml.default_flow_style = False  # in braces ruamel leaves ": x" and "? x" unquoted, which nothing can read
        yaml.sort_base_mapping_type_on_output = False  # the order of the file
        yaml.dump(values, handle)


def _explain(error: dict[str, Any]) -> str:
    location = [str(part) for part in error["loc"]]
    key = ".".join(location) or "the file"
    value = error["input"]
    if error["type"] == "unexpected_keyword_argument":
        return f"unknown key {key} (value {value!r}); allowed: {', '.join(_allowed_keys(location[:-1]))}"
    if error["type"] == "value_error":
        return f"{key}: {error['ctx']['error']}"
    if error["type"] == "dataclass_type":
        return f"{key} is {value!r}; a mapping of {', '.join(_allowed_keys(location))} is needed"
    return f"{key} is {value!r} ({type(value).__name__}): {error['msg'][0].lower()}{error['msg'][1:]}"


def _allowed_keys(location: list[str]) -> list[str]:
    owner: Any = Params
    for name in location:
        # A number is a place in a list, whose items are of one type.
        owner = get_args(owner)[0] if name.isdigit() else owner.__dataclass_fields__[name].type
        owner = owner.__origin__ if hasattr(owner, "__metadata__") else owner  # without what Annotated says
    return [item.name for item in dataclasses.fields(owner)]
