"""The manifest: what is written reads back equal, and every breach of the schema is named."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.findings import NIH14
from pipeline.manifest import (
    ALLOWED,
    COLUMNS,
    NUMBERS,
    findings_of,
    labels_of,
    read_manifest,
    read_splits,
    write_manifest,
)

IDENTIFIERS = ("image_id", "path", "patient_id")
HEADER = ",".join(COLUMNS) + ",Hernia"
GOOD = "00001_0.png,images/00001_0.png,00001,PA,F,60.5,0,2500,2048,ab12,cd34,train_val,1"

# What may stand in an identifier: anything that UTF-8 can hold.
WORD = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
FILE = WORD.filter(lambda name: not name.startswith("/") and ".." not in name)
TRAPS = st.sampled_from(
    ["007", "1e5", "NA", "None", "nan", "null", "1,5", '"', "a\nb", "a\r\nb", " x ", "胸片 1", "#", "-0"]
)


@st.composite
def manifests(draw: st.DrawFn) -> pd.DataFrame:
    ids = draw(st.lists(WORD | TRAPS, min_size=1, max_size=6, unique=True))

    def each(values: st.SearchStrategy[object]) -> list[object]:
        return [draw(values) for _ in ids]

    table = pd.DataFrame({"image_id": ids, "path": each(FILE | TRAPS), "patient_id": each(WORD | TRAPS)}, dtype="str")
    for name, words in ALLOWED.items():
        table[name] = pd.Series(each(st.sampled_from(words)), dtype="str")
    for name in ("sha256", "phash"):
        table[name] = pd.Series(each(st.sampled_from(["00ff", "1234", "12e4"])), dtype="str")
    table["age"] = pd.array(each(st.none() | st.integers(0, 12_000).map(lambda n: n / 100)), dtype="Float64")
    for name in ("followup", "width", "height"):
        table[name] = pd.array(each(st.none() | st.integers(1, 2**31)), dtype="Float64")
    for name in ("Hernia", "Effusion"):
        table[name] = pd.array(each(st.sampled_from([None, 0, 1])), dtype="Int8")
    return table[[*COLUMNS, "Hernia", "Effusion"]]


@settings(max_examples=100)
@given(table=manifests())
def test_written_and_read_back_it_is_the_same(tmp_path_factory: pytest.TempPathFactory, table: pd.DataFrame) -> None:
    path = tmp_path_factory.mktemp("manifest") / "胸 manifest.csv"
    try:
        write_manifest(table, path)
    except UserError:  # control characters, which CSV readers do not agree on
        assert any(letter < " " for name in IDENTIFIERS for letter in "".join(table[name]))
        return
    expected = table.sort_values("image_id").reset_index(drop=True)
    pd.testing.assert_frame_equal(read_manifest(path), expected)


@settings(max_examples=30)
@given(table=manifests(), seed=st.integers(0, 100))
def test_the_order_of_the_rows_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, table: pd.DataFrame, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    table["image_id"] = [f"{name!a}" for name in table["image_id"]]
    table["path"] = table["patient_id"] = table["image_id"]
    write_manifest(table, folder / "a.csv")
    write_manifest(table.sample(frac=1, random_state=seed), folder / "b.csv")
    assert (folder / "a.csv").read_bytes() == (folder / "b.csv").read_bytes()


def write(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8", newline="")
    return path


def test_the_file_is_utf_8_with_line_feeds_and_keeps_zeros(tmp_path: Path) -> None:
    table = read_manifest(write(tmp_path, GOOD))
    write_manifest(table, tmp_path / "again.csv")
    lines = (tmp_path / "again.csv").read_bytes().split(b"\n")
    assert lines[0] == HEADER.encode()
    assert lines[1].startswith(b"00001_0.png,images/00001_0.png,00001,PA,F,60.5,0")
    assert b"\r" not in b"".join(lines)


def test_what_a_spreadsheet_adds_is_read(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f"{HEADER}\r\n{GOOD}\r\n".encode())
    assert read_manifest(path).equals(read_manifest(write(tmp_path, GOOD)))


def test_unknown_is_neither_0_nor_a_word(tmp_path: Path) -> None:
    table = read_manifest(write(tmp_path, "a,p,NA,,,,,,,ab,cd,,"))
    assert table["patient_id"].tolist() == ["NA"]
    assert table[["view", "sex", "official_split"]].to_numpy().tolist() == [["", "", ""]]
    assert table[list(NUMBERS)].isna().all(axis=None)
    assert np.isnan(labels_of(table)).all()
    assert labels_of(table).dtype == np.float32


def test_labels_are_0_1_and_nan_in_the_order_of_the_columns(tmp_path: Path) -> None:
    table = read_manifest(write(tmp_path, GOOD + ",0", "b" + GOOD[11:-1] + ",1", header=HEADER + ",Mass"))
    assert findings_of(table) == ["Hernia", "Mass"]
    np.testing.assert_array_equal(labels_of(table), np.array([[1, 0], [np.nan, 1]], np.float32))


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("00001_0.png,images", ",images", ["1 rows have no image_id", "line 3"]),
        (",00001,PA", ",,PA", ["1 rows have no patient_id", "line 3"]),
        ("images/00001_0.png", "", ["1 rows have no path", "line 3"]),
        (",PA,", ",pa,", ["view is 'pa' in line 3", "allowed: PA, AP, L, or empty"]),
        (",F,", ",Female,", ["sex is 'Female' in line 3", "allowed: F, M, or empty"]),
        ("train_val,1", "dev,1", ["official_split is 'dev' in line 3", "allowed: train_val, train, val, test"]),
        ("train_val,1", "train_val,2", ["Hernia is", "2", "line 3", "allowed: 1, 0, or empty for unknown"]),
        ("train_val,1", "train_val,0.5", ["Hernia is", "0.5", "line 3"]),
        ("train_val,1", "train_val,-1", ["Hernia is", "-1", "line 3"]),  # CheXpert's "uncertain"
        ("train_val,1", "train_val,yes", ["Hernia", "not a number", "yes"]),
        ("60.5", "60Y", ["age", "not a number", "60Y"]),
    ],
)
def test_a_breach_is_named_with_its_first_line(tmp_path: Path, old: str, new: str, parts: list[str]) -> None:
    path = write(tmp_path, "first" + GOOD[11:], GOOD.replace(old, new, 1), "last" + GOOD[11:].replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        read_manifest(path)
    for part in [
        str(path),
        *(part.replace("1 rows", "2 rows" if old != "00001_0.png,images" else "1 rows") for part in parts),
    ]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("60.5", "-3"),
        ("60.5", "inf"),
        (",2500,", ",-1,"),
        (",2500,", ",0,"),
        (",2048,", ",0.5,"),
        (",0,2500", ",-1,2500"),
    ],
)
def test_impossible_numbers_are_refused(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(UserError, match=r"(age|followup|width|height)"):
        read_manifest(write(tmp_path, GOOD.replace(old, new, 1)))


def test_a_column_without_a_name_is_no_finding(tmp_path: Path) -> None:
    """A spreadsheet adds a comma to every line; the nameless column must not become an output of the model."""
    path = write(tmp_path, GOOD + ",", header=HEADER + ",")
    try:
        found = findings_of(read_manifest(path))
    except UserError:
        return
    assert found == ["Hernia"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.png", "images/../../outside.png"])
def test_a_path_that_leaves_the_raw_folder_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UserError, match="path"):
        read_manifest(write(tmp_path, GOOD.replace("images/00001_0.png", path)))


def test_a_picture_without_a_hash_is_refused(tmp_path: Path) -> None:
    """Without it neither leaks nor changed files can be seen, and all such patients would be one group."""
    with pytest.raises(UserError, match="sha256"):
        read_manifest(write(tmp_path, GOOD.replace("ab12", "")))


def test_columns_rows_and_files_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sha256, official_split are missing"):
        read_manifest(write(tmp_path, header=HEADER.replace("sha256,", "").replace("official_split,", "")))
    with pytest.raises(UserError, match="no finding column"):
        read_manifest(write(tmp_path, GOOD[:-2], header=",".join(COLUMNS)))
    with pytest.raises(UserError, match=r"'00001_0\.png' stands in more than one row"):
        read_manifest(write(tmp_path, GOOD, GOOD))
    with pytest.raises(UserError, match="missing: run the stage"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "empty.csv").touch()
    for content in (b"", b"\xff\xfea\x00", b'a,b\n"open', b"a,b\n1,2,3\n1,2,3,4\n"):
        (tmp_path / "empty.csv").write_bytes(content)
        with pytest.raises(UserError, match=r"empty\.csv"):
            read_manifest(tmp_path / "empty.csv")
    with pytest.raises(UserError, match=str(tmp_path)):
        read_manifest(tmp_path)


def test_nothing_is_written_when_the_table_is_wrong(tmp_path: Path) -> None:
    table = read_manifest(write(tmp_path, GOOD))
    with pytest.raises(UserError, match="view"):
        write_manifest(table.assign(view="lateral"), tmp_path / "new.csv")
    assert not (tmp_path / "new.csv").exists()


def test_splits_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"

    def read(text: str) -> pd.DataFrame:
        path.write_text(text, encoding="utf-8")
        return read_splits(path)

    assert read("image_id,patient_id,split\n007,01,val\n").to_numpy().tolist() == [["007", "01", "val"]]
    with pytest.raises(UserError, match=r"split is \['dev'\]; allowed: train, val, test"):
        read("image_id,patient_id,split\na,1,dev\n")
    with pytest.raises(UserError, match="columns patient_id are missing"):
        read("image_id,split\na,train\n")
    with pytest.raises(UserError, match="more than one row"):
        read("image_id,patient_id,split\na,1,train\na,1,val\n")
    with pytest.raises(UserError):
        read("image_id,patient_id,split\na,1\n")


def test_the_vocabulary_is_that_of_chestxray14() -> None:
    # Wang et al., CVPR 2017, as the column "Finding Labels" of the published table spells them.
    assert len(NIH14) == len(set(NIH14)) == 14
    assert {"Pleural_Thickening", "Pneumothorax", "Infiltration"} <= set(NIH14)
