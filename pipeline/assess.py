"""From a predictions table to every score and curve; `evaluate` and `score` both call this, and nothing else scores."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.files import atomic_open, write_json
from pipeline.params import EvaluateParams
from pipeline.predictions import arrays_of
from pipeline.statistics import calibration, operating_points
from pipeline.statistics.bootstrap import Resamples, resample
from pipeline.statistics.curves import pr_table, reliability_table, roc_table
from pipeline.statistics.intervals import Floats
from pipeline.statistics.scores import score_findings
from pipeline.statistics.subgroups import subgroups


@dataclass(frozen=True)
class Part:
    """One split of a predictions table.

    Attributes
    ----------
    rows : DataFrame
        Its rows.
    labels, probabilities : ndarray of shape (n_images, n_findings)
        1, 0 or NaN; raw outputs.
    resamples : Resamples
        Of its patients; the same for every score of the split.
    """

    rows: pd.DataFrame
    labels: Floats
    probabilities: Floats
    resamples: Resamples


@dataclass(frozen=True)
class Assessment:
    """What is written: a JSON file for each of `documents`, a table for each of `plots`; and what they came from."""

    documents: dict[str, Any]
    plots: dict[str, pd.DataFrame]
    test: Part
    thresholds: dict[str, float | None] = field(default_factory=dict)


def assess(predictions: pd.DataFrame, findings: list[str], params: EvaluateParams) -> Assessment:
    """Score a predictions table.

    Calibrators and operating points are chosen on the split `val` and applied unchanged to `test`. Without a split
    `val` there are none, and `calibration` and `operating_points` are None.

    Parameters
    ----------
    predictions : DataFrame
        See `pipeline.predictions`; the split `test`, and `val` if there is one.
    findings : list of str
        What to score.
    params : EvaluateParams
        How.

    Returns
    -------
    Assessment
        Documents `metrics`, `calibration`, `operating_points`, `subgroups`; plots `roc`, `pr`, `reliability`, `auc`.
    """
    parts = {str(name): part_of(rows, findings, params) for name, rows in predictions.groupby("split", sort=False)}
    test, val = parts["test"], parts.get("val")
    fitted = points = calibrated = None
    if val is not None:
        patients = val.rows["patient_id"].to_numpy(str)
        fitted = calibration.fit_all(val.labels, val.probabilities, patients, findings, params)
        calibrated = calibration.apply_all(fitted, findings, test.probabilities)
        scored = (val.labels, val.probabilities), (test.labels, test.probabilities)
        points = operating_points.table(*scored, test.resamples, findings, fitted, params)
    metrics = settings(params)
    for name, part in parts.items():
        after = calibrated if name == "test" else None
        metrics[name] = score_findings(part.labels, part.probabilities, findings, part.resamples, params, after)
    thresholds = thresholds_of(points, findings)
    groups = subgroups(test.rows, test.labels, test.probabilities, thresholds, test.resamples, params)
    documents = {"metrics": metrics, "calibration": fitted, "operating_points": points, "subgroups": groups}
    return Assessment(documents, plots_of(test, calibrated, findings, params, metrics), test, thresholds)


def part_of(rows: pd.DataFrame, findings: list[str], params: EvaluateParams) -> Part:
    """Return one split of a predictions table with its resamples."""
    labels, probabilities = arrays_of(rows, findings)
    return Part(rows, labels, probabilities, resample(rows["patient_id"].to_numpy(str), labels, params))


def settings(params: EvaluateParams) -> dict[str, Any]:
    """Return what the scores depend on beside the table."""
    names = ("confidence", "resamples", "interval", "calibration", "bins")
    return {name: getattr(params, name) for name in names}


def thresholds_of(points: Mapping[str, Any] | None, findings: list[str]) -> dict[str, float | None]:
    """Return the threshold of Youden's point for each finding, which decides for subgroups and examples."""
    if points is None:
        return dict.fromkeys(findings)
    return {name: points["findings"][name]["youden"]["threshold"] for name in findings}


def plots_of(
    test: Part, calibrated: Floats | None, findings: list[str], params: EvaluateParams, metrics: dict[str, Any]
) -> dict[str, pd.DataFrame]:
    """Return the curves of the test split; without a calibrator the reliability is that of the raw outputs alone."""
    curves = test.labels, test.probabilities
    after = test.probabilities if calibrated is None else calibrated
    reliability = reliability_table(*curves, after, findings, test.resamples, params.bins)
    if calibrated is None:
        reliability = reliability[reliability["calibrated"] == "raw"]
    return {
        "roc": roc_table(*curves, findings, test.resamples),
        "pr": pr_table(*curves, findings, test.resamples),
        "reliability": reliability,
        "auc": auc_table(metrics),
    }


def auc_table(metrics: dict[str, Any]) -> pd.DataFrame:
    """Return the test AUROCs with their intervals and counts, one row per finding."""
    names = ("auc", "ci_low", "ci_high", "n_positive", "n_negative")
    findings = metrics["test"]["findings"]
    return pd.DataFrame([{"finding": name, **{key: row[key] for key in names}} for name, row in findings.items()])


def write_assessment(assessment: Assessment, folder: Path) -> None:
    """Write `NAME.json` (null where there is nothing) and `plots/NAME.csv`, each whole or not at all."""
    for name, table in assessment.plots.items():
        write_table(folder / "plots" / f"{name}.csv", table)
    for name, document in assessment.documents.items():
        write_json(folder / f"{name}.json", document)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV file, floats with nine significant digits, whole or not at all."""
    with atomic_open(path) as handle:
        table.to_csv(handle, index=False, lineterminator="\n", float_format="%.9g")
