"""The RSNA challenge: several boxes an image, facts in the headers, patients only through the mapping to NIH."""

import csv
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from catalogues import check_catalogue, codes, labels
from dicom_film import write_dicom
from pydicom.config import disable_value_validation

from pipeline.datasets import Catalogue, rsna_pneumonia
from pipeline.decoders.dicom import Facts, read_facts
from pipeline.errors import UserError
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.params import DatasetParams, Params

HEADER = "patientId,x,y,width,height,Target\n"
CLASSES = "patientId,class\n"
NONE, BOTH, ODD = (
    "0004cfab-14fd-4e49-80ba-63a80b6bddd6",
    "00436515-870c-4b36-a041-de91049b9ab4",
    "00313ee0-9eaa-42f4-b0ab-c148ed3241cd",
)
# Rows as published: no box, then two boxes of one image.
ROWS = [f"{NONE},,,,,0", f"{BOTH},264.0,152.0,213.0,379.0,1", f"{BOTH},562.0,152.0,256.0,453.0,1", f"{ODD},,,,,0"]
TABLE = "stage_2_train_labels.csv"
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"


def tree(raw: Path, rows: list[str] = ROWS, header: str = HEADER, **facts: str) -> Path:
    raw.mkdir(parents=True, exist_ok=True)
    (raw / TABLE).write_text(header + "".join(row + "\n" for row in rows), encoding="utf-8")
    for seed, name in enumerate(dict.fromkeys(row.split(",")[0] for row in rows)):
        write_dicom(raw / "stage_2_train_images" / f"{name}.dcm", seed, **facts)
    return raw


def read(raw: Path) -> Catalogue:
    catalogue = rsna_pneumonia.read(raw, DatasetParams(adapter="rsna-pneumonia"))
    check_catalogue(catalogue, raw)
    return catalogue


def test_one_row_an_image_and_one_box_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalogue = read(tree(tmp_path, PatientSex="F", PatientAge="051Y", ViewPosition="AP", PatientName="Doe^Jane"))
    assert {name: labels(catalogue, name) for name in (NONE, BOTH, ODD)} == {
        NONE: {"Pneumonia": 0},
        BOTH: {"Pneumonia": 1},
        ODD: {"Pneumonia": 0},
    }
    row = catalogue.rows.set_index("image_id").loc[BOTH]
    assert row["path"] == f"stage_2_train_images/{BOTH}.dcm"
    assert (row["view"], row["sex"], row["age"]) == ("AP", "F", 51)
    assert catalogue.boxes.to_numpy().tolist() == [
        [BOTH, "Pneumonia", 264, 152, 213, 379],
        [BOTH, "Pneumonia", 562, 152, 256, 453],
    ]
    assert not catalogue.refused
    # patientId names one image; whose it is stands nowhere in the archive, and that is said.
    assert (catalogue.rows["patient_id"] == catalogue.rows["image_id"]).all()
    err = capsys.readouterr().err
    assert "warning: the source names no patients: each of the 3 images counts as its own" in err
    assert "Doe" not in err


@pytest.mark.parametrize(
    ("age", "years"),
    [
        ("155Y", None),
        ("155", None),
        ("", None),
        ("148Y", None),
        ("006M", 0.5),
        ("095Y", 95),
        ("62", 62),
        ("7", 7),
        ("000Y", 0),
    ],
)
def test_ages_of_the_header(tmp_path: Path, age: str, years: float | None) -> None:
    with disable_value_validation():  # DICOM wants a unit, which RSNA's files lack
        raw = tree(tmp_path, ROWS[:1], PatientAge=age)
    catalogue = read(raw)
    found = catalogue.rows["age"].iloc[0]
    assert pd.isna(found) if years is None else found == years
    assert catalogue.notes["age missing or impossible: unknown"] == (years is None)


def test_other_words_of_the_header_are_unknown_and_counted(tmp_path: Path) -> None:
    catalogue = read(tree(tmp_path, ROWS, ViewPosition="LLO", PatientSex="O"))
    assert set(catalogue.rows["view"]) == set(catalogue.rows["sex"]) == {""}
    assert catalogue.notes["view position in the header is a decubitus or an oblique one: unknown"] == 3
    assert catalogue.notes["sex in the header is O (other): unknown"] == 3


def test_a_file_that_is_no_dicom_keeps_its_row_for_ingest_to_refuse(tmp_path: Path) -> None:
    raw = tree(tmp_path, ROWS[:1])
    (raw / "stage_2_train_images" / f"{NONE}.dcm").write_bytes(b"no image")
    catalogue = read(raw)
    assert len(catalogue.rows) == 1
    assert catalogue.notes["header cannot be read: view, sex and age unknown"] == 1


def test_the_challenge_s_own_test_images_are_left_out_and_not_refused(tmp_path: Path) -> None:
    raw = tree(tmp_path)
    write_dicom(raw / "stage_2_test_images" / "0000a175-0e68-4ca4-b1af-167204a7e0bc.dcm", 9)
    write_dicom(raw / "stage_2_train_images" / "ffffffff-0e68-4ca4-b1af-167204a7e0bc.dcm", 8)
    catalogue = read(raw)
    assert catalogue.left_out == {"test image of the challenge, whose labels are not published": 1}
    assert list(codes(catalogue).values()) == ["image-without-label"]


def test_a_row_without_its_file(tmp_path: Path) -> None:
    raw = tree(tmp_path)
    (raw / "stage_2_train_images" / f"{BOTH}.dcm").unlink()
    catalogue = read(raw)
    assert codes(catalogue) == {BOTH: "label-without-image"}
    assert catalogue.boxes.empty  # only boxes of images that are there


@pytest.mark.parametrize(
    "row",
    [f"{ODD},1,2,3,4,1", f"{ODD},1,2,3,4,0", f"{ODD},,,,,1", f"{ODD},-1,2,3,4,1", f"{ODD},1,2,0,4,1",
     f"{ODD},1,2,nan,4,1", f"{ODD},1,2,inf,4,1", f"{ODD},1,2,1e9,4,1", f"{ODD},x,2,3,4,1"],
)  # fmt: skip
def test_rows_that_contradict_each_other_or_themselves_refuse_their_image(tmp_path: Path, row: str) -> None:
    catalogue = read(tree(tmp_path, [*ROWS, row]))
    assert codes(catalogue) == {ODD: "bad-row"}
    assert set(catalogue.rows["image_id"]) == {NONE, BOTH}


def test_a_row_written_twice_counts_once(tmp_path: Path) -> None:
    catalogue = read(tree(tmp_path, [*ROWS, ROWS[1], ROWS[0]]))
    assert (len(catalogue.rows), len(catalogue.boxes)) == (3, 2)
    assert catalogue.notes["the same row twice: counted once"] == 2


@pytest.mark.parametrize(
    ("row", "header", "reason"),
    [
        (f"{NONE},,,,,2", HEADER, "Target is '2' in line 2; allowed: '0', '1'"),
        (f"{NONE},,,,,", HEADER, "Target is '' in line 2"),
        ("../../etc/passwd,,,,,0", HEADER, r"patientId is '../../etc/passwd' in line 2"),
        (",,,,,0", HEADER, "patientId is ''"),
        (f"{NONE},,,,,0", HEADER.replace("Target", "Label"), "columns Target are missing"),
    ],
)
def test_another_table_is_one_line(tmp_path: Path, row: str, header: str, reason: str) -> None:
    (tmp_path / TABLE).write_text(header + row + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=reason):
        read(tmp_path)


def test_no_table_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no stage_2_train_labels\.csv"):
        read(tmp_path)


def test_detailed_classes_are_checked_against_the_labels(tmp_path: Path) -> None:
    raw = tree(tmp_path)
    classes = [f"{NONE},No Lung Opacity / Not Normal", f"{BOTH},Lung Opacity", f"{BOTH},Lung Opacity", f"{ODD},Normal"]
    path = raw / "stage_2_detailed_class_info.csv"
    path.write_text(CLASSES + "\n".join(classes) + "\n", encoding="utf-8")
    catalogue = read(raw)
    assert not catalogue.refused
    assert catalogue.notes["negative, but not normal (No Lung Opacity / Not Normal)"] == 1
    path.write_text(CLASSES + "\n".join(classes).replace("Normal\n", "Lung Opacity\n", 1) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="class is 'No Lung Opacity / Not Lung Opacity' in line 2"):
        read(raw)
    path.write_text(CLASSES + f"{ODD},Lung Opacity\n{NONE},Normal\n{NONE},Lung Opacity\n", encoding="utf-8")
    assert codes(read(raw)) == {ODD: "bad-row", NONE: "bad-row"}


def test_rsna_s_mapping_gives_nih_s_patients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tree(tmp_path)
    entries = [
        {"subset_img_id": NONE, "img_id": "00000165_001.png", "orig_labels": []},
        {"subset_img_id": BOTH, "img_id": "00000165_003.png"},
        {"subset_img_id": "ffffffff", "img_id": "00000166_003.png"},
    ]
    (raw / MAPPING).write_text(json.dumps(entries), encoding="utf-8")
    catalogue = read(raw)
    patients = dict(zip(catalogue.rows["image_id"], catalogue.rows["patient_id"], strict=True))
    assert patients == {NONE: "00000165", BOTH: "00000165", ODD: ODD}
    assert catalogue.notes["not in the mapping to NIH: counts as its own patient"] == 1
    assert "names no patients" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["", "{}x", "[1]", '{"a": 1}', '[{"img_id": "00000001_000.png"}]', '[{"subset_img_id": "a", "img_id": "../x"}]',
     "[" * 100_000, "\ud800", "7", "null"],
)  # fmt: skip
def test_a_mapping_that_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    raw = tree(tmp_path)
    (raw / MAPPING).write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(UserError, match="mappings_2018"):
        read(raw)


def test_the_published_rows(tmp_path: Path, shared_data: Path) -> None:
    table = shared_data / "tables" / "rsna_stage_2_train_labels.head.csv"
    published = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    (tmp_path / "stage_2_train_images").mkdir()
    shutil.copyfile(table, tmp_path / TABLE)
    film = shared_data / "dicom" / "rsna_monochrome2.dcm"
    for name in {row["patientId"] for row in published}:
        (tmp_path / "stage_2_train_images" / f"{name}.dcm").symlink_to(film)
    catalogue = read(tmp_path)
    assert len(catalogue.rows) == len({row["patientId"] for row in published}) == 321
    positive = {row["patientId"] for row in published if row["Target"] == "1"}
    assert set(catalogue.rows.loc[catalogue.rows["Pneumonia"] == 1, "image_id"]) == positive
    assert len(catalogue.boxes) == sum(row["Target"] == "1" for row in published) == 194
    assert set(catalogue.rows["view"]) <= {"PA", "AP"}  # the real header says it
    assert set(catalogue.rows["sex"]) <= {"F", "M"}
    assert not catalogue.refused


def test_dicom_films_reach_the_manifest(tmp_path: Path) -> None:
    raw = tree(tmp_path / "raw", PatientSex="F", PatientAge="051Y", ViewPosition="AP", PatientName="Doe^Jane")
    params = Params(dataset=DatasetParams(adapter="rsna-pneumonia"))
    ingest(raw, tmp_path / "manifest.csv", tmp_path / "quarantine.csv", params, workers=1)
    manifest = read_manifest(tmp_path / "manifest.csv")
    assert set(manifest["image_id"]) == {NONE, BOTH, ODD}
    assert set(manifest["sex"]) == {"F"}
    assert manifest[["height", "width"]].to_numpy().tolist() == [[72, 80]] * 3
    assert not any(b"Doe" in path.read_bytes() for path in tmp_path.glob("*.*") if path.is_file())


def test_the_facts_of_a_real_film(shared_data: Path) -> None:
    # Its header says PatientAge 62, without the unit that DICOM asks for.
    assert read_facts(shared_data / "dicom" / "rsna_monochrome2.dcm") == Facts("PA", "M", 62.0)
