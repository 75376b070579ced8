"""The pictures of the report's cases: what they show, and that nothing in them leads to a patient."""

import json
import struct

import cv2
import numpy as np
import pandas as pd
import pytest
from bright import FINDINGS, IMAGES, boxes_of, bright_model, square_of, write_bright

from pipeline.case_pictures import draw_case, write_cases
from pipeline.cases import KINDS
from pipeline.shards import open_processed

THRESHOLDS = {"Bright": 0.5, "Dark": 0.5}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return open_processed(write_bright(tmp_path_factory.mktemp("bright")))


@pytest.fixture(scope="module")
def model():
    return bright_model()


@pytest.fixture(scope="module")
def predictions(data):
    rows = data.rows("test").reset_index(drop=True)
    table = rows[["image_id", "patient_id", "split"]].copy()
    rng = np.random.default_rng(0)
    for name in FINDINGS:
        table[f"y_{name}"], table[f"p_{name}"] = rows[name].astype("Int8"), rng.random(len(rows))
    val = table.assign(split="val", image_id="of another split")
    return pd.concat([val, table.assign(view="PA", sex="F", age=50).iloc[::-1]], ignore_index=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory, data, model, predictions):
    folder = tmp_path_factory.mktemp("reports") / "cases"
    return folder, write_cases(model, data, predictions, THRESHOLDS, boxes_of(range(20), FINDINGS), folder, 3)


def test_pictures_and_their_list_are_written(written):
    folder, cases = written
    listed = json.loads((folder / "cases.json").read_text())
    assert listed["cases"] == cases
    assert [case["kind"] for case in cases] == [kind for kind in KINDS for _ in range(3)]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*(c["file"] for c in cases), "cases.json"])
    assert listed["available"]["confident mistake"] == sum(listed["available"][kind] for kind in KINDS[1:3])
    for case in cases:
        picture = cv2.imread(str(folder / case["file"]))
        assert picture.shape == (case["height"], case["width"], 3)


def test_every_picture_shows_its_own_image(written, predictions):
    folder, cases = written
    outputs = {predictions[f"p_{name}"][k]: k for name in FINDINGS for k in range(IMAGES, 2 * IMAGES)}
    for case in cases:
        number = int(predictions["image_id"][outputs[case["probability"]]].split("-")[1])
        row, column = (8 * each for each in square_of(number))  # 32 pixels are drawn as 256
        film = cv2.imread(str(folder / case["file"]))[:, :256].astype(int)
        inside = film[row + 8 : row + 56, column + 8 : column + 56]
        assert inside.min() > 120
        assert np.median(film) < 40
        assert case["has_box"] == (number < 20)


def test_maps_and_places_are_told_in_words(written):
    _, cases = written
    for case in cases:
        assert case["has_map"] == (case["finding"] == "Bright")
        assert f"{case['finding']}: {case['kind']}, labelled {'present' if case['label'] else 'absent'}" in case["alt"]
        expected = "strongest in the" if case["has_map"] else "no place raises the output"
        assert expected in case["alt"]
        assert ("inside the reader's box" in case["alt"]) == (case["has_map"] and case["has_box"])


def test_nothing_leads_to_an_image_or_a_patient(written):
    folder, _ = written
    for path in folder.iterdir():
        data = path.read_bytes()
        assert b"secret" not in data
        assert b"patient-" not in data
        if path.suffix == ".png":
            assert set(chunks_of(data)) == {b"IHDR", b"IDAT", b"IEND"}


def chunks_of(data):
    place, names = 8, []
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        names.append(data[place + 4 : place + 8])
        place += 12 + length
    return names


def test_an_earlier_runs_pictures_go_and_a_users_files_stay(tmp_path, data, model, predictions):
    for name in ("099.png", ".001.0a1b.partial.png", "cases.json", "notes.txt", "mine.png"):
        (tmp_path / name).write_text("old")
    assert write_cases(model, data, predictions, THRESHOLDS, boxes_of(range(0), []), tmp_path, 0) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cases.json", "mine.png", "notes.txt"]
    assert json.loads((tmp_path / "cases.json").read_text())["cases"] == []


def test_the_same_run_writes_the_same_bytes(written, tmp_path, data, model, predictions):
    folder, _ = written
    write_cases(model, data, predictions, THRESHOLDS, boxes_of(range(20), FINDINGS), tmp_path / "again", 3)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


@pytest.mark.parametrize("size", [32, 256, 600])
def test_drawn_films_have_one_size_and_their_box_in_its_place(size):
    drawn = draw_case(
        np.full((size, size), 100, np.uint8), np.zeros((2, 2), np.float32), [(0, size / 2, size / 4, size / 4)]
    )
    assert drawn.shape == (256, 520, 3)
    assert (drawn[128:192, 63] == 255).all()
    np.testing.assert_array_equal(drawn[:, :256], drawn[:, 264:])  # a flat map leaves the film as it is
