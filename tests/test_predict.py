"""`cxr predict`: all it takes and writes, in order, past bad files; archives that may not be unpacked; overlays."""

import csv
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from dicom_film import write_dicom
from predict_case import FINDINGS, MANIFEST, MeanEngine, brightness_gate, png

from pipeline import predict_stream
from pipeline.cli import main
from pipeline.exported import Exported
from pipeline.predict_files import SUFFIXES, find_films
from pipeline.predict_output import shortened, shown
from pipeline.predict_overlay import harmless
from pipeline.predict_stream import stream
from pipeline.predicting import Predictor


@pytest.fixture(autouse=True)
def model(monkeypatch, tmp_path):
    """Let the command open a model that can be worked out by hand, with a gate that flags what is dark."""
    folder = tmp_path / "models" / "exported" / "int8"
    monkeypatch.setattr(
        predict_stream,
        "open_predictor",
        lambda _path, point, **_: Predictor(Exported(MANIFEST, MeanEngine(), folder), brightness_gate(), point),
    )
    monkeypatch.setattr(predict_stream, "_again", lambda _path: Exported(MANIFEST, MeanEngine(), folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def films(tmp_path):
    """Write films whose gray is their name, in a folder with other things."""
    folder = tmp_path / "films"
    (folder / "sub").mkdir(parents=True)
    for gray in (40, 80, 120, 160):
        (folder / f"g{gray:03d}.png").write_bytes(png(gray))
    (folder / "sub" / "g200.PNG").write_bytes(png(200))
    (folder / ".hidden.png").write_bytes(b"junk")
    (folder / "labels.csv").write_text("a,b\n")
    return folder


def run(capsys, *arguments):
    status = main(["predict", "models/exported", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def records(capsys, *arguments):
    status, out, _ = run(capsys, "--json", *arguments)
    return status, [json.loads(line) for line in out.splitlines()]


def pack(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in members.items():
            zipped.writestr(name, data)
    return path


def test_files_folders_patterns_and_archives_in_the_order_given(capsys, films, tmp_path):
    archive = pack(tmp_path / "more.zip", {"x/g060.png": png(60), "__MACOSX/x/._g060.png": b"j", "x/notes.txt": b"n"})
    dicom = write_dicom(tmp_path / "scan", seed=1)
    status, found = records(capsys, archive, films, films / "g0*.png", dicom)
    assert status == 0
    names = ["g040.png", "g080.png", "g120.png", "g160.png", "sub/g200.PNG"]
    expected = [f"{archive}/x/g060.png", *(str(films / name) for name in names)]
    assert [each["file"] for each in found] == [*expected, str(films / "g040.png"), str(films / "g080.png"), str(dicom)]
    for each in found[:-1]:
        gray = int(Path(each["file"]).stem[1:])
        assert each["findings"]["Effusion"]["raw"] == pytest.approx(gray / 255, rel=1e-6)


def test_order_and_answers_are_the_same_from_any_number_of_threads(films):
    for gray in range(32, 200):
        (films / f"h{gray:03d}.png").write_bytes(png(gray))
    exported = Exported(MANIFEST, MeanEngine(), Path())
    found = []
    for threads in (1, 2, 5):
        with find_films([str(films)]) as some:
            batches = stream([Predictor(exported, None) for _ in range(threads)], some.items, batch=3)
            found.append([(each.name, each.raw.tolist()) for batch in batches for each in batch])
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 173


def test_only_a_bounded_number_of_films_is_read_ahead(films):
    read = []
    with find_films([str(films / "g040.png")] * 500) as some:
        items = [SimpleNamespace(read=lambda item=item: (read.append(1), item.read())[1]) for item in some.items]
        batches = stream([Predictor(Exported(MANIFEST, MeanEngine(), Path()), None)] * 2, items, batch=4)
        next(batches)
        batches.close()
    assert len(read) <= 4 * (3 * 2 + 1 + 2)


def test_bad_files_are_passed_over_counted_and_named_at_the_end(capsys, films, tmp_path):
    (films / "g081.png").write_bytes(png(81)[:-40])
    (films / "g082.dcm").write_bytes(b"none")
    status, out, err = run(capsys, films, tmp_path / "missing.png", tmp_path / "none*.png")
    assert status == 3
    assert "9 films: 5 answered, 0 flagged, 4 failed" in err
    assert "4 of 9 files could not be used" in err
    for name, reason in (("g081.png", "damaged"), ("g082.dcm", "neither a PNG"), ("missing.png", "No such file")):
        assert any(name in line and reason in line for line in err.splitlines()), name
    assert len([line for line in out.splitlines() if "no answer" in line]) == 4


def test_many_bad_files_are_summed_up_by_reason(capsys, tmp_path):
    for number in range(50):
        (tmp_path / f"bad{number:02d}.png").write_bytes(b"x")
    status, _, err = run(capsys, "-q", tmp_path)
    assert status == 3
    assert "and 30 more" in err
    assert "50 neither a PNG" in err
    assert err.count(".png: ") == 20


def test_a_flagged_film_has_no_probability_unless_asked_for(capsys, films):
    (films / "g005.png").write_bytes(png(5))
    status, (withheld, fine) = records(capsys, films / "g005.png", films / "g120.png")
    assert status == 0
    assert (withheld["status"], withheld["findings"]) == ("flagged", None)
    assert withheld["gate"] == {"accepted": False, "reasons": ["no-film"], "scores": {"pattern": 2.0}}
    assert (fine["status"], fine["gate"]["accepted"]) == ("ok", True)
    _, (given,) = records(capsys, "--flagged", films / "g005.png")
    assert given["status"] == "flagged"
    assert given["findings"]["Effusion"]["raw"] == pytest.approx(5 / 255, rel=1e-6)
    _, out, err = run(capsys, films / "g005.png", films / "g120.png")
    assert "no-film" in out
    assert "1 no-film" in err


def test_the_csv_holds_what_json_says(capsys, films, tmp_path):
    (films / "g005.png").write_bytes(png(5))
    (films / "z.png").write_bytes(b"")
    status, found = records(capsys, films)
    assert run(capsys, films, "--out", tmp_path / "deep" / "answers.csv")[:2] == (status, "")
    with (tmp_path / "deep" / "answers.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [row["file"] for row in rows] == [each["file"] for each in found]
    assert [row["status"] for row in rows] == [each["status"] for each in found]
    for row, each in zip(rows, found, strict=True):
        for name in FINDINGS:
            values = (each["findings"] or {}).get(name)
            called = "" if values is None or values["called"] is None else str(int(values["called"]))
            assert row[f"called_{name}"] == called
            for part in ("probability", "raw"):
                text = row[f"{part}_{name}"]
                assert (np.float32(text) == np.float32(values[part])) if values else text == ""
        assert row["error"] == (each["error"] or "")


def test_a_csv_is_whole_or_absent(films, tmp_path, monkeypatch):
    def stop(_answers):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.predict_output.CsvRows._row", lambda _self, answer: stop(answer))
    assert main(["predict", "m", str(films), "--out", "a.csv"]) == 130
    assert not (tmp_path / "a.csv").exists()


def test_a_few_films_are_shown_side_by_side_with_all_findings(capsys, films):
    _, out, _ = run(capsys, films / "g160.png", films / "g040.png")
    assert [line.split() for line in out.splitlines()] == [
        ["g160.png", "g040.png"],
        ["gate", "passed", "passed"],
        ["Effusion", "0.627", "present", "0.157", "absent"],
        ["Mass", "0.403", "absent", "0.226", "absent"],
        ["Hernia", "0.373", "no", "threshold", "0.843", "no", "threshold"],
    ]


def test_many_films_get_a_line_each(capsys, films):
    _, out, _ = run(capsys, films)
    lines = out.splitlines()
    assert len(lines) == 6
    assert lines[1].endswith("g040.png  passed                none; highest Hernia 0.843")
    assert lines[5].endswith("g200.PNG  passed                Effusion 0.784")


def test_the_operating_point_can_be_chosen_and_must_exist(capsys, films):
    _, (found,) = records(capsys, "--point", "sensitivity", films / "g160.png")
    assert found["findings"]["Effusion"]["called"] is False
    assert found["findings"]["Mass"]["called"] is None
    status, _, err = run(capsys, "--point", "f1", films)
    assert status == 1
    assert "there is no operating point 'f1'" in err


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"../out.png": png(50)}, "leads out"),
        ({"/abs.png": png(50)}, "absolute"),
        ({"a.png": png(50), "A.png": png(60)}, "differs"),
        ({"bomb.png": bytes(30 << 20)}, "bomb"),
        ({"readme.txt": b"n"}, "holds no file"),
    ],
)
def test_a_hostile_archive_is_one_bad_file_and_writes_nothing(capsys, tmp_path, films, members, reason):
    archive = pack(tmp_path / "bad.zip", members)
    before = sorted(tmp_path.rglob("*"))
    status, found = records(capsys, archive, films / "g120.png")
    assert status == 3
    assert [each["status"] for each in found] == ["failed", "ok"]
    assert reason in found[0]["error"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_member_fails_alone(capsys, tmp_path):
    archive = pack(tmp_path / "a.zip", {"a.png": png(50), "b.png": png(90)})
    data = bytearray(archive.read_bytes())
    data[45] ^= 0xFF  # within the compressed bytes of the first member
    archive.write_bytes(bytes(data))
    _, found = records(capsys, archive)
    assert [each["status"] for each in found] == ["failed", "ok"]


def test_an_empty_folder_and_a_directory_of_nothing_are_said(capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    status, found = records(capsys, tmp_path / "empty")
    assert status == 3
    assert "no file that may be a film" in found[0]["error"]


def test_a_pipe_is_no_film(capsys, tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.png")
    status, (found,) = records(capsys, tmp_path / "pipe.png")
    assert (status, found["error"]) == (3, "not a regular file")


def test_overlays_are_named_by_number_and_harmless_name(capsys, films, tmp_path, model, monkeypatch):
    import keras

    from pipeline.files import sha256_file

    keras.utils.set_random_seed(1)
    inputs = keras.Input((32, 32, 1), dtype="uint8")
    maps = keras.layers.Conv2D(4, 3, strides=4, padding="same", activation="relu")(
        keras.layers.Rescaling(1 / 255)(inputs)
    )
    outputs = keras.layers.Dense(3, activation="sigmoid")(keras.layers.GlobalAveragePooling2D()(maps))
    path = tmp_path / "models" / "model.keras"
    path.parent.mkdir()
    keras.Model(inputs, outputs).save(path)
    manifest = replace(MANIFEST, model_sha256=sha256_file(path))
    exported = Exported(manifest, MeanEngine(), model)
    monkeypatch.setattr(predict_stream, "open_predictor", lambda *_, **__: Predictor(exported, brightness_gate()))
    (films / "we;ird näme.png").write_bytes(png(220))
    (films / "g005.png").write_bytes(png(5))
    status, _, _ = run(capsys, films / "g160.png", films / "we;ird näme.png", films / "g005.png", "--overlay", "maps")
    assert status == 0
    assert sorted(each.name for each in (tmp_path / "maps").iterdir()) == [
        "000001-g160-Effusion.png",
        "000002-we_ird_n_me-Effusion.png",
        "000002-we_ird_n_me-Mass.png",
    ]
    assert cv2.imread(str(tmp_path / "maps" / "000001-g160-Effusion.png")).shape == (256, 520, 3)


def test_an_overlay_without_the_right_keras_model_is_refused_in_one_line(capsys, films, tmp_path):
    status, _, err = run(capsys, films, "--overlay", "maps")
    assert status == 1
    assert "--overlay needs the Keras model" in err
    (tmp_path / "other.keras").write_bytes(b"another")
    status, _, err = run(capsys, films, "--overlay", "maps", "--explain", "other.keras")
    assert status == 1
    assert "is another" in err
    assert not (tmp_path / "maps").exists()


def test_answers_go_to_the_prediction_log(capsys, films, tmp_path):
    import sqlite3

    (films / "bad.png").write_bytes(b"x")
    assert run(capsys, films, "--log", "log.db")[0] == 3
    with sqlite3.connect(tmp_path / "log.db") as connection:
        count, described = connection.execute("select count(*), count(statistics) from predictions").fetchone()
    connection.close()
    assert (count, described) == (6, 5)  # there is nothing to describe of the bad one


def test_dicom_headers_are_not_printed(capsys, tmp_path):
    write_dicom(tmp_path / "a.dcm", PatientName="DOE^JANE", PatientID="4711", Modality="DX")
    for arguments in ([], ["--json"], ["--out", "x.csv"]):
        _, out, err = run(capsys, tmp_path / "a.dcm", *arguments)
        assert "DOE" not in out + err
        assert "4711" not in out + err
    assert "DOE" not in (tmp_path / "x.csv").read_text()


def test_names_cannot_speak_to_the_terminal():
    assert shown("a\x1b[31m\nb.png") == r"a\x1b[31m\nb.png"
    assert shown("ä.png") == "ä.png"
    assert harmless("../../etc/pass wd\x00.png") == "pass_wd"
    assert harmless("...") == "film"
    assert len(harmless("x" * 300 + ".png")) == 40


def test_long_names_keep_their_end():
    assert shortened("x" * 100 + "07.png", 20).endswith("07.png")
    assert len(shortened("x" * 100, 20)) == 20


def test_what_is_taken_of_folders_is_what_can_be_decoded():
    assert set(SUFFIXES) == {"", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom"}


def test_real_films_out_of_their_archive(capsys, shared_data):
    status, found = records(capsys, shared_data / "nih-sample.zip")
    assert status == 0
    assert len(found) == 246
    assert all(each["status"] in ("ok", "flagged") for each in found)
    with zipfile.ZipFile(shared_data / "nih-sample.zip") as zipped:
        first = next(name for name in zipped.namelist() if name.endswith(".png"))
        data = zipped.read(first)
    film = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    resized = cv2.resize(film, (32, 32), interpolation=cv2.INTER_AREA)
    values = found[0]["findings"]
    assert found[0]["file"].endswith(first)
    assert values is None or values["Effusion"]["raw"] == pytest.approx(resized.mean() / 255, abs=1e-4)
