"""The champion changes by the rule alone, every decision is on record, and a killed command leaves nothing torn."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from promotion_case import Project, copied, make_project, predictions, register_models, sha256
from test_tracking import free_port, server, stop  # noqa: F401 (a fixture)

from pipeline.cli import main
from pipeline.params_file import read_yaml
from pipeline.repeats import member_models

REPOSITORY = Path(__file__).resolve().parents[1]
SKILL = {"good": 2.0, "better": 2.6, "poor": 0.8}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Return a project with three registered models and no champion."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where MLflow puts the artifacts
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return make_project(folder, 3)


@pytest.fixture
def project(template, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return copied(template, tmp_path)


def test_the_first_model_needs_no_champion_to_beat(project, capsys):
    project.present(1, predictions(SKILL["poor"]))
    assert main(["promote"]) == 0
    assert project.champion() == "1"
    said = capsys.readouterr().out
    assert "with no champion to compare with, 250 test images of 150 patients" in said
    assert re.search(r"^promoted: version 1 is the first champion: there was none to compare with", said, re.M)
    stored = project.folder / "models" / "champion" / "0001"
    assert {path.name for path in stored.iterdir()} == {
        "predictions.csv",
        "metrics.json",
        "calibration.json",
        "training.json",
        "model.keras",
        "evidence.json",
    }
    lines = (stored / "predictions.csv").read_text(encoding="utf-8").splitlines()
    table = (project.folder / "reports" / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert lines == [table[0], *(line for line in table if ",test," in line)]
    members = member_models(stored, json.loads((stored / "training.json").read_text(encoding="utf-8")))
    assert [member.path for member in members] == [stored / "model.keras"]  # so that `cxr evaluate` can score it


def test_a_badly_calibrated_model_is_no_first_champion(project, capsys):
    project.present(1, predictions(SKILL["good"]), ece=0.051)
    assert main(["promote"]) == 3
    assert project.champion() is None
    assert "refused: the mean calibration error is 0.0510, above 0.05" in capsys.readouterr().out
    project.present(1, predictions(SKILL["good"]), ece=0.05)
    assert main(["promote"]) == 0


def with_champion(project: Project, skill: str = "good") -> None:
    project.present(1, predictions(SKILL[skill]))
    assert main(["promote", "-q"]) == 0


def test_a_better_model_takes_the_place_and_the_record_says_why(project):
    import mlflow

    with_champion(project)
    first = {version["model_sha256"] for version in project.trainings[:1]}
    project.present(2, predictions(SKILL["better"]))
    assert main(["promote"]) == 0
    assert project.champion() == "2"
    record = project.records()[1]
    assert (record["number"], record["outcome"]) == (2, "promoted")
    assert record["registry"]["before"] == "1"
    assert record["registry"]["after"] == "2"
    assert {record["champion"]["model_sha256"]} == first
    assert record["candidate"]["model_sha256"] == sha256(project.folder / "models" / "model.keras")
    assert record["candidate"]["predictions_sha256"] == sha256(project.folder / "reports" / "predictions.csv")
    assert record["test"] | {"sha256": ""} == {"images": 250, "patients": 150, "sha256": "", "earlier_decisions": 1}
    assert record["rule"]["promote"]["macro_margin"] == 0.02
    assert record["rule"]["evaluate"]["resamples"] == 200
    paths = sorted((project.folder / "models" / "promotions").glob("[0-9]*.json"))
    assert record["previous_record_sha256"] == sha256(paths[0])
    names = {check["name"] for check in record["checks"]}
    assert {"macro AUROC", "Effusion", "Mass", "Edema", "sex female", "view AP", "age 60-79", "mean ECE"} <= names
    page = paths[1].with_suffix(".md").read_text(encoding="utf-8")
    assert page.startswith("# Decision 0002: promoted\n")
    client = mlflow.MlflowClient(project.uri)
    run_id = project.trainings[1]["mlflow"]["run_id"]
    logged = {Path(item.path).name for item in client.list_artifacts(run_id, "promotions")}
    assert logged == {paths[1].name, paths[1].with_suffix(".md").name}
    tags = client.get_model_version("chest", "2").tags
    assert tags == {"promotion.record": paths[1].stem, "promotion.outcome": "promoted"}


def test_a_worse_model_is_refused_and_changes_nothing_but_the_records(project, capsys):
    with_champion(project)
    before = project.state()
    project.present(2, predictions(SKILL["poor"]))
    assert main(["promote"]) == 3
    after = project.state()
    assert {name: after[name] for name in before} == before
    new = sorted(set(after) - set(before))
    assert [Path(name).suffix for name in new] == [".json", ".md"]
    said = capsys.readouterr().out
    assert re.search(r"^refused: macro AUROC differs by -0\.\d+.*; version 1 stays champion$", said, re.M)
    assert [record["outcome"] for record in project.records()] == ["promoted", "refused"]


def test_a_dry_run_decides_alike_and_stores_nothing(project, capsys):
    with_champion(project)
    before = project.state()
    for skill, status, word in (("poor", 3, "refused"), ("better", 0, "promoted")):
        project.present(2, predictions(SKILL[skill]))
        assert main(["promote", "--dry-run"]) == status
        assert f"\n{word}: " in capsys.readouterr().out
        assert main(["promote", "--undo", "--dry-run"]) == 0
    assert project.state() == before


def test_undo_goes_back_step_by_step_to_no_champion(project, capsys):
    with_champion(project)
    project.present(2, predictions(SKILL["better"]))
    assert main(["promote"]) == 0
    project.present(3, predictions(SKILL["poor"]))
    assert main(["promote"]) == 3  # a refusal is nothing to undo
    assert main(["promote", "--undo"]) == 0
    assert project.champion() == "1"
    assert main(["promote"]) == 3  # the evidence of version 1 is in force again
    assert project.records()[-1]["champion"]["version"] == "1"
    assert main(["promote", "--undo"]) == 0
    assert project.champion() is None
    capsys.readouterr()
    assert main(["promote", "--undo"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "there is nothing to undo" in said
    assert [record["undoes"] for record in project.records()] == [None, None, None, 2, None, 1]
    assert main(["promote"]) == 0  # anew, with no champion to beat


def test_what_was_undone_can_be_promoted_again_and_undone_again(project):
    with_champion(project)
    project.present(2, predictions(SKILL["better"]))
    for _ in range(2):
        assert main(["promote"]) == 0
        assert project.champion() == "2"
        assert main(["promote", "--undo"]) == 0
        assert project.champion() == "1"


def test_undo_to_a_version_that_was_deleted_changes_nothing(project, capsys):
    import mlflow

    with_champion(project)
    project.present(2, predictions(SKILL["better"]))
    assert main(["promote"]) == 0
    mlflow.MlflowClient(project.uri).delete_model_version("chest", "1")
    before = project.state()
    assert main(["promote", "--undo"]) == 1
    assert "has no version 1 any more" in capsys.readouterr().err
    assert project.state() == before


def test_other_test_images_are_refused_until_the_champion_is_evaluated_on_them(project, capsys):
    with_champion(project)
    more = predictions(SKILL["better"], images=330)
    project.present(2, more)
    before = project.state()
    assert main(["promote"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "the candidate has 275 test images, the champion 250, and 250 are the same" in said
    assert "cxr evaluate models/champion/0001/model.keras data/processed reports/champion" in said
    assert "film-" not in said
    assert "patient-" not in said
    assert project.state() == before
    project.present(1, predictions(SKILL["good"], images=330))
    shutil.move("reports", "again")
    assert main(["promote", "models/champion/0001/model.keras", "again"]) == 0
    assert "recorded: version 1 is champion: the champion was evaluated anew" in capsys.readouterr().out
    project.present(2, more)
    assert main(["promote"]) == 0
    assert project.records()[-1]["champion"]["version"] == "1"
    assert project.champion() == "2"
    assert main(["promote", "--undo"]) == 0
    assert project.champion() == "1"


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("y_Mass", 1, "test images have another patient or label"),
        ("patient_id", "another", "test images have another patient or label"),
    ],
)
def test_other_labels_or_patients_are_refused(project, capsys, column, value, words):
    with_champion(project)
    table = predictions(SKILL["better"])
    table[column] = value
    project.present(2, table)
    assert main(["promote"]) == 1
    assert words in capsys.readouterr().err


def test_other_findings_or_another_way_to_score_are_refused(project, capsys):
    with_champion(project)
    project.present(2, predictions(SKILL["better"]).drop(columns=["y_Mass", "p_Mass"]))
    assert main(["promote"]) == 1
    assert "findings are Effusion, Edema, the champion's Effusion, Mass, Edema" in capsys.readouterr().err
    project.present(2, predictions(SKILL["better"]), flip=True)
    assert main(["promote"]) == 1
    assert "evaluate.flip is True and was False" in capsys.readouterr().err
    project.present(2, predictions(SKILL["better"]), ensemble=True)
    assert main(["promote"]) == 1
    assert "scores the mean of several models, and the registry holds one" in capsys.readouterr().err


def test_an_evaluation_of_another_model_or_of_another_day_is_refused(project, capsys):
    project.present(2, predictions(SKILL["better"]))
    old = (project.folder / "reports" / "metrics.json").read_text(encoding="utf-8")
    project.present(1, predictions(SKILL["good"]))
    (project.folder / "reports" / "metrics.json").write_text(old, encoding="utf-8")
    assert main(["promote"]) == 1
    assert "metrics.json is not of models/model.keras" in capsys.readouterr().err
    project.present(1, predictions(SKILL["good"]))
    predictions(SKILL["better"]).to_csv(project.folder / "reports" / "predictions.csv", index=False)
    assert main(["promote"]) == 1
    assert "are not of the same evaluation" in capsys.readouterr().err
    (project.folder / "models" / "model.keras").write_bytes(b"another")
    assert main(["promote"]) == 1
    assert "do not belong together" in capsys.readouterr().err
    assert project.state() == {"alias": "None"}


def test_a_missing_probability_is_refused(project, capsys):
    table = predictions(SKILL["good"])
    table.loc[1, "p_Mass"] = None
    project.present(1, table)
    assert main(["promote"]) == 1
    assert "test images without a probability" in capsys.readouterr().err


def test_the_champion_itself_is_not_judged(project, capsys):
    with_champion(project)
    before = project.state()
    capsys.readouterr()
    assert main(["promote"]) == 0
    assert capsys.readouterr().out == "version 1 is champion already, and its evidence is stored\n"
    assert project.state() == before


def test_an_alias_that_was_moved_by_hand_is_noticed_and_can_be_recorded(project, capsys):
    with_champion(project)
    registry = project.registry
    registry.move("champion", "3")
    project.present(2, predictions(SKILL["better"]))
    before = project.state()
    for arguments in (["promote"], ["promote", "--undo"]):
        assert main(arguments) == 1
        said = capsys.readouterr().err
        assert "the alias champion is at version 3, and the records say version 1" in said
        assert said.count("\n") == 1
    assert project.state() == before
    project.present(3, predictions(SKILL["good"], seed=5))
    assert main(["promote"]) == 0
    assert "moved by others than cxr promote" in capsys.readouterr().out
    assert main(["promote", "--undo"]) == 1  # there is nothing of its own to go back to
    project.present(2, predictions(SKILL["better"]))
    assert main(["promote"]) == 0
    registry.move("champion", None)
    assert main(["promote"]) == 1
    assert "was removed in MLflow, and the records say version 2" in capsys.readouterr().err


def test_a_champion_without_evidence_here_is_not_replaced(project, capsys):
    project.registry.move("champion", "1")
    project.present(2, predictions(SKILL["better"]))
    assert main(["promote"]) == 1
    assert "the alias champion is at version 1, and models/champion has no evidence of it" in capsys.readouterr().err
    assert project.champion() == "1"


def test_changed_evidence_is_refused_and_stored_anew(project, capsys):
    with_champion(project)
    stored = project.folder / "models" / "champion" / "0001" / "predictions.csv"
    stored.write_bytes(stored.read_bytes().replace(b"0.9", b"0.1"))
    project.present(2, predictions(SKILL["poor"]))
    assert main(["promote"]) == 1
    assert "evidence of the champion, is missing or was changed" in capsys.readouterr().err
    project.present(1, predictions(SKILL["good"]))
    assert main(["promote"]) == 0
    project.present(2, predictions(SKILL["poor"]))
    assert main(["promote"]) == 3


def test_a_changed_or_missing_record_is_noticed(project, capsys):
    with_champion(project)
    project.present(2, predictions(SKILL["better"]))
    assert main(["promote"]) == 0
    first = min((project.folder / "models" / "promotions").glob("[0-9]*.json"))
    text = first.read_text(encoding="utf-8")
    first.write_text(text.replace('"outcome": "promoted"', '"outcome": "refused"'), encoding="utf-8")
    assert main(["promote", "--undo"]) == 1
    assert "does not follow the record before it" in capsys.readouterr().err
    first.unlink()
    assert main(["promote", "--undo"]) == 1
    first.write_text(text, encoding="utf-8")
    assert main(["promote", "--undo"]) == 0


def test_no_image_or_patient_is_named_outside_of_the_evidence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = make_project(tmp_path, 2)  # a store of its own: MLflow remembers for a run where its artifacts lie
    with_champion(project)
    project.present(2, predictions(SKILL["better"]))
    assert main(["promote"]) == 0
    assert main(["promote", "--undo"]) == 0
    names = re.compile(rb"film-\d|patient-\d")
    records = list((project.folder / "models" / "promotions").iterdir())
    runs = [path for path in (project.folder / "mlruns").rglob("*") if path.is_file()]
    assert len(records) == 6
    assert any(path.parent.name == "promotions" for path in runs)
    for path in (*records, *runs, project.folder / "mlflow.db"):
        assert not names.search(path.read_bytes()), path
    assert not names.search("".join(capsys.readouterr()).encode())
    assert names.search((project.folder / "models" / "champion" / "0001" / "predictions.csv").read_bytes())


def test_two_commands_do_not_decide_at_once(project, capsys):
    import fcntl

    with_champion(project)
    with (project.folder / "models" / "champion" / ".lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert main(["promote", "--undo"]) == 1
    assert "another `cxr promote` is at work" in capsys.readouterr().err
    assert main(["promote", "--undo"]) == 0


def test_the_exit_status_is_that_of_the_process(project):
    with_champion(project)
    project.present(2, predictions(SKILL["poor"]))
    command = [sys.executable, "-m", "pipeline.cli", "promote", "--dry-run"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 3, done.stderr
    assert done.stderr == "dry run: nothing was stored\n"


def test_a_real_server_gets_alias_tags_and_records_and_its_death_changes_nothing(
    server,  # noqa: F811
    project,
    tmp_path,
    monkeypatch,
    capsys,
):
    import mlflow

    uri, process = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "600")  # no test may fail because the machine is slow
    project.trainings = register_models(project.folder, 2, uri)
    capsys.readouterr()
    project.present(1, predictions(SKILL["good"]))
    assert main(["promote"]) == 0
    project.present(2, predictions(SKILL["better"]))
    assert main(["promote"]) == 0
    client = mlflow.MlflowClient(uri)
    assert client.get_registered_model("chest").aliases == {"champion": "2"}
    assert client.get_model_version("chest", "2").tags["promotion.outcome"] == "promoted"
    logged = client.list_artifacts(project.trainings[1]["mlflow"]["run_id"], "promotions")
    assert len(logged) == 2
    assert "could not be logged" not in capsys.readouterr().err
    stop(process)
    files = {path: sha256(path) for path in (tmp_path / "models").rglob("*") if path.is_file()}
    for arguments in (["promote"], ["promote", "--undo"]):
        assert main(arguments) == 1
        said = capsys.readouterr()
        assert said.err.count("\n") == 1
        assert f"the MLflow registry {uri} failed (ConnectionError)" in said.err
        assert said.out == ""
    assert {path: sha256(path) for path in (tmp_path / "models").rglob("*") if path.is_file()} == files


def test_a_registry_that_is_away_is_one_line_without_the_password(project, monkeypatch, capsys):
    project.present(1, predictions(SKILL["good"]))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:hunter2@127.0.0.1:{free_port()}")
    assert main(["promote"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "hunter2" not in said
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert project.state() == {"alias": "None"}


def agree(project: Project) -> None:
    """Assert that alias, records and evidence say the same, and that nothing is pending."""
    champion, models = project.champion(), project.folder / "models"
    records = project.records()
    assert [record["number"] for record in records] == list(range(1, len(records) + 1))
    assert records[-1]["registry"]["after"] == champion
    made = [record for record in records if record["outcome"] == "promoted"]
    folders = {path.name for path in (models / "champion").iterdir() if path.is_dir() and path.name[0] != "."}
    assert folders == {f"{record['number']:04d}" for record in made}
    for record in made:
        about = json.loads((models / "champion" / f"{record['number']:04d}" / "evidence.json").read_text())
        assert about["version"] == record["candidate"]["version"]
    assert not (models / "champion" / "pending.json").exists()
    assert len(list((models / "promotions").glob("[0-9]*.md"))) == len(records)


@pytest.mark.skipif(os.name == "nt", reason="needs os.fork")
@pytest.mark.parametrize(
    ("arguments", "skill", "champion", "outcomes"),
    [
        (["promote"], "better", "2", ["promoted", "promoted"]),
        (["promote"], "poor", "1", ["promoted", "refused"]),
        (["promote", "--undo"], "good", None, ["promoted", "undone"]),
    ],
    ids=["promoted", "refused", "undone"],
)
def test_a_command_killed_at_any_change_is_finished_or_taken_back_by_the_next(
    project, tmp_path_factory, monkeypatch, capsys, arguments, skill, champion, outcomes
):
    with_champion(project)
    project.present(2, predictions(SKILL[skill]))
    folder = tmp_path_factory.mktemp("killed")
    script = Path(__file__).with_name("promotion_killed.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(script.parent)))}
    command = [sys.executable, str(script), str(project.folder), str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    result = json.loads(done.stdout)
    assert result["status"] == (3 if outcomes[-1] == "refused" else 0)
    assert len(result["places"]) >= 5
    seen = set()
    for place in result["places"]:
        monkeypatch.chdir(place)
        copy = Project(Path(place), project.trainings)
        pending = (Path(place) / "models" / "champion" / "pending.json").exists()
        seen.add((pending, copy.champion()))
        status = main(arguments)
        said = capsys.readouterr()
        assert pending == ("was killed" in said.err), said.err
        if arguments == ["promote", "--undo"] and "finished now" in said.err:
            assert status == 1  # the first one is finished, and then there is nothing more to undo
        else:
            assert status == result["status"]
        agree(copy)
        assert copy.champion() == champion
        assert [record["outcome"] for record in copy.records()][:2] == outcomes
    # It was killed before, between and after: with the alias still there, and with the alias moved.
    assert {champion for _, champion in seen} == {"1", champion}
    assert {pending for pending, _ in seen} == {True, False}


def test_evidence_is_kept_out_of_git_and_out_of_what_the_stages_and_make_clean_remove(tmp_path):
    git = shutil.which("git")
    if git is None or not (REPOSITORY / ".git").exists():
        pytest.skip("needs the git repository")
    ignored = [git, "check-ignore", "-q", "models/champion/0001/predictions.csv"]
    assert subprocess.run(ignored, cwd=REPOSITORY, check=False).returncode == 0
    made = [
        next(iter(item)) if isinstance(item, dict) else item
        for stage in read_yaml(REPOSITORY / "dvc.yaml")["stages"].values()
        for kind in ("outs", "metrics", "plots")
        for item in stage.get(kind, [])
    ]
    assert not [name for name in made if Path("models/champion").is_relative_to(name) or "champion" in name]
    kept = tmp_path / "models" / "champion" / "0001" / "predictions.csv"
    record = tmp_path / "models" / "promotions" / "0001-20261121T000000Z.json"
    for path in (kept, record):
        path.parent.mkdir(parents=True)
        path.write_text("kept", encoding="utf-8")
    (tmp_path / "models" / "model.keras").write_text("removed", encoding="utf-8")
    shutil.copyfile(REPOSITORY / "Makefile", tmp_path / "Makefile")
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert kept.exists()
    assert record.exists()
    assert not (tmp_path / "models" / "model.keras").exists()
