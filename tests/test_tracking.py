"""MLflow: a real server, one that is away, and one that goes away in the middle."""

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from pipeline.params import TrackingParams
from pipeline.tracking import LOCAL_STORE, Run, code_version, store_uri, without_secrets

QUIET = {"system_metrics": False, "register": ""}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    import mlflow

    while mlflow.active_run():
        mlflow.end_run()


def answers(uri: str) -> bool:
    try:
        with urllib.request.urlopen(uri + "/health", timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture
def server(tmp_path):
    """Start `mlflow server` and wait until it answers or dies."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("mlflow")), "server", "--workers", "1", "--port", str(port)]
    command += [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        str(tmp_path / "a"),
    ]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
            start_new_session=True,
        )
    uri = f"http://127.0.0.1:{port}"
    while not answers(uri):
        with pytest.raises(subprocess.TimeoutExpired):  # it must still be starting
            process.wait(timeout=0.1)
    yield uri, process
    stop(process)


def stop(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, 9)
        process.wait()


def test_a_server_gets_the_run_and_its_death_stops_nothing(server, tmp_path, capsys):
    import mlflow

    uri, process = server
    run = Run(TrackingParams(uri=uri, **QUIET), name="first")
    run.log_params({"train": {"epochs": 3}})
    run.log_metrics({"val_auc": 0.75, "undefined": float("nan")}, step=1)
    (tmp_path / "history 史.csv").write_text("epoch\n")
    run.log_files(tmp_path / "history 史.csv")
    seen = mlflow.MlflowClient(uri).get_run(run.id).data
    assert (seen.params, seen.metrics) == ({"train.epochs": "3"}, {"val_auc": 0.75})
    assert [item.path for item in mlflow.MlflowClient(uri).list_artifacts(run.id)] == ["history 史.csv"]
    assert capsys.readouterr().err == ""
    stop(process)
    run.log_metrics({"val_auc": 0.8}, step=2)
    run.log_metrics({"val_auc": 0.9}, step=3)
    run.end()
    said = capsys.readouterr().err
    assert said.count("warning: MLflow failed") == 1
    assert "its figures are in models/ and reports/" in said


def test_a_server_that_is_away_is_a_warning_and_the_run_is_kept_here(tmp_path, capsys, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:hunter2@127.0.0.1:{free_port()}")
    run = Run(TrackingParams(**QUIET), name="kept")
    run.log_metrics({"val_auc": 0.5}, step=1)
    run.end()
    said = capsys.readouterr().err
    assert "cannot be reached" in said
    assert "hunter2" not in said
    assert run.uri == LOCAL_STORE
    assert mlflow.MlflowClient(LOCAL_STORE).get_run(run.id).data.metrics == {"val_auc": 0.5}
    assert (tmp_path / "mlflow.db").is_file()


def test_the_environment_names_the_store_first(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
    assert store_uri(TrackingParams()) == "sqlite:///elsewhere.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert store_uri(TrackingParams()) == LOCAL_STORE


def test_evaluation_goes_on_in_the_run_of_the_training():
    import mlflow

    first = Run(TrackingParams(**QUIET), name="first")
    first.end()
    again = Run(TrackingParams(**QUIET), run_id=first.id, uri=first.uri)
    again.log_metrics({"test_auc": 0.9})
    again.end()
    assert again.id == first.id
    assert mlflow.MlflowClient(LOCAL_STORE).get_run(first.id).data.metrics == {"test_auc": 0.9}


def test_telemetry_is_off():
    Run(TrackingParams(**QUIET), name="quiet").end()
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_credentials_are_removed_from_messages():
    uri = "http://user:hunter2@mlflow.example:5000"
    assert without_secrets(uri) == "http://mlflow.example:5000"
    assert without_secrets("sqlite:///mlflow.db") == "sqlite:///mlflow.db"


def test_code_version_is_a_commit_or_says_that_there_is_none():
    version = code_version().removesuffix("-dirty")
    assert version == "no git" or len(version) == 40
