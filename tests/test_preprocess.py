"""Preprocess: the same bytes however often it was stopped and whoever helped, and no image that is not the ingested."""

import dataclasses
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DrawPng, WriteNih
from jobs import loaded_after
from PIL import Image
from preprocess_case import PARAMS, Case, contents, identities, make_case
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from pipeline import preprocess as stage
from pipeline.errors import UserError
from pipeline.images import prepare, read_image
from pipeline.manifest import read_manifest, read_splits
from pipeline.parallel import run_all
from pipeline.params import PreprocessParams
from pipeline.shards import open_processed

RECORD = 8 + 4 + 4 + 32 * 32 + 4  # length, its checksum, row, pixels, their checksum


@pytest.fixture
def case(tmp_path: Path, write_nih: WriteNih) -> Case:
    return make_case(tmp_path / "case", write_nih)


def test_every_image_lies_prepared_in_the_row_that_the_index_says(case: Case) -> None:
    out = case.run()
    processed = open_processed(out)
    manifest, splits = read_manifest(case.tables[0]), read_splits(case.tables[1])
    assert sorted(processed.table["image_id"]) == sorted(splits["image_id"])
    side = dict(zip(splits["image_id"], splits["split"], strict=True))
    path = dict(zip(manifest["image_id"], manifest["path"], strict=True))
    pixels = {}
    for shard in out.glob("*.tfrecord"):
        data = shard.read_bytes()
        assert len(data) % RECORD == 0
        for start in range(0, len(data), RECORD):
            row = int.from_bytes(data[start + 12 : start + 16], "little")
            image = np.frombuffer(data[start + 16 : start + 16 + 1024], np.uint8).reshape(32, 32)
            pixels[row] = (shard.name, image)
    assert sorted(pixels) == list(range(20))
    for _, line in processed.table.iterrows():
        shard, image = pixels[int(line["row"])]
        assert line["shard"] == shard
        assert shard.startswith(side[line["image_id"]])
        assert line["split"] == side[line["image_id"]]
        np.testing.assert_array_equal(image, prepare(read_image(case.raw / path[line["image_id"]]), PARAMS.preprocess))


def test_meta_says_what_was_made_of_what(case: Case) -> None:
    meta = open_processed(case.run()).meta
    assert meta["size"] == 32
    recorded = ("size", "fit", "clahe", "clip_limit", "tiles", "shard_images")
    assert meta["preprocess"] == {name: getattr(PARAMS.preprocess, name) for name in recorded}
    assert meta["index_sha256"] == hashlib.sha256((case.folder / "processed" / "index.csv").read_bytes()).hexdigest()
    assert meta["findings"][:2] == ["Atelectasis", "Cardiomegaly"]
    images = [(shard["name"], shard["images"]) for shard in meta["shards"]]
    assert images == [
        ("train-00000.tfrecord", 4),
        ("train-00001.tfrecord", 4),
        ("train-00002.tfrecord", 4),
        ("train-00003.tfrecord", 2),
        ("val-00000.tfrecord", 4),
        ("test-00000.tfrecord", 2),
    ]


def test_any_number_of_workers_and_any_order_of_the_tables_give_the_same_shards(case: Case) -> None:
    one, two = contents(case.run("one", workers=1)), contents(case.run("two", workers=2))
    assert one == two
    for table in case.tables:
        header, *lines = table.read_text(encoding="utf-8").splitlines()
        table.write_text("\n".join([header, *reversed(lines)]) + "\n", encoding="utf-8")
    reordered = contents(case.run("three"))
    del one["meta.json"], reordered["meta.json"]  # it holds the hashes of the two tables
    assert one == reordered


def test_a_worker_process_starts_without_the_tables_libraries(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the stage sends to its workers is sent to real ones; each says what it has imported once it has worked."""
    seen: list[list[str]] = []

    def look(function: Any, items: Any, what: str, workers: int, **rest: Any) -> Generator[Any, None, None]:
        seen.extend(run_all(partial(loaded_after, function=function), items, what, 2, chunk=1))
        return run_all(function, items, what, workers, **rest)

    monkeypatch.setattr(stage, "run_all", look)
    case.run(workers=2)
    assert len(seen) == 20
    for modules in seen:
        assert "pipeline.images" in modules
        assert not {"pandas", "pydantic", "pipeline.params", "tensorflow"} & set(modules)


def test_a_second_run_writes_no_shard_again(case: Case) -> None:
    before = identities(case.run())
    assert identities(case.run()) == before


KILLED = """
import os
import signal
import sys
from pathlib import Path
from pipeline import preprocess
from pipeline.params_file import load_params

*paths, params, victim = sys.argv[1:]
read = preprocess.process_file


def read_or_die(item, raw, params):
    if item[0].endswith(victim):
        os.kill(os.getpid(), signal.SIGKILL)
    return read(item, raw, params)


preprocess.process_file = read_or_die
preprocess.preprocess(*map(Path, paths), load_params(Path(params)), workers=1)
"""


def test_a_killed_run_leaves_no_meta_and_is_continued(case: Case) -> None:
    """The stage is killed in its third shard: two are whole, and only the others are written by the next run."""
    expected = contents(case.run("expected"))
    table = open_processed(case.folder / "expected").table
    victim = table.loc[table["row"] == 8, "image_id"].item()
    params = case.folder / "params.yaml"
    params.write_text("preprocess: {size: 32, tiles: 4, shard_images: 4}\n", encoding="utf-8")
    out = case.folder / "processed"
    command = [sys.executable, "-c", KILLED, *map(str, (*case.tables, out, case.raw, params)), victim]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not (out / "meta.json").exists()
    with pytest.raises(UserError, match="no finished images"):
        open_processed(out)
    kept = {name: identity for name, identity in identities(out).items() if "partial" not in name}
    assert sorted(kept) == ["train-00000.tfrecord", "train-00001.tfrecord"]
    case.run()
    assert contents(out) == expected
    after = identities(out)
    assert {name: after[name] for name in kept} == kept


@pytest.mark.parametrize("text", ["[]", "{}", "null", '"key"', "{", "", '{"key": []}'])
def test_a_damaged_note_counts_as_not_done(case: Case, text: str) -> None:
    out = case.run()
    before, expected = identities(out), contents(out)
    (out / "val-00000.json").write_text(text, encoding="utf-8")
    case.run()
    assert contents(out) == expected
    after = identities(out)
    assert {name for name in after if after[name] != before[name]} == {"val-00000.tfrecord"}


def test_a_shard_damaged_between_two_runs_is_written_again_alone(case: Case) -> None:
    out = case.run()
    before, expected = identities(out), contents(out)
    shard = out / "val-00000.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match=r"val-00000\.tfrecord"):
        open_processed(out)
    case.run()
    assert contents(out) == expected
    after = identities(out)
    assert {name for name in after if after[name] != before[name]} == {"val-00000.tfrecord"}


@pytest.mark.parametrize("change", [{"size": 64}, {"clahe": False}, {"clip_limit": 3.0}, {"fit": "letterbox"}])
def test_changed_parameters_write_all_shards_anew(case: Case, change: dict[str, object]) -> None:
    before = identities(case.run())
    params = dataclasses.replace(PARAMS, preprocess=dataclasses.replace(PARAMS.preprocess, **change))
    out = case.run(params=params)
    after = identities(out)
    assert set(after) == set(before)
    assert all(after[name] != before[name] for name in after)
    assert contents(out) == contents(case.run("fresh", params))


def test_larger_shards_leave_none_of_the_smaller_ones(case: Case) -> None:
    case.run()
    out = case.run(params=dataclasses.replace(PARAMS, preprocess=PreprocessParams(size=32, shard_images=1000)))
    assert sorted(path.name for path in out.glob("*.tfrecord")) == [
        f"{side}-00000.tfrecord" for side in ("test", "train", "val")
    ]
    assert len(open_processed(out).table) == 20


def test_what_a_user_keeps_in_the_folder_is_not_deleted(case: Case) -> None:
    """`cxr preprocess MANIFEST SPLITS .` must not empty the folder that one happens to stand in."""
    mine = case.folder / "processed" / "thesis.docx"
    mine.parent.mkdir()
    mine.write_text("years of work", encoding="utf-8")
    case.run()
    assert mine.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_that_changed_since_it_was_ingested_is_refused(case: Case, draw_png: DrawPng, workers: int) -> None:
    image = next((case.raw / "images").iterdir())
    draw_png(image, seed=12345)
    with pytest.raises(UserError, match=r"has changed since it was ingested: run `cxr ingest` again"):
        case.run(workers=workers)
    assert not (case.folder / "processed" / "meta.json").exists()


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_an_image_that_can_no_longer_be_read_is_named(case: Case, damage: str) -> None:
    image = next((case.raw / "images").iterdir())
    if damage == "gone":
        image.unlink()
    else:
        image.write_bytes(image.read_bytes()[:500])
    with pytest.raises(UserError, match=image.name):
        case.run()


@pytest.mark.parametrize("kind", ["TIFF", "DICOM"])
def test_an_image_of_any_format_that_ingest_reads_is_prepared(case: Case, kind: str) -> None:
    """The content decides, not the name: the same pixels in another format give the same shards."""
    expected = contents(case.run("expected"))
    image = next((case.raw / "images").iterdir())
    with Image.open(image) as picture:
        pixels = np.asarray(picture)
    if kind == "DICOM":
        write_dicom(image, pixels)
    else:
        Image.fromarray(pixels).save(image, kind)
    assert contents(case.run()) == expected


def write_dicom(path: Path, pixels: np.ndarray) -> None:
    """Write 8-bit MONOCHROME2 without a window or a rescale: its values are the film's (DICOM PS3.3, C.7.6.3)."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Modality = "DX"
    dataset.set_pixel_data(pixels, "MONOCHROME2", 8)
    dataset.save_as(path, enforce_file_format=True)


def test_a_failure_ends_an_older_success(case: Case) -> None:
    out = case.run()
    next((case.raw / "images").iterdir()).unlink()
    with pytest.raises(UserError):
        case.run(params=dataclasses.replace(PARAMS, preprocess=PreprocessParams(size=64)))
    assert not (out / "meta.json").exists()


def test_splits_that_do_not_fit_the_manifest_are_one_line(case: Case) -> None:
    splits = case.tables[1]
    splits.write_text(splits.read_text(encoding="utf-8") + "zzz.png,9,train\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"1 split images are not in the manifest, first zzz\.png"):
        case.run()
    splits.write_text("image_id,patient_id,split\n", encoding="utf-8")
    with pytest.raises(UserError, match="split"):
        case.run()


def test_notes_are_json_with_the_checksum(case: Case) -> None:
    out = case.run()
    meta = json.loads((out / "meta.json").read_text(encoding="utf-8"))
    for shard in meta["shards"]:
        assert json.loads((out / shard["name"]).with_suffix(".json").read_text())["sha256"] == shard["sha256"]
