"""Exact intervals: SciPy's, the rule of three, and no interval without width."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pipeline.statistics.intervals import Estimate
from pipeline.statistics.proportions import exact_f1_interval, exact_interval, printed


@given(trials=st.integers(1, 400), share=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_whole_successes_are_scipys_exact_interval(trials, share, confidence):
    hits = round(share * trials)
    theirs = binomtest(hits, trials).proportion_ci(confidence, method="exact")
    assert exact_interval(hits / trials, trials, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_rule_of_three():
    # Hanley and Lippman-Hand, JAMA 1983;249:1743-1745: none of n seen, 95 % one-sided bound about 3 / n.
    assert exact_interval(0.0, 300, 0.90)[1] == pytest.approx(3 / 300, rel=0.01)


def test_f1_at_its_ends():
    assert exact_f1_interval(0.0, 20, 0.95)[0] == 0
    assert exact_f1_interval(1.0, 20, 0.95)[1] == 1
    # F1 and the share J = tp / (tp + fp + fn) are one the other's function: 6 of 10 is an F1 of 0.75.
    low, high = binomtest(6, 10).proportion_ci(0.95, method="exact")
    assert exact_f1_interval(0.75, 10, 0.95) == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))


def test_an_interval_with_width_is_printed_as_it_is():
    found = Estimate(0.9, 0.8, 0.95, 0.8, 0.95, 0.81, 0.96, 0.79, 0.94, 500)
    assert printed("ppv", found, 30, 0.95) == found.as_dict("ppv")


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_an_interval_without_width_is_replaced_and_marked(value):
    found = Estimate(value, *[value] * 8, 500)
    row = printed("ppv", found, 12, 0.95)
    theirs = binomtest(round(12 * value), 12).proportion_ci(0.95, method="exact")
    assert (row["ppv_ci_low"], row["ppv_ci_high"]) == pytest.approx((theirs.low, theirs.high))
    assert row["ppv_ci_method"] == "clopper-pearson"
    assert row["ppv_percentile_low"] == row["ppv_bca_high"] == value


def test_undefined_stays_undefined():
    nan = float("nan")
    row = printed("ppv", Estimate(nan, *[nan] * 8, 0), 0, 0.95)
    assert np.isnan(row["ppv_ci_low"])
    assert "ppv_ci_method" not in row
    assert np.isnan(exact_interval(0.5, 0, 0.95)).all()
