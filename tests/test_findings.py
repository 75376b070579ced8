"""The vocabulary: one name for one finding, and the table that users read is the one that the code follows."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.findings import (
    CHEXPERT,
    COVID_RADIOGRAPHY,
    NIH14,
    NIH_BOXES,
    RSNA,
    VINBIGDATA,
    VOCABULARY,
    canonical,
    in_order,
    readable,
)

SETS = {"NIH": NIH_BOXES, "CheXpert": CHEXPERT, "VinBigData": VINBIGDATA}
OTHERS = {"rsna-pneumonia": RSNA, "covid-radiography": COVID_RADIOGRAPHY, "pneumonia": {"PNEUMONIA": "Pneumonia"}}


def documented(repository: Path) -> dict[str, list[str]]:
    """Return finding to the cells of its row in docs/datasets/README.md."""
    text = (repository / "docs" / "datasets" / "README.md").read_text(encoding="utf-8")
    section = text.split("## One name for one finding")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)` \|(.*)\|$", section, re.M)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}


def test_the_documented_table_is_the_code_s(repository: Path) -> None:
    table = documented(repository)
    assert tuple(table) == VOCABULARY
    for position, names in enumerate(SETS.values()):
        for finding, cells in table.items():
            expected = [published for published, name in names.items() if name == finding]
            assert cells[position] == ", ".join(expected), finding
    for finding, cells in table.items():
        expected = {
            f"{word} ({own})" for own, names in OTHERS.items() for word, name in names.items() if name == finding
        }
        assert set(filter(None, cells[3].split("; "))) == expected, finding


def test_every_set_uses_the_vocabulary_and_calls_nothing_twice() -> None:
    assert len(VOCABULARY) == len({name.casefold() for name in VOCABULARY})
    assert VOCABULARY[:14] == NIH14
    for names in (*SETS.values(), *OTHERS.values()):
        assert set(names.values()) <= set(VOCABULARY)
    for names in (CHEXPERT, VINBIGDATA, COVID_RADIOGRAPHY):  # two columns of one set never make one finding
        assert len(set(names.values())) == len(names)
    assert set().union(*(names.values() for names in (*SETS.values(), *OTHERS.values()))) == set(VOCABULARY)


def test_what_is_not_the_same_stays_apart() -> None:
    assert VINBIGDATA["Nodule/Mass"] not in NIH14
    assert CHEXPERT["Lung Lesion"] not in NIH14
    assert CHEXPERT["Enlarged Cardiomediastinum"] != CHEXPERT["Cardiomegaly"]
    assert CHEXPERT["Lung Opacity"] == VINBIGDATA["Lung Opacity"] not in NIH14


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Pleural Effusion", "Effusion"),
        ("pleural_effusion", "Effusion"),
        ("  pulmonary   fibrosis ", "Fibrosis"),
        ("Pleural thickening", "Pleural_Thickening"),
        ("nodule/mass", "Nodule_or_Mass"),
        ("covid-19", "COVID-19"),
        ("Viral Pneumonia", "Viral_Pneumonia"),  # narrower than Pneumonia: a user's own class stays what it is
        ("my  finding", "my_finding"),
    ],
)
def test_a_user_s_words_find_the_vocabulary_s_name(name: str, expected: str) -> None:
    assert canonical(name) == expected


@given(st.sampled_from(VOCABULARY), st.booleans())
def test_a_name_of_the_vocabulary_is_its_own(name: str, capitals: bool) -> None:
    assert canonical(name.upper() if capitals else name) == name


@given(st.permutations([*VOCABULARY, "Zebra", "Aardvark"]))
def test_the_order_never_depends_on_the_input(names: list[str]) -> None:
    assert in_order(names) == [*VOCABULARY, "Aardvark", "Zebra"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Pleural_Thickening", "Pleural thickening"),
        ("ILD", "ILD"),
        ("COVID-19", "COVID-19"),
        ("Nodule_or_Mass", "Nodule or mass"),
        ("my_finding", "My finding"),
        ("", ""),
    ],
)
def test_prose_keeps_abbreviations(name: str, expected: str) -> None:
    assert readable(name) == expected
