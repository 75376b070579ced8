"""Cropped copies: found where the crop is one that is looked for, against crops made by OpenCV on whole pictures."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.crops import DISTANCE, PARTS, cropped_pairs
from pipeline.images import perceptual_hash, read_image
from pipeline.near_duplicates import similarity
from pipeline.thumbnails import thumbnail

Image = NDArray[np.uint8]


def cut(image: Image, share: float, top: float, left: float) -> Image:
    height, width = image.shape
    first, start = round(height * share * top), round(width * share * left)
    return np.ascontiguousarray(
        image[first : first + round(height * (1 - share)), start : start + round(width * (1 - share))]
    )


@pytest.fixture(scope="module")
def films(nih_sample: Path) -> list[Image]:
    return [read_image(path) for path in sorted(nih_sample.rglob("*.png"))[:120:2]]


def small(images: list[Image]) -> NDArray[np.uint8]:
    return np.array([thumbnail(image) for image in images])


@pytest.mark.parametrize("part", PARTS)
def test_each_part_of_a_real_film_is_found_whichever_is_the_copy(
    films: list[Image], part: tuple[float, float, float]
) -> None:
    whole, copies = small(films), small([cut(image, *part) for image in films])
    for left, right in ((whole, copies), (copies, whole)):
        i, j, alike = cropped_pairs(left, right, 0.995)
        assert (i == j).mean() > 0.98  # and no other film
        assert len(i) >= 0.55 * len(films)
        assert (alike >= 0.995).all()
        assert len(set(zip(i.tolist(), j.tolist(), strict=True))) == len(i)


def test_within_one_set_each_pair_is_found_once(films: list[Image]) -> None:
    both = small([*films, *(cut(image, *PARTS[1]) for image in films)])
    i, j, alike = cropped_pairs(both, both, 0.995)
    assert (i < j).all()
    keys = i * len(both) + j
    assert (np.diff(keys) > 0).all()
    assert (j - i == len(films)).sum() >= 0.55 * len(films)
    assert np.isfinite(alike).all()


def test_the_similarity_is_that_of_the_part(films: list[Image]) -> None:
    """OpenCV crops and enlarges the thumbnail; its rounding is all that may differ."""
    whole, copies = small(films), small([cut(image, *PARTS[1]) for image in films])
    i, j, alike = cropped_pairs(copies, whole, 0.995)
    share = PARTS[1][0]
    centre = 7.5  # of 16 pixels, from 0
    parts = np.array(
        [
            cv2.warpAffine(
                picture,
                np.array([[1 - share, 0, centre * share], [0, 1 - share, centre * share]]),
                (16, 16),
                flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
            for picture in whole
        ]
    )
    expected = similarity(copies, parts, i, j)
    assert (alike >= expected - 5e-4).all()  # another part may fit better still


def test_different_films_are_no_parts_of_each_other(films: list[Image]) -> None:
    pictures = small(films)
    i, j, _ = cropped_pairs(pictures, pictures, 0.995)
    assert not len(i), (i, j)


def test_nothing_and_flat_pictures_have_no_pairs() -> None:
    none, flat = np.zeros((0, 16, 16), np.uint8), np.full((3, 16, 16), 7, np.uint8)
    for left, right in ((none, none), (none, flat), (flat, none), (flat, flat)):
        assert [len(part) for part in cropped_pairs(left, right, 0.9)] == [0, 0, 0]


def test_the_hash_of_a_thumbnail_is_close_to_that_of_its_picture(films: list[Image]) -> None:
    from pipeline.crops import _hashes, _transform

    ours = _hashes(small(films), _transform())
    theirs = np.array([int(perceptual_hash(image), 16) for image in films], np.uint64)
    assert np.bitwise_count(ours ^ theirs).mean() < DISTANCE
