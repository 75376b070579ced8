"""Stage `report`: one self-contained HTML page from what the earlier stages wrote; no score is computed here."""

from pathlib import Path
from typing import Any

from pipeline import report_audit
from pipeline import report_tables as tables
from pipeline import report_text as text
from pipeline.files import write_text
from pipeline.findings import readable
from pipeline.params import Params
from pipeline.progress import note, warn
from pipeline.report_examples import choose_examples, draw_example
from pipeline.report_figures import forest_axis, forest_mark, line_chart, roc_path
from pipeline.report_inputs import Inputs, check_inputs, read_inputs
from pipeline.tracking import Run

_TEMPLATES = Path(__file__).parent / "templates"


def report(reports: Path, manifest: Path, raw: Path, processed: Path, models: Path, params: Params) -> None:
    """Write `report.html` and log it to the training's MLflow run.

    The same inputs give the same bytes. The page names no patient and no image.

    Parameters
    ----------
    reports : Path
        Where `evaluate` wrote `metrics.json`, `predictions.csv` and `plots/roc.csv`, and earlier stages `data/`; the
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
    write_text(page, render(assemble(inputs, raw, params)))
    log(page, inputs.training, params)
    note(f"report in {page} ({page.stat().st_size / 1e6:.1f} MB)")


def assemble(inputs: Inputs, raw: Path, params: Params) -> dict[str, Any]:
    """Gather all that the template shows.

    Returns
    -------
    dict
        Plain values: strings that are ready to print, and geometry of the figures.
    """
    metrics, findings = inputs.metrics, list(inputs.meta["findings"])
    axis = forest_axis([*metrics["test"]["findings"].values(), metrics["test"]["macro"]])
    return {
        "title": params.report.title,
        "headline": text.headline(metrics, inputs.trained.split),
        "notices": text.notices(metrics, inputs.trained.download.source),
        "data": {
            "preset": inputs.meta["dataset"],
            "about": text.about_data(inputs.trained),
            "flow": tables.inclusion(inputs.ingest, inputs.split),
            "notes": list(inputs.ingest["notes"].items()),
            "characteristics": tables.characteristics({"All": inputs.index}),
        },
        "split": {
            "protocol": text.explain_protocol(inputs.trained.split),
            "left_out": inputs.split["left_out"],
            "characteristics": tables.characteristics(tables.by_split(inputs.index)),
            "prevalence": tables.prevalence(inputs.split, findings),
        },
        "audit": report_audit.section(
            inputs.audit,
            inputs.suspects,
            inputs.manifest,
            raw,
            simulated=inputs.trained.download.source == "simulated",
        ),
        "results": {
            "rows": tables.results(metrics, lambda scores: forest_mark(scores, axis)),
            "axis": axis,
            "level": text.level(metrics["confidence"]),
            "resamples": metrics["resamples"],
            "flip": metrics.get("flip", False),
            "has_unknown": any(row["n_unknown"] for row in metrics["test"]["findings"].values()),
            "below_chance": text.not_above_chance(metrics),
            "validation": text.validation(metrics),
        },
        "roc": _roc_panels(inputs, findings),
        "training": _training(inputs),
        "examples": _examples(inputs, raw, params),
        "network": {"size": inputs.meta["size"], **inputs.meta["preprocess"]},
        "reproduce": {
            "commands": text.commands(inputs.training["code_version"], inputs.trained),
            "dirty": text.code_caveat(inputs.training["code_version"]),
            "facts": tables.facts(inputs.training),
            "hashes": tables.hashes(inputs.hashes, inputs.meta, inputs.training),
            "params": tables.parameters(inputs.trained, params),
        },
    }


def render(context: dict[str, Any]) -> str:
    """Fill the template. Every value is escaped; a name that the context lacks is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(context) + "\n"


def log(page: Path, training: dict[str, Any], params: Params) -> None:
    """Add the page to the training's MLflow run."""
    known = training["mlflow"]
    if not known["run_id"]:
        warn(f"the training has no MLflow run; the report is in {page} only")
        return
    run = Run(params.tracking, run_id=known["run_id"], uri=known["uri"])
    run.log_files(page)
    run.end()


def _roc_panels(inputs: Inputs, findings: list[str]) -> list[dict[str, Any]]:
    test = inputs.metrics["test"]
    panels = []
    for name in findings:
        points = inputs.roc[inputs.roc["finding"] == name]
        caption = text.score_with_interval(test["findings"][name], test["images"])
        path = roc_path(points["fpr"].tolist(), points["tpr"].tolist())
        panels.append({"name": readable(name), "path": path, "caption": caption})
    return panels


def _training(inputs: Inputs) -> dict[str, Any]:
    history, training = inputs.history, inputs.training
    epochs = [int(epoch) + 1 for epoch in history["epoch"]]
    charts = []
    for title, unit, train, val in (("Loss", "loss", "loss", "val_loss"), ("AUC", "mean AUC", "train_auc", "val_auc")):
        series = {"train": history[train].tolist(), "val": history[val].tolist()}
        charts.append({"title": title, "unit": unit, **line_chart(epochs, series, training["best_epoch"])})
    return {
        "charts": charts,
        "best_epoch": training["best_epoch"],
        "epochs": training["epochs"],
        "val_auc": text.number(training["val_auc"]),
        "loss": text.LOSSES[inputs.trained.train.loss],
        "auc_images": min(inputs.trained.train.auc_images, inputs.split["train"]["images"]),
        "augmented": inputs.trained.augment.enabled,
    }


def _examples(inputs: Inputs, raw: Path, params: Params) -> list[dict[str, Any]]:
    findings = list(inputs.meta["findings"])
    rows = inputs.index[inputs.index["split"] == "train"].reset_index(drop=True)
    paths = dict(zip(inputs.manifest["image_id"], inputs.manifest["path"], strict=True))
    examples = []
    for place in choose_examples(rows[findings], params.report.examples):
        row = rows.iloc[place]
        pictures = draw_example(raw / paths[row["image_id"]], row["sha256"], inputs.trained.preprocess)
        examples.append({"caption": text.caption(row, findings), "pictures": pictures})
    return examples
