"""Calibrators: scikit-learn's fits, known distortions recovered, an honest choice, and maps that stay monotone."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit, logit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.params import EvaluateParams
from pipeline.statistics.calibration import FOLDS, MIN_PATIENTS, apply_all, choose, fit, fit_all, folds_of
from pipeline.statistics.calibrators import EPSILON, FITTERS, METHODS, apply, log_loss

PARAMS = EvaluateParams(seed=3)
GRID = np.concatenate([[0.0, 1e-300, 1e-12], np.linspace(0, 1, 501), [1 - 1e-12, 1.0]])
GRID.sort()


def forced(method):
    return EvaluateParams(seed=3, calibration=method)


def drawn(n, distort, *, seed=0, spread=1.5, middle=-1.0):
    """Return labels drawn from true probabilities, the probabilities that a model would state, one patient each."""
    rng = np.random.default_rng(seed)
    truth = expit(rng.normal(middle, spread, n))
    labels = (rng.random(n) < truth).astype(float)
    return labels, distort(truth), np.char.zfill(np.arange(n).astype(str), 6)


def by_scikit_learn(method, labels, outputs):
    """Fit scikit-learn's calibrator to outputs, through a classifier whose decision function is their logit."""
    classifier = LogisticRegression().fit([[-1.0], [1.0]], [0, 1])
    classifier.coef_, classifier.intercept_ = np.array([[1.0]]), np.array([0.0])
    model = CalibratedClassifierCV(FrozenEstimator(classifier), method=method).fit(logit(outputs)[:, None], labels)
    return model.predict_proba(logit(np.linspace(0.01, 0.99, 99))[:, None])[:, 1]


@pytest.mark.parametrize(("ours", "theirs"), [("temperature", "temperature"), ("platt", "sigmoid")])
def test_scikit_learn_fits_the_same(ours, theirs):
    labels, outputs, _ = drawn(800, lambda p: expit(logit(p) / 2 + 0.7))
    fitted = {"method": ours, "parameters": FITTERS[ours](labels, outputs)}
    assert apply(fitted, np.linspace(0.01, 0.99, 99)) == pytest.approx(
        by_scikit_learn(theirs, labels, outputs), abs=2e-4
    )


def test_isotonic_by_hand():
    # Pool-adjacent-violators: the pair 1, 0 becomes 1/2, 1/2; the 1s after it are held at (3 + 1) / (3 + 2).
    fitted = {"method": "isotonic", "parameters": FITTERS["isotonic"](np.array([1.0, 0, 1, 1]), np.arange(1, 5) / 10)}
    assert apply(fitted, np.array([0.0, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 1.0])) == pytest.approx(
        [0.5, 0.5, 0.5, 0.5, 0.65, 0.8, 0.8, 0.8]
    )


def test_log_loss_by_hand():
    assert log_loss(np.array([1.0, 0]), np.array([0.5, 0.75])) == pytest.approx([np.log(2), np.log(4)])
    # A wrong and certain output costs 24 ln 2, not infinity.
    assert log_loss(np.array([1.0, 0]), np.array([0.0, 1.0])) == pytest.approx([24 * np.log(2)] * 2)
    assert np.float32(1 - EPSILON) == np.nextafter(np.float32(1), np.float32(0))


@pytest.mark.parametrize(
    ("expected", "distort"),
    [
        ("none", lambda p: p),
        ("temperature", lambda p: expit(logit(p) / 3)),
        ("platt", lambda p: expit(logit(p) / 3 + 1)),
        ("isotonic", lambda p: np.where(p < 0.4, p * 0.2, 0.9 + 0.1 * p)),
    ],
)
def test_the_distortion_is_recognised_and_undone(expected, distort):
    labels, outputs, patients = drawn(6000, distort)
    fitted = fit(labels, outputs, patients, PARAMS)
    assert fitted["method"] == expected
    assert fitted["note"] == ""
    if expected in ("temperature", "platt"):
        truth = np.array([0.05, 0.2, 0.5, 0.8])
        assert apply(fitted, distort(truth)) == pytest.approx(truth, abs=0.02)
    if expected == "temperature":
        assert fitted["parameters"]["temperature"] == pytest.approx(1 / 3, rel=0.1)
    if expected == "platt":
        assert fitted["parameters"]["slope"] == pytest.approx(3, rel=0.1)
        assert fitted["parameters"]["intercept"] == pytest.approx(-3, rel=0.1)


def test_small_samples_do_not_choose_isotonic_for_noise():
    labels, outputs, patients = drawn(120, lambda p: p, seed=11)
    fitted = fit(labels, outputs, patients, PARAMS)
    assert fitted["method"] == "none"
    inside = {"method": "isotonic", "parameters": FITTERS["isotonic"](labels, outputs)}
    # On the images it was fitted to, isotonic always looks better; on held-out patients it does not.
    assert log_loss(labels, apply(inside, outputs)).mean() < log_loss(labels, outputs).mean()
    assert fitted["log_loss"]["isotonic"] > fitted["log_loss"]["none"]


def test_a_patients_images_are_held_out_together():
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 2, 60), 30).astype(float)  # a label a patient, in the output's order by chance
    outputs = np.repeat(rng.random(60), 30)
    patients = np.repeat(np.arange(60).astype(str), 30)
    fitted = fit(labels, outputs, patients, PARAMS)
    leaking = fit(labels, outputs, np.arange(1800).astype(str), PARAMS)
    assert leaking["log_loss"]["isotonic"] < np.log(2) < fitted["log_loss"]["isotonic"]


@settings(max_examples=60, deadline=None)
@given(
    y=hnp.arrays(np.float64, st.integers(1, 60), elements=st.sampled_from([0.0, 1.0])),
    n_patients=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_folds_are_even_in_patients_and_in_patients_with_the_finding(y, n_patients, seed):
    drawn_patients = np.random.default_rng(seed).integers(0, n_patients, len(y))
    patient = np.unique(drawn_patients, return_inverse=True)[1]
    fold = folds_of(y, patient, seed)
    assert len(fold) == patient.max() + 1
    positive = np.bincount(patient, weights=y) > 0
    for members in (np.ones_like(positive), positive, ~positive):
        sizes = np.bincount(fold[members], minlength=FOLDS)
        assert sizes.max() - sizes.min() <= 1


def test_the_choice_is_the_simplest_within_one_standard_error():
    patient = np.arange(100)
    flat = np.full(100, 0.5)
    wave = np.tile([0.1, -0.1], 50)  # one standard error of its mean is 0.01005
    losses = dict(zip(METHODS, [flat + wave + 0.0101, flat + wave + 0.0099, flat, flat + 1], strict=True))
    assert choose(losses, patient) == "temperature"
    assert choose(losses | {"none": flat + wave + 0.0099}, patient) == "none"
    # Ten images a patient that move together: ten times fewer independent ones, so the error is larger.
    assert choose({name: np.sort(values - flat) for name, values in losses.items()}, patient // 10) == "none"


def test_images_repeated_in_every_patient_change_neither_choice_nor_fit():
    labels, outputs, patients = drawn(300, lambda p: expit(logit(p) / 1.3), seed=2)
    once = fit(labels, outputs, patients, forced("temperature"))
    five = fit(np.repeat(labels, 5), np.repeat(outputs, 5), np.repeat(patients, 5), forced("temperature"))
    assert five["parameters"] == pytest.approx(once["parameters"], rel=1e-6)
    assert five["log_loss"]["temperature"] == pytest.approx(once["log_loss"]["temperature"], rel=1e-6)
    auto = [fit(*(np.repeat(v, n) for v in (labels, outputs, patients)), PARAMS)["method"] for n in (1, 5)]
    assert auto[0] == auto[1]


@pytest.mark.parametrize("method", ["auto", "isotonic", "platt"])
def test_too_few_patients_leave_the_outputs_as_they_are(method):
    rng = np.random.default_rng(0)
    labels = np.repeat([1.0, 0.0], [5 * (MIN_PATIENTS - 1), 200])  # many images, few patients
    patients = np.concatenate([np.arange(45) // 5, 1000 + np.arange(200)]).astype(str)
    outputs = rng.random(245)
    fitted = fit(labels, outputs, patients, forced(method))
    assert (fitted["method"], fitted["parameters"]) == ("none", {})
    assert "9 patients with the finding, 200 without" in fitted["note"]
    assert fitted["log_loss"]["none"] == pytest.approx(log_loss(labels, outputs).mean())
    assert np.isnan(fitted["log_loss"]["isotonic"])
    assert (fitted["n_positive"], fitted["n_negative"]) == (45, 200)
    assert fit(1 - labels, outputs, patients, forced(method))["method"] == "none"
    patients[0] = "another"
    assert fit(labels, outputs, patients, forced("platt"))["method"] == "platt"


@pytest.mark.parametrize("labels", [np.zeros(50), np.ones(50), np.full(50, np.nan)])
def test_one_class_or_none_can_be_written(labels, tmp_path):
    fitted = fit(labels, np.full(50, 0.25), np.arange(50).astype(str), PARAMS)
    assert fitted["method"] == "none"
    write_json(tmp_path / "c.json", fitted)
    assert apply(read_json(tmp_path / "c.json"), GRID).tolist() == GRID.tolist()


def test_unknown_labels_and_the_order_of_rows_change_nothing():
    labels, outputs, patients = drawn(400, lambda p: expit(logit(p) / 2), seed=5)
    labels[::7] = np.nan
    whole = fit(labels, outputs, patients, PARAMS)
    known = ~np.isnan(labels)
    assert fit(labels[known], outputs[known], patients[known], PARAMS) == whole
    order = np.random.default_rng(1).permutation(400)
    turned = fit(labels[order], outputs[order], patients[order], PARAMS)
    assert turned["method"] == whole["method"]
    assert turned["log_loss"] == pytest.approx(whole["log_loss"], rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40, deadline=None)
@given(
    y=hnp.arrays(np.float64, 40, elements=st.sampled_from([0.0, 1.0])),
    p=hnp.arrays(
        np.float64,
        40,
        elements=st.one_of(
            st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.5, 1e-30, 1 - 1e-16]), st.integers(0, 3).map(lambda v: v / 3)
        ),
    ),
)
def test_every_map_rises_stays_in_0_to_1_and_survives_json(method, y, p):
    if len(np.unique(y)) < 2:
        return
    fitted = {"method": method, "parameters": FITTERS[method](y, p)}
    mapped = apply(fitted, GRID)
    assert mapped.dtype == np.float64
    assert (mapped >= 0).all()
    assert (mapped <= 1).all()
    assert (np.diff(mapped) >= -1e-15).all()
    assert apply(json.loads(json.dumps(fitted)), GRID).tolist() == mapped.tolist()


@pytest.mark.parametrize("method", METHODS)
def test_shape_float32_and_nan_are_kept(method):
    labels, outputs, patients = drawn(200, lambda p: p)
    fitted = fit(labels, outputs, patients, forced(method))
    table = outputs[:12].reshape(3, 4).astype(np.float32)
    assert apply(fitted, table).tolist() == apply(fitted, table.astype(np.float64)).tolist()
    assert np.isnan(apply(fitted, np.array([0.5, np.nan]))).tolist() == [False, True]


def test_separated_classes_get_a_finite_slope():
    labels, outputs = np.repeat([0.0, 1.0], 20), np.concatenate([np.zeros(20), np.ones(20)])
    patients = np.arange(40).astype(str)
    slope = fit(labels, outputs, patients, forced("platt"))["parameters"]["slope"]
    assert 0 < slope < 1
    # Two values, two parameters: each value is taken to its Platt target, 21/22 and 1/22.
    assert apply(fit(labels, outputs, patients, forced("platt")), np.array([0.0, 1.0])) == pytest.approx(
        [1 / 22, 21 / 22], abs=1e-6
    )
    temperature = fit(labels, np.where(outputs > 0, 0.6, 0.4), patients, forced("temperature"))
    assert temperature["parameters"]["temperature"] == pytest.approx(np.exp(-3), rel=1e-3)
    assert "end of its range" in temperature["note"]


def test_outputs_that_fall_with_the_finding_become_the_prevalence():
    labels = np.repeat([0.0, 1.0], [60, 20])
    outputs = np.where(labels == 1, 0.2, 0.6) + np.linspace(0, 0.1, 80)
    fitted = fit(labels, outputs, np.arange(80).astype(str), forced("platt"))
    assert fitted["parameters"]["slope"] == 0
    assert "prevalence" in fitted["note"]
    assert apply(fitted, GRID) == pytest.approx(np.full(len(GRID), 0.25), abs=0.01)


def test_outputs_all_equal():
    labels = np.repeat([0.0, 1.0], [60, 20])
    for method in ("auto", *METHODS):
        fitted = fit(labels, np.full(80, 0.5), np.arange(80).astype(str), forced(method))
        assert np.isfinite(apply(fitted, GRID)).all()
    assert fit(labels, np.full(80, 0.5), np.arange(80).astype(str), PARAMS)["method"] == "platt"


def test_all_findings_in_a_file_and_back(tmp_path):
    first, second = (drawn(300, lambda p: expit(logit(p) / 3), seed=s) for s in (1, 2))
    labels, outputs = (np.column_stack(pair) for pair in zip(first[:2], second[:2], strict=True))
    made = fit_all(labels, outputs, first[2], ["Mass", "Edema"], PARAMS)
    write_json(tmp_path / "calibration.json", made)
    read = read_json(tmp_path / "calibration.json")
    assert read["fitted_on"] == "val"
    assert set(read["findings"]["Mass"]) == {"method", "parameters", "log_loss", "n_positive", "n_negative", "note"}
    assert set(read["findings"]["Mass"]["log_loss"]) == set(METHODS)
    mapped = apply_all(made, ["Mass", "Edema"], outputs)
    assert apply_all(read, ["Mass", "Edema"], outputs).tolist() == mapped.tolist()
    assert apply_all(read, ["Edema"], outputs[:, 1:])[:, 0].tolist() == mapped[:, 1].tolist()
    alone = fit(labels[:, 1], outputs[:, 1], first[2], PARAMS)
    assert made["findings"]["Edema"] == alone


def test_a_calibration_of_another_model_is_refused():
    made = {"findings": {"Mass": {"method": "none", "parameters": {}}}}
    with pytest.raises(UserError, match=r"no Edema, only Mass.*run `cxr evaluate` again"):
        apply_all(made, ["Mass", "Edema"], np.zeros((2, 2)))
    with pytest.raises(UserError, match="'splines'; none, temperature, platt, isotonic are known"):
        apply({"method": "splines", "parameters": {}}, np.zeros(2))


def test_a_served_model_needs_neither_scikit_learn_nor_scipy():
    code = (
        "import sys; from pipeline.statistics.calibration import apply_all; import numpy as np;"
        "one = {'method': 'platt', 'parameters': {'slope': 2.0, 'intercept': 0.0}};"
        "apply_all({'findings': {'Mass': one}}, ['Mass'], np.ones((1, 1)));"
        "print([name for name in ('sklearn', 'scipy', 'pandas', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
