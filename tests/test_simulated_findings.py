"""Each simulated finding is what its definition says, measured on the film as a reader would, with a ruler."""

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from pipeline.datasets.simulated.anatomy import DIRECTION, Anatomy, angle_height, draw_anatomy, lateral_wall
from pipeline.datasets.simulated.canvas import Canvas
from pipeline.datasets.simulated.film import Acquisition, breathe, expose
from pipeline.datasets.simulated.scene import lung_mask, mediastinum
from pipeline.datasets.simulated.signs import Sign, collapse, reshape
from pipeline.findings import NIH14

Image = npt.NDArray[np.float32]

SIZE = 220  # pixels of 2 mm
PITCH = 440 / SIZE
CANVAS = Canvas(SIZE)
# A detector as large as the drawn field and a patient who does not move: pixels and millimetres coincide.
STILL = Acquisition(
    view="PA", field=440.0, exposure=0, contrast=4.2, noise=0, offset=(0, 0), breath=0, magnification=1, marked=False
)
BEDSIDE = replace(STILL, view="AP")
FOCAL = ["Consolidation", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia"]


def sign(name: str, severity: float = 0.6, side: int = 0, seed: int = 11) -> Sign:
    return Sign(name=name, severity=severity, side=side, both=False, seed=seed)


def person(number: int) -> Anatomy:
    """Return an adult of average size who stands straight, and differs otherwise."""
    anatomy = draw_anatomy(np.random.default_rng([17, number]))
    return replace(anatomy, tilt=0.0, habitus=0.0, breast=0.0, stomach=0.0, domes=(84.0, 97.0), heart_base=92.0)


def film(
    number: int, *signs: Sign, acquisition: Acquisition = STILL, tree: int = 1, size: int = SIZE, shift: float = 0.0
) -> Image:
    """Draw one film of a person, without noise; `shift` displaces the mediastinum."""
    anatomy = person(number)
    generators = np.random.default_rng(tree), np.random.default_rng(2)
    anatomy = replace(anatomy, shift=anatomy.shift + shift)
    return expose(size, anatomy, signs, acquisition, *generators).astype(np.float32)


def change(number: int, one: Sign, acquisition: Acquisition = STILL, size: int = SIZE) -> Image:
    """Return the film with a finding less the film without, both with the mediastinum where the finding puts it."""
    shift = reshape(person(number), one).shift - person(number).shift
    with_it = film(number, one, acquisition=acquisition, size=size)
    return with_it - film(number, acquisition=acquisition, size=size, shift=shift)


def chest(number: int, *signs: Sign, acquisition: Acquisition = STILL) -> Anatomy:
    shape = breathe(person(number), acquisition)
    for one in signs:
        shape = reshape(shape, one)
    return shape


def outwards(side: int) -> Image:
    return CANVAS.x * np.float32(DIRECTION[side]) + 0 * CANVAS.y


def clear_lung(shape: Anatomy, side: int) -> npt.NDArray[np.bool_]:
    """Return what shows of one lung, a pixel clear of its border and of the heart."""
    mask = (lung_mask(CANVAS, shape, side) > 0.99) & (mediastinum(CANVAS, shape) < 0.01)
    return cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def energy(difference: Image) -> float:
    return float(np.square(difference, dtype=np.float64).sum())


@pytest.mark.parametrize("name", NIH14)
@pytest.mark.parametrize("acquisition", [STILL, BEDSIDE], ids=["PA", "AP"])
def test_a_finding_shows_more_the_worse_it_is(name: str, acquisition: Acquisition) -> None:
    """Hard to see at 0, plain at 1, and more of it at every step, over four patients."""
    steps = [
        [energy(change(number, sign(name, severity, number % 2, number), acquisition, 110)) for number in range(4)]
        for severity in (0.0, 0.35, 0.7, 1.0)
    ]
    total = np.sum(steps, axis=1)
    assert np.all(np.diff(total) > 0)
    assert total[0] < 0.35 * total[-1]
    assert total[-1] > 4 * 110**2 * 4  # a root mean square of 2 gray levels of 255 over the whole film


@pytest.mark.parametrize("name", FOCAL)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_finding_stays_where_it_was_as_it_grows(name: str, seed: int) -> None:
    """The seed alone decides the place; what is added may lie up to 3 cm from the middle of what was there."""
    middles = []
    for severity in (0.45, 0.8):
        weight = np.square(change(seed, sign(name, severity, seed=seed)), dtype=np.float64)
        middles.append([(weight * axis).sum() / weight.sum() for axis in (CANVAS.x, CANVAS.y)])
    assert np.hypot(*np.subtract(*middles)) < 30


@pytest.mark.parametrize("name", NIH14)
def test_a_finding_is_the_same_at_twice_the_size(name: str) -> None:
    small = change(2, sign(name, 0.8), size=SIZE)
    large = cv2.resize(change(2, sign(name, 0.8), size=2 * SIZE), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(cv2.blur(small, (3, 3)).ravel(), cv2.blur(large, (3, 3)).ravel())[0, 1] > 0.93


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("severity", [0.0, 0.5, 1.0])
def test_cardiomegaly_has_a_cardiothoracic_ratio_above_one_half(number: int, severity: float) -> None:
    """Danzer 1919: the widest heart, here from the first to the last changed column, over the widest thorax."""
    difference = np.abs(change(number, sign("Cardiomegaly", severity)))
    columns = np.flatnonzero((difference > 8).any(axis=0))
    ratio = (columns[-1] + 1 - columns[0]) * PITCH / (2 * person(number).half_width)
    assert 0.5 < ratio < 0.71
    assert ratio == pytest.approx(0.505 + 0.155 * severity, abs=0.02)


def blunting(severity: float, out: float) -> float:
    """Return how far above the costophrenic angle fluid stands at a distance from the wall, in millimetres."""
    difference = change(1, sign("Effusion", severity))
    column = int(np.argmin(np.abs(outwards(0)[0] - (person(1).half_width - out))))
    rows = np.flatnonzero(difference[:, column] > 12)
    return float(angle_height(person(1), 0) - CANVAS.rows[rows[0]]) if rows.size else 0.0


def test_effusion_blunts_the_angle_first_and_rises_with_a_meniscus() -> None:
    """Upright: 200 ml blunt the angle (Collins 1972); the surface is higher at the wall than in the middle."""
    assert 6 < blunting(0.0, 4) < 25
    assert blunting(0.0, 60) == 0
    assert 55 < blunting(0.5, 4) < 110
    assert blunting(1.0, 14) > 95  # nearer to it the wall curves inwards at this height
    for severity in (0.6, 0.9):
        assert blunting(severity, 14) > blunting(severity, 45) + 8
        assert blunting(severity, 45) > 30


def test_effusion_is_a_veil_through_which_vessels_show_on_a_bedside_film() -> None:
    """Haze that grows downwards; upright, the same fluid leaves the upper half of the lung as it was."""
    shape = chest(1, acquisition=BEDSIDE)
    lung = clear_lung(shape, 0) & (outwards(0) > 50)
    bands = [lung & (np.abs(CANVAS.y - height) < 12) for height in (-70, -20, 30)]
    veil = [float(change(1, sign("Effusion"), BEDSIDE)[band].mean()) for band in bands]
    assert 2 < veil[0] < veil[1] < veil[2]
    assert abs(change(1, sign("Effusion"))[bands[0]].mean()) < 1.5
    hidden = lung & (np.abs(CANVAS.y - 75) < 5)
    bedside, upright = (
        vessels(hidden, sign("Effusion"), acquisition) / vessels(hidden, None, acquisition)
        for acquisition in (BEDSIDE, STILL)
    )
    assert bedside > max(0.35, 1.4 * upright)


def vessels(where: npt.NDArray[np.bool_], one: Sign | None, acquisition: Acquisition = STILL) -> float:
    """Return how much of the vessels shows: the difference of two films that differ in nothing but their tree."""
    signs = (one,) if one else ()
    first, second = (film(1, *signs, acquisition=acquisition, tree=tree) for tree in (1, 2))
    difference = first - second
    return float(np.std((difference - cv2.GaussianBlur(difference, (0, 0), 2.5))[where]))


@pytest.mark.parametrize("side", [0, 1])
def test_pneumothorax_has_no_vessels_beyond_a_thin_line(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The texture of the chest wall comes from the tree's generator too.
    monkeypatch.setattr(Canvas, "texture", lambda canvas, _: canvas.empty())
    one, shape = sign("Pneumothorax", 0.7, side), chest(1)
    depth = lateral_wall(shape, CANVAS.y) - outwards(side)
    upper = clear_lung(shape, side) & (np.abs(CANVAS.y + 70) < 35)
    gas, lung = upper & (depth < 18), upper & (depth > 50)
    assert vessels(gas, one) < 0.3 * vessels(gas, None)
    assert vessels(lung, one) > 0.9 * vessels(lung, None)
    difference = change(1, one)
    assert difference[gas].mean() < -6
    row = int(np.argmin(np.abs(CANVAS.rows + 60)))
    profile = difference[row][upper[row]] if side else difference[row][upper[row]][::-1]  # from the hilum to the wall
    line = int(np.argmax(profile))
    lung_beside = np.median(profile[line - 9 : line - 3])
    assert profile[line] > lung_beside + 5
    assert np.count_nonzero(profile[line - 6 :] > (profile[line] + lung_beside) / 2) * PITCH <= 6
    assert profile[line + 4 :].max() < 0


def test_pneumothorax_deepens_the_sulcus_of_a_patient_who_lies() -> None:
    """Gordon 1980: gas below the level of the healthy angle, on bedside films only."""
    lateral = outwards(0) > person(1).half_width - 30
    for acquisition, deep in ((BEDSIDE, True), (STILL, False)):
        angle = angle_height(chest(1, acquisition=acquisition), 0)
        below = (CANVAS.y > angle + 4) & (CANVAS.y < angle + 30) & lateral & (outwards(0) < person(1).half_width)
        darker = change(1, sign("Pneumothorax", 0.8), acquisition)[below] < -12
        assert (np.count_nonzero(darker) * PITCH**2 > 60) == deep


def dome_height(shape: Anatomy, side: int) -> float:
    """Return how far the top of the dome stands above the costophrenic angle, in millimetres."""
    lung = (lung_mask(CANVAS, shape, side) > 0.5) & (outwards(side) > 45)
    lowest = [CANVAS.rows[np.flatnonzero(column)[-1]] for column in lung.T if column.any()]
    return float(max(lowest) - min(lowest))


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("side", [0, 1])
def test_emphysema_flattens_the_diaphragm(number: int, side: int) -> None:
    """A dome of less than 1.5 cm is flat (Sutinen 1965); lungs are longer and the heart narrower."""
    heights = [dome_height(chest(number, sign("Emphysema", severity)), side) for severity in (0.0, 0.2, 0.85)]
    assert dome_height(chest(number), side) > heights[0] > heights[1] > 15 > heights[2]
    worst = chest(number, sign("Emphysema", 1.0))
    assert worst.domes[side] > person(number).domes[side] + 30  # y points down
    assert worst.cardiothoracic < 0.4


def test_emphysema_darkens_the_lungs_and_thins_the_vessels() -> None:
    lung = clear_lung(chest(1), 0)
    assert change(1, sign("Emphysema", 0.8))[lung].mean() < -5
    assert vessels(lung, sign("Emphysema", 0.8)) < 0.75 * vessels(lung, None)


@pytest.mark.parametrize("severity", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_a_mass_is_over_and_a_nodule_up_to_3_cm(severity: float, seed: int) -> None:
    """Hansell 2008. Both are measured across what stands out by a quarter of the most, to a pixel of 2 mm."""
    mass, nodules = (change(1, sign(name, severity, seed=seed)) for name in ("Mass", "Nodule"))
    assert 30 < max(extents(mass)) < 110  # spicules count
    assert all(4 < extent <= 30 + PITCH for extent in single(nodules))


def extents(difference: Image) -> list[float]:
    """Return the longer side of every bright patch, in millimetres."""
    bright = (cv2.medianBlur(difference, 3) > 0.25 * difference.max()).astype(np.uint8)
    return [float(max(stats[2:4]) * PITCH) for stats in cv2.connectedComponentsWithStats(bright)[2][1:] if stats[4] > 4]


def single(difference: Image) -> list[float]:
    """Return the sides of the round patches: nodules that overlap are longer than wide."""
    bright = (difference > 0.25 * difference.max()).astype(np.uint8)
    stats = cv2.connectedComponentsWithStats(bright)[2][1:]
    return [float(max(s[2:4]) * PITCH) for s in stats if s[4] > 8 and max(s[2:4]) <= 1.3 * min(s[2:4])]


def test_consolidation_hides_the_border_of_the_heart_or_the_dome_but_not_both() -> None:
    """Silhouette sign (Felson 1950): middle lobe against heart, lower lobe against diaphragm."""
    shape = chest(1)
    heart = mediastinum(CANVAS, shape)
    near = (heart < 0.01) & (cv2.dilate(heart, np.ones((9, 9))) > 0.5) & (lung_mask(CANVAS, shape, 0) > 0.99)
    far = (heart > 0.99) & (cv2.dilate(1 - heart, np.ones((9, 9))) > 0.5) & (outwards(0) > 0)
    rows = (CANVAS.y > 5) & (CANVAS.y < 60)
    lung = clear_lung(shape, 0)
    above = lung & (cv2.dilate(1 - lung_mask(CANVAS, shape, 0), np.ones((9, 9))) > 0.5) & (outwards(0) > 95)
    above &= CANVAS.y > 70
    below = (CANVAS.y > 118) & (CANVAS.y < 130) & (outwards(0) > 70) & (outwards(0) < 110)
    plain = film(1)
    left_over = []
    for seed in range(12):
        dense = film(1, sign("Consolidation", 1.0, seed=seed))
        contrasts = [
            (picture[far & rows].mean() - picture[near & rows].mean(), picture[below].mean() - picture[above].mean())
            for picture in (dense, plain)
        ]
        left_over.append(np.divide(*contrasts))
    border, dome = np.transpose(left_over)
    assert np.any((border < 0.3) & (dome > 0.9))
    assert np.any((dome < 0.4) & (border > 0.4))
    assert np.any((dome > 0.9) & (border > 0.9))  # an upper lobe


def test_edema_is_perihilar_and_widens_the_upper_vessels() -> None:
    difference, lung = change(2, sign("Edema", 0.7)), clear_lung(chest(2), 0)
    middle = lung & (np.abs(CANVAS.y + 20) < 45)
    depth = lateral_wall(chest(2), CANVAS.y) - outwards(0)
    assert difference[middle & (depth > 70)].mean() > 3 * abs(difference[middle & (depth < 15)].mean())
    other = difference[clear_lung(chest(2), 1) & (np.abs(CANVAS.y + 20) < 45)].mean()
    assert other > 0.5 * difference[middle].mean()  # on both sides
    lung = clear_lung(chest(1), 0)
    upper, lower = lung & (CANVAS.y < -70), lung & (CANVAS.y > 35)
    grown = [vessels(zone, sign("Edema", 0.3)) / vessels(zone, None) for zone in (upper, lower)]
    assert grown[0] > 1.15 * grown[1]


def test_edema_draws_short_level_lines_at_the_lateral_bases() -> None:
    """Kerley's B lines: sharp from row to row, not from column to column."""
    difference = change(1, sign("Edema", 0.9), size=4 * SIZE)
    fine = Canvas(4 * SIZE)
    depth = lateral_wall(chest(1), fine.y) - fine.x * np.float32(DIRECTION[0])
    base = (fine.y > 30) & (fine.y < 90) & (depth > 3) & (depth < 10)
    down, across = (np.diff(difference, axis=axis, append=0)[base] for axis in (0, 1))
    assert np.std(down) > 3 * np.std(across)


def test_fibrosis_is_a_net_at_the_bases_of_smaller_lungs(monkeypatch: pytest.MonkeyPatch) -> None:
    # Smaller lungs have their vessels elsewhere, whose difference is no net.
    monkeypatch.setattr("pipeline.datasets.simulated.film.vessels", lambda canvas, *_: canvas.empty())
    shape = chest(1, sign("Fibrosis", 0.8))
    assert all(after < before - 15 for after, before in zip(shape.domes, person(1).domes, strict=True))  # y points down
    fine = cv2.Laplacian(change(1, sign("Fibrosis", 0.8)), cv2.CV_32F)
    for side in (0, 1):
        lung = clear_lung(shape, side) & clear_lung(chest(1), side)
        assert np.std(fine[lung & (CANVAS.y > 20)]) > 5 * np.std(fine[lung & (CANVAS.y < -90)])


def test_atelectasis_loses_volume_and_draws_the_mediastinum_towards_it() -> None:
    seeds = {kind: next(n for n in range(99) if collapse(sign("x", seed=n)) == kind) for kind in ("plate", "lower")}
    for seed in seeds.values():
        for side in (0, 1):
            shape = chest(1, sign("Atelectasis", 0.8, side, seed))
            assert shape.domes[side] < person(1).domes[side] - 12
            assert shape.domes[1 - side] == person(1).domes[1 - side]
            assert (shape.shift - person(1).shift) * DIRECTION[side] > 3


@pytest.mark.parametrize("side", [0, 1])
def test_a_collapsed_upper_lobe_is_above_the_hilum_and_a_lower_one_below(side: int) -> None:
    """The right upper one ends at a raised fissure, the left one fades downwards (Woodring & Reed 1996)."""
    lung = clear_lung(chest(1), side) & (outwards(side) < 100)
    behind = (lung_mask(CANVAS, chest(1), side) > 0.99) & (outwards(side) > 45) & (outwards(side) < 70)  # the heart too
    upper, lower = lung & (CANVAS.y < -75), behind & (CANVAS.y > 30) & (CANVAS.y < 55)
    for kind, first, second in (("upper", upper, lower), ("lower", lower, upper)):
        seed = next(n for n in range(99) if collapse(sign("x", seed=n)) == kind)
        difference = change(1, sign("Atelectasis", 0.8, side, seed))
        assert difference[first].mean() > 10
        assert difference[first].mean() > 2 * abs(difference[second].mean())


def test_plates_are_half_and_lower_lobes_more_than_upper_ones() -> None:
    kinds = [collapse(sign("Atelectasis", seed=seed)) for seed in range(2000)]
    shares = [kinds.count(kind) / 2000 for kind in ("plate", "lower", "upper")]
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.2], atol=0.04)  # more than three standard errors


@pytest.mark.parametrize("seed", range(4))
def test_pleural_thickening_lies_along_wall_or_apex(seed: int) -> None:
    difference, shape = change(1, sign("Pleural_Thickening", 0.8, seed=seed)), chest(1)
    depth = lateral_wall(shape, CANVAS.y) - outwards(0)
    edge = ((depth < 30) | (CANVAS.y < shape.apex + 55)) & (outwards(0) > 0)
    assert energy(difference[edge]) > 0.9 * energy(difference)
    assert difference[edge].max() > 20


@pytest.mark.parametrize("seed", range(3))
def test_hernia_has_gas_above_a_level_in_front_of_the_heart(seed: int) -> None:
    """The level is horizontal: in every column of its middle, gray turns from darker to brighter in the same row."""
    difference = change(1, sign("Hernia", 0.8, seed=seed))
    heart = (mediastinum(CANVAS, chest(1)) > 0.99) & (CANVAS.y < person(1).heart_base + 4)
    assert difference[heart].min() < -12
    assert difference[heart].max() > 4
    middle = int(np.median(np.nonzero(difference < 0.6 * difference.min())[1]))
    steps = np.diff(difference[:, middle - 3 : middle + 4], axis=0).argmax(axis=0)
    assert np.ptp(steps) <= 1


@pytest.mark.parametrize("seed", range(6))
def test_pneumonia_of_both_lungs_spares_neither(seed: int) -> None:
    """Several foci, or haze that goes from both hila to the bases, which edema spares."""
    lungs = [clear_lung(chest(1), side) for side in (0, 1)]
    one = replace(sign("Pneumonia", 0.8, seed=seed), both=True)
    both, alone = change(1, one), change(1, replace(one, both=False))
    assert all(both[lung & (CANVAS.y > 0)].mean() > 5 for lung in lungs)
    assert abs(alone[lungs[1] & (CANVAS.y > 0)].mean()) < 1


def test_pneumonia_is_denser_than_infiltration_and_less_than_consolidation() -> None:
    """The labels overlap, as NIH's do: each is what it is on average only."""
    names = ("Infiltration", "Pneumonia", "Consolidation")
    signs = [[replace(sign(n, 0.6, seed=s), both=s % 2 > 0) for s in range(5)] for n in names]
    densest = [[cv2.blur(change(1, one), (11, 11)).max() for one in some] for some in signs]
    assert np.all(np.diff(np.mean(densest, axis=1)) > 3)
    assert max(densest[0]) > min(densest[1])
