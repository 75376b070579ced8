"""From a file to the network's pixels, against values worked out by hand, by Pillow, SciPy and OpenCV directly."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY, WriteNih
from dicom_bytes import film
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from pipeline.images import (
    PIXEL_MODULES,
    Image,
    ImageError,
    clahe,
    decode_image,
    perceptual_hash,
    pixel_sha256,
    prepare,
    read_image,
    resize,
)
from pipeline.params import PreprocessParams

GRAY = np.random.default_rng(3).integers(0, 256, (48, 60), dtype=np.uint8)


def encode(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """Return one chunk of PNG (W3C PNG, section 5.3)."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def raw_png(width: int, height: int, depth: int, colour: int, lines: bytes, extra: bytes = b"") -> bytes:
    """Return a PNG file made by hand; each line of `lines` starts with its filter type 0."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_with_equal_channels_is_that_channel(channels: int) -> None:
    pixels = np.repeat(GRAY[..., None], channels, axis=2)
    pixels[..., 3:] = 255
    np.testing.assert_array_equal(decode_image(encode(pixels)), GRAY)


def test_gray_with_opaque_alpha_is_the_gray() -> None:
    np.testing.assert_array_equal(decode_image(encode(np.dstack([GRAY, np.full_like(GRAY, 255)]))), GRAY)


def test_colour_is_luma_of_bt_601() -> None:
    # ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B, so 76.2, 149.7, 29.1 for the pure colours.
    pixels = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [10, 20, 30]]], np.uint8)
    assert decode_image(encode(pixels)).tolist() == [[76, 150, 29, 255, 18]]


def test_transparent_pixels_lie_over_black() -> None:
    pixels = np.array([[[200, 200, 200, 255], [200, 200, 200, 0], [200, 200, 200, 51]]], np.uint8)
    assert decode_image(encode(pixels)).tolist() == [[200, 0, 40]]


def test_16_bits_are_scaled_by_255_over_65535_and_rounded() -> None:
    # 255/65535 = 1/257: 128/257 rounds to 0, 129/257 to 1, 32896/257 = 128.
    values = [0, 128, 129, 257, 32896, 65535]
    lines = b"\0" + struct.pack(">6H", *values)
    assert decode_image(raw_png(6, 1, 16, 0, lines)).tolist() == [[0, 0, 1, 1, 128, 255]]


def test_palettes_and_few_bits_are_resolved() -> None:
    palette = chunk(b"PLTE", bytes([9, 9, 9, 250, 250, 250]))
    assert decode_image(raw_png(3, 1, 8, 3, b"\0\1\0\1", palette)).tolist() == [[250, 9, 250]]
    assert decode_image(raw_png(2, 1, 4, 0, b"\0\xf1")).tolist() == [[255, 17]]  # 4 bits: 17 times the value
    gray_palette = Pillow.fromarray(GRAY).convert("P")
    buffer = io.BytesIO()
    gray_palette.save(buffer, "PNG")
    np.testing.assert_array_equal(decode_image(buffer.getvalue()), GRAY)


def test_jpeg_of_one_gray_is_that_gray() -> None:
    for pixels in (np.full((16, 24), 77, np.uint8), np.full((16, 24, 3), 77, np.uint8)):
        image = decode_image(encode(pixels, "JPEG"))
        assert image.shape == (16, 24)
        assert image.dtype == np.uint8
        assert np.unique(image).tolist() == [77]


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".JPEG", ""])
def test_the_content_decides_not_the_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"胸片 1{suffix}"
    path.write_bytes(encode(GRAY))
    np.testing.assert_array_equal(read_image(path), GRAY)


CUTS = [0.0, 0.001, 0.1, 0.3, 0.5, 0.9, 0.99]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "progressive"])
@pytest.mark.parametrize("colour", [False, True])
def test_a_truncated_file_is_refused_wherever_it_is_cut(kind: str, colour: bool) -> None:
    pixels = np.repeat(GRAY[..., None], 3, axis=2) if colour else GRAY
    data = encode(pixels, "PNG") if kind == "PNG" else encode(pixels, "JPEG", progressive=kind == "progressive")
    for cut in [*(int(len(data) * share) for share in CUTS), 1, 8, 20, 33, 40, len(data) - 30]:
        with pytest.raises(ImageError):
            decode_image(data[:cut])
    for cut in range(len(data) - 12, len(data)):  # the end marker, behind the last pixel
        try:
            image = decode_image(data[:cut])
        except ImageError:
            continue
        np.testing.assert_array_equal(image, decode_image(data))


@pytest.mark.parametrize("position", range(16, 90, 7))
def test_a_flipped_bit_in_a_png_is_refused(position: int) -> None:
    """Every chunk of PNG carries its CRC-32; a picture of flat areas decodes without complaint otherwise."""
    smooth = (np.add.outer(np.arange(90), np.arange(70)) % 256).astype(np.uint8)
    data = bytearray(encode(smooth))
    for bit in (1, 16, 128):
        data[position] ^= bit
        with pytest.raises(ImageError):
            decode_image(bytes(data))
        data[position] ^= bit


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_bytes_give_an_image_or_a_reason_and_never_a_crash(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG"]))
    content = bytearray(encode(GRAY[:20, :20], kind))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own about sizes that a damaged header announces
        try:
            image = decode_image(bytes(content), max_pixels=100_000)
        except ImageError:
            return
    assert image.dtype == np.uint8
    assert image.ndim == 2


@settings(max_examples=100)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_no_image(content: bytes) -> None:
    with pytest.raises(ImageError):
        decode_image(content)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    for content, reason in (
        (b"", "empty"),
        (b"Image Index,Finding Labels\n", "neither a PNG nor a JPEG"),
        (encode(GRAY, "GIF"), "neither a PNG nor a JPEG"),
        (b"BM" + bytes(100), "neither a PNG nor a JPEG file, nor TIFF, nor DICOM"),
        (b"\0" * 128 + b"DICM", "without pixel data"),
    ):
        with pytest.raises(ImageError, match=reason):
            decode_image(content)
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path)


def test_an_oversized_header_is_refused_before_anything_is_decoded() -> None:
    # The data are missing: whoever decoded would complain about them instead of the size.
    with pytest.raises(ImageError, match="3000x2000 is more than the allowed 5999999 pixels"):
        decode_image(raw_png(3000, 2000, 8, 0, b""), max_pixels=5_999_999)
    with pytest.raises(ImageError, match="pixels"):
        decode_image(raw_png(2**31 - 1, 2**31 - 1, 8, 0, b""))
    assert decode_image(raw_png(64, 64, 8, 0, b"\0" * 65 * 64), max_pixels=4096).shape == (64, 64)


@pytest.mark.parametrize(("side", "bound"), [(9500, 100_000_000), (14_000, 1_000_000_000)])
def test_the_bound_is_the_one_given_and_not_a_library_s(side: int, bound: int) -> None:
    """Pillow warns above 89 and refuses above 179 million pixels by itself; `ingest.max_pixels` allows up to 10^9."""
    with pytest.raises(ImageError, match="damaged or truncated"):
        decode_image(raw_png(side, side, 8, 0, b""), max_pixels=bound)


def test_a_text_that_unpacks_to_gigabytes_is_refused() -> None:
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 80_000_000, 1))
    with pytest.raises(ImageError):
        decode_image(raw_png(2, 1, 8, 0, b"\0\1\2", bomb))


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("shape", [(48, 60), (1, 1), (1, 300), (300, 1), (64, 64), (500, 20), (2000, 1500)])
@pytest.mark.parametrize("size", [32, 64, 100])
def test_resizing_gives_a_square_of_uint8(fit: str, shape: tuple[int, int], size: int) -> None:
    image = resize(np.full(shape, 200, np.uint8), size, fit)
    assert image.shape == (size, size)
    assert image.dtype == np.uint8
    assert image.max() == 200  # constants stay


def test_reducing_averages_areas_and_the_same_size_changes_nothing() -> None:
    blocks = np.array([[10, 20], [30, 40]], np.uint8).repeat(32, axis=0).repeat(32, axis=1)
    blocks[::2, ::2] += 2  # a quarter of each 2 x 2 block: the mean rises by 0.5
    blocks[1::2, 1::2] += 2
    expected = np.array([[11, 21], [31, 41]]).repeat(16, axis=0).repeat(16, axis=1)
    np.testing.assert_array_equal(resize(blocks, 32, "stretch"), expected)
    np.testing.assert_array_equal(resize(blocks, 64, "stretch"), blocks)
    np.testing.assert_array_equal(resize(blocks, 64, "letterbox"), blocks)


def test_letterbox_keeps_the_aspect_and_pads_evenly_with_black() -> None:
    wide = resize(np.full((50, 100), 200, np.uint8), 64, "letterbox")
    np.testing.assert_array_equal(wide[16:48], 200)
    np.testing.assert_array_equal(wide[:16], 0)
    np.testing.assert_array_equal(wide[48:], 0)
    high = resize(np.full((100, 50), 200, np.uint8), 64, "letterbox")
    np.testing.assert_array_equal(high, wide.T)
    disk = np.zeros((400, 200), np.uint8)
    cv2.circle(disk, (100, 200), 80, 255, -1)
    rows, columns = np.nonzero(resize(disk, 128, "letterbox") > 127)
    assert np.ptp(rows) == np.ptp(columns)  # a circle stays round


def test_clahe_is_opencv_s() -> None:
    expected = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(4, 4)).apply(GRAY)
    np.testing.assert_array_equal(clahe(GRAY, 3.0, 4), expected)
    assert (clahe(GRAY, 3.0, 4) != clahe(GRAY, 1.0, 4)).any()


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_prepare_resizes_then_equalises(fit: str) -> None:
    params = PreprocessParams(size=32, fit=fit, clip_limit=2.0, tiles=4)
    expected = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(4, 4)).apply(resize(GRAY, 32, fit))
    np.testing.assert_array_equal(prepare(GRAY, params), expected)
    plain = PreprocessParams(size=32, fit=fit, clahe=False)
    np.testing.assert_array_equal(prepare(GRAY, plain), resize(GRAY, 32, fit))


def test_an_image_is_prepared_alike_alone_and_among_others_and_is_not_changed() -> None:
    params = PreprocessParams(size=64)
    others = [np.random.default_rng(n).integers(0, 256, (40 + n, 90 - n), dtype=np.uint8) for n in range(20)]
    before = GRAY.copy()
    alone = prepare(GRAY, params)
    among = [prepare(image, params) for image in [*others[:10], GRAY, *others[10:]]][10]
    np.testing.assert_array_equal(alone, among)
    np.testing.assert_array_equal(prepare(np.asfortranarray(GRAY), params), alone)
    np.testing.assert_array_equal(GRAY, before)


def test_as_many_tiles_as_pixels_still_work() -> None:
    assert prepare(GRAY, PreprocessParams(size=32, tiles=64)).shape == (32, 32)


def test_the_pixel_hash_is_that_of_the_picture_and_not_of_the_file() -> None:
    opaque = np.dstack([GRAY, GRAY, GRAY, np.full_like(GRAY, 255)])
    hashes = {pixel_sha256(decode_image(encode(pixels))) for pixels in (GRAY, np.dstack([GRAY] * 3), opaque)}
    hashes.add(pixel_sha256(decode_image(encode(GRAY, compress_level=1))))
    hashes.add(pixel_sha256(np.asfortranarray(GRAY)))
    assert len(hashes) == 1
    other = GRAY.copy()
    other[5, 5] ^= 1
    assert pixel_sha256(other) not in hashes
    assert pixel_sha256(GRAY.reshape(60, 48)) not in hashes  # the same bytes in another shape


def radiograph(seed: int) -> Image:
    """Return a picture with the low frequencies of a radiograph."""
    noise = np.random.default_rng(seed).normal(size=(12, 12)).astype(np.float32)
    large = cv2.resize(noise, (512, 512), interpolation=cv2.INTER_CUBIC)
    return np.asarray(cv2.normalize(large, np.zeros_like(large), 0, 255, cv2.NORM_MINMAX), np.uint8)


def test_the_perceptual_hash_is_zauners() -> None:
    from scipy.fft import dctn

    image = radiograph(1)
    small = image.reshape(32, 16, 32, 16).mean(axis=(1, 3)).round()
    block = dctn(small, norm="ortho")[1:9, 1:9]
    bits = "".join("1" if value > np.median(block) else "0" for value in block.flatten())
    assert _distance(perceptual_hash(image), f"{int(bits, 2):016x}") <= 2  # rounding of means at .5


def test_the_perceptual_hash_survives_resizing_and_jpeg_but_tells_pictures_apart() -> None:
    hashes = []
    for seed in range(6):
        image = radiograph(seed)
        hashes.append(perceptual_hash(image))
        assert len(hashes[-1]) == 16
        assert _distance(hashes[-1], perceptual_hash(resize(image, 448, "stretch"))) <= 4
        assert _distance(hashes[-1], perceptual_hash(decode_image(encode(image, "JPEG", quality=85)))) <= 4
        brighter = (image.astype(np.float32) * 0.8 + 30).astype(np.uint8)
        assert _distance(hashes[-1], perceptual_hash(brighter)) <= 4
    assert min(_distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 12


def test_the_smallest_image_has_hashes() -> None:
    assert len(perceptual_hash(np.zeros((1, 1), np.uint8))) == 16
    assert len(pixel_sha256(np.zeros((1, 1), np.uint8))) == 64


def _distance(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def test_every_format_is_the_same_from_a_path_from_bytes_and_in_a_shard(tmp_path: Path, write_nih: WriteNih) -> None:
    """Training reads shards, the report reads files and the server reads bytes: one function stands behind all."""
    from pipeline.ingest import ingest
    from pipeline.manifest import read_manifest
    from pipeline.params import Params, SplitParams
    from pipeline.preprocess import preprocess
    from pipeline.scoring_input import images_in_order
    from pipeline.shards import open_processed
    from pipeline.split import split

    raw = write_nih(tmp_path / "raw", [f"{n:08d}_000.png,Mass,0,{n},060Y,F,PA,,,0.1,0.1" for n in range(1, 13)])
    deep = np.random.default_rng(8).integers(0, 4096, (80, 90), dtype=np.uint16)
    contents = [film(deep, 12), film(deep, 12, t00280004=("CS", "MONOCHROME1")), encode(deep), encode(deep, "TIFF")]
    contents += [encode(GRAY.repeat(2, axis=0).repeat(2, axis=1), kind) for kind in ("PNG", "JPEG", "TIFF")]
    for path, content in zip(sorted((raw / "images").iterdir()), contents, strict=False):
        path.write_bytes(content)
    params = Params(preprocess=PreprocessParams(size=32, tiles=4))
    ingest(raw, tmp_path / "manifest.csv", tmp_path / "quarantine.csv", Params(), 1)
    split(tmp_path / "manifest.csv", tmp_path / "splits.csv", tmp_path / "split.json", SplitParams())
    preprocess(tmp_path / "manifest.csv", tmp_path / "splits.csv", tmp_path / "processed", raw, params, 1)
    paths = read_manifest(tmp_path / "manifest.csv").set_index("image_id")["path"]
    processed = open_processed(tmp_path / "processed")
    seen = 0
    for name in ("train", "val", "test"):
        stored = np.concatenate([np.asarray(batch) for batch in images_in_order(processed, name, 4)])
        for image_id, pixels in zip(processed.rows(name)["image_id"], stored, strict=True):
            path = raw / paths[image_id]
            np.testing.assert_array_equal(pixels[..., 0], prepare(read_image(path), params.preprocess))
            np.testing.assert_array_equal(pixels[..., 0], prepare(decode_image(path.read_bytes()), params.preprocess))
            seen += 1
    assert seen == len(paths) >= 10


def test_the_list_of_modules_that_make_pixels_is_complete() -> None:
    """Preprocess decides from their hashes what it can keep: whatever of ours `images` imports has to be there."""
    from test_dvc import imported_modules

    others = {"errors", "files", "params", "quarantine", "images"}
    imported = {name.removeprefix("pipeline.") for name in imported_modules("pipeline.images", set())}
    listed = {
        str(path.relative_to(REPOSITORY / "pipeline").with_suffix("")).replace("/", ".") for path in PIXEL_MODULES
    }
    assert listed - {"decoders.__init__"} == imported - others | {"images"}
    assert all(path.is_file() for path in PIXEL_MODULES)
