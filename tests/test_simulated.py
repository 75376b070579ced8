"""The simulated radiographs: NIH's layout to the letter, the same bytes every time, and findings one can measure."""

import csv
import filecmp
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.datasets.simulated import simulate
from pipeline.datasets.simulated.anatomy import Anatomy, angle_height
from pipeline.datasets.simulated.canvas import Canvas
from pipeline.datasets.simulated.cohort import Film, Patient, draw_patient
from pipeline.datasets.simulated.film import Acquisition, breathe, expose
from pipeline.datasets.simulated.scene import lung_mask, mediastinum
from pipeline.datasets.simulated.signs import Sign, reshape
from pipeline.errors import UserError
from pipeline.findings import NIH14, NO_FINDING
from pipeline.params import SimulateParams

# The first line of sample_labels.csv in Kaggle's nih-chest-xrays/sample.
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImageWidth,"
    "OriginalImageHeight,OriginalImagePixelSpacing_x,OriginalImagePixelSpacing_y"
)
FORMATS = {
    "Image Index": r"\d{8}_\d{3}\.png",
    "Follow-up #": r"\d{3}",
    "Patient ID": r"\d{8}",
    "Patient Age": r"0\d{2}Y",
    "Patient Gender": r"[MF]",
    "View Position": r"PA|AP",
    "OriginalImageWidth": r"\d{4}",
    "OriginalImageHeight": r"\d{4}",
    "OriginalImagePixelSpacing_x": r"0\.1\d+",
    "OriginalImagePixelSpacing_y": r"0\.1\d+",
}
PARAMS = SimulateParams(patients=12, seed=3, size=64)
SIZE = 128
# A detector as large as the drawn field and a patient who does not move: pixels and millimetres coincide.
STILL = Acquisition(view="PA", field=440.0, exposure=0, contrast=4.2, noise=0, offset=(0, 0), breath=0)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "胸片 raw"
    assert simulate(PARAMS, out, workers=1) == len(list((out / "sample" / "images").iterdir()))
    return out


def table(tree: Path) -> list[dict[str, str]]:
    with (tree / "sample_labels.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_layout_is_that_of_the_nih_sample(tree: Path) -> None:
    assert sorted(path.name for path in tree.iterdir()) == ["BBox_List_2017.csv", "sample", "sample_labels.csv"]
    assert sorted(path.name for path in (tree / "sample").iterdir()) == ["images", "sample_labels.csv"]
    text = (tree / "sample_labels.csv").read_bytes()
    assert text == (tree / "sample" / "sample_labels.csv").read_bytes()
    assert text.startswith(HEADER.encode() + b"\n")
    assert b"\r" not in text


def test_every_row_has_its_image_and_nih_formats(tree: Path) -> None:
    rows = table(tree)
    assert [row["Image Index"] for row in rows] == sorted(path.name for path in (tree / "sample" / "images").iterdir())
    for row in rows:
        for column, pattern in FORMATS.items():
            assert re.fullmatch(pattern, row[column]), (column, row[column])
        assert row["Image Index"] == f"{row['Patient ID']}_{row['Follow-up #']}.png"
        findings = row["Finding Labels"].split("|")
        assert findings == [NO_FINDING] or (set(findings) <= set(NIH14) and findings == sorted(set(findings)))
        assert 380 < int(row["OriginalImageWidth"]) * float(row["OriginalImagePixelSpacing_x"]) < 440


def test_every_image_is_8_bit_gray_with_air_black_and_bone_bright(tree: Path) -> None:
    for path in (tree / "sample" / "images").iterdir():
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        assert image.shape == (64, 64)
        assert image.dtype == np.uint8
        assert image[:3, :3].mean() < 40  # beside the neck
        assert image[-8:, 30:34].mean() > 180  # the spine in the abdomen


def test_bytes_do_not_depend_on_workers_or_on_the_number_of_patients(tree: Path, tmp_path: Path) -> None:
    simulate(replace(PARAMS, patients=9), tmp_path / "fewer", workers=2)
    names = sorted(path.name for path in (tmp_path / "fewer" / "sample" / "images").iterdir())
    pair = (tree / "sample" / "images", tmp_path / "fewer" / "sample" / "images")
    assert filecmp.cmpfiles(*pair, names, shallow=False) == (names, [], [])
    assert [row for row in table(tree) if int(row["Patient ID"]) <= 9] == table(tmp_path / "fewer")


def test_another_seed_gives_other_films(tree: Path, tmp_path: Path) -> None:
    simulate(SimulateParams(patients=3, seed=4, size=64), tmp_path / "other", workers=1)
    first = "sample/images/00000001_000.png"
    assert (tree / first).read_bytes() != (tmp_path / "other" / first).read_bytes()


def test_a_folder_with_content_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=r"not empty.*mine\.txt"):
        simulate(PARAMS, tmp_path)
    with pytest.raises(UserError, match="is a file"):
        simulate(PARAMS, tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    (tmp_path / ".partial-0123abcd" / "sample").mkdir(parents=True)
    simulate(SimulateParams(patients=3, seed=1, size=64), tmp_path, workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["BBox_List_2017.csv", "sample", "sample_labels.csv"]


def test_prevalence_and_number_of_films_over_many_patients() -> None:
    patients = [draw_patient(7, number) for number in range(1, 3001)]
    films = [film for patient in patients for film in patient.films]
    assert {len(patient.films) for patient in patients} == {1, 2, 3, 4, 5, 6}
    assert 2.2 < len(films) / 3000 < 2.6
    assert 0.25 < np.mean([not film.signs for film in films]) < 0.36
    for name in NIH14:
        assert 0.07 < np.mean([name in film.findings for film in films]) < 0.15, name


def test_findings_persist_partly_between_a_patients_films() -> None:
    pairs = [pair for number in range(1, 400) for pair in _successive(draw_patient(7, number))]
    for name in ("Pneumonia", "Fibrosis"):
        before = [later for earlier, later in pairs if name in earlier.findings]
        persisting = np.mean([name in later.findings for later in before])
        assert (0.4 if name == "Pneumonia" else 0.8) < persisting < 1


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("side", [0, 1])
def test_effusion_brightens_the_costophrenic_angle_only(number: int, side: int) -> None:
    without, with_it, chest = pair(number, "Effusion", side)
    angle = zone(chest, side, angle_height(chest, side) - 35, angle_height(chest, side))
    assert np.median(with_it[angle]) > np.median(without[angle]) + 40
    top = zone(chest, side, chest.apex, chest.apex + 70)
    assert np.abs(with_it[top] - without[top]).max() <= 1
    other = zone(chest, 1 - side, chest.apex, 200)
    assert np.abs(with_it[other] - without[other]).max() <= 1


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("side", [0, 1])
def test_pneumothorax_darkens_the_rim_and_draws_a_line(number: int, side: int) -> None:
    without, with_it, chest = pair(number, "Pneumothorax", side)
    lung = lung_mask(Canvas(SIZE), chest, side) > 0.99
    rim = lung & (lung_mask(Canvas(SIZE), chest, side, 25) < 0.01)
    assert np.mean(with_it[rim] - without[rim]) < -5
    assert np.max((with_it - without)[lung & ~rim]) > 5


@pytest.mark.parametrize("number", range(1, 7))
def test_cardiothoracic_ratio_measured_on_the_film(number: int) -> None:
    assert ratio(number, ()) < 0.5
    assert ratio(number, (sign("Cardiomegaly", 0),)) > 0.5
    assert ratio(number, (sign("Emphysema", 0),)) < ratio(number, ())


@pytest.mark.parametrize("name", ["Atelectasis", "Consolidation", "Infiltration", "Mass", "Nodule", "Pneumonia"])
@pytest.mark.parametrize("side", [0, 1])
def test_opacities_brighten_their_lung(name: str, side: int) -> None:
    without, with_it, chest = pair(5, name, side)
    change = (with_it - without)[zone(chest, side, chest.apex, 200)]
    assert change.max() > 30
    assert change.mean() > 0.5
    other = zone(reshape(chest, sign(name, side)), 1 - side, chest.apex, 200) & zone(chest, 1 - side, chest.apex, 200)
    assert abs((with_it - without)[other].mean()) < abs(change.mean()) / 2


@pytest.mark.parametrize(("name", "smallest", "largest"), [("Nodule", 15, 30), ("Mass", 30, 90)])
@pytest.mark.parametrize("severity", [0.0, 0.5, 1.0])
def test_nodules_are_under_and_masses_over_3_cm(name: str, smallest: float, largest: float, severity: float) -> None:
    one = replace(sign(name, 0), severity=severity)
    without, with_it, _ = pair(6, name, 0, one)
    mask = (with_it - without > 4).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask)
    heights = stats[1:, cv2.CC_STAT_HEIGHT] * 440 / SIZE
    assert heights.size > 0
    if name == "Mass":
        assert smallest < heights.max() < largest
    else:  # two nodules may overlap into one component, so the smallest is the one that is measured
        assert smallest - 4 < heights.min() < largest


def test_edema_spares_the_periphery_and_emphysema_darkens_and_lengthens() -> None:
    without, with_it, chest = pair(2, "Edema", 0)
    lung = zone(chest, 0, chest.apex + 60, chest.domes[0] - 20)
    across = np.abs(Canvas(SIZE).x) + 0 * Canvas(SIZE).y
    change = with_it - without
    assert change[lung & (across < 80)].mean() > 3 * change[lung & (across > 115)].mean()

    without, with_it, chest = pair(2, "Emphysema", 0)
    assert (with_it - without)[zone(chest, 0, chest.apex, chest.domes[0])].mean() < -5
    assert reshape(chest, sign("Emphysema", 0)).domes > chest.domes  # y points down: lower


def test_hernia_shows_gas_in_front_of_the_heart() -> None:
    without, with_it, chest = pair(2, "Hernia", 0)
    heart = (mediastinum(Canvas(SIZE), chest) > 0.99) & (Canvas(SIZE).y < chest.heart_base)
    assert (with_it - without)[heart].min() < -20
    assert (with_it - without)[heart].max() > 0


@pytest.mark.parametrize("name", NIH14)
def test_every_finding_changes_the_film_at_the_networks_size(name: str) -> None:
    without, with_it, _ = pair(3, name, 1)
    small = [cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA) for image in (without, with_it)]
    assert np.abs(small[1] - small[0]).max() > 15


def sign(name: str, side: int) -> Sign:
    return Sign(name=name, severity=0.6, side=side, both=False, seed=11)


def pair(number: int, name: str, side: int, one: Sign | None = None) -> tuple[np.ndarray, np.ndarray, Anatomy]:
    """Draw the same film without and with a finding; return both as float32, and the healthy chest."""
    anatomy = replace(draw_patient(3, number).anatomy, tilt=0.0)
    signs: tuple[tuple[Sign, ...], ...] = ((), (one or sign(name, side),))
    without, with_it = (
        expose(SIZE, anatomy, chosen, STILL, np.random.default_rng(1), np.random.default_rng(2)).astype(np.float32)
        for chosen in signs
    )
    return without, with_it, breathe(anatomy, STILL)


def zone(chest: Anatomy, side: int, top: float, bottom: float) -> np.ndarray:
    """Return the pixels well inside one lung, clear of heart and mediastinum, between two heights."""
    canvas = Canvas(SIZE)
    clear = (lung_mask(canvas, chest, side) > 0.99) & (mediastinum(canvas, chest) < 0.01)
    inner = cv2.erode(clear.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return inner & (canvas.y > top) & (canvas.y < bottom)


def ratio(number: int, signs: tuple[Sign, ...]) -> float:
    """Measure widest heart over widest thorax on the film's pixels, as a reader does with a ruler."""
    anatomy = replace(draw_patient(3, number).anatomy, tilt=0.0, stomach=0.0, breast=0.0)
    chest = breathe(anatomy, STILL)
    for one in signs:
        chest = reshape(chest, one)
    film = expose(256, anatomy, signs, STILL, np.random.default_rng(1), np.random.default_rng(2))
    canvas = Canvas(256)
    rows = (canvas.rows > chest.heart_base - 60) & (canvas.rows < min(chest.domes) - 6)
    picture = cv2.GaussianBlur(film, (0, 0), 1.5)[rows].astype(np.float64)
    edge = (np.percentile(picture, 15) + np.median(picture[:, 115:141])) / 2  # half way from lung to heart
    halves = (picture[:, 128:], picture[:, 127::-1])  # from the midline outwards
    heart = sum(np.argmax(half < edge, axis=1).max() for half in halves)
    # The thorax ends where the chest wall begins most steeply, outside 110 mm.
    outside = round(110 / canvas.pitch)
    thorax = sum(outside + np.argmax(np.gradient(np.median(half, axis=0))[outside:100]) for half in halves)
    return float(heart / thorax)


def _successive(patient: Patient) -> list[tuple[Film, Film]]:
    return list(zip(patient.films, patient.films[1:], strict=False))
