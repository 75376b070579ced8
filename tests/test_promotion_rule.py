"""The rule of promotion: what it must let through, what it must stop, and its figures beside scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from pipeline.params import EvaluateParams, PromoteParams
from pipeline.promotion_rule import Pair, accepted, calibration, compare, first

EVALUATE = EvaluateParams(resamples=100, subgroup_images=20)
PROMOTE = PromoteParams()
SEEDS = st.integers(0, 2**31 - 1)


def drawn(seed: int, n_images: int = 80, n_findings: int = 3, prevalence: float = 0.3) -> Pair:
    """Draw two models that see the findings equally well, with unknown labels, two images a patient, two subgroups."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n_images, n_findings)) < prevalence).astype(np.float64)
    labels[rng.random(labels.shape) < 0.1] = np.nan
    known = np.nan_to_num(labels, nan=0.5)
    champion, candidate = (1.5 * known + rng.normal(size=labels.shape) for _ in range(2))
    women = rng.random(n_images) < 0.5
    patients = np.array([f"p{n // 2:03d}" for n in range(n_images)])
    names = [f"f{k}" for k in range(n_findings)]
    return Pair(names, labels, candidate, champion, patients, {"sex female": women, "sex male": ~women})


def with_candidate(pair: Pair, candidate: np.ndarray) -> Pair:
    return Pair(pair.findings, pair.labels, candidate, pair.champion, pair.patients, pair.groups)


@given(SEEDS, st.integers(2, 60), st.sampled_from([0.02, 0.3, 0.9]), st.floats(1e-6, 1))
def test_an_identical_model_passes_whatever_the_data_if_the_margins_are_positive(seed, n_images, prevalence, margin):
    pair = drawn(seed, n_images, prevalence=prevalence)
    pair = with_candidate(pair, pair.champion)
    checks = compare(pair, PromoteParams(macro_margin=margin, finding_margin=margin, subgroup_margin=margin), EVALUATE)
    differences = [check.difference for check in checks if not np.isnan(check.difference)]
    assert differences == [0] * len(differences)
    if np.isnan(checks[0].candidate):  # no finding has both classes: nothing can be shown
        assert not accepted(checks)
    else:
        assert accepted(checks)


@given(SEEDS)
def test_any_rising_change_of_the_scores_is_an_identical_model(seed):
    pair = drawn(seed)
    checks = compare(with_candidate(pair, np.exp(pair.champion) * 3), PROMOTE, EVALUATE)
    assert accepted(checks)
    assert checks[0].difference == 0


@given(SEEDS, st.integers(0, 2))
def test_a_model_that_is_worse_beyond_a_margin_never_passes(seed, worse):
    """One finding's scores are turned round, so that its AUROC falls far below what the margin allows."""
    pair = drawn(seed)
    candidate = pair.champion.copy()
    candidate[:, worse] *= -1
    checks = compare(with_candidate(pair, candidate), PROMOTE, EVALUATE)
    assert not accepted(checks)
    failed = [check for check in checks if check.outcome == "fail"]
    assert pair.findings[worse] in {check.name for check in failed}
    assert all(check.reason for check in failed)


@given(SEEDS, SEEDS, st.floats(0.001, 0.3), st.floats(0.001, 0.3))
def test_whatever_passes_is_not_worse_than_the_margins_anywhere(seed, other, macro_margin, margin):
    pair = with_candidate(drawn(seed), drawn(other).candidate + drawn(seed).champion)
    promote = PromoteParams(macro_margin=macro_margin, finding_margin=margin, subgroup_margin=margin)
    checks = compare(pair, promote, EVALUATE)
    if accepted(checks):
        assert checks[0].ci_low > -macro_margin
        assert all(check.difference >= -margin for check in checks[1:] if not np.isnan(check.difference))


@settings(max_examples=50)
@given(SEEDS)
def test_wider_margins_never_refuse_what_narrower_ones_let_through(seed):
    pair = drawn(seed)
    margins = (0.01, 0.05, 0.2)
    verdicts = [
        accepted(compare(pair, PromoteParams(macro_margin=m, finding_margin=m, subgroup_margin=m), EVALUATE))
        for m in margins
    ]
    assert verdicts == sorted(verdicts)


@given(SEEDS)
def test_the_order_of_the_images_does_not_matter(seed):
    pair = drawn(seed)
    order = np.random.default_rng(seed).permutation(len(pair.labels))
    turned = Pair(
        pair.findings,
        pair.labels[order],
        pair.candidate[order],
        pair.champion[order],
        pair.patients[order],
        {name: members[order] for name, members in pair.groups.items()},
    )
    here, there = (compare(item, PROMOTE, EVALUATE) for item in (pair, turned))
    for ours, theirs in zip(here, there, strict=True):
        assert (ours.outcome, ours.counts) == (theirs.outcome, theirs.counts)
        figures = ("candidate", "champion", "difference", "ci_low", "ci_high")
        np.testing.assert_allclose(
            [getattr(ours, name) for name in figures], [getattr(theirs, name) for name in figures], atol=1e-12
        )


@settings(max_examples=25)
@given(SEEDS)
def test_every_figure_is_scikit_learns(seed):
    pair = drawn(seed)
    checks = {check.name: check for check in compare(pair, PROMOTE, EVALUATE)}

    def auroc(scores: np.ndarray, k: int, members: np.ndarray) -> float:
        members = members & ~np.isnan(pair.labels[:, k])
        return float(roc_auc_score(pair.labels[members, k], scores[members, k]))

    def macro(scores: np.ndarray, members: np.ndarray) -> float:
        both = [k for k in range(3) if {0, 1} <= set(pair.labels[members, k])]
        return float(np.mean([auroc(scores, k, members) for k in both]))

    everything = np.ones(len(pair.labels), bool)
    for k, name in enumerate(pair.findings):
        assert checks[name].candidate == pytest.approx(auroc(pair.candidate, k, everything))
        assert checks[name].champion == pytest.approx(auroc(pair.champion, k, everything))
        assert checks[name].counts["positive"] == int((pair.labels[:, k] == 1).sum())
    for name, members in {"macro AUROC": everything, **pair.groups}.items():
        assert checks[name].candidate == pytest.approx(macro(pair.candidate, members))
        expected = macro(pair.candidate, members) - macro(pair.champion, members)
        assert checks[name].difference == pytest.approx(expected)
        assert checks[name].counts["images"] == members.sum()
        assert checks[name].counts["patients"] == len(set(pair.patients[members]))


def test_macro_needs_its_lower_bound_and_a_finding_only_its_value():
    """Two models of equal skill on few images: equal on average, and not shown to be."""
    pair = drawn(3, n_images=60)
    wide = PromoteParams(macro_margin=0.001, finding_margin=1.0, subgroup_margin=1.0)
    checks = compare(pair, wide, EVALUATE)
    assert checks[0].ci_low < -0.001 < checks[0].ci_high
    assert checks[0].outcome == "fail"
    assert "its interval reaches down to" in checks[0].reason
    values = PromoteParams(macro_margin=1.0, finding_margin=0.12, subgroup_margin=1.0)
    findings = [check for check in compare(pair, values, EVALUATE) if check.kind == "finding"]
    unshown = [check for check in findings if check.ci_low <= -0.12 <= check.difference]
    assert unshown
    assert all(check.outcome == "pass" and check.non_inferior is False for check in unshown)
    assert all((check.outcome == "fail") == (check.difference < -0.12) for check in findings)


def test_what_has_no_positive_or_no_negative_image_is_said_and_not_judged():
    pair = drawn(1)
    labels = pair.labels.copy()
    labels[:, 0] = np.where(np.isnan(labels[:, 0]), np.nan, 0)
    labels[:, 1] = np.nan
    checks = compare(
        Pair(pair.findings, labels, pair.champion, pair.champion, pair.patients, pair.groups), PROMOTE, EVALUATE
    )
    by_name = {check.name: check for check in checks}
    assert by_name["f0"].outcome == by_name["f1"].outcome == "not compared"
    assert by_name["f0"].reason.startswith("undefined: 0 positive and ")
    assert by_name["f1"].reason == "undefined: 0 positive and 0 negative images"
    assert np.isnan(by_name["f0"].difference)
    assert by_name["macro AUROC"].counts["findings"] == 1
    assert by_name["macro AUROC"].candidate == by_name["f2"].candidate
    assert accepted(checks)


def test_nothing_defined_is_a_refusal():
    pair = drawn(1)
    nothing = Pair(pair.findings, pair.labels * 0, pair.candidate, pair.champion, pair.patients, pair.groups)
    checks = compare(nothing, PROMOTE, EVALUATE)
    assert checks[0].reason == "macro AUROC is undefined: no finding has a positive and a negative image"
    assert not accepted(checks)


def test_small_subgroups_are_counted_and_not_judged():
    pair = drawn(1)
    few = np.arange(len(pair.labels)) < 19
    candidate = pair.champion.copy()
    candidate[few] *= -1  # bad for these, which is not looked at
    pair = Pair(pair.findings, pair.labels, candidate, pair.champion, pair.patients, {"view AP": few})
    check = compare(pair, PromoteParams(macro_margin=1.0, finding_margin=1.0), EVALUATE)[-1]
    assert (check.outcome, check.reason) == ("not compared", "19 images, fewer than 20")
    assert (check.counts["images"], check.counts["patients"]) == (19, 10)


def test_a_loss_in_one_subgroup_alone_is_a_refusal():
    pair = drawn(7, n_images=400)
    women = pair.groups["sex female"]
    candidate = pair.champion.copy()
    candidate[women] += np.random.default_rng(0).normal(scale=2.5, size=candidate[women].shape)
    wide = PromoteParams(macro_margin=1.0, finding_margin=1.0, subgroup_margin=0.05)
    checks = compare(with_candidate(pair, candidate), wide, EVALUATE)
    assert [check.name for check in checks if check.outcome == "fail"] == ["sex female"]


@pytest.mark.parametrize(
    ("value", "outcome"), [(0.0, "pass"), (0.05, "pass"), (0.0500001, "fail"), (1.0, "fail"), (float("nan"), "fail")]
)
def test_calibration_has_an_absolute_bound(value, outcome):
    assert calibration(value, PromoteParams(max_calibration_error=0.05)).outcome == outcome


def test_the_first_champion_has_no_condition_on_its_auroc():
    assert accepted([first(0.3, 0.01), calibration(0.01, PROMOTE)])
    assert not accepted([first(0.9, 0.01), calibration(0.2, PROMOTE)])
    assert not accepted([])
