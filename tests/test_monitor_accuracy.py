"""Accuracy of labelled images: scikit-learn's scores, errors that hold, and no bias from what was labelled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monitor_case import reference
from sklearn.metrics import roc_auc_score

from pipeline.monitoring.accuracy import (
    Measured,
    auc_influence,
    bands_of,
    effective,
    label_weights,
    mean_influence,
    measures,
    worse_p,
)
from pipeline.monitoring.intervals import bootstrap
from pipeline.monitoring.scores import BANDS
from pipeline.statistics.delong import delong


def drawn(rng: np.random.Generator, n: int, skill: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    y = (rng.random(n) < 0.3).astype(np.int8)
    return y, np.round(skill * y + rng.standard_normal(n), 1)  # with ties


@given(st.integers(0, 1000))
def test_a_weighted_auroc_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, scores = drawn(rng, 120)
    weights = rng.uniform(0.2, 5, 120)
    value, influence = auc_influence(y, scores, weights)
    assert value == pytest.approx(roc_auc_score(y, scores, sample_weight=weights))
    assert abs(influence.sum()) < 1e-9


def test_the_error_of_an_auroc_is_delongs() -> None:
    y, scores = drawn(np.random.default_rng(1), 400)
    value, influence = auc_influence(y, scores, np.ones(400))
    low, high = delong(y.astype(float), scores).interval(0, 0.6827)
    assert value == pytest.approx((low + high) / 2, abs=0.002)
    assert np.sqrt((influence**2).sum()) == pytest.approx((high - low) / 2, rel=0.03)


def test_few_images_of_a_class_leave_a_measure_undefined() -> None:
    y = np.array([1] * 7 + [0] * 93, np.int8)
    assert np.isnan(auc_influence(y, np.arange(100.0), np.ones(100))[0])
    assert np.isnan(mean_influence(np.ones(100), (y == 1).astype(float))[0])


def test_weights_undo_what_was_labelled() -> None:
    rng = np.random.default_rng(2)
    y, scores = drawn(rng, 60_000)
    ranks = (np.argsort(np.argsort(scores)) + 0.5) / len(scores)
    labelled = rng.random(len(y)) < np.where(ranks > 0.6, 0.9, 0.1)  # what is called is looked at again
    bands = bands_of(ranks[:, None])
    counts = [np.array([[float((bands[rows] == band).sum()) for band in range(BANDS)]]) for rows in (..., labelled)]
    weights = label_weights(*counts, bands[labelled])[:, 0]
    whole, _ = mean_influence((scores > 1).astype(float), (y == 1).astype(float))
    naive, _ = mean_influence((scores[labelled] > 1).astype(float), (y[labelled] == 1).astype(float))
    mended, _ = mean_influence((scores[labelled] > 1).astype(float), (y[labelled] == 1) * weights)
    assert naive - whole > 0.1
    assert mended == pytest.approx(whole, abs=0.02)


def test_a_measure_that_rests_on_few_images_needs_more_to_be_called_worse() -> None:
    before = Measured(0.85, 0.02, 100, 400, 99)
    many, few = (Measured(0.65, 0.05, n, 4 * n, n - 1) for n in (100, 10))
    name = "accuracy/Mass/auc"
    assert worse_p(before, many, name) < 1e-3 < worse_p(before, few, name)
    assert worse_p(before, Measured(0.95, 0.05, 10, 40, 9), name) > 0.5  # better is no alarm
    assert np.isnan(worse_p(before, Measured(float("nan"), float("nan"), 2, 9), name))
    assert effective(np.array([1.0, 1, 1, 1]), np.arange(4)) == 4
    assert effective(np.array([1.0, 1, 1, 1]), np.array([0, 0, 1, 1])) == 2
    assert effective(np.array([9.0, 1e-9]), np.arange(2)) == pytest.approx(1)


def test_windows_of_an_unchanged_model_are_rarely_called_worse() -> None:
    rng, found = np.random.default_rng(3), []
    for seed in range(15):
        known = reference(seed, patients=120)
        expected = measures(known, known.labels, known.probabilities, known.patients, np.ones((360, 3)), "youden")
        for _ in range(6):
            rows = rng.permutation(360)[:200]
            fresh = (rng.random((200, 3)) < known.probabilities[rows]).astype(np.int8)
            now = measures(known, fresh, known.probabilities[rows], known.patients[rows], np.ones((200, 3)), "youden")
            found += [worse_p(expected[name], now[name], name) for name in now]
    p = np.array(found)
    assert np.nanmean(p <= 0.05) <= 0.07
    assert np.nanmean(p <= 0.001) <= 0.004


def test_bootstrap_intervals_hold_the_value_and_widen_with_patients_who_are_alike() -> None:
    rng = np.random.default_rng(4)
    y, scores = drawn(rng, 300)
    truth, outputs = y[:, None], 1 / (1 + np.exp(-scores[:, None]))
    about = (np.ones((300, 1)), np.array([0.6]), ("Mass",), 400, 1)
    one_each = bootstrap(truth, outputs, np.arange(300), *about)
    low, high = one_each["accuracy/Mass/auc"]
    assert low < roc_auc_score(y, scores) < high
    assert set(one_each) == {
        f"accuracy/{name}" for name in ("Mass/auc", "Mass/sensitivity", "Mass/specificity", "mean/auc")
    }
    four = [np.repeat(each, 4, axis=0) for each in (truth, outputs)]
    wide = bootstrap(*four, np.repeat(np.arange(300), 4), np.ones((1200, 1)), *about[1:])["accuracy/Mass/auc"]
    narrow = bootstrap(*four, np.arange(1200), np.ones((1200, 1)), *about[1:])["accuracy/Mass/auc"]
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])
