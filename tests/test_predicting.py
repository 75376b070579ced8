"""From bytes to answers: order, bad files among good ones, the gate's say, nothing of a header."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from dicom_film import write_dicom
from PIL import Image
from predict_case import FINDINGS, MANIFEST, MeanEngine, brightness_gate, png

from pipeline.exported import Exported
from pipeline.feature_sketch import SKETCH
from pipeline.image_statistics import FILM_STATISTICS, STATISTICS
from pipeline.images import decode_image, prepare
from pipeline.predicting import STEPS, Predictor, Source, answer

EXPORTED = Exported(MANIFEST, MeanEngine(), Path())


def ask(*data, gate=None, **options):
    return answer([Source(f"film {k}", each) for k, each in enumerate(data)], EXPORTED, gate, **options)


def test_there_is_an_answer_for_every_file_in_their_order():
    found = ask(png(50), b"no film", png(200), b"", png(100))
    assert [each.name for each in found] == [f"film {k}" for k in range(5)]
    assert [each.status for each in found] == ["ok", "failed", "ok", "failed", "ok"]
    assert [each.raw is None for each in found] == [False, True, False, True, False]
    for each, gray in zip((found[0], found[2], found[4]), (50, 200, 100), strict=True):
        np.testing.assert_allclose(each.raw, [gray / 255, gray / 510, 1 - gray / 255], rtol=1e-6)


def test_nothing_is_answered_for_without_a_file_that_can_be_read():
    assert ask() == []
    assert [each.status for each in ask(b"x", b"y")] == ["failed", "failed"]


def test_a_source_that_has_no_bytes_says_why():
    (found,) = answer([Source("gone", b"", "cannot be read (No such file)")], EXPORTED, None)
    assert (found.status, found.error) == ("failed", "cannot be read (No such file)")


def test_probabilities_are_calibrated_and_decisions_made_on_raw_outputs():
    (found,) = ask(png(204))
    # MANIFEST: Mass has a temperature of 2; the thresholds are 0.5, 0.4 and none.
    logit = np.log(0.4 / 0.6)
    np.testing.assert_allclose(found.calibrated, [0.8, 1 / (1 + np.exp(-logit / 2)), 0.2], rtol=1e-5)
    assert found.decisions.tolist() == [1, 1, -1]
    (other,) = ask(png(204), point="sensitivity")
    assert other.decisions.tolist() == [0, -1, -1]


def test_a_batch_gives_what_its_files_give_alone():
    films = [png(gray, (40 + gray, 60)) for gray in (10, 90, 170)]
    for together, film in zip(ask(*films), films, strict=True):
        (alone,) = ask(film)
        np.testing.assert_array_equal(together.raw, alone.raw)
        np.testing.assert_array_equal(together.sketch, alone.sketch)
        assert together.statistics == alone.statistics


def test_the_pixels_are_those_of_training():
    film = np.random.default_rng(0).integers(0, 256, (70, 50), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(film).save(buffer, "PNG")
    (found,) = ask(buffer.getvalue())
    np.testing.assert_array_equal(found.pixels, prepare(decode_image(buffer.getvalue()), MANIFEST.preprocess))


def test_an_answer_that_nobody_logs_needs_no_statistics():
    (with_them,) = ask(png(77))
    (without,) = ask(png(77), described=False)
    assert (without.statistics, without.sketch) == ({}, None)
    np.testing.assert_array_equal(without.raw, with_them.raw)
    np.testing.assert_array_equal(without.calibrated, with_them.calibrated)


def test_an_answer_carries_statistics_timings_and_a_sketch():
    (found,) = ask(png(77, (300, 200)))
    assert tuple(found.statistics) == (*STATISTICS, *FILM_STATISTICS)
    assert (found.statistics["film_width"], found.statistics["film_height"]) == (200, 300)
    assert set(found.timings) == set(STEPS)
    assert all(value >= 0 for value in found.timings.values())
    assert found.sketch.shape == (SKETCH,)


def test_a_flagged_film_is_answered_for_only_if_asked_and_stays_marked():
    gate = brightness_gate()
    dark, bright = png(5), png(120)
    withheld, fine = ask(dark, bright, gate=gate)
    assert (withheld.status, withheld.raw, withheld.calibrated, withheld.decisions) == ("flagged", None, None, None)
    assert withheld.verdict.reasons == ("no-film",)
    assert (fine.status, fine.flagged) == ("ok", False)
    given, same = ask(dark, bright, gate=gate, flagged=True)
    assert given.flagged
    assert given.status == "flagged"
    np.testing.assert_allclose(given.raw[0], 5 / 255, rtol=1e-6)
    np.testing.assert_array_equal(same.raw, fine.raw)


def test_a_predictor_can_be_asked_for_flagged_films_call_by_call():
    predictor = Predictor(EXPORTED, brightness_gate())
    assert predictor([Source("a", png(5))])[0].raw is None
    assert predictor([Source("a", png(5))], flagged=True)[0].raw is not None


def test_a_film_of_more_pixels_than_allowed_fails_alone():
    large, small = ask(png(50, (100, 100)), png(50, (20, 20)), max_pixels=5000)
    assert large.status == "failed"
    assert "100x100" in large.error
    assert small.status == "ok"


def test_the_gate_hears_what_a_dicom_header_says_and_nobody_hears_more(tmp_path):
    class Recorder:
        def judge(self, images, features, films):
            self.films = films
            return brightness_gate().judge(images, features, films)

    gate = Recorder()
    path = write_dicom(tmp_path / "a.dcm", PatientName="DOE^JANE", PatientID="P4711X", Modality="CT", ViewPosition="LL")
    (found,) = ask(path.read_bytes(), gate=gate)
    assert gate.films[0].header == ("modality", "lateral")
    assert (gate.films[0].width, gate.films[0].height) == (80, 72)
    for secret in ("DOE", "JANE", "P4711X"):
        assert secret not in repr(dataclasses.replace(found, pixels=None))


def test_colour_is_told_to_the_gate_and_noted():
    class Recorder:
        def judge(self, _images, _features, films):
            self.colour = [film.colour for film in films]
            return [None] * len(films)

    gate, buffer = Recorder(), io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(buffer, "PNG")
    coloured, _ = ask(buffer.getvalue(), png(9), gate=gate)
    assert gate.colour == [True, False]
    assert [code for code, _ in coloured.notes] == ["colour"]


@pytest.mark.parametrize("cut", [10, 60, -30])
def test_a_damaged_file_gives_one_sentence(cut):
    (found,) = ask(png(50)[:cut])
    assert found.status == "failed"
    assert found.error
    assert "\n" not in found.error


def test_real_dicom_files_are_answered_for(shared_data):
    files = sorted((shared_data / "dicom").glob("*.dcm"))
    found = ask(*(path.read_bytes() for path in files))
    assert [each.status for each in found] == ["ok"] * len(files)
    assert len(FINDINGS) == len(found[0].raw)
