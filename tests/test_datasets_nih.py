"""NIH ChestX-ray14: every published form of the table, and what copies and spreadsheets make of it."""

import itertools
import sys
from pathlib import Path

import pandas as pd
import pytest
from catalogues import check_catalogue
from conftest import NIH_HEADER, DrawPng, WriteNih
from PIL import Image

from pipeline.datasets import Catalogue, nih
from pipeline.errors import UserError
from pipeline.findings import NIH14
from pipeline.params import DatasetParams

ONE = "00000001_000.png,Cardiomegaly|Emphysema,000,00000001,058Y,M,PA,2682,2749,0.143,0.143"
TWO = "00000002_003.png,No Finding,003,00000002,007M,F,AP,2500,2048,0.168,0.168"
# The header of Data_Entry_2017.csv as published in 2017, with its comma at the end, and its first row.
HEADER_2017 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
)
ROW_2017 = "00000001_000.png,Cardiomegaly|Emphysema,0,1,058Y,M,PA,2682,2749,0.14300000000000002,0.14300000000000002,"


def one_row(catalogue: Catalogue) -> dict[str, object]:
    assert len(catalogue.rows) == 1
    return dict(catalogue.rows.iloc[0])


def reasons(catalogue: Catalogue) -> dict[str, str]:
    return {item.path: item.reason for item in catalogue.refused}


def positive(row: dict[str, object]) -> set[str]:
    return {name for name in NIH14 if row[name] == 1}


def test_the_sample(tmp_path: Path, write_nih: WriteNih) -> None:
    catalogue = nih.read(write_nih(tmp_path / "胸片 raw", [ONE, TWO]), DatasetParams())
    first, second = (dict(row) for _, row in catalogue.rows.iterrows())
    assert (first["image_id"], first["path"]) == ("00000001_000.png", "images/00000001_000.png")
    assert (first["patient_id"], first["view"], first["sex"]) == ("00000001", "PA", "M")
    assert (first["age"], first["followup"], first["width"], first["height"]) == (58, 0, 2682, 2749)
    assert positive(first) == {"Cardiomegaly", "Emphysema"}
    assert positive(second) == set()
    assert all(second[name] == 0 for name in NIH14)  # "No Finding" is a statement, not an unknown
    assert second["age"] == pytest.approx(7 / 12, abs=0.005)
    assert (second["followup"], second["official_split"]) == (3, "")
    assert not catalogue.refused
    assert not catalogue.left_out
    assert not catalogue.notes


@pytest.mark.parametrize("name", ["Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv", "sample_labels.csv"])
def test_the_table_of_2017_and_its_form_as_a_spreadsheet_saves_it(
    tmp_path: Path, write_nih: WriteNih, name: str
) -> None:
    for number, (encoding, end) in enumerate([("utf-8", "\n"), ("utf-8-sig", "\r\n")]):
        raw = tmp_path / str(number)
        write_nih(raw, [ROW_2017 + end[:-1]], ["00000001_000.png"], HEADER_2017.replace("\n", end), encoding)
        (raw / "sample_labels.csv").rename(raw / name)
        row = one_row(nih.read(raw, DatasetParams()))
        assert (row["patient_id"], row["age"], row["width"], row["height"]) == ("00000001", 58, 2682, 2749)
        assert positive(row) == {"Cardiomegaly", "Emphysema"}


def test_a_comma_after_the_rows_but_not_after_the_header_moves_nothing(tmp_path: Path, write_nih: WriteNih) -> None:
    header = HEADER_2017.replace(",\n", "\n")
    try:
        row = one_row(nih.read(write_nih(tmp_path, [ROW_2017], header=header), DatasetParams()))
    except UserError:
        return
    assert (row["image_id"], row["patient_id"]) == ("00000001_000.png", "00000001")


def test_the_published_table_of_2020_with_its_official_lists_in_12_folders(
    tmp_path: Path, shared_data: Path, draw_png: DrawPng
) -> None:
    tables = shared_data / "tables"
    table = tmp_path / "Data_Entry_2017_v2020.csv"
    table.write_bytes((tables / "nih_Data_Entry_2017_v2020.head.csv").read_bytes())
    for name in ("train_val", "test"):
        (tmp_path / f"{name}_list.txt").write_bytes((tables / f"nih_{name}_list.head.txt").read_bytes())
    (tmp_path / "BBox_List_2017.csv").write_bytes((tables / "nih_BBox_List_2017.head.csv").read_bytes())
    published = pd.read_csv(table, index_col=False)
    for number, name in enumerate(published["Image Index"]):
        draw_png(tmp_path / f"images_{number % 12 + 1:03d}" / "images" / name, 0, (8, 8))
    catalogue = nih.read(tmp_path, DatasetParams())
    rows = catalogue.rows
    assert rows["image_id"].tolist() == published["Image Index"].tolist()
    assert (rows["patient_id"].astype(int) == published["Patient ID"]).all()
    assert rows["patient_id"].str.fullmatch(r"\d{8}").all()
    assert (rows["age"] == published["Patient Age"]).all()
    assert (rows["width"] == published["OriginalImage[Width"]).all()
    assert (rows["height"] == published["Height]"]).all()
    for name in NIH14:
        assert (rows[name] == published["Finding Labels"].map(lambda text, name=name: name in text.split("|"))).all()
    test = (tables / "nih_test_list.head.txt").read_text(encoding="utf-8").split()
    expected = set(test) & set(rows["image_id"])
    assert expected
    assert set(rows.loc[rows["official_split"] == "test", "image_id"]) == expected
    assert not catalogue.refused


def test_the_real_sample(nih_sample: Path) -> None:
    catalogue = nih.read(nih_sample, DatasetParams())
    rows = catalogue.rows
    assert (len(rows), rows["patient_id"].nunique()) == (246, 162)
    assert int(rows["Pneumonia"].sum()) == 136
    assert int((rows[list(NIH14)].sum(axis=1) == 0).sum()) == 110
    assert int(rows["Hernia"].sum()) == 0
    assert rows["age"].between(0, 120).all()
    # The sample's table names 5,606 images; what the archive here lacks is named, and nothing else.
    assert set(reasons(catalogue).values()) <= {"named in the label table, but there is no such file"}


def test_files_without_rows_and_rows_without_files_are_named(tmp_path: Path, write_nih: WriteNih) -> None:
    raw = write_nih(tmp_path, [ONE, TWO], ["00000001_000.png", "00000009_000.png"])
    catalogue = nih.read(raw, DatasetParams())
    assert catalogue.rows["image_id"].tolist() == ["00000001_000.png"]
    assert reasons(catalogue) == {
        "00000002_003.png": "named in the label table, but there is no such file",
        "images/00000009_000.png": "not named in the label table",
    }


def test_a_second_copy_is_left_out_and_another_picture_under_the_same_name_is_refused(
    tmp_path: Path, write_nih: WriteNih, draw_png: DrawPng
) -> None:
    raw = write_nih(tmp_path, [ONE, TWO])
    draw_png(raw / "sample" / "images" / "00000001_000.png", 0)  # the same bytes as the first file
    catalogue = nih.read(raw, DatasetParams())
    assert len(catalogue.rows) == 2
    assert list(catalogue.left_out.values()) == [1]
    draw_png(raw / "sample" / "images" / "00000002_003.png", 99)
    catalogue = nih.read(raw, DatasetParams())
    assert catalogue.rows["image_id"].tolist() == ["00000001_000.png"]  # nobody can say which of the two is meant
    assert {"images/00000002_003.png", "sample/images/00000002_003.png"} <= set(reasons(catalogue))


def test_suffixes_in_capitals_are_the_same_file(tmp_path: Path, write_nih: WriteNih) -> None:
    row = one_row(nih.read(write_nih(tmp_path, [ONE], ["00000001_000.PNG"]), DatasetParams()))
    assert (row["image_id"], row["path"]) == ("00000001_000.png", "images/00000001_000.PNG")


def test_a_name_and_a_row_that_disagree_on_the_patient_are_refused(tmp_path: Path, write_nih: WriteNih) -> None:
    catalogue = nih.read(write_nih(tmp_path, [ONE, TWO.replace("00000002,", "00000007,")]), DatasetParams())
    assert reasons(catalogue) == {"images/00000002_003.png": "its name and the label table give different patients"}


@pytest.mark.parametrize(
    ("text", "years"),
    [("060Y", 60), ("58", 58), ("006M", 0.5), ("073D", 0.2), ("013W", 0.25), ("000Y", 0), ("120Y", 120)],
)
def test_ages(tmp_path: Path, write_nih: WriteNih, text: str, years: float) -> None:
    catalogue = nih.read(write_nih(tmp_path, [ONE.replace("058Y", text)]), DatasetParams())
    assert one_row(catalogue)["age"] == pytest.approx(years, abs=0.01)
    assert not catalogue.notes


@pytest.mark.parametrize("text", ["414Y", "411", "-5", "", "NA", "adult", "²Y", "58.5Z", "9" * 5000])
def test_impossible_ages_are_unknown_and_counted(tmp_path: Path, write_nih: WriteNih, text: str) -> None:
    catalogue = nih.read(write_nih(tmp_path, [ONE.replace("058Y", text)]), DatasetParams())
    assert pd.isna(one_row(catalogue)["age"])
    assert sum(catalogue.notes.values()) == 1


@pytest.mark.parametrize("text", ["1.5", "-1", "NA", "1e400", "", "99999999999999999999999", "x"])
def test_impossible_numbers_are_unknown(tmp_path: Path, write_nih: WriteNih, text: str) -> None:
    line = ONE.replace(",000,", f",{text},").replace(",2682,", f",{text},")
    row = one_row(nih.read(write_nih(tmp_path, [line]), DatasetParams()))
    assert pd.isna(row["followup"])
    assert pd.isna(row["width"])
    assert row["height"] == 2749


def test_the_largest_follow_up_number_is_kept(tmp_path: Path, write_nih: WriteNih) -> None:
    assert one_row(nih.read(write_nih(tmp_path, [ONE.replace(",000,", ",183,")]), DatasetParams()))["followup"] == 183


def test_other_words_for_view_and_sex_are_unknown(tmp_path: Path, write_nih: WriteNih) -> None:
    catalogue = nih.read(write_nih(tmp_path, [ONE.replace(",M,PA,", ",O,oblique,"), TWO]), DatasetParams())
    assert catalogue.rows[["sex", "view"]].to_numpy().tolist() == [["", ""], ["F", "AP"]]
    assert catalogue.notes == {"sex of another word: unknown": 1, "view position of another word: unknown": 1}


def test_findings_are_taken_with_spaces_and_refused_when_unknown(tmp_path: Path, write_nih: WriteNih) -> None:
    spaced = ONE.replace("Cardiomegaly|Emphysema", "Pleural_Thickening | Hernia")
    assert positive(one_row(nih.read(write_nih(tmp_path / "a", [spaced]), DatasetParams()))) == {
        "Pleural_Thickening",
        "Hernia",
    }
    for text in ("Cardiomegaly|Broken_Rib", "", "cardiomegaly", "Cardiomegaly;Emphysema"):
        raw = write_nih(tmp_path / str(len(text)), [ONE.replace("Cardiomegaly|Emphysema", text)])
        with pytest.raises(UserError, match=r"image 00000001_000\.png: unknown finding .* allowed: Atelectasis"):
            nih.read(raw, DatasetParams())


def test_junk_of_macs_and_windows_is_left_out(tmp_path: Path, write_nih: WriteNih, draw_png: DrawPng) -> None:
    raw = write_nih(tmp_path, [ONE])
    draw_png(raw / "images" / "._00000001_000.png")
    draw_png(raw / "__MACOSX" / "images" / "00000001_000.png")
    for name in (".DS_Store", "images/Thumbs.db", "desktop.ini"):
        (raw / name).write_bytes(b"junk")
    catalogue = nih.read(raw, DatasetParams())
    assert len(catalogue.rows) == 1
    assert sum(catalogue.left_out.values()) == 5
    assert not catalogue.refused


def test_linked_files_are_read_and_broken_links_are_no_files(tmp_path: Path, write_nih: WriteNih) -> None:
    raw = write_nih(tmp_path / "raw", [ONE, TWO])
    (raw / "images" / "00000001_000.png").rename(tmp_path / "elsewhere.png")
    (raw / "images" / "00000001_000.png").symlink_to(tmp_path / "elsewhere.png")
    (raw / "images" / "00000002_003.png").unlink()
    (raw / "images" / "00000002_003.png").symlink_to(tmp_path / "nowhere")
    catalogue = nih.read(raw, DatasetParams())
    assert one_row(catalogue)["image_id"] == "00000001_000.png"
    assert list(reasons(catalogue)) == ["00000002_003.png"]


def official(raw: Path, train_val: bytes, test: bytes) -> dict[str, str]:
    (raw / "train_val_list.txt").write_bytes(train_val)
    (raw / "test_list.txt").write_bytes(test)
    rows = nih.read(raw, DatasetParams()).rows
    return dict(zip(rows["image_id"], rows["official_split"], strict=True))


def test_official_lists_in_every_form_of_text(tmp_path: Path, write_nih: WriteNih) -> None:
    raw = write_nih(tmp_path, [ONE, TWO])
    expected = {"00000001_000.png": "train_val", "00000002_003.png": "test"}
    for end in (b"\n", b"\r\n", b""):
        assert official(raw, b"00000001_000.png" + end, b"00000002_003.png" + end) == expected
    assert official(raw, b"\xef\xbb\xbf00000001_000.png\r\n", b"\xef\xbb\xbf00000002_003.png\r\n") == expected
    assert official(raw, b"", b"00000002_003.png\n00000099_000.png\n") == expected | {"00000001_000.png": ""}


def test_official_lists_that_overlap_or_cannot_be_read_are_refused(tmp_path: Path, write_nih: WriteNih) -> None:
    raw = write_nih(tmp_path, [ONE, TWO])
    with pytest.raises(UserError, match=r"00000001_000\.png"):  # whichever won, the test set would not be the source's
        official(raw, b"00000001_000.png\n", b"00000001_000.png\n00000002_003.png\n")
    with pytest.raises(UserError, match=r"_list\.txt"):
        official(raw, "00000001_000.png\n".encode("utf-16"), b"00000002_003.png\n")


def test_the_sample_s_two_equal_tables_are_one_and_different_ones_are_refused(
    tmp_path: Path, write_nih: WriteNih
) -> None:
    raw = write_nih(tmp_path, [ONE])
    second = raw / "sample" / "sample_labels.csv"
    second.parent.mkdir()
    second.write_bytes((raw / "sample_labels.csv").read_bytes().replace(b"\n", b"\r\n"))
    assert len(nih.read(raw, DatasetParams()).rows) == 1
    second.write_text(NIH_HEADER + ONE.replace("058Y", "059Y") + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="differ; keep the one"):
        nih.read(raw, DatasetParams())


def test_tables_that_cannot_be_used_are_one_line(tmp_path: Path, write_nih: WriteNih) -> None:
    with pytest.raises(UserError, match="no label table"):
        nih.read(tmp_path, DatasetParams())
    for number, (lines, header, encoding, reason) in enumerate(
        [
            ([ONE, ONE], NIH_HEADER, "utf-8", "more than one row"),
            ([ONE], NIH_HEADER.replace("Patient ID", "MRN"), "utf-8", "columns Patient ID are missing; found"),
            ([ONE], NIH_HEADER.replace(",", ";"), "utf-8", "are missing|not a CSV table"),
            ([ONE], NIH_HEADER, "utf-16", "UTF-8"),
            ([ONE, ONE + ",too,many"], NIH_HEADER, "utf-8", "not a CSV table"),
        ]
    ):
        raw = write_nih(tmp_path / str(number), lines, ["00000001_000.png"], header, encoding)
        with pytest.raises(UserError, match=reason):
            nih.read(raw, DatasetParams())


@pytest.mark.parametrize("keep", [8, 20, 45])
def test_a_table_cut_off_in_its_last_line_is_no_crash(tmp_path: Path, write_nih: WriteNih, keep: int) -> None:
    raw = write_nih(tmp_path, [ONE, TWO[:keep]], ["00000001_000.png", "00000002_003.png"])
    try:
        rows = nih.read(raw, DatasetParams()).rows
    except UserError:
        return
    assert rows["image_id"].tolist() in (["00000001_000.png"], ["00000001_000.png", "00000002_003.png"])


def test_empty_trees_are_no_crash(tmp_path: Path, write_nih: WriteNih) -> None:
    assert nih.read(write_nih(tmp_path / "no images", [ONE], []), DatasetParams()).rows.empty
    assert nih.read(write_nih(tmp_path / "no rows", [], ["00000001_000.png"]), DatasetParams()).rows.empty


def test_the_work_grows_with_the_files_and_not_with_their_square(tmp_path: Path, write_nih: WriteNih) -> None:
    """The full set has 112,120 files: looking at every row for every file would take hours."""

    def calls(images: int) -> int:
        lines = [ONE.replace("00000001", f"{number:08d}") for number in range(1, images + 1)]
        raw = write_nih(tmp_path / str(images), lines, [])
        (raw / "images").mkdir()
        for line in lines:
            (raw / "images" / line[:16]).touch()
        counted = itertools.count()
        sys.setprofile(lambda *_: next(counted))
        try:
            nih.read(raw, DatasetParams())
        finally:
            sys.setprofile(None)
        return next(counted)

    calls(10)  # what is imported and cached on the first call
    assert calls(800) < 4.5 * calls(200)


def test_rgba_files_of_the_real_sample_are_there(nih_sample: Path) -> None:
    modes = []
    for path in sorted(nih_sample.rglob("*.png")):
        with Image.open(path) as picture:
            modes.append(picture.mode)
    assert modes.count("RGBA") == 4


# The header of BBox_List_2017.csv as published: four names from one, and three without a name.
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"


def with_boxes(raw: Path, *lines: str) -> Path:
    (raw / "BBox_List_2017.csv").write_text(BOX_HEADER + "".join(line + "\n" for line in lines), encoding="utf-8")
    return raw


@pytest.mark.parametrize("end", ["", ",,,"])
def test_boxes_with_the_one_name_that_differs(tmp_path: Path, write_nih: WriteNih, end: str) -> None:
    raw = write_nih(tmp_path, [ONE.replace("Cardiomegaly|Emphysema", "Infiltration|Mass"), TWO])
    lines = ["00000001_000.png,Infiltrate,225.084745762712,547.019216763771,86.7796610169491,79.1864406779661",
             "00000001_000.png,Mass,1,2,3,4", "00000002_003.png,Nodule,5,6,7,8",
             "00009999_000.png,Mass,1,2,3,4"]  # fmt: skip
    catalogue = nih.read(with_boxes(raw, *(line + end for line in lines)), DatasetParams())
    check_catalogue(catalogue, raw)
    assert catalogue.boxes.to_numpy().tolist() == [
        ["00000001_000.png", "Infiltration", 225.084745762712, 547.019216763771, 86.7796610169491, 79.1864406779661],
        ["00000001_000.png", "Mass", 1, 2, 3, 4],
        ["00000002_003.png", "Nodule", 5, 6, 7, 8],
    ]
    assert catalogue.notes == {
        "box of an image that is not here": 1,
        "box of a finding that the label table does not give the image": 1,
    }


def test_boxes_that_are_no_area_are_refused_by_line(tmp_path: Path, write_nih: WriteNih) -> None:
    raw = write_nih(tmp_path, [ONE])
    places = ["1,2,3,4", "-1,2,3,4", "1,2,0,4", "1,2,3,", "1,2,nan,4", "1,2,3,1e9", "x,2,3,4"]
    catalogue = nih.read(with_boxes(raw, *(f"00000001_000.png,Emphysema,{p}" for p in places)), DatasetParams())
    assert len(catalogue.boxes) == 1
    assert reasons(catalogue).keys() == {f"BBox_List_2017.csv: line {line}" for line in range(3, 9)}
    assert len(catalogue.rows) == 1
    with pytest.raises(UserError, match="Finding Label is 'Infiltrated' in line 2"):
        nih.read(with_boxes(raw, "00000001_000.png,Infiltrated,1,2,3,4"), DatasetParams())


def test_the_published_boxes(tmp_path: Path, shared_data: Path, write_nih: WriteNih) -> None:
    text = (shared_data / "tables" / "nih_BBox_List_2017.head.csv").read_text(encoding="utf-8")
    published = [line.split(",") for line in text.splitlines()[1:]]
    rows = [ONE.replace("00000001_000", name[:-4]).replace(",00000001,", f",{name[:8]},") for name, *_ in published]
    raw = write_nih(tmp_path, sorted({row.replace("Cardiomegaly|Emphysema", "Atelectasis") for row in rows}))
    (raw / "BBox_List_2017.csv").write_text(text, encoding="utf-8")
    catalogue = nih.read(raw, DatasetParams())
    check_catalogue(catalogue, raw)
    assert len(catalogue.boxes) == len(published) == 119
    found = {tuple(row) for row in catalogue.boxes.itertuples(index=False)}
    assert found == {(name, finding, *map(float, place[:4])) for name, finding, *place in published}
    assert not catalogue.notes


@pytest.mark.parametrize(
    "names",
    [
        ("Patient Gender", "Patient Sex"),
        ("OriginalImageWidth", "OriginalImage[Width"),
        ("OriginalImageHeight", "Height]"),
    ],
)
def test_a_table_with_both_names_of_a_column_is_one_line(
    tmp_path: Path, write_nih: WriteNih, names: tuple[str, str]
) -> None:
    header = f"Image Index,Finding Labels,Patient ID,{','.join(names)}\n"
    raw = write_nih(tmp_path, ["00000001_000.png,Mass,1,1,1"], header=header)
    with pytest.raises(UserError, match=f"two columns mean '{names[0]}'"):
        nih.read(raw, DatasetParams())
