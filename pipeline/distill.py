"""Command `distill`: a small network that learns from the trained one and from the labels."""

import dataclasses
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import sha256_file, sha256_text
from pipeline.params import Params, ScheduleParams
from pipeline.precision import resolve_precision
from pipeline.progress import note
from pipeline.quiet import load_tensorflow
from pipeline.shards import Processed, open_processed


def distill(model_path: Path, processed: Path, out: Path, params: Params) -> None:
    """Train a student; write what `train` writes, so that `evaluate` and `export` work on it.

    Teacher and student see the same augmented images (Beyer et al., "Knowledge distillation: a good teacher is patient
    and consistent", CVPR 2022). A killed one goes on after its last whole epoch.

    Parameters
    ----------
    model_path : Path
        The teacher, `model.keras`.
    processed : Path
        The processed images.
    out : Path
        The student's folder.
    params : Params
        Section `distill`; `augment`, `loss`, `optimizer`, `train` as in training; the rate falls by a cosine.

    Raises
    ------
    UserError
        If the teacher is missing or has other findings or another image size, or `out` is its folder.
    """
    data = open_processed(processed)
    if out.resolve() == model_path.resolve().parent:
        raise UserError(f"{out} is the teacher's folder: name another, such as {out / 'student'}")
    params = resolve_precision(student_params(params))
    load_tensorflow()
    from pipeline.model import load_model
    from pipeline.shrinking.fitting import clear, close, fit_best, opened_run
    from pipeline.training.resume import key_of, working_folder
    from pipeline.training.trainer import set_up

    set_up(params)
    teacher = load_model(model_path)
    require_same(teacher, data, model_path)
    key = sha256_text(key_of(data, params) + sha256_file(model_path) + repr(params.distill))
    staging = out / ".partial"
    clear(out)
    run = opened_run(params, staging, f"distill-{params.model.backbone}", again=working_folder(staging, key))
    try:
        history = fit_best(task_of(teacher, data, params), data, params, staging, run.log_metrics)
        close(data, params, run, staging, history, out)
    except BaseException:
        run.end("FAILED")
        raise


def student_params(params: Params) -> Params:
    """Return the parameters of the student's training, as its `params.yaml` records them."""
    section = params.distill
    model = dataclasses.replace(params.model, backbone=section.backbone, weights=section.weights)
    train = dataclasses.replace(params.train, epochs=section.epochs, repeats=1, cluster="none", workers=0, address="")
    optimizer = dataclasses.replace(params.optimizer, learning_rate=section.learning_rate, ema=0.0)
    schedule = ScheduleParams(name="cosine", warmup_epochs=min(1.0, section.epochs / 2))
    return dataclasses.replace(params, model=model, train=train, optimizer=optimizer, schedule=schedule)


def require_same(teacher: Any, data: Processed, path: Path) -> None:
    """Refuse a teacher of other images or findings."""
    wanted = (data.size, data.size, 1), len(data.findings)
    found = tuple(teacher.input_shape[1:]), teacher.output_shape[-1]
    if found != wanted:
        raise UserError(f"{path} takes {found[0]} and gives {found[1]} findings; {data.folder} has {wanted}")


def task_of(teacher: Any, data: Processed, params: Params) -> Any:
    """Return the student within Keras's distiller."""
    import keras

    from pipeline.shrinking.fitting import Task
    from pipeline.shrinking.soft_targets import SigmoidDistillation
    from pipeline.training.network import build_model, prevalence_of

    section = params.distill
    labels = data.labels[(data.table["split"] == "train").to_numpy()]
    student = build_model(params.model, data.size, prevalence_of(labels), fused=params.train.fused)
    distiller = keras.distillation.Distiller(
        teacher, student, SigmoidDistillation(section.temperature), student_loss_weight=section.hard
    )
    note(f"{params.model.backbone} of {student.count_params():,} parameters learns from {teacher.count_params():,}")
    return Task(student, distiller, what="distilling")
