"""Curves: scikit-learn's, bands from the same resamples made image by image, and reliability by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from pipeline.params import EvaluateParams
from pipeline.statistics import curves
from pipeline.statistics.bootstrap import resample
from pipeline.statistics.curves import RECALL_GRID, ROC_GRID, pr_table, reliability_table, roc_table
from pipeline.statistics.probability import SCORES, probability_statistic

PARAMS = EvaluateParams(resamples=120, seed=3)
N = 24
FINE = np.linspace(0, 1, 4001)


def one_each(n):
    return np.char.zfill(np.arange(n).astype(str), 4)


def sklearn_tpr(labels, outputs, weights=None):
    fpr, tpr, _ = roc_curve(labels, outputs, sample_weight=weights, drop_intermediate=False)
    return np.interp(ROC_GRID, fpr, tpr)


def sklearn_precision(labels, outputs, weights=None, grid=RECALL_GRID):
    """Return the precision at the highest threshold that reaches each recall, threshold by threshold."""
    precision, recall, _ = precision_recall_curve(labels, outputs, sample_weight=weights)
    points = list(zip(recall[-2::-1], precision[-2::-1], strict=True))  # highest threshold first, without (0, 1)
    reached = np.maximum(grid, 1e-9) - 1e-12
    return np.array([next(p for r, p in points if r >= wanted) for wanted in reached])


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(4)
    labels = (rng.random((300, 3)) < [0.3, 0.1, 0.0]).astype(float)
    labels[rng.random((300, 3)) < 0.1] = np.nan
    labels[labels[:, 2] == 1, 2] = 0
    outputs = np.round(1 / (1 + np.exp(-rng.normal(1.5 * np.nan_to_num(labels) - 1, 1))), 2)
    return labels, outputs, resample(rng.integers(0, 90, 300).astype(str), labels, PARAMS)


NAMES = ["Mass", "Edema", "Hernia"]


@settings(max_examples=100, deadline=None)
@given(
    labels=hnp.arrays(np.float64, N, elements=st.sampled_from([0.0, 1.0, np.nan])),
    outputs=hnp.arrays(np.float32, N, elements=st.integers(0, 8).map(lambda v: v / 8)),
    patients=hnp.arrays(np.int64, N, elements=st.integers(0, 9)),
    weights=hnp.arrays(np.float64, (10, 2), elements=st.integers(0, 4).map(float)),
)
def test_scikit_learn_with_sample_weights(labels, outputs, patients, weights):
    resamples = resample(patients, labels[:, None], PARAMS)
    weights = weights[: resamples.n_patients]
    roc, pr = (
        curves.curve_statistic(labels, outputs, resamples, grid, heights)(weights)
        for grid, heights in ((ROC_GRID, curves.tpr_at), (RECALL_GRID, curves.precision_at))
    )
    for draw in range(2):
        of_image = weights[resamples.patient, draw]
        used = ~np.isnan(labels) & (of_image > 0)
        if len(np.unique(labels[used])) < 2:
            assert np.isnan(roc[:, draw]).all()
            assert np.isnan(pr[:, draw]).all()
            continue
        arguments = labels[used], outputs[used], of_image[used]
        assert roc[:, draw] == pytest.approx(sklearn_tpr(*arguments), abs=1e-12)
        assert pr[:, draw] == pytest.approx(sklearn_precision(*arguments), abs=1e-12)


def test_roc_by_hand():
    # Highest first: positive, negative, positive, negative. One half is found before the first false alarm, all
    # before the second.
    labels, outputs = np.array([[1.0], [0], [1], [0]]), np.array([[0.9], [0.8], [0.7], [0.6]])
    found = roc_table(labels, outputs, ["Mass"], resample(one_each(4), labels, PARAMS))
    assert found.iloc[0].tolist() == ["Mass", 0, 0, 0, 0]
    rest = found.iloc[1:]
    assert rest["fpr"].tolist() == ROC_GRID.tolist()
    assert set(rest.loc[rest["fpr"] < 0.5, "tpr"]) == {0.5}
    assert set(rest.loc[rest["fpr"] >= 0.5, "tpr"]) == {1.0}


def test_precision_recall_by_hand():
    labels, outputs = np.array([[0.0], [1], [0], [1]]), np.array([[0.9], [0.8], [0.7], [0.6]])
    found = pr_table(labels, outputs, ["Mass"], resample(one_each(4), labels, PARAMS))
    assert found["recall"].tolist() == RECALL_GRID.tolist()
    assert set(found["precision"]) == {0.5}
    labels = 1 - labels  # found at the top: precision 1 up to recall 1/2, then 2/3
    found = pr_table(labels, outputs, ["Mass"], resample(one_each(4), labels, PARAMS))
    assert found.loc[found["recall"] <= 0.5, "precision"].tolist() == [1.0] * 51
    assert found.loc[found["recall"] > 0.5, "precision"].tolist() == pytest.approx([2 / 3] * 50)


def test_areas_under_the_fine_curves(data):
    labels, outputs, resamples = data
    known = ~np.isnan(labels[:, 0])
    y, p = labels[known, 0], outputs[known, 0]
    ones = np.ones((resamples.n_patients, 1))
    tpr, precision = (
        curves.curve_statistic(labels[:, 0], outputs[:, 0], resamples, FINE, heights)(ones)[:, 0]
        for heights in (curves.tpr_at, curves.precision_at)
    )
    assert np.trapezoid(tpr, FINE) == pytest.approx(roc_auc_score(y, p), abs=0.001)
    assert precision[1:].mean() == pytest.approx(average_precision_score(y, p), abs=0.002)


def test_bands_are_quantiles_of_the_resamples_made_image_by_image(data):
    labels, outputs, resamples = data
    roc, pr = (make(labels, outputs, NAMES, resamples) for make in (roc_table, pr_table))
    for k, name in enumerate(NAMES[:2]):
        heights = []
        for draw in resamples.draws.T:
            image = np.repeat(np.arange(300), draw[resamples.patient])
            image = image[~np.isnan(labels[image, k])]
            both = [curve(labels[image, k], outputs[image, k]) for curve in (sklearn_tpr, sklearn_precision)]
            heights.append(np.concatenate(both))
        low, high = np.quantile(heights, (0.025, 0.975), axis=0)
        ours = [table[table["finding"] == name] for table in (roc, pr)]
        ours[0] = ours[0].iloc[1:]  # after the row at (0, 0)
        assert np.concatenate([ours[0]["tpr_low"], ours[1]["precision_low"]]) == pytest.approx(low, abs=1e-12)
        assert np.concatenate([ours[0]["tpr_high"], ours[1]["precision_high"]]) == pytest.approx(high, abs=1e-12)


def test_bands_hold_the_curve_and_rise_with_it(data):
    labels, outputs, resamples = data
    roc, pr = (make(labels, outputs, NAMES, resamples) for make in (roc_table, pr_table))
    for table, height in ((roc, "tpr"), (pr, "precision")):
        assert table["finding"].unique().tolist() == NAMES[:2]  # Hernia has no positive image
        assert not table.isna().any().any()
        values = table[[f"{height}_low", height, f"{height}_high"]].to_numpy(float)
        assert ((values >= 0) & (values <= 1)).all()
        assert (values[:, 0] <= values[:, 2]).all()
        inside = (values[:, 0] <= values[:, 1] + 1e-12) & (values[:, 1] <= values[:, 2] + 1e-12)
        assert inside.mean() > 0.95
    for _, curve in roc.groupby("finding"):
        assert (np.diff(curve[["fpr", "tpr", "tpr_low", "tpr_high"]].to_numpy(), axis=0) >= -1e-12).all()
        assert len(curve) == len(ROC_GRID) + 1 <= 300


def test_pieces_of_any_size_give_the_same(data, monkeypatch):
    labels, outputs, resamples = data
    whole = roc_table(labels, outputs, NAMES, resamples)
    monkeypatch.setattr(curves, "_CHUNK_VALUES", 700)
    pieces = roc_table(labels, outputs, NAMES, resamples)
    assert pieces["tpr_low"].to_numpy() == pytest.approx(whole["tpr_low"].to_numpy(), abs=1e-12)


def test_tables_without_a_curve_keep_their_columns(data):
    _, outputs, resamples = data
    nothing = np.full_like(outputs, np.nan)
    assert list(roc_table(nothing, outputs, NAMES, resamples)) == ["finding", "fpr", "tpr", "tpr_low", "tpr_high"]
    found = pr_table(nothing, outputs, NAMES, resamples)
    assert (len(found), list(found)) == (0, ["finding", "recall", "precision", "precision_low", "precision_high"])
    found = reliability_table(nothing, outputs, outputs, NAMES, resamples, 10)
    assert len(found) == 0
    assert list(found) == [
        "finding", "calibrated", "bin", "forecast", "observed", "observed_low", "observed_high", "images",
    ]  # fmt: skip


def test_reliability_by_hand():
    labels = np.array([0.0, 0, 1, 0, 1, 1, 0, 1, np.nan])[:, None]
    raw = np.array([0.1, 0.1, 0.2, 0.2, 0.7, 0.8, 0.7, 0.8, 0.9])[:, None]
    resamples = resample(one_each(9), labels, PARAMS)
    found = reliability_table(labels, raw, np.full_like(raw, 0.5), ["Mass"], resamples, 2)
    assert found["calibrated"].tolist() == ["raw", "raw", "calibrated"]
    assert found["bin"].tolist() == [0, 1, 0]
    assert found["forecast"].to_numpy() == pytest.approx([0.15, 0.75, 0.5])
    assert found["observed"].to_numpy() == pytest.approx([1 / 4, 3 / 4, 1 / 2])
    assert found["images"].tolist() == [4, 4, 8]


def test_reliability_is_what_the_calibration_error_is_made_of(data):
    labels, outputs, resamples = data
    found = reliability_table(labels, outputs, outputs**2, NAMES, resamples, 10)
    assert found["finding"].unique().tolist() == NAMES  # a finding without a positive has a share: 0
    for k, name in enumerate(NAMES):
        known = int((~np.isnan(labels[:, k])).sum())
        for kind, p in (("raw", outputs[:, k]), ("calibrated", outputs[:, k] ** 2)):
            rows = found[(found["finding"] == name) & (found["calibrated"] == kind)]
            assert rows["images"].sum() == known
            assert rows["forecast"].is_monotonic_increasing
            scores = probability_statistic(labels[:, k], p, resamples, 10)(np.ones((resamples.n_patients, 1)))[:, 0]
            gap = (rows["images"] * (rows["forecast"] - rows["observed"]).abs()).sum() / known
            assert gap == pytest.approx(scores[SCORES.index("ece")])
    assert (found["observed_low"] <= found["observed"]).all()
    assert (found["observed"] <= found["observed_high"]).all()


def test_a_bin_of_one_class_never_has_an_interval_without_width():
    labels = np.zeros((40, 1))
    labels[38:] = 1
    outputs = np.arange(40.0)[:, None] / 40
    patients = np.concatenate([np.arange(20) // 2, 50 + np.arange(20)]).astype(str)  # ten patients in the lower bin
    found = reliability_table(labels, outputs, outputs, ["Mass"], resample(patients, labels, PARAMS), 2)
    lower = found.iloc[0]
    assert (lower["observed"], lower["observed_low"], lower["images"]) == (0, 0, 20)
    assert lower["observed_high"] == pytest.approx(binomtest(0, 10).proportion_ci(0.95, method="exact").high)
    assert found.iloc[1]["observed_low"] < 0.1 < found.iloc[1]["observed_high"]
