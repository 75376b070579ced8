"""The fast way to decode PNG gives what Pillow gives, or gives way to it; no damage comes through."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipeline.decoders import fast_png
from pipeline.images import ImageError

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
FILTERED = b"".join(b"\0" + row.tobytes() for row in PIXELS)
STREAM = zlib.compress(FILTERED)


def chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def build(
    stream: bytes = STREAM, before: bytes = b"", between: bytes = b"", header: tuple[int, ...] = (7, 9, 8, 0, 0, 0, 0)
) -> bytes:
    """Build a PNG file chunk by chunk, as the standard says (W3C PNG, sections 5.2, 5.3 and 11.2)."""
    data = chunk(b"IDAT", stream[:20]) + between + chunk(b"IDAT", stream[20:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", *header)) + before + data + chunk(b"IEND")


def encode(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture)


def is_same(data: bytes) -> bool:
    """Compare with Pillow; a single plane stands for equal colours without transparency."""
    found, expected = fast_png.decode(data, 10**8), by_pillow(data)
    if found is not None and found.ndim == 2 and expected.ndim == 3:
        found = np.dstack([found] * 3 + [np.full(found.shape, 255, np.uint8)] * (expected.shape[2] == 4))
    return found is not None and found.dtype == expected.dtype and np.array_equal(found, expected)


@given(st.data())
def test_pixels_are_those_of_pillow(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from([np.uint8, np.uint16]))
    channels = data.draw(st.sampled_from([(), (3,), (4,)])) if dtype == np.uint8 else ()
    shape = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    pixels = data.draw(arrays(dtype, shape + channels))
    encoded = encode(pixels, compress_level=data.draw(st.integers(0, 9)))
    np.testing.assert_array_equal(by_pillow(encoded), pixels)
    assert is_same(encoded)


@pytest.mark.parametrize(
    ("opacity", "shift", "planes"), [((), 0, 1), ((), 1, 3), ((255,), 0, 1), ((254,), 0, 4), ((255,), 1, 4)]
)
def test_gray_stored_as_colour_is_one_plane(opacity: tuple[int, ...], shift: int, planes: int) -> None:
    """If a single pixel differs between two colours, or is a little transparent, all planes come out."""
    pixels = np.dstack([PIXELS, PIXELS, PIXELS, *(np.full_like(PIXELS, 255) for _ in opacity)])
    pixels[5, 3, 2] += shift
    pixels[2, 4, 3:] = opacity
    found = fast_png.decode(encode(pixels), 100)
    assert found is not None
    assert found.size == planes * PIXELS.size
    assert is_same(encode(pixels))


def test_a_file_built_by_the_standard_is_read() -> None:
    np.testing.assert_array_equal(fast_png.decode(build(), 100), PIXELS)
    times = chunk(b"tIME", b"\x07\xe0\1\1\1\1\1") + chunk(b"pHYs", bytes(9))
    np.testing.assert_array_equal(fast_png.decode(build(before=times), 100), PIXELS)


def palette_image() -> Image.Image:
    return Image.fromarray(np.dstack([PIXELS] * 3)).quantize(8)


def saved(picture: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


TEXT = PngInfo()
TEXT.add_text("Patient", "x" * 50, zip=True)
EXIF = Image.Exif()
EXIF[274] = 6
LEFT_TO_PILLOW = {
    "palette": saved(palette_image()),
    "one bit": saved(Image.fromarray(PIXELS > 99)),
    "gray with opacity": saved(Image.fromarray(np.dstack([PIXELS, PIXELS]), "LA")),
    "transparent value": encode(PIXELS, transparency=3),
    "orientation": encode(PIXELS, exif=EXIF),
    "compressed text": encode(PIXELS, pnginfo=TEXT),
    "animated": saved(Image.fromarray(PIXELS), save_all=True, append_images=[Image.fromarray(255 - PIXELS)]),
    "colour profile": encode(PIXELS, icc_profile=b"profile"),
    "interlaced": build(zlib.compress(b"\0\x05"), header=(1, 1, 8, 0, 0, 0, 1)),  # one pixel: the stream is the same
    "two headers": build(before=chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 9, 8, 0, 0, 0, 0))),
    "data in two pieces": build(between=chunk(b"tIME", bytes(7))),
    "a long time": build(before=chunk(b"tIME", bytes(8))),
    "an unknown chunk": build(before=chunk(b"abCd", b"?")),
    "junk at the end": build() + b"junk",
    "JPEG": b"\xff\xd8\xff",
    "nothing": b"",
}


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
@pytest.mark.parametrize("kind", LEFT_TO_PILLOW)
def test_what_is_not_plain_is_left_to_pillow(kind: str) -> None:
    assert fast_png.decode(LEFT_TO_PILLOW[kind], 10**8) is None


DAMAGED = {
    "few rows": zlib.compress(FILTERED[:30]),
    "one row less": zlib.compress(FILTERED[:-8]),
    "one byte less": zlib.compress(FILTERED[:-1]),
    "cut stream": STREAM[:-12],
    "no checksum": STREAM[:-4],
    "wrong checksum": STREAM[:-1] + bytes([STREAM[-1] ^ 1]),
    "unknown filter": zlib.compress(b"\5" + FILTERED[1:]),
    "no zlib": b"\xff" * 40,
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_bad_image_data_under_good_checksums_are_refused(kind: str) -> None:
    """OpenCV itself must notice these; a version that fills the missing rows fails here."""
    assert fast_png.decode(build(DAMAGED[kind]), 10**8) is None


def test_every_cut_and_every_changed_byte_is_noticed() -> None:
    data = build()
    for length in range(len(data)):
        assert fast_png.decode(data[:length], 10**8) is None
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 0x40
        assert fast_png.decode(bytes(changed), 10**8) is None, position


@pytest.mark.parametrize(("width", "height", "code"), [(0, 9, "empty"), (7, 0, "empty"), (2**31, 2**31, "too-large")])
def test_sizes_are_checked_before_anything_is_decoded(width: int, height: int, code: str) -> None:
    with pytest.raises(ImageError) as caught:
        fast_png.decode(build(header=(width, height, 8, 0, 0, 0, 0)), 10**9)
    assert caught.value.code == code


def test_sizes_beyond_opencv_s_bounds_are_left_to_pillow() -> None:
    """A row of 2**21 pixels is allowed by max_pixels, but not by OpenCV."""
    assert fast_png.decode(encode(np.zeros((1, 2**21), np.uint8)), 10**9) is None


def test_the_real_films_are_all_read_and_are_the_same(nih_sample: Path) -> None:
    files = sorted((nih_sample / "sample" / "images").glob("*.png"))
    assert len(files) == 246
    assert all(is_same(path.read_bytes()) for path in files[::3])
    with_opacity = [path for path in files if path.read_bytes()[25] == 6]
    assert len(with_opacity) == 4
    assert all(is_same(path.read_bytes()) for path in with_opacity)
