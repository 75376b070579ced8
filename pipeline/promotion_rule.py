"""The rule of `cxr promote`: two models' scores on the same test images against the margins of `params.promote`.

docs/promotion.md gives the reasons for it and how often it errs.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.params import EvaluateParams, PromoteParams
from pipeline.statistics.bootstrap import Replicates, Resamples, replicate, resample, stack
from pipeline.statistics.intervals import Estimate
from pipeline.statistics.ranks import rank_statistic

Outcome = Literal["pass", "fail", "not compared"]
_NAN = float("nan")


@dataclass(frozen=True)
class Pair:
    """The probabilities of two models for the same images.

    Attributes
    ----------
    findings : list of str
        Names of the columns.
    labels : ndarray of shape (n_images, n_findings)
        1, 0 or NaN.
    candidate, champion : ndarray of shape (n_images, n_findings)
        Probabilities or any other score; higher means more likely present.
    patients : ndarray of shape (n_images,)
        Whose image each one is.
    groups : dict of str to ndarray of shape (n_images,), dtype=bool
        Subgroup to its images.
    """

    findings: list[str]
    labels: NDArray[np.floating[Any]]
    candidate: NDArray[np.floating[Any]]
    champion: NDArray[np.floating[Any]]
    patients: NDArray[Any]
    groups: dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Check:
    """One condition of the rule, its evidence and what came of it.

    Attributes
    ----------
    kind : {'macro', 'finding', 'subgroup', 'calibration'}
        Which part of the rule.
    name : str
        The finding, the subgroup, or what is measured.
    outcome : {'pass', 'fail', 'not compared'}
        The third where the score is undefined for both models, or the subgroup is too small: no condition then.
    limit : float
        The margin, or the bound on the calibration error.
    candidate, champion, difference : float
        The scores, and the first less the second; NaN where undefined.
    ci_low, ci_high : float
        Interval of the difference (of the calibration error: of the value, where known).
    non_inferior : bool or None
        Whether the difference's lower bound is above minus the margin; None where there is no difference.
    counts : dict of str to int
        Images, patients, positives, negatives, findings, resamples: what the score rests on.
    reason : str
        Why it failed, or why it was not compared; empty for a pass.
    """

    kind: Literal["macro", "finding", "subgroup", "calibration"]
    name: str
    outcome: Outcome
    limit: float
    candidate: float = _NAN
    champion: float = _NAN
    difference: float = _NAN
    ci_low: float = _NAN
    ci_high: float = _NAN
    non_inferior: bool | None = None
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    reason: str = ""


def accepted(checks: list[Check]) -> bool:
    """Say whether all conditions hold.

    All must hold at once, so that each may be tested at its own level without a correction for their number: an
    intersection-union test (Berger, Technometrics 1982;24:295-300).
    """
    return bool(checks) and all(check.outcome != "fail" for check in checks)


def compare(pair: Pair, promote: PromoteParams, evaluate: EvaluateParams) -> list[Check]:
    """Compare two models on the same images: macro AUROC, each finding, each subgroup.

    - macro: the lower bound of the interval of the paired difference is above -`macro_margin`: not inferior (Piaggio
      et al., JAMA 2012;308:2594-2604; for paired AUROCs with a bootstrap: Liu et al., Statistics in Medicine
      2006;25:1219-1238).
    - finding, subgroup: the difference itself is not below minus the margin. Not its lower bound, which for a rare
      finding no model could satisfy, nor its upper one, which would let through any loss that few images cannot prove.

    Parameters
    ----------
    pair : Pair
        The two models.
    promote : PromoteParams
        The margins.
    evaluate : EvaluateParams
        The bootstrap of patients, and how many images a subgroup needs.

    Returns
    -------
    list of Check
        Macro first, then findings, then subgroups.
    """
    resamples = resample(pair.patients, pair.labels, evaluate)
    candidate, champion = (_auroc(pair.labels, scores, resamples) for scores in (pair.candidate, pair.champion))
    counts = _counts(pair.labels, pair.patients)
    checks = [_macro(candidate.mean(), champion.mean(), promote.macro_margin, counts)]
    difference = candidate - champion
    for k, name in enumerate(pair.findings):
        positive, negative = int((pair.labels[:, k] == 1).sum()), int((pair.labels[:, k] == 0).sum())
        counts = {"positive": positive, "negative": negative}
        absent = "" if positive and negative else f"undefined: {positive} positive and {negative} negative images"
        scores = (candidate.point[k], champion.point[k])
        checks.append(_guard("finding", name, scores, difference.estimate(k), promote.finding_margin, counts, absent))
    for name, members in pair.groups.items():
        checks.append(_subgroup(pair, name, members, resamples, promote.subgroup_margin, evaluate.subgroup_images))
    return checks


def first(auroc: float, limit: float) -> Check:
    """Return the macro check of a model that has no champion to beat: reported, and no condition."""
    return Check("macro", "macro AUROC", "not compared", limit, auroc, reason="there is no champion")


def calibration(value: float, promote: PromoteParams, ci_low: float = _NAN, ci_high: float = _NAN) -> Check:
    """Check the candidate's mean expected calibration error, which needs no champion.

    Parameters
    ----------
    value : float
        Mean over the findings, of calibrated probabilities, in [0, 1]; NaN fails.
    promote : PromoteParams
        `max_calibration_error`.
    ci_low, ci_high : float
        Its interval, for the record.
    """
    limit = promote.max_calibration_error
    reason = ""
    if np.isnan(value):
        reason = "the calibration error is undefined"
    elif value > limit:
        reason = f"the mean calibration error is {value:.4f}, above {limit:g}"
    outcome: Outcome = "fail" if reason else "pass"
    return Check("calibration", "mean ECE", outcome, limit, value, ci_low=ci_low, ci_high=ci_high, reason=reason)


def _macro(candidate: Replicates, champion: Replicates, margin: float, counts: dict[str, int]) -> Check:
    estimate = (candidate - champion).estimate()
    scores = (float(candidate.point[0]), float(champion.point[0]))
    reason = ""
    if np.isnan(estimate.value):
        reason = "macro AUROC is undefined: no finding has a positive and a negative image"
    elif not estimate.ci_low > -margin:
        reason = (
            f"macro AUROC differs by {estimate.value:+.4f}, and its interval reaches down to {estimate.ci_low:+.4f}, "
            f"which is not above {-margin:+.4f}"
        )
    return _check("macro", "macro AUROC", "fail" if reason else "pass", margin, scores, estimate, counts, reason)


def _subgroup(
    pair: Pair, name: str, members: NDArray[np.bool_], resamples: Resamples, margin: float, least: int
) -> Check:
    counts = _counts(pair.labels[members], pair.patients[members])
    if counts["images"] < least:
        reason = f"{counts['images']} images, fewer than {least}"
        return Check("subgroup", name, "not compared", margin, counts=counts, reason=reason)
    labels = np.where(members[:, None], pair.labels, np.nan)  # leaves the others out and keeps the resamples paired
    candidate, champion = (_auroc(labels, scores, resamples).mean() for scores in (pair.candidate, pair.champion))
    scores = (float(candidate.point[0]), float(champion.point[0]))
    absent = "" if counts["findings"] else "undefined: no finding has a positive and a negative image"
    return _guard("subgroup", name, scores, (candidate - champion).estimate(), margin, counts, absent)


def _guard(
    kind: Literal["finding", "subgroup"],
    name: str,
    scores: tuple[float, float],
    estimate: Estimate,
    margin: float,
    counts: dict[str, int],
    absent: str,
) -> Check:
    """Check that a part is not worse by more than the margin; `absent` says why there is nothing to compare."""
    if absent:
        return _check(kind, name, "not compared", margin, scores, estimate, counts, absent)
    reason = f"{name} is worse by {-estimate.value:.4f}, more than {margin:g}" if estimate.value < -margin else ""
    return _check(kind, name, "fail" if reason else "pass", margin, scores, estimate, counts, reason)


def _check(
    kind: Literal["macro", "finding", "subgroup"],
    name: str,
    outcome: Outcome,
    margin: float,
    scores: tuple[float, float],
    estimate: Estimate,
    counts: dict[str, int],
    reason: str,
) -> Check:
    return Check(
        kind,
        name,
        outcome,
        margin,
        *scores,
        difference=estimate.value,
        ci_low=estimate.ci_low,
        ci_high=estimate.ci_high,
        non_inferior=None if np.isnan(estimate.value) else bool(estimate.ci_low > -margin),
        counts={**counts, "resamples": estimate.n_resamples},
        reason=reason,
    )


def _counts(labels: NDArray[np.floating[Any]], patients: NDArray[Any]) -> dict[str, int]:
    defined = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)
    return {"images": len(labels), "patients": len(np.unique(patients)), "findings": int(defined.sum())}


def _auroc(labels: NDArray[np.floating[Any]], scores: NDArray[np.floating[Any]], resamples: Resamples) -> Replicates:
    """Return the AUROC of each finding; the mean over them is the macro AUROC."""
    columns = range(labels.shape[1])
    return stack([replicate(rank_statistic(labels[:, k], scores[:, k], resamples), resamples)[[0]] for k in columns])
