"""The `cxr` command: parse, load the parameters, call one stage.

Nothing but argparse is imported before a command is chosen, so that help and errors come at once.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from pipeline import commands
from pipeline.errors import UserError
from pipeline.simulate_flags import LateParser, add_flags


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status.

    0, 1 for a user's mistake, 2 for a bad command line, 3 for a model that `promote` refused.
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
    _add_stages(parsers)
    _add_tools(parsers)
    return parser


def _add_stages(parsers: Any) -> None:
    add = _adder(parsers)
    download = add(
        "download", commands.run_download, "fetch or draw the images", [("--out", "data/raw", "the raw folder")]
    )
    download.add_argument(
        "--files",
        nargs="+",
        metavar="PATTERN",
        help="from Kaggle only the files that match, such as 'images_001/*' (default: download.files)",
    )
    add(
        "ingest",
        commands.run_ingest,
        "read the data set's own layout, check every file, write the manifest",
        [
            ("raw", "data/raw", "the raw folder"),
            ("out", "data/manifest.csv", "the manifest"),
            ("--quarantine", "reports/data/quarantine.csv", "what is kept out or looks wrong, and why"),
            ("--boxes", "data/boxes.csv", "the boxes that readers drew"),
            ("--thumbnails", "data/thumbnails.npy", "tiny copies, for the audit"),
        ],
    )
    add(
        "split",
        commands.run_split,
        "put patients into train, val and test, and audit the result",
        [
            ("manifest", "data/manifest.csv", "the manifest"),
            ("out", "data/splits.csv", "the splits"),
            ("--summary", "reports/data/split.json", "counts and prevalences"),
        ],
    )
    audit = add(
        "audit",
        commands.run_audit,
        "look for patients and pictures on two sides of the split, and for copies",
        [
            ("manifest", "data/manifest.csv", "the manifest"),
            ("splits", "data/splits.csv", "the splits"),
            ("--out", "reports/data/audit.csv", "the suspects; their counts go beside it"),
            ("--thumbnails", "data/thumbnails.npy", "what `cxr ingest` wrote"),
            ("--raw", "data/raw", "the raw folder, read only where thumbnails are missing"),
        ],
    )
    audit.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="MANIFEST",
        help="another set's manifest, which must share no picture with this one; may be repeated",
    )
    add(
        "preprocess",
        commands.run_preprocess,
        "resize, equalise and shard the images",
        [
            ("manifest", "data/manifest.csv", "the manifest"),
            ("splits", "data/splits.csv", "the splits"),
            ("out", "data/processed", "the processed images"),
            ("--raw", "data/raw", "the raw folder"),
        ],
    )
    add(
        "train",
        commands.run_train,
        "fine-tune the network and keep its best epoch",
        [("processed", "data/processed", "the processed images"), ("out", "models", "the folder of models")],
    )
    add(
        "evaluate",
        commands.run_evaluate,
        "score the model on the test split, with intervals",
        [
            ("model", "models/model.keras", "the model"),
            ("processed", "data/processed", "the processed images"),
            ("reports", "reports", "the folder of reports"),
            ("--boxes", "data/boxes.csv", "the boxes that readers drew"),
        ],
    )
    add(
        "report",
        commands.run_report,
        "write the HTML report",
        [
            ("reports", "reports", "the folder of reports"),
            ("--manifest", "data/manifest.csv", "the manifest"),
            ("--raw", "data/raw", "the raw folder"),
            ("--processed", "data/processed", "the processed images"),
            ("--models", "models", "the folder of models"),
        ],
    )


def _add_tools(parsers: Any) -> None:
    add = _adder(parsers)
    promote = add(
        "promote",
        commands.run_promote,
        "move the alias `champion` to this model if it is not worse than the champion; exit status 3 if it is refused",
        [
            ("model", "models/model.keras", "the model"),
            ("reports", "reports", "its evaluation"),
            ("--evidence", "models/champion", "the champions' evidence"),
            ("--records", "models/promotions", "the decisions"),
        ],
    )
    promote.add_argument("--undo", action="store_true", help="move the alias back to the champion before")
    promote.add_argument("--dry-run", action="store_true", help="print the decision and store nothing")
    score = add(
        "score",
        commands.run_score,
        "score anybody's predictions table: the metrics, the plots and the page of `evaluate` and `report`",
        [
            ("predictions", None, "a table of image_id, patient_id, y_FINDING and p_FINDING (docs/score.md)"),
            ("--out", None, "the folder to write to"),
        ],
    )
    compare = add(
        "compare",
        commands.run_compare,
        "compare two models on the same images, paired: differences, intervals and p values",
        [("a", None, "the predictions table of one model"), ("b", None, "that of the other")],
    )
    compare.add_argument("--out", metavar="PATH", help="also write compare.json, compare.csv and compare.html there")
    for command in (score, compare):
        command.add_argument(
            "--labels", metavar="FILE", help="the labels, if they stand in another table: y_FINDING or NIH's own"
        )
        command.add_argument(
            "--patients",
            choices=("column", "nih"),
            default="column",
            help="where the patient comes from: column patient_id, or NIH's file names (default: column)",
        )
    add("doctor", commands.run_doctor, "look at the machine: what works, what is missing, how to mend it", [])
    preset = add(
        "preset",
        commands.run_preset,
        "write params.yaml from a preset",
        [("--configs", "configs", "the folder of presets")],
    )
    preset.add_argument("name", nargs="?", help="a file of configs/, without .yaml (default: the present preset)")
    preset.add_argument("--archive", metavar="PATH", help="a local archive or folder in Kaggle's layout")
    ablation = add(
        "ablation",
        commands.run_ablation,
        "change one parameter at a time and compare each on the validation split",
        [("--out", "reports/ablation", "the folder of the table")],
    )
    ablation.add_argument(
        "--only", nargs="+", default=[], metavar="VARIANT", help="these variants only, such as no-clahe (default: all)"
    )
    add(
        "sweep",
        commands.run_sweep,
        "search for parameters that raise validation AUC, as section `sweep` says; a stopped sweep goes on",
        [
            ("processed", "data/processed", "the processed images"),
            ("--out", "reports/sweep", "the folder of table, figure and trials"),
        ],
    )
    simulate = add(
        "simulate",
        commands.run_simulate,
        "draw simulated radiographs in the layout of NIH's sample",
        [("--out", None, "the folder to fill; it must be new or empty")],
    )
    simulate.late = add_flags


def _adder(parsers: Any) -> Callable[..., LateParser]:
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


def _version() -> str:
    from pipeline import __version__

    return f"cxr {__version__}"


if __name__ == "__main__":
    sys.exit(main())
