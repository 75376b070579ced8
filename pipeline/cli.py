"""The `cxr` command: parse, load the parameters, call one stage.

Nothing but argparse is imported before a command is chosen, so that help and errors come at once.
"""

import argparse
import sys

from pipeline.cli_deployment import add_deployment
from pipeline.cli_stages import add_stages
from pipeline.cli_tools import add_judging, add_tools
from pipeline.errors import UserError
from pipeline.simulate_flags import LateParser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status.

    0, 1 for a user's mistake, 2 for a bad command line, 3 for a model that `promote` refused, for files that
    `predict` could not use, or for a warning of `monitor`, 4 for its alarm.
    """
    args = build_parser().parse_args(argv)
    try:
        return int(args.call(args) or 0)
    except UserError as error:
        print(f"cxr {args.command}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"cxr {args.command}: stopped; run it again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as in `cxr doctor | head -1`
        sys.stderr.close()
        return 1
    except OSError as error:  # a folder where a file is needed, no permission, a full disk
        if error.filename is None:
            raise
        print(f"cxr {args.command}: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; the documentation is generated from it."""
    parser = argparse.ArgumentParser(
        prog="cxr",
        description="Chest X-ray classifiers, from a clean machine to a model one can defend.",
        epilog="`cxr COMMAND --help` explains one command; `dvc repro` runs all stages in order.",
    )
    parser.add_argument("--version", action="version", version=_version())
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=LateParser)
    for add in (add_stages, add_judging, add_deployment, add_tools):  # in the order of the help
        add(parsers)
    return parser


def _version() -> str:
    from pipeline import __version__

    return f"cxr {__version__}"


if __name__ == "__main__":
    sys.exit(main())
