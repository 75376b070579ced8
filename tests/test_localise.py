"""Localisation on images whose bright square is the finding, and a model that sees brightness alone."""

import json

import numpy as np
import pytest
from bright import IMAGES, PER_PATIENT, SIDE, SIZE, boxes_of, bright_model, write_bright

from pipeline.box_places import BoxedPairs
from pipeline.files import write_json
from pipeline.localise import average_maps, localise, shuffled
from pipeline.params import EvaluateParams
from pipeline.shards import open_processed

PARAMS = EvaluateParams(resamples=200)
CHANCE = SIDE**2 / SIZE**2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return open_processed(write_bright(tmp_path_factory.mktemp("bright")))


@pytest.fixture(scope="module")
def model():
    return bright_model()


@pytest.fixture(scope="module")
def found(model, data):
    return localise(model, data, boxes_of(range(3, 37), ["Bright", "Dark"]), "test", PARAMS)


def test_a_map_that_knows_the_place_always_hits(found):
    bright = found["findings"]["Bright"]
    assert bright["pointing"] == bright["pointing_percentile_low"] == bright["pointing_ci_high"] == 1
    # No resample differs, so the printed bound is Clopper and Pearson's: 0.025^(1 / 18) for 18 of 18 patients.
    assert bright["pointing_ci_low"] == pytest.approx(0.025 ** (1 / 18))
    assert bright["chance"] == pytest.approx(CHANCE)
    assert bright["above_chance"] == pytest.approx(1 - CHANCE)
    # The square is 2 x 2 places; enlarged, the region above 180/255 of the top is at most half a place wider each way.
    assert [row["threshold"] for row in bright["iou"]] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert [row["localised"] for row in bright["iou"]][:5] == [1, 1, 1, 1, 1]


def test_a_finding_without_a_map_is_a_miss_and_counted(found):
    dark = found["findings"]["Dark"]
    assert dark["n_flat"] == dark["n_images"] == 34
    assert dark["pointing"] == 0
    assert np.isnan(dark["pointing_defined"])
    assert dark["above_chance"] == pytest.approx(-CHANCE)
    assert {row["localised"] for row in dark["iou"] + dark["iobb"]} == {0}
    assert np.isnan(dark["average_map"]["pointing"])  # there is nothing to average


def test_counts_and_macro(found):
    # Images 3 to 36 of patients of two images each: patients 1 to 18.
    assert (found["n_boxes"], found["n_pairs"], found["n_images"], found["n_patients"]) == (68, 68, 34, 18)
    assert found["n_unlabelled"] == 34  # each image is labelled with one of the two
    assert found["map_places"] == [8, 8]
    assert found["layer"] == "maps"
    assert found["macro"]["n_findings"] == 2
    assert found["macro"]["pointing"] == 0.5
    assert found["findings"]["Bright"]["n_patients"] == 18


def test_boxes_elsewhere_are_not_hit(model, data):
    wrong = localise(model, data, boxes_of(range(20), ["Bright"], offset=24), "test", PARAMS)
    assert wrong["findings"]["Bright"]["pointing"] == 0


def test_the_average_map_and_the_shuffled_model_know_nothing_of_the_film(found):
    bright = found["findings"]["Bright"]
    assert bright["average_map"]["pointing"] < 0.3
    assert bright["above_average_map"] == pytest.approx(1 - bright["average_map"]["pointing"])
    assert bright["above_shuffled"] == pytest.approx(1 - bright["shuffled"]["pointing"])


def test_intervals_hold_their_scores_and_patients_are_drawn_whole(model, data):
    # Half of the patients have boxes that are hit, half have not: with clusters of two the interval is that of
    # 20 patients, not 40 images; a binomial one of 20 at 0.5 has a standard error of 0.112.
    right, wrong = boxes_of(range(20), ["Bright"]), boxes_of(range(20, 40), ["Bright"], offset=24)
    wrong = wrong.assign(image_id=[f"secret-{k:03d}" for k in range(20, 40)])
    params = EvaluateParams(resamples=2000, interval="percentile")
    bright = localise(model, data, _join(right, wrong), "test", params)["findings"]["Bright"]
    assert bright["pointing"] == 0.5
    width = bright["pointing_ci_high"] - bright["pointing_ci_low"]
    assert width == pytest.approx(2 * 1.96 * 0.112, rel=0.15)
    assert IMAGES == 20 * PER_PATIENT


def _join(*tables):
    import pandas as pd

    return pd.concat(tables, ignore_index=True)


def test_the_result_is_json_and_the_same_again(model, data, found, tmp_path):
    again = localise(model, data, boxes_of(range(3, 37), ["Bright", "Dark"]), "test", PARAMS)
    for name, value in (("a.json", found), ("b.json", again)):
        write_json(tmp_path / name, value)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text())["findings"]["Dark"]["pointing_defined"] is None


def test_no_box_gives_empty_scores(model, data):
    found = localise(model, data, boxes_of(range(0), []), "test", PARAMS)
    assert found["findings"] == found["macro"] == {}
    assert found["n_boxes"] == found["n_images"] == 0


def test_shuffling_keeps_every_tensors_values_and_leaves_the_model_as_it_was():
    import keras

    inner = keras.Input((16, 16, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3, use_bias=False)(inner))
    backbone = keras.Model(inner, keras.layers.ReLU()(x), name="backbone")
    outer = keras.Input((16, 16, 3), dtype="uint8")
    pooled = keras.layers.GlobalAveragePooling2D()(backbone(keras.layers.Rescaling(1 / 255)(outer)))
    model = keras.Model(outer, keras.layers.Dense(2, activation="sigmoid")(pooled))
    rng = np.random.default_rng(0)
    before = [rng.random(each.shape, np.float32) for each in model.get_weights()]
    model.set_weights(before)
    twin, other = shuffled(model, 1), shuffled(model, 2)
    for mine, was, new in zip(model.get_weights(), before, twin.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, was)
        np.testing.assert_array_equal(np.sort(new, axis=None), np.sort(was, axis=None))
    kernels = [each.get_weights()[0] for each in (model, twin, other, shuffled(model, 1))]
    assert (kernels[0] != kernels[1]).mean() > 0.9
    assert (kernels[1] != kernels[2]).mean() > 0.9
    np.testing.assert_array_equal(kernels[1], kernels[3])
    assert len(before) == 7  # the nested layers' too


def test_the_average_map_leaves_the_own_patient_out():
    maps = np.array([[[2, 0]], [[0, 4]], [[1, 1]], [[0, 0]], [[9, 0]]], np.float32)
    pairs = BoxedPairs(
        image=np.arange(5),
        finding=np.array([0, 0, 0, 0, 1]),
        patient=np.array(["a", "b", "b", "c", "c"]),
        places=[],
        films=np.zeros((5, 4), int),
        left_out={},
        unlabelled=0,
    )
    # Scaled: (1, 0), (0, 1), (1, 1), flat, (1, 0). Of a: b's two; of b: a's; of c: those of a and b; of the last: none.
    expected = [[0.5, 1], [1, 0], [1, 0], [2 / 3, 2 / 3], [np.nan, np.nan]]
    np.testing.assert_allclose(average_maps(maps, pairs)[:, 0], expected, rtol=1e-6)
