"""The shards: TensorFlow's own reader reads them, and damage does not go unseen."""

import hashlib
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pandas as pd
import pytest

from pipeline.errors import UserError
from pipeline.files import read_json, sha256_file, write_json
from pipeline.shards import HEADER, INDEX, META, open_processed, write_index, write_shard

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a folder by hand as `preprocess` does: three images for training, two for validation."""
    out = tmp_path / "处理 processed"
    out.mkdir()
    splits = ["train"] * 3 + ["val"] * 2
    shards = []
    for split, rows in (("train", range(3)), ("val", range(3, 5))):
        name = f"{split}-00000.tfrecord"
        write_shard(out / name, [(row, IMAGES[row]) for row in rows])
        shards.append({"name": name, "split": split, "images": len(rows), "sha256": sha256_file(out / name)})
    table = pd.DataFrame({"row": range(5), "shard": [f"{split}-00000.tfrecord" for split in splits], "split": splits})
    table = table.assign(image_id=[f"00{n}" for n in range(5)], patient_id=["007", "NA", "None", "7", "1e5"], view="PA")
    table = table.assign(
        sex="", age=None, followup=0, width=9, height=9, sha256="ab", Mass=[1, 0, None, 0, 1], Hernia=0
    )
    index_sha256 = write_index(out / INDEX, table)
    meta = {"size": 32, "findings": ["Mass", "Hernia"], "shards": shards, "index_sha256": index_sha256}
    write_json(out / META, meta)
    return out


def test_the_framing_is_tensorflow_s_byte_by_byte(tmp_path: Path) -> None:
    """Worked out from core/lib/io/record_writer.h and core/lib/hash/crc32c.h, independently of the writer."""
    sha256 = write_shard(tmp_path / "a.tfrecord", [(7, IMAGES[0]), (8, IMAGES[1])])
    assert sha256 == hashlib.sha256((tmp_path / "a.tfrecord").read_bytes()).hexdigest()
    expected = b""
    for row, image in ((7, IMAGES[0]), (8, IMAGES[1])):
        data = struct.pack("<I", row) + image.tobytes()
        length = struct.pack("<Q", len(data))
        for part in (length, data):
            crc = google_crc32c.value(part)
            rotated = ((crc >> 15) | (crc << 17)) & 0xFFFFFFFF
            expected += part + struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)
    assert (tmp_path / "a.tfrecord").read_bytes() == expected


def test_crc32c_is_castagnolis() -> None:
    assert google_crc32c.value(b"123456789") == 0xE3069283  # RFC 3720, appendix B.4 and the catalogue's check value


def test_tensorflow_reads_rows_pixels_and_labels(folder: Path) -> None:
    import tensorflow as tf

    processed = open_processed(folder)
    for split, rows in (("train", [0, 1, 2]), ("val", [3, 4]), ("test", [])):
        found = [record.numpy() for record in tf.data.TFRecordDataset(processed.files(split))] if rows else []
        assert [HEADER.unpack(record[:4])[0] for record in found] == rows
        assert processed.rows(split)["row"].tolist() == rows
        for row, record in zip(rows, found, strict=True):
            np.testing.assert_array_equal(np.frombuffer(record[4:], np.uint8).reshape(32, 32), IMAGES[row])
    assert processed.findings == ["Mass", "Hernia"]
    assert processed.size == 32
    np.testing.assert_array_equal(processed.labels, np.array([[1, 0], [0, 0], [np.nan, 0], [0, 0], [1, 0]], np.float32))


def test_identifiers_stay_words(folder: Path) -> None:
    table = open_processed(folder).table
    assert table["image_id"].tolist() == ["000", "001", "002", "003", "004"]
    assert table["patient_id"].tolist() == ["007", "NA", "None", "7", "1e5"]
    assert table["age"].isna().all()


@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "gone", "empty"])
def test_a_damaged_shard_is_named(folder: Path, damage: str) -> None:
    path = folder / "val-00000.tfrecord"
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[100] ^= 1
    changed = {"flip": data, "cut": data[:-1], "longer": data + b"\0", "empty": b""}.get(damage)
    if changed is None:
        path.unlink()
    else:
        path.write_bytes(changed)
    with pytest.raises(UserError, match=r"val-00000\.tfrecord is missing or differs from its checksum.*dvc repro"):
        open_processed(folder)


def test_an_unfinished_folder_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / META).unlink()
    for path in (folder, tmp_path / "none"):
        with pytest.raises(UserError, match=r"no finished images \(meta\.json is missing\)"):
            open_processed(path)


@pytest.mark.parametrize("damage", ["label", "gone", "unrecorded"])
def test_an_index_that_is_missing_or_differs_is_named(folder: Path, damage: str) -> None:
    """A label that changed would otherwise be trained on."""
    path = folder / INDEX
    text = path.read_text(encoding="utf-8")
    if damage == "label":
        path.write_text(text.replace(",1.0,0\n", ",0.0,0\n", 1), encoding="utf-8")
        assert path.read_text(encoding="utf-8") != text
    elif damage == "gone":
        path.unlink()
    else:
        meta = read_json(folder / META)
        del meta["index_sha256"]
        write_json(folder / META, meta)
    with pytest.raises(UserError, match=r"index\.csv is missing or differs from its checksum.*dvc repro"):
        open_processed(folder)


def test_a_writer_that_fails_leaves_no_shard(tmp_path: Path) -> None:
    def broken() -> object:
        yield 0, IMAGES[0]
        raise UserError("unreadable")

    with pytest.raises(UserError, match="unreadable"):
        write_shard(tmp_path / "a.tfrecord", broken())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["{}", "[]", '{"shards": 1}', '{"shards": [1]}'])
def test_a_damaged_record_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / META).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="is damaged: run"):
        open_processed(tmp_path)
