"""Repeats: what is said about the spread over seeds, which models belong to it, and their mean."""

import csv
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.errors import UserError
from pipeline.files import sha256_file
from pipeline.params import TrainParams
from pipeline.repeats import combine, folder_of, member_models, seeds_of, spread, summary, write_repeats

SCORES = st.floats(0, 1, width=32)
FINDINGS = ["Mass", "Edema", "Hernia"]


def test_the_spread_of_a_hand_calculated_table():
    values = np.array([[0.7, 0.5, np.nan], [0.8, 0.7, 0.9], [0.9, 0.6, 0.8]])
    got = spread(values, FINDINGS)
    assert got["seeds"] == 3
    assert got["findings"]["Mass"] == pytest.approx({"mean": 0.8, "sd": 0.1, "min": 0.7, "max": 0.9, "n": 3})
    assert got["findings"]["Hernia"]["n"] == 2
    # Hernia is not defined for the first seed, so no seed's mean has it: 0.6, 0.75, 0.75.
    expected = {"mean": 0.7, "sd": statistics.stdev([0.6, 0.75, 0.75]), "min": 0.6, "max": 0.75, "n": 3}
    assert got["macro"] == pytest.approx({**expected, "n_findings": 2})


@given(st.lists(SCORES, min_size=2, max_size=8))
def test_mean_and_standard_deviation_are_those_of_the_standard_library(values):
    got = summary(values)
    assert got["mean"] == pytest.approx(statistics.fmean(values))
    assert got["sd"] == pytest.approx(statistics.stdev(values), abs=1e-12)
    assert (got["min"], got["max"], got["n"]) == (min(values), max(values), len(values))


def test_one_seed_has_no_spread_and_nothing_is_undefined_not_zero():
    got = spread(np.array([[0.75, np.nan, 0.25]]), FINDINGS)
    assert got["macro"]["mean"] == 0.5
    assert np.isnan(got["macro"]["sd"])
    assert got["macro"]["n"] == 1
    assert {name: got["findings"][name]["n"] for name in FINDINGS} == {"Mass": 1, "Edema": 0, "Hernia": 1}
    assert np.isnan([got["findings"]["Edema"][name] for name in ("mean", "sd", "min", "max")]).all()
    nothing = spread(np.full((2, 3), np.nan), FINDINGS)["macro"]
    assert (nothing["n"], nothing["n_findings"]) == (0, 0)
    assert np.isnan(nothing["mean"])


def test_a_table_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 2\) is not \(n_seeds, 3\)"):
        spread(np.zeros((2, 2)), FINDINGS)


@given(arrays(np.float32, (3, 4, 2), elements=SCORES), st.permutations(range(3)))
def test_the_ensemble_lies_between_its_members_whatever_their_order(probabilities, order):
    mean = combine(probabilities)
    assert mean.dtype == np.float32
    assert (mean >= probabilities.min(axis=0) - 1e-7).all()
    assert (mean <= probabilities.max(axis=0) + 1e-7).all()
    np.testing.assert_allclose(combine([probabilities[k] for k in order]), mean, atol=1e-7)


def test_the_ensemble_of_one_is_that_one_and_an_undefined_output_stays_so():
    one = np.array([[[0.25, np.nan], [0.1, 0.9]]], np.float32)
    np.testing.assert_array_equal(combine(one), one[0])
    # 0.1 in float32 three times: the mean is the same number, because it is added up in float64
    assert combine(np.full((3, 1, 1), 0.1, np.float32))[0, 0] == np.float32(0.1)


def test_seeds_follow_one_another_and_stay_seeds_that_can_be_trained_alone():
    assert seeds_of(TrainParams(seed=7)) == [7]
    assert seeds_of(TrainParams(seed=7, repeats=3)) == [7, 8, 9]
    last = 2**31 - 1
    assert seeds_of(TrainParams(seed=last, repeats=3)) == [last, 0, 1]
    assert [TrainParams(seed=seed).seed for seed in seeds_of(TrainParams(seed=last, repeats=3))] == [last, 0, 1]
    assert [str(folder_of(*item)) for item in enumerate([7, 8])] == [".", "repeats/seed-8"]


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, dict[str, object]]:
    entries = []
    for number, seed in enumerate([7, 8]):
        path = tmp_path / folder_of(number, seed) / "model.keras"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([seed]))
        entries.append({"seed": seed, "path": path.relative_to(tmp_path).as_posix(), "model_sha256": sha256_file(path)})
    return tmp_path, {"repeats": entries}


def test_members_are_the_models_that_were_trained(models):
    folder, training = models
    members = member_models(folder, training)
    assert [(member.seed, member.path) for member in members] == [
        (7, folder / "model.keras"),
        (8, folder / "repeats/seed-8/model.keras"),
    ]


def test_a_changed_or_missing_member_is_refused_by_name(models):
    folder, training = models
    path = folder / "repeats/seed-8/model.keras"
    path.write_bytes(b"another")
    with pytest.raises(UserError, match=r"seed-8/model\.keras and .*training\.json do not belong together"):
        member_models(folder, training)
    path.unlink()
    with pytest.raises(UserError, match=r"seed-8/model\.keras is missing \(repeat with seed 8\)"):
        member_models(folder, training)
    with pytest.raises(UserError, match="lists no repeats"):
        member_models(folder, {})


def test_the_table_of_repeats_is_csv(tmp_path):
    entries = [{"seed": 7, "val_auc": 0.5, "path": "model.keras"}, {"seed": 8, "val_auc": 0.75, "path": "a, b"}]
    write_repeats(tmp_path / "repeats.csv", entries)
    with (tmp_path / "repeats.csv").open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert [(int(row["seed"]), float(row["val_auc"]), row["path"]) for row in rows] == [
        (7, 0.5, "model.keras"),
        (8, 0.75, "a, b"),
    ]
