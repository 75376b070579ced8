"""Ablations: real DVC experiments in a small project of the same shape, killed and continued; the paired table."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.ablation import Variant, absolute_uri, chosen, key_of, linked_paths, variants_of
from pipeline.ablation_table import compare, markdown
from pipeline.cli import main
from pipeline.errors import UserError
from pipeline.params import EvaluateParams, Params, TrackingParams
from pipeline.params_file import as_dict, parse_params, read_yaml, write_yaml

DVC_YAML = """\
stages:
  download:
    cmd: python stages.py download
    params: [simulate]
    outs:
      - data/raw: {cache: false, persist: true}
  preprocess:
    cmd: python stages.py preprocess
    deps: [data/raw, stages.py]
    params: [preprocess]
    outs:
      - data/processed: {persist: true}
  train:
    cmd: python stages.py train
    deps: [data/processed, stages.py]
    params: [augment, model, loss, train, tracking]
    outs: [models/model.keras, models/repeats, models/training.json]
  evaluate:
    cmd: python stages.py evaluate
    deps: [models/model.keras, stages.py]
    params: [evaluate]
    outs: [reports/predictions.csv]
    metrics:
      - reports/metrics.json: {cache: false}
"""
PARAMS = {"model": {"weights": "none"}, "evaluate": {"resamples": 200}}
VARIANTS = ("no-clahe", "cross-entropy")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment without git's identity, ImageNet weights or MLflow's address."""
    folder = tmp_path_factory.mktemp("home 家")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ours = {"PATH": path, "HOME": str(folder), "KERAS_HOME": str(folder), "NOTES": str(folder)}
    dropped = ("GIT_", "XDG_", "MLFLOW_", "EMAIL")
    return {key: value for key, value in os.environ.items() if not key.startswith(dropped)} | ours


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """Return a committed project, its parameters changed since; the name has a space and a Chinese character."""
    folder = tmp_path_factory.mktemp("胸 project")
    (folder / "dvc.yaml").write_text(DVC_YAML)
    shutil.copy(Path(__file__).with_name("ablation_stages.py"), folder / "stages.py")
    for name in ("data", "models", "reports"):
        (folder / name).mkdir()
        (folder / name / ".gitignore").write_text("*\n!.gitignore\n" + "!metrics.json\n" * (name == "reports"))
    write_yaml(folder / "params.yaml", as_dict(Params()))
    for command in (
        ["git", "init", "--quiet"],
        ["dvc", "init", "--quiet"],
        ["git", "add", "."],
        ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "--quiet", "-m", "start"],
    ):
        subprocess.run(command, cwd=folder, env=environment, check=True)
    write_yaml(folder / "params.yaml", as_dict(parse_params(PARAMS, "the test")))
    return folder


def cxr(
    project: Path, environment: dict[str, str], *words: str, out: str = "reports/ablation", **more: str
) -> subprocess.CompletedProcess[str]:
    command = ["cxr", "ablation", *words, "--out", out]
    return subprocess.run(command, cwd=project, env=environment | more, capture_output=True, text=True, check=False)


def state(project: Path, environment: dict[str, str]) -> list[object]:
    """Return what a user would miss: parameters, tracked and untracked files, commit, branch, stash, results."""
    git = [["status", "--porcelain"], ["stash", "list"], ["rev-parse", "HEAD"], ["symbolic-ref", "HEAD"], ["diff"]]
    said = [subprocess.check_output(["git", *words], cwd=project, env=environment) for words in git]
    names = ("params.yaml", "dvc.lock", "data/raw/films.txt", "models/model.keras", "reports/predictions.csv")
    return [*said, *((project / name).read_bytes() for name in names)]


@pytest.fixture(scope="module")
def killed(project: Path, environment: dict[str, str]) -> dict[str, object]:
    """Kill an ablation in the middle of its second variant; try again while that is at work, then let it end."""
    command = ["cxr", "ablation", "-q", "--only", *VARIANTS]
    with (Path(environment["NOTES"]) / "go").open("w") as go:
        fcntl.flock(go, fcntl.LOCK_EX)
        with subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True) as owner:
            said = list(takewhile(lambda line: line != "begun\n", owner.stdout))  # ends when variant 2 is at work
            found: dict[str, object] = {"table": (project / "reports/ablation/ablation.md").read_text()}
            owner.kill()
        assert owner.returncode == -signal.SIGKILL, said
        found |= {"state": state(project, environment), "again": cxr(project, environment)}
    with (project / ".dvc/tmp/ablation.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # comes when the orphan has ended
    return found


@pytest.fixture(scope="module")
def finished(project: Path, environment: dict[str, str], killed: dict[str, object]) -> dict[str, object]:
    """Run the killed ablation again, with a third variant, which fails; then once more what is finished."""
    done = cxr(project, environment, FAILING="augment")
    once_more = cxr(project, environment, "--only", "no-clahe", out="reports/once more")
    trained = (Path(environment["NOTES"]) / "trained.txt").read_text().splitlines()
    after = {"done": done, "once more": once_more, "trained": trained, "state after": state(project, environment)}
    return {**killed, **after}


def test_a_killed_ablation_leaves_the_project_as_it_was_and_a_table_of_what_was_done(project, finished):
    assert finished["state"] == finished["state after"]
    assert read_yaml(project / "params.yaml") == as_dict(parse_params(PARAMS, "the test"))
    assert "`preprocess.clahe=false`" in str(finished["table"])
    assert "cross-entropy" not in str(finished["table"])


def test_an_ablation_waits_for_the_experiment_of_a_killed_one(killed):
    again = killed["again"]
    assert again.returncode == 1
    assert again.stderr.splitlines()[-1].startswith("cxr ablation: error: another ablation of")


def test_a_variant_that_fails_is_named_and_the_status_is_1(project, finished):
    assert finished["done"].returncode == 1
    assert "warning: variant no-augmentation failed" in finished["done"].stderr
    page = (project / "reports/ablation/ablation.md").read_text(encoding="utf-8")
    assert "- no-augmentation (augment.enabled=false) failed." in page
    assert "- imagenet is left out: its weights are not on this machine" in page
    assert finished["once more"].returncode == 0, finished["once more"].stderr


def test_run_again_it_goes_on_with_what_is_missing(finished):
    # The baseline, then each variant once, not registered, its MLflow runs in the project's own store.
    signals = [line.split(" ", 3)[:3] for line in finished["trained"]]
    assert signals == [
        ["1.5", "focal", "'chest-xray'"],
        ["0.5", "focal", "''"],
        ["1.5", "binary_crossentropy", "''"],
    ]


def test_runs_go_to_the_projects_own_store(project, finished):
    places = [line.split(" ", 3)[3] for line in finished["trained"]]
    assert places == ["None", *[f"sqlite:///{project}/mlflow.db"] * 2]


def test_variants_are_experiments_and_run_only_the_stages_that_they_change(project, environment, finished):
    assert "Running stage 'download'" not in finished["done"].stdout
    command = ["git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps/*/*/ablation-*"]
    names = subprocess.check_output(command, cwd=project, env=environment, text=True).split()
    assert [name.rpartition("-")[0] for name in names] == ["ablation-cross-entropy", "ablation-no-clahe"]


@pytest.mark.usefixtures("finished")
def test_the_table_holds_scikit_learns_areas_of_the_validation_images(project):
    folder = project / "reports" / "ablation"
    table = pd.read_csv(folder / "ablation.csv", keep_default_na=True).set_index("variant")
    areas = {}
    for name in ("baseline", *VARIANTS):
        rows = pd.read_csv(folder / name / "predictions.csv").query("split == 'val'")
        areas[name] = np.mean([roc_auc_score(rows[f"y_{item}"], rows[f"p_{item}"]) for item in ("Mass", "Edema")])
        assert table.loc[name, "auc"] == pytest.approx(areas[name])
    for name in VARIANTS:
        row = table.loc[name]
        assert row["difference"] == pytest.approx(areas[name] - areas["baseline"])
        assert row["difference_ci_low"] < row["difference"] < row["difference_ci_high"]
        assert (row["images"], row["patients"], row["n_findings"], row["seeds"]) == (80, 40, 2, 2)
    assert table.loc["no-clahe", "difference_ci_high"] < 0  # its signal is much weaker
    page = (folder / "ablation.md").read_text(encoding="utf-8")
    assert "80 images of 40 patients" in page
    assert "| cross-entropy | `loss.name=binary_crossentropy` |" in page
    assert "0.5000, sd 0.3536, 2 seeds" in page


def test_without_git_or_dvc_yaml_it_says_what_is_needed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert main(["ablation"]) == 1
    assert "holds no dvc.yaml" in capsys.readouterr().err
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    assert main(["ablation"]) == 1
    assert "DVC keeps experiments in one: run `git init`" in capsys.readouterr().err
    assert main(["ablation", "--params", "other.yaml"]) == 1
    assert "which reads params.yaml" in capsys.readouterr().err


def test_each_variant_turns_one_parameter_of_the_baseline():
    default = Params()
    assert [variant.change for variant in variants_of(default)] == [
        "preprocess.clahe=false",
        "loss.name=binary_crossentropy",
        "augment.enabled=false",
        "model.weights=none",
    ]
    other = {"preprocess": {"clahe": False}, "loss": {"name": "binary_crossentropy"}, "augment": {"enabled": False}}
    turned = variants_of(parse_params({**other, "model": {"weights": "mine.keras"}}, "the test"))
    assert [variant.name for variant in turned] == ["clahe", "focal", "augmentation", "imagenet", "random-weights"]


def test_imagenet_is_offered_only_where_its_file_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    params = parse_params({"model": {"weights": "none"}}, "the test")
    variants, left_out = chosen(params, [])
    assert [variant.name for variant in variants] == ["no-clahe", "cross-entropy", "no-augmentation"]
    assert left_out == [capsys.readouterr().err.strip()]
    assert left_out[0].startswith("imagenet is left out: its weights are not on this machine")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5").touch()
    assert chosen(params, ["imagenet"]) == ([Variant("imagenet", "model.weights=imagenet")], [])
    with pytest.raises(UserError, match="no variant flip of these parameters; allowed: no-clahe, cross-entropy"):
        chosen(params, ["flip"])


def test_the_key_changes_with_what_decides_the_figures_and_with_nothing_else():
    lock = {"stages": {"train": {"cmd": "t", "deps": [{"path": "data/processed", "md5": "1"}], "params": {"a": 1}}}}
    key = key_of(lock)
    stages = lock["stages"]
    model = {"evaluate": {"cmd": "e", "deps": [{"path": "models/model.keras", "md5": "1"}]}}
    other = {"evaluate": {"cmd": "e", "deps": [{"path": "models/model.keras", "md5": "2"}]}}
    assert key_of({"stages": stages | model}) == key_of({"stages": stages | other})
    assert key_of({"stages": stages | {"report": {"cmd": "r"}}}) == key
    data = {"train": stages["train"] | {"deps": [{"path": "data/processed", "md5": "2"}]}}
    assert len({key, key_of({"stages": data}), key_of({"stages": {"train": stages["train"] | {"cmd": "u"}}})}) == 3


def test_paths_mean_the_same_in_the_copy(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlruns").mkdir()
    given = ("sqlite:///mlflow.db", "sqlite:////srv/mlflow.db", "mlruns", "https://mlflow.example", "databricks")
    assert [absolute_uri(tmp_path, TrackingParams(uri=uri)) for uri in given] == [
        f"sqlite:///{tmp_path}/mlflow.db",
        "sqlite:////srv/mlflow.db",
        f"{tmp_path}/mlruns",
        "https://mlflow.example",
        "databricks",
    ]
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "mine.keras").touch()
    mine = parse_params({"model": {"weights": "mine.keras"}}, "the test")
    assert linked_paths(tmp_path, mine) == ["data/raw", "mine.keras"]
    assert linked_paths(tmp_path, Params()) == ["data/raw"]


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Return a folder with a baseline, the same model again in another order, and one that is never wrong."""
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 2, 60).astype(float)
    table = pd.DataFrame({"image_id": [f"{n:03d}" for n in range(60)], "patient_id": [f"0{n // 3}" for n in range(60)]})
    table["split"] = ["val"] * 54 + ["test"] * 6
    table["y_Mass"], table["y_Hernia"] = labels, 0.0
    table["p_Mass"], table["p_Hernia"] = labels * 0.2 + rng.random(60) * 0.5, rng.random(60)
    perfect = table.assign(p_Mass=labels)
    for name, rows in (("baseline", table), ("same", table.sample(frac=1, random_state=1)), ("perfect", perfect)):
        (tmp_path / name).mkdir()
        rows.to_csv(tmp_path / name / "predictions.csv", index=False)
        (tmp_path / name / "training.json").write_text('{"repeats": [{"val_auc": 0.5}]}')
    return tmp_path


def test_the_same_model_differs_by_nothing_and_images_are_paired_by_name(tables):
    params = EvaluateParams(resamples=100)
    table = compare(tables, {"same": "a.b=1", "perfect": "a.b=2"}, params).set_index("variant")
    assert table.loc["same", ["difference", "difference_ci_low", "difference_ci_high"]].tolist() == [0, 0, 0]
    assert table.loc["same", "auc"] == table.loc["baseline", "auc"]
    assert table.loc["perfect", "auc"] == 1
    assert table.loc["perfect", "difference"] == pytest.approx(1 - table.loc["baseline", "auc"])
    assert table["n_findings"].tolist() == [1, 1, 1]  # Hernia has no positive: it is undefined, not 0.5
    assert np.isnan(table.loc["baseline", "difference"])
    assert np.isnan(table.loc["baseline", "seeds_auc_sd"])


def test_other_images_patients_or_labels_are_not_compared(tables):
    path = tables / "same" / "predictions.csv"
    table = pd.read_csv(path, dtype=str)
    for changed in (
        table.assign(image_id=table["image_id"].replace("003", "999")),
        table.assign(patient_id="1"),
        table.assign(y_Mass="1"),
        table[table["image_id"] != "003"],
    ):
        changed.to_csv(path, index=False)
        with pytest.raises(UserError, match="variant same and the baseline have other validation images"):
            compare(tables, {"same": "a.b=1"}, EvaluateParams(resamples=100))


def test_the_page_says_what_the_figures_are_not(tables):
    params = parse_params({"evaluate": {"resamples": 100, "confidence": 0.9}}, "the test")
    page = markdown(compare(tables, {"perfect": "a.b=2"}, params.evaluate), params, ["imagenet is left out: no file"])
    assert "The test split has no part in this page" in page
    assert "set `train.repeats` to 3 or more" in page
    assert "| perfect | `a.b=2` | 1.0000 (1.0000 to 1.0000) | +" in page
    assert "AUROC (90 % interval)" in page
    assert "\n- imagenet is left out: no file.\n" in page
