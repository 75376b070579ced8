"""DICOM films, against pydicom's and GDCM's own decoding of pydicom's test files, and values worked out by hand."""

import io
import math
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from dicom_bytes import (
    BIG,
    DEFLATED,
    IMPLICIT,
    PIXEL_DATA,
    Element,
    dataset,
    encapsulated,
    film,
    image,
    wrap,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from pipeline.decoders import gdcm_worker
from pipeline.decoders.codestreams import jpeg2000_frame, jpeg_frame
from pipeline.decoders.dicom import read_facts
from pipeline.images import ImageError, decode_film, decode_image, read_film, read_image
from pipeline.quarantine import Reason

GRAY = np.random.default_rng(5).integers(0, 256, (24, 30), dtype=np.uint8)
MONOCHROME1: Element = ("CS", "MONOCHROME1")
RLE = "1.2.840.10008.1.2.5"
JPEG = "1.2.840.10008.1.2.4.50"
JPEG_2000 = "1.2.840.10008.1.2.4.90"


def test_file(name: str) -> Path:
    """Return one of the files inside the pydicom package; nothing is fetched."""
    import pydicom.data

    return next((Path(pydicom.data.__file__).parent).rglob(name))


test_file.__test__ = False  # type: ignore[attr-defined]


def stretched(values: np.ndarray) -> np.ndarray:
    """Scale minimum to maximum to 0..255, unrounded."""
    values = values.astype(np.float64)
    return (values - values.min()) * (255 / (values.max() - values.min()))


def assert_rounded(pixels: np.ndarray, exact: np.ndarray) -> None:
    assert pixels.shape == exact.shape
    assert np.abs(pixels - exact).max() <= 0.5 + 1e-6


# --- pydicom's files -------------------------------------------------------------------------------------------------

PLAIN = [
    "chrArab.dcm",
    "image_dfl.dcm",
    "JPEG2000.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
]
WINDOWED = [
    "693_J2KI.dcm",
    "MR_small.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "examples_overlay.dcm",
    "6154",
    "17136",
    "5641",
]
COLOUR = [
    "ExplVR_BigEnd.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_rle.dcm",
    "SC_rgb_small_odd.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_gdcm_KY.dcm",
    "examples_jpeg2k.dcm",
    "examples_rgb_color.dcm",
    "SC_jpeg_no_color_transform.dcm",
]


@pytest.mark.parametrize("name", PLAIN)
def test_without_a_window_the_range_of_the_pixels_is_shown(name: str) -> None:
    import pydicom

    assert_rounded(read_image(test_file(name)), stretched(pydicom.dcmread(test_file(name)).pixel_array))


@pytest.mark.parametrize("name", WINDOWED)
def test_windows_are_pydicom_s(name: str) -> None:
    import pydicom
    from pydicom.pixels import apply_modality_lut, apply_windowing

    header = pydicom.dcmread(test_file(name))
    values = apply_modality_lut(header.pixel_array, header)
    ends = apply_windowing(np.array([-1e9, 1e9]), header)  # what black and white are
    shown = (apply_windowing(values, header) - ends[0]) * (255 / (ends[1] - ends[0]))
    expected = 255 - shown if header.PhotometricInterpretation == "MONOCHROME1" else shown
    assert_rounded(read_image(test_file(name)), expected)


@pytest.mark.parametrize("name", COLOUR)
def test_colour_is_the_luma_of_what_pydicom_decodes(name: str) -> None:
    import pydicom

    header = pydicom.dcmread(test_file(name))
    rgb = header.pixel_array.astype(np.float64)
    found = read_film(test_file(name))
    # OpenCV's weights have 14 bits: at most a rounding apart from BT.601.
    assert np.abs(found.pixels - rgb @ [0.299, 0.587, 0.114]).max() <= 0.51
    assert [code for code, _ in found.notes] == [Reason.COLOUR]


def test_palette_colour_is_what_pydicom_looks_up() -> None:
    import pydicom
    from pydicom.pixels import apply_color_lut

    header = pydicom.dcmread(test_file("examples_palette.dcm"))
    rgb = apply_color_lut(header.pixel_array, header).astype(np.float64) * (255 / 65535)
    found = read_film(test_file("examples_palette.dcm"))
    assert np.abs(found.pixels - rgb @ [0.299, 0.587, 0.114]).max() <= 1.01  # channels are rounded first


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_expb.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_every_lossless_encoding_gives_the_same_pixels(name: str) -> None:
    np.testing.assert_array_equal(read_image(test_file(name)), read_image(test_file("MR_small.dcm")))


def test_lossless_jpeg_gives_the_pixels_of_rle() -> None:
    np.testing.assert_array_equal(
        read_image(test_file("SC_rgb_jpeg_gdcm.dcm")), read_image(test_file("SC_rgb_rle.dcm"))
    )


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_jpeg_with_12_bits_has_the_published_values(name: str) -> None:
    # pydicom's own tests, from a reference decoder: 244 at (420, 140) and 95 at (230, 120); 0 to 264 in all (GDCM).
    found = read_image(test_file(name))
    assert found[420, 140] == round(244 * 255 / 264)
    assert found[230, 120] == round(95 * 255 / 264)
    assert (found.min(), found.max()) == (0, 255)


@pytest.mark.parametrize("name", ["JPEG2000.dcm", "JPEGLSNearLossless_16.dcm", "image_dfl.dcm"])
def test_gdcm_decodes_the_same(name: str) -> None:
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(test_file(name)))
    assert reader.Read()
    content = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    found = read_image(test_file(name))
    signed = reader.GetImage().GetPixelFormat().GetPixelRepresentation()
    kind = f"{'i' if signed else 'u'}{len(content) // found.size}"
    assert_rounded(found, stretched(np.frombuffer(content, f"<{kind}").reshape(found.shape)))


def test_a_file_and_its_relabelled_copy_are_each_other_s_inverse(shared_data: Path) -> None:
    two = read_image(shared_data / "dicom" / "rsna_monochrome2.dcm")
    one = read_image(shared_data / "dicom" / "rsna_relabelled_monochrome1.dcm")
    np.testing.assert_array_equal(one, 255 - two)
    data = (shared_data / "dicom" / "rsna_monochrome2.dcm").read_bytes()
    with Pillow.open(io.BytesIO(data[data.index(b"\xff\xd8\xff") :])) as picture:
        assert_rounded(two, stretched(np.asarray(picture.convert("L"))))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("examples_ybr_color.dcm", "a DICOM file of 30 frames"),
        ("SC_rgb_rle_2frame.dcm", "2 frames"),
        ("rtdose_1frame.dcm", r"another kind \(RT Dose Storage\)"),
        ("liver_1frame.dcm", r"another kind \(Segmentation Storage\)"),
        ("rtstruct.dcm", "another kind|without pixel data"),
        ("SC_rgb_rle_32bit.dcm", "BitsAllocated is 32; allowed here: 8, 16"),
        ("DICOMDIR", "without pixel data"),
        ("meta_missing_tsyntax.dcm", "missing or no number|without pixel|not read"),
    ],
)
def test_what_is_no_film_is_refused_in_a_line(name: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        read_film(test_file(name))
    assert caught.value.code in (Reason.UNSUPPORTED, Reason.TRUNCATED)
    assert "\n" not in str(caught.value)


# --- values worked out by hand ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_stored_bits_and_sign(bits: int, signed: bool) -> None:
    low = -(2 ** (bits - 1)) if signed else 0
    values = np.array([[low, low + 2**bits // 5, low + 2**bits - 1]])
    stored = values.astype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")
    # 2^n // 5 of 2^n - 1, as a share of 255: 51 for every depth.
    assert decode_image(film(stored, bits)).tolist() == [[0, 51, 255]]
    assert decode_image(film(stored, bits, t00280004=MONOCHROME1)).tolist() == [[255, 204, 0]]


def test_bits_above_those_stored_are_not_pixels() -> None:
    stored = np.array([[0x0000, 0xF400, 0xFFFF]], np.uint16)  # an overlay of the old kind in the highest four bits
    assert decode_image(film(stored, 12)).tolist() == [[0, 64, 255]]  # 0x400 * 255 / 4095 = 63.8


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        # PS3.3, C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1) + 0.5) * 255
        ("LINEAR", [0, 0, 64, 128, 191, 255, 255]),
        # C.11.2.1.3.2: ((x - c) / w + 0.5) * 255
        ("LINEAR_EXACT", [0, 0, 64, 128, 191, 255, 255]),
        # C.11.2.1.3.1: 255 / (1 + exp(-4 (x - c) / w)); at c -+ w/4 it is 255 / (1 + e) and 255 / (1 + 1/e)
        ("SIGMOID", [5, 30, 69, 128, 186, 225, 250]),
    ],
)
def test_windows_are_those_of_the_standard(function: str, expected: list[int]) -> None:
    stored = np.array([[0, 1000, 1500, 2000, 2500, 3000, 4000]], np.uint16)
    data = film(stored, 12, t00281050=("DS", "2000"), t00281051=("DS", "2000"), t00281056=("CS", function))
    assert decode_image(data).tolist() == [expected]
    inverse = film(
        stored,
        12,
        t00280004=MONOCHROME1,
        t00281050=("DS", "2000"),
        t00281051=("DS", "2000"),
        t00281056=("CS", function),
    )
    assert decode_image(inverse).tolist() == [[255 - value for value in expected]]


def test_linear_windows_differ_by_half_a_value() -> None:
    stored = np.array([[0, 1, 2, 3, 4]], np.uint8)
    window = {"t00281050": ("DS", "2"), "t00281051": ("DS", "4")}
    # LINEAR: (x - 1.5) / 3 + 0.5 = 0, 1/3, 2/3, 1; LINEAR_EXACT: (x - 2) / 4 + 0.5 = 0, 1/4, 1/2, 3/4, 1
    assert decode_image(film(stored, **window)).tolist() == [[0, 85, 170, 255, 255]]
    exact = {**window, "t00281056": ("CS", "LINEAR_EXACT")}
    assert decode_image(film(stored, **exact)).tolist() == [[0, 64, 128, 191, 255]]
    step = {"t00281050": ("DS", "2"), "t00281051": ("DS", "1")}  # a width of 1 is a threshold at c - 0.5
    assert decode_image(film(stored, **step)).tolist() == [[0, 0, 255, 255, 255]]


@pytest.mark.parametrize(
    "window", [("40", "0"), ("40", "-5"), ("", "100"), ("x", "100"), ("40", "nan"), ("1e999", "9")]
)
def test_a_window_that_cannot_be_used_counts_as_none(window: tuple[str, str]) -> None:
    data = film(GRAY, t00281050=("DS", window[0]), t00281051=("DS", window[1]))
    assert_rounded(decode_image(data), stretched(GRAY))


def test_the_first_of_several_windows_is_used() -> None:
    stored = np.array([[0, 64, 128, 255]], np.uint8)
    data = film(stored, t00281050=("DS", "128\\10"), t00281051=("DS", "256\\2"))
    assert decode_image(data).tolist() == [[0, 64, 128, 255]]  # (x - 127.5) / 255 + 0.5 = x / 255


def test_rescale_comes_before_the_window_and_may_turn_the_gray_around() -> None:
    stored = np.array([[0, 500, 1000]], np.uint16)
    rescale = {"t00281052": ("DS", "-1000"), "t00281053": ("DS", "2")}  # -1000, 0, 1000
    assert decode_image(film(stored, 12, **rescale)).tolist() == [[0, 128, 255]]
    window = {"t00281050": ("DS", "0"), "t00281051": ("DS", "1000"), "t00281056": ("CS", "LINEAR_EXACT")}
    assert decode_image(film(stored, 12, **rescale, **window)).tolist() == [[0, 128, 255]]
    negative = {"t00281052": ("DS", "1000"), "t00281053": ("DS", "-1")}
    assert decode_image(film(stored, 12, **negative)).tolist() == [[255, 128, 0]]
    with pytest.raises(ImageError, match="Rescale Slope"):
        decode_image(film(stored, 12, t00281052=("DS", "0"), t00281053=("DS", "0")))


def lut(tag: int, first: int, bits: int, entries: list[int], *, packed: bool = False) -> dict[str, Element]:
    """Return a sequence with one lookup table: descriptor (0028,3002) and data (0028,3006)."""
    descriptor = struct.pack("<HhH", len(entries) % 65536, first, bits)
    data = bytes(entries) if packed else struct.pack(f"<{len(entries)}H", *entries)
    return {f"t{tag:08x}": ("SQ", [{0x00283002: ("SS", descriptor), 0x00283006: ("OW", data)}])}


MODALITY, VOI = 0x00283000, 0x00283010


def test_a_voi_lut_is_preferred_and_clamps_at_its_ends() -> None:
    stored = np.array([[0, 99, 100, 101, 102, 4000]], np.uint16)
    table = lut(VOI, 100, 10, [0, 341, 1023])
    window = {"t00281050": ("DS", "1"), "t00281051": ("DS", "2")}
    assert decode_image(film(stored, 12, **table, **window)).tolist() == [[0, 0, 0, 85, 255, 255]]
    assert decode_image(film(stored, 12, **table, t00280004=MONOCHROME1)).tolist() == [[255, 255, 255, 170, 0, 0]]


@pytest.mark.parametrize("packed", [False, True])
def test_a_voi_lut_from_12_to_8_bits(packed: bool) -> None:
    table = lut(VOI, 0, 8, [n // 16 for n in range(4096)], packed=packed)
    stored = np.array([[0, 16, 2048, 4095]], np.uint16)
    assert decode_image(film(stored, 12, **table)).tolist() == [[0, 1, 128, 255]]


def test_voi_luts_are_pydicom_s() -> None:
    import pydicom
    from pydicom.pixels import apply_voi

    rng = np.random.default_rng(2)
    entries = [int(value) for value in np.sort(rng.integers(0, 65536, 3000))]
    stored = rng.integers(-2000, 2000, (20, 20), dtype=np.int16)
    data = film(stored, 16, **lut(VOI, -1500, 16, entries))
    header = pydicom.dcmread(io.BytesIO(data))
    assert_rounded(decode_image(data), apply_voi(header.pixel_array.astype(np.int32), header) * (255 / 65535))


def test_a_modality_lut_comes_before_the_window() -> None:
    stored = np.array([[0, 1, 2, 3]], np.uint8)
    table = lut(MODALITY, 1, 16, [10, 20, 60])
    assert decode_image(film(stored, **table)).tolist() == [[0, 0, 51, 255]]  # 10, 10, 20, 60 stretched
    window = {"t00281050": ("DS", "20"), "t00281051": ("DS", "40"), "t00281056": ("CS", "LINEAR_EXACT")}
    assert decode_image(film(stored, **table, **window)).tolist() == [[64, 64, 128, 255]]


@pytest.mark.parametrize("fault", ["short", "descriptor", "bits", "empty"])
def test_a_damaged_lookup_table_is_refused(fault: str) -> None:
    item: dict[int, Element] = {
        0x00283002: (
            "US",
            [2, 0] if fault == "descriptor" else [9 if fault == "short" else 2, 0, 40 if fault == "bits" else 8],
        ),
        0x00283006: ("OW", b"" if fault == "empty" else b"\x01\x00\x02\x00"),
    }
    with pytest.raises(ImageError, match="lookup table"):
        decode_image(film(GRAY, t00283010=("SQ", [item])))


def test_padding_is_black_and_does_not_widen_the_range() -> None:
    stored = np.array([[-2000, 100, 150, 200]], np.int16)
    for vr, value in (("SS", -2000), ("US", 65536 - 2000)):  # writers mistake the VR
        assert decode_image(film(stored, t00280120=(vr, value))).tolist() == [[0, 0, 128, 255]]
    one = film(stored, t00280120=("SS", -2000), t00280004=MONOCHROME1)
    assert decode_image(one).tolist() == [[0, 255, 127, 0]]  # black although the lowest value is white
    ranged = film(stored, t00280120=("SS", -2000), t00280121=("SS", 120))
    assert decode_image(ranged).tolist() == [[0, 0, 0, 255]]
    everything = film(np.full((4, 4), 7, np.uint8), t00280120=("US", 7))
    assert decode_image(everything).tolist() == np.zeros((4, 4), int).tolist()


def test_padding_in_implicit_vr_has_the_sign_of_the_pixels() -> None:
    elements = image(np.array([[-2000, 100, 150, 200]], np.int16), t00280120=("SS", -2000))
    data = wrap(dataset(elements, implicit=True), IMPLICIT)
    assert decode_image(data).tolist() == [[0, 0, 128, 255]]


def test_a_constant_picture_is_black() -> None:
    assert decode_image(film(np.full((5, 5), 77, np.uint8))).max() == 0


@given(seed=st.integers(0, 10**6), bits=st.sampled_from([8, 10, 12, 16]), signed=st.booleans())
def test_brighter_values_never_come_out_darker(seed: int, bits: int, signed: bool) -> None:
    rng = np.random.default_rng(seed)
    low = -(2 ** (bits - 1)) if signed else 0
    stored = rng.integers(low, low + 2**bits, (3, 7)).astype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")
    window = {
        "t00281050": ("DS", str(rng.integers(low, low + 2**bits))),
        "t00281051": ("DS", str(rng.integers(1, 2**bits))),
    }
    for extra in ({}, window):
        pixels = decode_image(film(stored, bits, **extra)).flatten().astype(int)
        assert (np.diff(pixels[np.argsort(stored.flatten(), kind="stable")]) >= 0).all()
        negative = decode_image(film(stored, bits, t00280004=MONOCHROME1, **extra)).flatten()
        np.testing.assert_array_equal(negative, 255 - pixels)


def test_colour_by_plane_and_deep_colour() -> None:
    planes = np.array([[255, 0], [0, 0], [0, 255]], np.uint8)  # red, green and blue of two pixels
    rgb: dict[str, Element] = {
        "t00280002": ("US", 3),
        "t00280004": ("CS", "RGB"),
        "t00280006": ("US", 1),
        "t00280010": ("US", 1),
        "t00280011": ("US", 2),
    }
    assert decode_image(film(planes, **rgb)).tolist() == [[76, 29]]
    deep = np.array([[1000, 1000, 1000, 1023, 1023, 1023]], np.uint16)
    wide = {**rgb, "t00280006": ("US", 0)}
    assert decode_image(film(deep, 10, **wide)).tolist() == [[249, 255]]  # 1000 * 255 / 1023 = 249.3
    assert decode_film(film(deep, 10, **wide)).notes == ()  # equal channels are gray


def test_a_small_palette_by_hand() -> None:
    palette: dict[str, Element] = {"t00280004": ("CS", "PALETTE COLOR")}
    for n, entries in enumerate(([0, 255, 9], [0, 0, 9], [0, 0, 9])):
        palette[f"t0028110{n + 1}"] = ("US", [3, 10, 8])
        palette[f"t0028120{n + 1}"] = ("OW", struct.pack("<3H", *entries))
    assert decode_image(film(np.array([[9, 10, 11, 12, 200]], np.uint8), **palette)).tolist() == [[0, 0, 76, 9, 9]]


def test_burnt_in_text_is_noted_and_the_film_is_kept() -> None:
    found = decode_film(film(GRAY, t00280301=("CS", "YES")))
    assert [code for code, _ in found.notes] == [Reason.BURNT_IN]
    assert_rounded(found.pixels, stretched(GRAY))
    assert decode_film(film(GRAY, t00280301=("CS", "NO"))).notes == ()


# --- what a file may look like ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [IMPLICIT, "1.2.840.10008.1.2.1", BIG])
@pytest.mark.parametrize("preamble", [True, False])
def test_preamble_and_meta_information_may_be_missing(syntax: str, preamble: bool) -> None:
    stored = np.array([[1, 300], [500, 1001]], np.uint16)
    order = ">" if syntax == BIG else "<"
    elements = image(stored)
    elements[PIXEL_DATA] = ("OW", stored.astype(f"{order}u2").tobytes())
    body = dataset(elements, order, implicit=syntax == IMPLICIT)
    assert decode_image(wrap(body, syntax) if preamble else body).tolist() == [[0, 76], [127, 255]]


def test_meta_information_without_preamble() -> None:
    assert_rounded(decode_image(film(GRAY)[132:]), stretched(GRAY))


def test_a_tiff_header_in_the_preamble_does_not_make_it_a_tiff() -> None:
    data = b"II*\0\x08\0\0\0" + film(GRAY)[8:]
    assert_rounded(decode_image(data), stretched(GRAY))


@pytest.mark.parametrize("name", ["film.png", "film", "胸片.DCM"])
def test_the_name_does_not_matter(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(film(GRAY))
    assert_rounded(read_image(tmp_path / name), stretched(GRAY))


def test_sequences_and_private_elements_before_the_pixels_are_skipped() -> None:
    nested: dict[int, Element] = {0x00400275: ("SQ", [{0x00400007: ("LO", "chest"), 0x00321064: ("SQ", [{}])}])}
    data = wrap(dataset({**image(GRAY), **nested, 0x00291010: ("UN", bytes(999)), 0x00090010: ("LO", "MAKER")}))
    assert_rounded(decode_image(data), stretched(GRAY))


REFUSED: list[tuple[dict[str, Element], str]] = [
    ({"t00280008": ("IS", "3")}, "3 frames"),
    ({"t00280008": ("IS", "0")}, "0 frames"),
    ({"t00280102": ("US", 6)}, "HighBit is 6; allowed here: 7"),
    ({"t00280101": ("US", 9)}, "BitsStored is 9; allowed here: 1 to 8"),
    ({"t00280103": ("US", 2)}, "PixelRepresentation is 2"),
    ({"t00280002": ("US", 3)}, "SamplesPerPixel is 3; allowed here: 1"),
    ({"t00280004": ("CS", "ARGB")}, "Photometric Interpretation"),
    ({"t00280004": ("CS", "")}, "Photometric Interpretation"),
    ({"t00280010": ("US", 0)}, "30x0 pixels"),
    ({"t00280010": ("US", [24, 24])}, "Rows is missing or no number"),
    ({"t00280010": ("US", 25)}, "shorter than announced"),
    ({"t00080016": ("UI", "1.2.840.10008.5.1.4.1.1.88.11")}, "Basic Text SR"),
    ({"t7fe00008": ("OF", bytes(2880))}, "floating-point"),
    ({"t00280100": ("US", 1), "t00280101": ("US", 1), "t00280102": ("US", 0)}, "BitsAllocated is 1"),
]


@pytest.mark.parametrize(("change", "reason"), REFUSED)
def test_a_header_that_is_not_read_is_refused_by_its_element(change: dict[str, Element], reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode_image(film(GRAY, **change))


@pytest.mark.parametrize(("syntax", "reason"), [("1.2.840.10008.1.2.4.100", "MPEG2"), ("1.2.3.4", "no known name")])
def test_other_transfer_syntaxes_are_named_and_refused(syntax: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode_image(encapsulated(image(GRAY), b"x" * 100, syntax))
    assert caught.value.code == Reason.UNSUPPORTED


def test_a_file_without_pixels_is_refused() -> None:
    elements = image(GRAY)
    del elements[PIXEL_DATA]
    with pytest.raises(ImageError, match="without pixel data"):
        decode_image(wrap(dataset(elements)))


# --- compressed frames, damage and bombs -----------------------------------------------------------------------------


def jpeg_film(pixels: np.ndarray = GRAY, **extra: Element) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return encapsulated(image(GRAY, **extra), buffer.getvalue(), JPEG)


def test_a_jpeg_inside_is_what_pillow_decodes() -> None:
    buffer = io.BytesIO()
    Pillow.fromarray(GRAY).save(buffer, "JPEG", quality=95)
    with Pillow.open(buffer) as picture:
        assert_rounded(decode_image(jpeg_film()), stretched(np.asarray(picture)))


def rle(pixels: np.ndarray) -> bytes:
    """Return one segment of literal runs (PS3.5, section G)."""
    raw = pixels.tobytes()
    runs = b"".join(bytes([len(raw[i : i + 128]) - 1]) + raw[i : i + 128] for i in range(0, len(raw), 128))
    return struct.pack("<16I", 1, 64, *[0] * 14) + runs


def test_rle_is_read_and_its_bombs_are_not() -> None:
    assert_rounded(decode_image(encapsulated(image(GRAY), rle(GRAY), RLE)), stretched(GRAY))
    header = struct.pack("<16I", 1, 64, *[0] * 14)
    for runs in (b"\x81\x07" * 2000, b"\x81\x07", b"\x80" * 50, b""):  # 256,000 bytes, 128, none, none
        with pytest.raises(ImageError, match="RLE"):
            decode_image(encapsulated(image(GRAY), header + runs, RLE))
    with pytest.raises(ImageError, match="RLE"):
        decode_image(encapsulated(image(GRAY), struct.pack("<16I", 1, 9999, *[0] * 14) + bytes(900), RLE))
    with pytest.raises(ImageError, match="1 segments are needed"):
        decode_image(encapsulated(image(GRAY), struct.pack("<16I", 15, *[64] * 15), RLE))


def test_a_frame_larger_than_the_header_says_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(ImageError, match="another size"):
        decode_image(jpeg_film(np.zeros((2000, 2000), np.uint8)))
    buffer = io.BytesIO()
    Pillow.fromarray(np.zeros((600, 600), np.uint8)).save(buffer, "JPEG2000", no_jp2=True)
    with pytest.raises(ImageError, match="another size"):
        decode_image(encapsulated(image(GRAY), buffer.getvalue(), JPEG_2000))
    siz = bytearray(buffer.getvalue())
    siz[8:16] = struct.pack(">II", 60_000, 60_000)  # the codestream announces 3.6 thousand million pixels
    with pytest.raises(ImageError, match="another size"):
        decode_image(encapsulated(image(GRAY), bytes(siz), JPEG_2000))
    siz[24:32] = struct.pack(">II", 1, 1)  # and as many tiles
    with pytest.raises(ImageError, match="65,535 tiles"):
        decode_image(encapsulated(image(GRAY), bytes(siz), JPEG_2000))


def test_sizes_are_bounded_by_the_header() -> None:
    with pytest.raises(ImageError, match="60000x60000 is more than the allowed 100000000 pixels") as caught:
        decode_image(film(GRAY, t00280010=("US", 60000), t00280011=("US", 60000)))
    assert caught.value.code == Reason.TOO_LARGE
    with pytest.raises(ImageError, match="30x24 is more than the allowed 719 pixels"):
        decode_image(film(GRAY), 719)
    assert decode_image(film(GRAY), 720).shape == (24, 30)
    with pytest.raises(ImageError, match="first 16,777,216 bytes"):
        decode_image(wrap(dataset({**image(GRAY), 0x00291010: ("UN", bytes(17 << 20))})))
    with pytest.raises(ImageError, match="beyond the pixels' own size"):
        decode_image(encapsulated(image(GRAY), bytes(200_000), JPEG)[:-8])


def test_deflated_files_are_read_and_their_bombs_are_not_unpacked() -> None:
    def deflate(body: bytes) -> bytes:
        packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        return wrap(packer.compress(body) + packer.flush(), DEFLATED)

    assert_rounded(decode_image(deflate(dataset(image(GRAY)))), stretched(GRAY))
    body = dataset(image(GRAY))
    header = body[: body.rindex(struct.pack("<HH", 0x7FE0, 0x0010))]
    pixels = struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OW", 100 << 20)
    bomb = deflate(header + pixels + bytes(100 << 20))
    tracemalloc.start()
    assert decode_image(bomb).max() == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 << 20  # the header's 16 MiB, twice, and of the pixels only what Rows and Columns ask for
    for content in (header, b""):
        with pytest.raises(ImageError, match="too many elements"):
            decode_image(deflate(content + bytes(20 << 20)))
    with pytest.raises(ImageError):
        decode_image(deflate(body)[:-40])


def test_a_header_of_a_million_elements_is_refused_before_it_fills_the_memory() -> None:
    element = struct.pack("<HH2sH", 0x0009, 0x1001, b"LO", 0)
    with pytest.raises(ImageError, match="too many elements"):
        decode_image(wrap(element * 1_000_000 + dataset(image(GRAY))))
    items = struct.pack("<HH2s2xI", 0x0040, 0x0275, b"SQ", 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(ImageError, match="too many elements"):
        decode_image(wrap(dataset({0x00080016: ("UI", "1.2.840.10008.5.1.4.1.1.1")}) + items + element * 1_000_000))


def test_deeply_nested_sequences_are_refused() -> None:
    item = struct.pack("<HH2s2xI", 0x0040, 0x0275, b"SQ", 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    body = dataset({0x00080016: ("UI", "1.2.840.10008.5.1.4.1.1.1")}) + item * 50_000
    with pytest.raises(ImageError, match="damaged"):
        decode_image(wrap(body))


@pytest.mark.parametrize("kind", ["native", "jpeg", "rle"])
def test_a_truncated_file_is_refused_wherever_it_is_cut(kind: str) -> None:
    data = {"native": film(GRAY), "jpeg": jpeg_film(), "rle": encapsulated(image(GRAY), rle(GRAY), RLE)}[kind]
    whole = decode_image(data)
    for cut in [*range(0, len(data), 11), *range(len(data) - 12, len(data))]:
        try:
            cut_image = decode_image(data[:cut])
        except ImageError:
            continue
        assert cut > len(data) - 12  # only what closes the file is missing
        np.testing.assert_array_equal(cut_image, whole)


# --- the patient -----------------------------------------------------------------------------------------------------


def facts(tmp_path: Path, **extra: Element) -> tuple[str, str, float]:
    (tmp_path / "film").write_bytes(film(GRAY, **extra))
    found = read_facts(tmp_path / "film")
    return found.view, found.sex, found.age


@pytest.mark.parametrize(
    ("age", "years"),
    [("045Y", 45), ("018M", 1.5), ("026W", 26 * 7 / 365.25), ("010D", 10 / 365.25), ("000Y", 0), ("45", 45)]
    + [("45Y", 45)]
    + [(text, None) for text in ("", "Y", "-45Y", "0x5Y", "045Z", "٠٤٥Y".encode().decode("latin-1"))],
)
def test_ages_are_years(tmp_path: Path, age: str, years: float | None) -> None:
    found = facts(tmp_path, t00101010=("AS", age))[2]
    assert math.isnan(found) if years is None else found == pytest.approx(years)


@pytest.mark.parametrize(
    ("stored", "view"), [("PA", "PA"), ("AP", "AP"), ("LL", "L"), ("RL", "L"), ("LLO", ""), ("pa ", "PA"), ("X\\Y", "")]
)
def test_views_are_the_manifest_s(tmp_path: Path, stored: str, view: str) -> None:
    assert facts(tmp_path, t00185101=("CS", stored))[0] == view


@pytest.mark.parametrize(("stored", "sex"), [("F", "F"), ("M", "M"), ("O", ""), ("", ""), ("f", "F")])
def test_sexes_are_the_manifest_s(tmp_path: Path, stored: str, sex: str) -> None:
    assert facts(tmp_path, t00100040=("CS", stored))[1] == sex


@pytest.mark.parametrize(
    ("view", "sex", "classes"),
    [
        ("PA", "F", []),
        ("", "", []),
        ("LLO", "M", ["view position in the header is a decubitus or an oblique one: unknown"]),
        ("RLD", "O", ["view position in the header is a decubitus or an oblique one: unknown",
                      "sex in the header is O (other): unknown"]),
        ("DOE", "JANE", ["view position in the header is no term of DICOM: unknown",
                         "sex in the header is no term of DICOM: unknown"]),
    ],
)  # fmt: skip
def test_other_words_are_named_by_their_class_alone(tmp_path: Path, view: str, sex: str, classes: list[str]) -> None:
    (tmp_path / "film").write_bytes(film(GRAY, t00185101=("CS", view), t00100040=("CS", sex)))
    found = read_facts(tmp_path / "film")
    assert list(found.unknown) == classes
    assert "DOE" not in str(found)
    assert "JANE" not in str(found)


def test_facts_are_of_the_allowed_words_and_unknown_is_said(tmp_path: Path) -> None:
    view, sex, age = facts(tmp_path)
    assert (view, sex) == ("", "")
    assert math.isnan(age)
    for name in ("MR_small.dcm", "MR_small_implicit.dcm", "MR_small_bigendian.dcm"):
        assert read_facts(test_file(name)).sex == "F"
    assert read_facts(test_file("6154")).view == "L"  # of an AP/lateral pair
    assert read_facts(test_file("J2K_pixelrep_mismatch.dcm")).age == 76


def test_facts_of_what_is_no_dicom_file(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"Image Index,Finding Labels\n" * 9)
    with pytest.raises(ImageError, match="no DICOM file"):
        read_facts(tmp_path / "x.dcm")
    with pytest.raises(ImageError, match="cannot be read"):
        read_facts(tmp_path / "missing")


SECRETS = ("MUSTERMANN", "19340117", "4711-0815")


def named() -> dict[int, Element]:
    """Return elements that say who the patient is, in every kind of text."""
    name, date, number = SECRETS
    return {
        0x00080005: ("CS", name),
        0x00080018: ("UI", f"1.2.{date}.{number}"),
        0x00080020: ("DA", date),
        0x00080030: ("TM", date),
        0x00080050: ("SH", number),
        0x00080080: ("LO", name),
        0x00080090: ("PN", f"{name}^MAX"),
        0x00081030: ("LO", name),
        0x00100010: ("PN", f"{name}^MAX=\x1b$B^X"),
        0x00100020: ("LO", number),
        0x00100030: ("DA", date),
        0x00100040: ("CS", name),
        0x00101010: ("AS", date),
        0x00101040: ("LO", name),
        0x00104000: ("LT", name),
        0x00185101: ("CS", name),
        0x00200010: ("SH", number),
        0x00280301: ("CS", name),
        0x00281050: ("DS", name),
        0x00281051: ("DS", number),
        0x00281052: ("DS", date + name),
        0x00281053: ("DS", date + name),
        0x00281056: ("CS", name),
        0x00280008: ("IS", "1"),
        0x00321060: ("UT", name),
    }


def test_nothing_that_names_the_patient_leaves_the_reader(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Break a file that says who the patient is in 1,500 ways, and look through all that comes out."""
    caplog.set_level(0)
    data = wrap(dataset({**image(GRAY), **named()}))
    variants = [data, encapsulated({**image(GRAY), **named()}, rle(GRAY), RLE)]
    for tag, (vr, _) in {**image(GRAY), **named()}.items():  # each element in turn holds a name
        variants.append(wrap(dataset({**image(GRAY), **named(), tag: (vr, SECRETS[0].encode())})))
        variants.append(wrap(dataset({**image(GRAY), **named(), tag: ("PN", SECRETS[0])})))
    rng = np.random.default_rng(11)
    for _ in range(1400):
        broken = bytearray(variants[int(rng.integers(len(variants)))])
        for _ in range(int(rng.integers(1, 6))):
            broken[int(rng.integers(max(400, len(broken) - GRAY.size))) % len(broken)] = int(rng.integers(256))
        variants.append(bytes(broken[: int(rng.integers(len(broken)))] if rng.random() < 0.2 else broken))
    said, decoded = [], 0
    path = tmp_path / "film"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for content in variants:
            path.write_bytes(content)
            for read in (read_film, read_facts):
                try:
                    result = read(path)
                except ImageError as error:
                    said += [str(error), repr(error), repr(error.__context__), repr(error.__cause__)]
                else:
                    decoded += 1
                    said.append(str(getattr(result, "notes", result)))
    output = capfd.readouterr()
    everything = "\n".join([*said, caplog.text, output.out, output.err, *(str(item.message) for item in caught)])
    assert decoded > 500
    assert len(said) - decoded > 400
    for secret in SECRETS:
        assert secret not in everything
    assert not caught


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "SC_rgb_jpeg_gdcm.dcm"])
def test_a_decoder_that_aborts_ends_in_a_refusal(name: str) -> None:
    """GDCM ends its process on damaged streams; this one has to live on, and says nothing on the way."""
    data = test_file(name).read_bytes()
    start = data.index(b"\xff\xd8\xff")
    header = data.index(b"\xff\xda", start)  # start of scan
    aborted = 0
    rng = np.random.default_rng(1)
    for _ in range(12):
        broken = bytearray(data)
        for position in rng.integers(start + 24, header, 4):
            broken[position] ^= 1 << int(rng.integers(8))
        try:
            assert decode_image(bytes(broken)).ndim == 2
        except ImageError:
            aborted += 1
    assert aborted


def test_a_decoder_that_runs_out_of_time_is_not_the_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process starts within a millionth of a second: the real time-out of the real process."""
    path = test_file("JPGExtended.dcm")
    assert read_image(path).ndim == 2
    monkeypatch.setattr(gdcm_worker, "SECONDS", 1e-6)
    with pytest.raises(ImageError, match=r"took longer than .* ingest it again") as caught:
        read_image(path)
    assert caught.value.code is Reason.GAVE_UP


@pytest.mark.parametrize(
    ("how", "code"),
    [("SIGKILL", Reason.GAVE_UP), ("SIGTERM", Reason.GAVE_UP), ("SIGABRT", Reason.TRUNCATED), ("", Reason.TRUNCATED)],
)
def test_a_decoder_that_is_killed_is_not_the_files_fault_and_one_that_aborts_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, code: Reason
) -> None:
    """The process is a real one that ends in that way; GDCM itself cannot be made to at will."""
    program = tmp_path / "ends.py"
    end = f"os.kill(os.getpid(), signal.{how})" if how else "sys.exit(1)"
    program.write_text(f"import os, signal, sys\nsys.stdin.buffer.read()\n{end}\n", encoding="ascii")
    monkeypatch.setattr(gdcm_worker, "__file__", str(program))
    with pytest.raises(ImageError) as caught:
        read_image(test_file("JPGExtended.dcm"))
    assert caught.value.code is code


def test_threads_decode_at_the_same_time() -> None:
    """A server does: the silence that they share must neither leak nor lock."""
    from concurrent.futures import ThreadPoolExecutor

    names = ["MR_small.dcm", "JPEG2000.dcm", "image_dfl.dcm", "MR_small_RLE.dcm", "693_J2KI.dcm"] * 8
    expected = {name: read_image(test_file(name)) for name in names}
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        for name, found in zip(names, pool.map(lambda name: read_image(test_file(name)), names), strict=True):
            np.testing.assert_array_equal(found, expected[name])
    assert list(warnings.filters) == before


def test_bytes_before_the_true_header_do_not_hide_it() -> None:
    """What the decoders skip is skipped here too, or a small announced size would let a large picture through."""
    true = b"\xff\xc0\x00\x0b\x08\x0b\xb8\x0b\xb8\x01\x01\x11\x00"
    fake = b"\xff\xc0\x00\x0b\x08\x00\x10\x00\x10\x01\x01\x11\x00"
    frame = jpeg_frame(b"\xff\xd8\xff\x00" + (len(true) + 2).to_bytes(2, "big") + true + fake + b"\xff\xd9")
    assert (frame.width, frame.height) == (3000, 3000)

    def siz(side: int) -> bytes:
        sizes = (side, side, 0, 0, side, side, 0, 0)
        return b"\xff\x4f\xff\x51\x00\x29\x00\x00" + struct.pack(">8IH", *sizes, 1) + b"\x07\x01\x01"

    free = struct.pack(">I4s", 8 + len(siz(16)), b"free") + siz(16)
    frame = jpeg2000_frame(free + struct.pack(">I4s", 0, b"jp2c") + siz(3000))
    assert (frame.width, frame.height) == (3000, 3000)
