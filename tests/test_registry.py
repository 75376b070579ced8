"""The model registry: a real store, none, one that is away, and a model that a training registered."""

import warnings

import numpy as np
import pytest
from promotion_case import MODEL, Project, make_project
from test_tracking import free_port

from pipeline.errors import UserError
from pipeline.params import TrackingParams
from pipeline.registry import Registry
from pipeline.tracking import Run


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield make_project(folder, 2)


@pytest.fixture(autouse=True)
def _no_address_in_the_environment(project, monkeypatch):  # noqa: ARG001 (made first)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow itself sets it, when a run is started


def registry_of(project: Project, **values: str) -> Registry:
    return Registry(TrackingParams(**{"uri": project.uri, "register": MODEL, **values}))


def test_the_alias_is_nowhere_then_where_it_was_moved_then_nowhere(project):
    registry = registry_of(project)
    assert registry.holder("champion") is None
    registry.move("champion", "2")
    assert registry.holder("champion") == "2"
    assert registry.holder("another") is None
    registry.move("champion", "1")
    assert registry_of(project).holder("champion") == "1"
    registry.move("champion", None)
    assert registry.holder("champion") is None


def test_a_version_is_found_by_its_run(project):
    registry = registry_of(project)
    for version, training in enumerate(project.trainings, start=1):
        assert registry.version_of(training["mlflow"]["run_id"], project.uri) == str(version)


def test_a_model_that_the_training_logs_is_found_by_its_run(project):
    import keras

    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2, "sigmoid")])
    run = Run(TrackingParams(uri=project.uri, register="keras-model", system_metrics=False), name="training")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's, on type hints of its own
        run.log_model(model, np.zeros((1, 4), np.float32))
    run.end()
    assert registry_of(project, register="keras-model").version_of(run.id, run.uri) == "1"


@pytest.mark.parametrize(
    ("run_id", "elsewhere", "words"),
    [
        ("", False, "the training has no MLflow run"),
        ("0" * 32, False, "has no version of run 000"),
        ("0" * 32, True, "the training's run is in sqlite:///elsewhere.db, and the registry in use is"),
    ],
)
def test_a_model_that_is_not_registered_here_is_refused(project, run_id, elsewhere, words):
    with pytest.raises(UserError, match=words):
        registry_of(project).version_of(run_id, "sqlite:///elsewhere.db" if elsewhere else project.uri)


def test_an_unknown_model_has_no_champion_and_an_unknown_version_is_refused(project):
    assert registry_of(project, register="never-registered").holder("champion") is None
    registry = registry_of(project)
    registry.require_version("2")
    with pytest.raises(UserError, match="has no version 9 any more"):
        registry.require_version("9")
    with pytest.raises(UserError, match="not found"):
        registry.move("champion", "9")
    assert registry.holder("champion") is None


def test_no_name_is_refused(project):
    with pytest.raises(UserError, match=r"tracking\.register is empty"):
        registry_of(project, register="")


def test_a_store_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        Registry(TrackingParams(uri=f"sqlite:///{tmp_path}/mlflow.db"))
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_database_is_one_line(tmp_path):
    (tmp_path / "mlflow.db").write_text("no database", encoding="utf-8")
    with pytest.raises(UserError, match="failed") as caught:
        Registry(TrackingParams(uri=f"sqlite:///{tmp_path}/mlflow.db")).holder("champion")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("slash", ["", "/"])
def test_no_message_holds_a_user_name_or_password(monkeypatch, slash):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna:hunter2@127.0.0.1:{free_port()}{slash}")
    with pytest.raises(UserError, match="ConnectionError") as caught:
        Registry(TrackingParams())
    assert "hunter2" not in str(caught.value)
    assert "anna" not in str(caught.value)
