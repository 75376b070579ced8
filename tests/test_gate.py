"""The input gate: thresholds that keep their promise, films that pass, bad images that do not, its file."""

import dataclasses
import json
import shutil
from functools import partial

import numpy as np
import pytest
from coded import N_TRAIN, N_VAL
from dicom_film import write_dicom
from drawn_chests import draw_chests
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf

from pipeline.errors import UserError
from pipeline.gate import REASONS, FilmFacts, relative
from pipeline.gate_bad import MAKERS, jittered, make_bad
from pipeline.gate_distance import fit_distance
from pipeline.gate_file import find_gate, read_gate, write_gate
from pipeline.gate_fit import FitInput, equaliser, fit, fit_gate, read_films, tail_threshold
from pipeline.gate_header import header_reasons
from pipeline.gate_pattern import CLASSES, patterns
from pipeline.params import GateParams
from pipeline.shards import open_processed

SHA256 = "ab" * 32
PARAMS = GateParams(films=120, bad_images=8, hidden=32, epochs=20, components=6)
SHAPES = np.array([[1000.0, 1000.0], [800.0, 1000.0], [1100.0, 1000.0]])
FACTS = FilmFacts(1000, 1000)


def features_of(images):
    """Return 12 numbers of each image, as a network might: the means of a grid of 3 by 4."""
    cells = images[..., 0].reshape(len(images), 3, 16, 4, 12)
    return cells.mean(axis=(2, 4)).reshape(len(images), 12).astype(np.float32)


@pytest.fixture(scope="module")
def films():
    shapes, equalise = SHAPES, equaliser({"clahe": False})
    return FitInput(draw_chests(120, 1), draw_chests(100, 2), shapes, np.arange(100), equalise)


@pytest.fixture(scope="module")
def gate(films):
    return fit(films, features_of, SHA256, PARAMS)


def judge(gate, images, facts=FACTS):
    batch = np.stack(images)[..., None]
    return gate.judge(batch, features_of(batch), [facts] * len(batch))


def share_flagged(gate, images):
    return np.mean([not verdict.accepted for verdict in judge(gate, images)])


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=400), st.floats(0.5, 0.999), st.integers(1, 2))
def test_no_more_validation_films_exceed_a_threshold_than_it_may_let(scores, pass_rate, detectors):
    threshold = tail_threshold(np.array(scores), pass_rate, detectors)
    assert np.mean(np.array(scores) > threshold) <= (1 - pass_rate) / detectors + 1e-9


@pytest.mark.parametrize(("count", "pass_rate"), [(500, 0.99), (200, 0.95), (39, 0.9)])
def test_new_films_exceed_a_threshold_as_rarely_as_promised(count, pass_rate):
    rng = np.random.default_rng(2)
    shares = []
    for _ in range(2000):
        scores = rng.standard_t(3, count)
        shares.append(np.mean(rng.standard_t(3, 200) > tail_threshold(scores, pass_rate, 1)))
    assert np.mean(shares) <= 1 - pass_rate + 3 * np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) >= 0.5 * (1 - pass_rate)


def test_films_that_were_not_seen_pass_and_bad_images_do_not(gate):
    new = draw_chests(200, 3)
    assert share_flagged(gate, new) <= 0.04
    assert share_flagged(gate, np.rot90(new, 1, axes=(1, 2))) >= 0.95
    assert share_flagged(gate, new[:, ::-1]) >= 0.95
    assert share_flagged(gate, 255 - new) >= 0.95
    assert share_flagged(gate, np.stack([np.full((48, 48), gray, np.uint8) for gray in range(0, 256, 5)])) == 1
    assert share_flagged(gate, np.random.default_rng(1).integers(0, 256, (50, 48, 48), dtype=np.uint8)) == 1


def test_the_reason_names_what_was_done_to_the_film(gate):
    new = draw_chests(60, 4)
    done = {"rotated": np.rot90(new, 2, axes=(1, 2)), "inverted": 255 - new}
    for reason, images in done.items():
        flagged = [verdict for verdict in judge(gate, images) if not verdict.accepted]
        assert np.mean([reason in verdict.reasons for verdict in flagged]) >= 0.9


def test_a_verdict_says_the_same_in_reasons_scores_and_sentences(gate):
    new = draw_chests(40, 5)
    for verdict in judge(gate, [*new, *(255 - new)]):
        assert verdict.accepted == (not verdict.reasons)
        assert list(verdict.reasons) == [code for code in REASONS if code in verdict.reasons]
        assert verdict.sentences == tuple(REASONS[code] for code in verdict.reasons)
        assert (verdict.scores["pattern"] > 1) == bool(set(verdict.reasons) & set(CLASSES))
        assert (verdict.scores["distance"] > 1) == ("far" in verdict.reasons)


def test_a_batch_is_judged_as_its_images_are_alone(gate):
    images = [*draw_chests(5, 6), *np.random.default_rng(0).integers(0, 256, (5, 48, 48), dtype=np.uint8)]
    together = judge(gate, images)
    alone = [judge(gate, [image])[0] for image in images]
    assert [verdict.reasons for verdict in together] == [verdict.reasons for verdict in alone]


def test_what_is_no_number_is_flagged(gate):
    batch = draw_chests(1, 7)[..., None]
    (verdict,) = gate.judge(batch, np.full((1, 12), np.nan, np.float32), [FACTS])
    assert "far" in verdict.reasons


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (FilmFacts(47, 60), "size"),
        (FilmFacts(2000, 1000), "aspect"),
        (FilmFacts(500, 1000), "aspect"),
        (FilmFacts(1000, 1000, colour=True), "colour"),
        (FilmFacts(1000, 1000, header=("modality",)), "modality"),
    ],
)
def test_the_film_itself_can_be_a_reason(gate, facts, reason):
    batch = draw_chests(1, 8)[..., None]
    assert judge(gate, batch[..., 0])[0].accepted
    (verdict,) = gate.judge(batch, None, [facts])
    assert verdict.reasons == (reason,)
    assert "distance" not in verdict.scores


def test_films_of_training_never_have_a_bad_proportion_or_size(gate):
    for width, height in SHAPES:
        assert gate.judge(draw_chests(1, 8)[..., None], None, [FilmFacts(int(width), int(height))])[0].accepted


@given(st.floats(-20, 50), st.floats(-20, 50))
def test_relative_odds_are_above_1_only_above_the_threshold(odds, threshold):
    found = relative(np.array([odds, threshold]), threshold)
    assert found[1] == 1
    assert (found[0] > 1) == (odds > threshold) or abs(odds - threshold) < 1e-9
    assert found[0] >= 0


def test_the_distance_is_scipys_in_the_space_of_the_components():
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(80, 6)) @ rng.normal(size=(6, 6)) + 3).astype(np.float32)
    distance = fit_distance(features, 6)
    centred = features - features.mean(axis=0)
    inverse = np.linalg.inv(LedoitWolf(assume_centered=True).fit(centred).covariance_)
    new = rng.normal(size=(5, 6)).astype(np.float32)
    expected = [mahalanobis(each, features.mean(axis=0), inverse) / np.sqrt(6) for each in new]
    np.testing.assert_allclose(distance(new), expected, rtol=1e-3)


def test_features_that_do_not_vary_are_no_obstacle():
    features = np.zeros((30, 8), np.float32)
    features[:, 0] = np.random.default_rng(0).normal(size=30)
    assert np.isfinite(fit_distance(features, 4)(features)).all()


def test_the_same_seed_gives_the_same_gate(films, tmp_path):
    few = dataclasses.replace(PARAMS, epochs=2, bad_images=2)
    for name, each in ((name, fit(films, features_of, SHA256, few)) for name in "ab"):
        write_gate(tmp_path / name, each)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_gate_judges_the_same_after_it_was_written_and_read(gate, tmp_path):
    write_gate(tmp_path / "gate.json", gate)
    read = read_gate(tmp_path / "gate.json")
    images = [*draw_chests(10, 9), *(255 - draw_chests(10, 10))]
    assert judge(read, images) == judge(gate, images)
    assert read.record == json.loads(json.dumps(gate.record))


def test_the_record_counts_films_and_gives_an_exact_interval(gate):
    record = gate.record
    assert record["films"] == {"train": 120, "val": 100, "val_patients": 100}
    assert record["passed"]["share"] >= PARAMS.pass_rate
    assert record["passed"]["ci_low"] <= record["passed"]["share"] <= record["passed"]["ci_high"]
    assert set(record["flagged"]) == set(CLASSES[1:])


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"net_threshold": None},
        {"net_threshold": True},
        {"distance_threshold": "1"},
        {"aspect": [1]},
        {"net": {}},
        {
            "distance": {
                "centre": {"shape": [1], "float32": "AAAAAA=="},
                "whitening": {"shape": [2], "float32": "AAAAAAAAAAA="},
            }
        },
        {
            "distance": {
                "centre": {"shape": [1], "float32": "AADAfw=="},
                "whitening": {"shape": [1, 1], "float32": "AAAAAA=="},
            }
        },
        {"size": 1e400},
        {"record": 3},
    ],
)
def test_a_damaged_file_is_refused_in_one_line(gate, tmp_path, change):
    path = tmp_path / "gate.json"
    write_gate(path, gate)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"gate\.json") as caught:
        read_gate(path)
    assert "\n" not in str(caught.value)


def test_the_gate_of_another_model_is_refused_and_a_missing_one_is_none(gate, tmp_path):
    (tmp_path / "int8").mkdir()
    assert find_gate(tmp_path / "int8", SHA256) is None
    write_gate(tmp_path / "gate.json", gate)
    assert find_gate(tmp_path / "int8", SHA256).size == 48
    with pytest.raises(UserError, match="another model"):
        find_gate(tmp_path / "int8", "cd" * 32)


def test_a_keras_model_beside_exports_of_another_model_has_no_gate(gate, tmp_path):
    write_gate(tmp_path / "exported" / "gate.json", gate)
    assert find_gate(tmp_path, SHA256) is not None
    assert find_gate(tmp_path, "cd" * 32) is None


def test_every_kind_of_bad_image_is_made_of_the_films_size():
    film = draw_chests(1, 11)[0]
    rng = np.random.default_rng(0)
    for kind, maker, _ in MAKERS:
        for _ in range(10):
            made = maker(rng, film, partial(np.asarray))
            assert (made.shape, made.dtype) == (film.shape, np.uint8), maker
            assert (made != film).any(), maker
        assert kind in CLASSES
    assert jittered(rng, film, np.asarray).shape == film.shape
    images, kinds = make_bad(rng, film[None], 30, np.asarray)
    assert len(images) == len(kinds) == 30


def test_patterns_know_nothing_of_brightness_and_contrast():
    film = draw_chests(1, 12)[0] // 2 + 20
    low = patterns([film, film + 30, film // 2])
    np.testing.assert_allclose(low[0, :-1], low[1, :-1], atol=1e-5)
    np.testing.assert_allclose(low[0, :-1], low[2, :-1], atol=0.25)


def test_films_are_read_from_the_shards_by_their_position(coded_images):
    data = open_processed(coded_images)
    positions = np.array([0, 9, 10, 25, N_TRAIN - 1])
    assert read_films(data, "train", positions)[:, 0, 0].tolist() == positions.tolist()
    assert read_films(data, "val", np.array([2]))[:, 0, 0].tolist() == [N_TRAIN + 2]


def test_too_few_films_are_refused(coded_images):
    with pytest.raises(UserError, match=f"split val has {N_VAL} films"):
        fit_gate(open_processed(coded_images), None, SHA256, PARAMS)


def test_the_test_split_is_not_read(tmp_path):
    data = drawn_project(tmp_path / "processed")
    for path in data.files("test"):
        (tmp_path / path).unlink()
    fitted = fit_gate(data, None, SHA256, dataclasses.replace(PARAMS, epochs=2, bad_images=2))
    assert fitted.distance is None
    assert fitted.record["films"]["train"] == 40
    shutil.rmtree(tmp_path / "processed")


def drawn_project(folder):
    """Write a finished folder of 40 drawn films of train, 30 of val, 5 of test; no film has a known size."""
    import pandas as pd

    from pipeline.files import sha256_file, write_json
    from pipeline.shards import INDEX, META, write_index, write_shard

    counts = {"train": 40, "val": 30, "test": 5}
    splits = [split for split, count in counts.items() for _ in range(count)]
    table = pd.DataFrame({"row": range(75), "shard": [f"{split}-00000.tfrecord" for split in splits], "split": splits})
    table["image_id"] = table["patient_id"] = [f"{row}" for row in range(75)]
    table[["view", "sex", "age", "followup", "width", "height", "sha256"]] = ""
    table["Mass"] = 0
    films = draw_chests(75, 13)
    listed = []
    for name, group in table.groupby("shard"):
        write_shard(folder / str(name), [(row, films[row]) for row in group["row"]])
        listed.append({"name": name, "split": group["split"].iloc[0], "sha256": sha256_file(folder / str(name))})
    meta = {"size": 48, "findings": ["Mass"], "preprocess": {"clahe": False}, "shards": listed}
    write_json(folder / META, meta | {"index_sha256": write_index(folder / INDEX, table)})
    return open_processed(folder)


@pytest.mark.parametrize(
    ("facts", "reasons"),
    [
        ({}, ()),
        ({"Modality": "CR", "BodyPartExamined": "CHEST", "ViewPosition": "PA"}, ()),
        ({"BodyPartExamined": "PORT CHEST", "ViewPosition": "AP"}, ()),
        ({"Modality": "CT"}, ("modality",)),
        ({"Modality": "MG", "BodyPartExamined": "BREAST"}, ("modality", "body-part")),
        ({"BodyPartExamined": "HAND"}, ("body-part",)),
        ({"ViewPosition": "LL"}, ("lateral",)),
        ({"ViewPosition": "LATERAL"}, ("lateral",)),
        ({"ViewPosition": "LLO"}, ("lateral",)),
    ],
)
def test_a_dicom_header_speaks_against_what_it_names(tmp_path, facts, reasons):
    path = write_dicom(tmp_path / "film.dcm", PatientName="DOE^JANE", **facts)
    assert header_reasons(path.read_bytes()) == reasons


def test_other_formats_have_no_header(tmp_path, draw_png):
    assert header_reasons(draw_png(tmp_path / "a.png").read_bytes()) == ()


def test_real_films_pass_and_their_bad_copies_do_not(pneumonia_archive):
    from pipeline.images import prepare, read_image
    from pipeline.params import PreprocessParams

    preprocess = PreprocessParams(size=48)
    paths = sorted((pneumonia_archive / "chest_xray" / "train").rglob("*.jpeg"))[::6]
    patients = np.array([path.name.split("_")[0].rsplit("-", 1)[0] for path in paths])
    who = np.random.default_rng(0).permutation(np.unique(patients))
    part = {patient: k % 3 for k, patient in enumerate(who)}
    pixels = np.stack([prepare(read_image(path), preprocess) for path in paths])
    split = np.array([part[patient] for patient in patients])
    parts = FitInput(
        pixels[split == 0], pixels[split == 1], np.zeros((0, 2)), patients[split == 1], equaliser(vars(preprocess))
    )
    gate = fit(parts, None, SHA256, GateParams(films=300))
    test = pixels[split == 2]
    flagged = {
        "film": test,
        "turned": np.rot90(test, 1, axes=(1, 2)),
        "upside down": test[:, ::-1],
        "inverted": 255 - test,
    }
    shares = {
        name: np.mean([not each.accepted for each in gate.judge(images[..., None], None, [FACTS] * len(images))])
        for name, images in flagged.items()
    }
    assert shares["film"] <= 0.03
    assert min(shares["turned"], shares["upside down"], shares["inverted"]) >= 0.95
