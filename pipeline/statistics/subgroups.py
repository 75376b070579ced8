"""Scores by sex, age and view position, their crossings, and each group against the other images.

All groups share the patients' resamples of the whole table, so that differences between groups are paired.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.params import EvaluateParams
from pipeline.statistics.bootstrap import Replicates, Resamples, Statistic, divide, patient_sums, replicate
from pipeline.statistics.comparisons import MIN_PATIENTS, adjusted, comparison, multiplicity
from pipeline.statistics.groups import ATTRIBUTES, Group, groups_of
from pipeline.statistics.intervals import Floats
from pipeline.statistics.proportions import printed
from pipeline.statistics.ranks import rank_statistic


@dataclass(frozen=True)
class Table:
    """What all groups are scored from.

    Attributes
    ----------
    labels : ndarray of shape (n_images, n_findings)
        1, 0 or NaN.
    scores : ndarray of shape (n_images, n_findings)
        Probabilities.
    called : ndarray of shape (n_images, n_findings)
        1 where the probability reaches the threshold, else 0; NaN for a finding without a threshold.
    sick : ndarray of shape (n_images,)
        1 if any known label is 1, 0 if all labels are known to be 0, else NaN.
    called_healthy : ndarray of shape (n_images,)
        1 if no finding reaches its threshold, else 0; NaN if no finding has a threshold.
    """

    labels: Floats
    scores: Floats
    called: Floats
    sick: Floats
    called_healthy: Floats


def subgroups(
    rows: pd.DataFrame,
    labels: Floats,
    probabilities: Floats,
    thresholds: dict[str, float | None],
    resamples: Resamples,
    params: EvaluateParams,
) -> dict[str, Any]:
    """Score every subgroup of the test images.

    - AUROC of each finding and its mean over findings.
    - False-negative and false-positive rate of each finding at its threshold.
    - Underdiagnosis: the share of images with at least one finding in which the model sees none, which is the
      false-positive rate of "No Finding"; and the reverse, overdiagnosis, its false-negative rate (Seyyed-Kalantari et
      al., Nature Medicine 2021;27:2176-2182).
    - The differences of these between each sex, age band or view and the other images, with intervals and p values.

    Parameters
    ----------
    rows : DataFrame
        The images; columns `view`, `sex`, `age`, as far as the table has them. Nothing means unknown.
    labels : ndarray of shape (n_images, n_findings)
        1, 0 or NaN.
    probabilities : ndarray of shape (n_images, n_findings)
        Of the model.
    thresholds : dict of str to float or None
        For each finding, in the order of the columns: the probability from which on it is called present, chosen on
        validation; None if there is none.
    resamples : Resamples
        Of all these images.
    params : EvaluateParams
        `age_bands` and `subgroup_images`.

    Returns
    -------
    dict
        What reports/subgroups.json holds (docs/statistics.md).
    """
    table = table_of(labels, probabilities, list(thresholds.values()))
    findings = list(thresholds)
    groups = groups_of(rows, params.age_bands)
    large = [group for group in groups if group.members.sum() >= params.subgroup_images]
    scored = {group.members.tobytes(): scores_of(table, group.members, resamples) for group in large}
    differences = _differences(large, table, scored, findings, resamples, params.subgroup_images)
    return {
        "min_images": params.subgroup_images,
        "min_patients": MIN_PATIENTS,
        "without_threshold": [name for name, value in thresholds.items() if value is None],
        "unknown_for_all": [by for by in ATTRIBUTES if not any(group.by == by for group in groups)],
        "n_comparisons": len(differences),
        "multiplicity": multiplicity(len(differences)),
        "groups": [_row(group, table, findings, resamples, scored.get(group.members.tobytes())) for group in groups],
        "differences": differences,
    }


def table_of(labels: Floats, probabilities: Floats, thresholds: Sequence[float | None]) -> Table:
    """Return what the model calls present, who is sick, and whom the model calls healthy."""
    limits = np.array([np.nan if value is None else value for value in thresholds])
    called = np.where(np.isnan(limits), np.nan, (probabilities >= limits).astype(np.float64))
    sick = np.where((labels == 1).any(axis=1), 1.0, np.where(np.isnan(labels).any(axis=1), np.nan, 0.0))
    healthy = np.where(np.isnan(limits).all(), np.nan, (~(called == 1).any(axis=1)).astype(np.float64))
    return Table(labels, probabilities, called, sick, healthy)


def scores_of(table: Table, members: NDArray[np.bool_], resamples: Resamples) -> Replicates:
    """Return a group's scores: of each finding AUROC, then FNR, then FPR; last, underdiagnosis and overdiagnosis.

    Shape (3 * n_findings + 2,); see `subgroups`.
    """
    n_findings = table.labels.shape[1]
    inside = np.where(members[:, None], table.labels, np.nan)
    ranks = [rank_statistic(inside[:, k], table.scores[:, k], resamples) for k in range(n_findings)]
    sick = np.where(members, table.sick, np.nan)
    rates = rate_statistic(
        np.column_stack([1 - table.called, table.called, table.called_healthy, 1 - table.called_healthy]),
        np.column_stack([inside == 1, inside == 0, sick == 1, sick == 0]),
        resamples,
    )

    def statistic(weights: Floats) -> Floats:
        return np.concatenate([*(rank(weights)[:1] for rank in ranks), rates(weights)])

    return replicate(statistic, resamples)


def rate_statistic(values: Floats, counted: NDArray[np.bool_], resamples: Resamples) -> Statistic:
    """Return the statistic of some rates: the mean of each column of `values` over the images that it counts.

    Parameters
    ----------
    values : ndarray of shape (n_images, n_rates)
        1 or 0; a column with NaN makes NaN.
    counted : ndarray of shape (n_images, n_rates), dtype=bool
        Which images count.
    resamples : Resamples
        Whose image each one is.
    """
    undefined = np.isnan(values).any(axis=0)
    above = patient_sums(np.where(counted & ~undefined, np.nan_to_num(values), 0.0), resamples)
    below = patient_sums((counted & ~undefined).astype(np.float64), resamples)
    return lambda weights: divide(above @ weights, below @ weights)


def _row(
    group: Group, table: Table, findings: list[str], resamples: Resamples, scores: Replicates | None
) -> dict[str, Any]:
    members = group.members
    row: dict[str, Any] = {
        "by": group.by,
        "group": group.name,
        "images": int(members.sum()),
        "patients": len(np.unique(resamples.patient[members])),
        "scored": scores is not None,
    }
    if scores is None:
        return row
    n = len(findings)
    labels, sick = table.labels[members], table.sick[members]
    patients = _patients(table, members, resamples)

    def rate(name: str, k: int) -> dict[str, float | str]:
        return printed(name, scores.estimate(k), int(patients[k]), resamples.confidence)

    row["macro"] = scores.mean(range(n)).estimate().as_dict("auc") | {
        "n_findings": int((~np.isnan(scores.point[:n])).sum())
    }
    row["findings"] = {
        name: scores.estimate(k).as_dict("auc")
        | {"n_positive": int((labels[:, k] == 1).sum()), "n_negative": int((labels[:, k] == 0).sum())}
        | rate("fnr", n + k)
        | rate("fpr", 2 * n + k)
        for k, name in enumerate(findings)
    }
    row["no_finding"] = rate("fpr", 3 * n) | rate("fnr", 3 * n + 1)
    row["no_finding"] |= {"n": int((sick == 1).sum()), "n_healthy": int((sick == 0).sum())}
    row["no_finding"]["n_unknown"] = int(np.isnan(sick).sum())
    return row


def _differences(
    groups: list[Group],
    table: Table,
    scored: dict[bytes, Replicates],
    findings: list[str],
    resamples: Resamples,
    least: int,
) -> list[dict[str, Any]]:
    """Compare each group of one attribute with the other images; two groups that are all images, once."""
    rows: list[dict[str, Any]] = []
    done: set[bytes] = set()
    for group in groups:
        others = ~group.members
        if " x " in group.by or others.sum() < least or others.tobytes() in done:
            continue
        done.add(group.members.tobytes())
        if others.tobytes() not in scored:
            scored[others.tobytes()] = scores_of(table, others, resamples)
        here, there = scored[group.members.tobytes()], scored[others.tobytes()]
        patients = [_patients(table, members, resamples) for members in (group.members, others)]
        enough = np.minimum(*patients) >= MIN_PATIENTS
        rows += [
            {"by": group.by, "group": group.name, "against": "the other images", **row}
            for row in _compare(here, there, enough, findings)
        ]
    return adjusted(rows)


def _compare(
    here: Replicates, there: Replicates, enough: NDArray[np.bool_], findings: list[str]
) -> list[dict[str, Any]]:
    difference = here - there
    n = len(findings)
    both = [k for k in range(n) if enough[k]]
    rows = []
    if both:
        # The same findings on both sides, so that the means differ by the group alone.
        rows.append(comparison("macro", "auc", difference[both].mean(), 0) | {"n_findings": len(both)})
    names = [(name, score) for score in ("auc", "fnr", "fpr") for name in findings]
    names += [("No Finding", "fpr"), ("No Finding", "fnr")]
    rows += [comparison(*names[k], difference, k) for k in range(len(names)) if enough[k]]
    return [row for row in rows if not np.isnan(row["p_value"])]


def _patients(table: Table, members: NDArray[np.bool_], resamples: Resamples) -> NDArray[np.intp]:
    """Count the patients that each score of `scores_of` rests on; for AUROC those of the class that has fewer."""

    def count(holds: NDArray[np.bool_]) -> NDArray[np.intp]:
        return np.array([len(np.unique(resamples.patient[column & members])) for column in holds.T], np.intp)

    positive, negative = count(table.labels == 1), count(table.labels == 0)
    overall = count(np.column_stack([table.sick == 1, table.sick == 0]))
    return np.concatenate([np.minimum(positive, negative), positive, negative, overall])
