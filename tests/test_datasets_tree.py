"""Folders of a data set: links are followed once and never in circles."""

import os
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest
from conftest import DrawPng, WriteNih

from pipeline.datasets import nih
from pipeline.datasets.tree import by_key, list_files, safe_path, shown
from pipeline.errors import UserError
from pipeline.params import DatasetParams
from pipeline.quarantine import Refused


def listed(raw: Path) -> tuple[list[str], Counter[str]]:
    left_out: Counter[str] = Counter()
    return [str(file) for file in list_files(raw, left_out)], left_out


def test_a_linked_image_folder_is_read(tmp_path: Path, write_nih: WriteNih, draw_png: DrawPng) -> None:
    rows = ["00000001_000.png,No Finding,0,1,058Y,M,PA,1,1,1,1"]
    raw = write_nih(tmp_path / "raw", rows, [])
    draw_png(tmp_path / "other disk" / "00000001_000.png")
    (raw / "images").symlink_to(tmp_path / "other disk")
    catalogue = nih.read(raw, DatasetParams())
    assert catalogue.rows["path"].tolist() == ["images/00000001_000.png"]
    assert not catalogue.refused


def test_a_folder_is_listed_once_under_its_real_name(tmp_path: Path, draw_png: DrawPng) -> None:
    draw_png(tmp_path / "m real" / "x.png")
    for name in ("a", "z"):
        (tmp_path / name).symlink_to(tmp_path / "m real")
    (tmp_path / "m real" / "deeper").mkdir()
    (tmp_path / "m real" / "deeper" / "again").symlink_to(tmp_path / "m real")
    files, left_out = listed(tmp_path)
    assert files == ["m real/x.png"]
    assert left_out == {"folder that a link leads to a second time": 3}


def test_links_in_a_circle_outside_end(tmp_path: Path, draw_png: DrawPng) -> None:
    raw, one, two = tmp_path / "raw", tmp_path / "one", tmp_path / "two"
    for folder in (raw, one, two):
        folder.mkdir()
    draw_png(two / "x.png")
    (raw / "link").symlink_to(one)
    (one / "link").symlink_to(two)
    (two / "link").symlink_to(one)
    assert listed(raw)[0] == ["link/link/x.png"]


@pytest.mark.parametrize("target", [".", "..", "/"])
def test_a_link_to_a_folder_above_is_one_line(tmp_path: Path, target: str) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "loop").symlink_to(raw / target)
    with pytest.raises(UserError, match=r"loop is a link to a folder that holds .*; remove the link"):
        listed(raw)


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing cannot be read"):
        listed(tmp_path / "missing")


def test_only_files_are_listed_and_junk_is_counted(tmp_path: Path, draw_png: DrawPng) -> None:
    draw_png(tmp_path / "b" / "x.png")
    draw_png(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / ".DS_Store").write_bytes(b"junk")
    assert listed(tmp_path) == (["a.png", "b/x.png"], Counter({"junk of the operating system": 1}))


def test_a_name_that_no_table_can_hold_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a\nb.png").write_bytes(b"x")
    with pytest.raises(UserError, match="not printable UTF-8"):
        listed(tmp_path)


def test_paths_and_texts_of_tables() -> None:
    assert safe_path("./a/b c.png", "t") == PurePosixPath("a/b c.png")
    assert safe_path("胸片/é.png", "t") == PurePosixPath("胸片/é.png")
    assert shown("x" * 120) == "x" * 120
    assert shown("\x1b[31m" + "x" * 500) == "?[31m" + "x" * 114 + "…"


def test_no_reason_names_another_file(tmp_path: Path, draw_png: DrawPng) -> None:
    for seed, folder in enumerate(("Doe Jane", "Smith John")):
        draw_png(tmp_path / folder / "1.png", seed)
    refused: list[Refused] = []
    files = [PurePosixPath("Doe Jane/1.png"), PurePosixPath("Smith John/1.png")]
    assert by_key(tmp_path, files, lambda file: file.name, Counter(), refused) == {}
    assert {item.path for item in refused} == set(map(str, files))
    assert not any(name in item.reason for item in refused for name in ("Doe", "Jane", "Smith", "John"))


def test_the_record_of_the_download_is_no_file_of_the_data_set(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in (".download.json", "deep/.download.json", "a.png"):
        (tmp_path / name).write_bytes(b"x")
    assert listed(tmp_path) == (["a.png", "deep/.download.json"], Counter())
