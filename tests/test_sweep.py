"""Sweeps: the search is checked, trials train, are pruned, fail, and go on after a kill; table and figure are true."""

import os
import re
import signal
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.params_file import as_dict, parse_params, read_yaml, write_yaml
from pipeline.sweep import sweep
from pipeline.sweep_plot import axes_of, parallel_svg
from pipeline.sweep_space import base_of, choose, present_values, require_possible, used, with_values
from pipeline.sweep_table import Tried, block_of, markdown, table_of

RATE = "optimizer.learning_rate"


def searching(search: dict[str, Any], **sections: Any) -> Params:
    return parse_params({"sweep": {"search": search}, **sections}, "the test")


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"split.seed": {"values": [1]}}, "split.seed cannot be searched; allowed are keys of augment, model, loss"),
        ({"train.repeats": {"low": 1, "high": 3}}, "train.repeats cannot be searched: a trial is one training"),
        ({"model.drop": {"low": 0, "high": 0.5}}, "unknown key model.drop; allowed: model.backbone, .*model.dropout"),
        ({"model.dropout": {"low": 0.0, "high": 1.0}}, "model.dropout holds 1.0: input should be less than 1"),
        (
            {"train.batch_size": {"low": 8, "high": 16.5}},
            "train.batch_size holds 16.5: input should be a valid integer",
        ),
        ({"loss.name": {"values": ["focal", "dice"]}}, "loss.name holds 'dice': input should be 'focal', 'bin"),
        ({"loss.name": {"low": 0, "high": 1}}, "a range is for numbers"),
        ({"augment.enabled": {"low": False, "high": True}}, "a range is for numbers"),
        ({RATE: {"low": 0, "high": 1, "log": True}}, "a logarithm needs a low above 0"),
        ({RATE: {"low": 0.1, "high": 0.1}}, "low must lie below high"),
        ({RATE: {"low": 0.1}}, r"learning_rate is \{'low': 0.1\}; \{low: 0.1, high: 10, log: true\} or"),
        ({RATE: {"values": [0.1, 0.1]}}, "a list of different words or numbers is needed"),
        ({RATE: {"values": []}}, "a list of different words or numbers is needed"),
        ({"schedule.milestones": {"values": [[1, 2]]}}, "a list of different words or numbers is needed"),
        ({}, "at least 1 item"),
    ],
)
def test_a_search_that_makes_no_sense_is_one_line(search: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        searching(search)
    assert "\n" not in str(caught.value)


def test_a_key_that_no_trial_can_use_is_refused_with_the_reason() -> None:
    params = base_of(searching({"optimizer.momentum": {"low": 0.5, "high": 0.95}}))
    with pytest.raises(UserError, match=r"momentum is 0\.5, and only name sgd reads it, not adam"):
        require_possible(params)
    require_possible(
        base_of(
            searching({"optimizer.momentum": {"low": 0.5, "high": 0.95}, "optimizer.name": {"values": ["adam", "sgd"]}})
        )
    )
    with pytest.raises(UserError, match=r"train\.cluster is tf_config, and a sweep trains on this machine"):
        base_of(searching({RATE: {"low": 0.1, "high": 1}}, train={"cluster": "tf_config"}))
    with pytest.raises(UserError, match=r"sweep\.epochs is 3: .*milestones is \[5\] of train\.epochs 3; all must lie"):
        base_of(
            parse_params({"sweep": {"epochs": 3}, "schedule": {"name": "multi_step", "milestones": [5]}}, "the test")
        )


def test_a_key_has_a_part_in_the_trials_that_read_it_alone() -> None:
    search = {
        "optimizer.momentum": {"low": 0.5, "high": 0.95},
        "optimizer.name": {"values": ["adam", "sgd"]},
        RATE: {"low": 1e-4, "high": 1e-2},
    }
    params = base_of(searching(search))
    for name, keys in (("adam", ["optimizer.name", RATE]), ("sgd", list(search))):
        wanted = {"optimizer.name": name, "optimizer.momentum": 0.7, RATE: 3e-3}
        values = choose(params, lambda key, _space, wanted=wanted: wanted[key])
        assert used(params, values) == keys
        chosen = with_values(params, values).optimizer
        assert (chosen.name, chosen.momentum) == (name, 0.7 if name == "sgd" else 0.9)  # 0.9 is the default
    assert present_values(params) == {"optimizer.momentum": 0.9, "optimizer.name": "adam", RATE: 1e-4}
    assert present_values(base_of(searching({RATE: {"low": 1e-3, "high": 1}}))) is None


TRIALS = [
    Tried(1, "finished", {RATE: 1e-4, "loss.name": "focal"}, 0.7, 2, 3),
    Tried(2, "pruned", {RATE: 1e-2, "loss.name": "binary_crossentropy"}, 0.6, 1, 2),
    Tried(3, "failed", {RATE: 1.0, "loss.name": "focal"}, reason="the loss became NaN"),
    Tried(4, "finished", {"loss.name": "asymmetric"}, 0.8, 3, 3),
    Tried(5, "pruned", {RATE: 1e-3, "loss.name": "focal"}, 0.81, 1, 1),
]
SEARCH = {
    RATE: {"low": 1e-4, "high": 1.0, "log": True},
    "loss.name": {"values": ["focal", "binary_crossentropy", "asymmetric"]},
}
ABOUT = {"trials": 9, "preset": "nih", "epochs": 3, "images": 10, "patients": 8, "first": "Trial 1 is first."}


def test_the_table_is_sorted_and_the_best_is_a_finished_trial() -> None:
    table = table_of(TRIALS, list(SEARCH))
    assert table["trial"].tolist() == [5, 4, 1, 2, 3]
    assert table.loc[2, [RATE, "val_auc", "best_epoch", "epochs"]].tolist() == [1e-4, 0.7, 2, 3]
    assert table["reason"].tolist() == ["", "", "", "", "the loss became NaN"]
    page = markdown(TRIALS, list(SEARCH), ABOUT)
    rows = [line for line in page.splitlines() if re.match(r"\| \d", line)]
    assert rows[0] == "| 5 | 0.8100 | 1 of 1 | pruned after epoch 1 | 0.001 | focal |"
    assert rows[1] == "| 4 | **0.8000** | 3 of 3 | finished | – | asymmetric |"
    assert rows[4] == "| 3 | undefined |  | failed | 1 | focal |"
    assert "5 of 9 trials" in page
    assert "The best is trial 4" in page
    assert "- Trial 3 failed: the loss became NaN." in page
    assert "**The best of 5 is too good.**" in page


def test_the_block_to_paste_reads_back_as_the_trials_values(tmp_path: Path) -> None:
    values = {RATE: 0.00012345678901234567, "loss.name": "focal", "augment.enabled": False, "train.batch_size": 48}
    (tmp_path / "block.yaml").write_text(block_of(values))
    assert read_yaml(tmp_path / "block.yaml") == {
        "optimizer": {"learning_rate": 0.00012345678901234567},
        "loss": {"name": "focal"},
        "augment": {"enabled": False},
        "train": {"batch_size": 48},
    }


def test_the_figure_has_a_line_for_each_trial_with_an_auc_at_the_right_heights() -> None:
    rate, loss, auc = axes_of(TRIALS, SEARCH)
    assert [rate.height(value) for value in (1e-4, 1e-2, 1.0)] == pytest.approx([0, 0.5, 1])
    assert [loss.height(value) for value in SEARCH["loss.name"]["values"]] == [0, 0.5, 1]
    assert [auc.height(value) for value in (0.6, 0.705, 0.81)] == pytest.approx([0, 0.5, 1])
    assert [label for _, label in rate.ticks()] == ["0.0001", "0.01", "1"]
    drawn = ElementTree.fromstring(parallel_svg(TRIALS, SEARCH))
    lines = drawn.findall("{*}polyline")
    places = {line.find("{*}title").text.split(",")[0]: line.get("points") for line in lines}
    assert set(places) == {"trial 1", "trial 2", "trial 4", "trial 5"}
    # Axes stand at 140, 310 and 480, from 60 (above) to 320; a key without a part is 24 below.
    assert places["trial 2"] == "140,190 310,190 480,320"
    assert places["trial 4"].startswith("140,344 310,60 480,")
    assert [line.get("stroke-dasharray") is None for line in lines] == [False, True, True, False]  # lowest AUC first
    assert not re.search(r"(href|src|url\()", parallel_svg(TRIALS, SEARCH))


def test_a_figure_of_one_trial_or_none_is_drawn() -> None:
    for trials in (TRIALS[:1], TRIALS[2:3], []):
        ElementTree.fromstring(parallel_svg(trials, SEARCH))


def params_of(folder: Path, rates: list[float], trials: int, epochs: int = 2) -> Params:
    return parse_params(
        {
            "model": {"weights": "none", "backbone": "MobileNetV3Small"},
            "preprocess": {"size": 32},
            "optimizer": {"learning_rate": rates[0]},
            "schedule": {"warmup_epochs": 0.0},
            "train": {"batch_size": 8, "auc_images": 8},
            "sweep": {"trials": trials, "epochs": epochs, "search": {RATE: {"values": rates}}},
            "tracking": {"uri": f"sqlite:///{folder}/mlflow.db", "system_metrics": False, "register": ""},
        },
        "the test",
    )


AUCS = {1e-3: (0.7, 0.8), 1e-6: (0.6, 0.95), 1e-2: (0.75, 0.9)}


def pretended(send: Any, _data: Any, params: Params, folder: Path, boards: Path, label: str) -> dict[str, list[float]]:
    """Take the place of a training: send the figures above, go on after a kill, wait after an epoch without `go`."""
    root = folder.parents[2]
    rate = params.optimizer.learning_rate
    with (root / "calls").open("a") as calls:
        calls.write(f"{label} {rate:g} {params.train.epochs}\n")
    boards.mkdir(parents=True, exist_ok=True)
    if rate not in AUCS:
        raise UserError(f"the loss became NaN at {rate:g}")
    for epoch, auc in enumerate(AUCS[rate], start=1):
        if not (folder / f"epoch-{epoch}").exists():
            send({f"{label}/val_auc": auc, f"{label}/loss": 1.0}, epoch)
        if not (root / "go").exists():
            print("at work", flush=True)
            threading.Event().wait()  # so that the epoch is sent again
        (folder / f"epoch-{epoch}").touch()
    return {"val_auc": list(AUCS[rate])}


def pretend_sweep(folder: Path, images: Path, rates: list[float] = [1e-3, 1e-6, 1e30, 1e-2], out: str = "out") -> None:  # noqa: B006
    sweep(images, folder / out, params_of(folder, rates, trials=6), pretended)


@pytest.fixture(scope="module")
def swept(coded_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kill a sweep in its first trial, with another one waiting at the door, then begin it again until it is done."""
    folder = tmp_path_factory.mktemp("sweep 搜")
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow sets it itself when a test before this one chose a store
    code = (
        "import sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[1])\n"
        "if __name__ == '__main__':\n"
        "    from test_sweep import pretend_sweep\n    pretend_sweep(*map(Path, sys.argv[2:]))"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(folder), str(coded_images)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        with pytest.raises(UserError, match=f"another sweep is at work in {folder}/out"):
            pretend_sweep(folder, coded_images)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)  # the stream ends with the trial's own process
    assert not (folder / "out/sweep.md").exists()
    (folder / "go").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        pretend_sweep(folder, coded_images)
    return folder


def test_a_killed_sweep_goes_on_prunes_and_survives_a_trial_that_diverges(swept: Path) -> None:
    table = pd.read_csv(swept / "out/sweep.csv").set_index(RATE)
    assert table.loc[[1e-3, 1e-6, 1e30, 1e-2], "state"].tolist() == ["finished", "pruned", "failed", "finished"]
    assert table.loc[[1e-3, 1e-6, 1e-2], "val_auc"].tolist() == [0.8, 0.6, 0.9]
    assert table.loc[[1e-3, 1e-6, 1e-2], "epochs"].tolist() == [2, 1, 2]
    assert table.loc[1e-3, "trial"] == 1  # the parameters' own value comes first
    assert table.loc[1e30, "reason"] == "the loss became NaN at 1e+30"
    page = (swept / "out/sweep.md").read_text(encoding="utf-8")
    assert "learning_rate: 0.01\n```" in page
    assert "Trial 1 has the values of the parameter file." in page
    calls = (swept / "calls").read_text().splitlines()
    # No value twice, though there were to be six trials of four values: only the killed trial was begun again.
    assert calls[:2] == ["trial-1 0.001 2"] * 2
    assert len({line.split()[1] for line in calls}) == 4 == len(calls) - 1
    ElementTree.fromstring((swept / "out/parallel.svg").read_text(encoding="utf-8"))


def test_the_trials_are_runs_within_one_run(swept: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{swept}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("chest-xray").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    trials = {run.data.tags["mlflow.runName"]: run for run in runs if run is not parent}
    assert (parent.info.status, parent.data.metrics["best_val_auc"]) == ("FINISHED", 0.9)
    assert len(trials) == 4 == len(runs) - 1
    assert {run.data.tags["mlflow.parentRunId"] for run in trials.values()} == {parent.info.run_id}
    assert sorted(run.data.tags["state"] for run in trials.values()) == ["failed", "finished", "finished", "pruned"]
    first = trials["trial-1"]
    assert first.data.params[RATE] == "0.001"
    epochs = client.get_metric_history(first.info.run_id, "val_auc")
    # The kill may come after the epoch reached MLflow and before the study noted it: then it stands twice, the same.
    assert sorted({(metric.step, metric.value) for metric in epochs}) == [(1, 0.7), (2, 0.8)]
    assert len(epochs) <= 3


def test_a_finished_sweep_trains_nothing(swept: Path, coded_images: Path) -> None:
    calls, table = ((swept / name).read_bytes() for name in ("calls", "out/sweep.csv"))
    pretend_sweep(swept, coded_images)
    assert ((swept / "calls").read_bytes(), (swept / "out/sweep.csv").read_bytes()) == (calls, table)


def test_a_search_in_which_everything_fails_is_given_up(swept: Path, coded_images: Path) -> None:
    with pytest.raises(UserError, match=r"all of the first 3 trials failed, the last because: the loss became NaN at"):
        pretend_sweep(swept, coded_images, [1e30, 1e31, 1e32, 1e33], "hopeless")
    assert "None is finished." in (swept / "hopeless/sweep.md").read_text(encoding="utf-8")


def test_real_trainings_are_swept_by_the_command(coded_images: Path, tmp_path: Path) -> None:
    write_yaml(tmp_path / "params.yaml", as_dict(params_of(tmp_path, [1e-3, 1e30], trials=2, epochs=1)))
    command = [str(Path(sys.executable).with_name("cxr")), "sweep", str(coded_images)]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "reports/sweep/sweep.csv")
    assert table["state"].tolist() == ["finished", "failed"]
    assert 0 <= table.loc[0, "val_auc"] <= 1
    assert table.loc[1, "reason"].startswith("the loss became NaN in epoch 1")
    assert "best of 2: trial 1, validation AUC" in done.stderr
    # Nothing but table, figure and curves is kept.
    (folder,) = [path for path in (tmp_path / "reports/sweep").iterdir() if path.is_dir()]
    assert [path.name for path in folder.iterdir()] == ["tensorboard"]
