"""The boxes of the simulated films: they hold what a finding changes, lie in the film, and the adapter reads them."""

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from pipeline.datasets.simulated import simulate
from pipeline.datasets.simulated.body import soft_tissue
from pipeline.datasets.simulated.boxes import MOST, Box, find_boxes
from pipeline.datasets.simulated.canvas import Canvas
from pipeline.datasets.simulated.cohort import Film, Patient, draw_patient
from pipeline.datasets.simulated.film import chest_of, soft_thickness
from pipeline.datasets.simulated.opacities import draw
from pipeline.datasets.simulated.scene import new_scene
from pipeline.datasets.simulated.signs import Sign
from pipeline.datasets.simulated.write import render
from pipeline.findings import NIH14
from pipeline.ingest import ingest
from pipeline.params import DatasetParams, Params, SimulateParams

PARAMS = SimulateParams(patients=12, seed=3, size=64)
SIZE = 128


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("boxes") / "raw"
    simulate(PARAMS, out, workers=1)
    return out


def published(tree: Path) -> list[list[str]]:
    with (tree / "BBox_List_2017.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.reader(handle))[1:]


def test_the_header_is_that_of_the_published_file(tree: Path, shared_data: Path) -> None:
    real = (shared_data / "tables" / "nih_BBox_List_2017.head.csv").read_bytes()
    assert (tree / "BBox_List_2017.csv").read_bytes().split(b"\n")[0] == real.splitlines()[0]


def test_every_box_lies_in_its_film_and_names_a_finding_of_it(tree: Path) -> None:
    with (tree / "sample_labels.csv").open(encoding="utf-8", newline="") as handle:
        labels = {row["Image Index"]: row["Finding Labels"].split("|") for row in csv.DictReader(handle)}
    rows = published(tree)
    assert len(rows) > 20
    for image, finding, *place in rows:
        assert finding.replace("Infiltrate", "Infiltration") in labels[image]
        x, y, width, height = map(int, place)
        assert min(x, y) >= 0
        assert min(width, height) > 0
        assert max(x + width, y + height) <= PARAMS.size
    assert "Infiltrate" in {finding for _, finding, *_ in rows}
    assert "Infiltration" not in {finding for _, finding, *_ in rows}


def test_the_table_does_not_depend_on_workers_or_on_the_number_of_patients(tree: Path, tmp_path: Path) -> None:
    simulate(replace(PARAMS, patients=9), tmp_path / "fewer", workers=2)
    assert published(tmp_path / "fewer") == [row for row in published(tree) if int(row[0][:8]) <= 9]


def test_ingest_reads_every_box_and_refuses_nothing(tree: Path, tmp_path: Path) -> None:
    params = Params(dataset=DatasetParams(adapter="nih"))
    ingest(tree, tmp_path / "manifest.csv", tmp_path / "quarantine.csv", params, workers=1)
    boxes = pd.read_csv(tmp_path / "boxes.csv")
    expected = sorted([i, f.replace("Infiltrate", "Infiltration"), *map(float, p)] for i, f, *p in published(tree))
    assert boxes[["image_id", "finding", "x", "y", "width", "height"]].to_numpy().tolist() == expected
    assert set(boxes["file_width"]) == set(boxes["file_height"]) == {PARAMS.size}
    quarantine = pd.read_csv(tmp_path / "quarantine.csv")
    assert "refused" not in set(quarantine["action"])


@pytest.mark.parametrize("name", NIH14)
def test_the_film_differs_in_the_boxes_and_hardly_outside(name: str) -> None:
    """Films as they are written, without noise, with and without the finding, beside other findings or alone."""
    cases = films_with(name, 4)
    for patient, film, sign in cases:
        film = replace(film, acquisition=replace(film.acquisition, noise=0.0))
        others = tuple(other for other in film.signs if other is not sign)
        with_it, without = (picture(patient, one) for one in (film, replace(film, signs=others)))
        inside = mask([box for box in boxes_of(patient, film) if box.finding == name])
        assert inside.any()
        change = np.abs(with_it - without)
        assert change[inside].mean() > 3 * change[~inside].mean()


@pytest.mark.parametrize("size", [64, 96, 250, 1024])
def test_boxes_scale_with_the_film(size: int) -> None:
    """A film of another size shows the same chest, so its boxes are the same shares of it, but for one small pixel."""
    for patient, film, _ in films_with("Pneumonia", 2) + films_with("Effusion", 2):
        if len(film.signs) > 1:
            continue
        shares = []
        for pixels in (96, size):
            boxes = find_boxes(pixels, patient.anatomy, film.signs, film.acquisition)
            shares.append(np.array([[b.x, b.y, b.width, b.height] for b in boxes]) / pixels)
        assert shares[0].shape == shares[1].shape
        assert np.abs(shares[0] - shares[1]).max() < 3 / 64


def test_a_box_moves_with_the_patient() -> None:
    patient, film, _ = next(case for case in films_with("Nodule", 40) if len(case[1].signs) == 1)
    still = replace(film.acquisition, offset=(0.0, 0.0), field=440.0)
    moved = replace(still, offset=(22.0, -44.0))
    first = find_boxes(SIZE, replace(patient.anatomy, tilt=0.0), film.signs, still)
    second = find_boxes(SIZE, replace(patient.anatomy, tilt=0.0), film.signs, moved)
    # 22 of 440 mm are 6.4 of 128 pixels, 44 are 12.8; a pixel of the small drawing is 1.3.
    assert first
    for before, after in zip(sorted(first, key=corner), sorted(second, key=corner), strict=True):
        assert abs(after.x - before.x - 6.4) < 2.7
        assert abs(after.y - before.y + 12.8) < 2.7


@pytest.mark.parametrize("severity", [0.0, 0.5, 1.0])
def test_the_box_of_the_heart_is_as_wide_as_the_heart(severity: float) -> None:
    """Cardiomegaly is drawn with a cardiothoracic ratio of 0.515 to 0.68 of the thorax (`signs.reshape`)."""
    patient, film = draw_patient(3, 1), draw_patient(3, 1).films[0]
    anatomy = replace(patient.anatomy, tilt=0.0)
    acquisition = replace(film.acquisition, field=440.0, offset=(0.0, 0.0))
    heart = Sign(name="Cardiomegaly", severity=severity, side=0, both=False, seed=1)
    (box,) = find_boxes(512, anatomy, (heart,), acquisition)
    expected = (0.515 + 0.165 * severity) * 2 * anatomy.half_width
    assert box.width * 440 / 512 == pytest.approx(expected, abs=2 * 440 / 96)


def test_nodules_have_boxes_of_their_own_size() -> None:
    """20 to 29 mm each (`opacities`), but for those that overlap; two pixels of 4.6 mm for the drawing."""
    boxes = [box for patient, film, _ in films_with("Nodule", 12) for box in nodules(patient, film)]
    sides = np.array([[box.width, box.height] for box in boxes]) * 410 / SIZE
    assert np.median(sides) == pytest.approx(25, abs=6)


def test_no_finding_has_no_box_and_none_has_more_than_four() -> None:
    for number in range(1, 41):
        patient = draw_patient(5, number)
        for film in patient.films:
            found = [box.finding for box in boxes_of(patient, film)]
            assert set(found) <= set(film.findings)
            assert all(found.count(name) <= MOST for name in found)


def test_what_cannot_be_seen_has_no_box() -> None:
    """Behind a film exposed to black, every change is under the least gray level that counts."""
    patient, film, _ = films_with("Pneumonia", 1)[0]
    signs = tuple(sign for sign in film.signs if sign.name == "Pneumonia")
    assert find_boxes(SIZE, patient.anatomy, signs, film.acquisition)
    dark = replace(film.acquisition, exposure=60.0)
    assert find_boxes(SIZE, patient.anatomy, signs, dark) == []


def test_drawings_do_not_depend_on_each_other() -> None:
    """What `boxes` rests on: the order in which findings are drawn is of no consequence for the film."""
    patient, film = next(
        (patient, film)
        for patient in (draw_patient(3, number) for number in range(1, 200))
        for film in patient.films
        if len(film.signs) >= 3
    )
    canvas = Canvas(64)
    chest = chest_of(patient.anatomy, film.signs, film.acquisition)
    results = []
    for signs in (film.signs, film.signs[::-1]):
        scene = new_scene(canvas, chest)
        for sign in signs:
            draw(scene, sign)
        results.append((soft_thickness(scene, soft_tissue(canvas, chest, 30)), scene.markings))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def corner(box: Box) -> tuple[int, int]:
    return box.y, box.x


def boxes_of(patient: Patient, film: Film) -> list[Box]:
    return find_boxes(SIZE, patient.anatomy, film.signs, film.acquisition)


def nodules(patient: Patient, film: Film) -> list[Box]:
    return [box for box in boxes_of(patient, film) if box.finding == "Nodule"]


def films_with(name: str, count: int) -> list[tuple[Patient, Film, Sign]]:
    """Return the first films with a finding, one of each patient."""
    found = []
    for number in range(1, 1000):
        patient = draw_patient(3, number)
        cases = [(patient, film, sign) for film in patient.films for sign in film.signs if sign.name == name]
        found += cases[:1]
        if len(found) == count:
            break
    return found


def picture(patient: Patient, film: Film) -> np.ndarray:
    return render(replace(PARAMS, size=SIZE), patient, film).astype(np.float32)


def mask(boxes: list[Box]) -> np.ndarray:
    inside = np.zeros((SIZE, SIZE), np.uint8)
    for box in boxes:
        cv2.rectangle(inside, (box.x, box.y, box.width, box.height), 1, cv2.FILLED)
    return inside > 0
