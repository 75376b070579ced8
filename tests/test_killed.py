"""A training that is killed ends with the same weights, bit for bit, as one that was not."""

import hashlib
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd

from pipeline.params_file import as_dict, parse_params, write_yaml

SCRIPT = Path(__file__).with_name("train_killed.py")


def write_params(folder: Path, **train: object) -> Path:
    """Write parameters with everything on that has a state: dropout, mixup, moving means, plateau, early stopping."""
    values = {
        "augment": {"mixup": 0.3},
        "model": {"weights": "none", "backbone": "MobileNetV3Small", "dropout": 0.2},
        "preprocess": {"size": 32},
        "optimizer": {"name": "adamw", "weight_decay": 1e-3, "learning_rate": 1e-3, "ema": 0.9},
        "schedule": {"name": "plateau", "patience": 1, "factor": 0.5},
        "train": {"epochs": 3, "batch_size": 8, "auc_images": 8, **train},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db", "system_metrics": False, "register": ""},
    }
    path = folder / "params.yaml"
    write_yaml(path, as_dict(parse_params(values, "the test")))
    return path


def run(folder: Path, processed: Path, moment: str = "never", **limits: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "die", moment, "train", str(processed), "models"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, **limits)


def weights_of(folder: Path) -> str:
    return hashlib.sha256((folder / "models/model.keras").read_bytes()).hexdigest()


def die(folder: Path, processed: Path, moment: str) -> None:
    died = run(folder, processed, moment)
    assert died.returncode == -signal.SIGKILL, died.stderr


def interrupt(folder: Path, processed: Path) -> None:
    """Press Ctrl-C within the second epoch, after its second step."""
    command = [sys.executable, str(SCRIPT), "wait", "1:1", "train", str(processed), "models"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        rest = process.communicate()[1]
    assert process.returncode == 130
    assert "run it again to go on" in rest
    assert "Traceback" not in rest


def fill_the_disk(folder: Path, processed: Path) -> None:
    """Let no file grow beyond 4 MB, which a checkpoint does."""

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))

    before = sorted((folder / "models/.partial/checkpoints").glob("epoch-*"))
    full = run(folder, processed, preexec_fn=small_files)
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    (line,) = [line for line in full.stderr.splitlines() if "error" in line]
    assert "could not be written" in line
    assert "File too large; what was there before stays" in line
    assert sorted((folder / "models/.partial/checkpoints").iterdir()) == before != []


def test_stopped_at_every_bad_moment_it_ends_with_the_same_bytes(coded_images, tmp_path):
    for name in ("unkilled", "killed"):
        (tmp_path / name).mkdir()
        write_params(tmp_path / name)
    unkilled, killed = tmp_path / "unkilled", tmp_path / "killed"
    straight = run(unkilled, coded_images)
    assert straight.returncode == 0, straight.stderr

    die(killed, coded_images, "checkpoints/epoch-000002")  # it is whole and has no name yet
    assert {path.name for path in (killed / "models").iterdir()} <= {".partial", "tensorboard"}
    fill_the_disk(killed, coded_images)
    interrupt(killed, coded_images)
    die(killed, coded_images, "models/training.json")  # all but the last one are in their places
    assert not (killed / "models/training.json").exists()
    again = run(killed, coded_images)
    assert again.returncode == 0, again.stderr

    assert weights_of(killed) == weights_of(unkilled)
    pd.testing.assert_frame_equal(*(pd.read_csv(folder / "models/history.csv") for folder in (killed, unkilled)))
    left = [sorted(path.name for path in (folder / "models").iterdir()) for folder in (killed, unkilled)]
    assert left[0] == left[1]
    one_run_in_mlflow(killed)


def one_run_in_mlflow(folder: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (found,) = client.search_runs([client.get_experiment_by_name("chest-xray").experiment_id])
    assert found.info.status == "FINISHED"
    assert {item.step for item in client.get_metric_history(found.info.run_id, "val_auc")} == {1, 2, 3}
