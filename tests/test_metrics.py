"""The AUROC of training by hand and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score

from pipeline.metrics import auroc, macro_auroc


def test_auroc_by_hand():
    # Pairs (positive, negative): 0.8>0.3, 0.8>0.5, 0.5=0.5 (one half), 0.5>0.3: 3.5 of 4.
    assert auroc(np.array([1, 0, 1, 0.0]), np.array([0.8, 0.3, 0.5, 0.5])) == pytest.approx(3.5 / 4)


@settings(max_examples=150, deadline=None)
@given(
    labels=hnp.arrays(np.float64, 30, elements=st.sampled_from([0.0, 1.0])),
    scores=hnp.arrays(np.float64, 30, elements=st.integers(0, 8).map(lambda v: v / 8)),
)
def test_auroc_equals_scikit_learn(labels, scores):
    ours = auroc(labels, scores)
    if len(np.unique(labels)) < 2:
        assert np.isnan(ours)
    else:
        assert ours == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


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


def test_no_known_label_at_all_is_nan():
    assert np.isnan(macro_auroc(np.full((3, 2), np.nan), np.zeros((3, 2))))
