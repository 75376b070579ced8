"""Near-duplicates: the search against brute force, the comparison against least squares, both on real films."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline import near_duplicates
from pipeline.errors import UserError
from pipeline.images import perceptual_hash, read_image
from pipeline.near_duplicates import pairs_within, similarity
from pipeline.thumbnails import SIDE, from_hex, read_thumbnails, thumbnail, write_thumbnails

HASH = st.integers(0, 2**64 - 1)


@st.composite
def hashes(draw: st.DrawFn) -> NDArray[np.uint64]:
    """Draw hashes, most of them near another one."""
    found = draw(st.lists(HASH, min_size=0, max_size=8))
    for base in list(found):
        for bits in draw(st.lists(st.lists(st.integers(0, 63), max_size=14), max_size=3)):
            found.append(base ^ sum(1 << bit for bit in set(bits)))
    return np.array(found, np.uint64)


def brute(left: NDArray[np.uint64], right: NDArray[np.uint64], distance: int) -> set[tuple[int, int, int]]:
    within = left is right
    return {
        (i, j, bits)
        for i, a in enumerate(left.tolist())
        for j, b in enumerate(right.tolist())
        if (bits := (a ^ b).bit_count()) <= distance and (i < j or not within)
    }


@settings(max_examples=100)
@given(hashes(), hashes(), st.integers(0, 16), st.sampled_from([1, 7, 1 << 21]))
def test_the_search_finds_what_comparing_all_with_all_finds(
    left: NDArray[np.uint64], right: NDArray[np.uint64], distance: int, chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "_CHUNK", chunk)
        for other in (left, right):
            i, j, bits = pairs_within(left, other, distance)
            found = list(zip(i.tolist(), j.tolist(), bits.tolist(), strict=True))
            assert found == sorted(found)
            assert len(found) == len(set(found))
            assert set(found) == brute(left, other, distance)


@pytest.mark.parametrize(("many", "most"), [(near_duplicates._MANY, 16), (0, 8)])
def test_the_worst_spread_of_bits_is_found(monkeypatch: pytest.MonkeyPatch, many: int, most: int) -> None:
    """As many differing bits as possible in every band: the case that decides whether the radii suffice."""
    monkeypatch.setattr(near_duplicates, "_MANY", many)
    for distance in range(most + 1):
        both = np.array([0, sum(1 << bit for bit in range(distance))], np.uint64)
        bands = [band for band, _ in near_duplicates._plan(both, both, distance)]
        share = [sum(bit < distance for bit in band) for band in bands]
        assert max(share) - min(share) <= 1 or len(bands) < 3
        assert pairs_within(both, both, distance)[0].tolist() == [0]
        assert distance == 0 or pairs_within(both, both, distance - 1)[0].tolist() == []


@pytest.mark.parametrize("distance", [2, 5, 8])
def test_the_search_among_thousands_finds_what_comparing_all_with_all_finds(distance: int) -> None:
    """Clusters round few centres, with bits that are nearly always the same, as real films have them."""
    rng = np.random.default_rng(distance)
    centres = rng.integers(0, 2**64, 40, dtype=np.uint64) & np.uint64(0xFFFF_FF00_FFFF_FFF0)
    flips = np.uint64(1) << rng.integers(0, 64, (4200, 6), dtype=np.uint64)
    some = np.bitwise_xor.reduce(np.where(rng.random(flips.shape) < 0.7, flips, np.uint64(0)), axis=1)
    left = centres[rng.integers(0, 40, 4200)] ^ some
    for right in (left, left[:4000] ^ np.uint64(1 << 40)):
        assert len(near_duplicates._plan(left, right, 8)) == 3  # few hashes are searched in four bands
        i, j, bits = pairs_within(left, right, distance)
        expected = np.bitwise_count(left[:, None] ^ right[None])
        near = expected <= distance
        if right is left:
            near &= np.tri(len(left), k=-1, dtype=bool).T
        one, two = np.nonzero(near)
        assert len(one) > 5
        np.testing.assert_array_equal((i, j), (one, two))
        np.testing.assert_array_equal(bits, expected[one, two])


def test_a_flood_of_pairs_is_one_line_and_no_flood_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_MOST_PAIRS", 1000)
    monkeypatch.setattr(near_duplicates, "_CHUNK", 512)
    same = np.zeros(2000, np.uint64)
    with pytest.raises(UserError, match=r"more than 1,000 pairs .* audit\.distance 8; set it lower"):
        pairs_within(same, same, 8)


def test_the_limit_counts_each_pair_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_MOST_PAIRS", 1000)
    fewer, more = np.zeros(45, np.uint64), np.zeros(46, np.uint64)  # 990 and 1,035 pairs
    assert len(pairs_within(fewer, fewer, 8)[0]) == 990  # though each is found in all four bands
    for distance in (0, 8):  # at 0, one band finds each pair once
        with pytest.raises(UserError, match="more than 1,000 pairs"):
            pairs_within(more, more, distance)


def smooth_noise(seed: int, count: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 5, 5)).astype(np.uint8)
    return np.array([cv2.resize(item, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for item in coarse])


def test_the_comparison_is_a_multiple_correlation() -> None:
    """The expected value comes from NumPy's least squares on regressors that are written out here."""
    pictures = smooth_noise(1, 2)
    place = np.array([0])

    def r(by: NDArray[np.uint8], what: NDArray[np.uint8]) -> float:
        blurred = [
            cv2.sepFilter2D(item.astype(np.float64), -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)
            for item in (by, what)
            for kernel in [np.array([0.25, 0.5, 0.25])]
        ]
        a, b = blurred
        rows, columns = np.mgrid[0:SIDE, 0:SIDE] - (SIDE - 1) / 2
        down, across = np.gradient(a)
        regressors = [np.ones_like(a), a, down, across, columns * across, rows * down]
        inner = (slice(1, -1), slice(1, -1))
        x = np.stack([item[inner].ravel() for item in regressors], axis=1)
        y = b[inner].ravel()
        residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
        return float(np.sqrt(1 - residual.var() / y.var()))

    expected = min(r(pictures[0], pictures[1]), r(pictures[1], pictures[0]))
    assert similarity(pictures[:1], pictures[1:], place, place)[0] == pytest.approx(expected, abs=1e-4)


@given(st.integers(0, 1000), st.floats(0.3, 1.0), st.floats(0, 60))
def test_brightness_and_contrast_change_nothing(seed: int, gain: float, offset: float) -> None:
    picture = smooth_noise(seed, 1)
    changed = np.round(picture * (gain * 0.75) + offset).astype(np.uint8)
    place = np.array([0])
    assert similarity(picture, picture, place, place)[0] == pytest.approx(1, abs=1e-5)
    assert similarity(picture, changed, place, place)[0] > 0.999


def test_other_pictures_are_unlike_and_what_has_no_contrast_is_undefined() -> None:
    pictures = np.concatenate([smooth_noise(2, 30), np.full((1, SIDE, SIDE), 9, np.uint8)])
    i, j = (places.astype(np.int64) for places in np.triu_indices(31, 1))
    alike = similarity(pictures, pictures, i, j)
    assert np.isnan(alike[j == 30]).all()
    assert np.nanmax(alike) < 0.98
    np.testing.assert_array_equal(similarity(pictures, pictures, j, i), alike)  # whichever explains the other
    assert np.isfinite(alike[j != 30]).all()


def test_small_batches_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = smooth_noise(3, 12)
    i, j = (places.astype(np.int64) for places in np.triu_indices(12, 1))
    whole = similarity(pictures, pictures, i, j)
    for least in (0.5, 0.9):
        np.testing.assert_array_equal(similarity(pictures, pictures, i, j, least) >= least, whole >= least)
    monkeypatch.setattr(near_duplicates, "_COMPARED_AT_ONCE", 5)
    np.testing.assert_allclose(similarity(pictures, pictures, i, j), whole, atol=1e-6)


def test_copies_of_real_films_are_found_and_other_films_are_not(nih_sample: Path) -> None:
    films = {path.name: read_image(path) for path in sorted(nih_sample.rglob("*.png"))[:100]}
    images = list(films.values())
    copies = []
    for number, image in enumerate(images):
        small = cv2.resize(image[8:-8, 8:-8], (400, 400), interpolation=cv2.INTER_AREA)
        data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 40 + number % 50])[1]
        copies.append(np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8))
    one, two = ([int(perceptual_hash(image), 16) for image in side] for side in (images, copies))
    first, second = np.array(one, np.uint64), np.array(two, np.uint64)
    i, j, _ = pairs_within(first, second, 8)
    small_one, small_two = (np.array([thumbnail(image) for image in side]) for side in (images, copies))
    near = similarity(small_one, small_two, i, j) >= 0.995
    assert (i[near] == j[near]).sum() >= 95
    twins = {"00002658_001.png", "00002658_002.png"}  # the sample holds this picture under two names
    names = list(films)
    assert {frozenset((names[a], names[b])) for a, b in zip(i[near], j[near], strict=True) if a != b} <= {
        frozenset(twins)
    }


def test_thumbnails_are_found_by_their_pixels_hash(tmp_path: Path) -> None:
    digests = pd.Series([f"{k * 7919 % 251:016x}{'0' * 48}" for k in range(40)] + [f"{7919 % 251:016x}{'0' * 48}"])
    pixels = smooth_noise(4, 41)
    write_thumbnails(tmp_path / "缩略.npy", digests, pixels)
    store = read_thumbnails(tmp_path / "缩略.npy")
    found, known = store.find(digests[:40])
    assert known.all()
    np.testing.assert_array_equal(found, pixels[:40])
    odd = pd.Series(["", "f" * 64, "no hash at all!!", "A" * 64, "١" * 64])
    assert not store.find(odd)[1].any()
    assert not read_thumbnails(tmp_path / "none.npy").find(digests)[1].any()


def numpy_file(header: bytes) -> bytes:
    """Return a .npy file (format version 1.0) of this header, which NumPy reads as Python."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(264)


REST = b", 'fortran_order': False, 'shape': (%d,)}"
# TokenError, TypeError, RecursionError, MemoryError, ValueError, OverflowError and IndexError.
HEADERS = [b"{'descr': (", b"{1: 2, 'a': 3}", b"1+" * 4000 + b"1", b"-" * 9000 + b"1", b"{'descr': '|u1'" + REST % -1,
           b"{'descr': '|u1'" + REST % 10**30, b"{'descr': ()" + REST % 1]  # fmt: skip


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\x93NUMPY\x01\x00", b"PK\x03\x04", None, *map(numpy_file, HEADERS)]
)
def test_a_file_that_holds_no_thumbnails_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "t.npy"
    if content is None:
        np.save(path, np.zeros((3, 16, 16), np.uint8))
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"t\.npy is not a file of thumbnails"):
        read_thumbnails(path)


def test_a_file_of_thumbnails_that_was_cut_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "t.npy"
    write_thumbnails(path, pd.Series(["a" * 64, "b" * 64]), smooth_noise(5, 2))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="is not a file of thumbnails"):
        read_thumbnails(path)


def test_hexadecimal_digits_only() -> None:
    values, known = from_hex(pd.Series(["00000000000000ff", "0xff", "", "+123456789abcdef", "1_3456789abcdef0"]))
    assert known.tolist() == [True, False, False, False, False]
    assert values.tolist() == [255, 0, 0, 0, 0]
