"""Subgroups: who belongs where, rates by hand, AUROCs against scikit-learn, differences against DeLong."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import confusion_matrix, roc_auc_score

from pipeline.params import EvaluateParams
from pipeline.statistics.bootstrap import resample
from pipeline.statistics.comparisons import MIN_PATIENTS, adjusted
from pipeline.statistics.delong import delong
from pipeline.statistics.groups import groups_of
from pipeline.statistics.subgroups import subgroups

BANDS = (18, 40, 60, 80)


def run(rows, labels, probabilities, thresholds=None, patients=None, least=1, resamples=200):
    params = EvaluateParams(resamples=resamples, seed=3, subgroup_images=least)
    thresholds = thresholds or {f"F{k}": 0.5 for k in range(labels.shape[1])}
    patients = np.arange(len(labels)).astype(str) if patients is None else patients
    return subgroups(rows, labels, probabilities, thresholds, resample(patients, labels, params), params)


def cohort(n=400, findings=2, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, findings)) < 0.4).astype(float)
    probabilities = 1 / (1 + np.exp(-(labels * 1.5 - 0.7 + rng.normal(size=labels.shape))))
    rows = pd.DataFrame(
        {
            "view": rng.choice(["PA", "AP", "L", ""], n),
            "sex": rng.choice(["F", "M", ""], n),
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.integers(0, 100, n)),
        }
    )
    return rows, labels, probabilities


def group(result, by, name):
    return next(row for row in result["groups"] if (row["by"], row["group"]) == (by, name))


def difference(result, name, finding, score="auc"):
    return next(
        row for row in result["differences"] if (row["group"], row["finding"], row["score"]) == (name, finding, score)
    )


def test_ages_by_hand():
    rows = pd.DataFrame({"age": [0, 17, 18, 39, 40, 79, 80, 95, np.nan]})
    members = {group.name: np.flatnonzero(group.members).tolist() for group in groups_of(rows, BANDS)}
    assert members == {
        "0-17": [0, 1],
        "18-39": [2, 3],
        "40-59": [4],
        "60-79": [5],
        "80+": [6, 7],
        "unknown": [8],
    }
    assert list(members)[-1] == "unknown"


@given(
    view=st.lists(st.sampled_from(["PA", "AP", "L", "", None]), min_size=12, max_size=12),
    sex=st.lists(st.sampled_from(["F", "M", "", None]), min_size=12, max_size=12),
    age=st.lists(st.sampled_from([0.0, 17.0, 18.0, 59.5, 80.0, 119.0, np.nan]), min_size=12, max_size=12),
)
def test_every_image_is_in_one_group_of_each_kind_and_none_is_empty(view, sex, age):
    groups = groups_of(pd.DataFrame({"view": view, "sex": sex, "age": age}), BANDS)
    for by in {group.by for group in groups}:
        held = np.sum([group.members for group in groups if group.by == by], axis=0)
        assert (held == 1).all()
    assert all(group.members.any() for group in groups)
    known = {by for by, column in (("view", view), ("sex", sex)) if any(column)}
    known |= {"age"} if not np.isnan(age).all() else set()
    assert {group.by for group in groups if " x " not in group.by} == known


def test_tables_read_from_disk_give_the_same_groups():
    rows, _, _ = cohort(60)
    written = rows.assign(age=rows["age"].astype("Float64"), sex=rows["sex"].where(rows["sex"] != ""))
    first, again = (groups_of(table, BANDS) for table in (rows, written))
    assert [group.name for group in first] == [group.name for group in again]
    assert all(np.array_equal(a.members, b.members) for a, b in zip(first, again, strict=True))


def test_scores_of_every_group_equal_scikit_learns_on_its_images():
    rows, labels, probabilities = cohort()
    result = run(rows, labels, probabilities, {"Mass": 0.4, "Edema": 0.6})
    members = {(group.by, group.name): group.members for group in groups_of(rows, BANDS)}
    assert len(result["groups"]) == len(members) == 4 + 3 + 6 + 12 + 18 + 24
    for row in result["groups"]:
        held = members[row["by"], row["group"]]
        assert row["images"] == held.sum()
        for k, (name, threshold) in enumerate({"Mass": 0.4, "Edema": 0.6}.items()):
            y, p = labels[held, k], probabilities[held, k]
            tn, fp, fn, tp = confusion_matrix(y, p >= threshold, labels=[0, 1]).ravel()
            found = row["findings"][name]
            assert (found["n_positive"], found["n_negative"]) == (tp + fn, tn + fp)
            assert found["fnr"] == pytest.approx(fn / (fn + tp) if fn + tp else np.nan, nan_ok=True)
            assert found["fpr"] == pytest.approx(fp / (fp + tn) if fp + tn else np.nan, nan_ok=True)
            expected = roc_auc_score(y, p) if len(np.unique(y)) == 2 else np.nan
            assert found["auc"] == pytest.approx(expected, nan_ok=True)


def test_underdiagnosis_by_hand():
    # Thresholds 0.5 and 0.3. Called healthy: the images in which neither is reached (0, 2, 4).
    probabilities = np.array([[0.4, 0.2], [0.5, 0.0], [0.0, 0.29], [0.1, 0.3], [0.49, 0.1], [0.9, 0.9]])
    # Sick: 0, 1, 3 (its other label is unknown). Healthy: 2, 5. Neither known: 4 (one absent, one unknown).
    labels = np.array([[1, 0], [1, 0], [0, 0], [np.nan, 1], [0, np.nan], [0, 0.0]])
    rows = pd.DataFrame({"sex": ["F"] * 6})
    found = group(run(rows, labels, probabilities, {"Mass": 0.5, "Edema": 0.3}), "sex", "female")["no_finding"]
    assert found["fpr"] == pytest.approx(1 / 3)  # image 0 of 0, 1, 3
    assert found["fnr"] == pytest.approx(1 / 2)  # image 5 of 2, 5
    assert (found["n"], found["n_healthy"], found["n_unknown"]) == (3, 2, 1)


def test_a_finding_without_threshold_has_no_rates_and_is_named():
    rows, labels, probabilities = cohort()
    result = run(rows, labels, probabilities, {"Mass": 0.5, "Hernia": None})
    female = group(result, "sex", "female")
    assert result["without_threshold"] == ["Hernia"]
    assert np.isnan(female["findings"]["Hernia"]["fnr"])
    assert not np.isnan(female["findings"]["Hernia"]["auc"])
    held = (rows["sex"] == "F").to_numpy() & (labels == 1).any(axis=1)  # sick of either
    assert female["no_finding"]["fpr"] == pytest.approx((probabilities[held, 0] < 0.5).mean())
    nothing = run(rows, labels, probabilities, {"Mass": None, "Hernia": None})
    assert np.isnan(group(nothing, "sex", "female")["no_finding"]["fpr"])


def test_no_miss_at_all_has_an_interval_too():
    # 20 patients without a miss: Clopper and Pearson's upper bound is 1 - 0.025 ** (1 / 20).
    labels = np.repeat([[1.0], [0.0]], 20, axis=0)
    found = group(run(pd.DataFrame({"sex": ["F"] * 40}), labels, np.where(labels == 1, 0.9, 0.1)), "sex", "female")
    assert found["findings"]["F0"]["fnr"] == 0
    assert found["findings"]["F0"]["fnr_ci_high"] == pytest.approx(1 - 0.025 ** (1 / 20))
    assert found["no_finding"]["fpr_ci_high"] == pytest.approx(1 - 0.025 ** (1 / 20))


def test_small_groups_are_counted_and_not_scored():
    rows, labels, probabilities = cohort(60)
    rows["sex"] = ["F"] * 50 + ["M"] * 10
    result = run(rows, labels, probabilities, least=11)
    assert group(result, "sex", "male") == {
        "by": "sex",
        "group": "male",
        "images": 10,
        "patients": 10,
        "scored": False,
    }
    assert group(result, "sex", "female")["scored"]
    assert not any(row["by"] == "sex" for row in result["differences"])  # the others are too few


def test_what_is_unknown_for_all_is_said_and_makes_no_group():
    rows, labels, probabilities = cohort(60)
    result = run(rows.assign(sex="", age=np.nan)[["sex", "age", "view"]], labels, probabilities)
    assert result["unknown_for_all"] == ["sex", "age"]
    assert {row["by"] for row in result["groups"]} == {"view"}
    assert run(rows[["view"]], labels, probabilities)["unknown_for_all"] == ["sex", "age"]  # no such column


def test_two_sexes_are_compared_once_and_swapping_them_swaps_the_sign():
    rows, labels, probabilities = cohort()
    rows["sex"] = np.random.default_rng(1).choice(["F", "M"], len(rows))
    swapped = rows.assign(sex=rows["sex"].map({"F": "M", "M": "F"}))
    first, again = (run(table[["sex"]], labels, probabilities) for table in (rows, swapped))
    assert {row["group"] for row in first["differences"]} == {"female"}
    assert first["n_comparisons"] == len(first["differences"]) == 1 + 3 * 2 + 2
    assert str(first["n_comparisons"]) in first["multiplicity"]
    for one, other in zip(first["differences"], again["differences"], strict=True):
        assert one["difference"] == pytest.approx(-other["difference"])
        assert one["p_value"] == pytest.approx(other["p_value"])
        assert one["difference_percentile_low"] == pytest.approx(-other["difference_percentile_high"])
    held = (rows["sex"] == "F").to_numpy()
    expected = roc_auc_score(labels[held, 0], probabilities[held, 0]) - roc_auc_score(
        labels[~held, 0], probabilities[~held, 0]
    )
    assert difference(first, "female", "F0")["difference"] == pytest.approx(expected)


def test_p_values_are_close_to_delongs_for_independent_images():
    rows, labels, probabilities = cohort(1200, findings=1, seed=2)
    rows["sex"] = np.random.default_rng(1).choice(["F", "M"], len(rows))
    probabilities[(rows["sex"] == "F").to_numpy()] *= np.random.default_rng(5).random(((rows["sex"] == "F").sum(), 1))
    found = difference(run(rows[["sex"]], labels, probabilities, resamples=2000), "female", "F0")
    held = (rows["sex"] == "F").to_numpy()
    one, other = (delong(labels[side, 0], probabilities[side, 0]) for side in (held, ~held))
    z = (one.auroc[0] - other.auroc[0]) / np.sqrt(one.covariance[0, 0] + other.covariance[0, 0])
    assert norm.isf(found["p_value"] / 2) == pytest.approx(abs(z), rel=0.08)


def test_a_group_that_the_model_misses_is_found_and_the_others_are_not():
    rows, labels, probabilities = cohort(1500, findings=1, seed=4)
    rows["sex"] = np.random.default_rng(1).choice(["F", "M"], len(rows))
    rows["view"] = np.random.default_rng(2).choice(["AP", "PA"], len(rows))
    held = (rows["sex"] == "F").to_numpy()
    probabilities[held] -= 0.25  # the same order, but women reach the threshold less often
    probabilities = np.clip(probabilities, 0, 1)
    result = run(rows[["sex", "view"]], labels, probabilities)
    assert difference(result, "female", "No Finding", "fpr")["difference"] > 0.2
    assert difference(result, "female", "No Finding", "fpr")["p_adjusted"] < 0.001
    assert difference(result, "female", "F0", "fnr")["p_adjusted"] < 0.001
    assert difference(result, "female", "F0")["p_adjusted"] > 0.05
    assert difference(result, "AP", "No Finding", "fpr")["p_adjusted"] > 0.05


def test_a_class_of_few_patients_is_scored_and_not_compared():
    rows, labels, probabilities = cohort(300, findings=2, seed=6)
    rows["sex"] = np.tile(["F", "M"], 150)
    held = (rows["sex"] == "F").to_numpy()
    labels[held, 1] = 0
    labels[np.flatnonzero(held)[: MIN_PATIENTS - 1], 1] = 1
    result = run(rows[["sex"]], labels, probabilities)
    assert not np.isnan(group(result, "sex", "female")["findings"]["F1"]["auc"])
    compared = {(row["finding"], row["score"]) for row in result["differences"]}
    assert ("F1", "auc") not in compared
    assert ("F1", "fnr") not in compared
    assert ("F1", "fpr") in compared  # women without it are many
    assert difference(result, "female", "macro")["n_findings"] == 1
    assert difference(result, "female", "macro")["difference"] == difference(result, "female", "F0")["difference"]
    labels[np.flatnonzero(held)[MIN_PATIENTS - 1], 1] = 1
    again = run(rows[["sex"]], labels, probabilities)
    assert ("F1", "auc") in {(row["finding"], row["score"]) for row in again["differences"]}


def test_patients_are_counted_once_however_many_images_they_have():
    rows, labels, probabilities = cohort(40)
    result = run(rows.assign(sex="F")[["sex"]], labels, probabilities, patients=np.repeat(["a", "b", "c", "d"], 10))
    assert group(result, "sex", "female")["patients"] == 4
    assert result["n_comparisons"] == 0  # nobody to compare with
    assert result["differences"] == []


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg():
    # J. R. Statist. Soc. B 1995;57:289-300, section 4.1: of these 15 values, four are rejected at 0.05.
    published = (
        *(0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344),
        *(0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000),
    )
    rows = adjusted([{"p_value": value} for value in published[::-1]])
    assert [row["p_value"] for row in rows if row["p_adjusted"] <= 0.05] == [0.0095, 0.0019, 0.0004, 0.0001]
    assert rows[-1]["p_adjusted"] == pytest.approx(0.0015)


@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_intervals_hold_the_value_and_come_with_how_many_resamples(seed):
    rows, labels, probabilities = cohort(120, seed=seed)
    for row in run(rows[["sex"]], labels, probabilities)["groups"]:
        found = row["macro"]
        assert found["percentile_low"] <= found["percentile_high"]
        assert found["n_resamples"] <= 200
        assert 0 <= found["ci_low"] <= found["ci_high"] <= 1
