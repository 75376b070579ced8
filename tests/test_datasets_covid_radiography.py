"""COVID-19 Radiography Database: both layouts, no masks, no patients, and a loud word on its sources."""

from pathlib import Path

import pytest
from catalogues import check_catalogue, codes, labels
from conftest import DrawPng

from pipeline.datasets import Catalogue, covid_radiography
from pipeline.errors import UserError
from pipeline.params import DatasetParams

TOP = "COVID-19_Radiography_Dataset/"
NAMES = ("COVID/{}COVID-1.png", "Lung_Opacity/{}Lung_Opacity-1.png", "Normal/{}Normal-1.png",
         "Viral Pneumonia/{}Viral Pneumonia-1.png")  # fmt: skip


def read(raw: Path) -> Catalogue:
    catalogue = covid_radiography.read(raw, DatasetParams(adapter="covid-radiography"))
    check_catalogue(catalogue, raw)
    return catalogue


def tree(raw: Path, draw_png: DrawPng, *names: str) -> Path:
    for seed, name in enumerate(names):
        draw_png(raw / name, seed)
    return raw


@pytest.mark.parametrize("level", ["images/", ""])
def test_both_layouts(tmp_path: Path, draw_png: DrawPng, level: str, capsys: pytest.CaptureFixture[str]) -> None:
    raw = tree(tmp_path, draw_png, *(TOP + name.format(level) for name in NAMES))
    if level:
        for name in NAMES:
            draw_png(raw / TOP / name.format("masks/"), 50)
    (raw / TOP / "COVID.metadata.xlsx").write_bytes(b"PK")
    (raw / TOP / "README.md.txt").write_text("x", encoding="utf-8")
    catalogue = read(raw)
    # What a class leaves open is unknown: a COVID film may show an opacity, and COVID pneumonia is a pneumonia.
    assert labels(catalogue, "COVID/COVID-1.png") == {"Pneumonia": None, "Lung_Opacity": None, "COVID-19": 1}
    assert labels(catalogue, "Lung_Opacity/Lung_Opacity-1.png") == {
        "Pneumonia": None,
        "Lung_Opacity": 1,
        "COVID-19": 0,
    }
    assert labels(catalogue, "Normal/Normal-1.png") == {"Pneumonia": 0, "Lung_Opacity": 0, "COVID-19": 0}
    assert labels(catalogue, "Viral Pneumonia/Viral Pneumonia-1.png") == {
        "Pneumonia": 1,
        "Lung_Opacity": None,
        "COVID-19": 0,
    }
    assert (catalogue.rows["patient_id"] == catalogue.rows["image_id"]).all()
    assert catalogue.left_out == ({"lung mask": 4} if level else {})
    assert not catalogue.refused
    err = capsys.readouterr().err
    assert "warning: the source names no patients" in err
    assert "the class is the source of the film" in err
    assert "no external test" in err
    assert catalogue.notes["the class is the source of the film"] == 4


def test_the_folders_of_the_first_versions(tmp_path: Path, draw_png: DrawPng) -> None:
    raw = tree(
        tmp_path,
        draw_png,
        "COVID-19 Radiography Database/COVID-19/COVID-19 (1).png",
        "COVID-19 Radiography Database/NORMAL/NORMAL (1).png",
        "COVID-19 Radiography Database/Viral Pneumonia/Viral Pneumonia (1).png",
    )
    assert set(read(raw).rows["image_id"]) == {
        "COVID/COVID-19 (1).png",
        "Normal/NORMAL (1).png",
        "Viral Pneumonia/Viral Pneumonia (1).png",
    }


def test_two_layouts_in_one_folder_count_a_film_once(tmp_path: Path, draw_png: DrawPng) -> None:
    raw = tree(tmp_path, draw_png, *(name.format("images/") for name in NAMES))
    draw_png(raw / "COVID" / "COVID-1.png", 0)
    catalogue = read(raw)
    assert (len(catalogue.rows), sum(catalogue.left_out.values())) == (4, 1)
    draw_png(raw / "COVID" / "COVID-1.png", 7)
    assert set(codes(read(raw)).values()) == {"conflicting-name"}


def test_other_folders_are_named(tmp_path: Path, draw_png: DrawPng) -> None:
    raw = tree(tmp_path, draw_png, *(name.format("") for name in NAMES), "Tuberculosis/images/T-1.png", "logo.png")
    assert codes(read(raw)) == {"Tuberculosis/images/T-1.png": "image-without-label", "logo.png": "image-without-label"}
    with pytest.raises(UserError, match="no images in a folder 'COVID'"):
        read(tree(tmp_path / "else", draw_png, "Normal/a.png", "Viral Pneumonia/b.png"))
