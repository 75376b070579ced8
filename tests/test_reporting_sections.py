"""Sections of the report from documents written by hand, among them the parts that may be absent."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report_project import Page

from pipeline.errors import UserError
from pipeline.reporting import calibration, cases, curves, localisation, operating_points, results, seeds, subgroups
from pipeline.reporting.inputs import PLOTS
from pipeline.reporting.page import Section, render_page
from pipeline.reporting.subgroups import shown_differences, verdict


def score(name: str, value: float | None, half: float = 0.1) -> dict[str, Any]:
    """Return a score as `Estimate.as_dict` does, with the same bounds by every method."""
    prefix = "" if name == "auc" else f"{name}_"
    low, high = (None, None) if value is None else (round(value - half, 6), round(value + half, 6))
    methods = {f"{prefix}{kind}_low": low for kind in ("ci", "expanded", "percentile", "bca")}
    methods |= {f"{prefix}{kind}_high": high for kind in ("ci", "expanded", "percentile", "bca")}
    return {name: value, **methods, f"{prefix}n_resamples": 100}


def scores(auc: float | None = 0.8, positive: int = 40, negative: int = 60) -> dict[str, Any]:
    names = {"average_precision": 0.5, "brier": 0.2, "ece": 0.15, "calibrated_brier": 0.15, "calibrated_ece": 0.05}
    row = score("auc", auc)
    for name, value in names.items():
        row |= score(name, None if auc is None else value, 0.05)
    row["ece_chance"] = None if auc is None else 0.031
    share = positive / (positive + negative) if positive + negative else None
    return row | {"n_positive": positive, "n_negative": negative, "n_unknown": 0, "prevalence": share}


def metrics_of(findings: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    macro = scores() | {"n_findings": sum(row["auc"] is not None for row in findings.values())}
    for count in ("n_positive", "n_negative", "n_unknown", "prevalence"):
        del macro[count]
    test = {"images": 100, "patients": 90, "one_image_each": False, "macro": macro, "findings": findings}
    return {"confidence": 0.95, "resamples": 100, "interval": "bca", "test": test, **more}


def page_of(*sections: Section) -> Page:
    return Page(render_page("Title", "Headline", [], sections))


def empty_plots() -> dict[str, pd.DataFrame]:
    return {name: pd.DataFrame(columns=["finding", "calibrated", *columns]) for name, columns in PLOTS.items()}


TWO = {"Mass": scores(), "Hernia": scores(None, 0, 100)}


def test_page_of_a_predictions_table_alone() -> None:
    metrics, plots = metrics_of(TWO), empty_plots()
    page = page_of(
        results.section(metrics, None),
        curves.section(metrics, plots["roc"], plots["pr"], None),
        calibration.section(metrics, None, plots["reliability"]),
        operating_points.section(None, metrics["confidence"]),
        subgroups.section(None, metrics),
    )
    assert [text for level, text in page.headings if level == 2][1:] == [
        "1Results on the test images",
        "2ROC and precision–recall curves",
        "3Calibration",
        "4Operating points",
        "5Subgroups",
    ]
    assert page.row("Scores on the test images", "Mass")[0] == "0.800 0.700 to 0.900"
    assert page.row("Scores on the test images", "Hernia")[0] == "undefined: no positive image in the test split"
    assert page.row("Scores on the test images", "Mean of 1 finding")[0].startswith("0.800")
    assert "There is no metadata floor" in page.words
    assert "view, sex and age of the images are not known" in page.words


def test_the_floor_stands_beside_the_model() -> None:
    floor = {"features": ["view", "age"], "macro": score("auc", 0.6) | {"n_findings": 1}, "notes": "not used: sex"}
    floor["macro_difference"] = score("difference", 0.2, 0.05)
    floor["findings"] = {"Mass": score("auc", 0.6), "Hernia": score("auc", None)}
    floor["differences"] = {"Mass": score("difference", 0.2, 0.05), "Hernia": score("difference", None)}
    page = page_of(results.section(metrics_of(TWO), floor))
    assert page.row("Scores", "Mass")[2:4] == ["0.600", "+0.200 +0.150 to +0.250"]
    assert "only view position and age, fitted on the training images" in page.words
    assert "above the floor by +0.200 (+0.150 to +0.250), mean of 1 finding" in page.words
    assert "Not used: sex." in page.words


def test_delong_stands_beside_the_bootstrap_where_each_patient_has_one_image() -> None:
    metrics = metrics_of({"Mass": scores() | {"delong_low": 0.711, "delong_high": 0.889}})
    assert "DeLong" not in page_of(results.section(metrics, None)).text
    metrics["test"]["one_image_each"] = True
    page = page_of(results.section(metrics, None))
    assert page.row("Bounds of the bootstrap", "Mass") == [
        "0.800",
        "0.700 to 0.900",
        "0.700 to 0.900",
        "0.700 to 0.900",
        "0.711 to 0.889",
        "100",
    ]


def fitted(method: str, note: str = "") -> dict[str, Any]:
    losses = {"none": 0.6, "temperature": 0.5, "platt": 0.4, "isotonic": None}
    return {"method": method, "log_loss": losses, "n_positive": 30, "n_negative": 70, "note": note}


def test_calibration_says_what_was_done_to_which_finding() -> None:
    document = {"findings": {"Mass": fitted("platt"), "Hernia": fitted("none", "2 patients with the finding")}}
    rows = [("Mass", kind, 0, 0.2, 0.3, 0.1, 0.5, 50) for kind in ("raw", "calibrated")]
    table = pd.DataFrame(rows, columns=["finding", "calibrated", *PLOTS["reliability"]])
    page = page_of(calibration.section(metrics_of(TWO), document, table))
    assert "Of 2 findings: Platt scaling for 1; the output of 1 is left as it is." in page.words
    assert page.row("Errors of the probabilities", "Mass")[:4] == [
        "Platt scaling",
        "0.150 0.100 to 0.200",
        "0.031",
        "0.050 0.000 to 0.100",
    ]
    assert page.row("Errors of the probabilities", "Hernia")[:4] == ["none", "undefined", "undefined", "as raw"]
    assert page.row("Log-loss", "Mass")[:4] == ["0.600", "0.500", "0.400", "undefined"]
    assert "Hernia: 2 patients with the finding" in page.words


def test_nothing_calibrated_has_no_columns_for_it() -> None:
    document = {"findings": {"Mass": fitted("none")}}
    page = page_of(calibration.section(metrics_of({"Mass": scores()}), document, None))
    assert "No calibrator changes the outputs of the finding." in page.words
    assert len(page.row("Errors of the probabilities", "Mass")) == 6


def test_operating_point_below_its_requirement_and_one_that_does_not_exist() -> None:
    counts = {"tp": 30, "fn": 10, "fp": 6, "tn": 54, "n_positive": 40, "n_negative": 60}
    test = counts | score("sensitivity", 0.75) | score("specificity", 0.9) | score("ppv", 30 / 36, 0.05)
    test |= score("npv", 54 / 64, 0.05) | score("f1", 60 / 76, 0.05) | {"npv_ci_method": "clopper-pearson"}
    row = {"threshold": 0.31, "calibrated_threshold": 0.25, "val": {"sensitivity": 0.9, "specificity": 0.85}}
    document = {
        "points": ["sensitivity"],
        "requirement": {"sensitivity": 0.9},
        "findings": {
            "Mass": {"sensitivity": row | {"test": test}},
            "Hernia": {"sensitivity": {"threshold": None, "test": None, "why": "no validation image with the finding"}},
        },
    }
    page = page_of(operating_points.section(document, 0.95))
    assert "Below what was required, on the test images: Mass." in page.words
    assert "Of 1,000 images like these, 400 have mass; at this operating point the model flags 360" in page.words
    cells = page.row("Sensitivity of at least 90%", "Mass")
    assert cells[0] == "0.31 calibrated 0.25"
    assert cells[1] == "75.0% 65.0 to 85.0% 30 of 40 validation 90.0%"
    assert cells[4].startswith("84.4% 79.4 to 89.4%† 54 of 64")
    assert "† All resamples agree" in page.words
    assert page.row("Sensitivity of at least 90%", "Hernia") == ["undefined: no validation image with the finding"]


def difference(finding: str, name: str, p: float, adjusted: float) -> dict[str, Any]:
    found = {"by": "sex", "group": "female", "finding": finding, "score": name, "p_value": p, "p_adjusted": adjusted}
    return found | score("difference", -0.05, 0.02)


def test_subgroups_tell_underdiagnosis_first_and_how_many_comparisons_there_were() -> None:
    rates = {"fnr": 0.2, "fpr": 0.1}
    finding = scores() | {key: value for name, rate in rates.items() for key, value in score(name, rate, 0.05).items()}
    healthy = score("fpr", 0.3, 0.05) | score("fnr", 0.4, 0.05) | {"n": 25, "n_healthy": 30}
    group = {"by": "sex", "group": "female", "images": 55, "patients": 50, "scored": True, "no_finding": healthy}
    group |= {"macro": scores() | {"n_findings": 1}, "findings": {"Mass": finding}}
    small = {"by": "sex", "group": "male", "images": 9, "patients": 9, "scored": False}
    rows = [difference("Mass", "auc", 0.0001, 0.0004), difference("macro", "auc", 0.5, 0.6)]
    rows += [difference("Edema", "fnr", 0.2, 0.3), difference("No Finding", "fpr", 0.01, 0.04)]
    document = {"min_images": 50, "n_comparisons": 4, "multiplicity": "4 comparisons. p_adjusted is after …"}
    document |= {"groups": [group, small], "differences": rows, "unknown_for_all": ["age"]}
    page = page_of(subgroups.section(document, metrics_of(TWO)))
    assert page.row("Scores by subgroup", "Female") == [
        "30.0% 25.0 to 35.0% of 25 images",
        "",
        "40.0% 35.0 to 45.0% of 30 images",
        "0.800 0.700 to 0.900 1 finding",
        "",
        "55",
        "50",
    ]
    assert page.row("Scores by subgroup", "Male")[0] == "not scored: fewer than 50 images"
    assert "2 of 4 differences between a group and the other images have an adjusted p below 0.05." in page.words
    assert "4 comparisons. The adjusted p is after …" in page.words
    assert "Not known for any image: age." in page.words
    shown = [row for row in page.rows if row[:1] == ["Sex: female"]]
    assert [row[1] for row in shown] == ["Mean AUC", "Underdiagnosis", "Mass: AUC"]
    assert shown[2][3:] == ["<0.001", "<0.001"]
    assert "AUC 0.800 (0.700 to 0.900) missed 20.0% (15.0 to 25.0%) of 40" in page.row("Sex", "Mass")[0]


def test_no_more_than_thirty_single_differences_are_named() -> None:
    rows = [difference(f"Finding_{k:02d}", "auc", 0.001 * (50 - k), 0.04) for k in range(50)]
    shown = shown_differences(rows)
    assert len(shown) == 30
    assert shown[0]["finding"] == "Finding_49"
    assert verdict(rows, 60).startswith("50 of 60 differences")
    assert verdict([], 0).startswith("No group was compared")


def block(pointing: float) -> dict[str, Any]:
    overlaps = [
        {"threshold": t, "localised": 0.5, "localised_ci_low": 0.4, "localised_ci_high": 0.6} for t in (0.1, 0.5)
    ]
    return score("pointing", pointing) | {"iou": overlaps, "iobb": overlaps}


def test_localisation_shows_what_the_model_has_to_beat() -> None:
    row = block(0.6) | score("chance", 0.2, 0.01) | {"average_map": block(0.5), "shuffled": block(0.25)}
    for name, value in (("chance", 0.4), ("average_map", 0.1), ("shuffled", 0.35)):
        row |= score(f"above_{name}", value)
    counts = {"n_boxes": 12, "n_images": 11, "n_patients": 10, "n_flat": 2}
    document = {"confidence": 0.95, **counts, "n_unlabelled": 0, "left_out": {"box is beside the film": 1, "other": 0}}
    document |= {"macro": row | {"n_findings": 1}, "findings": {"Mass": row | counts}}
    page = page_of(localisation.section(document))
    assert page.row("Share of the maps", "Mass") == [
        "0.600 0.500 to 0.700",
        "",
        "+0.400 +0.300 to +0.500 which has 0.200",
        "+0.100 +0.000 to +0.200 which has 0.500",
        "+0.350 +0.250 to +0.450 which has 0.250",
        "12",
        "11",
        "10",
    ]
    assert "Scored on 12 boxes on 11 images of 10 patients." in page.words
    assert "2 maps are flat" in page.words
    assert "Left out: box is beside the film (1)." in page.words
    assert page.row("Share localised, by intersection over union", "Mass") == ["0.500 0.400 to 0.600"] * 2


@pytest.mark.parametrize(
    ("document", "words"),
    [(None, "there are no boxes for these images"), ({"findings": {}}, "no test image has a reader's box")],
)
def test_localisation_that_was_not_scored_says_why(document: dict[str, Any] | None, words: str) -> None:
    assert words in page_of(localisation.section(document)).words.replace("’", "'")


def test_seeds_show_their_spread_or_say_that_there_is_none() -> None:
    spread = {"mean": 0.8, "sd": 0.02, "min": 0.78, "max": 0.82, "n": 3}
    nothing = {"mean": None, "sd": None, "min": None, "max": None, "n": 0}
    repeats = {"seeds": [7, 8, 9], "macro": spread | {"n_findings": 1}, "findings": {"Mass": spread, "Hernia": nothing}}
    page = page_of(seeds.section(metrics_of(TWO, repeats=repeats), 7))
    assert page.row("Test AUC over the trainings", "Mass") == ["0.800", "0.020", "", "0.780", "0.820", "3"]
    assert page.row("Test AUC over the trainings", "Hernia") == [
        "undefined",
        "undefined",
        "",
        "undefined",
        "undefined",
        "0",
    ]
    assert "3 trainings that differ in nothing but their seed (7, 8, 9)" in page.words
    assert "One training, with seed 7." in page_of(seeds.section(metrics_of(TWO, repeats=None), 7)).words


def test_cases_that_are_not_there(tmp_path: Path) -> None:
    assert "No cases are shown" in page_of(cases.section(None, tmp_path)).words
    case = {"file": "../001.png", "kind": "miss", "finding": "Mass", "label": 1, "probability": 0.1, "threshold": 0.5}
    (tmp_path / "001.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"001\.png is missing or is no picture: run `cxr evaluate` again"):
        cases.section({"cases": [case | {"confidence": 0.5, "width": 1, "height": 1, "alt": "x"}]}, tmp_path)


def test_a_value_that_a_template_wants_and_a_section_lacks_is_an_error() -> None:
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError, match="rows"):
        render_page("Title", "Headline", [], [Section("seeds", "Seeds", {})])
