"""Statistics of an image beside SciPy's and NumPy's, and what must hold of any image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import entropy

from pipeline.gate_bad import coloured_noise
from pipeline.image_statistics import FILM_STATISTICS, STATISTICS, as_vector, film_statistics, statistics_of

IMAGES = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=40))


@given(IMAGES)
def test_every_number_is_finite_and_in_its_range(image):
    found = statistics_of(image)
    assert tuple(found) == STATISTICS
    assert all(type(value) is float and np.isfinite(value) for value in found.values())
    assert 0 <= found["p01"] <= found["p50"] <= found["p99"] <= 255
    assert 0 <= found["entropy"] <= 8
    assert -1 - 1e-6 <= found["symmetry"] <= 1 + 1e-6
    assert found["sharpness"] >= 0
    np.testing.assert_array_equal(as_vector(found | {"other": 1.0}), list(found.values()))


@given(IMAGES)
def test_gray_values_are_described_as_numpy_and_scipy_do(image):
    found = statistics_of(image)
    assert found["mean"] == pytest.approx(image.mean(), abs=1e-9)
    assert found["deviation"] == pytest.approx(image.std(), abs=1e-6)
    for name, share in (("p01", 0.01), ("p50", 0.5), ("p99", 0.99)):
        assert found[name] == np.quantile(image, share, method="inverted_cdf")
    assert found["entropy"] == pytest.approx(entropy(np.bincount(image.ravel()), base=2), abs=1e-9)


@given(IMAGES)
def test_a_mirror_image_looks_the_same(image):
    mirrored = statistics_of(np.ascontiguousarray(image[:, ::-1]))
    for name, value in statistics_of(image).items():
        assert mirrored[name] == pytest.approx(value, abs=2e-3), name


@given(IMAGES)
def test_an_image_beside_its_mirror_image_is_symmetric(image):
    both = np.concatenate([image, image[:, ::-1]], axis=1)
    assert statistics_of(both)["symmetry"] == pytest.approx(1.0 if both.std() else 0.0, abs=1e-4)


@given(st.integers(0, 255))
def test_a_blank_image_has_no_contrast_of_any_kind(gray):
    found = statistics_of(np.full((9, 12), gray, np.uint8))
    assert found["mean"] == found["p01"] == found["p99"] == gray
    flat = ("deviation", "entropy", "sharpness", "symmetry", "border", "slope")
    assert [found[name] for name in flat] == [0] * 6


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5])
def test_the_slope_is_that_of_the_noise_that_was_drawn(power):
    rng = np.random.default_rng(3)
    slopes = [statistics_of(coloured_noise(rng, 64, power))["slope"] for _ in range(20)]
    # Power is amplitude squared: frequency to the power of -2 x `power`.
    assert np.mean(slopes) == pytest.approx(-2 * power, abs=0.25)


def test_the_border_is_brighter_or_darker_than_the_whole():
    image = np.full((40, 40), 10, np.uint8)
    image[2:-2, 2:-2] = 110
    found = statistics_of(image)
    assert found["border"] == pytest.approx(10 - image.mean())
    assert statistics_of(255 - image)["border"] == pytest.approx(image.mean() - 10)


@given(arrays(np.uint8, st.tuples(st.integers(1, 30), st.integers(1, 30))))
def test_a_small_film_is_described_by_all_of_its_pixels(film):
    found = film_statistics(film)
    assert tuple(found) == FILM_STATISTICS
    assert (found["film_height"], found["film_width"]) == film.shape
    assert found["film_mean"] == pytest.approx(film.mean(), abs=1e-9)


def test_a_large_film_is_described_by_some_of_its_rows():
    film = np.random.default_rng(5).integers(0, 256, (1500, 1300), dtype=np.uint8)
    film[:750] //= 2
    found = film_statistics(film)
    assert found["film_mean"] == pytest.approx(film.mean(), abs=1.5)
    assert found["film_p50"] == pytest.approx(np.median(film), abs=3)
