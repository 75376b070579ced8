"""How a command of `cxr` is declared: its paths, and the options that all commands have."""

import argparse
from collections.abc import Callable
from typing import Any

from pipeline.simulate_flags import LateParser

Add = Callable[..., LateParser]


def adder(parsers: Any) -> Add:
    """Return a function that adds a command with its paths and the options that all commands have."""

    def add(
        name: str, call: Callable[[argparse.Namespace], int | None], text: str, paths: list[tuple[str, str | None, str]]
    ) -> LateParser:
        parser: LateParser = parsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        for path, default, meaning in paths:
            shown = f"{meaning} (default: {default})" if default else meaning
            if path.startswith("--"):
                parser.add_argument(path, default=default, required=default is None, metavar="PATH", help=shown)
            else:
                parser.add_argument(path, nargs="?" if default else None, default=default, help=shown)
        parser.add_argument(
            "--params", default="params.yaml", metavar="FILE", help="parameter file (default: params.yaml)"
        )
        parser.add_argument("-q", "--quiet", action="store_true", help="no progress; warnings and errors only")
        parser.set_defaults(call=call)
        return parser

    return add
