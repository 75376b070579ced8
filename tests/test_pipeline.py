"""The main job: `dvc repro` from nothing to the report, on a tiny simulated set, in a folder with an awkward name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pipeline.files import sha256_file
from pipeline.params import Params
from pipeline.params_file import as_dict, load_params, parse_params, write_yaml

ROOT = Path(__file__).parents[1]
TINY = {
    "simulate": {"patients": 24, "size": 64},
    "preprocess": {"size": 32, "shard_images": 16},
    "model": {"weights": "none"},
    "optimizer": {"learning_rate": 1e-3},
    "train": {"epochs": 2, "batch_size": 16, "auc_images": 16},
    "evaluate": {"resamples": 100},
    "export": {"formats": ["float16"]},  # of eleven validation images int8 can change the AUC by more than it may
    "tracking": {"system_metrics": False},
}


DOCUMENTS = ("metrics", "calibration", "operating_points", "subgroups", "floor", "localisation")
TABLES = (
    "data/manifest.csv",
    "data/splits.csv",
    "reports/predictions.csv",
    *(f"reports/{name}.json" for name in DOCUMENTS),
)


def run(folder: Path, *command: str) -> str:
    """Run a command of the environment in a project folder; its output, or the test fails with it."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    env.pop("MLFLOW_TRACKING_URI", None)
    # As in a user's clone: Python writes __pycache__ beside the modules, which DVC must not take for a change.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    env["PYTHONPATH"] = str(folder)
    done = subprocess.run(command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    return done.stdout


def outputs(folder: Path) -> dict[str, str]:
    """Hash what must be the same from the same seed."""
    shards = sorted((folder / "data/processed").glob("*.tfrecord"))
    tables = [folder / name for name in TABLES] + sorted((folder / "reports/plots").glob("*.csv"))
    return {str(path.relative_to(folder)): sha256_file(path) for path in [*shards, *tables]}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("胸 片")
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    names = [name for name in tracked if name] or ["pipeline", "configs", "dvc.yaml", ".dvc/config", "params.yaml"]
    for name in names:
        if name.split("/")[0] in {"pipeline", "configs", "data", "models", "reports", ".dvc"} or "/" not in name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, folder / name)
    write_yaml(folder / "params.yaml", as_dict(parse_params(TINY, "the test")))
    (folder / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    run(folder, "dvc", "repro")
    return folder


def test_every_stage_left_its_output(project):
    report = (project / "reports/report.html").read_text(encoding="utf-8")
    assert "Hernia" in report
    metrics = json.loads((project / "reports/metrics.json").read_text())
    assert metrics["protocol"] == "patient"
    assert metrics["test"]["macro"]["n_findings"] + len(metrics["test"]["macro"]["undefined"].split(", ")) >= 14
    predictions = pd.read_csv(project / "reports/predictions.csv", dtype={"image_id": str, "patient_id": str})
    splits = pd.read_csv(project / "data/splits.csv", dtype=str)
    wanted = splits[splits["split"] != "train"].set_index("image_id")["patient_id"]
    assert predictions.set_index("image_id")["patient_id"].to_dict() == wanted.to_dict()
    assert load_params(project / "models/params.yaml") == load_params(project / "params.yaml")
    assert not list(project.rglob("*.partial*"))


def test_the_checklists_point_at_what_is_there(project):
    page = (project / "reports/report.html").read_text(encoding="utf-8")
    lists = json.loads((project / "reports/checklists.json").read_text(encoding="utf-8"))
    assert {name: len(each["items"]) for name, each in lists.items()} == {"claim2024": 44, "tripod_ai": 52}
    for each in lists.values():
        assert each["answered"] == sum(bool(item["answer"]) for item in each["items"])
        for item in each["items"]:
            assert bool(item["answer"]) == bool(item["evidence"]), item
            for place in filter(None, item["evidence"].split("; ")):
                name, _, anchor = place.partition(" ")[0].partition("#")
                folder = project / "reports" if name == "report.html" else project
                assert (folder / name).exists() or (ROOT / name).exists(), place
                assert not anchor or f'id="{anchor}"' in page, place


def test_the_run_is_in_mlflow(project):
    code = (
        "import json, mlflow\nmlflow.set_tracking_uri('sqlite:///mlflow.db')\n"
        "run = mlflow.search_runs(search_all_experiments=True, output_format='list')[0]\n"
        "client = mlflow.MlflowClient()\n"
        "print(json.dumps([run.data.params, run.data.tags, len(client.get_metric_history(run.info.run_id, 'val_auc')),"
        "[f.path for f in client.list_artifacts(run.info.run_id)], run.data.metrics,"
        "client.get_registered_model('chest-xray').latest_versions[0].version, run.info.status]))"
    )
    params, tags, epochs, files, metrics, version, status = json.loads(
        run(project, sys.executable, "-c", code).splitlines()[-1]
    )
    assert params["preprocess.size"] == "32"
    assert {f"{section}.{key}" for section, keys in as_dict(Params()).items() for key in keys} <= set(params)
    assert tags["manifest_sha256"] == sha256_file(project / "data/manifest.csv")
    assert tags["splits_sha256"] == sha256_file(project / "data/splits.csv")
    assert epochs == 2
    wanted = {"report.html", "model_card.md", "claim2024.md", "tripod_ai.md", "checklists.json"}
    wanted |= {"history.csv", "params.yaml", "metrics.json", "calibration.json", "subgroups.json", "plots"}
    assert wanted <= set(files)
    assert not {"predictions.csv", "cases"} & set(files)  # they hold patients
    assert metrics["test_auc"] == pytest.approx(
        json.loads((project / "reports/metrics.json").read_text())["test"]["macro"]["auc"]
    )
    assert (int(version), status) == (1, "FINISHED")


def test_the_model_in_mlflow_predicts_what_the_file_predicts(project):
    code = (
        "import mlflow, numpy as np\nfrom pathlib import Path\nfrom pipeline.model import load_model\n"
        "mlflow.set_tracking_uri('sqlite:///mlflow.db')\nx = np.full((2, 32, 32, 1), 90, np.uint8)\n"
        "theirs = mlflow.pyfunc.load_model('models:/chest-xray/1').predict(x)\n"
        "np.testing.assert_allclose(theirs, load_model(Path('models/model.keras')).predict(x, verbose=0), atol=1e-6)"
    )
    run(project, sys.executable, "-c", code)


def test_repro_again_does_nothing_and_metrics_and_plots_show(project):
    assert "Data and pipelines are up to date" in run(project, "dvc", "repro")
    assert "test.macro.auc" in run(project, "dvc", "metrics", "show")
    assert "index.html" in run(project, "dvc", "plots", "show")


def test_promote_takes_what_evaluate_wrote(project):
    done = subprocess.run(
        [Path(sys.executable).with_name("cxr"), "promote", "--dry-run"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(project)},
    )
    assert done.returncode in (0, 3), done.stderr  # promoted, or refused for the calibration of so small a model
    assert "mean ECE" in done.stdout
    assert not (project / "models/champion").exists()


def test_changing_evaluate_reruns_from_evaluate_only(project):
    values = as_dict(load_params(project / "params.yaml"))
    values["evaluate"]["resamples"] = 101
    write_yaml(project / "params.yaml", values)
    said = run(project, "dvc", "repro", "report")  # as `make train`; an export is made in the fixture
    assert "Running stage 'evaluate'" in said
    assert "Running stage 'report'" in said
    for stage in ("download", "ingest", "split", "preprocess", "train"):
        assert f"Stage '{stage}' didn't change, skipping" in said


def test_same_seed_same_split_shards_and_metrics(project):
    before = outputs(project)
    run(project, "dvc", "repro", "--force", "--no-run-cache", "report")
    assert outputs(project) == before
    assert set(TABLES) < set(before)
    assert {"reports/plots/roc.csv", "reports/plots/reliability.csv"} < set(before)
    assert any(name.endswith(".tfrecord") for name in before)


def test_a_mistake_is_one_line(project, tmp_path):
    path = tmp_path / "bad params.yaml"
    path.write_text("train:\n  epoch: 3\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("cxr"), "train", "--params", path], cwd=project, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "unknown key train.epoch" in done.stderr
