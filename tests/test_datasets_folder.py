"""Your own films: a table of any shape or one folder for each class, and never a patient who is only guessed."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from catalogues import check_catalogue, codes, labels
from conftest import DrawPng
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.datasets import Catalogue, folder, pneumonia, read_catalogue
from pipeline.datasets.patients import patients_in
from pipeline.datasets.tables import read_labels
from pipeline.errors import UserError
from pipeline.params import DatasetParams
from pipeline.params_file import parse_params


def params(**values: object) -> DatasetParams:
    return DatasetParams(adapter="folder", **values)  # type: ignore[arg-type]


def read(raw: Path, **values: object) -> Catalogue:
    catalogue = folder.read(raw, params(**values))
    check_catalogue(catalogue, raw)
    return catalogue


def tree(raw: Path, draw_png: DrawPng, *names: str) -> Path:
    for seed, name in enumerate(names):
        draw_png(raw / name, seed)
    return raw


def table(raw: Path, draw_png: DrawPng, lines: Sequence[str], files: Sequence[str] = ("a.png", "b.png")) -> Path:
    raw.mkdir(parents=True, exist_ok=True)
    (raw / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tree(raw, draw_png, *files)


@pytest.mark.parametrize("top", ["", "my films/", "胸片/2026/"])
def test_classes_and_splits_are_folders(tmp_path: Path, draw_png: DrawPng, top: str) -> None:
    names = (
        "train/NORMAL/p1_1.png",
        "train/Pleural Effusion/p2_1.jpg",
        "validation/Hernia/p3.PNG",
        "test/NORMAL/p4.png",
    )
    raw = tree(tmp_path, draw_png, *(top + name for name in names))
    catalogue = read(raw)
    rows = catalogue.rows.set_index("image_id")
    assert set(rows.index) == set(names)  # the name of the folder above says nothing of the image
    assert [rows.at[name, "official_split"] for name in names] == ["train", "train", "val", "test"]
    assert [labels(catalogue, name) for name in names] == [
        {"Effusion": 0, "Hernia": 0},
        {"Effusion": 1, "Hernia": 0},
        {"Effusion": 0, "Hernia": 1},
        {"Effusion": 0, "Hernia": 0},
    ]


def test_without_splits_and_without_a_negative_class(tmp_path: Path, draw_png: DrawPng) -> None:
    catalogue = read(tree(tmp_path, draw_png, "bacterial/a.png", "viral pneumonia/b.png"))
    assert labels(catalogue, "viral pneumonia/b.png") == {"bacterial": 0, "viral_pneumonia": 1}
    assert set(catalogue.rows["official_split"]) == {""}


def test_without_a_pattern_every_image_is_its_own_patient_and_that_is_said(
    tmp_path: Path, draw_png: DrawPng, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tree(tmp_path, draw_png, "normal/p1_a.png", "normal/p1_b.png", "ill/p2_a.png", "ill/x.png")
    catalogue = read(raw)
    assert catalogue.rows["patient_id"].nunique() == 4
    assert catalogue.notes == {"no patient is known: every image counts as its own patient": 4}
    assert "warning: the source names no patients: each of the 4 images" in capsys.readouterr().err
    catalogue = read(raw, patient_pattern=r"^(p\d+)_")
    assert dict(zip(catalogue.rows["image_id"], catalogue.rows["patient_id"], strict=True)) == {
        "normal/p1_a.png": "p1",
        "normal/p1_b.png": "p1",
        "ill/p2_a.png": "p2",
    }
    assert codes(catalogue) == {"ill/x.png": "no-patient"}
    assert "names no patients" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a.png"], "no image in a folder of its class"),
        (["train/a.png", "test/b.png"], "no image in a folder of its class"),
        (["normal/a.png"], "1 folders with images"),
        (["normal/a.png", "Healthy/b.png"], "all mean that nothing was found"),
        (["a/normal/a.png", "b/ill/b.png"], "folders of classes lie in a and in b"),
        (["train/ill/a.png", "copy/train/ill/a.png", "train/normal/b.png"], r"lie in \. and in copy"),
        (["Mass/a.png", "mass/b.png"], "mean the same finding"),
        (["=cmd()/a.png", "normal/b.png"], "cannot name a finding"),
        (["sha256/a.png", "normal/b.png"], "'sha256' cannot name a finding"),
        ([f"patient{number}/a.png" for number in range(101)], "101 folders with images"),
    ],
)
def test_trees_that_are_none_of_classes_are_one_line(
    tmp_path: Path, draw_png: DrawPng, names: list[str], reason: str
) -> None:
    raw = tree(tmp_path, draw_png, *names)
    with pytest.raises(UserError, match=reason):
        folder.read(raw, params())


def test_a_table_with_known_columns(tmp_path: Path, draw_png: DrawPng) -> None:
    lines = [
        "image,patient,Pleural effusion,Cardiomegaly,hospital,split,view,sex,age",
        "a.png,007,1,0,3,train,PA,female,61",
        "b.png,7,,1.0,4,VALID,lateral,M,130",
    ]
    raw = table(tmp_path, draw_png, lines)
    catalogue = read(raw, table="labels.csv")
    assert labels(catalogue, "a.png") == {"Cardiomegaly": 0, "Effusion": 1}
    assert labels(catalogue, "b.png") == {"Cardiomegaly": 1, "Effusion": None}
    first, second = (dict(row) for _, row in catalogue.rows.iterrows())
    assert (first["patient_id"], second["patient_id"]) == ("007", "7")  # identifiers are strings
    assert (first["official_split"], first["view"], first["sex"], first["age"]) == ("train", "PA", "F", 61)
    assert (second["official_split"], second["view"], second["sex"]) == ("val", "L", "M")
    assert pd.isna(second["age"])
    assert read_catalogue(raw, params(table="labels.csv")).rows["image_id"].tolist() == ["a.png"]


def test_columns_may_have_other_names_and_findings_may_be_chosen(tmp_path: Path, draw_png: DrawPng) -> None:
    raw = table(tmp_path, draw_png, ["file,case,smoker,Mass", "a.png,1,1,0", "b.png,2,0,1"])
    named = {"table": "labels.csv", "image_column": "file", "patient_column": "case"}
    assert set(labels(read(raw, **named), "a.png")) == {"smoker", "Mass"}
    assert labels(read(raw, **named, finding_columns=["Mass"]), "b.png") == {"Mass": 1}
    with pytest.raises(UserError, match="columns Nodule are missing; found file, case, smoker, Mass"):
        read(raw, **named, finding_columns=["Nodule"])


@pytest.mark.parametrize("text", ["scans/one.png", "scans/one", "one.png", "one", "./scans/one.png"])
def test_a_row_may_give_path_name_or_stem(tmp_path: Path, draw_png: DrawPng, text: str) -> None:
    raw = table(tmp_path, draw_png, ["image,patient,Mass", f"{text},1,0"], ["2026/scans/one.png"])
    assert read(raw, table="labels.csv").rows["path"].tolist() == ["2026/scans/one.png"]


def test_a_name_that_may_mean_two_files_is_refused_and_an_exact_path_is_not(tmp_path: Path, draw_png: DrawPng) -> None:
    lines = ["image,patient,Mass", "x/a.png,1,0", "a.png,2,1", "b.png,3,1"]
    raw = table(tmp_path, draw_png, lines, ["x/a.png", "y/x/a.png", "z/b.png"])
    catalogue = read(raw, table="labels.csv")
    assert codes(catalogue) == {"a.png": "conflicting-name", "y/x/a.png": "image-without-label"}
    assert catalogue.rows["path"].tolist() == ["x/a.png", "z/b.png"]


@pytest.mark.parametrize(
    "text", ["../a.png", "/etc/passwd", "C:/a.png", "..", "x\\a.png", "", "x/../../a.png", '"a\n.png"']
)
def test_paths_out_of_the_folder_are_refused_by_line(tmp_path: Path, draw_png: DrawPng, text: str) -> None:
    raw = table(tmp_path / "raw", draw_png, ["image,patient,Mass", "b.png,1,0", f"{text},1,0"])
    draw_png(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"line 3: .* is no path below the raw folder"):
        read(raw, table="labels.csv")


@pytest.mark.parametrize("text", ["../labels.csv", "/labels.csv", "labels", "nowhere.csv", "a\\b.csv"])
def test_a_table_that_is_not_below_the_raw_folder_is_refused(tmp_path: Path, draw_png: DrawPng, text: str) -> None:
    raw = table(tmp_path / "raw", draw_png, ["image,patient,Mass", "a.png,1,0"])
    (tmp_path / "labels.csv").write_text("image,patient,Mass\na.png,1,0\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"dataset\.table"):
        read(raw, table=text)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["image,patient,Mass", "a.png,1,2"], "no column holds only 1, 0 or nothing"),
        (["image,patient,Mass", "a.png,1,"], "no column holds only 1, 0 or nothing"),
        (["image,who,Mass", "a.png,1,1"], "columns patient are missing; found image, who, Mass"),
        (["image,patient,Mass", "a.png,1,1", "a,1,1"], "'a.png' stands in more than one row"),
        (["image,patient,Mass,Mass", "a.png,1,1,0"], "'Mass' stands twice"),
        (["image,patient,Mass,mass", "a.png,1,1,0"], "mean the same finding"),
        (["image,patient,path", "a.png,1,1"], "'path' cannot name a finding"),
        (["image,patient,Mass,split", "a.png,1,1,trian"], "split is 'trian' in line 2"),
        ([",".join(["image", "patient", *(f"f{n}" for n in range(1001))]), "a.png,1"], "more than 1000 columns"),
    ],
)
def test_tables_that_cannot_be_used_are_one_line(
    tmp_path: Path, draw_png: DrawPng, lines: list[str], reason: str
) -> None:
    raw = table(tmp_path, draw_png, lines)
    with pytest.raises(UserError, match=reason):
        folder.read(raw, params(table="labels.csv"))


def test_a_chosen_column_with_another_value_is_refused_by_line(tmp_path: Path, draw_png: DrawPng) -> None:
    raw = table(tmp_path, draw_png, ["image,patient,Mass", "a.png,1,1", "b.png,1,-1"])
    with pytest.raises(UserError, match=r"Mass is '-1' in line 3; allowed: '1', '0', '1\.0', '0\.0', nothing"):
        read(raw, table="labels.csv", finding_columns=["Mass"])


def test_a_table_that_would_fill_the_memory_is_refused_unread(tmp_path: Path, draw_png: DrawPng) -> None:
    raw = table(tmp_path, draw_png, ["image,patient,Mass", "a.png,1,1"])
    with (raw / "labels.csv").open("r+b") as handle:
        handle.truncate(300 << 20)  # sparse: it takes no room on the disk
    with pytest.raises(UserError, match="has 300 MiB; a label table of at most 256 MiB"):
        read(raw, table="labels.csv")


def test_rows_without_files_files_without_rows_and_rows_without_patients(tmp_path: Path, draw_png: DrawPng) -> None:
    lines = ["image,patient,Mass", "a.png,1,1", "b.png, ,0", "c.png,2,1"]
    catalogue = read(table(tmp_path, draw_png, lines, ["a.png", "b.png", "d.png"]), table="labels.csv")
    assert codes(catalogue) == {"b.png": "no-patient", "c.png": "label-without-image", "d.png": "image-without-label"}


def test_patients_of_a_table_from_file_names_or_from_nowhere(
    tmp_path: Path, draw_png: DrawPng, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = table(tmp_path, draw_png, ["image,Mass", "p1_a.png,1", "p1_b.png,0"], ["p1_a.png", "p1_b.png"])
    assert read(raw, table="labels.csv", patient_column="").rows["patient_id"].nunique() == 2
    assert "names no patients" in capsys.readouterr().err
    found = read(raw, table="labels.csv", patient_column="", patient_pattern=r"^(?P<who>p\d+)_")
    assert found.rows["patient_id"].tolist() == ["p1", "p1"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"patient_pattern": "(p"}, "no regular expression"),
        ({"patient_pattern": "p"}, "0 groups; one is needed"),
        ({"patient_pattern": "(p)(q)"}, "2 groups; one is needed"),
        ({"patient_pattern": "(p)" + "x" * 200}, "patient_pattern"),
        ({"image_column": "file"}, "name it in table"),
        ({"table": "a.csv", "patient_pattern": "(p)"}, "both say the patient"),
        ({"uncertain": "ones"}, "only the adapter chexpert knows it, not folder"),
        ({"readers": "any"}, "only the adapter vinbigdata knows it"),
        ({"adapter": "nih", "table": "a.csv"}, "only the adapter folder knows it, not nih"),
    ],
)
def test_parameters_that_would_do_nothing_or_cannot_work_are_refused(values: dict[str, object], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        parse_params({"dataset": {"adapter": "folder"} | values}, "params.yaml")


@pytest.mark.parametrize("pattern", [r"(?=p)(p)", r"(p)\1", r"(?<=a)(p)"])
def test_a_pattern_that_re2_does_not_know_is_one_line(tmp_path: Path, draw_png: DrawPng, pattern: str) -> None:
    with pytest.raises(UserError, match=r"patient_pattern is .* which RE2 cannot use"):
        read(tree(tmp_path, draw_png, "normal/a.png", "ill/b.png"), patient_pattern=pattern)


@pytest.mark.parametrize("pattern", [r"((?:a+)+)$", r"((?:a|a)*)b$", r"((?:a?){40}a{40})b$", r"(.*.*.*.*.*.*.*)x$"])
def test_a_pattern_that_takes_python_years_ends(pattern: str) -> None:
    names = ["a" * 250 + "!"] * 50
    assert patients_in(names, pattern) == [""] * 50


@settings(max_examples=60)
@given(
    names=st.lists(st.text(st.sampled_from("ap0123_-. é胸"), max_size=20), max_size=6),
    pattern=st.sampled_from([r"^(p\d+)_", r"(\d+)", r"_([^_]*)$", r"^(?:a|p)(.)", r"(a)?p"]),
)
def test_patients_are_those_that_python_s_search_finds(names: list[str], pattern: str) -> None:
    import re

    # RE2 reads \d in ASCII, as re does with its flag.
    expected = [(match[1] or "") if (match := re.search(pattern, name, re.ASCII)) else "" for name in names]
    assert patients_in(names, pattern) == expected


@settings(max_examples=40)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(["1", "0", ""]), st.sampled_from(["1", "0", "1.0", ""]), st.integers(1, 3)),
        min_size=1,
        max_size=5,
    )
)
def test_what_a_table_says_is_what_the_catalogue_holds(
    tmp_path_factory: pytest.TempPathFactory, draw_png: DrawPng, rows: list[tuple[str, str, int]]
) -> None:
    lines = [f"{number}.png,p{who},{one},{two}" for number, (one, two, who) in enumerate(rows)]
    raw = tmp_path_factory.mktemp("table")
    table(raw, draw_png, ["image,patient,Mass,Hernia", *lines], [line.split(",")[0] for line in lines])
    catalogue = read(raw, table="labels.csv", finding_columns=["Mass", "Hernia"])
    meaning = {"1": 1, "1.0": 1, "0": 0, "": None}
    for number, (one, two, _) in enumerate(rows):
        assert labels(catalogue, f"{number}.png") == {"Mass": meaning[one], "Hernia": meaning[two]}
    assert catalogue.rows["patient_id"].tolist() == [f"p{who}" for _, _, who in rows]


def test_the_real_pneumonia_archive_as_a_folder_through_links(tmp_path: Path, pneumonia_archive: Path) -> None:
    for name in ("train", "val", "test"):
        (tmp_path / name).symlink_to(pneumonia_archive / "chest_xray" / name)
    catalogue = read(tmp_path, patient_pattern=r"^(person\d+|(?:NORMAL2-)?IM-\d+)[-_]")
    own = pneumonia.read(pneumonia_archive, DatasetParams(adapter="pneumonia")).rows
    assert len(catalogue.rows) == len(own) == 5856
    ours = catalogue.rows.sort_values("path").reset_index(drop=True)
    own = own.sort_values("path").reset_index(drop=True)
    for name in ("patient_id", "official_split", "Pneumonia"):  # two adapters, one truth
        assert ours[name].tolist() == own[name].tolist()


@pytest.mark.parametrize("name", ["path", "image_id", "patient_id", "split"])
def test_patients_may_stand_in_a_column_of_any_name(tmp_path: Path, draw_png: DrawPng, name: str) -> None:
    lines = [f"image,{name},Mass", "a.png,train,1", "b.png,train,0"]
    raw = table(tmp_path, draw_png, lines)
    assert read(raw, table="labels.csv", patient_column=name).rows["patient_id"].tolist() == ["train", "train"]


def test_a_stray_cell_is_named_and_no_finding_is_none(
    tmp_path: Path, draw_png: DrawPng, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["image,patient,Mass,Edema,No Finding", "a.png,1,1,-1,0", "b.png,2,0,1,1", "c.png,3,0,1,1"]
    raw = table(tmp_path, draw_png, lines, ["a.png", "b.png", "c.png"])
    assert "Mass" in read(raw, table="labels.csv").rows.columns
    assert not {"Edema", "No_Finding", "No Finding"} & set(read(raw, table="labels.csv").rows.columns)
    err = capsys.readouterr().err
    assert "column 'Edema' is not taken for a finding: 1 of 3 cells, first in line 2, hold no 1, 0 or nothing" in err
    assert "column 'No Finding' is not taken for a finding: it means that nothing was found" in err


def test_the_warning_of_a_stray_cell_does_not_quote_it(
    tmp_path: Path, draw_png: DrawPng, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["image,patient,Mass,remark,hospital", "a.png,1,1,,St Mary", "b.png,2,0,,St Mary", "c.png,3,0,Jane Doe,7"]
    read(table(tmp_path, draw_png, lines, ["a.png", "b.png", "c.png"]), table="labels.csv")
    err = capsys.readouterr().err
    assert "'remark'" in err
    assert "Doe" not in err
    assert "hospital" not in err  # most of its cells are no labels


def test_words_that_mean_nothing_here_are_counted(tmp_path: Path, draw_png: DrawPng) -> None:
    lines = ["image,patient,view,sex,Mass", "a.png,1,Lateral left,W,1", "b.png,2,LAT.,F,0"]
    lines += ["c.png,3,oblique,,1", "d.png,4,latissimus,M,0"]
    raw = table(tmp_path, draw_png, lines, ["a.png", "b.png", "c.png", "d.png"])
    catalogue = read(raw, table="labels.csv", views="all")
    assert catalogue.rows["view"].tolist() == ["L", "L", "", ""]
    assert catalogue.rows["sex"].tolist() == ["", "F", "", "M"]
    assert catalogue.notes["view position of another word: unknown"] == 2
    assert catalogue.notes["sex of another word: unknown"] == 1


@pytest.mark.parametrize(
    ("folders", "taken"),
    [
        (["study"], ["study/images/1.png"]),
        (["study", "other"], ["study/images/1.png"]),
        ([".", "other"], ["images/1.png"]),
        ([".", "study"], []),
    ],
)
def test_a_table_in_a_subfolder_means_a_file_beside_it_or_below_the_raw_folder(
    tmp_path: Path, draw_png: DrawPng, folders: list[str], taken: list[str]
) -> None:
    for seed, name in enumerate(folders):
        draw_png(tmp_path / name / "images" / "1.png", seed)
    (tmp_path / "study").mkdir(exist_ok=True)
    (tmp_path / "study" / "labels.csv").write_text("image,patient,Mass\nimages/1.png,1,1\n", encoding="utf-8")
    catalogue = read(tmp_path, table="study/labels.csv")
    assert catalogue.rows["path"].tolist() == taken
    assert ("line 2 of the label table may mean 2 files" in [item.reason for item in catalogue.refused]) != bool(taken)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_repeated_column_is_refused_whatever_ends_the_lines(tmp_path: Path, draw_png: DrawPng, end: str) -> None:
    raw = table(tmp_path, draw_png, ["image,patient,Mass"])
    lines = ["image,patient,Mass,Mass", "a.png,1,1,0", ""]
    (raw / "labels.csv").write_bytes(end.join(lines).encode())
    with pytest.raises(UserError, match="'Mass' stands twice in the header"):
        read(raw, table="labels.csv")


def test_a_long_table_whose_lines_end_with_cr_is_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(b"image,patient,Mass\r" + "胸片,1,1\r".encode() * 150_000)
    assert path.stat().st_size > 2**20
    assert len(read_labels(path, ["image"])) == 150_000


@pytest.mark.parametrize("end", [b"\n", b"\r"])
def test_limits_hold_whatever_ends_the_lines(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(b",".join(b"f%d" % number for number in range(1001)) + end + b"1" + end)
    with pytest.raises(UserError, match="more than 1000 columns"):
        read_labels(path, [])
    path.write_bytes(b"x" * 200_000 + b"," * 2000 + end)  # a name longer than Python's csv reads
    with pytest.raises(UserError, match="the header is not that of a CSV table"):
        read_labels(path, [])
    with path.open("r+b") as handle:
        handle.truncate(300 << 20)
    with pytest.raises(UserError, match="has 300 MiB"):
        read_labels(path, [])
