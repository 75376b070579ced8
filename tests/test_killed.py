"""A training that is killed ends with the same weights, bit for bit, as one that was not."""

import hashlib
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from pipeline.params_file import as_dict, parse_params, write_yaml

SCRIPT = Path(__file__).with_name("train_killed.py")
MOMENTS = (
    ".epoch-000001.partial/record.json",  # the first checkpoint is half there
    "epoch-000002",  # it is whole and has no name yet
    "history.csv",  # all epochs are done, the files are being put in their places
    "models/training.json",  # all but the last one are in their places
)


def write_params(folder: Path, **train: object) -> Path:
    """Write parameters with everything on that has a state: dropout, mixup, moving means, plateau, early stopping."""
    values = {
        "augment": {"mixup": 0.3},
        "model": {"weights": "none", "backbone": "MobileNetV3Small", "dropout": 0.2},
        "preprocess": {"size": 32},
        "optimizer": {"name": "adamw", "weight_decay": 1e-3, "learning_rate": 1e-3, "ema": 0.9},
        "schedule": {"name": "plateau", "patience": 1, "factor": 0.5},
        "train": {"epochs": 4, "batch_size": 8, "auc_images": 8, **train},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db", "system_metrics": False, "register": ""},
    }
    path = folder / "params.yaml"
    write_yaml(path, as_dict(parse_params(values, "the test")))
    return path


def run(folder: Path, processed: Path, moment: str = "never", **limits: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), moment, "train", str(processed), "models"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, **limits)


def weights_of(folder: Path) -> str:
    return hashlib.sha256((folder / "models/model.keras").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def unkilled(coded_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unkilled")
    write_params(folder)
    done = run(folder, coded_images)
    assert done.returncode == 0, done.stderr
    return folder


def test_killed_at_every_bad_moment_it_ends_with_the_same_bytes(unkilled, coded_images, tmp_path):
    write_params(tmp_path)
    for moment in MOMENTS:
        died = run(tmp_path, coded_images, moment)
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert not (tmp_path / "models/training.json").exists()
    again = run(tmp_path, coded_images)
    assert again.returncode == 0, again.stderr
    assert weights_of(tmp_path) == weights_of(unkilled)
    pd.testing.assert_frame_equal(*(pd.read_csv(folder / "models/history.csv") for folder in (tmp_path, unkilled)))
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == sorted(
        path.name for path in (unkilled / "models").iterdir()
    )


def test_a_killed_training_is_one_run_in_mlflow(coded_images, tmp_path):
    import mlflow

    write_params(tmp_path, epochs=2)
    assert run(tmp_path, coded_images, "epoch-000002").returncode == -signal.SIGKILL
    again = run(tmp_path, coded_images)
    assert "going on after epoch 1" in again.stderr
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (found,) = client.search_runs([client.get_experiment_by_name("chest-xray").experiment_id])
    assert found.info.status == "FINISHED"
    assert {item.step for item in client.get_metric_history(found.info.run_id, "val_auc")} == {1, 2}


def test_other_parameters_start_anew(coded_images, tmp_path):
    write_params(tmp_path)
    assert run(tmp_path, coded_images, "epoch-000002").returncode == -signal.SIGKILL
    write_params(tmp_path, epochs=1)
    again = run(tmp_path, coded_images)
    assert "starts anew" in again.stderr
    assert len(pd.read_csv(tmp_path / "models/history.csv")) == 1


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(coded_images, tmp_path):
    write_params(tmp_path)
    assert run(tmp_path, coded_images, "epoch-000002").returncode == -signal.SIGKILL

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))

    full = run(tmp_path, coded_images, preexec_fn=small_files)
    assert full.returncode == 1
    (line,) = [line for line in full.stderr.splitlines() if "error" in line]
    assert "File too large" in line
    assert "Traceback" not in full.stderr
    assert [path.name for path in (tmp_path / "models/.partial/checkpoints").iterdir()] == ["epoch-000001"]


def test_ctrl_c_says_that_it_can_go_on(coded_images, tmp_path):
    write_params(tmp_path, epochs=100)
    command = [sys.executable, str(SCRIPT), "never", "train", str(coded_images), "models"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 1/100" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "run it again to go on" in rest
    assert "Traceback" not in rest
    assert list((tmp_path / "models/.partial/checkpoints").glob("epoch-*"))
