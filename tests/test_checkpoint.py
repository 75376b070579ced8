"""Checkpoints: one whole one at every moment, and what is read is what was written."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.params import AugmentParams, LossParams, Params, ReportParams, TrainParams
from pipeline.shards import open_processed
from pipeline.training.checkpoint import ARRAYS, BEST, RECORD, Checkpoints
from pipeline.training.resume import key_of, publish, working_folder


def arrays(seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {
        "network/0": draw.normal(size=(3, 4)).astype(np.float32),
        "optimizer/0": np.int64(seed) * np.ones((), np.int64),
        "network/1": np.zeros((0, 2), np.float32),
    }


def save(text: str):
    return lambda path: path.write_text(text)


def test_the_newest_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").latest is None
    checkpoints = Checkpoints(tmp_path / "检查")
    for epoch in (1, 2, 3):
        checkpoints.write(epoch, {"history": [0.1 + 0.2] * epoch}, arrays(epoch), save(f"model {epoch}"))
    found = Checkpoints(tmp_path / "检查").latest
    assert found is not None
    assert (found.epochs, found.record, found.best.read_text()) == (3, {"history": [0.1 + 0.2] * 3}, "model 3")
    assert found.arrays().keys() == arrays(3).keys()
    for name, value in arrays(3).items():
        assert found.arrays()[name].dtype == value.dtype
        np.testing.assert_array_equal(found.arrays()[name], value)
    assert [path.name for path in (tmp_path / "检查").iterdir()] == ["epoch-000003"]


def test_the_best_model_stays_when_a_later_epoch_is_worse(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(1, {}, arrays(1), None)
    assert checkpoints.latest is not None
    assert not checkpoints.latest.best.exists()
    checkpoints.write(2, {}, arrays(2), save("second"))
    checkpoints.write(3, {}, arrays(3), None)
    checkpoints.write(4, {}, arrays(4), None)
    found = Checkpoints(tmp_path).latest
    assert found is not None
    assert found.best.read_text() == "second"


def test_a_write_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(1, {}, arrays(1), save("first"))

    def fail(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"after epoch 2 .*: No space left on device; what was there before stays"):
        checkpoints.write(2, {}, arrays(2), fail)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000001"]
    checkpoints.write(2, {}, arrays(2), save("second"))
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000002"]


@pytest.mark.parametrize("harm", [ARRAYS, BEST, RECORD, "missing", "unfinished"])
def test_a_damaged_one_is_not_used_and_an_older_one_is(tmp_path: Path, harm: str, capsys) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(1, {"n": 1}, arrays(1), save("first"))
    older = shutil.copytree(tmp_path / "epoch-000001", tmp_path / "kept")
    checkpoints.write(2, {"n": 2}, arrays(2), save("second"))
    older.rename(tmp_path / "epoch-000001")
    newest = tmp_path / "epoch-000002"
    if harm == "missing":
        (newest / ARRAYS).unlink()
    elif harm == "unfinished":
        newest.rename(tmp_path / ".epoch-000002.partial")
    else:
        content = (newest / harm).read_bytes()
        (newest / harm).write_bytes(content[: len(content) // 2])
    found = Checkpoints(tmp_path).latest
    assert found is not None
    assert found.record == {"n": 1}
    assert ("damaged" in capsys.readouterr().err) == (harm != "unfinished")
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-000001"]


def test_the_record_names_the_sums_of_its_files(tmp_path: Path) -> None:
    Checkpoints(tmp_path).write(1, {}, arrays(1), save("first"))
    record = json.loads((tmp_path / "epoch-000001" / RECORD).read_text())
    # sha256 of the text "first", from coreutils' sha256sum
    assert record["sha256"][BEST] == "a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e"


def test_only_the_same_training_goes_on(tmp_path: Path, capsys) -> None:
    folder = tmp_path / ".partial"
    assert not working_folder(folder, "a")
    (folder / "state").write_text("half")
    assert working_folder(folder, "a")
    assert (folder / "state").exists()
    assert not working_folder(folder, "b")
    assert "starts anew" in capsys.readouterr().err
    assert not (folder / "state").exists()


def test_publishing_twice_is_publishing_once(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "repeats/seed-8").mkdir(parents=True)
    (source / "model.keras").write_text("model")
    (source / "repeats/seed-8/model.keras").write_text("other")
    for _ in range(2):
        for name in ("model.keras", "repeats"):
            publish(source / name, tmp_path / "out" / name)
    assert (tmp_path / "out/model.keras").read_text() == "model"
    assert (tmp_path / "out/repeats/seed-8/model.keras").read_text() == "other"
    assert (source / "model.keras").exists()
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 2


def test_the_key_follows_from_parameters_data_and_packages(coded_images: Path, monkeypatch) -> None:
    data, params = open_processed(coded_images), Params()
    key = key_of(data, params)
    assert key == key_of(data, Params())
    assert key == key_of(data, dataclasses.replace(params, report=ReportParams(title="other")))  # decides no number
    other = [
        dataclasses.replace(params, train=TrainParams(seed=8)),
        dataclasses.replace(params, loss=LossParams(gamma=1.0)),
        dataclasses.replace(params, augment=AugmentParams(rotate=1.0)),
    ]
    assert len({key, *(key_of(data, changed) for changed in other)}) == 4
    monkeypatch.setattr("pipeline.training.resume.version", lambda _name: "another")
    assert key_of(data, params) != key
