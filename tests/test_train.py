"""Training: the best epoch is a file, a failure leaves none, and evaluation takes only what belongs together."""

import dataclasses
import json
import re
import shutil
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import UserError
from pipeline.evaluate import evaluate
from pipeline.metrics import macro_auroc
from pipeline.params import Params
from pipeline.params_file import as_dict, load_params, parse_params, write_yaml
from pipeline.precision import resolve_precision
from pipeline.repeats import member_models
from pipeline.shards import INDEX, META, open_processed, write_index
from pipeline.train import require_defined_auc, train


def params_of(folder: Path, learning_rate: float = 1e-3, **training: object) -> Params:
    return parse_params(
        {
            "model": {"weights": "none"},
            "preprocess": {"size": 32},
            "optimizer": {"learning_rate": learning_rate},
            "schedule": {"name": "plateau"},
            "train": {"epochs": 3, "batch_size": 8, "auc_images": 8, **training},
            "evaluate": {"resamples": 100, "localise": False, "cases": 0},
            "tracking": {"uri": f"sqlite:///{folder}/mlflow.db", "system_metrics": False, "register": ""},
        },
        "the test",
    )


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    """Return a table of boxes that holds none."""
    path = tmp_path_factory.mktemp("boxes") / "boxes.csv"
    path.write_text("image_id,finding,x,y,width,height,file_width,file_height\n")
    return path


@pytest.fixture(scope="module")
def trained(coded_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("模型 models")
    params = params_of(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(coded_images, folder / "models", params)
    return folder / "models", params


def test_precision_auto_is_recorded_as_what_it_stood_for(monkeypatch):
    for flags, expected in (({"avx512_bf16"}, "mixed_bfloat16"), ({"avx512f"}, "float32")):
        monkeypatch.setattr("pipeline.precision.cpu_flags", lambda found=flags: found)
        params = parse_params({"train": {"precision": "auto"}}, "the test")
        assert resolve_precision(params).train.precision == expected


def test_the_kept_model_is_that_of_the_best_epoch(trained, coded_images):
    from pipeline.model import load_model
    from pipeline.scoring_input import predict

    models, params = trained
    data = open_processed(coded_images)
    history = pd.read_csv(models / "history.csv")
    training = json.loads((models / "training.json").read_text())
    assert len(history) == params.train.epochs
    assert training["best_epoch"] == history["val_auc"].idxmax() + 1
    again = macro_auroc(
        data.labels[(data.table["split"] == "val").to_numpy()],
        predict(load_model(models / "model.keras"), data, "val", 4),
    )
    assert again == pytest.approx(training["val_auc"], abs=1e-9) == pytest.approx(history["val_auc"].max())
    assert load_params(models / "params.yaml") == params
    assert not (models / ".partial").exists()


def test_one_training_lists_itself_as_its_only_repeat(trained):
    models, _ = trained
    training = json.loads((models / "training.json").read_text())
    keys = ("val_auc", "best_epoch", "epochs", "model_sha256")
    assert training["repeats"] == [{"seed": 7, "path": "model.keras"} | {key: training[key] for key in keys}]
    assert [path.name for path in (models / "repeats").iterdir()] == ["repeats.csv"]


@pytest.fixture(scope="module")
def repeated(coded_images, tmp_path_factory):
    """Train with seeds 7 and 8, on top of what an earlier training left."""
    folder = tmp_path_factory.mktemp("repeats")
    (folder / "models/repeats/seed-9").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it itself when a store is chosen
        train(coded_images, folder / "models", params_of(folder, repeats=2))
    return folder


def test_each_repeat_is_what_its_seed_alone_gives(trained, repeated, coded_images, tmp_path):
    first, _ = trained
    train(coded_images, tmp_path / "models", params_of(tmp_path, seed=8))
    for alone, together in ((first, repeated / "models"), (tmp_path / "models", repeated / "models/repeats/seed-8")):
        pd.testing.assert_frame_equal(pd.read_csv(alone / "history.csv"), pd.read_csv(together / "history.csv"))
    histories = [pd.read_csv(folder / "history.csv")["val_auc"] for folder in (first, tmp_path / "models")]
    assert not histories[0].equals(histories[1])


def test_repeats_are_recorded_with_their_models(repeated):
    models = repeated / "models"
    training = json.loads((models / "training.json").read_text())
    assert [entry["path"] for entry in training["repeats"]] == ["model.keras", "repeats/seed-8/model.keras"]
    assert [(member.seed, member.path.is_file()) for member in member_models(models, training)] == [
        (7, True),
        (8, True),
    ]
    for entry in training["repeats"]:
        history = pd.read_csv((models / entry["path"]).with_name("history.csv"))
        assert entry["val_auc"] == pytest.approx(history["val_auc"].max())
        assert entry["best_epoch"] == history["val_auc"].idxmax() + 1
    assert {path.name for path in (models / "repeats").iterdir()} == {"repeats.csv", "seed-8"}
    assert pd.read_csv(models / "repeats/repeats.csv")["seed"].tolist() == [7, 8]
    assert training["model_sha256"] == training["repeats"][0]["model_sha256"]


def test_the_ensemble_is_scored_as_the_mean_of_its_members(repeated, boxes, coded_images, tmp_path, monkeypatch):
    from pipeline.model import load_model

    monkeypatch.chdir(tmp_path)
    params = params_of(tmp_path, repeats=2)
    both = dataclasses.replace(params, evaluate=dataclasses.replace(params.evaluate, ensemble=True))
    evaluate(repeated / "models/model.keras", coded_images, tmp_path, boxes, both)
    table = pd.read_csv(tmp_path / "predictions.csv")
    images = _images(coded_images, table["image_id"].tolist())
    paths = [repeated / "models" / name for name in ("model.keras", "repeats/seed-8/model.keras")]
    expected = np.mean([load_model(path).predict(images, verbose=0) for path in paths], axis=0)
    np.testing.assert_allclose(table[[f"p_Bit{bit}" for bit in range(6)]], expected, atol=1e-6)
    repeats = json.loads((tmp_path / "metrics.json").read_text())["repeats"]
    assert (repeats["seeds"], repeats["macro"]["n"]) == ([7, 8], 2)


def test_repeats_are_one_run_in_mlflow(repeated):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{repeated}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("chest-xray").experiment_id])
    training = json.loads((repeated / "models/training.json").read_text())
    assert run.info.run_id == training["mlflow"]["run_id"]
    epochs = pd.read_csv(repeated / "models/repeats/seed-8/history.csv")["val_auc"]
    logged = client.get_metric_history(run.info.run_id, "seed-8/val_auc")
    assert [metric.value for metric in logged] == pytest.approx(epochs.tolist())
    values = [entry["val_auc"] for entry in training["repeats"]]
    assert run.data.metrics["seeds_val_auc_mean"] == pytest.approx(statistics.fmean(values))
    assert run.data.metrics["seeds_val_auc_sd"] == pytest.approx(statistics.stdev(values))


def test_predictions_are_of_the_images_that_they_name(trained, boxes, coded_images, tmp_path, monkeypatch):
    from pipeline.model import load_model

    models, params = trained
    monkeypatch.chdir(tmp_path)
    evaluate(models / "model.keras", coded_images, tmp_path / "reports", boxes, params)
    table = pd.read_csv(tmp_path / "reports" / "predictions.csv")
    assert table["split"].tolist() == ["val"] * 9 + ["test"] * 9
    # The labels spell the image's number, so the table cannot have mixed them up.
    assert (table[[f"y_Bit{bit}" for bit in range(6)]].to_numpy() @ 2 ** np.arange(6) == table["image_id"]).all()
    images = _images(coded_images, table["image_id"].tolist())
    expected = load_model(models / "model.keras").predict(images, verbose=0)
    np.testing.assert_allclose(table[[f"p_Bit{bit}" for bit in range(6)]], expected, atol=1e-6)


def test_with_flip_the_score_is_the_mean_over_the_image_and_its_mirror(
    trained, boxes, coded_images, tmp_path, monkeypatch
):
    from pipeline.model import load_model

    models, params = trained
    monkeypatch.chdir(tmp_path)
    both = dataclasses.replace(params, evaluate=dataclasses.replace(params.evaluate, flip=True))
    evaluate(models / "model.keras", coded_images, tmp_path, boxes, both)
    table = pd.read_csv(tmp_path / "predictions.csv")
    images = _images(coded_images, table["image_id"].tolist())
    model = load_model(models / "model.keras")
    expected = (model.predict(images, verbose=0) + model.predict(images[:, :, ::-1], verbose=0)) / 2
    np.testing.assert_allclose(table[[f"p_Bit{bit}" for bit in range(6)]], expected, atol=1e-6)
    assert json.loads((tmp_path / "metrics.json").read_text())["flip"] is True


def _images(folder, rows):
    import tensorflow as tf

    found = {}
    for path in sorted(folder.glob("*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            found[int.from_bytes(record[:4], "little")] = np.frombuffer(record[4:], np.uint8).reshape(32, 32, 1)
    return np.stack([found[row] for row in rows])


def test_evaluate_refuses_what_does_not_belong_together(trained, boxes, coded_images, tmp_path):
    models, params = trained
    other = shutil.copytree(models, tmp_path / "other")
    (other / "model.keras").write_bytes(b"another model")
    with pytest.raises(UserError, match="do not belong together"):
        evaluate(other / "model.keras", coded_images, tmp_path, boxes, params)
    processed = shutil.copytree(coded_images, tmp_path / "processed")
    meta = json.loads((processed / "meta.json").read_text())
    meta["preprocess"]["clahe"] = False
    (processed / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(UserError, match="was trained with preprocess"):
        evaluate(models / "model.keras", processed, tmp_path, boxes, params)
    (other / "model.keras").unlink()
    with pytest.raises(UserError, match="is missing"):
        evaluate(other / "model.keras", coded_images, tmp_path, boxes, params)


def test_a_diverging_training_is_one_sentence_and_leaves_no_model(coded_images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = open_processed(coded_images)
    with pytest.raises(UserError, match=r"NaN in epoch 1, step \d+ of the images .*: lower optimizer.learn") as caught:
        train(coded_images, tmp_path / "models", params_of(tmp_path, learning_rate=1e30))
    named = re.findall(r"[\w.-]+", re.search("of the images (.*): lower", str(caught.value))[1])
    assert 0 < len(set(named)) == len(named) <= 8  # a batch
    assert set(named) <= set(data.rows("train")["image_id"])
    assert not (tmp_path / "models" / "model.keras").exists()
    assert not (tmp_path / "models" / "training.json").exists()


def test_validation_without_a_defined_auc_is_refused_before_training(coded_images, tmp_path):
    folder = shutil.copytree(coded_images, tmp_path / "one class")
    table = pd.read_csv(folder / INDEX, dtype=str)
    table.loc[table["split"] == "val", [f"Bit{bit}" for bit in range(6)]] = "0"
    meta = json.loads((folder / META).read_text())
    (folder / META).write_text(json.dumps(meta | {"index_sha256": write_index(folder / INDEX, table)}))
    with pytest.raises(UserError, match="validation AUC is undefined: none of Bit0, Bit1"):
        require_defined_auc(open_processed(folder))


def test_killed_repeats_leave_nothing_that_looks_finished(coded_images, tmp_path):
    write_yaml(tmp_path / "params.yaml", as_dict(params_of(tmp_path, epochs=100, repeats=2)))
    command = [str(Path(sys.executable).with_name("cxr")), "train", str(coded_images), "models", "-q"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while not list((tmp_path / "models/.partial").glob("**/epoch-*/best.keras")):
            with pytest.raises(subprocess.TimeoutExpired):  # it must still be at work
                process.wait(timeout=0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)  # the stream ends with the last process that could write to it
    assert process.returncode == -signal.SIGKILL
    assert {path.name for path in (tmp_path / "models").iterdir()} <= {".partial", "tensorboard"}
