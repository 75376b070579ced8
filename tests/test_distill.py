"""A student learns from teacher and labels, and is a model like any other."""

import json

import numpy as np
import pytest
from tiny_models import tiny_network, write_trained

from pipeline.distill import distill, student_params
from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.params_file import parse_params
from pipeline.shards import open_processed


def params_of(folder, **section: object) -> Params:
    return parse_params(
        {
            "preprocess": {"size": 32},
            "train": {"batch_size": 8, "auc_images": 8},
            "evaluate": {"resamples": 100},
            "distill": {"epochs": 2, **section},
            "tracking": {"uri": f"sqlite:///{folder}/mlflow.db", "system_metrics": False, "register": ""},
        },
        "the test",
    )


def test_the_loss_at_temperature_one_is_binary_cross_entropy():
    import keras

    from pipeline.shrinking.soft_targets import SigmoidDistillation

    rng = np.random.default_rng(0)
    teacher, student = rng.uniform(0.01, 0.99, (2, 4, 3)).astype(np.float32)
    found = float(SigmoidDistillation(1.0).compute_loss(teacher, student))
    assert found == pytest.approx(float(keras.losses.BinaryCrossentropy()(teacher, student)), rel=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_loss_is_least_where_both_agree(temperature):
    from pipeline.shrinking.soft_targets import SigmoidDistillation

    loss, teacher = SigmoidDistillation(temperature), np.array([[0.2, 0.9, 0.001]], np.float32)
    least = float(loss.compute_loss(teacher, teacher))
    for k in range(3):
        for other in (0.5 * teacher[0, k], 0.5 + 0.5 * teacher[0, k]):
            student = teacher.copy()
            student[0, k] = other
            assert float(loss.compute_loss(teacher, student)) > least


def test_no_finding_at_all_is_learnt_too():
    from pipeline.shrinking.soft_targets import SigmoidDistillation

    # A softmax over the findings could not tell these two students apart: their logits differ by a constant.
    nothing = np.full((1, 3), 0.01, np.float32)
    everything = np.full((1, 3), 0.99, np.float32)
    loss = SigmoidDistillation(2.0)
    assert float(loss.compute_loss(nothing, everything)) > float(loss.compute_loss(nothing, nothing)) + 1


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_must_be_positive(temperature):
    from pipeline.shrinking.soft_targets import SigmoidDistillation

    with pytest.raises(ValueError, match="must be above 0"):
        SigmoidDistillation(temperature)


@pytest.fixture(scope="module")
def student(coded_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distilled")
    teacher, params = write_trained(folder, coded_images), params_of(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("pipeline.training.network.build_model", lambda *_, **__: tiny_network(seed=5))
        distill(teacher, coded_images, folder / "student", params)
    return folder / "student", params


def test_a_student_is_what_train_would_leave(student, coded_images):
    from pipeline.evaluate import check_fit
    from pipeline.model import load_model

    folder, _ = student
    names = {"model.keras", "history.csv", "params.yaml", "training.json"}
    assert names <= {path.name for path in folder.iterdir()}
    assert not (folder / ".partial").exists()
    training = json.loads((folder / "training.json").read_text())
    check_fit(folder / "model.keras", training, open_processed(coded_images))
    assert training["epochs"] == 2
    start = tiny_network(seed=5).get_weights()
    learnt = load_model(folder / "model.keras").get_weights()
    assert [value.shape for value in learnt] == [value.shape for value in start]
    assert any(not np.array_equal(a, b) for a, b in zip(start, learnt, strict=True))
    assert "MobileNetV3Small" in (folder / "params.yaml").read_text()


def test_the_record_names_the_students_network():
    params = student_params(params_of("."))
    assert (params.model.backbone, params.train.epochs) == ("MobileNetV3Small", 2)


def test_the_teachers_folder_is_not_overwritten(coded_images, tmp_path):
    model = write_trained(tmp_path, coded_images)
    with pytest.raises(UserError, match="is the teacher's folder"):
        distill(model, coded_images, model.parent, params_of(tmp_path))


def test_a_teacher_of_other_findings_is_refused(coded_images, tmp_path):
    from pipeline.model import save_model

    path = tmp_path / "model.keras"
    save_model(tiny_network(2), path)
    with pytest.raises(UserError, match="gives 2 findings"):
        distill(path, coded_images, tmp_path / "student", params_of(tmp_path))
