"""A new data version: the present images keep their side, new patients are on one side, every label is where it was."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import WriteNih
from hypothesis import given
from hypothesis import strategies as st
from log_case import answers, manifest

from pipeline.cli import main
from pipeline.errors import UserError
from pipeline.ingest import ingest
from pipeline.labels import add_labels
from pipeline.manifest import read_manifest
from pipeline.params import Params, SplitParams
from pipeline.prediction_log import PredictionLog
from pipeline.retrain import params_of
from pipeline.retraining_data import labelled_films, sides_of, write_version
from pipeline.split import split

FINDINGS = ["Effusion", "Mass", "Nodule"]


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30),
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["train", "val", "test"])),
)
def test_a_patient_is_on_one_side_and_a_known_one_stays(patients: list[str], known: dict[str, str]) -> None:
    sides = sides_of(pd.Series(patients), known, SplitParams())
    where = dict(zip(patients, sides, strict=True))
    assert [where[name] for name in patients] == sides
    assert {name: side for name, side in where.items() if name in known} == {
        name: side for name, side in known.items() if name in where
    }
    assert {side for name, side in where.items() if name not in known} <= {"train", "test"}


@pytest.fixture
def data(tmp_path: Path, write_nih: WriteNih, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a present data set of 20 patients, a log of 6 labelled films, and the films."""
    monkeypatch.setattr("pipeline.parallel.available_cores", lambda: 1)
    findings = ["Mass", "No Finding", "Effusion|Nodule"]
    lines = [f"{n:08d}_000.png,{findings[n % 3]},0,{n},060Y,F,PA,,,0.1,0.1" for n in range(1, 21)]
    write_nih(tmp_path / "data/raw", lines)
    write_nih(tmp_path / "films", [line.replace("_000", "_111") for line in lines[:6]])
    params = Params()
    boxes, thumbnails = tmp_path / "boxes.csv", tmp_path / "thumbnails.npy"
    raw, quarantine = tmp_path / "data/raw", tmp_path / "quarantine.csv"
    ingest(raw, tmp_path / "manifest.csv", quarantine, params, boxes=boxes, thumbnails=thumbnails)
    split(tmp_path / "manifest.csv", tmp_path / "splits.csv", tmp_path / "split.json", params.split)
    with PredictionLog(str(tmp_path / "log.db"), manifest()) as log:
        for k, one in enumerate(answers(6, np.random.default_rng(1))):
            log.append([one], f"r{k}")
    text = "request_id,Effusion,Mass\n" + "".join(f"r{k},{k % 2},1\n" for k in range(5))
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    add_labels(str(tmp_path / "log.db"), tmp_path / "labels.csv")
    rows = "".join(f"r{k},images/{k + 1:08d}_111.png,new-{k // 2}\n" for k in range(6))
    (tmp_path / "films.csv").write_text("request_id,file,patient\n" + rows, encoding="utf-8")
    return tmp_path


def version(data: Path) -> pd.DataFrame:
    table = read_manifest(data / "manifest.csv")
    findings = list(table.columns[12:])
    films = labelled_films(str(data / "log.db"), data / "films.csv", data / "films", findings)
    places = data / "films", data / "manifest.csv", data / "splits.csv", data / "data/raw", data / "new/raw"
    made = write_version(films, *places, SplitParams())
    assert (made.old, made.new, made.patients) == (20, 5, 3)
    return pd.read_csv(data / "new/raw/labels.csv", dtype=str, keep_default_na=False)


def test_the_new_version_holds_both_and_can_be_ingested_and_split(data: Path) -> None:
    table = version(data)
    sides = pd.read_csv(data / "splits.csv", dtype=str).set_index("image_id")["split"]
    old = table[table["image"].str.startswith("old/")]
    assert dict(zip(old["image"].str.rpartition("/")[2], old["split"], strict=True)) == sides.to_dict()
    new = table[table["image"].str.startswith("new/")]
    assert new["Effusion"].tolist() == ["0", "1", "0", "1", "0"]
    assert new["Mass"].tolist() == ["1"] * 5
    assert set(new["Nodule"]) == {""}  # nobody said, so nobody knows
    present = read_manifest(data / "manifest.csv")
    assert old["Nodule"].tolist() == [str(int(value)) for value in present["Nodule"]]
    raw = data / "new/raw"
    params = params_of(Params(), raw, list(present.columns[12:]))
    boxes, thumbnails = data / "new/boxes.csv", data / "new/thumbnails.npy"
    ingest(raw, data / "new/manifest.csv", data / "new/q.csv", params, boxes=boxes, thumbnails=thumbnails)
    found = read_manifest(data / "new/manifest.csv")
    assert list(found.columns) == list(present.columns)
    assert len(found) == 25
    split(data / "new/manifest.csv", data / "new/splits.csv", data / "new/split.json", params.split)
    again = pd.read_csv(data / "new/splits.csv", dtype=str).set_index("image_id")["split"]
    kept = {f"old/{image}" for image in present.loc[present["image_id"].map(sides) == "test", "path"]}
    assert kept <= set(again[again == "test"].index)


def test_a_faulty_table_of_films_is_one_line(data: Path) -> None:
    for text, part in (
        ("request_id,file\nr0,a.png\n", "has no column patient"),
        ("request_id,file,patient\nr0,images/00000001_111.png,\n", "a row has no patient"),
        ("request_id,file,patient\nr0,nowhere.png,p\n", "nowhere.png is missing"),
        ("request_id,file,patient\nr0,../secret.png,p\n", "secret.png"),
        ("request_id,file,patient\nother,images/00000001_111.png,p\n", "has a truth in the log"),
        ("request_id,file,patient\nr0,a.png,p\nr1,a.png,p\n", "names a.png twice"),
    ):
        (data / "films.csv").write_text(text, encoding="utf-8")
        with pytest.raises(UserError) as caught:
            labelled_films(str(data / "log.db"), data / "films.csv", data / "films", FINDINGS)
        assert part in str(caught.value)
        assert "\n" not in str(caught.value)


def test_without_an_alarm_of_accuracy_nothing_is_done(
    data: Path, repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    words = ["retrain", "log.db", "films.csv", "--images", "films", "--params", str(repository / "params.yaml")]
    signals = [{"name": "accuracy/mean/auc", "state": "warning"}]
    (data / "monitor.json").write_text(json.dumps({"accuracy": {"signals": signals}}), encoding="utf-8")
    assert main([*words, "--after", "monitor.json"]) == 0
    assert "no alarm of accuracy: nothing to do" in capsys.readouterr().err
    assert not (data / "retrained").exists()
    assert main([*words, "--out", "films"]) == 1
    assert "films is not empty" in capsys.readouterr().err
