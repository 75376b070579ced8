"""Stage `train`: fine-tune ResNet50 under tf.distribute; the best epoch by exact validation AUROC is kept."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.files import sha256_file, write_json
from pipeline.metrics import auroc
from pipeline.params import Params
from pipeline.params_file import as_dict, write_yaml
from pipeline.precision import resolve_precision
from pipeline.progress import note
from pipeline.quiet import load_tensorflow
from pipeline.shards import META, Processed, open_processed
from pipeline.tracking import Run, code_version, without_secrets

_OUTPUTS = ("model.keras", "history.csv", "params.yaml", "training.json")  # the last one says that all are there


def train(processed: Path, out: Path, params: Params) -> None:
    """Train and write `model.keras`, `history.csv`, `params.yaml` (resolved) and `training.json`.

    All is made in `OUT/.partial` and moved at the end; a killed training leaves nothing that looks finished.

    Parameters
    ----------
    processed : Path
        What `preprocess` made.
    out : Path
        The folder of models.
    params : Params
        Sections `model`, `augment`, `train`, `tracking`; all are recorded.

    Raises
    ------
    UserError
        If the images are unfinished or damaged, the weights are missing, validation AUC is defined for no finding,
        or the loss became NaN before the first epoch ended.
    """
    data = open_processed(processed)
    require_defined_auc(data)
    params = resolve_precision(params)
    staging = out / ".partial"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for name in _OUTPUTS:
        (out / name).unlink(missing_ok=True)
    run = Run(params.tracking, name=f"{params.dataset.preset}-{params.model.backbone}")
    try:
        run.log_params(as_dict(params))
        history = fit(data, params, run, staging, out / "tensorboard")
        finish(data, params, run, staging, history)
        run.end()
    except BaseException:
        run.end("FAILED")
        raise
    for name in _OUTPUTS:
        (staging / name).replace(out / name)
    shutil.rmtree(staging)


def require_defined_auc(data: Processed) -> None:
    """Refuse data in which no finding has both a positive and a negative validation image: no epoch could be best."""
    labels = data.labels[(data.table["split"] == "val").to_numpy()]
    if all(np.isnan(auroc(labels[:, k], labels[:, k])) for k in range(labels.shape[1])):
        raise UserError(
            f"validation AUC is undefined: none of {', '.join(data.findings)} has both a positive and a negative "
            f"image among the {len(labels)} of val; more images, or another split.seed, are needed"
        )


def fit(data: Processed, params: Params, run: Run, folder: Path, boards: Path) -> dict[str, list[float]]:
    """Build, compile and fit the model; the best epoch is written to `folder/model.keras`.

    Returns
    -------
    dict
        Figure to its value after each epoch.
    """
    load_tensorflow()
    import keras
    import tensorflow as tf

    from pipeline.augment import build_augment
    from pipeline.callbacks import build_callbacks
    from pipeline.input_pipeline import training_batches

    keras.utils.set_random_seed(params.train.seed)
    if params.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(params.train.precision)
    strategy = build_strategy()
    steps = -(-len(data.rows("train")) // params.train.batch_size)
    with strategy.scope():
        model = compile_model(data, params, steps, strategy.num_replicas_in_sync)
    augment = build_augment(params.augment, params.train.seed) if params.augment.enabled else None
    batches = training_batches(data, params.train.batch_size, params.train.epochs, params.train.seed, augment)
    describe(data, params, strategy.num_replicas_in_sync, model)
    history = model.fit(
        batches,
        epochs=params.train.epochs,
        steps_per_epoch=steps,
        callbacks=build_callbacks(data, params.train, run, folder, boards),
        shuffle=False,  # the batches come shuffled
        verbose=0,
    )
    if np.isnan(history.history["val_auc"]).all():
        raise UserError("the loss became NaN in the first epoch: lower train.learning_rate, or train in float32")
    return {name: [float(value) for value in values] for name, values in history.history.items()}


def build_strategy() -> Any:
    """Return MirroredStrategy over all GPUs, or over the processor if there is none."""
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    return tf.distribute.MirroredStrategy([device.name for device in gpus] or ["/cpu:0"])


def compile_model(data: Processed, params: Params, steps: int, replicas: int) -> Any:
    """Build and compile the model for training; call it in the strategy's scope."""
    import keras
    import tensorflow as tf

    from pipeline.losses import build_loss
    from pipeline.model import build_model, prevalence_of

    labels = data.labels[(data.table["split"] == "train").to_numpy()]
    model = build_model(params.model, data.size, prevalence_of(labels), replicas)
    rate: Any = params.train.learning_rate
    if params.train.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, decay_steps=steps * params.train.epochs)
    # XLA on a processor is two to four times slower, and Keras would choose it.
    jit = "auto" if tf.config.list_physical_devices("GPU") else False
    model.compile(keras.optimizers.Adam(rate), build_loss(params.train), jit_compile=jit)
    return model


def describe(data: Processed, params: Params, replicas: int, model: Any) -> None:
    """Say in one line what is about to be trained, and on what."""
    counts = {name: len(data.rows(name)) for name in ("train", "val")}
    note(
        f"training {params.model.backbone} (weights {params.model.weights}, {model.count_params():,} parameters) on "
        f"{counts['train']} images of {data.size}x{data.size}, validating on {counts['val']}; {replicas} device(s), "
        f"{params.train.batch_size} images a step, {params.train.precision}"
    )


def finish(data: Processed, params: Params, run: Run, folder: Path, history: dict[str, list[float]]) -> None:
    """Write what belongs to the model, and log it with the model itself."""
    import keras
    import tensorflow as tf

    from pipeline.model import load_model

    best = int(np.nanargmax(history["val_auc"]))
    run.log_tags(
        {
            "code_version": code_version(),
            "dataset": str(data.meta["dataset"]),
            "protocol": str(data.meta["protocol"]),
            "manifest_sha256": str(data.meta["manifest_sha256"]),
            "splits_sha256": str(data.meta["splits_sha256"]),
        }
    )
    write_yaml(folder / "params.yaml", as_dict(params))
    write_json(
        folder / "training.json",
        {
            "best_epoch": best + 1,
            "epochs": len(history["val_auc"]),
            "val_auc": history["val_auc"][best],
            "model_sha256": sha256_file(folder / "model.keras"),
            "processed_sha256": sha256_file(data.folder / META),
            "findings": data.findings,
            "preprocess": data.meta["preprocess"],
            "versions": {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__},
            "code_version": code_version(),
            "mlflow": {"run_id": run.id, "uri": without_secrets(run.uri)},
        },
    )
    run.log_files(*(folder / name for name in ("history.csv", "params.yaml", "training.json")))
    run.log_metrics({"best_epoch": best + 1, "best_val_auc": history["val_auc"][best]})
    example = np.zeros((1, data.size, data.size, 1), np.uint8)
    run.log_model(load_model(folder / "model.keras"), example)
    note(f"best epoch {best + 1} of {len(history['val_auc'])}: validation AUC {history['val_auc'][best]:.4f}")
