"""The paediatric pneumonia set: nothing lost, nothing twice, and children kept together."""

from collections import Counter
from pathlib import Path

import pytest
from catalogues import check_catalogue
from conftest import DrawPng

from pipeline.datasets import pneumonia
from pipeline.errors import UserError
from pipeline.params import DatasetParams

BASE = ("train/NORMAL/IM-0001-0001.jpeg", "test/NORMAL/NORMAL2-IM-0002-0001.jpeg")


def tree(raw: Path, draw_png: DrawPng, *names: str) -> Path:
    for seed, name in enumerate(names):
        draw_png(raw / name, seed)
    return raw


def test_label_split_and_patient_come_from_the_path(tmp_path: Path, draw_png: DrawPng) -> None:
    names = (
        *BASE,
        "train/PNEUMONIA/person1946_bacteria_4874.jpeg",
        "train/PNEUMONIA/person1_virus_6.jpeg",
        "test/PNEUMONIA/person1_virus_11.jpeg",
        "val/PNEUMONIA/person1_bacteria_1.jpeg",
        "train/NORMAL/IM-0115-0001-0002.jpeg",
        "train/NORMAL/NORMAL2-IM-0115-0001.jpeg",
    )
    rows = pneumonia.read(tree(tmp_path / "肺炎 raw", draw_png, *names), DatasetParams()).rows.set_index("path")
    assert set(rows.index) == set(names)
    assert (rows["official_split"] == [name.split("/")[0] for name in rows.index]).all()
    assert (rows["Pneumonia"] == [int("PNEUMONIA" in name) for name in rows.index]).all()
    assert rows["image_id"].is_unique
    patient = rows["patient_id"]
    assert patient["train/PNEUMONIA/person1946_bacteria_4874.jpeg"] == "person1946"
    assert len({patient[name] for name in names if "/person1_" in name}) == 1  # virus, bacteria and folder alike
    assert patient["train/NORMAL/IM-0115-0001-0002.jpeg"] == "IM-0115"
    assert patient["train/NORMAL/NORMAL2-IM-0115-0001.jpeg"] == "NORMAL2-IM-0115"
    assert set(rows["view"]) == {"AP"}
    assert rows[["age", "followup", "width", "height"]].isna().all(axis=None)


@pytest.mark.parametrize("top", ["", "chest_xray/", "download 2026/胸片/chest_xray/"])
def test_junk_and_the_nested_second_copy_are_left_out_wherever_the_archive_lies(
    tmp_path: Path, draw_png: DrawPng, top: str
) -> None:
    names = [top + name for name in BASE]
    nested = [f"{top}chest_xray/{name}" for name in BASE]
    junk = [f"__MACOSX/{top}train/NORMAL/._IM-0001-0001.jpeg", f"{top}train/NORMAL/._IM-0001-0001.jpeg"]
    raw = tree(tmp_path, draw_png, *names, *nested, *junk)
    (raw / top / "train" / ".DS_Store").write_bytes(b"junk")
    catalogue = pneumonia.read(raw, DatasetParams())
    assert sorted(catalogue.rows["path"]) == sorted(names)
    assert not catalogue.refused
    assert sorted(catalogue.left_out.values()) == [2, 3]


def test_suffixes_may_be_mixed_and_in_capitals(tmp_path: Path, draw_png: DrawPng) -> None:
    names = ("train/PNEUMONIA/person1_virus_1.JPEG", "val/PNEUMONIA/person2_virus_1.jpg", "val/NORMAL/IM-3-1.PNG")
    assert set(names) < set(pneumonia.read(tree(tmp_path, draw_png, *BASE, *names), DatasetParams()).rows["path"])


def test_the_same_name_with_two_suffixes_is_not_counted_twice(tmp_path: Path, draw_png: DrawPng) -> None:
    catalogue = pneumonia.read(tree(tmp_path, draw_png, *BASE, BASE[0].replace(".jpeg", ".png")), DatasetParams())
    assert catalogue.rows["image_id"].is_unique
    assert len(catalogue.rows) + len(catalogue.refused) == 3


def test_what_says_no_patient_or_is_no_image_is_refused_by_name(tmp_path: Path, draw_png: DrawPng) -> None:
    odd = ("train/NORMAL/scan.jpeg", "train/PNEUMONIA/person_virus_1.jpeg")
    raw = tree(tmp_path, draw_png, *BASE, *odd, "train/OTHER/IM-0001-0001.jpeg", "train/IM-0001-0001.jpeg")
    (raw / "train" / "NORMAL" / "notes.txt").write_text("x", encoding="utf-8")
    catalogue = pneumonia.read(raw, DatasetParams())
    assert len(catalogue.rows) == 2
    refused = {item.path: item.reason for item in catalogue.refused}
    assert set(refused) == {
        *odd,
        "train/OTHER/IM-0001-0001.jpeg",
        "train/IM-0001-0001.jpeg",
        "train/NORMAL/notes.txt",
    }
    assert all("patient" in refused[name] for name in odd)


def test_another_layout_is_one_line(tmp_path: Path, draw_png: DrawPng) -> None:
    with pytest.raises(UserError, match="no folders train/NORMAL and test/NORMAL"):
        pneumonia.read(tmp_path, DatasetParams())
    with pytest.raises(UserError, match="no folders train/NORMAL and test/NORMAL"):
        pneumonia.read(
            tree(tmp_path, draw_png, "train/normal/IM-0001-0001.jpeg", "test/normal/IM-0002-0001.jpeg"), DatasetParams()
        )


def test_the_real_archive_is_read_whole(pneumonia_archive: Path) -> None:
    catalogue = pneumonia.read(pneumonia_archive, DatasetParams())
    rows = catalogue.rows
    assert len(rows) == 5856
    assert Counter(rows["Pneumonia"]) == {0: 1583, 1: 4273}
    counts = Counter(zip(rows["official_split"], rows["Pneumonia"], strict=True))
    assert counts == {
        ("train", 0): 1341,
        ("train", 1): 3875,
        ("val", 0): 8,
        ("val", 1): 8,
        ("test", 0): 234,
        ("test", 1): 390,
    }
    assert not catalogue.refused
    assert sum(catalogue.left_out.values()) + len(rows) == sum(1 for p in pneumonia_archive.rglob("*") if p.is_file())


def test_two_copies_side_by_side_are_one_line_and_not_a_guess(tmp_path: Path, draw_png: DrawPng) -> None:
    raw = tree(tmp_path, draw_png, *(f"{top}/{name}" for top in ("a", "b") for name in BASE))
    with pytest.raises(UserError, match="twice, in a and in b; remove one"):
        pneumonia.read(raw, DatasetParams(adapter="pneumonia"))


def test_every_row_is_one_of_the_manifest(tmp_path: Path, draw_png: DrawPng) -> None:
    raw = tree(tmp_path, draw_png, *BASE)
    check_catalogue(pneumonia.read(raw, DatasetParams(adapter="pneumonia")), raw)
