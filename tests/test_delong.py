"""DeLong's variance and test: the 1988 definition in loops, and figures that SAS, Stata and pROC print."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score

from pipeline.statistics.delong import delong

# The ovarian cancer patients of DeLong et al. 1988 that have all three tests, as printed in the SAS/STAT manual (PROC
# LOGISTIC, "Comparing Receiver Operating Characteristic Curves"): albumin, total protein, K-G score, outcome.
OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""


def from_table(negative, positive):
    """Return labels and grades of a table with a count for each grade."""
    grades = np.concatenate([np.repeat(range(len(row)), row) for row in (negative, positive)]).astype(float)
    return np.repeat([0.0, 1.0], [sum(negative), sum(positive)]), grades


def by_definition(labels, *models):
    """Return areas and covariance as equations 2 to 5 of DeLong et al. 1988 state them, pair by pair."""
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    m, n = len(positive), len(negative)
    theta, v10, v01 = [], [], []
    for scores in models:
        psi = [[(scores[j] < scores[i]) + (scores[j] == scores[i]) / 2 for j in negative] for i in positive]
        theta.append(sum(map(sum, psi)) / (m * n))
        v10.append([sum(row) / n for row in psi])
        v01.append([sum(psi[i][j] for i in range(m)) / m for j in range(n)])
    k = range(len(models))

    def s(v, count, a, b):
        return sum((v[a][i] - theta[a]) * (v[b][i] - theta[b]) for i in range(count)) / (count - 1)

    return theta, [[s(v10, m, a, b) / m + s(v01, n, a, b) / n for b in k] for a in k]


def test_sas_prints_the_same_for_the_data_of_the_paper():
    rows = np.array(OVARIAN.split(), float).reshape(-1, 4)
    labels, models = rows[:, 3], {"albumin": rows[:, 0], "k-g": -rows[:, 2], "protein": rows[:, 1]}
    found = delong(labels, *models.values())
    assert found.auroc == pytest.approx([0.7366, 0.7258, 0.6478], abs=5e-5)
    assert np.sqrt(np.diag(found.covariance)) == pytest.approx([0.0927, 0.1028, 0.1000], abs=5e-5)
    assert found.interval(0, 0.95) == pytest.approx((0.5549, 0.9182), abs=5e-5)
    assert found.interval(1, 0.95) == pytest.approx((0.5243, 0.9273), abs=5e-5)
    assert found.interval(2, 0.95) == pytest.approx((0.4518, 0.8439), abs=5e-5)
    assert delong(labels, models["albumin"], models["k-g"]).p_value() == pytest.approx(0.9102, abs=5e-5)
    assert delong(labels, models["protein"], models["k-g"]).p_value() == pytest.approx(0.4561, abs=5e-5)


def test_stata_prints_the_same_for_the_ratings_of_hanley_and_mcneil():
    # Stata manual, roctab: 109 CT images; area 0.8932, standard error 0.0307, interval 0.83295 to 0.95339.
    found = delong(*from_table([33, 6, 6, 11, 2], [3, 2, 2, 11, 33]))
    assert found.auroc[0] == pytest.approx(0.8932, abs=5e-5)
    assert found.interval(0, 0.95) == pytest.approx((0.83295, 0.95339), abs=5e-6)


def test_proc_computes_the_same_for_its_own_data():
    # pROC (Robin et al., BMC Bioinformatics 2011;12:77), data aSAH: WFNS grades 1 to 5 of 72 patients with a good
    # outcome and 41 with a poor one; area and variance as its tests state them.
    found = delong(*from_table([37, 20, 3, 8, 4], [2, 12, 1, 8, 18]))
    assert found.auroc[0] == pytest.approx(0.823678861788618, abs=1e-12)
    assert found.covariance[0, 0] == pytest.approx(0.00146991470882363, abs=1e-14)


@settings(max_examples=60, deadline=None)
@given(
    labels=hnp.arrays(np.float64, 16, elements=st.sampled_from([0.0, 1.0, np.nan])),
    models=hnp.arrays(np.float64, (2, 16), elements=st.integers(0, 6).map(lambda v: v / 6)),
)
def test_the_definition_pair_by_pair(labels, models):
    found = delong(labels, *models)
    counts = [(labels == value).sum() for value in (1, 0)]
    if min(counts) == 0:
        assert np.isnan(found.auroc).all()
    elif min(counts) == 1:
        assert np.isnan(found.covariance).all()
    else:
        theta, covariance = by_definition(labels, *models)
        assert found.auroc == pytest.approx(theta, abs=1e-12)
        assert found.covariance == pytest.approx(np.array(covariance), abs=1e-12)
        known = ~np.isnan(labels)
        assert found.auroc[0] == pytest.approx(roc_auc_score(labels[known], models[0][known]), abs=1e-12)


def test_ranks_alone_count_and_the_complement_has_the_same_variance():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 60).astype(float), rng.random(60)
    found, stretched, turned = delong(labels, scores), delong(labels, np.exp(9 * scores)), delong(labels, -scores)
    assert stretched.covariance == pytest.approx(found.covariance, abs=1e-15)
    assert turned.auroc == pytest.approx(1 - found.auroc)
    assert turned.covariance == pytest.approx(found.covariance, abs=1e-15)


def test_without_a_variance_interval_and_p_value_are_undefined():
    for labels in ([1.0, 0, 0, 0], [0.0, 0, 0, 0]):
        found = delong(np.array(labels), np.arange(4.0), np.arange(4.0))
        assert np.isnan(found.interval(0, 0.95)).all()
        assert np.isnan(found.p_value())
    apart = delong(np.array([0.0, 0, 1, 1]), np.arange(4.0), np.arange(4.0))
    assert np.isnan(apart.p_value())


def test_the_interval_stays_between_0_and_1():
    low, high = delong(np.array([0.0, 1, 0, 1, 1]), np.array([1.0, 2, 3, 4, 5])).interval(0, 0.95)
    assert 0 <= low < high == 1
