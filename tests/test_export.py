"""Every format gives what the Keras model gives, or there is no export; a killed export leaves nothing."""

import json
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import write_trained

from pipeline.errors import UserError
from pipeline.export import export
from pipeline.exported import open_exported
from pipeline.exporting.folder import finished_folder
from pipeline.exporting.parity import Reference, faults
from pipeline.exporting.samples import some_rows, whole_patients
from pipeline.metrics import macro_auroc
from pipeline.params import EvaluateParams, ExportParams, Params
from pipeline.params_file import parse_params
from pipeline.shards import open_processed

PARAMS = {"evaluate": {"resamples": 100}, "export": {"representative_images": 20, "auc_loss": 0.2}}


def params_of(**section: object) -> Params:
    return parse_params({**PARAMS, "export": {**PARAMS["export"], **section}}, "the test")


@pytest.fixture(scope="module")
def exports(coded_images, tmp_path_factory):
    """Return the folder of exports of a tiny model, the model, and the splits that were read."""
    from pipeline.exporting import samples

    folder = tmp_path_factory.mktemp("Übung 胸片")
    model, asked = write_trained(folder, coded_images), []
    images_in_order = samples.images_in_order

    def noted(data, split, *args):
        asked.append(split)
        return images_in_order(data, split, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "images_in_order", noted)
        export(model, coded_images, folder / "exported", folder / "reports", params_of())
    return folder / "exported", model, asked


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (5, 32, 32, 1), dtype=np.uint8)


TOLERANCE = {"saved_model": 1e-5, "onnx": 1e-5, "float16": 0.003, "int8": 0.05}


@pytest.mark.parametrize("name", TOLERANCE)
def test_every_format_gives_what_the_model_gives(exports, images, name):
    folder, model, _ = exports
    expected, exported = open_exported(model).outputs(images), open_exported(folder / name, threads=1)
    found = exported.outputs(images)
    assert found.probabilities.dtype == found.features.dtype == np.float32
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=TOLERANCE[name])
    scale = np.abs(expected.features).max()
    np.testing.assert_allclose(found.features / scale, expected.features / scale, atol=TOLERANCE[name])
    # One image alone gives what it gives in a batch.
    np.testing.assert_allclose(exported.outputs(images[:1]).probabilities, found.probabilities[:1], atol=1e-6)
    manifest = exported.manifest
    assert manifest.format == name
    assert manifest.version == f"{manifest.model_sha256[:12]}-{name}"
    assert {"tensorflow", "tf2onnx", "ai-edge-litert"} <= set(manifest.versions)


def test_of_all_formats_int8_is_opened(exports):
    assert open_exported(exports[0]).manifest.format == "int8"


def test_the_test_split_is_not_read(exports):
    assert set(exports[2]) == {"train", "val"}


def test_parity_is_written_down(exports):
    document = json.loads((exports[0] / "parity.json").read_text())
    assert (document["split"], document["images"], document["patients"]) == ("val", 9, 9)
    assert set(document["formats"]) == set(TOLERANCE)
    for name, row in document["formats"].items():
        assert row["max_difference"] <= row["tolerance"]
        assert row["faults"] == []
        assert row["bytes"] > 0
        assert row["auc"] == pytest.approx(document["auc"] - row["auc_loss"]), name


def test_a_saved_model_holds_its_weights_once(exports):
    from pipeline.model import load_model

    weights = sum(value.nbytes for value in load_model(exports[1]).get_weights())
    stored = sum(path.stat().st_size for path in (exports[0] / "saved_model" / "variables").glob("*.data-*"))
    assert weights <= stored < 1.3 * weights


def test_int8_computes_convolutions_in_integers_and_the_head_in_floats(exports):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(exports[0] / "int8" / "model.tflite"))
    kinds = {item["index"]: item["dtype"] for item in interpreter.get_tensor_details()}
    operations = interpreter._get_ops_details()
    convolutions = [kinds[each["outputs"][0]] for each in operations if each["op_name"] == "CONV_2D"]
    heads = [kinds[each["outputs"][0]] for each in operations if each["op_name"] in ("FULLY_CONNECTED", "LOGISTIC")]
    assert convolutions == [np.int8] * 3
    assert heads == [np.float32] * 2
    assert interpreter.get_input_details()[0]["dtype"] == np.uint8


def test_onnx_passes_its_own_checker_and_takes_any_batch(exports):
    import onnx

    model = onnx.load(exports[0] / "onnx" / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["image"]
    assert {value.name for value in model.graph.output} == {"probabilities", "features"}
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_a_format_that_differs_too_much_fails_the_stage_and_says_by_how_much(coded_images, tmp_path):
    model, out = write_trained(tmp_path, coded_images), tmp_path / "exported"
    params = params_of(formats=["int8"], int8_tolerance=1e-9)
    with pytest.raises(UserError, match=r"int8: a probability differs by [0-9.e-]+, 1e-09 is allowed"):
        export(model, coded_images, out, tmp_path / "reports", params)
    assert not [path for path in tmp_path.iterdir() if "exported" in path.name]


def test_a_loss_of_auc_above_the_bound_is_a_fault_with_its_interval():
    row = {"max_difference": 0.01, "auc_loss": 0.006, "auc_loss_ci_low": 0.001, "auc_loss_ci_high": 0.011}
    assert faults("int8", row, ExportParams()) == [
        "int8: mean AUC falls by 0.0060 (paired interval 0.0010 to 0.0110), 0.005 is allowed"
    ]
    assert faults("int8", row | {"auc_loss": 0.005}, ExportParams()) == []
    assert faults("int8", row | {"auc_loss": float("nan")}, ExportParams()) == []
    for difference in (float("nan"), 0.2):
        assert len(faults("int8", row | {"auc_loss": 0.0, "max_difference": difference}, ExportParams())) == 1


def test_the_loss_is_the_difference_of_two_exact_aurocs():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (80, 3)).astype(float)
    labels[:5, 1] = np.nan
    good, worse = rng.random((2, 80, 3))
    good += 0.3 * np.nan_to_num(labels)
    reference = Reference(labels, good, good + 0.1, np.arange(80) // 2, EvaluateParams(resamples=200))
    row = reference.compare(worse)
    assert row["auc_loss"] == pytest.approx(macro_auroc(labels, good) - macro_auroc(labels, worse))
    assert row["auc_loss_ci_low"] < row["auc_loss"] < row["auc_loss_ci_high"]
    assert row["max_difference"] == pytest.approx(np.abs(good + 0.1 - worse).max())
    assert row["max_difference_evaluated"] == pytest.approx(np.abs(good - worse).max())
    same = reference.compare(good)
    assert same["auc_loss"] == same["auc_loss_ci_low"] == same["auc_loss_ci_high"] == 0
    assert same["max_difference_evaluated"] == 0


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 50), st.integers(0, 5))
def test_images_are_those_of_whole_patients(patients, count, seed):
    rows = whole_patients(pd.Series(patients), count, seed)
    chosen = {patients[row] for row in rows}
    assert sorted(rows) == [row for row, patient in enumerate(patients) if patient in chosen]
    assert len(rows) >= min(count, len(patients))


@given(st.integers(1, 100), st.integers(1, 100), st.integers(0, 5))
def test_rows_are_different_and_in_order(n_rows, count, seed):
    rows = some_rows(n_rows, count, seed)
    assert len(rows) == min(count, n_rows)
    assert (np.diff(rows) > 0).all()


def test_images_come_by_their_number(coded_images):
    from pipeline.exporting.samples import read_images

    data = open_processed(coded_images)
    # The first pixel is the row's number; val begins at 37.
    assert read_images(data, "train", np.array([0, 5, 36]))[:, 0, 0, 0].tolist() == [0, 5, 36]
    assert read_images(data, "val", np.array([1, 8]))[:, 0, 0, 0].tolist() == [38, 45]


def test_a_folder_of_other_things_is_not_emptied(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("ten years")
    with pytest.raises(UserError, match="holds no exports"), finished_folder(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "thesis.txt").read_text() == "ten years"


def test_a_killed_export_leaves_nothing_that_looks_finished(tmp_path):
    out = tmp_path / "exported"
    code = (
        "import pathlib, sys, time\n"
        "from pipeline.exporting.folder import finished_folder\n"
        "with finished_folder(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'parity.json').write_text('{}')\n"
        "    print('there', flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == [".exported.partial"]
    with finished_folder(out) as folder:  # the next one begins with an empty folder
        assert list(folder.iterdir()) == []
        (folder / "parity.json").write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]


def test_what_was_exported_before_is_gone_when_the_next_export_fails(tmp_path):
    out = tmp_path / "exported"
    with finished_folder(out) as folder:
        (folder / "parity.json").write_text("{}")
    with pytest.raises(UserError, match="no"), finished_folder(out):
        raise UserError("no")
    assert list(tmp_path.iterdir()) == []


def test_images_of_another_size_are_refused(coded_images, tmp_path):
    model = write_trained(tmp_path, coded_images)
    training = json.loads(model.with_name("training.json").read_text())
    training["preprocess"]["size"] = 64
    model.with_name("training.json").write_text(json.dumps(training))
    with pytest.raises(UserError, match="was trained with preprocess"):
        export(model, coded_images, tmp_path / "exported", tmp_path / "reports", params_of())


@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetV2B0", "ConvNeXtTiny"])
def test_a_network_trained_in_mixed_precision_is_exported_in_float32(name):
    """MobileNetV3 has operations that are no layers, ConvNeXt has models whose input is bfloat16."""
    import keras

    from pipeline.exporting.network import computes_in_float32, in_float32
    from pipeline.params import ModelParams
    from pipeline.training.network import build_model

    def built(policy: str) -> keras.Model:
        keras.config.set_dtype_policy(policy)
        try:
            return build_model(ModelParams(backbone=name, weights="none"), 32, np.full(3, 0.2))
        finally:
            keras.config.set_dtype_policy("float32")

    mixed, full = built("mixed_bfloat16"), built("float32")
    full.set_weights(mixed.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), dtype=np.uint8)
    assert not computes_in_float32(mixed)
    exported = in_float32(mixed)
    assert computes_in_float32(exported)
    np.testing.assert_allclose(exported(pixels), full(pixels), atol=1e-6)
