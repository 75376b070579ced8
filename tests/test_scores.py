"""The main table: counts, what is undefined, and intervals against what a bootstrap of patients must do."""

import numpy as np
import pytest

from pipeline.metrics import macro_auroc
from pipeline.params import EvaluateParams
from pipeline.statistics.bootstrap import resample
from pipeline.statistics.scores import score_findings

PARAMS = EvaluateParams(resamples=400, confidence=0.95, seed=3)


def score(labels, probabilities, patients, findings=("Mass",), params=PARAMS):
    return score_findings(labels, probabilities, list(findings), resample(patients, labels, params), params)


def test_undefined_is_nan_and_named():
    labels = np.array([[1, 0], [0, 0], [1, 0], [0, 0.0]])
    scores = np.random.default_rng(0).random((4, 2))
    result = score(labels, scores, np.array(["a", "b", "c", "d"]), ["Mass", "Hernia"])
    assert np.isnan(result["findings"]["Hernia"]["auc"])
    assert np.isnan(result["findings"]["Hernia"]["ci_low"])
    assert result["macro"]["undefined"] == "Hernia"
    assert result["macro"]["n_findings"] == 1
    assert macro_auroc(labels, scores) == result["findings"]["Mass"]["auc"] == result["macro"]["auc"]
    assert result["findings"]["Mass"]["n_resamples"] == PARAMS.resamples  # the strata keep both classes in each draw


def _cohort(images_per_patient: int):
    rng = np.random.default_rng(5)
    labels = np.repeat(rng.integers(0, 2, 120), images_per_patient).astype(float)
    scores = np.repeat(rng.normal(size=120), images_per_patient) + labels
    patients = np.repeat([f"p{n}" for n in range(120)], images_per_patient)
    return labels[:, None], 1 / (1 + np.exp(-scores[:, None])), patients


def test_copies_of_an_image_do_not_narrow_the_interval():
    # Four identical images of each patient say no more than one: the bootstrap of patients must not be fooled.
    one, four = (score(*_cohort(n))["findings"]["Mass"] for n in (1, 4))
    assert four["auc"] == pytest.approx(one["auc"])
    assert (four["ci_low"], four["ci_high"]) == pytest.approx((one["ci_low"], one["ci_high"]))


def test_interval_is_close_to_hanley_mcneil():
    # Hanley and McNeil 1982, equation 1, for independent images.
    labels, scores, patients = _cohort(1)
    row = score(labels, scores, patients, params=EvaluateParams(resamples=2000))["findings"]["Mass"]
    a, n1, n0 = row["auc"], row["n_positive"], row["n_negative"]
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = np.sqrt((a * (1 - a) + (n1 - 1) * (q1 - a * a) + (n0 - 1) * (q2 - a * a)) / (n1 * n0))
    assert row["ci_high"] - row["ci_low"] == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_same_seed_same_interval_and_order_of_rows_does_not_matter():
    labels, scores, patients = _cohort(2)
    order = np.random.default_rng(0).permutation(len(labels))
    first = score(labels, scores, patients)
    again = score(labels[order], scores[order], patients[order])
    for key in ("auc", "ci_low", "ci_high", "average_precision"):
        assert again["macro"][key] == pytest.approx(first["macro"][key], abs=1e-12)


def test_the_calibration_error_lies_in_its_interval_and_chance_is_what_a_calibrated_model_shows():
    # Resampling raises a calibration error; an interval of its plain draws would lie above the score itself.
    rng = np.random.default_rng(0)
    errors, chances = [], []
    for _ in range(40):
        probabilities = rng.uniform(0.02, 0.6, (400, 1))
        labels = (rng.random((400, 1)) < probabilities).astype(float)
        row = score(labels, probabilities, np.arange(400).astype(str))["findings"]["Mass"]
        assert row["ece_ci_low"] <= row["ece"] <= row["ece_ci_high"]
        errors.append(row["ece"])
        chances.append(row["ece_chance"])
    assert np.mean(chances) == pytest.approx(np.mean(errors), rel=0.08)
