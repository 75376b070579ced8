"""Operating points: a hand-worked table, scikit-learn at every threshold, and validation alone deciding."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binomtest
from sklearn.metrics import f1_score, precision_score, recall_score

from pipeline.files import read_json, write_json
from pipeline.params import EvaluateParams
from pipeline.statistics.bootstrap import replicate, resample
from pipeline.statistics.calibration import fit_all
from pipeline.statistics.operating_points import (
    COUNTS,
    POINTS,
    RATES,
    choose,
    decision_statistic,
    plain_scores,
    scores_at,
    table,
)

PARAMS = EvaluateParams(resamples=200, seed=3)
N = 24
LABELS = hnp.arrays(np.float64, N, elements=st.sampled_from([0.0, 1.0, np.nan]))
OUTPUTS = hnp.arrays(np.float32, N, elements=st.integers(0, 8).map(lambda v: v / 8))
LADDER = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
LADDER_LABELS = np.array([1.0, 1, 0, 1, 0, 0])


def one_each(n):
    return np.char.zfill(np.arange(n).astype(str), 4)


def thresholds(labels, outputs, params=PARAMS):
    return {point: item["threshold"] for point, item in choose(labels, outputs, params).items()}


def by_scikit_learn(labels, called, weights=None):
    """Return sensitivity, specificity, precision, negative predictive value and F1, NaN where a divisor is 0."""
    given_weights = {"sample_weight": weights, "zero_division": np.nan}
    f1 = (
        f1_score(labels, called, **given_weights)
        if (np.ones_like(labels) if weights is None else weights)[labels == 1].sum()
        else np.nan
    )
    return [
        recall_score(labels, called, **given_weights),
        recall_score(1 - labels, ~called, **given_weights),
        precision_score(labels, called, **given_weights),
        precision_score(1 - labels, ~called, **given_weights),
        f1,
    ]


def test_by_hand():
    # Going down the ladder, true and false positives: 1 0, 2 0, 2 1, 3 1, 3 2, 3 3, of three each. Youden's index is
    # 2/3 at 0.8 and at 0.6, and the higher is taken; F1 is 4/5 at 0.8 and 6/7 at 0.6.
    found = thresholds(LADDER_LABELS, LADDER)
    assert found == {"youden": 0.8, "sensitivity": 0.6, "specificity": 0.8, "f1": 0.6}
    half = EvaluateParams(min_sensitivity=0.5, min_specificity=0.5)
    assert thresholds(LADDER_LABELS, LADDER, half)["sensitivity"] == 0.8
    assert thresholds(LADDER_LABELS, LADDER, half)["specificity"] == 0.6


def test_a_requirement_met_exactly_is_met():
    labels = np.repeat([1.0, 0.0], 10)
    outputs = np.concatenate([np.arange(20, 10, -1), np.arange(10, 0, -1)]) / 20
    found = thresholds(labels, outputs)
    assert (outputs[:10] >= found["sensitivity"]).sum() == 9
    assert (outputs[10:] < found["specificity"]).sum() == 9


@settings(max_examples=40, deadline=None)
@given(labels=LABELS, outputs=OUTPUTS, least=st.sampled_from([0.25, 0.5, 0.9, 0.99]))
def test_no_observed_threshold_does_better(labels, outputs, least):
    params = EvaluateParams(min_sensitivity=least, min_specificity=least)
    found = thresholds(labels, outputs, params)
    y, p = labels[~np.isnan(labels)].astype(int), outputs[~np.isnan(labels)]
    if len(set(y)) < 2:
        assert set(found.values()) == {None}
        return
    scores = {float(t): by_scikit_learn(y, p >= t) for t in np.unique(p)}  # lowest first

    def best(value_of):
        most = max(map(value_of, scores.values()))
        return max(t for t, row in scores.items() if value_of(row) >= most - 1e-12)

    assert found["youden"] == best(lambda row: row[0] + row[1])
    assert found["f1"] == best(lambda row: row[4])
    assert found["sensitivity"] == max(t for t, row in scores.items() if row[0] >= least)
    assert found["specificity"] == min((t for t, row in scores.items() if row[1] >= least), default=None)


@settings(max_examples=40, deadline=None)
@given(labels=LABELS, outputs=OUTPUTS, seed=st.integers(0, 99))
def test_order_and_unknown_labels_change_nothing_and_a_rising_map_moves_the_threshold(labels, outputs, seed):
    found = thresholds(labels, outputs)
    order = np.random.default_rng(seed).permutation(N)
    assert thresholds(labels[order], outputs[order]) == found
    known = ~np.isnan(labels)
    assert thresholds(labels[known], outputs[known]) == found
    moved = thresholds(labels, outputs**2)
    assert moved == {point: None if t is None else t**2 for point, t in found.items()}


def test_a_threshold_is_an_output_bit_for_bit():
    rng = np.random.default_rng(0)
    outputs, labels = rng.random(200).astype(np.float32), rng.integers(0, 2, 200).astype(float)
    for threshold in json.loads(json.dumps(thresholds(labels, outputs))).values():
        assert (outputs == threshold).sum() == 1


@pytest.mark.parametrize(("labels", "why"), [(np.zeros(4), "with the finding"), (np.ones(4), "without the finding")])
def test_a_class_without_images_has_no_points(labels, why):
    found = choose(labels, np.arange(4) / 4, PARAMS)
    assert set(found) == set(POINTS)
    assert {item["threshold"] for item in found.values()} == {None}
    assert all(why in item["why"] for item in found.values())


def test_a_specificity_out_of_reach_says_why():
    found = choose(np.array([1.0, 0, 0, 0]), np.array([1.0, 1, 1, 0.2]), PARAMS)
    assert found["specificity"] == {
        "threshold": None,
        "why": "no threshold has specificity 0.9: 2 of 3 negatives share the top output",
    }
    assert found["sensitivity"]["threshold"] == 1.0


@settings(max_examples=50, deadline=None)
@given(
    labels=LABELS,
    outputs=OUTPUTS,
    threshold=st.integers(0, 9).map(lambda v: v / 8),
    weights=hnp.arrays(np.float64, (10, 2), elements=st.integers(0, 4).map(float)),
    patients=hnp.arrays(np.int64, N, elements=st.integers(0, 9)),
)
def test_rates_equal_scikit_learn_with_sample_weights(labels, outputs, threshold, weights, patients):
    resamples = resample(patients, labels[:, None], PARAMS)
    ours = decision_statistic(labels, outputs, threshold, resamples)(weights[: resamples.n_patients])
    known = ~np.isnan(labels)
    for draw in range(2):
        of_image = weights[resamples.patient[known], draw]
        if not of_image.sum():
            assert np.isnan(ours[:, draw]).all()
            continue
        theirs = by_scikit_learn(labels[known].astype(int), outputs[known] >= threshold, of_image)
        assert ours[:, draw] == pytest.approx(theirs, abs=1e-12, nan_ok=True)


def test_counts_and_rates_by_hand():
    found = plain_scores(np.array([1, 1, 0, 0, 0, np.nan]), np.array([0.9, 0.2, 0.9, 0.5, 0.1, 0.9]), 0.5)
    assert [found[name] for name in COUNTS] == [1, 2, 1, 1]
    assert [found[name] for name in RATES] == pytest.approx([1 / 2, 1 / 3, 1 / 3, 1 / 2, 2 / 5])
    assert (found["n_positive"], found["n_negative"]) == (2, 3)


def test_intervals_are_the_bootstraps_of_patients():
    rng = np.random.default_rng(1)
    patients = rng.integers(0, 40, 120).astype(str)
    labels = rng.integers(0, 2, 120).astype(float)
    outputs = np.clip(0.3 * labels + rng.random(120) * 0.7, 0, 1)
    resamples = resample(patients, labels[:, None], PARAMS)
    found = scores_at(labels, outputs, 0.5, resamples)
    rows = []  # the same resamples, image by image
    for draw in resamples.draws.T:
        image = np.repeat(np.arange(120), draw[resamples.patient])
        rows.append(by_scikit_learn(labels[image].astype(int), outputs[image] >= 0.5))
    for k, rate in enumerate(RATES):
        low, high = np.quantile(np.array(rows)[:, k], (0.025, 0.975))
        assert (found[f"{rate}_percentile_low"], found[f"{rate}_percentile_high"]) == pytest.approx((low, high))
        assert found[f"{rate}_ci_low"] == found[f"{rate}_expanded_low"]
        assert f"{rate}_ci_method" not in found


def test_a_rate_of_one_never_has_an_interval_without_width():
    labels, outputs = np.repeat([1.0, 0.0], 10), np.repeat([0.9, 0.1], 10)
    patients = np.concatenate([np.arange(10) // 2, 100 + np.arange(10)]).astype(str)  # five patients with the finding
    found = scores_at(labels, outputs, 0.5, resample(patients, labels[:, None], PARAMS))
    for rate, n_patients in (("sensitivity", 5), ("ppv", 5), ("specificity", 10), ("npv", 10)):
        exact = binomtest(n_patients, n_patients).proportion_ci(0.95, method="exact")
        assert (found[rate], found[f"{rate}_percentile_low"]) == (1, 1)
        assert (found[f"{rate}_ci_low"], found[f"{rate}_ci_high"]) == pytest.approx((exact.low, 1))
        assert found[f"{rate}_ci_method"] == "clopper-pearson"
    low = binomtest(5, 5).proportion_ci(0.95, method="exact").low
    assert found["f1_ci_low"] == pytest.approx(2 * low / (1 + low))
    none = scores_at(labels, outputs, 0.95, resample(patients, labels[:, None], PARAMS))
    assert none["sensitivity_ci_low"] == 0
    assert none["sensitivity_ci_high"] == pytest.approx(binomtest(0, 5).proportion_ci(0.95, method="exact").high)
    assert np.isnan(none["ppv"])
    assert np.isnan(none["ppv_ci_high"])


def test_exact_bounds_count_the_patients_of_the_rates_own_images():
    # Three patients with the finding, all missed; of ten without it four called positive, two images each.
    labels = np.repeat([1.0, 0.0, 0.0], [6, 8, 12])
    outputs = np.repeat([0.1, 0.9, 0.1], [6, 8, 12])
    patients = np.char.zfill((np.arange(26) // 2).astype(str), 2)
    found = scores_at(labels, outputs, 0.5, resample(patients, labels[:, None], PARAMS))
    for rate, n_patients in (("sensitivity", 3), ("ppv", 4), ("f1", 7)):
        high = binomtest(0, n_patients).proportion_ci(0.95, method="exact").high
        assert found[f"{rate}_ci_high"] == pytest.approx(2 * high / (1 + high) if rate == "f1" else high)
    assert "specificity_ci_method" not in found


@pytest.fixture(scope="module")
def splits():
    rng = np.random.default_rng(8)
    labels = (rng.random((500, 3)) < [0.3, 0.1, 0.0]).astype(float)
    outputs = (1 / (1 + np.exp(-rng.normal(1.5 * labels - 1, 1)))).astype(np.float32)
    patients = rng.integers(0, 200, 500).astype(str)
    names = ["Mass", "Edema", "Hernia"]
    val, test = (labels[:250], outputs[:250]), (labels[250:], outputs[250:])
    resamples = resample(patients[250:], test[0], PARAMS)
    return val, test, resamples, names, fit_all(*val, patients[:250], names, PARAMS)


def test_the_table(splits, tmp_path):
    val, test, resamples, names, calibration = splits
    made = table(*splits, PARAMS)
    write_json(tmp_path / "operating_points.json", made)
    assert read_json(tmp_path / "operating_points.json")["findings"]["Mass"] == made["findings"]["Mass"]
    assert made["requirement"] == {"sensitivity": 0.9, "specificity": 0.9}
    assert (made["chosen_on"], made["scored_on"], made["points"]) == ("val", "test", list(POINTS))
    for k, name in enumerate(names[:2]):
        assert {p: row["threshold"] for p, row in made["findings"][name].items()} == thresholds(
            val[0][:, k], val[1][:, k]
        )
        for row in made["findings"][name].values():
            assert row["val"] == plain_scores(val[0][:, k], val[1][:, k], row["threshold"])
            # One at a time gives what all at once gave.
            assert row["test"] == scores_at(test[0][:, k], test[1][:, k], row["threshold"], resamples)
            assert row["why"] == ""
            assert 0 < row["calibrated_threshold"] < 1
        assert made["findings"][name]["sensitivity"]["val"]["sensitivity"] >= 0.9
        assert made["findings"][name]["specificity"]["val"]["specificity"] >= 0.9
    assert calibration["findings"]["Hernia"]["method"] == "none"
    for row in made["findings"]["Hernia"].values():
        assert (row["threshold"], row["val"], row["test"]) == (None, None, None)
        assert row["why"] == "no validation image with the finding"


def test_the_test_split_chooses_nothing(splits):
    val, test, resamples, names, calibration = splits
    made = table(val, test, resamples, names, calibration, PARAMS)
    turned = table(val, (1 - test[0], 1 - test[1]), resamples, names, calibration, PARAMS)
    for name in names:
        for point in POINTS:
            for key in ("threshold", "calibrated_threshold", "val"):
                assert made["findings"][name][point][key] == turned["findings"][name][point][key]


def test_calibrated_outputs_and_threshold_decide_as_the_raw_ones_do(splits):
    from pipeline.statistics.calibration import apply_all

    val, test, resamples, names, calibration = splits
    assert calibration["findings"]["Mass"]["method"] != "isotonic"  # which may take two outputs to one probability
    mapped = apply_all(calibration, names, test[1])
    for row in table(val, test, resamples, names, calibration, PARAMS)["findings"]["Mass"].values():
        raw = plain_scores(test[0][:, 0], test[1][:, 0], row["threshold"])
        assert plain_scores(test[0][:, 0], mapped[:, 0], row["calibrated_threshold"]) == raw


def test_a_test_split_without_the_finding_is_undefined_not_zero(splits):
    val, test, _, names, calibration = splits
    empty = np.zeros_like(test[0])
    resamples = resample(one_each(250), empty, PARAMS)
    row = table(val, (empty, test[1]), resamples, names, calibration, PARAMS)["findings"]["Mass"]["youden"]["test"]
    assert np.isnan([row["sensitivity"], row["sensitivity_ci_low"], row["f1"]]).all()
    assert row["ppv"] == 0
    assert 0 < row["specificity"] < 1
    assert (row["tp"], row["fn"], row["n_positive"]) == (0, 0, 0)


def test_no_finding_at_all(splits):
    none = np.zeros((250, 0))
    assert table((none, none), (none, none), splits[2], [], {"findings": {}}, PARAMS)["findings"] == {}


def test_paired_difference_of_two_thresholds(splits):
    _, test, resamples, _, _ = splits
    low, high = (
        replicate(decision_statistic(test[0][:, 0], test[1][:, 0], t, resamples), resamples) for t in (0.3, 0.5)
    )
    found = (low - high).estimate(0)
    assert found.ci_low >= 0  # a lower threshold never finds fewer, in any resample
    assert found.value > 0
