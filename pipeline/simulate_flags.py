"""The flags of `cxr simulate`: one for each parameter of section `simulate`, made from its dataclass."""

import argparse
import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any


class LateParser(argparse.ArgumentParser):
    """A parser that adds some of its arguments when they are needed first.

    Those of a dataclass need pydantic, and `cxr --help` shall not load it.
    """

    late: "Callable[[argparse.ArgumentParser], None] | None" = None

    def _fill(self) -> None:
        if late := self.late:
            self.late = None
            late(self)

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """See argparse."""
        self._fill()
        return super().parse_known_args(*args, **kwargs)

    def format_help(self) -> str:
        """See argparse."""
        self._fill()
        return super().format_help()


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--prevalence-scale` for `prevalence_scale` and so on, and `--preset`."""
    from pipeline.params import SimulateParams

    parser.add_argument("--preset", metavar="NAME", help="start from configs/NAME.yaml, not from the parameter file")
    hints = typing.get_type_hints(SimulateParams, include_extras=True)
    for item in dataclasses.fields(SimulateParams):
        kind, *notes = typing.get_args(hints[item.name])
        text = next(note.description for note in notes if getattr(note, "description", None))
        parser.add_argument(f"--{item.name.replace('_', '-')}", help=text.replace("%", "%%"), **_reading(kind))


def params_of(args: argparse.Namespace) -> Any:
    """Return the section: the flags that were given, over those of the preset or of the parameter file.

    Raises
    ------
    UserError
        For a preset or a parameter file that is not there, or a value outside its range.
    """
    from pipeline.params import SimulateParams
    from pipeline.params_file import load_params, parse_params
    from pipeline.presets import load_preset

    params = load_preset(args.preset, Path("configs")) if args.preset else load_params(Path(args.params))
    names = [item.name for item in dataclasses.fields(SimulateParams)]
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    values = dataclasses.asdict(params.simulate) | given
    return parse_params({"simulate": values}, "the command line").simulate


def _reading(kind: Any) -> dict[str, Any]:
    """Return how argparse reads a type."""
    if typing.get_origin(kind) is typing.Literal:
        return {"choices": typing.get_args(kind)}
    if typing.get_origin(kind) is list:
        return {"type": float, "nargs": 2, "metavar": ("LOW", "HIGH")}
    base = typing.get_args(kind)[0] if hasattr(kind, "__metadata__") else kind
    return {"type": base, "metavar": "N" if base is int else "X"}
