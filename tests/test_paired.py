"""Paired differences: a second bootstrap in plain loops, p values against intervals, Holm by its examples."""

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from pipeline.params import EvaluateParams
from pipeline.statistics.bootstrap import Replicates, resample
from pipeline.statistics.intervals import estimate
from pipeline.statistics.paired import SCORES, holm, mean_of, p_value, scores_of

PERCENTILE = EvaluateParams(resamples=100, seed=5, interval="percentile")


def drawn(seed, n_patients=25, findings=2, noise=1.0):
    """Return patients, labels and the probabilities of two models, B the noisier one."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients)).astype(str)
    labels = rng.integers(0, 2, (len(patients), findings)).astype(float)
    seen = labels + rng.normal(size=labels.shape)
    a, b = (1 / (1 + np.exp(-(seen + spread * rng.normal(size=labels.shape)))) for spread in (0.5, 0.5 + noise))
    return patients, labels, a.round(2), b.round(2)


def differences(patients, labels, a, b, params):
    resamples = resample(patients, labels, params)
    scores = [scores_of(labels, model, resamples, params.bins) for model in (a, b)]
    return scores[1] - scores[0], resamples


def replicates(value, draws, interval="percentile"):
    draws = np.array([draws], float)
    return Replicates(np.array([float(value)]), draws, np.linspace(value - 1, value + 1, 20)[None] ** 3, 0.95, interval)


def test_a_second_bootstrap_in_plain_loops_gives_the_same_differences_intervals_and_p_values():
    patients, labels, a, b = drawn(0)
    labels[::7, 0] = np.nan
    difference, resamples = differences(patients, labels, a, b, PERCENTILE)
    names = sorted(set(patients))
    loops = {(k, score): [] for k in range(2) for score in range(3)}
    for draw in range(100):
        rows = []
        for number, name in enumerate(names):
            rows += [row for row in range(len(patients)) if patients[row] == name] * int(resamples.draws[number, draw])
        for k in range(2):
            known = [row for row in rows if not np.isnan(labels[row, k])]
            for score, function in enumerate((roc_auc_score, average_precision_score, brier_score_loss)):
                values = [function(labels[known, k], model[known, k]) for model in (a, b)]
                loops[k, score].append(values[1] - values[0])
    for (k, score), draws in loops.items():
        row = k * len(SCORES) + score
        assert difference.draws[row] == pytest.approx(draws, abs=1e-12)
        found = difference.estimate(row)
        assert (found.ci_low, found.ci_high) == pytest.approx(tuple(np.percentile(draws, (2.5, 97.5))), abs=1e-12)
        low = (sum(value <= 1e-12 for value in draws) + 1) / 101
        high = (sum(value >= -1e-12 for value in draws) + 1) / 101
        assert p_value(difference, row) == pytest.approx(min(1.0, 2 * min(low, high)))
    means = [(first + second) / 2 for first, second in zip(loops[0, 0], loops[1, 0], strict=True)]
    assert mean_of(difference, 0, 2).draws[0] == pytest.approx(means, abs=1e-12)


def test_the_mean_is_over_the_findings_that_have_an_auroc():
    patients, labels, a, b = drawn(1, findings=3)
    labels[:, 1] = 0.0
    difference, _ = differences(patients, labels, a, b, PERCENTILE)
    assert np.isnan(difference.point[3])
    for score in range(3):
        expected = (difference.point[score] + difference.point[6 + score]) / 2
        assert mean_of(difference, score, 3).point[0] == pytest.approx(expected)


def test_p_by_hand():
    assert p_value(replicates(1, [*range(1, 100)])) == pytest.approx(2 / 100)  # none at 0 or below, 99 resamples
    assert p_value(replicates(1, [-1, 0, *range(1, 98)])) == pytest.approx(6 / 100)  # two, and the data themselves
    assert p_value(replicates(-1, [1, 0, *range(-97, 0)])) == pytest.approx(6 / 100)
    assert p_value(replicates(0, [-1, 1] * 50)) == 1
    assert p_value(replicates(1, [np.nan] * 10 + [*range(1, 100)])) == pytest.approx(2 / 100)
    assert np.isnan(p_value(replicates(np.nan, [1.0, 2.0])))
    assert np.isnan(p_value(replicates(1, [np.nan] * 5)))


def test_p_of_the_bca_interval_by_hand():
    # Without acceleration the bounds lie at the levels Phi(2 z0 + z); at 0 that level is the share of draws below 0.
    even, draws = np.linspace(-1, 1, 21), np.arange(-19.5, 979.5)  # 999 draws, 20 of them below 0
    for share in (0.4, 0.5, 0.6):
        value = np.quantile(draws, share)
        found = Replicates(np.array([value]), draws[None], even[None], 0.95, "bca")
        z0 = norm.ppf(((draws < value).sum() + (draws == value).sum() / 2) / 999)
        assert p_value(found) == pytest.approx(2 * norm.cdf(norm.ppf(21 / 1000) - 2 * z0), abs=1e-5)
    beyond = Replicates(np.array([900.0]), draws[None] + 100, even[None], 0.95, "bca")
    assert p_value(beyond) == 2 / 1000  # the formula gives 8e-7, but 999 resamples cannot show that


@pytest.mark.parametrize("interval", ["expanded", "bca", "percentile"])
@given(seed=st.integers(0, 2**31), shift=st.floats(-2.5, 2.5), skew=st.sampled_from([0.0, 0.3, 1.0]))
@example(seed=3129398, shift=2.5, skew=1.0)  # no resample beyond 0, and a percentile far out: p is the more careful
def test_p_is_where_the_interval_begins_to_leave_out_zero(interval, seed, shift, skew):
    rng = np.random.default_rng(seed)
    draws = (rng.normal(size=2000) + skew * rng.exponential(size=2000) + shift)[None]
    found = Replicates(np.array([shift + skew]), draws, rng.gamma(2, size=(1, 60)), 0.95, interval)
    p = p_value(found)
    assert 2 / 2001 <= p <= 1

    def holds_zero(alpha):
        shown = dataclasses.replace(found, confidence=1 - alpha).estimate()
        return shown.ci_low <= 0 <= shown.ci_high

    if p < 0.8:
        assert not holds_zero(1.02 * p + 1e-4)
    beyond = min((draws <= 0).sum(), (draws >= 0).sum())
    if p > 0.02 and beyond >= 5:  # nearer to 0, or further out, one resample more or less is much
        assert holds_zero(0.8 * p - 0.004)


def test_swapping_the_models_turns_the_signs_and_keeps_p():
    for interval in ("expanded", "bca", "percentile"):
        params = EvaluateParams(resamples=300, seed=2, interval=interval)
        patients, labels, a, b = drawn(3)
        there, _ = differences(patients, labels, a, b, params)
        back, _ = differences(patients, labels, b, a, params)
        for row in range(len(there.point)):
            assert back.point[row] == -there.point[row]
            assert p_value(back, row) == pytest.approx(p_value(there, row), abs=1e-5)
            ends = there.estimate(row), back.estimate(row)
            assert (ends[0].ci_low, ends[0].ci_high) == pytest.approx((-ends[1].ci_high, -ends[1].ci_low), abs=1e-9)


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), interval=st.sampled_from(["expanded", "bca", "percentile"]))
def test_a_model_against_itself_has_no_difference_and_p_1(seed, interval):
    patients, labels, a, _ = drawn(seed, n_patients=8)
    difference, _ = differences(patients, labels, a, a, EvaluateParams(resamples=100, interval=interval))
    for row in np.flatnonzero(~np.isnan(difference.point)):
        found = difference.estimate(row)
        assert (found.value, found.ci_low, found.ci_high, p_value(difference, row)) == (0, 0, 0, 1)


def test_p_falls_as_the_difference_grows():
    ps = []
    for noise in (0.5, 1.5, 4.0):
        difference, _ = differences(*drawn(4, n_patients=150, findings=1, noise=noise), EvaluateParams(resamples=1000))
        ps.append(p_value(difference, 0))
    assert ps == sorted(ps, reverse=True)
    assert ps[-1] == pytest.approx(2 / 1001, abs=2e-3)


@pytest.mark.parametrize("interval", ["expanded", "bca", "percentile"])
def test_p_is_uniform_where_the_models_are_equally_good(interval):
    params = EvaluateParams(resamples=200, interval=interval)
    ps = []
    for seed in range(250):
        difference, _ = differences(*drawn(seed, n_patients=60, findings=1, noise=0.0), params)
        ps.append(p_value(difference, 0))
    # Binomial limits: three standard errors of 250 tables about the nominal share.
    for alpha in (0.05, 0.2, 0.5, 0.8):
        assert np.mean(np.array(ps) <= alpha) == pytest.approx(alpha, abs=3 * np.sqrt(alpha * (1 - alpha) / 250)), alpha


def test_holm_on_published_examples():
    # R package HDLSSkST, example of Holm(): of these seven below 0.05 the third and the seventh are rejected.
    adjusted = holm([0.50, 0.01, 0.001, 0.69, 0.02, 0.05, 0.0025])
    assert (adjusted < 0.05).tolist() == [False, False, True, False, False, False, True]
    # By hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 1 x 0.04, which may not be below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.one_of(st.floats(0.0001, 1), st.just(float("nan"))), max_size=12), st.floats(0.001, 0.5))
def test_holm_rejects_what_the_step_down_rule_rejects(p_values, alpha):
    adjusted = holm(p_values)
    left = sorted((p, k) for k, p in enumerate(p_values) if not np.isnan(p))
    rejected, m = set(), len(left)
    for step, (p, k) in enumerate(left):  # Holm 1979: stop at the first that is not below alpha / (m - step)
        if p * (m - step) > alpha:
            break
        rejected.add(k)
    assert {k for k in range(len(p_values)) if adjusted[k] <= alpha} == rejected
    known = ~np.isnan(np.array(p_values, float))
    assert np.isnan(adjusted).tolist() == (~known).tolist()
    assert (adjusted[known] >= np.array(p_values, float)[known]).all()
    assert (adjusted[known] <= np.minimum(1, m * np.array(p_values, float)[known])).all()


def test_the_estimate_of_a_difference_is_that_of_its_draws():
    patients, labels, a, b = drawn(6)
    difference, _ = differences(patients, labels, a, b, EvaluateParams(resamples=150))
    found = difference.estimate(0)
    assert found == estimate(difference.point[0], difference.draws[0], difference.jackknife[0], 0.95, "expanded")
    assert found.ci_low <= found.value <= found.ci_high
