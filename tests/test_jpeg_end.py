"""JPEG pictures whose coded data end early: refused, however they were closed again; whole ones never."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, generate_frames

from pipeline.images import ImageError, decode_image, read_image
from pipeline.quarantine import Reason

END = b"\xff\xd9"
WAYS: list[dict[str, object]] = [
    {},
    {"quality": 30},
    {"optimize": True},
    {"subsampling": 2},
    {"subsampling": 1, "restart_marker_rows": 1},
    {"restart_marker_blocks": 4},
    {"progressive": True},
    {"progressive": True, "subsampling": 2, "restart_marker_blocks": 7},
    {"progressive": True, "quality": 98},
]


def film(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Draw a smooth picture with some noise, as a film is."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    smooth = 120 + 80 * np.sin(rows / 17 + seed) * np.cos(columns / 23)
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8], mode: str, way: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    picture = Pillow.fromarray(pixels)
    if mode != "L":  # channels that differ
        picture = Pillow.merge(mode, [picture, *(picture.rotate(5 * k) for k in range(1, len(mode)))])
    picture.save(buffer, "JPEG", **way)
    return buffer.getvalue()


def coded(data: bytes) -> int:
    """Return where the first scan's coded data begin."""
    start = data.index(b"\xff\xda")
    return start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")


@settings(max_examples=40)
@given(
    st.integers(1, 90), st.integers(1, 90), st.sampled_from(["L", "RGB", "CMYK"]), st.sampled_from(WAYS), st.integers()
)
def test_a_whole_picture_is_read(height: int, width: int, mode: str, way: dict[str, object], seed: int) -> None:
    assert decode_image(jpeg(film(height, width, seed % 1000), mode, way)).shape == (height, width)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_cut_that_was_closed_is_refused_unless_it_costs_the_last_block_alone(
    mode: str, way: dict[str, object]
) -> None:
    data = jpeg(film(83, 121, 3), mode, way)
    expected = decode_image(data).astype(int)
    cuts = range(coded(data), len(data) - 2, 11)
    codes = []
    for cut in cuts:
        try:
            found = decode_image(data[:cut].rstrip(b"\xff") + END)
        except ImageError as error:
            codes.append(error.code)
            continue
        changed = np.argwhere(found != expected)
        assert not len(changed) or (changed >= (80 - 16, 112 - 16)).all()  # a block of 16 x 16, and its smoothed rim
    assert set(codes) == {Reason.TRUNCATED}
    assert len(codes) > 0.9 * len(cuts)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("value", [0, 127, 128, 129, 255])
def test_a_picture_of_one_gray_or_with_a_gray_end_is_whole(value: int, way: dict[str, object]) -> None:
    """Mid-gray at the end makes a picture suspicious; only bytes that are missing make it a cut one."""
    pixels = film(70, 90, 1)
    pixels[40:] = value
    for picture in (pixels, np.full((33, 47), value, np.uint8)):
        for mode in ("L", "RGB"):
            assert decode_image(jpeg(picture, mode, way)).shape == picture.shape


def test_what_follows_the_end_and_a_thumbnail_before_the_start_change_nothing() -> None:
    small = jpeg(film(16, 16, 2), "L", {})
    data = jpeg(film(64, 64, 2), "L", {})
    segment = b"\xff\xe2" + (len(small) + 2).to_bytes(2, "big") + small
    expected = decode_image(data)
    for changed in (data + bytes(100), data + small, data[:2] + segment + data[2:]):
        np.testing.assert_array_equal(decode_image(changed), expected)
    cut = data[:2] + segment + data[2 : coded(data) + 200].rstrip(b"\xff") + END
    with pytest.raises(ImageError, match="the coded picture ends early"):
        decode_image(cut)


@pytest.mark.parametrize("name", ["SC_rgb_dcmtk_+eb+cr.dcm", "JPGExtended.dcm", "SC_rgb_jpeg_gdcm.dcm"])
def test_a_cut_frame_inside_dicom_is_refused(tmp_path: Path, name: str) -> None:
    """Of baseline, 12-bit and lossless JPEG."""
    header = dcmread(str(get_testdata_file(name)))
    frame = next(generate_frames(header.PixelData, number_of_frames=1))
    whole, cut = tmp_path / "whole.dcm", tmp_path / "cut.dcm"
    header.save_as(whole)
    assert read_image(whole).ndim == 2
    begin = coded(frame)
    for share in (0.1, 0.5, 0.9):
        header.PixelData = encapsulate([frame[: begin + int(share * (len(frame) - begin))].rstrip(b"\xff") + END])
        header.save_as(cut)
        with pytest.raises(ImageError, match="the coded picture ends early") as caught:
            read_image(cut)
        assert caught.value.code is Reason.TRUNCATED


def test_real_films_cut_in_the_middle_are_all_refused(pneumonia_archive: Path) -> None:
    paths = [path for path in sorted(pneumonia_archive.rglob("*.jpeg")) if not path.name.startswith("._")]
    films = [path.read_bytes() for path in paths[::100]]
    assert len(films) > 60
    rng = np.random.default_rng(0)
    for data in films:
        assert decode_image(data).ndim == 2
        for cut in rng.integers(coded(data) + 10, len(data) - 200, 4):
            with pytest.raises(ImageError, match="the coded picture ends early"):
                decode_image(data[:cut].rstrip(b"\xff") + END)
