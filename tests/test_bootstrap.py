"""The bootstrap of patients: SciPy's intervals from the same resamples, hand-worked sums, and what must not change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from pipeline.params import EvaluateParams
from pipeline.statistics import bootstrap
from pipeline.statistics.bootstrap import (
    VANISHING,
    column_means,
    divide,
    patient_sums,
    replicate,
    resample,
    stack,
    strata_of,
)
from pipeline.statistics.intervals import bca_levels, estimate

PARAMS = EvaluateParams(resamples=500, seed=3)
LABELS = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 25), st.integers(1, 4)), elements=st.sampled_from([0.0, 1.0, np.nan])
)


def mean_of(values, resamples):
    """Return the statistic of one score, the mean over images."""
    sums = patient_sums(np.column_stack([values, np.ones(len(values))]), resamples)
    return lambda weights: divide(*(sums @ weights))[None]


def unlabelled(n):
    return np.full((n, 1), np.nan)


@pytest.fixture(scope="module")
def skewed():
    return np.random.default_rng(5).lognormal(size=60)


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_intervals_are_scipys_for_the_same_resamples(skewed, method):
    theirs = stats.bootstrap((skewed,), np.mean, n_resamples=3000, method=method, rng=np.random.default_rng(1))
    without = np.array([np.delete(skewed, k).mean() for k in range(len(skewed))])
    ours = estimate(skewed.mean(), theirs.bootstrap_distribution, without, 0.95, "bca")
    bounds = (ours.percentile_low, ours.percentile_high) if method == "percentile" else (ours.bca_low, ours.bca_high)
    assert bounds == pytest.approx(tuple(theirs.confidence_interval), abs=1e-12)


def test_intervals_from_our_own_resamples_are_close_to_scipys(skewed):
    resamples = resample(np.arange(60).astype(str), unlabelled(60), EvaluateParams(resamples=20_000, seed=3))
    ours = replicate(mean_of(skewed[np.argsort(np.arange(60).astype(str))], resamples), resamples)
    theirs = stats.bootstrap((skewed,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1))
    found = ours.estimate()
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    assert found.value == pytest.approx(skewed.mean())
    assert (found.bca_low, found.bca_high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.03 * width)


def test_bca_of_a_score_that_never_changes_is_that_score():
    found = estimate(0.75, np.full(200, 0.75), np.full(20, 0.75), 0.95, "bca")
    bounds = (found.ci_low, found.ci_high, found.percentile_low, found.percentile_high, found.bca_low, found.bca_high)
    assert bounds == (0.75,) * 6
    assert bca_levels(0.75, np.full(200, 0.75), np.full(20, 0.75), 0.95) == pytest.approx([0.025, 0.975])


def test_the_parameter_chooses_the_interval(skewed):
    draws = np.random.default_rng(0).choice(skewed, (400, 60)).mean(axis=1)
    bca, percentile = (estimate(skewed.mean(), draws, skewed, 0.9, kind) for kind in ("bca", "percentile"))
    assert (bca.ci_low, bca.ci_high) == (bca.bca_low, bca.bca_high)
    assert (percentile.ci_low, percentile.ci_high) == (bca.percentile_low, bca.percentile_high)
    assert bca.bca_low != bca.percentile_low


def test_undefined_is_nan_and_counted():
    nothing = estimate(float("nan"), np.array([0.1, 0.2]), np.array([0.1]), 0.95, "bca")
    assert np.isnan([nothing.value, nothing.ci_low, nothing.ci_high]).all()
    assert nothing.n_resamples == 0
    never = estimate(0.5, np.full(9, np.nan), np.array([0.5]), 0.95, "bca")
    assert np.isnan(never.ci_low)
    assert never.n_resamples == 0
    some = estimate(0.5, np.array([np.nan, 0.4, 0.6, np.nan, 0.5]), np.array([0.5, np.nan]), 0.95, "percentile")
    assert some.n_resamples == 3
    assert 0.4 <= some.ci_low <= some.ci_high <= 0.6


def test_the_expanded_interval_is_wider_than_the_percentiles_as_students_t_is():
    rng = np.random.default_rng(2)
    normal = rng.normal(size=12)
    draws = rng.choice(normal, (20_000, 12)).mean(axis=1)
    without = (normal.sum() - normal) / 11
    found = estimate(normal.mean(), draws, without, 0.95, "expanded")
    assert (found.ci_low, found.ci_high) == (found.expanded_low, found.expanded_high)
    # The textbook's interval of twelve normal values; the resamples' own standard deviation has 12, not 11, below it.
    low, high = stats.t.interval(0.95, 11, normal.mean(), stats.sem(normal))
    plain = found.percentile_high - found.percentile_low
    assert plain < 0.9 * (high - low)
    assert found.expanded_high - found.expanded_low == pytest.approx(high - low, rel=0.1)


def test_names_of_the_file():
    found = estimate(0.5, np.array([0.4, 0.6]), np.array([0.5]), 0.95, "bca")
    assert set(found.as_dict("auc")) == {
        *("auc", "ci_low", "ci_high", "expanded_low", "expanded_high", "percentile_low", "percentile_high"),
        *("bca_low", "bca_high", "n_resamples"),
    }
    assert found.as_dict("brier")["brier_ci_low"] == found.ci_low
    assert found.as_dict("brier")["brier"] == 0.5


def test_patient_sums_by_hand():
    resamples = resample(np.array(["b", "a", "b"]), unlabelled(3), PARAMS)
    sums = patient_sums(np.array([[1.0, 10], [2, 20], [4, 40]]), resamples)
    assert sums.tolist() == [[2, 5], [20, 50]]  # patient a, patient b
    assert (sums @ np.array([[2.0], [0]])).tolist() == [[4], [40]]


def test_whole_patients_are_drawn_as_many_as_there_are():
    patients = np.array(["c", "a", "a", "b", "c", "c"])
    resamples = resample(patients, unlabelled(6), PARAMS)
    assert resamples.patient.tolist() == [2, 0, 0, 1, 2, 2]
    assert resamples.draws.shape == (3, PARAMS.resamples)
    assert (resamples.draws.sum(axis=0) == 3).all()
    # A patient of three is drawn as often as the binomial distribution says.
    share = np.bincount(resamples.draws.ravel(), minlength=4) / resamples.draws.size
    assert share == pytest.approx(stats.binom.pmf(np.arange(4), 3, 1 / 3), abs=0.05)


def test_images_repeated_in_every_patient_add_no_certainty():
    rng = np.random.default_rng(2)
    patients, values = rng.integers(0, 30, 80).astype(str), rng.random(80)
    once = resample(patients, unlabelled(80), PARAMS)
    five = resample(np.repeat(patients, 5), unlabelled(400), PARAMS)
    narrow, wide = (replicate(mean_of(x, r), r).estimate() for x, r in ((np.repeat(values, 5), five), (values, once)))
    assert vars(narrow) == pytest.approx(vars(wide))


def test_order_of_the_rows_changes_nothing():
    rng = np.random.default_rng(4)
    patients, values = rng.integers(0, 20, 50).astype(str), rng.random(50)
    labels = rng.choice([0.0, 1.0, np.nan], (50, 3))
    order = rng.permutation(50)
    first, second = resample(patients, labels, PARAMS), resample(patients[order], labels[order], PARAMS)
    assert (first.draws == second.draws).all()
    assert (first.groups == second.groups).all()
    there, here = (replicate(mean_of(x, r), r).estimate() for x, r in ((values, first), (values[order], second)))
    assert vars(here) == pytest.approx(vars(there))


def test_the_seed_makes_the_draws():
    patients = np.arange(40).astype(str)
    draws = [resample(patients, unlabelled(40), EvaluateParams(resamples=100, seed=s)).draws for s in (1, 1, 2)]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()


def test_jackknife_leaves_out_one_patient_at_a_time():
    patients, values = np.array(["a", "b", "b", "c"]), np.array([1.0, 2, 6, 3])
    resamples = resample(patients, unlabelled(4), PARAMS)
    found = sorted(replicate(mean_of(values, resamples), resamples).jackknife[0])
    assert found == pytest.approx(sorted([(2 + 6 + 3) / 3, (1 + 3) / 2, (1 + 2 + 6) / 3]))


def test_jackknife_of_many_patients_leaves_out_equal_groups_of_every_stratum():
    rare = np.random.default_rng(0).permutation(1200) < 400
    resamples = resample(np.char.zfill(np.arange(1200).astype(str), 4), rare[:, None].astype(float), PARAMS)
    assert np.bincount(resamples.groups).tolist() == [3] * 400
    assert np.bincount(resamples.groups[rare]).tolist() == [1] * 400


def test_pieces_of_any_size_give_the_same(monkeypatch):
    rng = np.random.default_rng(6)
    resamples = resample(rng.integers(0, 9, 30).astype(str), unlabelled(30), PARAMS)
    statistic = mean_of(rng.random(30), resamples)
    whole = replicate(statistic, resamples)
    monkeypatch.setattr(bootstrap, "_CHUNK_VALUES", 20)
    pieces = replicate(statistic, resamples)
    assert pieces.draws == pytest.approx(whole.draws, abs=1e-15)
    assert pieces.jackknife == pytest.approx(whole.jackknife, abs=1e-15)


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, n_patients=st.integers(1, 12), seed=st.integers(0, 50))
def test_no_finding_with_a_stratum_vanishes_and_the_rarest_keeps_its_count(labels, n_patients, seed):
    patients = np.random.default_rng(seed).integers(0, n_patients, len(labels)).astype(str)
    resamples = resample(patients, labels, EvaluateParams(resamples=100, seed=seed))
    strata = strata_of(resamples.patient, resamples.n_patients, labels)
    for stratum in np.unique(strata):
        members = strata == stratum
        assert (resamples.draws[members].sum(axis=0) == members.sum()).all()
    holders = {}  # of each finding: whichever of presence and absence fewer patients have
    for k in range(labels.shape[1]):
        with_label = [np.unique(resamples.patient[labels[:, k] == value]) for value in (1, 0)]
        holders[k] = min(with_label, key=len)
    present = {k: resamples.draws[held].sum(axis=0) for k, held in holders.items()}
    assert all((present[k] >= 1).all() for k in set(strata) - {labels.shape[1]})
    rarest = min((k for k in holders if len(holders[k])), key=lambda k: len(holders[k]), default=None)
    if rarest is not None:
        assert (present[rarest] == len(holders[rarest])).all()


def test_labels_that_enough_patients_have_make_no_stratum():
    labels = np.zeros((500, 2))
    labels[:VANISHING, 0] = 1
    labels[: VANISHING - 1, 1] = 1
    patient = np.arange(500)
    strata = strata_of(patient, 500, labels)
    assert strata.tolist() == [1] * (VANISHING - 1) + [2] * (500 - VANISHING + 1)
    labels[VANISHING - 1, 1] = 1
    assert set(strata_of(patient, 500, labels)) == {2}


def test_a_single_positive_patient_is_in_every_resample():
    labels = np.zeros((500, 2))
    labels[17, 0] = 1
    labels[:200, 1] = 1
    resamples = resample(np.arange(500).astype(str), labels, EvaluateParams(resamples=2000))
    number = resamples.patient[17]
    assert (resamples.draws[number] == 1).all()


def test_mean_difference_and_stack_by_hand():
    resamples = resample(np.array(["a", "b", "c"]), unlabelled(3), PARAMS)
    first, second = (replicate(mean_of(np.array(v), resamples), resamples) for v in ([1.0, 2, 6], [1.0, 1, 1]))
    nothing = replicate(lambda weights: np.full((1, weights.shape[1]), np.nan), resamples)
    together = stack([first, second, nothing])
    assert together.point[:2].tolist() == [3, 1]
    assert together.mean().point.tolist() == [2]  # the undefined one is left out
    assert together.mean([0, 2]).point.tolist() == [3]
    assert np.isnan(together.mean([2]).point).all()
    assert together[[1]].point.tolist() == [1]
    difference = first - second
    assert difference.point.tolist() == [2]
    assert difference.draws == pytest.approx(first.draws - 1)  # paired: the second is 1 in every resample
    assert together.mean().draws == pytest.approx((first.draws + 1) / 2)


def test_paired_difference_of_equal_scores_is_zero_without_doubt():
    values = np.random.default_rng(0).random(40)
    resamples = resample(np.arange(40).astype(str), unlabelled(40), PARAMS)
    same = replicate(mean_of(values, resamples), resamples)
    found = (same - same).estimate()
    assert (found.value, found.ci_low, found.ci_high) == (0, 0, 0)


def test_divide_and_means_leave_the_undefined_nan():
    assert divide(np.array([1.0, 0, 3]), np.array([2.0, 0, 0])) == pytest.approx([0.5, np.nan, np.nan], nan_ok=True)
    means = column_means(np.array([[1.0, np.nan], [3.0, np.nan]]))
    assert means == pytest.approx([2, np.nan], nan_ok=True)
