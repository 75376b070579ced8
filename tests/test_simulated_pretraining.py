"""benchmarks/simulated_pretraining.py: which patients are kept, and the paired table."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="module")
def pretraining(repository: Path):
    """Return the benchmark as a module."""
    sys.path.insert(0, str(repository / "benchmarks"))
    try:
        import simulated_pretraining
    finally:
        sys.path.pop(0)
    return simulated_pretraining


def test_a_tenth_of_the_patients_is_kept_with_all_their_images_and_the_whole_test(pretraining):
    rows = [
        (f"{split}-{n}-{k}", f"{split}-{n}", split, int(n % 4 == 0))
        for split, count in (("train", 200), ("val", 40), ("test", 20))
        for n in range(count)
        for k in range(1 + n % 3)
    ]
    table = pd.DataFrame(rows, columns=["image_id", "patient_id", "split", "Pneumonia"])
    kept = pretraining.subset(table[["image_id", "patient_id", "split"]], table[["image_id", "Pneumonia"]], 0.1)
    patients = kept.groupby("split")["patient_id"].nunique()
    assert patients.to_dict() == {"train": 20, "val": 4, "test": 20}
    sick = kept.merge(table, on="image_id").query("split_x == 'train' and Pneumonia == 1")["patient_id_x"].nunique()
    assert sick == 5
    whole = table[table["patient_id"].isin(kept["patient_id"])]
    assert set(kept["image_id"]) == set(whole["image_id"])
    assert list(kept.columns) == ["image_id", "patient_id", "split"]


def test_the_table_compares_means_over_seeds_on_the_same_patients(pretraining, capsys):
    rng = np.random.default_rng(2)
    labels = np.arange(80) % 2
    names = [f"p{n:02d}" for n in range(80)]

    def predictions(skill: float) -> pd.DataFrame:
        scores = 1 / (1 + np.exp(-(skill * labels + rng.normal(size=80))))
        return pd.DataFrame({"image_id": names, "patient_id": names, "y_Pneumonia": labels, "p_Pneumonia": scores})

    blind = [predictions(0).assign(p_Pneumonia=0.5) for _ in range(2)]
    perfect = [predictions(0).assign(p_Pneumonia=labels.astype(float)) for _ in range(2)]
    pretraining.print_comparison({"random weights": blind, "other": perfect, "middling": [predictions(1)] * 2}, [7, 8])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "80 test images of 80 patients"
    assert lines[3].startswith("| start | seed 7 | seed 8 | mean (95% interval) | minus random weights | p |")
    assert lines[5] == "| random weights | 0.500 | 0.500 | 0.500 (0.500 to 0.500) |  |  |"
    assert lines[6] == "| other | 1.000 | 1.000 | 1.000 (1.000 to 1.000) | 0.500 (0.500 to 0.500) | 0.001 |"
    middling = lines[7].split(" | ")
    assert float(middling[5].rstrip(" |")) < 0.05
