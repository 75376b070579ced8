"""The commands of `cxr` for a trained model: smaller ones, answers, a server, and the watch over it."""

import argparse
from typing import Any

from pipeline import commands
from pipeline.cli_adder import Add, adder


def add_deployment(parsers: Any) -> None:
    """Add predict, distill, prune, serve, labels, monitor and retrain."""
    add = adder(parsers)
    _predict(add)
    _shrinking(add)
    _serve(add)
    _watching(add)
    _retrain(add)


def _predict(add: Add) -> None:
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


def _shrinking(add: Add) -> None:
    for name, call, text, place in (
        ("distill", commands.run_distill, "train a small network that learns from the trained one", "models/student"),
        ("prune", commands.run_prune, "fine-tune the model while the smallest weights become 0", "models/pruned"),
    ):
        paths = [("model", "models/model.keras", "the trained model"), ("processed", "data/processed", "its images")]
        add(name, call, text, [*paths, ("out", place, "the folder of the new model")])


def _serve(add: Add) -> None:
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


def _watching(add: Add) -> None:
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


def _retrain(add: Add) -> None:
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
