"""From a predictions table to every score and curve; `evaluate` and `score` both call this, and nothing else scores."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.files import atomic_open, write_json
from pipeline.params import EvaluateParams
from pipeline.predictions import arrays_of
from pipeline.statistics.bootstrap import resample
from pipeline.statistics.scores import score_findings

_CURVE_POINTS = 300


@dataclass(frozen=True)
class Assessment:
    """What is written: a JSON file for each of `documents`, a table for each of `plots`."""

    documents: dict[str, dict[str, Any]]
    plots: dict[str, pd.DataFrame] = field(default_factory=dict)


def assess(predictions: pd.DataFrame, findings: list[str], params: EvaluateParams) -> Assessment:
    """Score a predictions table.

    Parameters
    ----------
    predictions : DataFrame
        See `pipeline.predictions`; a split named `test` at least.
    findings : list of str
        What to score.
    params : EvaluateParams
        How.
    """
    metrics: dict[str, Any] = {
        "confidence": params.confidence,
        "resamples": params.resamples,
        "interval": params.interval,
    }
    for split, rows in predictions.groupby("split", sort=False):
        labels, probabilities = arrays_of(rows, findings)
        resamples = resample(rows["patient_id"].to_numpy(str), labels, params)
        metrics[str(split)] = score_findings(labels, probabilities, findings, resamples, params)
    return Assessment({"metrics": metrics}, {"roc": roc_points(predictions, findings), "auc": auc_table(metrics)})


def roc_points(predictions: pd.DataFrame, findings: list[str]) -> pd.DataFrame:
    """Return the test split's ROC curves, thinned to a few hundred points each for drawing.

    Computed by `sklearn.metrics.roc_curve`. Findings whose curve is undefined have no rows.
    """
    from sklearn.metrics import roc_curve

    rows = predictions[predictions["split"] == "test"]
    labels, probabilities = arrays_of(rows, findings)
    curves = []
    for k, name in enumerate(findings):
        known = ~np.isnan(labels[:, k])
        if len(np.unique(labels[known, k])) == 2:
            fpr, tpr, _ = roc_curve(labels[known, k], probabilities[known, k])
            keep = np.unique(np.linspace(0, len(fpr) - 1, _CURVE_POINTS).round().astype(int))
            curves.append(pd.DataFrame({"finding": name, "fpr": fpr[keep], "tpr": tpr[keep]}))
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=["finding", "fpr", "tpr"])


def auc_table(metrics: dict[str, Any]) -> pd.DataFrame:
    """Return the test AUROCs with their intervals and counts, one row per finding."""
    names = ("auc", "ci_low", "ci_high", "n_positive", "n_negative")
    findings = metrics["test"]["findings"]
    return pd.DataFrame([{"finding": name, **{key: row[key] for key in names}} for name, row in findings.items()])


def write_assessment(assessment: Assessment, folder: Path) -> None:
    """Write `NAME.json` and `plots/NAME.csv`, each whole or not at all."""
    for name, table in assessment.plots.items():
        write_table(folder / "plots" / f"{name}.csv", table)
    for name, document in assessment.documents.items():
        write_json(folder / f"{name}.json", document)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV file, floats with nine significant digits, whole or not at all."""
    with atomic_open(path) as handle:
        table.to_csv(handle, index=False, lineterminator="\n", float_format="%.9g")
