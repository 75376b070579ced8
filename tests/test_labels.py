"""Truth that arrives later finds its image by request id; what does not fit is one line; no patient is stored."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from log_case import FINDINGS, MODEL, answers, manifest

from pipeline.cli import main
from pipeline.errors import UserError
from pipeline.labels import add_labels
from pipeline.log_store.opening import open_store
from pipeline.log_store.reading import Labelled, read_labelled
from pipeline.prediction_log import PredictionLog


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a log of requests r0, r1 and r2, the last with two images."""
    with PredictionLog(str(tmp_path / "log.db"), manifest()) as log:
        made = answers(4, np.random.default_rng(1))
        log.append(made[:1], "r0")
        log.append(made[1:2], "r1")
        log.append(made[2:], "r2")
    return tmp_path / "log.db"


def labelled(log: Path) -> Labelled:
    engine = open_store(str(log))
    (rows,) = read_labelled(engine, MODEL, FINDINGS)
    engine.dispose()
    return rows


def table(folder: Path, text: str) -> Path:
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    return folder / "labels.csv"


def test_truth_finds_its_image_and_unknown_stays_unknown(log: Path, tmp_path: Path) -> None:
    path = table(tmp_path, "request_id,image,Effusion,Nodule,comment\nr2,1,1,,x\nr0,0,0,1,y\nnobody,0,1,1,z\n")
    assert add_labels(str(log), path, now=2e9) == 2
    rows = labelled(log)
    assert rows.truth.tolist() == [[1, -1, -1], [0, -1, 1]]
    assert rows.arrived.tolist() == [2e9, 2e9]
    made = answers(4, np.random.default_rng(1))
    assert rows.probabilities.tolist() == [made[3].raw.tolist(), made[0].raw.tolist()]


def test_a_later_truth_takes_the_place_of_an_earlier_one(log: Path, tmp_path: Path) -> None:
    add_labels(str(log), table(tmp_path, "request_id,Mass\nr0,1\nr1,1\n"), now=1e9)
    add_labels(str(log), table(tmp_path, "request_id,Mass\nr0,0\n"), now=2e9)
    rows = labelled(log)
    assert rows.truth[:, 1].tolist() == [1, 0]
    assert rows.arrived.tolist() == [1e9, 2e9]


def test_patients_tell_only_who_belongs_together(log: Path, tmp_path: Path) -> None:
    text = "request_id,image,patient,Mass\nr0,0,Jane Doe,1\nr1,0,John Roe,0\nr2,0,Jane Doe,1\n"
    add_labels(str(log), table(tmp_path, text))
    first = labelled(log).patients
    assert first[0] == first[2] != first[1]
    add_labels(str(log), table(tmp_path, text))
    assert set(labelled(log).patients).isdisjoint(first)  # another file, other numbers
    with sqlite3.connect(log) as connection:
        dump = "\n".join(connection.iterdump())
    connection.close()
    assert "Doe" not in dump


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("id,Mass\nr0,1\n", "has no column request_id; it has id, Mass"),
        ("request_id,Fracture\nr0,1\n", "no column of a finding that the log's models know: Effusion, Mass, Nodule"),
        ("request_id,Mass\nr0,maybe\n", "'maybe' in line 2, column Mass, is no truth; 1, 0 or nothing"),
        ("request_id,Mass\nr0,1\nr0,0\n", "line 3 repeats request 'r0'"),
        ("request_id,image,Mass\nr0,first,1\n", "image is 'first' in line 2"),
        ("request_id,Mass\nelsewhere,1\n", "none of its 1 request ids is in the log"),
    ],
)
def test_a_faulty_table_is_one_line(log: Path, tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(UserError) as caught:
        add_labels(str(log), table(tmp_path, text))
    assert part in str(caught.value)


def test_the_command_adds_labels_and_a_missing_table_is_one_line(
    log: Path, tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = ["--params", str(repository / "params.yaml")]
    assert main(["labels", str(log), str(table(tmp_path, "request_id,Mass\nr0,1\n")), *params]) == 0
    assert "1 images have their truth now (Mass)" in capsys.readouterr().err
    assert main(["labels", str(log), str(tmp_path / "none.csv"), *params]) == 1
    assert "none.csv is missing" in capsys.readouterr().err
