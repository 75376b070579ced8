"""The line that ends a training."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.assess import assess
from pipeline.params import EvaluateParams
from pipeline.training.closing import closing_line, validation_estimate

PARAMS = EvaluateParams(resamples=200)


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, probabilities and patients of 300 images of 120 patients; the third finding is never present."""
    rng = np.random.default_rng(3)
    labels = np.column_stack([rng.random((300, 2)) < 0.3, np.zeros(300)]).astype(np.float32)
    probabilities = np.clip(0.3 * labels + rng.random((300, 3)) * 0.7, 0, 1).astype(np.float32)
    labels[rng.random((300, 3)) < 0.1] = np.nan
    return labels, probabilities, rng.integers(0, 120, 300)


def test_the_figure_is_that_of_evaluate(scored: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, probabilities, patients = scored
    findings = ["Mass", "Nodule", "Hernia"]
    table = pd.DataFrame({"image_id": np.arange(300), "patient_id": patients.astype(str), "split": "val"})
    table[["view", "sex", "age"]] = ["PA", "F", 60]
    for k, name in enumerate(findings):
        table[f"y_{name}"], table[f"p_{name}"] = labels[:, k], probabilities[:, k]
    both = pd.concat([table, table.assign(split="test")], ignore_index=True)
    macro = assess(both, findings, PARAMS).documents["metrics"]["val"]["macro"]
    found = validation_estimate(labels, probabilities, patients, PARAMS)
    assert (found.value, found.ci_low, found.ci_high) == (macro["auc"], macro["ci_low"], macro["ci_high"])
    assert macro["n_findings"] == 2


def test_the_line_names_figure_interval_images_model_and_next_step(
    scored: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    labels, probabilities, patients = scored
    found = validation_estimate(labels, probabilities, patients, PARAMS)
    assert closing_line(7, 20, found, 1300, 1, Path("models/model.keras")) == (
        f"best epoch 7 of 20: validation AUC {found.value:.4f} (95 % interval {found.ci_low:.4f} to "
        f"{found.ci_high:.4f}), both optimistic, for the epoch was chosen on the same images; "
        "1,300 images of 1 patient; model: models/model.keras; next: `dvc repro`"
    )
    other = closing_line(7, 20, found, 1, 1, Path("my models/model.keras"), confidence=0.9)
    assert other.endswith(
        "1 image of 1 patient; model: my models/model.keras; next: `cxr evaluate 'my models/model.keras'`"
    )
    assert "(90 % interval" in other


@pytest.mark.parametrize("fault", ["one class", "nan"])
def test_an_undefined_figure_is_said(scored: tuple[np.ndarray, np.ndarray, np.ndarray], fault: str) -> None:
    labels, probabilities, patients = scored
    if fault == "nan":
        probabilities = probabilities.copy()
        probabilities[5, 0] = np.nan
    else:
        labels = np.zeros_like(labels)
    found = validation_estimate(labels, probabilities, patients, PARAMS)
    assert math.isnan(found.value)
    assert "validation AUC is undefined; 300 images" in closing_line(1, 1, found, 300, 120, Path("m.keras"))
