"""PNG, JPEG and TIFF: files written byte by byte, against values worked out by hand and by OpenCV and Pillow."""

import io
import itertools
import struct
import threading
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from pipeline.decoders.codestreams import jpeg_frame
from pipeline.decoders.film import silence, to_8_bits
from pipeline.images import ImageError, decode_film, decode_image, read_film
from pipeline.quarantine import Reason

RAMP = np.array([[0, 40, 80], [120, 160, 255]], np.uint8)


def chunk(name: bytes, data: bytes) -> bytes:
    """Return one chunk of PNG (W3C PNG, section 5.3)."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(pixels: np.ndarray, depth: int, colour: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """Return a PNG file of big-endian samples, shape (height, width * channels); filter type 0."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    height, width = pixels.shape[0], pixels.shape[1] // channels
    kind = ">u2" if depth == 16 else "u1"
    lines = b"".join(b"\0" + row.astype(kind).tobytes() for row in pixels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", zlib.compress(lines)) + after + chunk(b"IEND", b"")


Field = tuple[int, int, Sequence[int]]


def tiff(data: bytes, fields: Sequence[Field], order: str = "<", following: int = 0) -> bytes:
    """Return a TIFF file of one strip (TIFF 6.0, section 2); `fields` are (tag, 3 = SHORT or 4 = LONG, values)."""
    directory, extra = b"", b""
    start = 8 + len(data)
    values_at = start + 2 + 12 * (len(fields) + 2) + 4
    entries = sorted([*fields, (273, 4, [8]), (279, 4, [len(data)])])
    for tag, kind, values in entries:
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            pointer = struct.pack(f"{order}I", values_at + len(extra))
            extra += packed
            packed = pointer
        directory += struct.pack(f"{order}HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(f"{order}I", start)
    count = struct.pack(f"{order}H", len(entries))
    return head + data + count + directory + struct.pack(f"{order}I", following) + extra


def gray_fields(width: int, height: int, bits: int, photometric: int = 1, **other: int) -> list[Field]:
    tags = {"compression": 259, "orientation": 274, "samples": 277, "predictor": 317, "format": 339}
    fields: list[Field] = [(256, 4, [width]), (257, 4, [height]), (258, 3, [bits]), (262, 3, [photometric])]
    return fields + [(tags[name], 3, [value]) for name, value in other.items()]


def exif(orientation: int, order: str = "<") -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(f"{order}HHIHH", 274, 3, 1, orientation, 0)
    return mark + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)


# What an upright picture looks like when it is stored in orientation 1 to 8 (CIPA DC-008, 4.6.5.1: where row 0 and
# column 0 of the stored picture are in the upright one).
STORED = {
    1: RAMP,  # row 0 at the top, column 0 at the left
    2: RAMP[:, ::-1],  # top, right
    3: RAMP[::-1, ::-1],  # bottom, right
    4: RAMP[::-1],  # bottom, left
    5: RAMP.T,  # left, top
    6: np.rot90(RAMP, 1),  # right, top: the upright picture is the stored one turned clockwise
    7: RAMP[::-1, ::-1].T,  # right, bottom
    8: np.rot90(RAMP, -1),  # left, bottom
}


# --- depth ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_unscaled_values_of_a_detector_in_a_16_bit_file_do_not_come_out_black(bits: int) -> None:
    top = 2**bits - 1
    values = np.array([[0, top // 2, top]])
    assert decode_image(png(values, 16, 0)).tolist() == [[0, 127, 255]]
    assert decode_image(tiff(values.astype("<u2").tobytes(), gray_fields(3, 1, 16))).tolist() == [[0, 127, 255]]
    assert decode_image(png(values.repeat(3, axis=1), 16, 2)).tolist() == [[0, 127, 255]]


def test_white_is_that_of_the_smallest_usual_depth_that_holds_all_values() -> None:
    # 2048 needs 12 bits: 2048 * 255 / 4095 = 127.5 -> 128 (even); 1024 the same: 63.8. 16384 needs all 16: 63.75.
    assert decode_image(png(np.array([[0, 1024, 2048]]), 16, 0)).tolist() == [[0, 64, 128]]
    assert decode_image(png(np.array([[0, 0, 16384]]), 16, 0)).tolist() == [[0, 0, 64]]
    assert decode_image(png(np.array([[0, 0, 0]]), 16, 0)).tolist() == [[0, 0, 0]]


def test_png_s_significant_bits_win_over_the_guess() -> None:
    dark = np.array([[0, 100, 1000]])  # the guess would be 10 bits
    assert decode_image(png(dark, 16, 0, chunk(b"sBIT", b"\x0c"))).tolist() == [[0, 6, 62]]  # 1000 * 255 / 4095
    # The standard asks writers to scale up to the full 16 bits and to say what it was before: nothing to undo then.
    scaled = np.array([[0, 4095 * 16, 65535]])
    assert decode_image(png(scaled, 16, 0, chunk(b"sBIT", b"\x0c"))).tolist() == [[0, 255, 255]]
    full = np.array([[0, 514, 514]])
    assert decode_image(png(full, 16, 0, chunk(b"sBIT", b"\x10"))).tolist() == [[0, 128, 128]]  # as without: 10 bits


@given(values=st.lists(st.integers(0, 65535), min_size=2, max_size=30), bits=st.integers(8, 16))
def test_scaling_is_monotonic_and_keeps_black_and_white(values: list[int], bits: int) -> None:
    full = 2**bits - 1
    known = np.array(sorted(min(value, full) for value in values), np.uint16)
    scaled = to_8_bits(known, full).astype(int)
    assert (np.diff(scaled) >= 0).all()
    assert np.abs(scaled - known.astype(int) * 255 / full).max() <= 0.5
    assert to_8_bits(np.array([0, full], np.uint16), full).tolist() == [0, 255]


def test_tiff_of_12_packed_bits() -> None:
    # Two samples in three bytes, the high bits first: 0x000, 0xfff, 0x800, 0x010.
    data = bytes([0x00, 0x0F, 0xFF, 0x80, 0x00, 0x10])
    assert decode_image(tiff(data, gray_fields(4, 1, 12))).tolist() == [[0, 255, 128, 1]]


# --- transparency and palettes ---------------------------------------------------------------------------------------


def test_png_s_transparent_gray_lies_over_black() -> None:
    assert decode_image(png(np.array([[9, 200, 7]]), 8, 0, chunk(b"tRNS", b"\0\xc8"))).tolist() == [[9, 0, 7]]
    assert decode_image(_four_bits(chunk(b"tRNS", b"\0\x0f"))).tolist() == [[0, 17]]
    wide = np.array([[65535, 300, 0]])
    assert decode_image(png(wide, 16, 0, chunk(b"tRNS", b"\xff\xff"))).tolist()[0][2] == 0
    assert decode_image(png(wide, 16, 0, chunk(b"tRNS", b"\x01\x2c"))).tolist() == [[255, 0, 0]]


def _four_bits(extra: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(b"\0\xf1")) + chunk(b"IEND", b"")


def test_png_s_transparent_colour_lies_over_black() -> None:
    pixels = np.array([[50, 50, 50, 90, 90, 90, 50, 50, 51]])
    clear = chunk(b"tRNS", struct.pack(">3H", 50, 50, 50))
    assert decode_image(png(pixels, 8, 2, clear)).tolist() == [[0, 90, 50]]


def test_png_s_palette_may_be_transparent_by_entry() -> None:
    palette = chunk(b"PLTE", bytes([100] * 3 + [200] * 3 + [250] * 3))
    indices = np.array([[0, 1, 2]])
    assert decode_image(png(indices, 8, 3, palette)).tolist() == [[100, 200, 250]]
    assert decode_image(png(indices, 8, 3, palette + chunk(b"tRNS", b"\xff\0"))).tolist() == [[100, 0, 250]]
    assert decode_image(png(indices, 8, 3, palette + chunk(b"tRNS", b"\x33\xff"))).tolist() == [[20, 200, 250]]


def test_one_bit_is_black_and_white() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 1, 1, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0\xa0")) + chunk(b"IEND", b"")
    assert decode_image(data).tolist() == [[255, 0, 255]]
    assert decode_image(tiff(b"\xa0", gray_fields(3, 1, 1))).tolist() == [[255, 0, 255]]
    assert decode_image(tiff(b"\xa0", gray_fields(3, 1, 1, photometric=0))).tolist() == [[0, 255, 0]]


def test_wide_colour_keeps_its_low_bytes_and_its_channels_order() -> None:
    red = np.array([[60000, 0, 0, 0, 0, 60000]])
    # BT.601: 60000 / 257 = 233.5 -> 233; 0.299 * 233 = 69.7 and 0.114 * 233 = 26.6
    assert decode_image(png(red, 16, 2)).tolist() == [[70, 27]]
    assert decode_film(png(red, 16, 2)).notes[0][0] == Reason.COLOUR
    data = red.astype("<u2").tobytes()
    assert decode_image(tiff(data, [*gray_fields(2, 1, 16, 2, samples=3)[:2], *_rgb16()])).tolist() == [[70, 27]]
    half = np.array([[4000, 4000, 4000, 65535, 4000, 4000, 4000, 0, 4095, 4095, 4095, 65535]])
    assert decode_image(png(half, 16, 6)).tolist() == [[249, 0, 255]]  # 4000 * 255 / 4095 = 249.08
    gray_alpha = np.array([[4095, 65535, 4095, 0]])
    assert decode_image(png(gray_alpha, 16, 4)).tolist() == [[255, 0]]


def _rgb16() -> list[Field]:
    return [(258, 3, [16, 16, 16]), (262, 3, [2]), (277, 3, [3])]


# --- orientation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", STORED)
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_orientation_is_applied_in_every_format(turn: int, order: str) -> None:
    stored = np.ascontiguousarray(STORED[turn])
    height, width = stored.shape
    for place in ("before", "after"):  # PNG's eXIf may stand on either side of the pixels
        data = png(stored, 8, 0, **{place: chunk(b"eXIf", exif(turn, order))})
        np.testing.assert_array_equal(decode_image(data), RAMP)
    deep = stored.astype(np.uint16) * 257
    data = tiff(deep.astype(f"{order}u2").tobytes(), gray_fields(width, height, 16, orientation=turn), order)
    np.testing.assert_array_equal(decode_image(data), RAMP)
    data = tiff(stored.tobytes(), gray_fields(width, height, 8, orientation=turn), order)
    np.testing.assert_array_equal(decode_image(data), RAMP)
    buffer = io.BytesIO()
    large = stored.repeat(16, axis=0).repeat(16, axis=1)
    Pillow.fromarray(large).save(buffer, "JPEG", quality=100, exif=b"Exif\0\0" + exif(turn, order))
    turned = decode_image(buffer.getvalue())
    assert turned.shape == (32, 48)
    assert np.abs(turned[8::16, 8::16].astype(int) - RAMP).max() <= 2


def test_orientation_of_wide_colour_is_applied_once() -> None:
    stored = np.ascontiguousarray(STORED[6]).astype(np.uint16) * 257
    samples = np.repeat(stored[..., None], 3, axis=2)
    data = png(samples.reshape(3, -1), 16, 2, chunk(b"eXIf", exif(6)))
    np.testing.assert_array_equal(decode_image(data), RAMP)
    fields: list[Field] = [(256, 4, [2]), (257, 4, [3]), *_rgb16(), (274, 3, [6])]
    np.testing.assert_array_equal(decode_image(tiff(samples.astype("<u2").tobytes(), fields)), RAMP)


@pytest.mark.parametrize("block", [b"", b"II*\0", exif(9), exif(0), b"junk" * 10, b"II*\0\xff\xff\xff\xff" + bytes(9)])
def test_a_damaged_orientation_counts_as_none(block: bytes) -> None:
    np.testing.assert_array_equal(decode_image(png(RAMP, 8, 0, chunk(b"eXIf", block))), RAMP)


# --- CMYK ------------------------------------------------------------------------------------------------------------


def test_cmyk_jpeg_is_inverted_where_adobe_marks_it_and_not_elsewhere() -> None:
    # Ink C = M = Y = 200, K = 255 is black. Adobe stores it inverted, 55, 55, 55, 0; read as it stands that is ink of
    # 55 and no black: gray 200.
    buffer = io.BytesIO()
    Pillow.new("CMYK", (16, 16), (200, 200, 200, 255)).save(buffer, "JPEG", quality=100)
    adobe = buffer.getvalue()
    assert decode_image(adobe).max() <= 1
    start = adobe.index(b"\xff\xee")
    plain = adobe[:start] + adobe[start + 2 + int.from_bytes(adobe[start + 2 : start + 4], "big") :]
    assert b"Adobe" not in plain
    assert np.abs(decode_image(plain).astype(int) - 200).max() <= 1


def test_ycck_jpeg_is_read() -> None:
    # YCCK is CMYK with the first three converted (Adobe TN 5116, transform 2). Zero chroma: C = M = Y = luma.
    buffer = io.BytesIO()
    Pillow.new("CMYK", (16, 16), (0, 0, 0, 0)).save(buffer, "JPEG", quality=100)
    data = bytearray(buffer.getvalue())
    data[data.index(b"Adobe") + 11] = 2
    image = decode_image(bytes(data))
    # All stored samples are 255 (inverted): Y = 255, Cb = Cr = 255, so R = 255, G = 120, B = 255 after BT.601 and
    # libjpeg's C = 255 - R and so on; the ink is inverted back, and no K.
    red, green, blue = 255 - (255 - 255), 255 - (255 - max(0, 255 - 44 - 91)), 255
    expected = 0.299 * (255 - red) + 0.587 * (255 - green) + 0.114 * (255 - blue)
    assert np.abs(image.astype(float) - expected).max() <= 2


# --- TIFF ------------------------------------------------------------------------------------------------------------


GRADIENT = (np.add.outer(np.arange(40) * 3, np.arange(50) * 2) % 256).astype(np.uint8)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("deep", [False, True])
def test_tiff_is_read_in_every_compression(compression: str | None, deep: bool) -> None:
    pixels = GRADIENT.astype(np.uint16) * 257 if deep else GRADIENT
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "TIFF", compression=compression)
    np.testing.assert_array_equal(decode_image(buffer.getvalue()), GRADIENT)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
def test_min_is_white_is_inverted(order: str, bits: int) -> None:
    values = RAMP if bits == 8 else RAMP.astype(f"{order}u2") * 257
    fields = gray_fields(3, 2, bits, photometric=0)
    np.testing.assert_array_equal(
        decode_image(tiff(values.astype(f"{order}u{bits // 8}").tobytes(), fields, order)), 255 - RAMP
    )


def test_tiff_with_a_palette_and_with_colour() -> None:
    palette = [0, 65535, 25700] + [0] * 253
    fields = [*gray_fields(3, 1, 8, photometric=3), (320, 3, palette * 3)]
    assert decode_image(tiff(bytes([0, 1, 2]), fields)).tolist() == [[0, 255, 100]]
    colour: list[Field] = [(256, 4, [2]), (257, 4, [1]), (258, 3, [8, 8, 8]), (262, 3, [2]), (277, 3, [3])]
    film = decode_film(tiff(bytes([255, 0, 0, 9, 9, 9]), colour))
    assert film.pixels.tolist() == [[76, 9]]
    assert [code for code, _ in film.notes] == [Reason.COLOUR]


def test_opencv_s_tiffs_are_read() -> None:
    for pixels in (GRADIENT, GRADIENT.astype(np.uint16) * 257, np.dstack([GRADIENT] * 3)):
        _, data = cv2.imencode(".tiff", pixels)
        np.testing.assert_array_equal(decode_image(data.tobytes()), GRADIENT)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (gray_fields(3, 2, 32), "depth 32 is not read"),
        (gray_fields(3, 2, 16, format=2), "sample format 2 is not read"),
        (gray_fields(3, 2, 8, format=3), "sample format 3 is not read"),
        (gray_fields(3, 2, 8, compression=7), "compression 7 is not read; allowed: none, LZW, deflate, PackBits"),
        (gray_fields(3, 2, 8, compression=34887), "compression 34887"),
        (gray_fields(3, 2, 8, photometric=6), "colour space 6"),
        (gray_fields(100_000, 100_000, 8), "100000x100000 is more than the allowed 100000000 pixels"),
        (gray_fields(0, 2, 8), "announces 0x2 pixels"),
        ([*gray_fields(3, 2, 8), (322, 4, [70_000]), (323, 4, [70_000])], "70000x70000 is more than"),
        (gray_fields(3, 2, 8)[1:], "field 256 is missing"),
        ([*gray_fields(3, 2, 8), (256, 4, [4])], "field 256 stands twice"),
        ([*gray_fields(3, 2, 16)[:2], (258, 3, [16, 16]), (262, 3, [1]), (277, 3, [2])], "combination of depth"),
    ],
)
def test_tiffs_that_are_refused_say_why(fields: list[Field], reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode_image(tiff(bytes(24), fields))


def test_a_tiff_of_several_pages_is_refused() -> None:
    buffer = io.BytesIO()
    Pillow.fromarray(GRADIENT).save(buffer, "TIFF", save_all=True, append_images=[Pillow.fromarray(GRADIENT)])
    with pytest.raises(ImageError, match="several pages") as caught:
        decode_image(buffer.getvalue())
    assert caught.value.code == Reason.UNSUPPORTED
    loop = tiff(RAMP.tobytes(), gray_fields(3, 2, 8), following=8 + 6)
    with pytest.raises(ImageError, match="several pages"):
        decode_image(loop)


def test_an_animated_png_and_bigtiff_are_refused() -> None:
    buffer = io.BytesIO()
    Pillow.fromarray(GRADIENT).save(buffer, "PNG", save_all=True, append_images=[Pillow.fromarray(255 - GRADIENT)])
    with pytest.raises(ImageError, match="animated PNG"):
        decode_image(buffer.getvalue())
    with pytest.raises(ImageError, match="BigTIFF"):
        decode_image(b"II+\0\x08\0\0\0" + bytes(50))


# --- bombs and damage ------------------------------------------------------------------------------------------------


def overlapping(count: int, size: int) -> bytes:
    """Return an EXIF block whose `count` fields all point at the same `size` bytes."""
    entries = b"".join(struct.pack("<HHII", 700 + n, 7, size, 0) for n in range(count))
    return b"II*\0" + struct.pack("<IH", 8, count) + entries + bytes(4) + bytes(size)


def test_fields_that_point_at_the_same_bytes_a_thousand_times_are_refused() -> None:
    # 20,000 fields of 1 MB each: 20 GB for a library that reads them all, from a file of 1.2 MB.
    block = overlapping(20_000, 1_000_000)
    with pytest.raises(ImageError, match="fields of more than the allowed"):
        decode_image(block)
    np.testing.assert_array_equal(decode_image(png(RAMP, 8, 0, chunk(b"eXIf", block))), RAMP)  # its pixels are fine
    nested = tiff(RAMP.tobytes(), [*gray_fields(3, 2, 8), (34665, 4, [100])])
    with pytest.raises(ImageError):
        decode_image(nested[:100] + block[8:])


def test_stacked_exif_blocks_and_scans_are_refused() -> None:
    buffer = io.BytesIO()
    Pillow.fromarray(GRADIENT).save(buffer, "JPEG", progressive=True, exif=b"Exif\0\0" + exif(1))
    data = buffer.getvalue()
    assert decode_image(data).shape == GRADIENT.shape
    segment = b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(exif(1))) + b"Exif\0\0" + exif(1)
    with pytest.raises(ImageError, match="several EXIF blocks"):
        decode_image(data[:2] + segment + data[2:])
    scan = data.rindex(b"\xff\xda")
    with pytest.raises(ImageError, match="more than 200 scans"):
        decode_image(data[:-2] + data[scan:-2] * 200 + data[-2:])


def test_the_frame_header_of_a_jpeg_is_what_pillow_finds() -> None:
    for progressive, mode in itertools.product((False, True), ("L", "RGB", "CMYK")):
        buffer = io.BytesIO()
        Pillow.new(mode, (123, 45)).save(buffer, "JPEG", progressive=progressive)
        frame = jpeg_frame(buffer.getvalue())
        assert (frame.width, frame.height, frame.precision, frame.components) == (
            123,
            45,
            8,
            len(mode.replace("L", "1")),
        )


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_truncated_tiff_is_refused_or_whole(compression: str | None) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 50), dtype=np.uint8)
    buffer = io.BytesIO()
    Pillow.fromarray(noise).save(buffer, "TIFF", compression=compression)
    data = buffer.getvalue()
    refused = 0
    for cut in range(0, len(data), 7):
        try:
            image = decode_image(data[:cut])
        except ImageError:
            refused += 1
            continue
        np.testing.assert_array_equal(image, noise)
    assert refused > len(data) // 7 - 40


@given(data=st.data())
def test_damaged_tiffs_give_an_image_or_a_reason(data: st.DataObject) -> None:
    content = bytearray(tiff(RAMP.tobytes(), gray_fields(3, 2, 8)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = decode_image(bytes(content), 10_000)
    except ImageError:
        return
    assert image.dtype == np.uint8
    assert image.ndim == 2


def test_messages_repeat_nothing_of_the_file() -> None:
    secret = b"Mustermann^Max"
    for data in (
        png(RAMP, 8, 0, secret),
        png(RAMP, 8, 0, chunk(b"tEXt", secret))[:-30],
        b"\xff\xd8\xff\xe1\x00\x20Exif\0\0" + secret * 9,
        b"II*\0" + secret * 20,
    ):
        with pytest.raises(ImageError) as caught:
            decode_image(data)
        assert "Muster" not in str(caught.value)
        assert caught.value.__context__ is None


# --- files and silence -----------------------------------------------------------------------------------------------


def test_a_named_pipe_and_a_huge_file_are_refused_unread(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="not a regular file"):
        read_film(tmp_path / "pipe.png")
    with (tmp_path / "huge.png").open("wb") as handle:
        handle.truncate((1 << 30) + 1)  # sparse: takes no room
    with pytest.raises(ImageError, match="1,073,741,825 bytes are more than the allowed 1,073,741,824"):
        read_film(tmp_path / "huge.png")


def test_silence_restores_the_filters_when_threads_overlap() -> None:
    before = list(warnings.filters)
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with silence():
            first_in.set()
            second_in.wait()
        first_out.set()

    def second() -> None:
        first_in.wait()
        with silence():
            second_in.set()
            first_out.wait()
            warnings.warn("quoted from a file", UserWarning, stacklevel=1)

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
    with pytest.warns(UserWarning, match="heard again"):
        warnings.warn("heard again", UserWarning, stacklevel=1)
