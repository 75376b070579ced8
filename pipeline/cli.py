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
            ("--manifest", "data/manifest.csv", "the manifest, for the films' files"),
            ("--raw", "data/raw", "the raw folder, for what films look like before preprocessing"),
        ],
    )
    add(
        "export",
        commands.run_export,
        "write the model as SavedModel, LiteRT and ONNX, each compared with it on the validation split",
        [
            ("model", "models/model.keras", "the model"),
            ("processed", "data/processed", "the processed images"),
            ("out", "models/exported", "the folder of exports"),
            ("--reports", "reports", "the model's evaluation: calibration and operating points"),
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
    predict = add(
        "predict",
        commands.run_predict,
        "answer for films: PNG, JPEG, TIFF and DICOM files, folders, patterns, .zip; exit status 3 if any file failed",
        [("model", None, "an exported model, as models/exported (then int8), or a model.keras")],
    )
    predict.add_argument("files", nargs="+", metavar="FILE", help="a file, a folder, a pattern in quotes or a .zip")
    predict.add_argument("--out", metavar="CSV", help="write a table of all answers there, instead of printing them")
    predict.add_argument("--json", action="store_true", help="print a JSON object a line for each film")
    predict.add_argument("--overlay", metavar="DIR", help="write pictures with heat maps there; needs the Keras model")
    predict.add_argument(
        "--explain", metavar="MODEL", help="the Keras model for --overlay (default: model.keras near the exported one)"
    )
    predict.add_argument(
        "--flagged", action="store_true", help="answer also for films that the input gate flags; they stay marked"
    )
    predict.add_argument(
        "--point",
        choices=("youden", "sensitivity", "specificity", "f1"),
        default="youden",
        help="operating point of the decisions (default: youden)",
    )
    predict.add_argument("--threads", type=_threads, metavar="N", help="films at a time (default: one for each core)")
    predict.add_argument("--log", default="", metavar="ADDRESS", help="also write to this prediction log")
    for name, call, text, place in (
        ("distill", commands.run_distill, "train a small network that learns from the trained one", "models/student"),
        ("prune", commands.run_prune, "fine-tune the model while the smallest weights become 0", "models/pruned"),
    ):
        paths = [("model", "models/model.keras", "the trained model"), ("processed", "data/processed", "its images")]
        add(name, call, text, [*paths, ("out", place, "the folder of the new model")])
    serve = add(
        "serve",
        commands.run_serve,
        "answer for films over HTTP, with a page to read them; section `serve` of the parameters says how",
        [
            ("--model", "models/exported", "an exported model; of several formats int8"),
            ("--explain", "models/model.keras", "its Keras model, for heat maps; left out if it is missing or another"),
            ("--reports", "reports", "the folder of reports, for the model card"),
        ],
    )
    serve.add_argument("--host", metavar="ADDRESS", help="where to listen (default: serve.host, 127.0.0.1)")
    serve.add_argument(
        "--port", type=_port, metavar="N", help="its port, 0 for any free one (default: serve.port, 8000)"
    )
    serve.add_argument(
        "--token-file",
        metavar="FILE",
        help="a file with the bearer token (default: $CXR_SERVE_TOKEN_FILE, or the token itself in $CXR_SERVE_TOKEN)",
    )
    add(
        "labels",
        commands.run_labels,
        "add the truth to a prediction log when it arrives, by request id",
        [
            ("log", None, "the prediction log: a file, or an SQLAlchemy URL"),
            ("labels", None, "CSV of request_id and a column of 1, 0 or nothing for each finding (docs/monitoring.md)"),
        ],
    )
    monitor = add(
        "monitor",
        commands.run_monitor,
        "judge a prediction log against the evaluation; exit status 0 quiet, 3 warning, 4 alarm",
        [
            ("reference", None, "what `cxr evaluate` wrote, as reports/reference.npz"),
            ("log", None, "the prediction log: a file, or an SQLAlchemy URL"),
            ("--out", "reports/monitor", "the folder of page, figures and gauges"),
        ],
    )
    monitor.add_argument(
        "--since",
        default="",
        metavar="TIME",
        help="leave out earlier rows, as 2026-11-30T08:00 (UTC if it says no zone)",
    )
    retrain = add(
        "retrain",
        commands.run_retrain,
        "train anew with a log's labelled films, and promote the model if the rule allows it; exit status 3 if not",
        [
            ("log", None, "the prediction log, with the truths that `cxr labels` added"),
            ("films", None, "CSV of request_id, file and patient: which film each request was (docs/monitoring.md)"),
            ("--images", None, "the folder of those films"),
            ("--out", "retrained", "a new folder for data, model and reports"),
            ("--manifest", "data/manifest.csv", "the present manifest"),
            ("--splits", "data/splits.csv", "the present splits"),
            ("--raw", "data/raw", "the present raw folder"),
            ("--evidence", "models/champion", "the champions' evidence"),
            ("--records", "models/promotions", "the decisions"),
        ],
    )
    retrain.add_argument(
        "--after", metavar="FILE", help="a monitor.json: do nothing unless it holds an alarm of accuracy"
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


def _port(text: str) -> int:
    """Read a port; argparse makes its message of the exception."""
    if text.isascii() and text.isdigit() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535")


def _threads(text: str) -> int:
    """Read a number of threads; argparse makes its message of the exception."""
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 1024:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of threads: 1 to 1024")


def _version() -> str:
    from pipeline import __version__

    return f"cxr {__version__}"


if __name__ == "__main__":
    sys.exit(main())
