"""benchmarks/realism.py and film_numbers.py: distances of films whose distance is known."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import UserError


@pytest.fixture(scope="module")
def realism(repository: Path):
    """Return the benchmark as a module; its folder stays on the path, which the processes that read films inherit."""
    folder = str(repository / "benchmarks")
    sys.path.insert(0, folder)
    import realism

    yield realism
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def films(realism, tmp_path_factory):
    """Return films of smooth noise of six patients, two each, and the same 10 levels brighter."""
    sets = []
    for number, lift in enumerate((0, 10)):
        folder = tmp_path_factory.mktemp("films")
        rng = np.random.default_rng(3)
        for patient in range(6):
            for follow_up in range(2):
                smooth = cv2.GaussianBlur(rng.normal(0, 60, (256, 256)), (0, 0), 3)
                pixels = np.clip(110 + lift + smooth, 0, 255).astype(np.uint8)
                cv2.imwrite(str(folder / f"{patient + 10 * number:08d}_{follow_up:03d}.png"), pixels)
        sets.append(realism.read(folder))
    return sets


def test_brighter_films_are_as_far_as_they_are_brighter(realism, films):
    dark, bright = films
    assert list(np.unique(dark.patient)) == [f"{patient:08d}" for patient in range(6)]
    assert realism.DISTANCES["gray histogram, Wasserstein, levels"](dark, bright) == pytest.approx(10, abs=0.01)
    assert realism.DISTANCES["power spectrum, RMS, decades"](dark, bright) < 0.001
    assert realism.DISTANCES["mean image, Pearson's r"](dark, bright) == pytest.approx(1)


def test_the_exponent_of_a_power_law_is_found(realism):
    from film_numbers import FREQUENCIES, spectrum

    rng = np.random.default_rng(5)
    axis = np.fft.fftfreq(256, 1 / 256)
    radius = np.maximum(np.hypot(axis[:, None], axis[None, :]), 1)
    logarithms = []
    for _ in range(20):
        waves = np.fft.fft2(rng.normal(size=(256, 256))) * radius**-1.5  # power falls as f^-3
        logarithms.append(spectrum(1e6 * np.fft.ifft2(waves).real))
    assert realism.slope(np.array(logarithms)) == pytest.approx(-3, abs=0.1)
    double = spectrum(2e6 * np.fft.ifft2(waves).real)
    assert double - logarithms[-1] == pytest.approx(np.full(len(FREQUENCIES), np.log10(4)), abs=1e-6)


def test_films_of_the_same_kind_cannot_be_told_apart_and_others_can(realism):
    rng = np.random.default_rng(1)
    x, patients = rng.normal(size=(120, 5)), np.repeat([f"{k}" for k in range(60)], 2)
    from sklearn.metrics import roc_auc_score

    same = roc_auc_score(*realism.told_apart(x[:60], x[60:], patients[:60], patients[60:]))
    other = roc_auc_score(*realism.told_apart(x[:60], x[60:] + 3, patients[:60], patients[60:]))
    assert 0.3 < same < 0.7
    assert other > 0.99


def test_no_patient_is_in_both_halves(realism, films):
    both = films[0]
    tuning, final = (set(realism.half_of(both, half).patient) for half in ("tuning", "final"))
    assert tuning.isdisjoint(final)
    assert tuning | final == set(both.patient)
    assert len(tuning) == len(final) == 3
    assert (realism.half_of(both, "all").patient == both.patient).all()


def test_a_folder_without_images_is_refused(realism, tmp_path):
    (tmp_path / "notes.txt").write_text("no film")
    with pytest.raises(UserError, match="holds no image that can be read"):
        realism.read(tmp_path)


def test_settings_are_checked_as_those_of_the_file(realism):
    params = realism.chosen(["bedside=0.6", "scanner=film"], 40)
    assert (params.bedside, params.scanner, params.patients) == (0.6, "film", 40)
    with pytest.raises(UserError, match=r"simulate.size"):
        realism.chosen(["size=large"], 40)
