"""Numbers, sentences and warnings of the report, on documents written by hand."""

import dataclasses
import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.params import Params
from pipeline.params_file import parse_params
from pipeline.reporting.data import inclusion
from pipeline.reporting.frequencies import CELLS, bar, frequencies, sentence
from pipeline.reporting.provenance import parameters
from pipeline.reporting.summary import headline, key_figures, notices, protocol
from pipeline.reporting.text import cell, estimate, interval, p_value, prose, signed

COUNTS = st.fixed_dictionaries({name: st.integers(0, 50_000) for name in CELLS}).filter(lambda c: sum(c.values()) > 0)
DEFINED = {"auc": 0.8, "ci_low": 0.7, "ci_high": 0.9, "n_positive": 40, "n_negative": 60, "n_unknown": 0}
UNDEFINED = {"auc": None, "ci_low": None, "ci_high": None, "n_positive": 0, "n_negative": 0, "n_unknown": 5}


def metrics_of(findings: dict[str, dict[str, Any]], resamples: int = 100) -> dict[str, Any]:
    n = sum(row["auc"] is not None for row in findings.values())
    macro = {"auc": 0.8 if n else None, "ci_low": 0.7, "ci_high": 0.9, "n_findings": n}
    findings = {name: {"n_resamples": resamples} | row for name, row in findings.items()}
    test = {"images": 5, "patients": 4, "findings": findings, "macro": macro}
    return {"confidence": 0.95, "resamples": resamples, "interval": "bca", "test": test}


@given(COUNTS)
def test_frequencies_add_up_and_are_off_by_less_than_one_image(counts: dict[str, int]) -> None:
    n = frequencies(counts)
    total, base = sum(counts.values()), n["base"]
    assert sum(n[name] for name in CELLS) == base
    assert all(abs(n[name] - counts[name] * base / total) < 1 for name in CELLS)
    positive = counts["tp"] + counts["fn"]
    assert not positive or positive * base >= total  # at least one of the base has the finding


@given(COUNTS)
def test_the_bar_is_as_long_as_its_parts(counts: dict[str, int]) -> None:
    parts = bar(counts)
    assert [part["name"] for part in parts] == [name for name in CELLS if counts[name]]
    assert sum(part["width"] for part in parts) == pytest.approx(1000, abs=0.3)
    assert all(part["width"] >= 3.9 for part in parts)
    for before, after in itertools.pairwise(parts):
        assert before["x"] + before["width"] == pytest.approx(after["x"], abs=0.2)


@given(COUNTS)
def test_the_sentence_adds_up(counts: dict[str, int]) -> None:
    text = sentence("Effusion", counts)
    number = r"([\d,]+|none|fewer than 1)"
    pattern = (
        rf"Of {number} images like these, {number} ha(?:s|ve) effusion; at this operating point the model flags "
        rf"{number}: {number} of the {number} and {number} without it; {number} (?:is|are) missed\."
    )
    match = re.fullmatch(pattern, text)
    assert match
    base, have, flagged, found, again, vain, missed = (
        0 if word in ("none", "fewer than 1") else int(word.replace(",", "")) for word in match.groups()
    )
    assert have == again == found + missed
    assert flagged == found + vain
    assert flagged <= base
    assert ("none is missed" in text) == (counts["fn"] == 0)


def test_the_sentence_of_a_known_table() -> None:
    # By hand: 248 of 4,000 have it, 62 of 1,000; 560 are flagged, 140 of 1,000.
    counts = {"tp": 220, "fn": 28, "fp": 340, "tn": 3412}
    assert sentence("Effusion", counts) == (
        "Of 1,000 images like these, 62 have effusion; at this operating point the model flags 140: 55 of the 62 and "
        "85 without it; 7 are missed."
    )


def test_a_rare_finding_is_told_of_a_larger_number() -> None:
    text = sentence("Hernia", {"tp": 1, "fn": 1, "fp": 100, "tn": 9_898})
    assert text.startswith("Of 10,000 images like these, 2 have hernia")
    assert "fewer than 1 is missed" in sentence("Mass", {"tp": 9_999, "fn": 1, "fp": 0, "tn": 0})


def test_what_is_undefined_is_never_a_number() -> None:
    assert estimate({"auc": None}) == "undefined"
    assert estimate({"auc": 0.5, "ci_low": None, "ci_high": None}) == "0.500 (undefined)"
    assert cell({}, "brier") == {"value": "undefined", "interval": ""}
    assert interval({"brier": 0.1, "brier_ci_low": 0.05, "brier_ci_high": 0.2}, "brier") == "0.050 to 0.200"
    assert p_value(None) == "undefined"
    assert p_value(0.0004) == "<0.001"


def test_differences_carry_a_sign() -> None:
    assert signed(-0.1234) == "−0.123"
    assert estimate({"d": 0.1, "d_ci_low": -0.05, "d_ci_high": 0.2}, "d", plus=True) == "+0.100 (−0.050 to +0.200)"


def test_findings_within_a_sentence() -> None:
    assert prose("Pleural_Thickening") == "pleural thickening"
    assert prose("COVID-19") == "COVID-19"
    assert prose("ILD") == "ILD"


def test_all_undefined_says_so_instead_of_a_number() -> None:
    metrics = metrics_of({"Mass": UNDEFINED})
    assert headline(metrics, "").startswith("Test AUC is undefined for every finding; 5 images of 4 patients.")
    assert notices(metrics, "local")[0].text == (
        "There is no AUC for Mass (its label is unknown in all 5 test images)."
    )
    assert key_figures(metrics, None) == []


def test_a_mean_never_stands_without_its_number_of_findings() -> None:
    metrics = metrics_of({"Mass": DEFINED, "Edema": DEFINED, "Hernia": UNDEFINED})
    metrics["test"]["macro"] |= {"ece": 0.1, "ece_ci_low": 0.05, "ece_ci_high": 0.15}
    floor = {
        "macro": {"auc": 0.6, "n_findings": 2},
        "macro_difference": {"difference": 0.2, "difference_ci_low": 0.1, "difference_ci_high": 0.3},
    }
    assert "over 2 of 3 findings" in headline(metrics, "")
    shown = {figure.label: figure for figure in key_figures(metrics, floor)}
    assert shown["AUC above the floor"].value == "+0.200 (+0.100 to +0.300)"
    assert shown["AUC above the floor"].basis == "mean of 2 findings; floor 0.600"
    assert shown["Shown to be better than chance"].value == "2 of 3"
    assert shown["Calibration error, raw output"].basis == "mean of 2 findings"


def test_key_figures_of_one_finding_count_its_images_instead_of_findings() -> None:
    row = DEFINED | {"average_precision": 0.9, "average_precision_ci_low": 0.8, "average_precision_ci_high": 0.95}
    [figure] = key_figures(metrics_of({"Pneumonia": row}), None)
    assert (figure.label, figure.value) == ("Average precision", "0.900 (0.800 to 0.950)")
    assert figure.basis == "40 images with it, 60 without"


def test_warnings_of_few_cases_lost_resamples_and_a_floor_that_is_not_passed() -> None:
    metrics = metrics_of({"Mass": DEFINED | {"n_positive": 9, "n_resamples": 99}})
    assert [notice.title for notice in notices(metrics, "local")] == [
        "Very few cases",
        "Intervals that rest on fewer resamples",
        "For research only, not a medical device",
    ]
    assert "Mass (9 positive)" in notices(metrics, "local")[0].text
    floor = {
        "macro": {"auc": 0.78, "n_findings": 1},
        "macro_difference": {"difference": 0.02, "difference_ci_low": -0.01, "difference_ci_high": 0.05},
    }
    first = notices(metrics, "simulated", floor)
    assert [notice.title for notice in first[:2]] == ["Simulated data", "Not shown to be better than the floor"]
    assert "+0.020 (−0.010 to +0.050), 1 finding" in first[1].text


def test_protocol_in_words() -> None:
    params = Params().split
    assert protocol(params) == "whole patients, 7:2:1"
    assert protocol(dataclasses.replace(params, train=0.7, val=0.15, test=0.15)) == "whole patients, 70:15:15"


def test_only_the_most_frequent_reasons_are_listed() -> None:
    reasons = {f"code-{k:02d}": {"count": 1 + (k == 19), "example": "why"} for k in range(20)}
    counts = {"images": 5, "quarantined": 21, "quarantine_reasons": reasons, "left_out": {}, "patients": 3}
    counts |= {"suspicious": 3, "suspicious_reasons": {"inverted": {"count": 3, "example": "r = 0.5"}}}
    part = {"images": 1, "patients": 1}
    unused = {"in none of the source's lists": 2}
    flow = inclusion(counts, {"left_out_reasons": unused, "train": part, "val": part, "test": part})
    assert flow["quarantined"][0] == ("code-19 (such as: why)", 2)
    assert flow["quarantined"][-1] == ("other reasons", 8)
    assert sum(count for _, count in flow["quarantined"]) == 21
    assert flow["unused"] == [("in none of the source's lists", 2)]
    assert flow["unused_total"] == 2
    assert flow["suspicious"] == [("seems to be inverted: white air, black bones (such as: r = 0.5)", 3)]


def test_parameters_keep_no_secret_and_no_path() -> None:
    values = {"uri": "https://example.org/ml?token=secret"}
    trained = parse_params({"tracking": values, "download": {"archive": "/home/dr who/a.zip"}}, "test")
    shown = dict(parameters(trained, trained))
    assert ("uri", "https://example.org/ml") in shown["tracking"]
    assert ("archive", "a.zip") in shown["download"]
