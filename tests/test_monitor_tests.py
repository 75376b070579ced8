"""The statistics of monitoring: uniform p values, e-values that no gambler can live on, sizes by definition."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from pipeline.monitoring.betting import LEAST_P, Wealth, bh, e_bh, e_values
from pipeline.monitoring.blocks import Shares, Smooth, histograms, window_sums
from pipeline.monitoring.contrasts import mmd_p, share_p
from pipeline.monitoring.effects import latency_counts, latency_quantiles, sizes
from pipeline.monitoring.history import MOST, History
from pipeline.monitoring.scores import DEGREE, Fourier, Ranks, covariance, legendre


def test_an_e_value_pays_at_most_one_on_average_and_more_for_a_smaller_p() -> None:
    p = np.append(np.logspace(-9, -3, 4000, endpoint=False), np.linspace(1e-3, 1, 40_000))
    e = e_values(p)
    assert 0.85 < np.trapezoid(e, p) <= 1
    assert (np.diff(e) <= 1e-12).all()
    assert e_values(np.array([np.nan]))[0] == 1
    assert e_values(np.array([0.0]))[0] == e_values(np.array([LEAST_P]))[0] < 1000


@given(period=st.integers(1, 30), windows=st.integers(1, 70))
def test_wealth_stays_one_where_nothing_is_won_or_lost(period: int, windows: int) -> None:
    bets = Wealth.of(3, period)
    for window in range(windows):
        assert bets.bet(np.ones(3), window) == pytest.approx(1.0)


def test_no_gambler_reaches_twenty_in_more_than_one_of_twenty_periods() -> None:
    rng = np.random.default_rng(1)
    bets, most = Wealth.of(20_000, 100), np.zeros(20_000)
    for window in range(100):
        most = np.maximum(most, bets.bet(e_values(rng.random(20_000)), window))
    assert (most >= 20).mean() <= 0.05


def test_the_start_of_a_change_is_the_window_in_which_it_began() -> None:
    rng, bets = np.random.default_rng(2), Wealth.of(200, 200)
    for window in range(60):
        p = rng.random(200) if window < 40 else rng.random(200) * 1e-3
        bets.bet(e_values(p), window)
    assert np.median(bets.since) == 40
    assert (np.abs(bets.since - 40) <= 3).mean() > 0.9


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=12), st.floats(0.01, 0.5))
def test_e_bh_by_its_definition(values: list[float], alpha: float) -> None:
    wealth = np.array(values)
    n, ordered = len(wealth), np.sort(wealth)[::-1]
    k = max((k for k in range(1, n + 1) if ordered[k - 1] * k >= n / alpha), default=0)
    assert e_bh(wealth, alpha).sum() == k
    if k:
        assert wealth[e_bh(wealth, alpha)].min() >= ordered[k - 1]


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=12))
def test_bh_is_scipys(values: list[float]) -> None:
    p = np.array(values)
    assert bh(p) == pytest.approx(scipy.stats.false_discovery_control(p))
    with_unknown = bh(np.append(p, np.nan))
    assert with_unknown[:-1] == pytest.approx(bh(p))
    assert np.isnan(with_unknown[-1])


def test_legendre_polynomials_are_orthonormal() -> None:
    points, weights = np.polynomial.legendre.leggauss(20)
    features = legendre((points + 1) / 2)
    assert np.einsum("ni,nj,n->ij", features, features, weights / 2) == pytest.approx(np.eye(DEGREE))


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=200))
def test_ranks_of_a_small_reference_are_its_middle_ranks(values: list[int]) -> None:
    column = np.array(values, np.float64)[:, None]
    expected = (scipy.stats.rankdata(column[:, 0]) - 0.5) / len(values)
    assert Ranks.of(column)(column)[:, 0] == pytest.approx(expected)
    assert Ranks.of(column)(np.array([[-99.0], [99.0], [np.nan]]))[:, 0].tolist()[:2] == [0.0, 1.0]


def test_covariance_knows_of_patients() -> None:
    rng = np.random.default_rng(3)
    one_each = rng.standard_normal((500, 2))
    assert covariance(one_each, np.arange(500)) == pytest.approx(np.cov(one_each.T), rel=1e-9)
    films = np.repeat(one_each, 4, axis=0)  # four equal films of each patient say as much as one
    assert covariance(films, np.repeat(np.arange(500), 4)) == pytest.approx(4 * np.cov(one_each.T), rel=1e-9)


def windows_of(rng: np.random.Generator, n: int, alike: float, films: int) -> tuple[np.ndarray, np.ndarray]:
    people = rng.standard_normal((n // films + 1, 1)).repeat(films, axis=0)[:n]
    values = np.sqrt(alike) * people + np.sqrt(1 - alike) * rng.standard_normal((n, 1))
    return values, np.arange(n) // films


@pytest.mark.parametrize(("alike", "films"), [(0.0, 1), (0.6, 3), (0.9, 6)])
def test_smooth_p_values_are_not_too_small_whatever_a_patients_films_share(alike: float, films: int) -> None:
    rng, found = np.random.default_rng(4), []
    for _ in range(25):
        smooth = Smooth.of(*windows_of(rng, 900, alike, films), 60, 1)
        values, _ = windows_of(rng, 60 * 50, alike, films)
        found.append(smooth.judge(values, np.arange(0, 3000, 60), 20)[0])
    p = np.concatenate(found)
    assert (p <= 0.05).mean() <= 0.06
    assert (p <= 0.001).mean() <= 0.004
    assert (p <= 0.5).mean() > 0.35  # nor useless


def test_a_share_is_judged_at_least_as_carefully_as_by_fishers_exact_test() -> None:
    for hits, n, before, before_n in ((9, 50, 40, 700), (0, 50, 100, 700), (3, 50, 0, 700), (20, 50, 140, 700)):
        p = share_p(*(np.array([[float(x)]]) for x in (hits, n, before, before_n)), np.ones(1))[0, 0]
        drawn = scipy.stats.hypergeom(n + before_n, hits + before, n)
        assert p >= 2 * min(drawn.cdf(hits), drawn.sf(hits - 1)) * 0.999 or p == 1
    clustered = Shares.of(np.repeat([[0.0], [1.0], [0.0]], 4, axis=0), np.repeat([0, 1, 2], 4), 1.0)
    assert clustered.effect[0] > 3  # four equal films of a patient count as one


def test_mmd_p_values_are_those_of_the_weighted_chi_squares() -> None:
    rng, eigenvalues = np.random.default_rng(5), 0.8 ** np.arange(30)
    squares = rng.standard_normal((100_000, 30)) ** 2 @ eigenvalues
    p = mmd_p(np.sqrt(squares)[:, None], np.ones(len(squares)), eigenvalues)
    for level in (0.1, 0.01, 0.001):
        assert (p <= level).mean() == pytest.approx(level, rel=0.15 if level > 0.001 else 0.4)


def test_fourier_features_give_the_gaussian_kernel() -> None:
    rng = np.random.default_rng(6)
    sketch = rng.standard_normal((300, 16))
    fourier = Fourier.of(sketch, 1)
    features = fourier(sketch)
    white = (sketch - sketch.mean(axis=0)) / sketch.std(axis=0)
    distances = ((white[:, None] - white) ** 2).sum(axis=2)
    width = np.median(np.sqrt(distances[np.triu_indices(300, 1)]))
    assert np.abs(features @ features.T - np.exp(-distances / (2 * width**2))).mean() < 0.15


@given(st.lists(st.integers(0, 50), min_size=4, max_size=4), st.lists(st.integers(0, 50), min_size=4, max_size=4))
def test_sizes_by_their_definitions(before: list[int], after: list[int]) -> None:
    found = sizes(np.array(before), np.array(after))
    if not sum(before) or not sum(after):
        assert all(np.isnan(value) for value in found.values())
        return
    samples = [np.repeat(np.arange(4), counts) for counts in (before, after)]
    assert found["ks"] == pytest.approx(scipy.stats.ks_2samp(*samples, method="asymp").statistic)
    assert found["js"] == pytest.approx(jensenshannon(before, after, 2) ** 2, abs=1e-9)
    assert found["psi"] >= 0


def test_latency_quantiles_are_within_a_bin_of_the_exact_ones() -> None:
    times = np.random.default_rng(7).lognormal(2, 1, (5000, 1))
    counts = latency_counts(times, np.array([0]))[0, 0]
    assert latency_quantiles(counts) == pytest.approx(np.quantile(times, [0.5, 0.95, 0.99]), rel=0.04)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=12))
def test_history_keeps_every_sum_in_few_segments(blocks: list[int]) -> None:
    history, first = History(), 0
    for size in blocks:
        numbers = np.arange(first, first + size, dtype=np.float64)
        history.add({"x": np.ones((size, 2)), "n": numbers}, first, numbers, numbers + 0.5)
        first += size
    assert len(history) <= MOST
    assert history.sums["x"].sum() == 2 * first
    assert history.sums["n"].sum() == sum(range(first))
    assert history.end[-1] == first - 0.5
    assert history.since(0, "x").tolist() == [first, first]
    assert history.time_of(first - 1) <= first - 1


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_sums_of_windows_are_numpys(lengths: list[int]) -> None:
    starts = np.cumsum([0, *lengths[:-1]])
    values = np.random.default_rng(8).random((sum(lengths), 3))
    assert window_sums(values, starts) == pytest.approx(np.add.reduceat(values, starts, axis=0))
    counts = histograms(values, starts)
    assert counts.sum(axis=2).tolist() == [[length] * 3 for length in lengths]
