"""Exact scores against scikit-learn and by hand; intervals against what a bootstrap of patients must do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, roc_auc_score

from pipeline.metrics import auroc, macro_auroc, rank, score_split, weighted_scores
from pipeline.params import EvaluateParams

PARAMS = EvaluateParams(resamples=400, confidence=0.95, seed=3)


def test_auroc_by_hand():
    # Pairs (positive, negative): 0.8>0.3, 0.8>0.5, 0.5=0.5 (one half), 0.5>0.3: 3.5 of 4.
    assert auroc(np.array([1, 0, 1, 0.0]), np.array([0.8, 0.3, 0.5, 0.5])) == pytest.approx(3.5 / 4)


@settings(max_examples=150, deadline=None)
@given(
    labels=hnp.arrays(np.float64, 30, elements=st.sampled_from([0.0, 1.0])),
    scores=hnp.arrays(np.float64, 30, elements=st.integers(0, 8).map(lambda v: v / 8)),
    weights=hnp.arrays(np.float64, 30, elements=st.integers(0, 4).map(float)),
)
def test_weighted_scores_equal_scikit_learn(labels, scores, weights):
    ours_auc, ours_ap = (values[0] for values in weighted_scores(rank(labels, scores), weights[None]))
    used = weights > 0
    if len(np.unique(labels[used])) < 2:
        assert np.isnan(ours_auc)
        assert np.isnan(ours_ap)
        return
    assert ours_auc == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights), abs=1e-12)
    assert ours_ap == pytest.approx(average_precision_score(labels, scores, sample_weight=weights), abs=1e-12)


@given(labels=hnp.arrays(np.float64, 20, elements=st.sampled_from([0.0, 1.0])), seed=st.integers(0, 100))
def test_auroc_is_symmetric_and_knows_only_ranks(labels, seed):
    scores = np.random.default_rng(seed).random(20)
    value = auroc(labels, scores)
    if np.isnan(value):
        return
    assert auroc(1 - labels, scores) == pytest.approx(1 - value)
    assert auroc(labels, np.exp(5 * scores)) == pytest.approx(value)


def test_unknown_labels_are_left_out():
    labels, scores = np.array([1, 0, np.nan, 1, 0]), np.array([0.9, 0.1, 0.0, 0.4, 0.6])
    known = ~np.isnan(labels)
    assert auroc(labels, scores) == auroc(labels[known], scores[known])


def test_undefined_is_nan_and_named():
    labels = np.array([[1, 0], [0, 0], [1, 0], [0, 0.0]])
    scores = np.random.default_rng(0).random((4, 2))
    result = score_split(labels, scores, np.array(["a", "b", "c", "d"]), ["Mass", "Hernia"], PARAMS)
    assert np.isnan(result["findings"]["Hernia"]["auc"])
    assert np.isnan(result["findings"]["Hernia"]["ci_low"])
    assert result["macro"]["undefined"] == "Hernia"
    assert result["macro"]["n_findings"] == 1
    assert macro_auroc(labels, scores) == result["findings"]["Mass"]["auc"] == result["macro"]["auc"]
    assert result["findings"]["Mass"]["n_resamples"] < PARAMS.resamples  # some draws lose a class, and that is said


def test_no_known_label_at_all_is_nan():
    assert np.isnan(macro_auroc(np.full((3, 2), np.nan), np.zeros((3, 2))))


def _cohort(images_per_patient: int):
    rng = np.random.default_rng(5)
    labels = np.repeat(rng.integers(0, 2, 120), images_per_patient).astype(float)
    scores = np.repeat(rng.normal(size=120), images_per_patient) + labels
    patients = np.repeat([f"p{n}" for n in range(120)], images_per_patient)
    return labels[:, None], scores[:, None], patients


def test_copies_of_an_image_do_not_narrow_the_interval():
    # Four identical images of each patient say no more than one: the bootstrap of patients must not be fooled.
    one, four = (score_split(*_cohort(n), ["Mass"], PARAMS)["findings"]["Mass"] for n in (1, 4))
    assert four["auc"] == pytest.approx(one["auc"])
    assert (four["ci_low"], four["ci_high"]) == pytest.approx((one["ci_low"], one["ci_high"]))


def test_interval_is_close_to_hanley_mcneil():
    # Hanley and McNeil 1982, equation 1, for independent images.
    labels, scores, patients = _cohort(1)
    row = score_split(labels, scores, patients, ["Mass"], EvaluateParams(resamples=2000))["findings"]["Mass"]
    a, n1, n0 = row["auc"], row["n_positive"], row["n_negative"]
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = np.sqrt((a * (1 - a) + (n1 - 1) * (q1 - a * a) + (n0 - 1) * (q2 - a * a)) / (n1 * n0))
    assert row["ci_high"] - row["ci_low"] == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_same_seed_same_interval_and_order_of_rows_does_not_matter():
    labels, scores, patients = _cohort(2)
    order = np.random.default_rng(0).permutation(len(labels))
    first = score_split(labels, scores, patients, ["Mass"], PARAMS)
    again = score_split(labels[order], scores[order], patients[order], ["Mass"], PARAMS)
    for key in ("auc", "ci_low", "ci_high", "average_precision"):
        assert again["macro"][key] == pytest.approx(first["macro"][key], abs=1e-12)
