"""What the report refuses to read, and where it is logged."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from report_project import Project, copy_of, draw_films, nih_project

from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.manifest import read_manifest
from pipeline.tracking import Run


@pytest.fixture
def copy(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Project:
    return copy_of(nih_project(tmp_path_factory.getbasetemp()), tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "reports/data/ingest.json",
        "reports/data/split.json",
        "reports/data/audit.json",
        "reports/data/audit.csv",
        "reports/metrics.json",
        "reports/calibration.json",
        "reports/operating_points.json",
        "reports/subgroups.json",
        "reports/floor.json",
        "reports/localisation.json",
        "reports/predictions.csv",
        "reports/plots/roc.csv",
        "reports/plots/pr.csv",
        "reports/plots/reliability.csv",
        "reports/cases/cases.json",
        "reports/cases/001.png",
        "data/manifest.csv",
        "data/processed/meta.json",
        "data/processed/index.csv",
        "models/history.csv",
        "models/params.yaml",
        "models/training.json",
    ],
)
def test_missing_input_is_named(copy: Project, name: str) -> None:
    (copy.root / name).unlink()
    (copy.root / "reports" / "report.html").unlink()
    with pytest.raises(UserError, match=re.escape(Path(name).name)):
        copy.report()
    assert not (copy.root / "reports" / "report.html").exists()


@pytest.mark.parametrize("name", ["calibration", "operating_points", "floor"])
def test_scores_of_another_run_are_refused(copy: Project, name: str) -> None:
    document = copy.document(name)
    del document["findings"]["Mass"]
    copy.write(name, document)
    with pytest.raises(UserError, match=f"{name}.json and metrics.json do not belong to the same run"):
        copy.report()


def test_a_mixture_of_runs_is_refused(copy: Project) -> None:
    training = copy.root / "models" / "training.json"
    write_json(training, read_json(training) | {"processed_sha256": "0" * 64})
    with pytest.raises(UserError, match=r"training.json and the processed images do not belong to the same run"):
        copy.report()


def test_an_audit_of_other_tables_is_refused(copy: Project) -> None:
    path = copy.root / "reports" / "data" / "audit.json"
    write_json(path, read_json(path) | {"splits_sha256": "0" * 64})
    with pytest.raises(UserError, match=r"audit\.json and the processed images do not belong to the same run"):
        copy.report()


def test_changed_image_is_refused(copy: Project) -> None:
    manifest = read_manifest(copy.root / "data" / "manifest.csv")
    draw_films([copy.root / "data" / "raw" / path for path in manifest["path"]], side=50)
    with pytest.raises(UserError, match="has changed since it was ingested"):
        copy.report()


@pytest.mark.filterwarnings("ignore")  # those of MLflow and what it imports
def test_report_joins_the_training_run(copy: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    uri = "sqlite:///runs.db"
    tracking = replace(copy.params.tracking, uri=uri, system_metrics=False)
    run = Run(tracking, name="training")
    run.end()
    training = copy.root / "models" / "training.json"
    write_json(training, read_json(training) | {"mlflow": {"run_id": run.id, "uri": uri}})
    copy.report(replace(copy.params, tracking=tracking))
    from mlflow import MlflowClient

    papers = ["checklists.json", "claim2024.md", "model_card.json", "model_card.md", "report.html", "tripod_ai.md"]
    assert sorted(item.path for item in MlflowClient(uri).list_artifacts(run.id)) == papers
    assert MlflowClient(uri).get_run(run.id).info.status == "FINISHED"


def test_without_a_run_it_says_so(copy: Project, capsys: pytest.CaptureFixture[str]) -> None:
    copy.report()
    assert "the training has no MLflow run" in capsys.readouterr().err
