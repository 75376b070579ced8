"""The scores of one map, against figures worked out by hand."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.map_scores import IOBB, IOU, SCORES, chance_of, find_boxes, score_map


def scores(heat, truth):
    return dict(zip(SCORES, score_map(np.asarray(heat, np.float32), truth), strict=True))


def truth_of(size, top, bottom, left, right):
    mask = np.zeros((size, size), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_a_map_of_the_images_size_by_hand():
    heat = np.zeros((10, 10))
    heat[2:6, 2:6] = 200  # 16 pixels, above 180 of 255 after scaling by 255
    heat[5, 5] = 255
    heat[8, 8] = 100  # above 60 alone: a box of one pixel at the lower cut
    found = scores(heat, truth_of(10, 2, 6, 4, 9))
    # Boxes (2, 2, 4, 4) at both cuts, (8, 8, 1, 1) at the lower. Truth 4 x 5 = 20, common 4 x 2 = 8.
    # IoU = 8 / (16 + 20 - 8) = 0.286; IoBB = 8 / 16 = 0.5, which is not above 0.5.
    assert found["pointing"] == found["pointing_defined"] == 1
    assert found["boxes_per_map"] == 3
    assert [found[f"iou_{t:g}"] for t in IOU] == [1, 1, 0, 0, 0, 0, 0]
    assert [found[f"iobb_{t:g}"] for t in IOBB] == [1, 1, 0, 0, 0]


def test_places_that_share_the_maximum_count_by_their_share():
    heat = np.array([[1, 1], [1, 0]])
    # Centres of the places on 8 pixels: 2 and 6. Two of the three largest are in the upper half.
    assert scores(heat, truth_of(8, 0, 4, 0, 8))["pointing"] == np.float64(2 / 3)


def test_a_flat_map_is_a_miss_and_its_point_is_undefined():
    found = scores(np.zeros((4, 4)), np.ones((8, 8), bool))
    assert np.isnan(found.pop("pointing_defined"))
    assert set(found.values()) == {0}


def test_regions_that_touch_at_a_corner_are_one():
    heat = np.zeros((6, 6), np.float32)
    heat[1, 1] = heat[2, 2] = 1
    assert find_boxes(heat).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]


def test_chance_is_the_share_of_the_film_without_the_black_beside_it():
    truth = truth_of(8, 0, 4, 2, 4)  # 8 pixels of a film of 4 x 8
    assert chance_of(truth, np.array([2, 0, 4, 8])) == 0.25


@given(st.integers(0, 2**32 - 1))
def test_everything_is_right_where_the_box_is_the_whole_film(seed):
    heat = np.random.default_rng(seed).random((5, 5))
    found = scores(heat, np.ones((20, 20), bool))
    assert found["pointing"] == 1
    assert all(found[f"iobb_{t:g}"] == 1 for t in IOBB)


@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.integers(0, 6), st.integers(1, 10), st.integers(1, 10))
def test_passing_a_threshold_means_passing_all_below(seed, top, left, height, width):
    heat = np.random.default_rng(seed).random((4, 4)).astype(np.float32)
    found = score_map(heat, truth_of(16, top, top + height, left, left + width))
    for overlaps in (found[3 : 3 + len(IOU)], found[3 + len(IOU) :]):
        assert overlaps == sorted(overlaps, reverse=True)


def test_the_pointing_of_maps_that_know_nothing_is_the_chance():
    # Over all places as the one largest, hits are the share of places in the box: 3 x 2 of 36.
    truth = truth_of(36, 6, 24, 12, 24)
    hits = []
    for place in np.ndindex(6, 6):
        heat = np.zeros((6, 6))
        heat[place] = 1
        hits.append(scores(heat, truth)["pointing"])
    assert np.mean(hits) == np.float64(6 / 36)
    assert chance_of(truth, np.array([0, 0, 36, 36])) == 6 / 36
