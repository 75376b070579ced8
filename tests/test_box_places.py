"""Boxes in the pixels of the prepared image, held against films that really went through `prepare`."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.box_places import boxed_pairs, film_place, inside, read_boxes, to_prepared
from pipeline.errors import UserError
from pipeline.images import prepare
from pipeline.params import PreprocessParams
from pipeline.shards import open_processed

HEADER = "image_id,finding,x,y,width,height,file_width,file_height\n"


@given(st.data())
def test_mapped_boxes_cover_what_prepare_makes_of_a_bright_rectangle(data):
    width, height = data.draw(st.integers(64, 400)), data.draw(st.integers(64, 400))
    x, y = data.draw(st.integers(0, width - 8)), data.draw(st.integers(0, height - 8))
    w, h = data.draw(st.integers(4, width - x)), data.draw(st.integers(4, height - y))
    fit = data.draw(st.sampled_from(["stretch", "letterbox"]))
    film = np.zeros((height, width), np.uint8)
    film[y : y + h, x : x + w] = 255
    # Smaller than the film in both directions, where area averaging makes each pixel the share that is covered.
    size = data.draw(st.integers(32, min(width, height)))
    prepared = prepare(film, PreprocessParams(size=size, fit=fit, clahe=False))
    left, top, wide, high = to_prepared(np.array([[x, y, w, h]], float), (width, height), size, fit)[0]
    share = np.outer(_covered(top, high, size), _covered(left, wide, size))
    np.testing.assert_allclose(prepared, 255 * share, atol=3)


def _covered(start, length, size):
    pixels = np.arange(size)
    return np.clip(np.minimum(pixels + 1, start + length) - np.maximum(pixels, start), 0, 1)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_mapped_boxes_hold_where_prepare_enlarges(fit):
    film = np.zeros((40, 60), np.uint8)
    film[10:22, 15:45] = 255
    prepared = prepare(film, PreprocessParams(size=120, fit=fit, clahe=False))
    places = to_prepared(np.array([[15.0, 10, 30, 12]]), (60, 40), 120, fit)
    np.testing.assert_array_equal(inside(places, 120), prepared > 127)


@pytest.mark.parametrize(("file", "size", "fit"), [((64, 300), 50, "letterbox"), ((301, 77), 96, "letterbox")])
def test_film_place_is_where_prepare_puts_the_film(file, size, fit):
    prepared = prepare(np.full(file[::-1], 255, np.uint8), PreprocessParams(size=size, fit=fit, clahe=False))
    left, top, width, height = film_place(file, size, fit)
    expected = np.zeros((size, size), np.uint8)
    expected[top : top + height, left : left + width] = 255
    np.testing.assert_array_equal(prepared, expected)


@given(
    st.lists(st.tuples(*[st.floats(0, 30, allow_subnormal=False)] * 2, *[st.floats(1, 30)] * 2), min_size=1, max_size=3)
)
def test_inside_holds_the_pixels_whose_centres_are_in_a_box(boxes):
    centres = np.arange(32) + 0.5
    expected = np.zeros((32, 32), bool)
    for x, y, width, height in boxes:
        across = (centres >= x) & (centres < x + width)
        expected |= np.outer((centres >= y) & (centres < y + height), across)
    np.testing.assert_array_equal(inside(np.array(boxes), 32), expected)


def test_a_box_without_a_pixels_centre_takes_the_pixel_it_lies_in():
    mask = inside(np.array([[4.6, 7.1, 0.3, 0.3]]), 16)
    assert np.argwhere(mask).tolist() == [[7, 4]]


def test_a_box_is_cut_at_the_border():
    mask = inside(np.array([[14.0, 12.0, 9.0, 9.0], [-3.0, -3.0, 4.0, 4.0]]), 16)
    assert mask.sum() == 2 * 4 + 1
    assert mask[12:, 14:].all()
    assert mask[0, 0]


def test_pairs_are_grouped_and_what_is_left_out_is_counted(coded_images):
    data = open_processed(coded_images)
    rows = data.rows("test").reset_index(drop=True)
    name, later, train = rows["image_id"][1], rows["image_id"][4], data.rows("train")["image_id"].iloc[0]
    lines = [
        (later, "Bit0", 0, 0, 100, 100),
        (name, "Bit1", 512, 0, 512, 1024),
        (name, "Bit1", 0, 0, 256, 256),
        (name, "Bit0", 10, 10, 20, 20),
        (name, "Other", 10, 10, 20, 20),
        (name, "Bit1", 1024, 10, 20, 20),
        (train, "Bit0", 10, 10, 20, 20),
    ]
    boxes = pd.DataFrame(lines, columns=["image_id", "finding", "x", "y", "width", "height"])
    pairs = boxed_pairs(data, boxes.assign(file_width=1024.0, file_height=1024.0), "test")
    assert list(zip(pairs.image, pairs.finding, strict=True)) == [(1, 0), (1, 1), (4, 0)]
    assert pairs.patient.tolist() == [rows["patient_id"][1], rows["patient_id"][1], rows["patient_id"][4]]
    assert pairs.places[1].tolist() == [[16, 0, 16, 32], [0, 0, 8, 8]]  # 1024 pixels become 32
    assert pairs.films.tolist() == [[0, 0, 32, 32]] * 3
    assert list(pairs.left_out.values()) == [1, 1, 1]
    # The labels spell the row's number in binary: 47 = 0b101111 has Bit0 and Bit1, 50 = 0b110010 has no Bit0.
    assert pairs.unlabelled == 1


def test_no_box_makes_no_pair(tmp_path, coded_images):
    (tmp_path / "boxes.csv").write_text(HEADER)
    pairs = boxed_pairs(open_processed(coded_images), read_boxes(tmp_path / "boxes.csv"), "test")
    assert len(pairs.image) == len(pairs.places) == len(pairs.films) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,finding,x,y,width,height\n", "columns file_width, file_height are missing; run `cxr ingest`"),
        (HEADER + "a,Mass,1,2,0,4,64,64\n", "line 2 is no box"),
        (HEADER + "a,Mass,1,2,3,4,64,64\na,Mass,1,2,3,4,,64\n", "line 3 is no box"),
        (HEADER + "a,Mass,one,2,3,4,64,64\n", "not a number"),
    ],
)
def test_damaged_tables_are_refused(tmp_path, text, message):
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_boxes(tmp_path / "boxes.csv")
