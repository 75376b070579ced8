"""The commands of `cxr` that are stages of dvc.yaml."""

from typing import Any

from pipeline import commands
from pipeline.cli_adder import adder


def add_stages(parsers: Any) -> None:
    """Add them."""
    add = adder(parsers)
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
