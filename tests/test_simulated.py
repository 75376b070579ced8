"""The simulated radiographs: NIH's layout to the letter, the same bytes every time, and findings that come and go."""

import csv
import filecmp
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.datasets.simulated import simulate
from pipeline.datasets.simulated.cohort import Film, Patient, draw_patient
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
FILES = ["BBox_List_2017.csv", "sample", "sample_labels.csv", "truth.csv"]
PARAMS = SimulateParams(patients=12, seed=3, size=64)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "胸片 raw"
    assert simulate(PARAMS, out, workers=1) == len(list((out / "sample" / "images").iterdir()))
    return out


def table(tree: Path) -> list[dict[str, str]]:
    with (tree / "sample_labels.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def test_layout_is_that_of_the_nih_sample(tree: Path) -> None:
    assert sorted(path.name for path in tree.iterdir()) == FILES
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
        spine, lungs = image[30:52, 30:34], np.concatenate([image[24:34, 12:22], image[24:34, 42:52]], axis=1)
        assert spine.mean() > lungs.mean() + 20  # whatever the detector, the exposure and the disease


def test_bytes_do_not_depend_on_workers_or_on_the_number_of_patients(tree: Path, tmp_path: Path) -> None:
    simulate(replace(PARAMS, patients=9), tmp_path / "fewer", workers=2)
    names = sorted(path.name for path in (tmp_path / "fewer" / "sample" / "images").iterdir())
    pair = (tree / "sample" / "images", tmp_path / "fewer" / "sample" / "images")
    assert filecmp.cmpfiles(*pair, names, shallow=False) == (names, [], [])
    assert [row for row in table(tree) if int(row["Patient ID"]) <= 9] == table(tmp_path / "fewer")
    truth = (tmp_path / "fewer" / "truth.csv").read_text(encoding="utf-8")
    assert len(truth.splitlines()) > 9
    assert (tree / "truth.csv").read_text(encoding="utf-8").startswith(truth)


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
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


def test_findings_persist_partly_between_a_patients_films() -> None:
    pairs = [pair for number in range(1, 400) for pair in _successive(draw_patient(replace(PARAMS, seed=7), number))]
    for name in ("Pneumonia", "Fibrosis"):
        before = [later for earlier, later in pairs if name in earlier.findings]
        persisting = np.mean([name in later.findings for later in before])
        assert (0.4 if name == "Pneumonia" else 0.8) < persisting < 1


def _successive(patient: Patient) -> list[tuple[Film, Film]]:
    return list(zip(patient.films, patient.films[1:], strict=False))
