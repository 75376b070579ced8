"""Heat maps: their peaks, their enlargement, and what is drawn."""

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.heat_maps import enlarge, outline, overlay, peaks

MAPS = arrays.arrays(np.float32, (3, 4), elements=st.integers(0, 1000).map(float))


def test_enlarging_interpolates_between_the_centres_of_places():
    # Places at 0 and 1, pixel centres of four at -0.25, 0.25, 0.75, 1.25 of them: 0, 0.25, 0.75, 1.
    heat = np.array([[0, 2], [0, 2]], np.float32)
    np.testing.assert_allclose(enlarge(heat, 4), np.tile([0, 0.25, 0.75, 1], (4, 1)), atol=1e-6)


@given(MAPS, st.sampled_from([12, 24, 32]))
def test_enlarged_maps_lie_within_zero_and_one_and_reach_one(heat, size):
    large = enlarge(heat, size)
    if heat.max() <= 0:
        assert np.isnan(large).all()
        return
    assert large.max() == 1
    assert large.min() >= 0


@given(MAPS, st.sampled_from([12, 30, 64]))
def test_peaks_are_the_centres_of_the_largest_places(heat, size):
    expected = {((column + 0.5) * size / 4, (row + 0.5) * size / 3) for row, column in np.argwhere(heat == heat.max())}
    found = {(x, y) for x, y in peaks(heat, size).tolist()}
    assert found == (expected if heat.max() > 0 else set())


def test_overlay_leaves_the_film_where_the_map_is_zero_or_undefined():
    film = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    gray = np.repeat(film[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(overlay(film, np.zeros((16, 16), np.float32)), gray)
    np.testing.assert_array_equal(overlay(film, np.full((16, 16), np.nan, np.float32)), gray)


def test_overlay_grows_lighter_with_the_map_on_a_black_film():
    heat = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (4, 1))
    drawn = overlay(np.zeros((4, 64), np.uint8), heat)
    lightness = cv2.cvtColor(drawn, cv2.COLOR_BGR2LAB)[0, :, 0].astype(int)
    assert (np.diff(lightness) >= 0).all()
    assert lightness[-1] > 100


def test_outline_draws_the_border_and_leaves_the_rest():
    picture = np.full((20, 20, 3), 90, np.uint8)
    drawn = outline(picture, [(5.0, 6.0, 8.0, 7.0)])
    assert (drawn[6, 5:13] == 255).all()
    assert (drawn[12, 5:13] == 255).all()
    assert (drawn[6:13, [5, 12]] == 255).all()
    assert (drawn[8:11, 7:11] == 90).all()
    assert (picture == 90).all()
