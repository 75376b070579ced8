"""Ingest: whatever a file holds, it ends in the manifest or in the quarantine with a reason."""

import csv
import io
import json
import os
import struct
import zlib
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import DrawPng, WriteNih
from hypothesis import given
from hypothesis import strategies as st
from jobs import loaded_after
from PIL import Image

from pipeline import ingest as stage
from pipeline.datasets import read_catalogue
from pipeline.errors import UserError
from pipeline.images import perceptual_hash, pixel_sha256, read_image
from pipeline.ingest import build_manifest, find_conflicts, ingest
from pipeline.manifest import read_manifest
from pipeline.parallel import run_all
from pipeline.params import DatasetParams, IngestParams, Params, Suspicion
from pipeline.params_file import parse_params
from pipeline.thumbnails import read_thumbnails, thumbnail

NIH = Params(ingest=IngestParams(min_side=64, max_pixels=250_000))
PNEUMONIA = Params(dataset=DatasetParams(adapter="pneumonia"))


def line(number: int) -> str:
    return f"{number:08d}_000.png,Hernia,0,{number},060Y,F,PA,2500,2048,0.1,0.1"


def run(raw: Path, out: Path, params: Params = NIH, workers: int = 1) -> dict[str, str]:
    """Ingest and return the quarantine, path to reason."""
    ingest(raw, out / "manifest.csv", out / "quarantine.csv", params, workers)
    return quarantine(out)


def quarantine(out: Path) -> dict[str, str]:
    with (out / "quarantine.csv").open(encoding="utf-8", newline="") as handle:
        return {row["path"]: row["reason"] for row in csv.DictReader(handle)}


def listed(out: Path) -> list[tuple[str, str, str]]:
    """Return the quarantine: name, code, action."""
    with (out / "quarantine.csv").open(encoding="utf-8", newline="") as handle:
        return [(Path(row["path"]).name, row["code"], row["action"]) for row in csv.DictReader(handle)]


def film(seed: int) -> np.ndarray:
    """Draw what no check suspects: dark air, a gray body, dark lungs, a white spine."""
    image = np.full((90, 90), 10, np.uint8)
    image[25:, 10:80] = 150
    image[20:60, 15:38] = image[20:60, 52:75] = 50
    image[:, 42:48] = 220
    return image + np.random.default_rng(seed).integers(0, 20, image.shape, dtype=np.uint8)


def save(pixels: np.ndarray, path: Path, kind: str = "PNG") -> None:
    Image.fromarray(pixels).save(path, kind)


@pytest.fixture
def hostile(tmp_path: Path, write_nih: WriteNih) -> Path:
    """Return a tree of 14 rows whose files 3 to 14 cannot be used."""
    raw = write_nih(tmp_path / "raw 胸片", [line(number) for number in range(1, 15)])
    paths = {number: raw / "images" / f"{number:08d}_000.png" for number in range(1, 15)}
    noise = np.random.default_rng(0).integers(0, 256, (80, 80), dtype=np.uint8)
    whole = paths[1].read_bytes()
    paths[3].write_bytes(whole[: len(whole) // 2])
    paths[4].write_bytes(b"")
    paths[5].write_text("<html>404 Not Found</html>", encoding="utf-8")
    save(np.full((80, 80), 77, np.uint8), paths[6])
    save(noise[:63], paths[7])
    save(np.zeros((500, 501), np.uint8), paths[8])
    jpeg = io.BytesIO()
    Image.fromarray(noise).save(jpeg, "JPEG")
    paths[9].write_bytes(jpeg.getvalue()[:-100])
    save(noise, paths[10], "GIF")
    head = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 0, 0, 0, 0)
    paths[11].write_bytes(
        whole[:8] + struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + whole[33:]
    )
    paths[12].unlink()
    paths[12].symlink_to(raw / "nowhere")
    paths[13].write_bytes(os.urandom(2000))
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 16
    paths[14].write_bytes(bytes(flipped))
    return raw


def test_a_worker_process_starts_without_the_tables_libraries(
    tmp_path: Path, write_nih: WriteNih, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_nih(tmp_path / "raw", [line(number) for number in range(1, 5)])
    seen: list[list[str]] = []

    def look(function: Any, items: Any, what: str, workers: int, **rest: Any) -> Generator[Any, None, None]:
        seen.extend(run_all(partial(loaded_after, function=function), items, what, 2, chunk=1))
        return run_all(function, items, what, workers, **rest)

    monkeypatch.setattr(stage, "run_all", look)
    assert run(raw, tmp_path / "out", workers=2) == {}
    assert len(seen) == 4
    for modules in seen:
        assert "pipeline.quality" in modules
        assert not {"pandas", "pydantic", "pipeline.params", "tensorflow"} & set(modules)


def test_what_cannot_be_used_is_quarantined_with_its_reason(hostile: Path, tmp_path: Path) -> None:
    found = run(hostile, tmp_path / "out")
    table = read_manifest(tmp_path / "out" / "manifest.csv")
    assert table["image_id"].tolist() == ["00000001_000.png", "00000002_000.png"]
    expected = {
        3: "truncated",
        4: "the file is empty",
        5: "neither a PNG nor a JPEG",
        6: "all pixels are equal",
        7: "80x63 is smaller than the required 64 pixels a side",
        8: "501x500 is more than the allowed 250000 pixels",
        9: "truncated",
        10: "neither a PNG nor a JPEG",
        11: "pixels",
        13: "neither a PNG nor a JPEG",
        14: "damaged",
    }
    for number, reason in expected.items():
        assert reason in found.pop(f"images/{number:08d}_000.png"), number
    assert found == {"00000012_000.png": "named in the label table, but there is no such file"}


def test_any_number_of_workers_gives_the_same_bytes(hostile: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        run(hostile, tmp_path / str(workers), workers=workers)
    for name in ("manifest.csv", "quarantine.csv", "ingest.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_the_summary_counts_all(hostile: Path, tmp_path: Path) -> None:
    run(hostile, tmp_path)
    summary = json.loads((tmp_path / "ingest.json").read_text(encoding="utf-8"))
    assert (summary["images"], summary["patients"], summary["quarantined"]) == (2, 2, 12)
    counts = {code: row["count"] for code, row in summary["quarantine_reasons"].items()}
    assert counts.pop("unreadable") + counts.pop("truncated") == 6  # a changed bit may be either
    assert counts == {"too-large": 2, "empty": 1, "blank": 1, "tiny": 1, "label-without-image": 1}
    assert summary["quarantine_reasons"]["blank"]["example"] == "all pixels are equal"
    assert summary["findings"]["Hernia"] == {"positive": 2, "negative": 0, "unknown": 0}
    assert summary["findings"]["Mass"] == {"positive": 0, "negative": 2, "unknown": 0}


def test_the_manifest_holds_what_source_and_pixels_say(tmp_path: Path, write_nih: WriteNih) -> None:
    raw = write_nih(tmp_path / "raw", [line(1), line(2).replace("2500,2048", ",")])
    assert run(raw, tmp_path) == {}
    table = read_manifest(tmp_path / "manifest.csv").set_index("image_id")
    first = table.loc["00000001_000.png"]
    image = read_image(raw / "images" / "00000001_000.png")
    assert (first["patient_id"], first["age"], first["width"], first["height"]) == ("00000001", 60, 2500, 2048)
    assert first["sha256"] == pixel_sha256(image)
    assert first["phash"] == perceptual_hash(image)
    second = table.loc["00000002_000.png"]
    assert (second["width"], second["height"]) == (80, 72)  # the file's own, where the source is silent


@pytest.mark.parametrize("number", ["1.5", "1e400", "99999999999999999999999", "-1", "inf", "x"])
def test_odd_numbers_in_the_source_are_no_crash(tmp_path: Path, write_nih: WriteNih, number: str) -> None:
    raw = write_nih(tmp_path, [line(1).replace(",0,1,", f",{number},1,").replace("2500", number)])
    run(raw, tmp_path / "out")
    row = read_manifest(tmp_path / "out" / "manifest.csv").iloc[0]
    assert (row["width"], row["height"]) == (80, 2048)


def test_a_folder_without_a_usable_image_is_one_line_with_the_reasons_kept(tmp_path: Path, write_nih: WriteNih) -> None:
    raw = write_nih(tmp_path / "raw", [line(1)])
    (raw / "images" / "00000001_000.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"none of 1 files is usable; the reasons are in .*quarantine\.csv"):
        run(raw, tmp_path / "out")
    assert quarantine(tmp_path / "out") == {"images/00000001_000.png": "the file is empty"}
    assert not (tmp_path / "out" / "manifest.csv").exists()


def test_folders_that_are_missing_or_empty_are_one_line(tmp_path: Path, write_nih: WriteNih) -> None:
    with pytest.raises(UserError, match="not a folder; run `cxr download`"):
        run(tmp_path / "none", tmp_path / "out")
    for adapter in ("nih", "pneumonia"):
        with pytest.raises(UserError, match="is it"):
            run(tmp_path, tmp_path / "out", Params(dataset=DatasetParams(adapter=adapter)))
    for lines, files in (([line(1)], []), ([], ["00000001_000.png"])):
        with pytest.raises(UserError, match="none of 1 files is usable"):
            run(write_nih(tmp_path / str(len(lines)), lines, files), tmp_path / "out")


def test_a_name_that_is_not_utf_8_is_no_crash(tmp_path: Path, write_nih: WriteNih) -> None:
    raw = write_nih(tmp_path / "raw", [line(1)])
    name = os.fsencode(raw / "images") + b"/" + "胸片.png".encode("gbk")
    try:
        descriptor = os.open(name, os.O_CREAT | os.O_WRONLY)
    except OSError:
        return  # a file system that allows no such name has no such trouble
    os.close(descriptor)
    try:
        found = run(raw, tmp_path / "out")
    except UserError:
        return
    assert len(found) == 1


def test_pneumonia_files_with_two_suffixes_stop_nothing(tmp_path: Path, draw_png: DrawPng) -> None:
    names = ("train/NORMAL/IM-0001-0001.jpeg", "test/NORMAL/IM-0002-0001.jpeg", "train/NORMAL/IM-0001-0001.png")
    for seed, name in enumerate(names):
        draw_png(tmp_path / "raw" / name, seed)
    found = run(tmp_path / "raw", tmp_path / "out", PNEUMONIA)
    assert len(read_manifest(tmp_path / "out" / "manifest.csv")) + len(found) == 3


def suspects(folder: Path, write_nih: WriteNih) -> Path:
    """Return a tree of seven sound, odd or contradictory films."""
    lines = [line(number) for number in range(1, 8)]
    lines[1] = lines[1].replace("Hernia", "Mass")  # the same pixels as the first
    raw = write_nih(folder, lines)
    paths = [raw / "images" / f"{number:08d}_000.png" for number in range(1, 8)]
    for number, path in enumerate(paths):
        save(film(max(number, 1)), path)  # the first two are equal
    save(255 - film(3), paths[2])
    save(np.ascontiguousarray(np.rot90(film(4))), paths[3])
    save(film(5) // 4, paths[4])
    save(np.dstack([film(6), film(7), film(8)]), paths[5])
    return raw


SUSPECTS = [
    ("00000001_000.png", "conflicting-labels"),
    ("00000002_000.png", "conflicting-labels"),
    ("00000003_000.png", "inverted"),
    ("00000004_000.png", "rotated"),
    ("00000005_000.png", "low-contrast"),
    ("00000005_000.png", "too-dark"),
    ("00000006_000.png", "colour"),
]


def test_what_is_suspicious_stays_and_is_listed(tmp_path: Path, write_nih: WriteNih) -> None:
    run(suspects(tmp_path / "raw", write_nih), tmp_path, Params())
    assert listed(tmp_path) == [(name, code, "kept") for name, code in SUSPECTS]
    assert len(read_manifest(tmp_path / "manifest.csv")) == 7
    summary = json.loads((tmp_path / "ingest.json").read_text(encoding="utf-8"))
    assert (summary["quarantined"], summary["suspicious"]) == (0, 6)
    assert summary["suspicious_reasons"]["conflicting-labels"] == {
        "count": 2,
        "example": "another image of the same pixels has another label of Mass, Hernia",
    }


@pytest.mark.parametrize("refuse", [["inverted", "too-dark"], ["conflicting-labels"], ["colour", "rotated"]])
def test_a_suspicion_is_a_refusal_on_request(tmp_path: Path, write_nih: WriteNih, refuse: list[Suspicion]) -> None:
    params = Params(ingest=IngestParams(refuse=refuse))
    run(suspects(tmp_path / "raw", write_nih), tmp_path, params)
    out = {name for name, code in SUSPECTS if code in refuse}
    assert {name for name, _, action in listed(tmp_path) if action == "refused"} == out
    assert set(read_manifest(tmp_path / "manifest.csv")["image_id"]) == {f"{k:08d}_000.png" for k in range(1, 8)} - out
    kept = {(name, code) for name, code, action in listed(tmp_path) if action == "kept"}
    assert kept == {(name, code) for name, code in SUSPECTS if name not in out}


def test_a_lateral_film_need_not_look_like_a_frontal_one(tmp_path: Path, write_nih: WriteNih) -> None:
    raw = suspects(tmp_path, write_nih)
    catalogue = read_catalogue(raw, DatasetParams())
    catalogue.rows["view"] = "L"
    found = build_manifest(catalogue, raw, IngestParams(), workers=1)
    seven = {(f"{k:08d}_000.png", "lateral") for k in range(1, 8)}
    assert {(Path(item.path).name, item.code.value) for item in found.suspicious} == seven | {
        row for row in SUSPECTS if row[1] not in ("rotated", "inverted")
    }
    none = build_manifest(catalogue, raw, IngestParams(refuse=["lateral"]), workers=1)
    assert none.manifest.empty
    assert none.thumbnails.shape == (0, 16, 16)


def test_an_unknown_code_to_refuse_is_one_line() -> None:
    with pytest.raises(UserError, match=r"ingest\.refuse\.0 is 'blurred' .*'inverted'"):
        parse_params({"ingest": {"refuse": ["blurred"]}}, "the test")


labels = st.sampled_from([0, 1, None])


@given(st.lists(st.tuples(st.sampled_from("abc"), labels, labels), max_size=9))
def test_labels_conflict_where_one_says_yes_and_the_other_no(rows: list[tuple[str, int | None, int | None]]) -> None:
    manifest = pd.DataFrame(
        {
            "path": [f"{k}.png" for k in range(len(rows))],
            "sha256": pd.Series([row[0] for row in rows], dtype="str"),
            "Hernia": pd.array([row[1] for row in rows], dtype="Int8"),
            "Mass": pd.array([row[2] for row in rows], dtype="Int8"),
        }
    )
    expected = {
        f"{k}.png"
        for k, row in enumerate(rows)
        if any({0, 1} <= {other[column] for other in rows if other[0] == row[0]} for column in (1, 2))
    }
    assert {item.path for item in find_conflicts(manifest)} == expected


def test_boxes_and_thumbnails_lie_beside_the_manifest(tmp_path: Path, write_nih: WriteNih) -> None:
    raw = write_nih(tmp_path / "raw", [line(1), line(2), line(3)])
    run(raw, tmp_path)
    header = "image_id,finding,x,y,width,height,file_width,file_height\n"
    assert (tmp_path / "boxes.csv").read_text(encoding="utf-8") == header
    (raw / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "00000002_000.png,Infiltrate,1.5,2,3,4,,,\n00000003_000.png,Mass,1,2,3,4,,,\n",
        encoding="utf-8",
    )
    (raw / "images" / "00000003_000.png").write_bytes(b"")
    run(raw, tmp_path)
    assert (tmp_path / "boxes.csv").read_text(encoding="utf-8").splitlines()[1:] == [
        "00000002_000.png,Infiltration,1.5,2.0,3.0,4.0,80,72"
    ]
    manifest = read_manifest(tmp_path / "manifest.csv")
    pixels, known = read_thumbnails(tmp_path / "thumbnails.npy").find(manifest["sha256"])
    assert known.all()
    for path, small in zip(manifest["path"], pixels, strict=True):
        np.testing.assert_array_equal(small, thumbnail(read_image(raw / path)))


def test_a_decoder_that_takes_its_process_down_costs_one_file(
    tmp_path: Path, write_nih: WriteNih, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start-up file of the workers ends them with SIGKILL at one name, as a fault in a decoder written in C does."""
    raw = write_nih(tmp_path / "raw", [line(number) for number in range(1, 7)])
    hook = tmp_path / "hook" / "sitecustomize.py"
    hook.parent.mkdir()
    hook.write_text(
        "import os, signal, sys\n"
        "def end(event, args):\n"
        "    if event == 'open' and str(args[0]).endswith('00000004_000.png'):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(end)\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", str(hook.parent))
    found = run(raw, tmp_path, workers=2)
    assert found["images/00000004_000.png"] == "the decoder crashed"
    assert ("00000004_000.png", "unreadable", "refused") in listed(tmp_path)
    assert len(read_manifest(tmp_path / "manifest.csv")) == 5


def test_the_real_nih_sample(nih_sample: Path, tmp_path: Path) -> None:
    run(nih_sample, tmp_path, Params(), workers=2)
    table = read_manifest(tmp_path / "manifest.csv")
    assert (len(table), table["patient_id"].nunique()) == (246, 162)
    assert quarantine(tmp_path).keys() == {"sample/images/00002451_005.png"}  # upright, with a black border
    twins = table[table["sha256"].duplicated(keep=False)]
    assert len(twins) == 2  # the same picture under two names
    assert twins["phash"].nunique() == 1


def test_the_real_pneumonia_archive(pneumonia_manifest: Path) -> None:
    table = read_manifest(pneumonia_manifest)
    assert len(table) == 5856
    assert table["Pneumonia"].value_counts().to_dict() == {1: 4273, 0: 1583}
    with (pneumonia_manifest.parent / "quarantine.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["action"] for row in rows} == {"kept"}
    assert {row["code"] for row in rows} <= {"rotated", "low-contrast", "too-bright"}  # 45 of 5,856, docs/audit.md
    assert len(rows) < 0.01 * 5856
    assert set(table["width"]) == set(table["height"]) == {224}
    assert int(table["sha256"].duplicated().sum()) == 32  # pictures that the published set holds again, pixel by pixel
