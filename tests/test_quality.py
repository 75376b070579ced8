"""Suspicions: what real films look like, what spoilt ones look like, and arithmetic by hand."""

import tracemalloc
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pipeline import quality
from pipeline.images import Image, read_image
from pipeline.params import Suspicion
from pipeline.quality import BRIGHT, CONTRAST, DARK, position_fits, suspicions
from pipeline.quarantine import MEANINGS, SUSPICIONS, Reason, Refused, Suspicious, count_by_code
from pipeline.thumbnails import SIDE


def codes(image: Image) -> list[Reason]:
    return [code for code, _ in suspicions(image)]


@pytest.fixture
def film() -> Image:
    """Return a drawing of an upright frontal film: dark air, a gray body, two dark lungs, a white spine."""
    image = np.full((300, 280), 10, np.uint8)
    cv2.ellipse(image, (140, 200), (120, 190), 0, 0, 360, 150, -1)
    for x in (85, 195):
        cv2.ellipse(image, (x, 130), (38, 75), 0, 0, 360, 50, -1)
    cv2.rectangle(image, (128, 20), (152, 300), 220, -1)
    return image


def test_an_upright_film_is_above_suspicion(film: Image) -> None:
    assert codes(film) == []


def test_a_negative_is_inverted(film: Image) -> None:
    assert codes(255 - film) == [Reason.INVERTED]


@pytest.mark.parametrize(("turns", "back"), [(1, 90), (2, 180), (3, 270)])
def test_a_turned_film_says_how_to_turn_it_back(film: Image, turns: int, back: int) -> None:
    turned = np.ascontiguousarray(np.rot90(film, turns))  # counter-clockwise
    [(code, text)] = suspicions(turned)
    assert code is Reason.ROTATED
    assert f"turned clockwise by {back} degrees" in text


def halves(low: int, high: int) -> Image:
    """Return noise-free stripes: half of the pixels low, half high, so that every figure is known."""
    image = np.full((64, 64), low, np.uint8)
    image[:, ::2] = high
    return image


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, []),  # mean 50: the threshold itself is allowed
        (0, 98, [Reason.TOO_DARK]),  # mean 49
        (155, 255, []),  # mean 205
        (157, 255, [Reason.TOO_BRIGHT]),  # mean 206
        (80, 176, []),  # range 96
        (80, 175, [Reason.LOW_CONTRAST]),
        (10, 20, [Reason.TOO_DARK, Reason.LOW_CONTRAST]),
    ],
)
def test_thresholds_by_hand(low: int, high: int, expected: list[Reason]) -> None:
    assert (DARK, BRIGHT, CONTRAST) == (50, 205, 96)
    assert codes(halves(low, high)) == expected


def test_single_pixels_do_not_hide_a_flat_film() -> None:
    image = halves(100, 110)
    image[0, :20], image[1, :20] = 0, 255  # 0.5 % each
    assert codes(image) == [Reason.LOW_CONTRAST]


def test_a_large_film_is_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    large = np.tile(halves(0, 98), (50, 51))  # 10 million pixels, no whole number of parts
    tracemalloc.start()
    try:
        found = suspicions(large)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * large.size  # eight bytes of each pixel were 84 MB
    monkeypatch.setattr(quality, "_PART", large.size)
    assert found == suspicions(large)
    assert [code for code, _ in found] == [Reason.TOO_DARK]


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)))
def test_any_image_gets_an_answer(image: Image) -> None:
    found = codes(image)
    assert len(found) == len(set(found))
    assert set(found) <= set(SUSPICIONS)


@given(arrays(np.uint8, (SIDE, SIDE)), st.integers(0, 3))
def test_turning_and_inverting_turn_and_invert_the_fits(small: Image, turns: int) -> None:
    fits = position_fits(small)
    assert np.abs(fits).max() <= 1 + 1e-9
    np.testing.assert_allclose(position_fits(np.rot90(small, turns)), np.roll(fits, turns), atol=1e-9)
    np.testing.assert_allclose(position_fits(255 - small), -fits, atol=1e-9)


def test_the_parameter_names_every_suspicion_and_every_code_has_words() -> None:
    assert set(get_args(Suspicion)) == {code.value for code in SUSPICIONS}
    assert set(MEANINGS) == set(Reason)


def test_counts_by_code_name_no_file() -> None:
    entries = [
        Refused("a/00001234_000.png", Reason.TRUNCATED, "00001234_000.png ends early"),
        Refused("a/00005678_000.png", Reason.TRUNCATED, "ends early"),
        Suspicious("b/x1.png", Reason.COLOUR, "channels differ"),
    ]
    assert count_by_code(entries) == {
        "truncated": {"count": 2, "example": "… ends early"},
        "colour": {"count": 1, "example": "channels differ"},
    }
    assert list(count_by_code(entries)) == ["truncated", "colour"]


def test_an_example_names_no_folder_either() -> None:
    entry = Refused("Doe_Jane/1.png", Reason.CONFLICTING_NAME, "may mean Doe_Jane/1.png or Smith_John/1.png")
    assert count_by_code([entry])["conflicting-name"]["example"] == "may mean … or …"


def test_the_real_films(nih_sample: Path) -> None:
    """docs/audit.md has the figures; here only that they are not far off."""
    images = [read_image(path) for path in sorted(nih_sample.rglob("*.png"))[::3]]
    assert len(images) == 82
    assert sum(bool(suspicions(image)) for image in images) <= 1
    assert sum(Reason.INVERTED in codes(255 - image) for image in images) >= 0.96 * 82
    for turns in (1, 2, 3):
        noticed = sum(Reason.ROTATED in codes(np.ascontiguousarray(np.rot90(image, turns))) for image in images)
        assert noticed >= 0.92 * 82
