"""The predictions table: `image_id, patient_id, split`, `y_<Finding>`, `p_<Finding>`, and view, sex, age if known."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def findings_of_predictions(table: pd.DataFrame) -> list[str]:
    """Return the findings of a predictions table, in the order of its `y_` columns."""
    return [name.removeprefix("y_") for name in table.columns if name.startswith("y_")]


def arrays_of(rows: pd.DataFrame, findings: list[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return labels (NaN: unknown) and probabilities of a predictions table, each (n_images, n_findings)."""
    labels = rows[[f"y_{name}" for name in findings]].to_numpy(np.float64, na_value=np.nan)
    return labels, rows[[f"p_{name}" for name in findings]].to_numpy(np.float64)
