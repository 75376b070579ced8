"""Command `score`: the evaluation on anybody's predictions table, with the metrics, plots and page of the stages."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline import __version__
from pipeline.assess import Assessment, assess, write_assessment
from pipeline.errors import UserError
from pipeline.files import sha256_file, without_nan, write_json, write_text
from pipeline.findings import readable
from pipeline.params import Params
from pipeline.predictions_file import Patients, Predictions, load_predictions
from pipeline.progress import note
from pipeline.reporting.text import SPLITS, cell, level
from pipeline.terminal import columns

if TYPE_CHECKING:
    from pipeline.reporting.page import Section

TITLE = "Scores of a predictions table"
PATIENTS = {"column": "as the table names them", "nih": "read from NIH's file names"}
RECORD = "score.json"
"""What was scored and how; marks a folder as one that `score` may write to again."""


def score(path: Path, out: Path, params: Params, labels: Path | None = None, patients: Patients = "column") -> None:
    """Score a predictions table, print the main table and write everything to a folder.

    Parameters
    ----------
    path : Path
        The table; see `pipeline.predictions_file.load_predictions`.
    out : Path
        Where `metrics.json`, `calibration.json`, `operating_points.json`, `subgroups.json`, `plots/`, `report.html` and
        `score.json` go: a new or empty folder, or one that `score` wrote before.
    params : Params
        Section `evaluate`.
    labels : Path, optional
        The labels, if they stand in another table.
    patients : {'column', 'nih'}
        Where the patient comes from.

    Raises
    ------
    UserError
        If the table is faulty, has no test images or the same patients on two sides, or the folder holds other files.
    """
    refuse_other_files(out)
    predictions = usable(load_predictions(path, labels, patients), path)
    for line in predictions.notes:
        note(line)
    record = record_of(predictions, path, labels, patients, params)
    assessment = assess(predictions.table, predictions.findings, params.evaluate)
    write_json(out / RECORD, record)
    write_assessment(assessment, out)
    write_text(out / "report.html", page(assessment, record))
    print(printed(without_nan(assessment.documents["metrics"])))
    note(f"report in {out / 'report.html'}")


def usable(predictions: Predictions, path: Path) -> Predictions:
    """Leave out training images, and refuse a table without test images or with patients on two sides."""
    table, notes = predictions.table, list(predictions.notes)
    counts = table["split"].value_counts()
    if "test" not in counts:
        raise UserError(
            f"{path} has no row of the test split; remove the column split to score all rows as test images"
        )
    if "train" in counts:
        notes.append(f"not scored: {counts['train']:,} training images, which the model has learnt")
        table = table[table["split"] != "train"].reset_index(drop=True)
    if "val" in counts:
        of_test, of_val = (set(table.loc[table["split"] == name, "patient_id"]) for name in ("test", "val"))
        if both := len(of_test & of_val):
            raise UserError(
                f"{path}: {both:,} of {len(of_test):,} test patients have images in val, too; a threshold chosen on "
                "them would look too good. Split by patient, or remove the val rows"
            )
    else:
        notes.append("no validation images: nothing is calibrated, and no threshold is chosen")
    return Predictions(table, predictions.findings, notes)


def refuse_other_files(out: Path) -> None:
    """Refuse a folder that holds something else, such as the project's own reports."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; --out is a folder to write to")
    if out.is_dir() and not (out / RECORD).exists() and any(out.iterdir()):
        raise UserError(f"{out} holds other files; give a new folder with --out, or one that `cxr score` wrote")


def record_of(
    predictions: Predictions, path: Path, labels: Path | None, patients: Patients, params: Params
) -> dict[str, Any]:
    """Return what is scored and how: files with their checksums, counts, notes, the parameters that matter."""
    rows = {str(split): part for split, part in predictions.table.groupby("split")}
    evaluate = params.evaluate
    return {
        "predictions": {"file": path.name, "sha256": sha256_file(path)},
        "labels": None if labels is None else {"file": labels.name, "sha256": sha256_file(labels)},
        "patients": patients,
        "splits": {name: {"images": len(part), "patients": _patients(part)} for name, part in rows.items()},
        "findings": predictions.findings,
        "notes": predictions.notes,
        "evaluate": {
            name: getattr(evaluate, name)
            for name in ("resamples", "confidence", "interval", "seed", "calibration", "bins", "age_bands")
        },
        "cxr": __version__,
    }


def page(assessment: Assessment, record: dict[str, Any]) -> str:
    """Return the page: the report's sections, as far as a predictions table knows what they show."""
    from pipeline.reporting import calibration, curves, operating_points, results, subgroups
    from pipeline.reporting.about import glossary
    from pipeline.reporting.page import render_page
    from pipeline.reporting.summary import headline, key_figures, notices

    documents, plots = without_nan(assessment.documents), assessment.plots
    metrics, points = documents["metrics"], documents["operating_points"]
    sections = [
        results.section(metrics, None, trained_here=False),
        curves.section(metrics, plots["roc"], plots["pr"], points),
        calibration.section(metrics, documents["calibration"], plots["reliability"]),
        operating_points.section(points, metrics["confidence"]),
        subgroups.section(documents["subgroups"], metrics),
        section(record),
        glossary(metrics["confidence"]),
    ]
    shown = notices(metrics, "")
    return render_page(TITLE, headline(metrics, ""), shown, sections, figures=key_figures(metrics, None))


def section(record: dict[str, Any]) -> "Section":
    """Gather what was scored: files, counts, and what a reader should know of them."""
    from pipeline.reporting.page import Section

    files = [(name.capitalize(), record[name]) for name in ("predictions", "labels") if record[name]]
    content = {
        "files": [(name, file["file"], file["sha256"]) for name, file in files],
        "splits": [
            (SPLITS[name], *(f"{counts[key]:,}" for key in ("images", "patients")))
            for name, counts in record["splits"].items()
        ],
        "patients": PATIENTS[record["patients"]],
        "notes": record["notes"],
        "parameters": ", ".join(f"{name} {value}" for name, value in record["evaluate"].items()),
        "version": record["cxr"],
    }
    return Section("scored", "What was scored", content)


def printed(metrics: dict[str, Any]) -> str:
    """Return the main table for the terminal: AUC and average precision of the test images, with intervals."""
    test = metrics["test"]
    between = f"{level(metrics['confidence'])} interval"
    rows: list[tuple[str, ...]] = [
        ("test images", "AUC", between, "average precision", between, "positive", "negative")
    ]
    named = [(readable(name), row) for name, row in test["findings"].items()]
    if len(named) > 1:
        named.append((f"mean of {test['macro']['n_findings']}", test["macro"]))
    for name, row in named:
        shown = [cell(row, score) for score in ("auc", "average_precision")]
        counts = [f"{row[key]:,}" if key in row else "" for key in ("n_positive", "n_negative")]
        rows.append((name, *(text for one in shown for text in (one["value"], one["interval"])), *counts))
    return columns(rows)


def _patients(rows: pd.DataFrame) -> int:
    return int(rows["patient_id"].nunique())
