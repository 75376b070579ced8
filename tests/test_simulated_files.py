"""The files of the simulator: spoilt films, truth, DICOM, and the layout of Kaggle's table."""

import csv
import filecmp
import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from pipeline.cli import main
from pipeline.datasets.simulated import simulate
from pipeline.datasets.simulated.cohort import draw_patient
from pipeline.findings import NIH14
from pipeline.images import read_film
from pipeline.ingest import ingest
from pipeline.manifest import read_manifest
from pipeline.params import DatasetParams, Params, SimulateParams

KINDS = {"truncated", "rgba", "inverted", "lateral", "rotated", "blank"}


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do without processes, which take longer to start than these films to draw."""
    monkeypatch.setattr("pipeline.parallel.available_cores", lambda: 1)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module", params=["png", "dicom"])
def spoilt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[SimulateParams, Path]:
    """Return a set half of which is spoilt, and what `ingest` made of it beside it."""
    out = tmp_path_factory.mktemp(request.param) / "raw"
    params = SimulateParams(patients=24, size=96, unusable=0.5, label_noise=0.2, format=request.param)
    simulate(params, out, workers=1)
    dataset = DatasetParams(adapter="nih", views="all")
    if request.param == "dicom":
        dataset = DatasetParams(adapter="folder", table="labels.csv", views="all")
    ingest(out, out.with_name("manifest.csv"), out.with_name("quarantine.csv"), Params(dataset=dataset), workers=1)
    return params, out


def test_spoilt_films_get_the_codes_they_are_made_for_and_no_other_film_does(
    spoilt: tuple[SimulateParams, Path],
) -> None:
    _, out = spoilt
    codes = defaultdict(set)
    for row in rows_of(out.with_name("quarantine.csv")):
        codes[Path(row["path"]).name].add((row["code"], row["action"]))
    listed = {row["Image Index"]: row for row in rows_of(out / "unusable.csv")}
    assert {row["Kind"] for row in listed.values()} == KINDS
    refused = {"truncated", "blank"}
    for name, row in listed.items():
        action = "refused" if row["Kind"] in refused else "kept"
        assert codes[name] == ({(row["Code"], action)} if row["Code"] else set()), row
    others = [found for name, found in codes.items() if found and name not in listed]
    assert others in ([], [{("too-bright", "kept")}])  # an overexposed film is as the acquisition drew it
    total = len(rows_of(out / "sample_labels.csv"))
    assert 0.35 < len(listed) / total < 0.65


def test_a_film_that_is_not_spoilt_is_the_same_as_in_a_set_without(
    spoilt: tuple[SimulateParams, Path], tmp_path: Path
) -> None:
    params, out = spoilt
    simulate(replace(params, patients=3, unusable=0.0, format="png"), tmp_path / "clean", workers=1)
    kinds = {row["Image Index"]: row["Kind"] for row in rows_of(out / "unusable.csv")}
    compared = Counter()
    for path in sorted((tmp_path / "clean" / "sample" / "images").iterdir()):
        other = next((out / "sample" / "images").glob(f"{path.stem}.*"))
        kind = kinds.get(other.name)
        if kind in (None, "rgba", "inverted"):
            clean, stored = read_film(path).pixels, read_film(other).pixels
            np.testing.assert_array_equal(255 - stored if kind == "inverted" else stored, clean)
            compared[kind] += 1
    assert compared[None] >= 2
    assert not (tmp_path / "clean" / "unusable.csv").exists()


def test_truth_says_what_is_drawn_and_what_is_labelled(spoilt: tuple[SimulateParams, Path]) -> None:
    params, out = spoilt
    text = (out / "truth.csv").read_text(encoding="utf-8")
    assert text.splitlines()[0] == "Image Index,Finding,Severity,Side,Drawn,Labelled"
    labels = {row["Image Index"]: row["Finding Labels"] for row in rows_of(out / "sample_labels.csv")}
    hidden = {
        row["Image Index"] for row in rows_of(out / "unusable.csv") if row["Kind"] in ("truncated", "blank", "lateral")
    }
    drawn = defaultdict(dict)
    for number in range(1, params.patients + 1):
        for film in draw_patient(params, number).films:
            drawn[film.name] = {sign.name: sign for sign in film.signs}
    labelled = defaultdict(set)
    combinations = Counter()
    for row in rows_of(out / "truth.csv"):
        name, finding = row["Image Index"], row["Finding"]
        sign = drawn[name].get(finding)
        assert row["Drawn"] == str(int(sign is not None and name not in hidden))
        assert (row["Severity"], row["Side"] in ("R", "L", "B")) == (
            (f"{sign.severity:.4f}", True) if sign else ("", False)
        )
        if row["Labelled"] == "1":
            labelled[name].add(finding)
        combinations[row["Drawn"], row["Labelled"]] += 1
    assert {name: "|".join(sorted(labelled[name])) or "No Finding" for name in labels} == labels
    assert min(combinations["1", "1"], combinations["1", "0"], combinations["0", "1"]) >= 3
    assert ("0", "0") not in combinations or hidden


def test_the_same_bytes_from_two_processes_and_in_a_larger_set(tmp_path: Path) -> None:
    """With every key that draws something of its own; `test_simulated` does it for the default."""
    params = SimulateParams(
        patients=9, seed=5, size=64, unusable=0.3, label_noise=0.2, shortcut=0.5, prevalence="nih", format="dicom"
    )
    simulate(params, tmp_path / "two", workers=2)
    simulate(replace(params, patients=4), tmp_path / "one", workers=1)
    names = sorted(path.name for path in (tmp_path / "one" / "sample" / "images").iterdir())
    pair = (tmp_path / "two" / "sample" / "images", tmp_path / "one" / "sample" / "images")
    assert filecmp.cmpfiles(*pair, names, shallow=False) == (names, [], [])
    for table in (tmp_path / "one").glob("*.csv"):
        lines = table.read_text(encoding="utf-8").splitlines()
        assert (tmp_path / "two" / table.name).read_text(encoding="utf-8").splitlines()[: len(lines)] == lines


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the same films as PNG and as DICOM, drawn by the command."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "params.yaml").write_text(
        "dataset: {adapter: folder, table: labels.csv}\npreprocess: {size: 32}\n", encoding="utf-8"
    )
    command = ["simulate", "--params", str(folder / "params.yaml"), "-q", "--patients", "12", "--size", "64"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.parallel.available_cores", lambda: 1)  # several processes are tested below
        for kind in ("png", "dicom"):
            assert main([*command, "--out", str(folder / kind), "--format", kind]) == 0
    return folder / "png", folder / "dicom"


def test_dicom_reads_back_to_the_same_pixels_and_facts(pair: tuple[Path, Path]) -> None:
    png, dicom = pair
    rows = rows_of(dicom / "sample_labels.csv")
    assert [{**row, "Image Index": row["Image Index"].replace(".dcm", ".png")} for row in rows] == rows_of(
        png / "sample_labels.csv"
    )
    photometric, identifiers = Counter(), set()
    for row in rows:
        path = dicom / "sample" / "images" / row["Image Index"]
        film = pydicom.dcmread(path)
        expected = read_film((png / "sample" / "images" / row["Image Index"]).with_suffix(".png")).pixels
        np.testing.assert_array_equal(read_film(path).pixels, expected)
        facts = (film.PatientID, film.PatientSex, film.PatientAge, film.ViewPosition)
        assert facts == tuple(row[name] for name in ("Patient ID", "Patient Gender", "Patient Age", "View Position"))
        assert (film.BitsAllocated, film.BitsStored, film.HighBit) == (16, 12, 11)
        assert 255 < film.pixel_array.max() <= 4095
        photometric[film.PhotometricInterpretation] += 1
        field = int(row["OriginalImageWidth"]) * float(row["OriginalImagePixelSpacing_x"])
        assert [float(value) for value in film.PixelSpacing] == pytest.approx([field / 64] * 2, rel=1e-6)
        identifiers |= {film.SOPInstanceUID, film.SeriesInstanceUID, film.StudyInstanceUID}
        assert not film.StudyDate
    assert photometric["MONOCHROME2"] > photometric["MONOCHROME1"] > 0
    assert len(identifiers) == 3 * len(rows)
    assert all(uid.startswith("2.25.") and len(uid) <= 64 and pydicom.uid.UID(uid).is_valid for uid in identifiers)


@pytest.mark.usefixtures("one_core")
def test_dicom_goes_through_the_stages(pair: tuple[Path, Path]) -> None:
    dicom = pair[1]
    folder = dicom.parent
    flags = ["--params", str(folder / "params.yaml"), "-q"]
    manifest, splits = str(folder / "m.csv"), str(folder / "s.csv")
    assert main(["ingest", str(dicom), manifest, "--quarantine", str(folder / "q.csv"), *flags]) == 0
    assert main(["split", manifest, splits, "--summary", str(folder / "s.json"), *flags]) == 0
    assert main(["preprocess", manifest, splits, str(folder / "processed"), "--raw", str(dicom), *flags]) == 0
    table = read_manifest(Path(manifest))
    truth = {row["Image Index"]: row for row in rows_of(dicom / "sample_labels.csv")}
    assert len(table) == len(truth)
    for row in table.to_dict("records"):
        source = truth[Path(row["path"]).name]
        assert {name for name in NIH14 if row[name] == 1} == set(source["Finding Labels"].split("|")) - {"No Finding"}
        assert (row["patient_id"], row["view"], row["sex"]) == (
            source["Patient ID"],
            source["View Position"],
            source["Patient Gender"],
        )
        assert row["age"] == int(source["Patient Age"][:3])
    assert json.loads((folder / "q.csv").with_name("ingest.json").read_text(encoding="utf-8"))["quarantined"] == 0
    meta = json.loads((folder / "processed" / "meta.json").read_text(encoding="utf-8"))
    assert sum(shard["images"] for shard in meta["shards"]) == len(truth)


def test_values_look_as_in_kaggle_s_own_table(pair: tuple[Path, Path], nih_sample: Path) -> None:
    """Header, number of digits and kinds of words are those of the real `sample_labels.csv`."""
    ours = pd.read_csv(pair[0] / "sample_labels.csv", dtype=str, keep_default_na=False)
    real = pd.read_csv(nih_sample / "sample_labels.csv", dtype=str, keep_default_na=False)
    assert list(ours.columns) == list(real.columns)
    for column in (
        "Image Index",
        "Follow-up #",
        "Patient ID",
        "Patient Age",
        "OriginalImageWidth",
        "OriginalImageHeight",
    ):
        shapes = {
            name: set(table[column].str.replace(r"\d", "9", regex=True)) for name, table in (("o", ours), ("r", real))
        }
        assert shapes["o"] <= shapes["r"], column
    for column in ("Patient Gender", "View Position"):
        assert set(ours[column]) <= set(real[column]), column
    spacings = [set(table["OriginalImagePixelSpacing_x"]) for table in (ours, real)]
    assert spacings[0] & spacings[1]


@pytest.mark.usefixtures("one_core")
def test_the_command_takes_a_preset_and_flags_over_it(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    out = tmp_path / "drawn"
    flags = ["--patients", "30", "--size", "64", "--shortcut", "1", "-q"]
    assert main(["simulate", "--preset", "simulated-shortcut", "--out", str(out), *flags]) == 0
    sick = [(row["Finding Labels"] != "No Finding", row["View Position"]) for row in rows_of(out / "sample_labels.csv")]
    assert set(sick) == {(True, "AP"), (False, "PA")}
