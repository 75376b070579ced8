"""Brier score, its parts and the expected calibration error: scikit-learn, hand-worked tables, loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import brier_score_loss

from pipeline.params import EvaluateParams
from pipeline.statistics.bootstrap import resample
from pipeline.statistics.probability import SCORES, adaptive_bins, probability_statistic

PARAMS = EvaluateParams(resamples=100, seed=3)
N = 24
LABELS = hnp.arrays(np.float64, N, elements=st.sampled_from([0.0, 1.0, np.nan]))
OUTPUTS = hnp.arrays(np.float64, N, elements=st.integers(0, 16).map(lambda v: v / 16))


def scores_of(labels, outputs, bins):
    labels, outputs = np.asarray(labels, np.float64), np.asarray(outputs)
    resamples = resample(np.char.zfill(np.arange(len(labels)).astype(str), 4), labels[:, None], PARAMS)
    values = probability_statistic(labels, outputs, resamples, bins)(np.ones((resamples.n_patients, 1)))[:, 0]
    return dict(zip(SCORES, values, strict=True))


def test_two_bins_by_hand():
    # Bin 0.2: four images, one positive; bin 0.8: four images, two positives. Base rate 3/8.
    labels = [0, 0, 0, 1, 1, 1, 0, 0]
    outputs = [0.2] * 4 + [0.8] * 4
    found = scores_of(labels, outputs, 2)
    assert found["brier"] == pytest.approx((3 * 0.04 + 0.64 + 2 * 0.04 + 2 * 0.64) / 8)
    assert found["reliability"] == pytest.approx((4 * 0.05**2 + 4 * 0.3**2) / 8)
    assert found["resolution"] == pytest.approx((4 * 0.125**2 + 4 * 0.125**2) / 8)
    assert found["uncertainty"] == pytest.approx(3 / 8 * 5 / 8)
    assert found["within_bin"] == pytest.approx(0, abs=1e-15)
    assert found["ece"] == pytest.approx((4 * 0.05 + 4 * 0.3) / 8)


def test_probabilities_that_come_true_have_no_calibration_error():
    outputs = np.repeat([0.1, 0.5, 0.9], 10)
    labels = np.concatenate([np.arange(10) < hits for hits in (1, 5, 9)]).astype(float)
    found = scores_of(labels, outputs, 3)
    assert (found["ece"], found["reliability"]) == pytest.approx((0, 0), abs=1e-15)


@settings(max_examples=60, deadline=None)
@given(
    labels=LABELS,
    outputs=OUTPUTS,
    patients=hnp.arrays(np.int64, N, elements=st.integers(0, 9)),
    weights=hnp.arrays(np.float64, (10, 2), elements=st.integers(0, 4).map(float)),
    bins=st.integers(2, 12),
)
def test_scikit_learn_and_loops_over_bins(labels, outputs, patients, weights, bins):
    resamples = resample(patients, labels[:, None], PARAMS)
    ours = probability_statistic(labels, outputs, resamples, bins)(weights[: resamples.n_patients])
    known = ~np.isnan(labels)
    y, p = labels[known], outputs[known]
    bin_of = adaptive_bins(p, bins)
    for draw in range(2):
        found = dict(zip(SCORES, ours[:, draw], strict=True))
        weight = weights[resamples.patient[known], draw]
        if not weight.sum():
            assert np.isnan(ours[:, draw]).all()
            continue
        assert found["brier"] == pytest.approx(
            brier_score_loss(y, p, sample_weight=weight, pos_label=1, labels=[0, 1]), abs=1e-12
        )
        ece = reliability = 0.0
        for number in range(bin_of.max() + 1):
            inside = weight * (bin_of == number)
            if inside.sum():
                gap = (inside @ p - inside @ y) / inside.sum()
                ece += inside.sum() * abs(gap) / weight.sum()
                reliability += inside.sum() * gap**2 / weight.sum()
        assert (found["ece"], found["reliability"]) == pytest.approx((ece, reliability), abs=1e-12)
        parts = found["reliability"] - found["resolution"] + found["uncertainty"] + found["within_bin"]
        assert parts == pytest.approx(found["brier"], abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, outputs=OUTPUTS, bins=st.integers(2, 12), seed=st.integers(0, 99))
def test_order_complement_and_unknown_labels(labels, outputs, bins, seed):
    value = list(scores_of(labels, outputs, bins).values())
    order = np.random.default_rng(seed).permutation(N)
    permuted = list(scores_of(labels[order], outputs[order], bins).values())
    assert permuted == pytest.approx(value, abs=1e-12, nan_ok=True)
    known = ~np.isnan(labels)
    if known.any():
        alone = list(scores_of(labels[known], outputs[known], bins).values())
        assert alone == pytest.approx(value, abs=1e-12, nan_ok=True)
    assert scores_of(1 - labels, 1 - outputs, bins)["brier"] == pytest.approx(value[0], abs=1e-12, nan_ok=True)


def test_without_an_image_all_are_undefined():
    assert np.isnan(list(scores_of(np.full(5, np.nan), np.full(5, 0.5), 10).values())).all()


def test_one_class_is_scored():
    found = scores_of(np.zeros(4), [0.0, 0.2, 0.2, 0.4], 2)
    assert found["brier"] == pytest.approx((0.04 + 0.04 + 0.16) / 4)
    assert found["uncertainty"] == 0
    assert found["ece"] == pytest.approx(0.2)


def test_bins_hold_equally_many_where_nothing_is_tied():
    outputs = np.random.default_rng(0).permutation(100) / 100
    assert np.bincount(adaptive_bins(outputs, 10)).tolist() == [10] * 10


def test_tied_images_go_where_the_middle_one_belongs():
    assert adaptive_bins(np.repeat([0.1, 0.2], [4, 6]), 2).tolist() == [0] * 4 + [1] * 6
    assert adaptive_bins(np.repeat([0.1, 0.2, 0.3], [1, 8, 1]), 2).tolist() == [0] + [1] * 9


@settings(max_examples=80, deadline=None)
@given(
    outputs=hnp.arrays(np.float64, st.integers(0, 40), elements=st.integers(0, 9).map(lambda v: v / 9)),
    bins=st.integers(1, 15),
)
def test_bins_rise_with_the_output_and_part_no_ties(outputs, bins):
    found = adaptive_bins(outputs, bins)
    assert len(found) == len(outputs)
    if len(outputs):
        assert set(found) == set(range(found.max() + 1))
        assert found.max() < bins
    order = np.argsort(outputs, kind="stable")
    assert (np.diff(found[order]) >= 0).all()
    assert (np.diff(found[order])[np.diff(outputs[order]) == 0] == 0).all()
