"""CheXpert: four kinds of labels, two kinds of views, three parts of a path, and no guess about any of them."""

import csv
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from catalogues import check_catalogue, codes, labels
from conftest import DrawPng
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.datasets import Catalogue, chexpert, read_catalogue
from pipeline.errors import UserError
from pipeline.findings import CHEXPERT
from pipeline.manifest import findings_of
from pipeline.params import DatasetParams

# The header as published.
HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,"
    "Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices\n"
)
TOP = "CheXpert-v1.0-small/"
ONE = "train/patient00001/study1/view1_frontal.jpg"
TWO = "train/patient00002/study1/view2_lateral.jpg"
# The first rows of train.csv as published: 1.0, 0.0, -1.0 and nothing.
ROW_ONE = f"{TOP}{ONE},Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0"
ROW_TWO = f"{TOP}{TWO},Female,83,Lateral,,,,,1.0,,-1.0,-1.0,,,,,,1.0,"
VALID = "valid/patient64541/study1/view1_frontal.jpg"
ROW_VALID = f"{TOP}{VALID},Male,73,Frontal,AP,0.0,1.0,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0"


def tree(
    raw: Path, draw_png: DrawPng, train: list[str], valid: list[str] | None = None, header: str = HEADER, top: str = ""
) -> Path:
    valid = [ROW_VALID] if valid is None else valid
    for seed, line in enumerate([*train, *valid]):
        name = line.split(",")[0].removeprefix(TOP)
        if name.endswith(".jpg"):
            draw_png(raw / top / name, seed)
    for name, lines in (("train", train), ("valid", valid)):
        (raw / top / f"{name}.csv").write_text(header + "".join(line + "\n" for line in lines), encoding="utf-8")
    return raw


def params(**values: object) -> DatasetParams:
    return DatasetParams(adapter="chexpert", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("top", ["", TOP, "archive/"])
def test_the_path_s_first_part_need_not_be_the_folder_s_name(tmp_path: Path, draw_png: DrawPng, top: str) -> None:
    raw = tree(tmp_path, draw_png, [ROW_ONE, ROW_TWO], top=top)
    catalogue = chexpert.read(raw, params())
    check_catalogue(catalogue, raw)
    rows = catalogue.rows.set_index("image_id")
    assert dict(rows["path"]) == {name: f"{top}{name}" for name in (ONE, TWO, VALID)}
    assert dict(rows["patient_id"]) == {ONE: "patient00001", TWO: "patient00002", VALID: "patient64541"}
    assert dict(rows["view"]) == {ONE: "AP", TWO: "L", VALID: "AP"}
    assert dict(rows["sex"]) == {ONE: "F", TWO: "F", VALID: "M"}
    assert dict(rows["age"]) == {ONE: 68, TWO: 83, VALID: 73}
    assert dict(rows["official_split"]) == {ONE: "train", TWO: "train", VALID: "val"}
    assert not catalogue.refused
    assert not catalogue.suspicious


def test_a_blank_is_unknown_and_no_uncertainty_is_guessed_away(tmp_path: Path, draw_png: DrawPng) -> None:
    catalogue = chexpert.read(tree(tmp_path, draw_png, [ROW_ONE, ROW_TWO]), params())
    known = {name: value for name, value in labels(catalogue, TWO).items() if value is not None}
    assert known == {"Lung_Opacity": 1, "Fracture": 1}
    assert {k: v for k, v in labels(catalogue, ONE).items() if v is not None} == {
        "Pneumothorax": 0,
        "Support_Devices": 1,
    }
    assert "No Finding" not in labels(catalogue, ONE)
    assert catalogue.notes["label -1 (uncertain) read by the rule ignore"] == 2
    assert catalogue.notes["label left blank (not mentioned) read as unknown"] == 11 + 9


def test_rules_for_uncertain_labels(tmp_path: Path, draw_png: DrawPng) -> None:
    raw = tree(tmp_path, draw_png, [ROW_ONE, ROW_TWO])
    for rule, expected in (("zeros", 0), ("ones", 1), ("ignore", None)):
        found = labels(chexpert.read(raw, params(uncertain=rule)), TWO)
        assert (found["Edema"], found["Consolidation"], found["Lung_Opacity"]) == (expected, expected, 1)
    found = labels(chexpert.read(raw, params(uncertain="zeros", uncertain_findings={"Edema": "ones"})), TWO)
    assert (found["Edema"], found["Consolidation"]) == (1, 0)
    found = labels(chexpert.read(raw, params(blank="zeros")), TWO)
    assert found["Edema"] is None  # an uncertain label is not a blank one
    assert (found["Effusion"], found["Fracture"]) == (0, 1)


@pytest.mark.parametrize("name", ["Pleural Effusion", "No Finding", "edema", "Hernia"])
def test_a_rule_for_an_unknown_finding_is_refused(tmp_path: Path, draw_png: DrawPng, name: str) -> None:
    with pytest.raises(UserError, match=r"uncertain_findings names .* allowed: Enlarged_Cardio.*Effusion"):
        chexpert.read(tree(tmp_path, draw_png, [ROW_ONE]), params(uncertain_findings={name: "ones"}))


def test_only_frontal_films_unless_all_are_wanted(tmp_path: Path, draw_png: DrawPng) -> None:
    raw = tree(tmp_path, draw_png, [ROW_ONE, ROW_TWO])
    frontal = read_catalogue(raw, params())
    check_catalogue(frontal, raw)
    assert set(frontal.rows["image_id"]) == {ONE, VALID}
    assert frontal.left_out == {"lateral film (dataset.views is frontal)": 1}
    assert not frontal.refused  # a lateral film is no film without a label
    assert set(read_catalogue(raw, params(views="all")).rows["image_id"]) == {ONE, TWO, VALID}


@pytest.mark.parametrize("projection", ["LL", "RL"])
def test_a_frontal_row_with_a_lateral_projection_is_kept_unknown_and_pointed_out(
    tmp_path: Path, draw_png: DrawPng, projection: str
) -> None:
    catalogue = chexpert.read(tree(tmp_path, draw_png, [ROW_ONE.replace(",AP,", f",{projection},")]), params())
    assert catalogue.rows.set_index("image_id").at[ONE, "view"] == ""
    assert [(item.path, item.code.value) for item in catalogue.suspicious] == [(ONE, "lateral")]


@pytest.mark.parametrize("age", ["0", "", "121", "x"])
def test_age_0_and_sex_unknown_are_unknown(tmp_path: Path, draw_png: DrawPng, age: str) -> None:
    row = ROW_ONE.replace("Female,68", f"Unknown,{age}")
    catalogue = chexpert.read(tree(tmp_path, draw_png, [row]), params())
    one = catalogue.rows.set_index("image_id").loc[ONE]
    assert one["sex"] == ""
    assert pd.isna(one["age"])
    assert catalogue.notes["age missing or impossible: unknown"] == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ROW_ONE.replace(",1.0,", ",2.0,", 1), "No Finding is '2.0' in line 2; allowed"),
        (ROW_ONE.replace(",0.0,", ",nan,", 1), "Pneumothorax is 'nan' in line 2"),
        (ROW_ONE.replace("Frontal", "Oblique"), "Frontal/Lateral is 'Oblique'"),
        (ROW_ONE.replace(",AP,", ",XX,"), "AP/PA is 'XX'"),
        (ROW_ONE.replace("Female", "X"), "Sex is 'X'"),
    ],
)
def test_words_and_values_that_the_set_does_not_have_are_refused_by_line(
    tmp_path: Path, draw_png: DrawPng, row: str, reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        chexpert.read(tree(tmp_path, draw_png, [row]), params())


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "train/patient1/view1_frontal.jpg",
        "train/../patient1/study1/view1_frontal.jpg",
        "train\\patient00001\\study1\\view1_frontal.jpg",
        "",
        "test/patient1/study1/view1_frontal.jpg",
    ],
)
def test_paths_that_are_not_the_set_s_are_refused_rows(tmp_path: Path, draw_png: DrawPng, path: str) -> None:
    raw = tree(tmp_path / "raw", draw_png, [ROW_ONE])
    with (raw / "train.csv").open("a", encoding="utf-8") as handle:
        handle.write(ROW_ONE.replace(TOP + ONE, path) + "\n")
    catalogue = chexpert.read(raw, params())
    check_catalogue(catalogue, raw)
    assert codes(catalogue) == {"train.csv: line 3": "bad-row"}
    assert len(catalogue.rows) == 2


def test_rows_without_files_files_without_rows_and_repeated_rows(tmp_path: Path, draw_png: DrawPng) -> None:
    raw = tree(tmp_path, draw_png, [ROW_ONE, ROW_TWO])
    (raw / ONE).unlink()
    extra = "train/patient00009/study1/view1_frontal.jpg"
    draw_png(raw / extra)
    draw_png(raw / "logo.jpg")
    catalogue = chexpert.read(raw, params())
    check_catalogue(catalogue, raw)
    assert codes(catalogue) == {
        ONE: "label-without-image",
        extra: "image-without-label",
        "logo.jpg": "image-without-label",
    }
    for again in (ROW_TWO, ROW_TWO.replace("Lateral", "Frontal")):
        with pytest.raises(UserError, match="stands in more than one row"):
            chexpert.read(tree(tmp_path / str(len(again)), draw_png, [ROW_TWO, again]), params())


def test_tables_that_are_missing_or_not_the_set_s(tmp_path: Path, draw_png: DrawPng) -> None:
    with pytest.raises(UserError, match=r"no train\.csv"):
        chexpert.read(tmp_path, params())
    raw = tree(tmp_path, draw_png, [ROW_ONE], header=HEADER.replace("Edema", "Oedema"))
    with pytest.raises(UserError, match=r"train\.csv: columns Edema are missing"):
        chexpert.read(raw, params())
    raw = tree(tmp_path, draw_png, [ROW_ONE], header=HEADER.replace("Edema", "Fracture"))
    with pytest.raises(UserError, match="'Fracture' stands twice"):
        chexpert.read(raw, params())
    (raw / "valid.csv").unlink()
    raw = tree(tmp_path, draw_png, [ROW_ONE])
    (raw / "valid.csv").unlink()
    with pytest.raises(UserError, match=r"no valid\.csv"):
        chexpert.read(raw, params())


def test_no_finding_beside_a_finding_is_counted(tmp_path: Path, draw_png: DrawPng) -> None:
    row = ROW_ONE.replace(",0.0,", ",1.0,", 1)
    assert chexpert.read(tree(tmp_path, draw_png, [row]), params()).notes[
        "No Finding and a finding in one row: both kept"
    ]
    tidy = chexpert.read(tree(tmp_path, draw_png, [ROW_ONE]), params())  # Support Devices do not count
    assert "No Finding and a finding in one row: both kept" not in tidy.notes


@pytest.fixture(scope="module")
def published(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory, draw_png: DrawPng
) -> tuple[Path, list[dict]]:
    raw = tmp_path_factory.mktemp("chexpert")
    text = (shared_data / "tables" / "chexpert_train.head.csv").read_text(encoding="utf-8")
    tree(raw, draw_png, text.splitlines()[1:])
    assert (raw / "train.csv").read_text(encoding="utf-8") == text.rstrip("\n") + "\n"
    return raw, list(csv.DictReader(text.splitlines()))


def test_the_published_rows(published: tuple[Path, list[dict]]) -> None:
    raw, rows = published
    catalogue = chexpert.read(raw, params())
    check_catalogue(catalogue, raw)
    assert not catalogue.refused
    assert len(catalogue.rows) == len(rows) + 1
    table = catalogue.rows[catalogue.rows["official_split"] == "train"]
    for column, finding in CHEXPERT.items():
        counts = Counter(row[column] for row in rows)
        assert (table[finding] == 1).sum() == counts["1.0"], column
        assert (table[finding] == 0).sum() == counts["0.0"], column
        assert table[finding].isna().sum() == counts["-1.0"] + counts[""], column
    assert dict(Counter(table["view"])) == {"AP": 225, "PA": 90, "L": 84}
    assert table["patient_id"].nunique() == len({row["Path"].split("/")[2] for row in rows})
    kept = read_catalogue(raw, params()).rows
    assert len(kept) == 1 + sum(row["Frontal/Lateral"] == "Frontal" for row in rows)


@settings(max_examples=40)
@given(
    values=st.lists(st.sampled_from(["1.0", "0.0", "-1.0", ""]), min_size=13, max_size=13),
    rule=st.sampled_from(["ignore", "zeros", "ones"]),
    other=st.dictionaries(st.sampled_from(sorted(CHEXPERT.values())), st.sampled_from(["ignore", "zeros", "ones"])),
    blank=st.sampled_from(["unknown", "zeros"]),
)
def test_every_label_follows_its_rule(
    tmp_path_factory: pytest.TempPathFactory,
    draw_png: DrawPng,
    values: list[str],
    rule: str,
    other: dict[str, str],
    blank: str,
) -> None:
    row = f"{TOP}{ONE},Female,68,Frontal,AP,,{','.join(values)}"
    raw = tree(tmp_path_factory.mktemp("rules"), draw_png, [row])
    catalogue: Catalogue = chexpert.read(raw, params(uncertain=rule, uncertain_findings=other, blank=blank))
    found = labels(catalogue, ONE)
    assert set(found) == set(findings_of(catalogue.rows)) == set(CHEXPERT.values())
    meant = {"1.0": 1, "0.0": 0, "": 0 if blank == "zeros" else None}
    for finding, value in zip(CHEXPERT.values(), values, strict=True):
        uncertain = {"ignore": None, "zeros": 0, "ones": 1}[other.get(finding, rule)]
        assert found[finding] == (uncertain if value == "-1.0" else meant[value]), finding
