"""AUROC and average precision for weighted patients, against scikit-learn, by hand, and what must not change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, roc_auc_score

from pipeline.params import EvaluateParams
from pipeline.statistics.bootstrap import resample
from pipeline.statistics.ranks import rank_statistic

PARAMS = EvaluateParams(resamples=100, seed=3)
N = 24
LABELS = hnp.arrays(np.float64, N, elements=st.sampled_from([0.0, 1.0, np.nan]))
TIED = hnp.arrays(np.float32, N, elements=st.integers(0, 8).map(lambda v: v / 8))
PATIENTS = hnp.arrays(np.int64, N, elements=st.integers(0, 9))


def one_each(n):
    return np.char.zfill(np.arange(n).astype(str), 4)


def scores_of(labels, outputs, patients=None):
    """Return AUROC and average precision of the data itself."""
    labels, outputs = np.asarray(labels, np.float64), np.asarray(outputs)
    resamples = resample(one_each(len(labels)) if patients is None else patients, labels[:, None], PARAMS)
    return rank_statistic(labels, outputs, resamples)(np.ones((resamples.n_patients, 1)))[:, 0]


def test_auroc_and_average_precision_by_hand():
    # Pairs (positive, negative): 0.8>0.3, 0.8>0.5, 0.5=0.5 (one half), 0.5>0.3: 3.5 of 4. Highest first: one of one
    # is positive, then two of three; each step in recall is one half: (1 + 2/3) / 2.
    assert scores_of([1, 0, 1, 0], [0.8, 0.3, 0.5, 0.5]) == pytest.approx([3.5 / 4, 5 / 6])


def test_published_rating_data():
    # Hanley and McNeil 1982, table 1: 58 normal and 51 abnormal CT images in five grades; their area is 0.893.
    normal, abnormal = np.repeat(range(5), [33, 6, 6, 11, 2]), np.repeat(range(5), [3, 2, 2, 11, 33])
    labels = np.concatenate([np.zeros(58), np.ones(51)])
    assert scores_of(labels, np.concatenate([normal, abnormal]))[0] == pytest.approx(0.893, abs=0.0005)


@settings(max_examples=80, deadline=None)
@given(
    labels=LABELS,
    outputs=TIED,
    patients=PATIENTS,
    weights=hnp.arrays(np.float64, (10, 3), elements=st.integers(0, 4).map(float)),
)
def test_scikit_learn_with_sample_weights(labels, outputs, patients, weights):
    resamples = resample(patients, labels[:, None], PARAMS)
    ours = rank_statistic(labels, outputs, resamples)(weights[: resamples.n_patients])
    for draw in range(3):
        of_image = weights[resamples.patient, draw]
        used = ~np.isnan(labels) & (of_image > 0)
        if len(np.unique(labels[used])) < 2:
            assert np.isnan(ours[:, draw]).all()
            continue
        theirs = [
            score(labels[used], outputs[used], sample_weight=of_image[used])
            for score in (roc_auc_score, average_precision_score)
        ]
        assert ours[:, draw] == pytest.approx(theirs, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, outputs=TIED, patients=PATIENTS, seed=st.integers(0, 99))
def test_what_leaves_the_scores_as_they_are(labels, outputs, patients, seed):
    value = scores_of(labels, outputs, patients)
    order = np.random.default_rng(seed).permutation(N)
    assert scores_of(labels[order], outputs[order], patients[order]) == pytest.approx(value, abs=1e-12, nan_ok=True)
    rising = np.exp(5 * outputs.astype(np.float64)) - 3
    assert scores_of(labels, rising, patients) == pytest.approx(value, abs=1e-12, nan_ok=True)
    known = ~np.isnan(labels)
    if known.any():
        assert scores_of(labels[known], outputs[known]) == pytest.approx(value, abs=1e-12, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, outputs=TIED)
def test_the_complement_turns_auroc_round(labels, outputs):
    value = scores_of(labels, outputs)[0]
    assert scores_of(1 - labels, outputs)[0] == pytest.approx(1 - value, abs=1e-12, nan_ok=True)
    assert scores_of(labels, -outputs)[0] == pytest.approx(1 - value, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("labels", [np.ones(6), np.zeros(6), np.full(6, np.nan)])
def test_a_class_without_images_makes_both_undefined(labels):
    assert np.isnan(scores_of(labels, np.arange(6.0))).all()


def test_all_outputs_equal():
    labels = np.array([1, 0, 0, 0, 1.0])
    assert scores_of(labels, np.full(5, 0.3)) == pytest.approx([0.5, 0.4])


def test_a_patient_drawn_three_times_counts_three_times():
    rng = np.random.default_rng(1)
    labels, outputs, patients = rng.integers(0, 2, 40).astype(float), rng.random(40), rng.integers(0, 8, 40).astype(str)
    resamples = resample(patients, labels[:, None], PARAMS)
    weights = np.ones((resamples.n_patients, 1))
    weights[2], weights[5] = 3, 0
    times = weights[resamples.patient, 0].astype(int)
    repeated = scores_of(np.repeat(labels, times), np.repeat(outputs, times))
    assert rank_statistic(labels, outputs, resamples)(weights)[:, 0] == pytest.approx(repeated, abs=1e-12)
