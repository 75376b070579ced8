"""A simulated film is physics: Beer and Lambert, Poisson, a point spread, and things that lie where they lie."""

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest

from pipeline.datasets.simulated.acquisition import Acquisition, draw_acquisition
from pipeline.datasets.simulated.anatomy import Anatomy, draw_anatomy, lateral_wall
from pipeline.datasets.simulated.body import skin_folds
from pipeline.datasets.simulated.canvas import Canvas
from pipeline.datasets.simulated.development import develop, exposure_noise, film_curve, primary, scattered
from pipeline.datasets.simulated.devices import CARINA_MM, KINDS, Device, draw_devices
from pipeline.datasets.simulated.film import breathe, chest_of, expose
from pipeline.datasets.simulated.overlays import annotate, collimate, lead_letter
from pipeline.datasets.simulated.scanners import SCANNERS
from pipeline.datasets.simulated.scene import mediastinum
from pipeline.datasets.simulated.signs import Sign
from pipeline.datasets.simulated.skeleton import skeleton

SIZE = 128
STILL = Acquisition(
    view="PA",
    field=440.0,
    exposure=0,
    contrast=5.0,
    noise=0,
    offset=(0, 0),
    breath=0,
    scanner="flat_panel",
    marked=False,
)
WATER_60_KEV = 0.2059
"""Mass attenuation of liquid water at 60 keV, cm²/g (NIST XCOM, Hubbell & Seltzer, NISTIR 5632)."""


@pytest.fixture(scope="module")
def chest() -> Anatomy:
    return replace(draw_anatomy(np.random.default_rng(4)), tilt=0.0, habitus=0.0, breast=0.0, stomach=0.0)


def film(anatomy: Anatomy, acquisition: Acquisition = STILL, size: int = SIZE, **more: object) -> np.ndarray:
    signs: tuple[Sign, ...] = more.get("signs", ())  # type: ignore[assignment]
    devices: tuple[Device, ...] = more.get("devices", ())  # type: ignore[assignment]
    tree, rng = np.random.default_rng(1), np.random.default_rng(2)
    return expose(size, anatomy, signs, acquisition, tree, rng, devices)


def slab(thickness: float, size: int = 64) -> np.ndarray:
    return np.full((size, size), thickness, np.float32)


@pytest.mark.parametrize("centimetres", [0.0, 1.0, 10.0, 20.0])
def test_a_slab_of_water_attenuates_as_beer_and_lambert_say(centimetres: float) -> None:
    expected = np.exp(-WATER_60_KEV * centimetres)  # the program's 0.2 is 3 % less, which makes 12 % behind 20 cm
    assert primary(slab(centimetres)) == pytest.approx(expected, rel=0.13)
    assert primary(slab(centimetres)) == pytest.approx(2.718281828 ** (-0.2 * centimetres), rel=1e-5)


@pytest.mark.parametrize("name", SCANNERS)
def test_scatter_behind_a_slab_by_hand(name: str) -> None:
    """15 cm: primary e^-3 = 0.049787, and as much again for every unit of the scanner's scatter."""
    spread = scattered(slab(15), SCANNERS[name], 440.0)
    assert spread == pytest.approx(0.049787 * SCANNERS[name].scatter, rel=1e-4)


def test_the_share_of_scatter_is_that_of_the_literature() -> None:
    """With a 12:1 grid more than half is scattered behind the mediastinum, without one about 90 % (Niklason 1981)."""
    thickness = slab(9.0, 128)
    thickness[:, 52:76] = 20.0  # lungs beside a mediastinum of 8 cm, in a field of 44 cm
    shares = {}
    for name, scanner in SCANNERS.items():
        spread = scattered(thickness, scanner, 440.0)
        share = spread / (spread + primary(thickness))
        shares[name] = float(share[64, 64])
        assert share[64, 20] < share[64, 64] - 0.2
    assert 0.5 < shares["flat_panel"] < 0.8
    assert 0.8 < shares["portable"] < 0.95


def test_noise_grows_as_the_square_root_of_what_is_lost() -> None:
    """Poisson: relative noise ~ 1/sqrt(exposure); from 5 to 15 cm e^(0.2 * 10 / 2) = e = 2.718 times as much."""
    acquisition = replace(STILL, noise=0.01)
    spread = {}
    for centimetres in (5, 10, 15):
        exposure = primary(slab(centimetres, 256))
        noisy = exposure_noise(exposure, acquisition, np.random.default_rng(3))
        assert noisy.mean() == pytest.approx(exposure.mean(), rel=1e-3)
        spread[centimetres] = float((noisy / exposure).std())
    assert spread[15] / spread[5] == pytest.approx(2.718, rel=0.03)
    # `noise` is that of a pixel of 1.64 mm behind 10 cm; a pixel of 440/256 mm has a wider aperture.
    assert spread[10] == pytest.approx(0.01 * 1.64 / (440 / 256), rel=0.03)


@pytest.mark.parametrize("name", SCANNERS)
def test_blur_of_an_edge_is_the_scanners(name: str) -> None:
    """The edge spread of a Gaussian rises from 16 to 84 % within two standard deviations."""
    size, field = 512, 40.0  # pixels of 0.078 mm
    edge = slab(0, size)
    edge[:, size // 2 :] = 2.0
    # Some noise, so that the mean of the rows has no steps of a whole gray level.
    acquisition = replace(STILL, scanner=name, field=field, contrast=8.0, noise=0.0005)
    profile = develop(edge, None, acquisition, np.random.default_rng(0)).mean(axis=0)
    # Unsharp masking and scatter are slow beside the edge itself: measure within 3 sigma.
    reach = round(3.5 * SCANNERS[name].blur / (field / size))
    near = profile[size // 2 - reach : size // 2 + reach]
    slope = np.gradient(near)
    slope = np.clip(slope - (slope[0] + slope[-1]) / 2, 0, None)
    place = np.arange(len(slope))
    middle = (slope * place).sum() / slope.sum()
    measured = np.sqrt((slope * (place - middle) ** 2).sum() / slope.sum()) * field / size
    assert measured == pytest.approx(SCANNERS[name].blur, rel=0.2)


def test_more_exposure_is_darker_and_more_water_brighter(chest: Anatomy) -> None:
    films = [film(chest, replace(STILL, exposure=exposure)).astype(int) for exposure in (-2.0, 0.0, 2.0)]
    for brighter, darker in itertools.pairwise(films):
        assert (brighter >= darker).all()
        assert (brighter - darker)[40:90, 30:100].min() > 3
    levels = [film_curve(slab(thickness), STILL).mean() for thickness in (0, 5, 10, 15, 20, 25)]
    assert levels == sorted(levels)
    assert levels[0] == pytest.approx(SCANNERS["flat_panel"].toe, abs=2)


@pytest.mark.parametrize("gamma", [0.75, 1.3, 2.0])
def test_a_window_raises_the_share_of_white_to_its_exponent(gamma: float) -> None:
    scanner, water = SCANNERS["flat_panel"], slab(10)
    plain = (film_curve(water, STILL) - scanner.toe) / (scanner.shoulder - scanner.toe)
    raised = (film_curve(water, replace(STILL, gamma=gamma)) - scanner.toe) / (scanner.shoulder - scanner.toe)
    assert raised == pytest.approx(plain**gamma, rel=1e-4)
    assert film_curve(slab(0), replace(STILL, gamma=gamma)) == pytest.approx(scanner.toe, abs=1e-3)


@pytest.mark.parametrize("name", SCANNERS)
def test_detail_scales_what_is_finer_than_the_mask_and_nothing_else(name: str) -> None:
    """A stripe of 4 mm is far finer than any mask: 1.5 times the detail is 1.5 times the contrast."""
    size, field = 256, 128.0
    rows = np.arange(size, dtype=np.float32)[:, None] * np.ones((1, size), np.float32)
    thickness = (10 + 0.05 * np.sin(2 * np.pi * rows * field / size / 4.0)).astype(np.float32)
    amplitudes, means = [], []
    for detail in (0.8, 1.2):
        acquisition = replace(STILL, scanner=name, field=field, contrast=2.0, noise=1e-4, detail=detail)
        profile = develop(thickness, None, acquisition, np.random.default_rng(0)).mean(axis=1)[32:-32]
        amplitudes.append(np.abs(np.fft.rfft(profile - profile.mean())).max())
        means.append(profile.mean())
    assert amplitudes[1] / amplitudes[0] == pytest.approx(1.5, rel=0.1)
    assert means[1] == pytest.approx(means[0], abs=0.5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [0, 1])
def test_a_device_changes_the_film_only_where_it_lies(chest: Anatomy, kind: str, side: int) -> None:
    device = Device(kind=kind, side=side, seed=5)
    added = draw_devices(Canvas(256), chest_of(chest, (), STILL), (device,))
    assert added.min() >= 0
    change = film(chest, size=256, devices=(device,)).astype(int) - film(chest, size=256).astype(int)
    reach = round(4 * SCANNERS["flat_panel"].edge_width / (440 / 256))  # of the edge enhancement
    near = cv2.dilate((added > 0).astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0
    assert (change[~near] == 0).all()
    dense = added > 0.5 * added.max()
    assert change[dense].max() >= 8
    assert (change[dense] >= 0).mean() > 0.95


def test_devices_lie_where_they_belong(chest: Anatomy) -> None:
    canvas = Canvas(512)

    def area(kind: str, side: int) -> tuple[np.ndarray, np.ndarray]:
        lies = draw_devices(canvas, chest, (Device(kind=kind, side=side, seed=9),)) > 0.2
        return canvas.rows[lies.any(axis=1)], canvas.x[0][lies.any(axis=0)]

    carina = chest.apex + CARINA_MM
    rows, columns = area("tracheal_tube", 0)
    assert 15 < carina - rows.max() < 65  # above the carina
    assert np.abs(columns - chest.shift).max() < 25
    rows, _ = area("gastric_tube", 0)
    assert rows.max() > max(chest.domes)  # in the stomach
    for side, direction in enumerate((-1, 1)):
        rows, columns = area("drain", side)
        wall = float(lateral_wall(chest, np.array([rows.max()], np.float32))[0])
        assert (columns * direction > 0).all()
        assert np.abs(columns).max() > wall  # it comes in through the chest wall
        assert rows.min() < chest.apex + 50
        rows, columns = area("pacemaker", side)
        assert (columns * direction).max() > 80
        rows, columns = area("venous_line", side)
        assert chest.apex + 40 < rows.max() < chest.apex + 115  # in the superior vena cava
    with pytest.raises(KeyError):
        draw_devices(canvas, chest, (Device(kind="harpoon", side=0, seed=1),))


def test_the_heart_is_wider_and_the_diaphragm_higher_on_an_ap_film() -> None:
    anatomy = replace(draw_anatomy(np.random.default_rng(4)), cardiothoracic=0.42)
    widths = {}
    for view in ("PA", "AP"):
        breathed = breathe(anatomy, replace(STILL, view=view))
        widths[view] = mediastinum(Canvas(SIZE), breathed).sum(axis=1).max()
    assert widths["AP"] > 1.03 * widths["PA"]
    rng = np.random.default_rng(0)
    breaths = {view: np.mean([draw_acquisition(view, 430.0, rng).breath for _ in range(200)]) for view in ("PA", "AP")}
    assert breaths["AP"] < breaths["PA"] - 5


def test_turning_the_patient_moves_what_lies_before_and_behind_apart(chest: Anatomy) -> None:
    """By 6 degrees a clavicle's medial end 75 mm before the axis and a spinous process 70 mm behind part by 15 mm."""
    canvas, middles = Canvas(512), {}
    for turn in (-6.0, 6.0):
        bones = skeleton(canvas, replace(chest, turn=turn, scoliosis=0.0))
        spine = bones[460:, 160:352].sum(axis=0)
        middles[turn] = float((spine * canvas.x[0, 160:352]).sum() / spine.sum())
    assert middles[-6.0] - middles[6.0] == pytest.approx(
        2 * 45 * np.sin(np.deg2rad(6)), abs=3
    )  # bodies lie 45 mm behind
    hearts = [chest_of(chest, (), replace(STILL, turn=turn)).shift for turn in (-6.0, 6.0)]
    assert hearts[1] - hearts[0] == pytest.approx(2 * 40 * np.sin(np.deg2rad(6)), abs=0.1)


def test_bones_thin_out_and_the_scapulae_come_over_the_lungs(chest: Anatomy) -> None:
    canvas = Canvas(256)
    thin, dense = (skeleton(canvas, replace(chest, bone=bone)) for bone in (0.6, 1.2))
    assert dense.sum() == pytest.approx(2 * thin.sum(), rel=1e-3)
    added = skeleton(canvas, replace(chest, supine=True)) - skeleton(canvas, chest)
    wall = lateral_wall(chest, canvas.y) - 8
    blade = (np.abs(canvas.x) < wall) & (np.abs(canvas.x) > wall - 30) & (np.abs(canvas.y - chest.apex - 90) < 20)
    assert added[blade].mean() > 0.1


@pytest.mark.parametrize("size", [64, 96, 193, 512, 1024, 2048])
def test_every_size_shows_the_same_chest(chest: Anatomy, size: int) -> None:
    acquisition = replace(STILL, marked=True, collimation=(3.0, 9.0, 0.0, 30.0), folds=True, turn=2.0, noise=0.004)
    device = Device(kind="drain", side=1, seed=3)
    picture = film(chest, acquisition, size, devices=(device,))
    assert picture.shape == (size, size)
    assert picture.dtype == np.uint8
    small = film(chest, acquisition, 256, devices=(device,)).astype(np.float64)
    ways = [cv2.resize(one.astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA) for one in (picture, small)]
    assert np.corrcoef(ways[0].ravel(), ways[1].ravel())[0, 1] > 0.97


def test_the_same_seed_gives_the_same_film_and_another_film_another(chest: Anatomy) -> None:
    acquisition = draw_acquisition("AP", 430.0, np.random.default_rng(5), scanner="portable")
    assert acquisition == draw_acquisition("AP", 430.0, np.random.default_rng(5), scanner="portable")
    first, second = (film(chest, acquisition) for _ in range(2))
    assert (first == second).all()
    other = expose(SIZE, chest, (), acquisition, np.random.default_rng(1), np.random.default_rng(3))
    assert (first != other).any()


def test_a_later_exposure_shift_is_added_and_nothing_else() -> None:
    drawn = [draw_acquisition("PA", 430.0, np.random.default_rng(5), exposure=shift) for shift in (0.0, 1.5)]
    assert drawn[1].exposure - drawn[0].exposure == pytest.approx(1.5)
    assert replace(drawn[1], exposure=drawn[0].exposure) == drawn[0]
    with pytest.raises(KeyError):
        draw_acquisition("PA", 430.0, np.random.default_rng(5), scanner="polaroid")


def test_scanners_look_different_on_the_same_patient(chest: Anatomy) -> None:
    films = {name: film(chest, replace(STILL, scanner=name)).astype(int) for name in SCANNERS}
    for one, other in itertools.combinations(films, 2):
        assert np.abs(films[one] - films[other]).mean() > 1.5, (one, other)


def test_the_collimator_covers_its_edges_and_nothing_else() -> None:
    levels = slab(100.0, 440)  # a pixel is a millimetre
    covered = collimate(levels, (10.0, 0.0, 0.0, 40.0), 440.0, 0.0, 7.0)
    assert covered[100, :7] == pytest.approx(7.0)
    assert covered[100, 13:] == pytest.approx(100.0)
    assert covered[100, 10] == pytest.approx(53.5, abs=17)
    assert covered[404:, 200] == pytest.approx(7.0)
    assert (covered[:397, 13:] == 100.0).all()
    assert (collimate(levels, (0.0, 0.0, 0.0, 0.0), 440.0, 2.0, 7.0) == levels).all()


def test_letters_and_words_lie_in_the_upper_part_and_differ_from_film_to_film() -> None:
    letters = [lead_letter(256, np.random.default_rng(seed)) for seed in range(30)]
    assert sum(letter.any() for letter in letters) > 20
    for letter in letters:
        assert not letter[100:].any()
        assert letter.max() <= 14
    sides = [letter[:, 128:].sum() > letter[:, :128].sum() for letter in letters if letter.any()]
    assert 3 < sum(sides) < len(sides)
    written = dict.fromkeys(("PA", "AP"), 0)
    for view, seed in itertools.product(written, range(60)):
        picture = np.zeros((256, 256), np.uint8)
        annotate(picture, view, np.random.default_rng(seed))  # type: ignore[arg-type]
        assert not picture[80:].any()
        written[view] += bool(picture.any())
    assert written["AP"] > 20 > 10 > written["PA"]


def test_a_fold_of_skin_is_an_edge_and_not_a_line(chest: Anatomy) -> None:
    """Dense on the inner side and fading over centimetres, abrupt on the other (Fisher, AJR 1978)."""
    folds = skin_folds(Canvas(192), chest, np.random.default_rng(8))
    row = folds[np.argmax(folds.max(axis=1))]
    steepest = np.abs(np.diff(row)).max()
    assert row.max() > 0.3
    assert (row > 0.1 * row.max()).sum() * 440 / 192 > 15  # millimetres wide
    assert steepest > 0.4 * row.max()
