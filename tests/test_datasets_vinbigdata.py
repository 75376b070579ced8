"""VinBigData: three readers who disagree, boxes in the film's own pixels, no patient."""

import csv
from collections import defaultdict
from pathlib import Path

import pytest
from catalogues import check_catalogue, codes, labels
from dicom_film import write_dicom
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.datasets import Catalogue, vinbigdata
from pipeline.errors import UserError
from pipeline.findings import VINBIGDATA
from pipeline.params import DatasetParams

HEADER = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
A, B = "50a418190bc3fb1ef1633bf9678929b3", "9a5094b2563a1ef3ff50dc5c7ff71345"
# Class names and numbers as the competition's page lists them.
CLASSES = ["Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD", "Infiltration",
           "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion", "Pleural thickening", "Pneumothorax",
           "Pulmonary fibrosis", "No finding"]  # fmt: skip


def row(image: str, name: str, reader: str, box: str = "691.0,1375.0,1653.0,1831.0") -> str:
    return f"{image},{name},{CLASSES.index(name)},{reader},{',,,' if name == 'No finding' else box}"


NORMAL = [row(A, "No finding", reader) for reader in ("R1", "R2", "R3")]


def tree(raw: Path, rows: list[str], header: str = HEADER) -> Path:
    raw.mkdir(parents=True, exist_ok=True)
    (raw / "train.csv").write_text(header + "".join(line + "\n" for line in rows), encoding="utf-8")
    for seed, name in enumerate(dict.fromkeys(line.split(",")[0] for line in rows)):
        write_dicom(raw / "train" / f"{name}.dicom", seed, PatientSex="M")
    return raw


def read(raw: Path, readers: str = "majority") -> Catalogue:
    params = DatasetParams(adapter="vinbigdata", readers=readers)  # type: ignore[arg-type]
    catalogue = vinbigdata.read(raw, params)
    check_catalogue(catalogue, raw)
    return catalogue


def test_the_classes_are_those_published() -> None:
    assert [*VINBIGDATA, "No finding"] == CLASSES


def test_two_of_three_readers_decide_and_their_boxes_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        *NORMAL,
        row(B, "Cardiomegaly", "R8", "691,1375,1653,1831"),
        row(B, "Cardiomegaly", "R9", "690,1370,1650,1830"),
        row(B, "Pleural effusion", "R9", "10,20,30,50"),
        row(B, "No finding", "R10"),
    ]
    raw = tree(tmp_path, rows)
    majority, either = read(raw), read(raw, "any")
    assert {name for name, value in labels(majority, B).items() if value} == {"Cardiomegaly"}
    assert {name for name, value in labels(either, B).items() if value} == {"Cardiomegaly", "Effusion"}
    assert set(labels(majority, A).values()) == {0}
    assert majority.boxes.to_numpy().tolist() == [
        [B, "Cardiomegaly", 690, 1370, 960, 460],
        [B, "Cardiomegaly", 691, 1375, 962, 456],
    ]
    assert majority.notes["box of a finding that most readers did not see: left out"] == 1
    assert either.boxes.to_numpy().tolist()[-1] == [B, "Effusion", 10, 20, 20, 30]
    first = majority.rows.iloc[0]
    assert (first["path"], first["sex"], first["patient_id"]) == (f"train/{A}.dicom", "M", A)
    assert "names no patients" in capsys.readouterr().err


def test_two_boxes_of_one_reader_are_one_vote(tmp_path: Path) -> None:
    rows = [row(A, "No finding", "R1"), row(A, "No finding", "R2")]
    rows += [row(A, "Nodule/Mass", "R3", box) for box in ("1,2,3,4", "5,6,7,8")]
    assert labels(read(tree(tmp_path, rows)), A)["Nodule_or_Mass"] == 0


def test_a_tie_is_no_majority(tmp_path: Path) -> None:
    raw = tree(tmp_path, [row(A, "ILD", "R1"), row(A, "No finding", "R2")])
    assert labels(read(raw), A)["ILD"] == 0
    assert labels(read(raw, "any"), A)["ILD"] == 1


@pytest.mark.parametrize(
    "bad",
    [
        row(B, "ILD", "R1", "5,5,5,9"),
        row(B, "ILD", "R1", "9,5,5,9"),
        row(B, "ILD", "R1", "-1,5,5,9"),
        row(B, "ILD", "R1", ",,,"),
        row(B, "ILD", "R1", "1,2,3,inf"),
        row(B, "ILD", ""),
        row(B, "No finding", "R1")[:-3] + "1,2,3",
        row(B, "ILD", "R1") + "\n" + row(B, "No finding", "R1"),
    ],
)
def test_rows_that_make_no_sense_refuse_their_film(tmp_path: Path, bad: str) -> None:
    catalogue = read(tree(tmp_path, [*NORMAL, *bad.split("\n")]))
    assert codes(catalogue) == {B: "bad-row"}
    assert catalogue.rows["image_id"].tolist() == [A]


def test_films_that_fewer_than_three_read_are_counted(tmp_path: Path) -> None:
    catalogue = read(
        tree(tmp_path, [*NORMAL, row(B, "ILD", "R1"), row(B, "ILD", "R1", "1,2,3,4"), row(B, "ILD", "R2")])
    )
    assert catalogue.notes["film that fewer than 3 readers read"] == 1


def test_a_row_written_twice_counts_once(tmp_path: Path) -> None:
    rows = [row(A, "ILD", "R1"), row(A, "ILD", "R2"), row(A, "ILD", "R1")]
    catalogue = read(tree(tmp_path, rows))
    assert (len(catalogue.rows), len(catalogue.boxes)) == (1, 2)
    assert catalogue.notes["the same row twice: counted once"] == 1


@pytest.mark.parametrize(
    ("line", "header", "reason"),
    [
        (f"{A},Broken rib,3,R1,1,2,3,4", HEADER, "class_name is 'Broken rib' in line 2"),
        (f"{A},ILD,3,R1,1,2,3,4", HEADER, "class_id and class_name do not belong together"),
        (f"{A},ILD,15,R1,1,2,3,4", HEADER, "class_id is '15'"),
        (NORMAL[0], HEADER.replace("rad_id", "reader"), "columns rad_id are missing"),
    ],
)
def test_another_table_is_one_line(tmp_path: Path, line: str, header: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read(tree(tmp_path, [line], header))


def test_the_competition_s_test_films_are_left_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no train\.csv"):
        read(tmp_path)
    raw = tree(tmp_path, NORMAL)
    write_dicom(raw / "test" / "002a34c58c5b758217ed1f584ccbcfe9.dicom", 9)
    write_dicom(raw / "train" / "ffff34c58c5b758217ed1f584ccbcfe9.dicom", 8)
    catalogue = read(raw)
    assert catalogue.left_out == {"test image of the competition, whose labels are not published": 1}
    assert list(codes(catalogue).values()) == ["image-without-label"]


def test_a_hostile_image_id_finds_no_file(tmp_path: Path) -> None:
    raw = tree(tmp_path / "raw", NORMAL)
    write_dicom(tmp_path / "outside.dicom", 3)
    with (raw / "train.csv").open("a", encoding="utf-8") as handle:
        handle.write(row("../../outside", "ILD", "R1") + "\n")
    assert codes(read(raw)) == {"../../outside": "label-without-image"}


def test_the_published_rows(tmp_path: Path, shared_data: Path) -> None:
    text = (shared_data / "tables" / "vinbigdata_train.head.csv").read_text(encoding="utf-8")
    published = list(csv.DictReader(text.splitlines()))
    catalogue = read(tree(tmp_path, text.splitlines()[1:]))
    assert not catalogue.refused
    readers, seen = defaultdict(set), defaultdict(set)
    for line in published:
        readers[line["image_id"]].add(line["rad_id"])
        seen[line["image_id"], line["class_name"]].add(line["rad_id"])
    assert len(catalogue.rows) == len(readers) == 393
    for image in readers:
        found = labels(catalogue, image)
        for name, finding in VINBIGDATA.items():
            assert found[finding] == int(2 * len(seen[image, name]) > len(readers[image]))


@settings(max_examples=40)
@given(votes=st.lists(st.sets(st.sampled_from(CLASSES[:-1])), min_size=1, max_size=5))
def test_majority_is_never_more_than_any(tmp_path_factory: pytest.TempPathFactory, votes: list[set[str]]) -> None:
    rows = [
        row(A, name, f"R{number}") for number, seen in enumerate(votes) for name in (sorted(seen) or ["No finding"])
    ]
    raw = tree(tmp_path_factory.mktemp("votes"), rows)
    majority, either = labels(read(raw), A), labels(read(raw, "any"), A)
    for name, finding in VINBIGDATA.items():
        count = sum(name in seen for seen in votes)
        assert majority[finding] == int(count > len(votes) / 2)
        assert either[finding] == int(count > 0)
