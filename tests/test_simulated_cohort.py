"""The knobs of the simulator: who has what, what the labels say, and how films are taken."""

import dataclasses
import itertools
import math
import typing
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nih_table import IMAGES, POSITIVES

from pipeline.datasets.simulated.cohort import Film, draw_patient
from pipeline.datasets.simulated.labels import mined_labels, prevalences
from pipeline.datasets.simulated.scanners import SCANNERS
from pipeline.errors import UserError
from pipeline.findings import NIH14
from pipeline.params import SimulateParams
from pipeline.params_file import parse_params
from pipeline.presets import load_preset

PATIENTS = 3000
SMALL = SimulateParams(patients=4, seed=5, size=64)
# Films of ChestX-ray14 with two labels: the ten most frequent pairs as the project cliniq-ai counted them in the full
# table (github.com/ClinIQ-MedAI/cliniq-ai, chest_xray/eda/EDA_REPORT.md), and how many films have so many labels.
COUNTED = {
    ("Effusion", "Infiltration"): 4000,
    ("Atelectasis", "Effusion"): 3275,
    ("Atelectasis", "Infiltration"): 3264,
    ("Infiltration", "Nodule"): 1546,
    ("Effusion", "Consolidation"): 1287,
    ("Effusion", "Mass"): 1254,
    ("Atelectasis", "Consolidation"): 1223,
    ("Infiltration", "Consolidation"): 1221,
    ("Infiltration", "Mass"): 1159,
    ("Cardiomegaly", "Effusion"): 1063,
}
LABELS_A_FILM = {2: 14_306, 3: 4_856, 4: 1_247}
# Not recounted, of the pairs that stand out.
RECALLED = {
    ("Infiltration", "Edema"): 981,
    ("Mass", "Nodule"): 906,
    ("Pneumothorax", "Emphysema"): 747,
    ("Pneumonia", "Edema"): 340,
}
NO_FINDING_SHARE = 60_361 / 112_120  # of the same table


def films_of(params: SimulateParams, patients: int = PATIENTS) -> list[Film]:
    return [film for number in range(1, patients + 1) for film in draw_patient(params, number).films]


def findings_of(films: list[Film]) -> np.ndarray:
    return np.array([[name in film.findings for name in NIH14] for film in films])


def expected(share: float, count: int) -> typing.Any:
    """Return a share give or take three standard errors of half as many films: those of a patient are alike."""
    return pytest.approx(share, abs=3 * math.sqrt(2 * share * (1 - share) / count))


@pytest.fixture(scope="module")
def nih() -> list[Film]:
    return films_of(SimulateParams(prevalence="nih"))


@pytest.fixture(scope="module")
def even() -> list[Film]:
    return films_of(SimulateParams())


def test_nih_prevalences_are_those_of_the_published_table(nih: list[Film]) -> None:
    present = findings_of(nih)
    for name, share in zip(NIH14, present.mean(axis=0), strict=True):
        assert share == expected(POSITIVES[name] / IMAGES, len(nih)), name
    assert 1 - present.any(axis=1).mean() == expected(NO_FINDING_SHARE, len(nih))


def test_nih_findings_come_in_nih_s_company(nih: list[Film]) -> None:
    present = findings_of(nih)
    for pair, count in (COUNTED | RECALLED).items():
        both = present[:, [NIH14.index(name) for name in pair]].all(axis=1).mean()
        assert both == expected(count / IMAGES, len(nih)), pair
        by_chance = math.prod(POSITIVES[name] / IMAGES for name in pair)
        if count / IMAGES > 1.4 * by_chance:
            assert both > by_chance, pair


def test_nih_films_have_as_many_findings_as_nih_s(nih: list[Film]) -> None:
    found = findings_of(nih).sum(axis=1)
    for number, count in LABELS_A_FILM.items():
        assert (found == number).mean() == expected(count / IMAGES, len(nih)), number


def test_number_of_films(even: list[Film]) -> None:
    counts = Counter(Counter(film.patient for film in even).values())
    assert set(counts) == {1, 2, 3, 4, 5, 6}
    assert len(even) / PATIENTS == pytest.approx((1 - 0.6**6) / 0.4, abs=0.1)  # the mean of min(6, geometric(0.4))


def test_even_prevalences_and_company(even: list[Film]) -> None:
    present = findings_of(even)
    assert 0.25 < 1 - present.any(axis=1).mean() < 0.36
    assert (present.mean(axis=0) > 0.07).all()
    assert (present.mean(axis=0) < 0.13).all()
    edema, effusion, hernia = (present[:, NIH14.index(name)] for name in ("Edema", "Effusion", "Hernia"))
    assert effusion[edema].mean() > 2 * effusion[~edema].mean()
    assert effusion[hernia].mean() < 1.5 * effusion[~hernia].mean()


@pytest.mark.parametrize("kind", ["even", "nih"])
def test_the_scale_multiplies_odds(kind: typing.Literal["even", "nih"]) -> None:
    shares = []
    for scale in (0.5, 1.0, 2.0):
        films = films_of(SimulateParams(prevalence=kind, prevalence_scale=scale), 1000)
        shares.append(findings_of(films).mean(axis=0))
    assert shares[0].mean() < 0.85 * shares[1].mean()
    assert shares[1].mean() < 0.95 * shares[2].mean()
    if kind == "nih":  # here the odds of each finding are multiplied: 0.1774 / 0.8226 * 2 is a share of 0.301
        assert shares[2][NIH14.index("Infiltration")] == expected(0.301, len(films))


@pytest.mark.parametrize("kind", ["even", "nih"])
def test_severities_keep_to_their_range_and_fill_it(kind: typing.Literal["even", "nih"]) -> None:
    films = films_of(SimulateParams(prevalence=kind, severity=[0.2, 0.5]), 1000)
    found = [sign.severity for film in films for sign in film.signs]
    assert min(found) >= 0.2
    assert max(found) <= 0.5
    assert np.histogram(found, bins=3, range=(0.2, 0.5))[0].min() > 0.15 * len(found)


def test_nih_s_chronic_findings_stay_and_stay_where_they_are(nih: list[Film]) -> None:
    pairs = [pair for pair in itertools.pairwise(nih) if pair[0].patient == pair[1].patient]
    again = {}
    for name in ("Nodule", "Effusion"):
        before = [pair for pair in pairs if name in pair[0].findings]
        both = [pair for pair in before if name in pair[1].findings]
        again[name] = len(both) / len(before)
        for pair in both:
            first, second = (next(sign for sign in film.signs if sign.name == name) for film in pair)
            assert (first.seed, first.side, first.both) == (second.seed, second.side, second.both)
    assert again["Nodule"] > again["Effusion"] > 2 * POSITIVES["Effusion"] / IMAGES


@pytest.mark.parametrize("kind", ["even", "nih"])
def test_label_noise_has_its_rate_and_leaves_the_prevalence(kind: typing.Literal["even", "nih"]) -> None:
    params = SimulateParams(prevalence=kind, label_noise=0.5)
    truth: list[list[bool]] = []
    table: list[list[bool]] = []
    for number in range(1, 2001):
        patient = draw_patient(params, number)
        for film, labels in zip(patient.films, mined_labels(params, patient), strict=True):
            truth.append([name in film.findings for name in NIH14])
            table.append([name in labels for name in NIH14])
    drawn, labelled = np.array(truth), np.array(table)
    assert labelled[drawn].mean() == expected(0.5, int(drawn.sum()))  # sensitivity
    assert drawn[labelled].mean() == pytest.approx(0.5, abs=0.03)  # positive predictive value
    for name, before, after in zip(NIH14, drawn.mean(axis=0), labelled.mean(axis=0), strict=True):
        assert after == expected(before, len(drawn)), name
    dropped, false = (drawn & ~labelled).sum(), (labelled & ~drawn).sum()
    assert false / dropped == pytest.approx(1, abs=0.06)


def test_label_noise_of_one_film_does_not_depend_on_other_keys() -> None:
    params = replace(SMALL, label_noise=0.4)
    patients = [draw_patient(params, number) for number in range(1, 40)]
    noisy = [mined_labels(params, patient) for patient in patients]
    assert noisy == [mined_labels(replace(params, size=512, unusable=0.5), patient) for patient in patients]
    assert noisy != [mined_labels(replace(params, label_noise=0.0), patient) for patient in patients]
    assert prevalences(params) == prevalences(replace(params, seed=6))


def associations(films: list[Film]) -> dict[str, float]:
    """Return the share of AP, of tubes and of drains, with and without disease."""
    groups = defaultdict(list)
    for film in films:
        kinds = {device.kind for device in film.devices}
        sick = "sick" if film.signs else "well"
        groups[f"AP {sick}"].append(film.acquisition.view == "AP")
        groups[f"tube {sick}"].append(bool(kinds & {"tracheal_tube", "venous_line", "gastric_tube"}))
        groups[f"electrodes {sick}"].append("electrodes" in kinds)
        known = "pneumothorax" if "Pneumothorax" in film.findings else "none"
        groups[f"drain {known}"].append("drain" in kinds)
    return {name: float(np.mean(values)) for name, values in groups.items()}


def test_without_a_shortcut_view_and_devices_tell_nothing(even: list[Film]) -> None:
    seen = associations(even)
    sick = sum(bool(film.signs) for film in even)
    count = min(sick, len(even) - sick)
    for what in ("AP", "tube", "electrodes"):
        assert seen[f"{what} sick"] == expected(seen[f"{what} well"], count), what
        assert 0.05 < seen[f"{what} well"] < 0.6
    assert seen["drain pneumothorax"] == expected(seen["drain none"], 600)
    assert np.mean([film.acquisition.view == "AP" for film in even]) == expected(0.45, len(even))


def test_a_full_shortcut_tells_all() -> None:
    seen = associations(films_of(SimulateParams(shortcut=1.0), 500))
    assert {name for name, share in seen.items() if share == 1} == {
        "AP sick",
        "tube sick",
        "electrodes sick",
        "drain pneumothorax",
    }
    assert {share for name, share in seen.items() if name.endswith(("well", "none"))} == {0.0}


def test_half_a_shortcut_is_half_way(even: list[Film]) -> None:
    none, half = associations(even), associations(films_of(SimulateParams(shortcut=0.5)))
    for name, share in half.items():
        whole = float(name.endswith(("sick", "pneumothorax")))
        assert share == pytest.approx((none[name] + whole) / 2, abs=0.06), name


def test_a_drain_lies_on_the_side_of_its_pneumothorax() -> None:
    sides = set()
    for film in films_of(SimulateParams(shortcut=1.0), 300):
        for sign in (sign for sign in film.signs if sign.name == "Pneumothorax"):
            assert next(device.side for device in film.devices if device.kind == "drain") == sign.side
            sides.add(sign.side)
    assert sides == {0, 1}


def test_a_shortcut_changes_neither_the_patients_nor_their_findings() -> None:
    for number in range(1, 40):
        plain, told = (draw_patient(replace(SMALL, shortcut=share), number) for share in (0.0, 1.0))
        assert plain.anatomy == told.anatomy
        assert [film.signs for film in plain.films] == [film.signs for film in told.films]


def test_bedside_scanner_and_exposure() -> None:
    assert {film.acquisition.view for film in films_of(SimulateParams(bedside=0.0), 50)} == {"PA"}
    assert {film.acquisition.view for film in films_of(SimulateParams(bedside=1.0), 50)} == {"AP"}
    mixed = films_of(SimulateParams(), 200)
    assert {film.acquisition.scanner for film in mixed} == set(SCANNERS)
    assert {film.acquisition.scanner for film in films_of(SimulateParams(scanner="film"), 50)} == {"film"}
    darker = films_of(SimulateParams(exposure=2.0), 200)
    shifts = {round(b.acquisition.exposure - a.acquisition.exposure, 6) for a, b in zip(mixed, darker, strict=True)}
    assert shifts == {2.0}


def test_the_names_of_scanners_are_written_once_more_in_the_parameters() -> None:
    hint = typing.get_type_hints(SimulateParams)["scanner"]
    assert set(typing.get_args(hint)) == {"mixed", *SCANNERS}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"severity": [0.6, 0.5]}, r"severity is \[0.6, 0.5\]; the first of the two must not be above"),
        ({"severity": [0.5]}, r"simulate\.severity"),
        ({"severity": [0, 2]}, r"simulate\.severity\.1 is 2"),
        ({"label_noise": 0.6}, r"simulate\.label_noise is 0\.6"),
        ({"unusable": 0.6}, r"simulate\.unusable is 0\.6"),
        ({"shortcut": -0.1}, r"simulate\.shortcut is -0\.1"),
        ({"bedside": 1.1}, r"simulate\.bedside is 1\.1"),
        ({"prevalence": "low"}, r"simulate\.prevalence is 'low'.*'even' or 'nih'"),
        ({"prevalence_scale": 0}, r"simulate\.prevalence_scale is 0"),
        ({"scanner": "ct"}, r"simulate\.scanner is 'ct'.*flat_panel"),
        ({"exposure": 7}, r"simulate\.exposure is 7"),
        ({"format": "jpeg"}, r"simulate\.format is 'jpeg'.*'png' or 'dicom'"),
    ],
)
def test_a_value_outside_its_range_is_one_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_params({"simulate": values}, "params.yaml")
    assert "\n" not in str(caught.value)


def test_presets_do_what_they_say(repository: Path) -> None:
    presets = {
        name: load_preset(name, repository / "configs").simulate for name in ("simulated-shortcut", "simulated-shift")
    }
    assert presets["simulated-shortcut"].shortcut > 0.5
    changed = {
        item.name
        for item in dataclasses.fields(SimulateParams)
        if getattr(presets["simulated-shift"], item.name) != getattr(SimulateParams(), item.name)
    }
    assert changed >= {"scanner", "prevalence", "prevalence_scale", "bedside", "exposure", "seed"}
