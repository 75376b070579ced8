"""One path for all scores: what is chosen on validation cannot see the test split, and nothing is lost on the way."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from pipeline.assess import assess, write_assessment
from pipeline.params import EvaluateParams

FINDINGS = ["Effusion", "Mass"]
PARAMS = EvaluateParams(resamples=200, seed=3, subgroup_images=20)


def predictions(seed: int = 0, splits: tuple[str, ...] = ("val", "test"), images: int = 300) -> pd.DataFrame:
    """Return predictions that tell something and are too low, three images a patient."""
    rng = np.random.default_rng(seed)
    tables = []
    for split in splits:
        names = [f"{split}-{n}" for n in range(images)]
        table = pd.DataFrame({"image_id": names, "patient_id": [f"{split}-{n // 3}" for n in range(images)]})
        table["split"] = split
        labels = (rng.random((images, 2)) < (0.3, 0.1)).astype(int)
        outputs = 1 / (1 + np.exp(-(rng.normal(size=(images, 2)) + 1.5 * labels - 6)))
        for k, name in enumerate(FINDINGS):
            table[f"y_{name}"] = pd.array(labels[:, k], "Int8")
        for k, name in enumerate(FINDINGS):
            table[f"p_{name}"] = outputs[:, k]
        table["view"], table["sex"] = rng.choice(["PA", "AP"], images), rng.choice(["F", "M", ""], images)
        table["age"] = pd.array(rng.integers(1, 90, images), "Int64")
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def test_what_is_chosen_on_validation_does_not_know_the_test_split() -> None:
    table = predictions()
    other = table.copy()
    test = other["split"] == "test"
    other.loc[test, "y_Effusion"] = 1 - other.loc[test, "y_Effusion"]
    other.loc[test, "p_Mass"] = 0.5
    one, two = (assess(each, FINDINGS, PARAMS) for each in (table, other))
    assert one.documents["calibration"] == two.documents["calibration"]
    assert one.thresholds == two.thresholds
    for name in FINDINGS:
        for point in ("youden", "sensitivity", "specificity", "f1"):
            chosen = [each.documents["operating_points"]["findings"][name][point] for each in (one, two)]
            assert chosen[0]["threshold"] == chosen[1]["threshold"]
            assert chosen[0]["val"] == chosen[1]["val"]
    assert one.documents["metrics"]["val"] == two.documents["metrics"]["val"]
    assert one.documents["metrics"]["test"] != two.documents["metrics"]["test"]


def test_scores_are_those_of_scikit_learn_before_and_after_calibration() -> None:
    table = predictions()
    found = assess(table, FINDINGS, PARAMS)
    test = table[table["split"] == "test"]
    for name in FINDINGS:
        row = found.documents["metrics"]["test"]["findings"][name]
        labels, outputs = test[f"y_{name}"].to_numpy(int), test[f"p_{name}"].to_numpy()
        assert row["auc"] == pytest.approx(roc_auc_score(labels, outputs), abs=1e-12)
        assert row["brier"] == pytest.approx(brier_score_loss(labels, outputs), abs=1e-12)
        assert row["calibrated_brier"] < row["brier"]  # the outputs are too low, and validation shows it
        assert row["calibrated_ece"] < row["ece"]
    macro = found.documents["metrics"]["test"]["macro"]
    mean = np.mean([found.documents["metrics"]["test"]["findings"][name]["auc"] for name in FINDINGS])
    assert macro["auc"] == pytest.approx(mean, abs=1e-12)
    assert "calibrated_brier" not in found.documents["metrics"]["val"]["macro"]  # it was fitted there


def test_without_validation_nothing_is_calibrated_and_no_point_is_chosen() -> None:
    found = assess(predictions(splits=("test",)), FINDINGS, PARAMS)
    assert found.documents["calibration"] is None
    assert found.documents["operating_points"] is None
    assert found.thresholds == {"Effusion": None, "Mass": None}
    assert set(found.plots["reliability"]["calibrated"]) == {"raw"}
    group = next(each for each in found.documents["subgroups"]["groups"] if each["scored"])
    assert np.isnan(group["findings"]["Effusion"]["fnr"])
    assert not np.isnan(group["findings"]["Effusion"]["auc"])


def test_order_of_rows_changes_nothing() -> None:
    table = predictions(images=150)
    shuffled = table.sample(frac=1, random_state=1).reset_index(drop=True)
    one, two = (assess(each, FINDINGS, PARAMS).documents["metrics"]["test"] for each in (table, shuffled))
    for name in ("auc", "ci_low", "ci_high", "brier", "brier_ci_low", "calibrated_ece"):
        assert one["macro"][name] == pytest.approx(two["macro"][name], abs=1e-9)


def test_what_is_written_is_json_with_null_for_the_undefined(tmp_path) -> None:
    table = predictions()
    table["y_Mass"] = pd.array(np.zeros(len(table), int), "Int8")
    write_assessment(assess(table, FINDINGS, PARAMS), tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["test"]["findings"]["Mass"]["auc"] is None
    assert metrics["test"]["macro"]["undefined"] == "Mass"
    assert metrics["test"]["findings"]["Mass"]["n_positive"] == 0
    assert set(pd.read_csv(tmp_path / "plots" / "roc.csv")["finding"]) == {"Effusion"}
    points = json.loads((tmp_path / "operating_points.json").read_text(encoding="utf-8"))["findings"]["Mass"]
    assert points["youden"]["threshold"] is None
    assert points["youden"]["why"]
