"""The metadata floor: by hand, against what it must not see, and on the table of NIH's sample."""

import io
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from pipeline.floor import features_of, fit_floor, floor
from pipeline.params import EvaluateParams
from pipeline.statistics.bootstrap import resample

PARAMS = EvaluateParams(resamples=200, seed=3)


def rows_of(n, seed=0, **columns):
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        {
            "view": rng.choice(["PA", "AP"], n),
            "sex": rng.choice(["F", "M"], n),
            "age": rng.integers(1, 90, n).astype(float),
            "followup": rng.integers(0, 20, n).astype(float),
            "width": rng.choice([2048.0, 2500.0, 3000.0], n),
            "height": rng.choice([2048.0, 2500.0, 3000.0], n),
            "Mass": rng.integers(0, 2, n).astype(float),
        }
    )
    return rows.assign(**columns)


def run(train, test, probabilities=None, findings=("Mass",)):
    labels = test[list(findings)].to_numpy(float)
    resamples = resample(np.arange(len(test)).astype(str), labels, PARAMS)
    if probabilities is None:
        probabilities = np.random.default_rng(9).random(labels.shape)
    return floor(train, test, list(findings), probabilities, resamples)


def test_a_finding_that_only_the_view_tells_by_hand():
    # Train: 30 of 40 AP images are positive, 10 of 40 PA images. The floor can only rank AP above PA.
    train = pd.DataFrame({"view": ["AP"] * 40 + ["PA"] * 40, "Mass": [1.0] * 30 + [0.0] * 10 + [1.0] * 10 + [0.0] * 30})
    test = pd.DataFrame({"view": ["AP", "AP", "AP", "PA", "PA"], "Mass": [1.0, 1.0, 0.0, 1.0, 0.0]})
    document, probabilities = run(train, test)
    assert len(set(probabilities[:, 0])) == 2
    assert probabilities[0, 0] > 0.5 > probabilities[4, 0]
    # Pairs (3 positives x 2 negatives): AP-AP 2 ties, AP-PA 2 right, PA-AP 1 wrong, PA-PA 1 tie: 3.5 of 6.
    assert document["findings"]["Mass"]["auc"] == pytest.approx(3.5 / 6)
    assert (document["findings"]["Mass"]["n_positive"], document["findings"]["Mass"]["n_negative"]) == (3, 2)
    assert document["features"] == ["view"]
    assert document["dropped"] == ["sex", "age", "followup", "width", "height"]


def test_scores_are_scikit_learns_and_the_difference_is_the_models_less_the_floors():
    train = rows_of(300)
    train["Mass"] = (train["age"] + np.random.default_rng(1).normal(0, 20, 300) > 45).astype(float)
    test = rows_of(120, seed=2)
    model = np.random.default_rng(3).random((120, 1)) + test[["Mass"]].to_numpy() / 3
    document, probabilities = run(train, test, model)
    floor_auc, model_auc = (roc_auc_score(test["Mass"], values[:, 0]) for values in (probabilities, model))
    assert document["findings"]["Mass"]["auc"] == pytest.approx(floor_auc)
    assert document["differences"]["Mass"]["difference"] == pytest.approx(model_auc - floor_auc)
    assert document["macro_difference"] == document["differences"]["Mass"]  # the mean of one finding
    low, high = (document["macro_difference"][f"difference_ci_{end}"] for end in ("low", "high"))
    assert low < model_auc - floor_auc < high


@given(seed=st.integers(0, 1000))
@settings(max_examples=5)
def test_labels_of_test_images_do_not_reach_the_floor(seed):
    train, test = rows_of(60), rows_of(30, seed=1)
    other = test.assign(Mass=np.random.default_rng(seed).integers(0, 2, 30).astype(float))
    first, again = (fit_floor(train, rows, ["Mass"]).probabilities for rows in (test, other))
    assert np.array_equal(first, again)


def test_sizes_count_by_their_ratio():
    width = features_of(pd.DataFrame({"width": [1000.0, 2000.0, 4000.0]}))["width"]
    assert width[1] - width[0] == pytest.approx(width[2] - width[1])


@given(factor=st.floats(0.1, 10))
@settings(max_examples=5)
def test_the_unit_of_the_size_does_not_matter(factor):
    # Sizes are standardised: pixels or tenths of them give the same floor.
    train, test = rows_of(80), rows_of(30, seed=1)
    scaled = [rows.assign(width=rows["width"] * factor, height=rows["height"] * factor) for rows in (train, test)]
    expected = fit_floor(train, test, ["Mass"]).probabilities
    assert fit_floor(*scaled, ["Mass"]).probabilities == pytest.approx(expected, abs=1e-6)


def test_columns_that_never_change_are_dropped_and_named():
    document, _ = run(rows_of(60, view="PA", followup=np.nan), rows_of(30, seed=1))
    assert document["dropped"] == ["view", "followup"]
    assert "view, followup" in document["notes"]


def test_nothing_left_is_undefined_and_said():
    constant = {"view": "", "sex": "", "age": np.nan, "followup": 0.0, "width": 224.0, "height": 224.0}
    document, probabilities = run(rows_of(60, **constant), rows_of(30, seed=1, **constant))
    assert np.isnan(probabilities).all()
    assert np.isnan(document["macro"]["auc"])
    assert document["macro"]["n_findings"] == 0
    assert np.isnan(document["macro_difference"]["difference"])
    assert "no feature is left" in document["notes"]


def test_a_finding_that_train_never_shows_is_nan_named_and_no_part_of_the_mean():
    train = rows_of(60, Hernia=0.0, Nodule=np.nan)
    test = rows_of(40, seed=1, Hernia=np.tile([0.0, 1.0], 20), Nodule=np.tile([0.0, 1.0], 20))
    document, probabilities = run(train, test, findings=("Mass", "Hernia", "Nodule"))
    assert document["not_fitted"] == ["Hernia", "Nodule"]
    assert np.isnan(probabilities[:, 1:]).all()
    assert np.isnan(document["findings"]["Hernia"]["auc"])
    assert np.isnan(document["differences"]["Hernia"]["difference"])
    assert document["macro"]["auc"] == document["findings"]["Mass"]["auc"]
    assert document["macro_difference"] == document["differences"]["Mass"]
    assert document["macro"]["n_findings"] == 1


def test_unknown_labels_in_train_are_left_out_of_their_finding_only():
    train = rows_of(80)
    known = np.random.default_rng(4).random(80) < 0.6
    some = train.assign(Mass=train["Mass"].where(known))
    # All columns stay as they are, so that the features are scaled alike; only the fit has fewer images.
    assert np.isfinite(fit_floor(some, rows_of(20, seed=1), ["Mass"]).probabilities).all()
    doubled = pd.concat([some, train.assign(Mass=np.nan)], ignore_index=True)
    expected = fit_floor(some, rows_of(20, seed=1), ["Mass"]).probabilities
    assert fit_floor(doubled, rows_of(20, seed=1), ["Mass"]).probabilities == pytest.approx(expected, abs=1e-6)


def test_values_that_train_never_had_and_missing_ones_are_no_error():
    train = rows_of(80)
    train.loc[:9, "age"] = np.nan
    test = rows_of(20, seed=1, view="L", sex="", followup=np.nan, width=np.nan, height=np.nan)
    assert np.isfinite(fit_floor(train, test, ["Mass"]).probabilities).all()


def test_an_unknown_age_tells_something():
    # Whether the age was written down is itself metadata: here only images without one are positive.
    train, test = (rows_of(80, seed=seed, view="PA", sex="F") for seed in (0, 1))
    for rows in (train, test):
        rows.loc[::4, "age"] = np.nan
        rows["Mass"] = rows["age"].isna().astype(float)
    document, _ = run(train, test)
    assert document["findings"]["Mass"]["auc"] == 1


def test_tables_read_from_disk_give_the_same_features():
    # The index has nullable numbers and '' for unknown words, other tables NaN.
    rows = rows_of(4)
    rows.loc[0, ["age", "sex"]] = [np.nan, np.nan]
    nullable = rows.astype({"age": "Float64", "width": "Float64"}).assign(sex=rows["sex"].fillna(""))
    pd.testing.assert_frame_equal(features_of(nullable), features_of(rows))


def test_without_training_images_there_is_no_floor():
    document, probabilities = run(None, rows_of(20))
    assert probabilities is None
    assert list(document) == ["notes"]
    assert "no floor" in document["notes"]


def test_the_acquisition_alone_tells_pneumonia_in_nihs_sample(shared_data):
    # Its images with and without pneumonia were drawn from different view positions, so a floor of 0.5 is a defect.
    with zipfile.ZipFile(shared_data / "nih-sample.zip") as archive:
        table = pd.read_csv(io.BytesIO(archive.read("sample_labels.csv")), dtype=str)
    rows = pd.DataFrame(
        {
            "view": table["View Position"],
            "sex": table["Patient Gender"],
            "age": table["Patient Age"].str.rstrip("Y").astype(float),
            "followup": table["Follow-up #"].astype(float),
            "width": table["OriginalImageWidth"].astype(float),
            "height": table["OriginalImageHeight"].astype(float),
            "Pneumonia": table["Finding Labels"].str.contains("Pneumonia").astype(float),
        }
    )
    even = table["Patient ID"].astype(int) % 2 == 0  # whole patients
    document, _ = run(rows[even], rows[~even], findings=("Pneumonia",))
    assert document["findings"]["Pneumonia"]["ci_low"] > 0.6
