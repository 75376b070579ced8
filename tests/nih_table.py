"""A table with the published totals of the full NIH ChestX-ray14, which is too large to ship.

Images, patients and positives per finding are those of `Data_Entry_2017_v2020.csv`.
"""

import numpy as np
import pandas as pd

IMAGES, PATIENTS = 112_120, 30_805
POSITIVES = {
    "Atelectasis": 11_559,
    "Cardiomegaly": 2_776,
    "Effusion": 13_317,
    "Infiltration": 19_894,
    "Mass": 5_782,
    "Nodule": 6_331,
    "Pneumonia": 1_431,
    "Pneumothorax": 5_302,
    "Consolidation": 4_667,
    "Edema": 2_303,
    "Emphysema": 2_516,
    "Fibrosis": 1_686,
    "Pleural_Thickening": 3_385,
    "Hernia": 227,
}


def nih_table(seed: int) -> pd.DataFrame:
    """Draw a manifest: long-tailed images per patient (at most 184), findings gathered in few patients."""
    rng = np.random.default_rng(seed)
    weights = rng.lognormal(0, 1.35, PATIENTS)
    patients = np.concatenate([np.arange(PATIENTS), rng.choice(PATIENTS, IMAGES - PATIENTS, p=weights / weights.sum())])
    patients.sort()
    table = pd.DataFrame({"patient_id": [f"{patient:08d}" for patient in patients]})
    table["image_id"] = [f"{number:08d}.png" for number in range(IMAGES)]
    table["sha256"] = table["image_id"]
    for name, positives in POSITIVES.items():
        liability = rng.normal(size=PATIENTS)[patients] * 1.5 + rng.normal(size=IMAGES)
        column = np.zeros(IMAGES, np.int8)
        column[np.argsort(-liability, kind="stable")[:positives]] = 1
        table[name] = pd.array(column, dtype="Int8")
    return table
