"""Stage `report`: one self-contained HTML page from what the earlier stages wrote; no score is computed here."""

from pathlib import Path
from typing import Any

from pipeline.files import write_text
from pipeline.params import Params
from pipeline.progress import note, warn
from pipeline.reporting import (
    audit,
    calibration,
    cases,
    curves,
    data,
    examples,
    localisation,
    operating_points,
    provenance,
    results,
    seeds,
    subgroups,
    training,
)
from pipeline.reporting.about import glossary
from pipeline.reporting.inputs import Inputs, check_inputs, read_inputs
from pipeline.reporting.page import RESEARCH_ONLY, Section, render_page
from pipeline.reporting.papers import write_papers
from pipeline.reporting.summary import headline, key_figures, notices, protocol
from pipeline.tracking import Run

_PICTURES = " The images themselves may be patient data and are to be handled as such."


def report(reports: Path, manifest: Path, raw: Path, processed: Path, models: Path, params: Params) -> None:
    """Write `report.html`, the model card and the checklists, and log them to the training's MLflow run.

    The same inputs give the same bytes. The page names no patient and no image.

    Parameters
    ----------
    reports : Path
        Where `evaluate` wrote its JSON files, `predictions.csv`, `plots/` and `cases/`, and earlier stages `data/`; the
        page goes here.
    manifest : Path
        The manifest, for the files of the examples.
    raw : Path
        What the manifest's paths are relative to.
    processed : Path
        The processed images (`meta.json` and `index.csv` are read).
    models : Path
        The folder of models (`training.json`, `params.yaml` and `history.csv` are read).
    params : Params
        Sections `report`, `evaluate` and `tracking`; all others are taken from what is saved beside the model.

    Raises
    ------
    UserError
        If an input is missing or damaged, or if they do not belong to one and the same run.
    """
    inputs = read_inputs(reports, manifest, processed, models)
    check_inputs(inputs, manifest)
    page = reports / "report.html"
    write_text(page, page_of(inputs, raw, reports / "cases", params))
    log([page, *write_papers(inputs, reports)], inputs.training, params)
    note(f"report in {page} ({page.stat().st_size / 1e6:.1f} MB)")


def page_of(inputs: Inputs, raw: Path, pictures: Path, params: Params) -> str:
    """Return the page's text."""
    floor, trained = inputs.floor, inputs.trained
    return render_page(
        params.report.title,
        headline(inputs.metrics, protocol(trained.split)),
        notices(inputs.metrics, trained.download.source, floor),
        [*scores_of(inputs, pictures), *data_of(inputs, raw, params)],
        figures=key_figures(inputs.metrics, floor),
        footer=RESEARCH_ONLY + _PICTURES,
    )


def scores_of(inputs: Inputs, pictures: Path) -> list[Section]:
    """Return the sections that show what the model does on the test images."""
    metrics, plots = inputs.metrics, inputs.plots
    return [
        results.section(metrics, inputs.floor),
        curves.section(metrics, plots["roc"], plots["pr"], inputs.operating_points),
        calibration.section(metrics, inputs.calibration, plots["reliability"]),
        operating_points.section(inputs.operating_points, metrics["confidence"]),
        subgroups.section(inputs.subgroups, metrics),
        localisation.section(inputs.localisation),
        cases.section(inputs.cases, pictures),
        seeds.section(metrics, inputs.trained.train.seed),
    ]


def data_of(inputs: Inputs, raw: Path, params: Params) -> list[Section]:
    """Return the sections that show the data, the training and what it takes to repeat it."""
    trained, findings = inputs.trained, inputs.findings
    simulated = trained.download.source == "simulated"
    sections = [
        data.flow_section(inputs.ingest, inputs.split, inputs.meta["dataset"], trained),
        data.people_section(inputs.index, inputs.split, findings),
    ]
    if params.report.examples:
        count = params.report.examples
        sections.append(examples.section(inputs.index, inputs.manifest, raw, findings, trained.preprocess, count))
    return [
        *sections,
        training.section(inputs.history, inputs.training, trained, inputs.split["train"]["images"]),
        audit.section(inputs.audit, inputs.suspects, inputs.manifest, raw, simulated=simulated),
        provenance.section(inputs.training, inputs.meta, inputs.hashes, trained, params),
        glossary(inputs.metrics["confidence"]),
    ]


def log(pages: list[Path], record: dict[str, Any], params: Params) -> None:
    """Add the pages to the training's MLflow run."""
    known = record["mlflow"]
    if not known["run_id"]:
        warn(f"the training has no MLflow run; the report is in {pages[0]} only")
        return
    run = Run(params.tracking, run_id=known["run_id"], uri=known["uri"])
    run.log_files(*pages)
    run.end()
