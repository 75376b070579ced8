"""One training: the model, its optimizer and its data under tf.distribute, from one seed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.params import Params
from pipeline.progress import note
from pipeline.quiet import load_tensorflow
from pipeline.shards import Processed

LogMetrics = Callable[[dict[str, float], int], None]


def fit(
    data: Processed, params: Params, log: LogMetrics, folder: Path, boards: Path, label: str = ""
) -> dict[str, list[float]]:
    """Build, compile and fit the model; the best epoch is written to `folder/model.keras`.

    Parameters
    ----------
    data, params
        As in `train`; the numbers depend on them alone.
    log : callable
        Takes the figures and the number of each epoch.
    folder, boards : Path
        Where the model and its history, and where TensorBoard's files go.
    label : str
        See `pipeline.training.callbacks.ExactAuc`.

    Returns
    -------
    dict
        Figure to its value after each epoch.
    """
    load_tensorflow()
    import keras
    import tensorflow as tf

    from pipeline.augment import build_augment
    from pipeline.input_pipeline import training_batches
    from pipeline.training.callbacks import build_callbacks

    keras.utils.clear_session()
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
        callbacks=build_callbacks(data, params, log, folder, boards, label),
        shuffle=False,  # the batches come shuffled
        verbose=0,
    )
    if np.isnan(history.history["val_auc"]).all():
        raise UserError(
            f"seed {params.train.seed}: the loss became NaN in the first epoch: lower optimizer.learning_rate, or "
            "train in float32"
        )
    return {name: [float(value) for value in values] for name, values in history.history.items()}


def fit_elsewhere(
    send: LogMetrics, data: Processed, params: Params, folder: Path, boards: Path, label: str
) -> dict[str, list[float]]:
    """Do what `fit` does, with the arguments in the order of `pipeline.own_process.call_in_own_process`."""
    return fit(data, params, send, folder, boards, label)


def build_strategy() -> Any:
    """Return MirroredStrategy over all GPUs, or over the processor if there is none."""
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    return tf.distribute.MirroredStrategy([device.name for device in gpus] or ["/cpu:0"])


def compile_model(data: Processed, params: Params, steps: int, replicas: int) -> Any:
    """Build and compile the model for training; call it in the strategy's scope."""
    import keras
    import tensorflow as tf

    from pipeline.training.losses import build_loss
    from pipeline.training.network import build_model, prevalence_of

    labels = data.labels[(data.table["split"] == "train").to_numpy()]
    model = build_model(params.model, data.size, prevalence_of(labels), replicas)
    rate: Any = params.optimizer.learning_rate
    if params.schedule.name == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, decay_steps=steps * params.train.epochs)
    # XLA on a processor is two to four times slower, and Keras would choose it.
    jit = "auto" if tf.config.list_physical_devices("GPU") else False
    model.compile(keras.optimizers.Adam(rate), build_loss(params.loss), jit_compile=jit)
    return model


def describe(data: Processed, params: Params, replicas: int, model: Any) -> None:
    """Say in one line what is about to be trained, and on what."""
    counts = {name: len(data.rows(name)) for name in ("train", "val")}
    note(
        f"training {params.model.backbone} (weights {params.model.weights}, {model.count_params():,} parameters) on "
        f"{counts['train']} images of {data.size}x{data.size}, validating on {counts['val']}; {replicas} device(s), "
        f"{params.train.batch_size} images a step, {params.train.precision}"
    )
