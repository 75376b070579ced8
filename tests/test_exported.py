"""A model is asked only if every file is the one that was exported; what comes out is what the manifest promises."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from tiny_models import write_trained

from pipeline.errors import UserError
from pipeline.exported import Exported, open_exported
from pipeline.exporting.manifest import FORMATS, MANIFEST, hashes, parse_manifest
from pipeline.exporting.runtimes import Outputs
from pipeline.exporting.source import describe
from pipeline.files import read_json, write_json


@pytest.fixture(scope="module")
def model(coded_images, tmp_path_factory):
    return write_trained(tmp_path_factory.mktemp("trained"), coded_images)


@pytest.fixture
def folder(model, tmp_path):
    """Return a folder with a manifest and its file; nothing can run it."""
    place = tmp_path / "onnx"
    place.mkdir()
    (place / "model.onnx").write_bytes(b"no model")
    manifest = dataclasses.replace(describe(model, model.parents[1] / "reports"), format="onnx", files=hashes(place))
    write_json(place / MANIFEST, manifest.as_dict())
    return place


def changed(folder, change):
    """Rewrite the manifest."""
    values = read_json(folder / MANIFEST)
    change(values)
    write_json(folder / MANIFEST, values)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (5, 32, 32, 1), dtype=np.uint8)


def test_the_keras_engine_gives_what_the_model_gives(model, images):
    from pipeline.model import load_model

    exported = open_exported(model)
    found = exported.outputs(images)
    network = load_model(model)
    np.testing.assert_allclose(found.probabilities, network.predict(images, verbose=0), atol=1e-6)
    assert found.probabilities.dtype == found.features.dtype == np.float32
    assert found.features.shape == (5, 16)
    np.testing.assert_array_equal(exported.embedding(images), found.features)
    # The head is a matrix and a sigmoid: features lead to probabilities.
    kernel, bias = network.get_layer("findings").get_weights()
    np.testing.assert_allclose(1 / (1 + np.exp(-(found.features @ kernel + bias))), found.probabilities, atol=1e-5)
    assert exported.manifest.version == exported.manifest.model_sha256[:12] + "-keras"
    assert exported.manifest.training["mlflow"]["run_id"] == "run-7"


@pytest.mark.parametrize("wrong", [np.zeros((1, 32, 32, 1), np.float32), np.zeros((1, 31, 32, 1), np.uint8)])
def test_other_pixels_are_refused(model, wrong):
    manifest = describe(model, model.parents[1] / "reports")
    with pytest.raises(ValueError, match=r"uint8 \(n, 32, 32, 1\) is needed"):
        Exported(manifest, None, model.parent).outputs(wrong)


def test_with_flip_the_mirror_image_has_the_same_answer(coded_images, tmp_path, images):
    exported = open_exported(write_trained(tmp_path, coded_images, flip=True))
    assert exported.manifest.flip
    np.testing.assert_allclose(
        exported.probabilities(images), exported.probabilities(images[:, :, ::-1].copy()), atol=1e-7
    )


def test_decisions_are_made_at_the_threshold_and_not_without_one(model):
    manifest = describe(model, model.parents[1] / "reports")
    exported = Exported(manifest, None, model.parent)
    raw = np.array([[0.5, 0.4, np.nan, 0.6, 0.0, 1.0]])
    assert exported.decisions(raw).tolist() == [[1, 0, -1, 1, 0, 1]]
    assert exported.decisions(raw, "specificity").tolist() == [[1, -1, -1, 1, 0, 1]]
    with pytest.raises(UserError, match="no operating point 'best'; youden, sensitivity, specificity, f1"):
        exported.decisions(raw, "best")


def test_calibration_is_that_of_the_evaluation(model):
    exported = Exported(describe(model, model.parents[1] / "reports"), None, model.parent)
    raw = np.array([[0.5, 0.25, np.nan, 0.1, 0.0, 1.0]], np.float32)
    # Platt with slope 1 and intercept -1 takes a logit of 0 to -1: 1 / (1 + e) = 0.26894.
    np.testing.assert_allclose(exported.calibrated(raw), [[0.26894142, 0.25, np.nan, 0.1, 0.0, 1.0]], rtol=1e-6)


def test_a_manifest_comes_back_as_it_was_written(folder):
    manifest = parse_manifest(read_json(folder / MANIFEST), folder / MANIFEST)
    assert manifest.as_dict() == read_json(folder / MANIFEST)
    assert manifest.size == 32
    assert manifest.findings == tuple(f"Bit{bit}" for bit in range(6))


def test_a_file_that_changed_is_refused_before_it_is_opened(folder):
    (folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(UserError, match="its SHA-256 differs"):
        open_exported(folder)


def test_a_file_that_is_missing_is_named(folder):
    (folder / "model.onnx").unlink()
    with pytest.raises(UserError, match=r"model.onnx is missing, and .*manifest.json names it"):
        open_exported(folder)


def test_a_file_that_no_library_can_read_is_one_sentence(folder):
    with pytest.raises(UserError, match=r"model.onnx cannot be opened .*run `cxr export` again"):
        open_exported(folder)


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a/../../b", "..\\b", "C:x", ""])
def test_a_manifest_that_leads_out_of_its_folder_is_refused(folder, name):
    changed(folder, lambda values: values["files"].update({name: "0" * 64}))
    with pytest.raises(UserError, match="outside its folder"):
        open_exported(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("findings", []),
        ("findings", ["Mass", "Mass"]),
        ("findings", ["Mass"]),
        ("files", {"model.onnx": "short"}),
        ("files", None),
        ("model_sha256", 7),
        ("preprocess", {"size": 1}),
        ("preprocess", {"sise": 32}),
        ("input", {"height": 64, "width": 64, "channels": 1}),
        ("operating_points", {}),
        ("operating_points", {f"Bit{bit}": {"youden": "high"} for bit in range(6)}),
        ("calibration", {"findings": {}}),
        ("format", "pickle"),
    ],
)
def test_a_damaged_manifest_is_one_sentence(folder, key, value):
    changed(folder, lambda values: values.update({key: value}))
    with pytest.raises(UserError, match=r"manifest.json"):
        open_exported(folder)


def test_a_manifest_without_its_own_file_is_refused(folder):
    changed(folder, lambda values: values.update({"files": {}}))
    with pytest.raises(UserError, match=r"does not name model\.onnx"):
        open_exported(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"format": "onnx"}'])
def test_a_manifest_that_is_none_is_refused(folder, text):
    (folder / MANIFEST).write_text(text)
    with pytest.raises(UserError, match=MANIFEST):
        open_exported(folder)


def test_no_folder_no_manifest_no_model(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="is no exported model"):
            open_exported(path)


def test_of_several_formats_int8_is_taken_and_no_other_silently(folder):
    with pytest.raises(UserError, match="has no int8, only onnx: name one"):
        open_exported(folder.parent)
    shutil.copytree(folder, folder.with_name("int8"))
    with pytest.raises(UserError, match="onnx"):  # its manifest says onnx, and the file is none
        open_exported(folder.parent)
    assert FORMATS[2] == "int8"


@pytest.mark.parametrize("name", ["training.json", "metrics.json"])
def test_files_of_another_model_are_refused(model, tmp_path, name):
    shutil.copytree(model.parents[1], tmp_path / "project")
    path = next((tmp_path / "project").rglob(name))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_sha256": "0" * 64}))
    with pytest.raises(UserError, match=f"{name} is of another model"):
        open_exported(tmp_path / "project" / "models" / "model.keras")


def test_the_mean_of_several_trainings_is_not_one_model(model, tmp_path):
    shutil.copytree(model.parents[1], tmp_path / "project")
    path = tmp_path / "project" / "reports" / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ensemble": True}))
    with pytest.raises(UserError, match=r"set evaluate\.ensemble to false"):
        open_exported(tmp_path / "project" / "models" / "model.keras")


def test_a_model_that_was_not_evaluated_is_refused(model, tmp_path):
    shutil.copytree(model.parent, tmp_path / "models")
    with pytest.raises(UserError, match=r"metrics\.json is missing"):
        open_exported(tmp_path / "models" / "model.keras")


def test_outputs_of_no_image_have_the_right_shape(model):
    found = open_exported(model).outputs(np.empty((0, 32, 32, 1), np.uint8))
    assert isinstance(found, Outputs)
    assert found.probabilities.shape == (0, 6)
