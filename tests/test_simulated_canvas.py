"""A part of the drawn field has the pixels that the whole has there, and the greatest of several drawings counts."""

import numpy as np
import pytest

from pipeline.datasets.simulated.boxes import find_boxes
from pipeline.datasets.simulated.canvas import Array, Canvas
from pipeline.datasets.simulated.cohort import draw_patient
from pipeline.datasets.simulated.overlays import collimate
from pipeline.datasets.simulated.scene import lung_mask, new_scene
from pipeline.params import SimulateParams

LINES = [(np.array([[-150.0, -90.0], [20.0, 10.0], [190.0, 120.0]]), 6.0, 1.0)]
PATIENT = draw_patient(SimulateParams(size=256), 1)


def drawings(canvas: Canvas) -> list[Array]:
    rng = np.random.default_rng(3)
    coarse = canvas.coarse.blob((10, -20), (60, 40))
    made = [canvas.strokes(LINES, full=2.0), canvas.filled([(LINES[0][0], 0.5)]), canvas.noise(rng, 9)]
    made += [canvas.texture(rng), canvas.radius((5, 7)), canvas.inside(30 - canvas.radius((5, 7)), 4)]
    return [*made, canvas.enlarge(coarse), canvas.between(canvas.y, canvas.x, 20)]


@pytest.mark.parametrize("size", [96, 131, 300])
def test_a_part_has_the_pixels_of_the_whole(size: int) -> None:
    whole = Canvas(size)
    part = whole.window(-120, -80, 100, 150)
    assert 0 < part.shape[0] < size
    for all_of_it, cut in zip(drawings(whole), drawings(part), strict=True):
        assert cut.shape == part.shape
        np.testing.assert_allclose(cut[2:-2, 2:-2], all_of_it[part.part][2:-2, 2:-2], atol=0.02)


def test_a_part_of_a_part_is_found_in_it_and_has_a_pixel_even_outside() -> None:
    part = Canvas(200).window(-120, -80, 100, 150)
    near, here = part.around((-118, 30), 15)
    np.testing.assert_array_equal(part.radius((0, 0))[here], near.radius((0, 0)))
    for place in [(-500, 0), (500, 0), (0, -500), (0, 500)]:
        near, here = part.around(place, 5)
        assert part.empty()[here].shape == near.shape == near.empty().shape
        assert near.empty().size > 0


def test_of_several_groups_of_lines_the_greatest_value_counts() -> None:
    canvas, faint = Canvas(128), [(LINES[0][0] * [1, -1], 9.0, 0.4)]
    expected = np.maximum(canvas.strokes(LINES), canvas.strokes(faint))
    np.testing.assert_allclose(canvas.strokes(LINES, faint), expected, atol=1e-6)


@pytest.mark.parametrize("size", [64, 97, 256])
def test_a_scene_holds_both_lungs_and_all_their_air(size: int) -> None:
    scene = new_scene(Canvas(size), PATIENT.anatomy)
    for side, lung in enumerate(scene.lungs):
        whole = lung_mask(Canvas(size), PATIENT.anatomy, side)
        np.testing.assert_allclose(lung, whole[scene.canvas.part], atol=1e-6)
        assert lung.sum() == pytest.approx(whole.sum())
    assert not scene.air[0].any()
    assert not scene.air[-1].any()
    assert not scene.air[:, [0, -1]].any()


def test_the_collimator_is_turned_as_one_frame() -> None:
    levels, size, lean = np.full((220, 220), 100.0, np.float32), 220, 30.0
    covered = collimate(levels, (40.0, 40.0, 40.0, 40.0), 440.0, lean, 0.0) < 50
    widths = covered.sum(axis=1)[70:150] - size * covered[70:150].all(axis=1)
    assert np.ptp(widths) <= 1  # what the left edge takes more of, the right one takes less of
    left = covered[:, :110].sum(axis=1)[70:150]
    top = covered[:110].sum(axis=0)[70:150]
    assert left[0] > left[-1]
    assert top[0] < top[-1]


def test_no_finding_has_no_box() -> None:
    assert find_boxes(256, PATIENT.anatomy, (), PATIENT.films[0].acquisition) == []
