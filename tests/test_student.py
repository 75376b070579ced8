"""Student's t for resampled scores, against what is known of means of normal values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.statistics.student import error_and_freedom, expanded_levels, t_test


def mean_of(values, n_resamples=4000, seed=0):
    """Return draws and jackknife values of the mean."""
    draws = np.random.default_rng(seed).choice(values, (n_resamples, len(values))).mean(axis=1)
    return draws, (values.sum() - values) / (len(values) - 1)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), n=st.integers(5, 60))
def test_the_error_of_a_mean_is_the_standard_error_of_the_mean(seed, n):
    # The jackknife's is s / sqrt(n) exactly; that of the resamples lacks the factor sqrt(n / (n - 1)).
    values = np.random.default_rng(seed).normal(size=n)
    error, _ = error_and_freedom(*mean_of(values))
    assert error >= stats.sem(values) * (1 - 1e-12)
    assert error == pytest.approx(stats.sem(values), rel=0.06)


def test_degrees_of_freedom_by_hand():
    # Away from their mean by -1, 1, -1, 1: kurtosis 1, at least; then as many as there are values.
    draws = np.array([0.0, 1.0, 2.0])
    assert error_and_freedom(draws, np.array([1.0, 3.0, 1.0, 3.0]))[1] == 4
    # Away by -2, -2, -2, 6: squares 4, 4, 4, 36, of sum 48; kurtosis 4 * (3 * 16 + 1296) / 48 ** 2 = 7 / 3.
    assert error_and_freedom(draws, np.array([0.0, 0.0, 0.0, 8.0]))[1] == pytest.approx(2 * 4 / (7 / 3 - 1))
    assert error_and_freedom(draws, np.array([0.0, np.nan, 0.0, 0.0, 8.0]))[1] == pytest.approx(6)


def test_normal_values_have_as_many_degrees_of_freedom_as_there_are():
    freedoms = [error_and_freedom(*mean_of(np.random.default_rng(k).normal(size=400), 10))[1] for k in range(40)]
    assert np.mean(freedoms) == pytest.approx(400, rel=0.1)


def test_one_patient_that_decides_leaves_hardly_a_degree():
    values = np.concatenate([np.zeros(99), [50.0]])
    assert error_and_freedom(*mean_of(values))[1] < 3


def test_interval_of_few_normal_values_is_students():
    # Over many samples of ten, the mean width against that of scipy's t interval, and of plain percentiles.
    widths = []
    for k in range(200):
        values = np.random.default_rng(k).normal(size=10)
        draws, jackknife = mean_of(values, 2000, seed=k)
        low, high = np.quantile(draws, expanded_levels(draws, jackknife, 0.95))
        known = stats.t.interval(0.95, 9, loc=values.mean(), scale=stats.sem(values))
        plain = np.quantile(draws, (0.025, 0.975))
        widths.append([high - low, known[1] - known[0], plain[1] - plain[0]])
    ours, students, percentile = np.mean(widths, axis=0)
    assert ours == pytest.approx(students, rel=0.08)
    assert percentile < 0.85 * students


def test_many_normal_values_change_nothing():
    draws, jackknife = mean_of(np.random.default_rng(1).normal(size=5000), 1000)
    assert expanded_levels(draws, np.asarray(jackknife), 0.95) == pytest.approx([0.025, 0.975], abs=0.005)


@given(confidence=st.floats(0.5, 0.999), n=st.integers(3, 50))
def test_levels_are_never_narrower_than_percentiles_and_symmetric(confidence, n):
    low, high = expanded_levels(*mean_of(np.random.default_rng(n).normal(size=n), 200), confidence)
    assert 0 <= low <= (1 - confidence) / 2 * 1.001
    assert low + high == pytest.approx(1)


def test_a_score_that_never_changes_keeps_the_plain_levels_and_has_no_p_value():
    same = np.full(10, 0.5)
    assert expanded_levels(same, same, 0.95) == pytest.approx([0.025, 0.975])
    assert np.isnan(t_test(0.5, same, same))
    assert np.isnan(t_test(np.nan, np.full(10, np.nan), np.full(5, np.nan)))
    assert expanded_levels(np.full(10, np.nan), same, 0.95) == pytest.approx([0.025, 0.975])


def test_p_value_of_a_mean_is_close_to_scipys():
    values = np.random.default_rng(8).normal(0.4, 1, 60)
    draws, jackknife = mean_of(values, 8000)
    assert t_test(values.mean(), draws, jackknife) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=0.25)
    assert t_test(-values.mean(), -draws, -jackknife) == t_test(values.mean(), draws, jackknife)
