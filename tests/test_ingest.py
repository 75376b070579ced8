"""Ingest: whatever a file holds, it ends in the manifest or in the quarantine with a reason."""

import csv
import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import DrawPng, WriteNih
from PIL import Image

from pipeline.errors import UserError
from pipeline.images import perceptual_hash, pixel_sha256, read_image
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.params import DatasetParams, IngestParams, Params

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
    assert sum(summary["quarantine_reasons"].values()) == 12
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


def test_the_real_nih_sample(nih_sample: Path, tmp_path: Path) -> None:
    run(nih_sample, tmp_path, Params(), workers=2)
    table = read_manifest(tmp_path / "manifest.csv")
    assert (len(table), table["patient_id"].nunique()) == (246, 162)
    twins = table[table["sha256"].duplicated(keep=False)]
    assert len(twins) == 2  # the same picture under two names
    assert twins["phash"].nunique() == 1


def test_the_real_pneumonia_archive(pneumonia_manifest: Path) -> None:
    table = read_manifest(pneumonia_manifest)
    assert len(table) == 5856
    assert table["Pneumonia"].value_counts().to_dict() == {1: 4273, 0: 1583}
    assert quarantine(pneumonia_manifest.parent) == {}
    assert set(table["width"]) == set(table["height"]) == {224}
    assert int(table["sha256"].duplicated().sum()) == 32  # pictures that the published set holds again, pixel by pixel
