"""Geometry and colours of the report's figures, and its example images."""

import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.images import pixel_sha256
from pipeline.params import Params
from pipeline.reporting.examples import choose_examples, draw_example
from pipeline.reporting.figures import forest_axis, forest_mark, forest_place, line_chart, nice_ticks
from pipeline.reporting.panels import band_path, curve_path, pr_panel, reliability_panel, roc_panel, step_path

STYLE = Path(__file__).parents[1] / "pipeline" / "templates" / "style.css"
SHARES = st.floats(0, 1)


def numbers(path: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?[\d.]+", path)]


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_enclose_the_values(low: float, span: float) -> None:
    ticks, digits = nice_ticks(low, low + span)
    assert 2 <= len(ticks) <= 8
    tolerance = 1e-6 * max(1.0, abs(low), span)
    assert ticks[0] <= low + tolerance
    assert ticks[-1] >= low + span - tolerance
    assert len({f"{tick:.{digits}f}" for tick in ticks}) == len(ticks)


@given(st.lists(st.tuples(SHARES, SHARES, SHARES), min_size=1, max_size=9))
def test_forest_marks_stand_on_their_axis_in_order(triples: list[tuple[float, float, float]]) -> None:
    rows = [
        dict(zip(("ci_low", "auc", "ci_high"), sorted(values), strict=True)) for values in triples
    ]  # the interval holds its score
    axis = forest_axis(rows)
    assert axis["low"] <= 0.5 <= axis["high"]
    for row in rows:
        mark = forest_mark(row, axis)
        assert mark
        assert 0 <= mark["low"] <= mark["x"] <= mark["high"] <= axis["width"]


def test_forest_of_an_undefined_score_has_no_mark() -> None:
    row = {"auc": None, "ci_low": None, "ci_high": None}
    axis = forest_axis([row])
    assert forest_mark(row, axis) is None
    assert forest_place(None, axis) is None
    assert forest_place(-3.0, axis) is None
    assert [label for _, label in axis["ticks"]][0::5] == ["0.5", "1.0"]


def test_curve_is_in_the_square_and_upright() -> None:
    assert curve_path([0, 0, 0.00001, 1], [0, 0.5, 0.5, 1]) == "M0 100 L0 50 L100 0"
    assert curve_path([], []) == ""


def test_precision_holds_back_to_the_recall_before() -> None:
    # At recall 0.5 precision is 1, at recall 1 it is 0.5: the area is 0.5 x 1 + 0.5 x 0.5 = 0.75.
    assert step_path([0, 0.5, 1], [1, 1, 0.5]) == "M0 0 L50 0 L50 50 L100 50"
    assert step_path([], []) == ""


def test_band_goes_there_above_and_back_below_and_leaves_out_the_unknown() -> None:
    nan = float("nan")
    assert band_path([0, 0.5, 1], [0.1, nan, 0.3], [0.4, 0.9, 0.6]) == "M0 60 L100 40 L100 70 L0 90Z"
    assert band_path([0, 1], [nan, nan], [nan, nan]) == ""


@given(st.lists(st.tuples(SHARES, SHARES, SHARES, SHARES), min_size=1, max_size=20))
def test_panels_stay_in_the_square(rows: list[tuple[float, float, float, float]]) -> None:
    roc = roc_panel(pd.DataFrame(rows, columns=["fpr", "tpr", "tpr_low", "tpr_high"]))
    pr = pr_panel(pd.DataFrame(rows, columns=["recall", "precision", "precision_low", "precision_high"]))
    assert roc
    assert pr
    for path in (*roc.values(), *pr.values()):
        assert all(0 <= value <= 100 for value in numbers(path))
    assert roc_panel(pd.DataFrame(columns=["fpr", "tpr"])) is None


def test_axes_of_a_reliability_panel_end_where_its_points_do() -> None:
    points = pd.DataFrame({"calibrated": ["raw", "raw", "calibrated"], "forecast": [0.02, 0.1, 0.05]})
    points = points.assign(observed=[0.0, 0.12, 0.06], observed_low=[0.0, 0.05, 0.01], observed_high=[0.04, 0.2, 0.2])
    panel = reliability_panel(points)
    assert panel
    assert panel["end"] == "0.2"
    assert panel["marks"]["raw"][1] == {"x": "50", "y": "40", "low": "75", "high": "0"}
    assert panel["line"]["calibrated"] == "M25 70"
    assert reliability_panel(points.head(0)) is None


def test_chart_leaves_a_gap_where_nothing_is_known_and_takes_one_epoch() -> None:
    chart = line_chart([1, 2, 3], {"train": [1.0, float("nan"), 3.0], "val": [float("nan")] * 3}, 2)
    assert re.fullmatch(r"M\S+ \S+ M\S+ \S+", chart["lines"][0]["path"])
    assert chart["lines"][1]["end"] is None
    assert chart["best"] == pytest.approx((chart["box"][0] + chart["box"][2]) / 2)
    assert len(line_chart([1], {"train": [0.5]}, 1)["x_ticks"]) == 1


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def palettes() -> list[dict[str, str]]:
    """Return the colours of the light, the dark and the printed page."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE.read_text(encoding="utf-8"), re.DOTALL)
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in blocks]


def test_the_formula_of_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the known first grey that fails


def test_text_and_marks_can_be_told_from_the_page() -> None:
    assert len(palettes()) == 3
    for palette in palettes():
        for ground in ("page", "faint"):
            for name in ("ink", "soft", "alert", "model-text"):
                assert contrast(palette[name], palette[ground]) >= 4.5, (name, ground)
        for name in ("model", "other", "mid"):  # WCAG 2.2, 1.4.11: graphics
            assert contrast(palette[name], palette["page"]) >= 3, name


def test_colours_are_never_the_only_difference() -> None:
    style = STYLE.read_text(encoding="utf-8")
    assert re.search(r"\.charts \.train \{[^}]*stroke-dasharray", style)
    assert re.search(r"\.rawline \{[^}]*stroke-dasharray", style)
    assert "stroke-dasharray" not in re.findall(r"\.calline \{[^}]*\}", style)[0]


@given(
    st.lists(st.lists(st.sampled_from([0, 1, None]), min_size=3, max_size=3), min_size=1, max_size=12),
    st.integers(0, 15),
)
def test_examples_differ_and_show_findings_first(rows: list[list[int | None]], count: int) -> None:
    labels = pd.DataFrame({f"f{k}": pd.array([row[k] for row in rows], dtype="Float64") for k in range(3)})
    chosen = choose_examples(labels, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(rows))
    if count >= 4:
        for k in range(3):
            has = {place for place, row in enumerate(rows) if row[k] == 1}
            assert not has or has & set(chosen)


def test_pictures_on_the_page_stay_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    film = cv2.GaussianBlur(rng.normal(128, 400, (1024, 800)), (0, 0), 6).clip(0, 255).astype(np.uint8)
    path = tmp_path / "胸 片.png"
    path.write_bytes(cv2.imencode(".png", film)[1].tobytes())
    pictures = draw_example(path, pixel_sha256(film), replace(Params().preprocess, size=512))
    assert [(item["width"], item["height"]) for item in pictures] == [(200, 256), (256, 256), (256, 256)]
    assert 24 * sum(len(item["uri"]) for item in pictures) < 1_800_000
    assert [
        item["title"] for item in draw_example(path, pixel_sha256(film), replace(Params().preprocess, clahe=False))
    ] == [
        "As read",
        "Resized to 256 × 256",
    ]
