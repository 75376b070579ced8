"""What tests/test_cluster.py starts as processes: trainings of one small network on several devices or workers.

cluster_worker.py mirrored PROCESSED FOLDER     two logical processors and one, in one process
cluster_worker.py worker PROCESSED FOLDER       one of the workers that TF_CONFIG names; worker 1 dies in the end
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.params import Params
from pipeline.params_file import parse_params
from pipeline.quiet import load_tensorflow
from pipeline.shards import Processed, open_processed

EPOCHS, WORKERS = 2, 2


def params_of(batch: int, cluster: str = "none", **training: object) -> Params:
    train = {"batch_size": batch, "seed": 3, "cluster": cluster, **training}
    return parse_params({"preprocess": {"size": 32}, "optimizer": {"learning_rate": 1e-2}, "train": train}, "the test")


def network() -> Any:
    import keras

    def convolution(filters: int, x: Any) -> Any:
        x = keras.layers.Conv2D(filters, 3, strides=2, use_bias=False)(x)
        return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.8, synchronized=True)(x))

    inputs = keras.Input((32, 32, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(convolution(8, convolution(4, x)))
    return keras.Model(inputs, keras.layers.Dense(6, activation="sigmoid")(x))


def build(place: Any, params: Params) -> Any:
    import keras

    from pipeline.training.losses import build_loss, reported_loss
    from pipeline.training.optimizers import build_optimizer

    keras.utils.set_random_seed(params.train.seed)
    with place.strategy.scope():
        model = network()
        loss = build_loss(params.loss, share=place.replicas / params.train.batch_size)
        metrics = [reported_loss(loss), keras.metrics.AUC(multi_label=True, num_labels=6, name="auc")]
        optimizer = build_optimizer(params.optimizer, params.optimizer.learning_rate)
        model.compile(optimizer, loss, metrics=metrics, jit_compile=False)
        model.optimizer.build(model.trainable_variables)
    return model


def fit(model: Any, batches: Any, steps: int, epochs: int = EPOCHS, callbacks: Any = ()) -> dict[str, Any]:
    history = model.fit(
        batches, steps_per_epoch=steps, epochs=epochs, callbacks=list(callbacks), shuffle=False, verbose=0
    )
    return history.history


def write(folder: Path, name: str, model: Any, history: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{name}.npz", *model.get_weights())
    write_json(folder / f"{name}.json", history)


def mirrored(processed: Path, folder: Path) -> None:
    """Train on two logical processors, on one, and on one with the batches of two workers put together."""
    import tensorflow as tf

    from pipeline.input_pipeline import steps_per_epoch, training_batches
    from pipeline.training.cluster import Place, place_of

    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
    data = open_processed(processed)
    one = Place(tf.distribute.MirroredStrategy(["/cpu:0"]), 0, 1, 1)
    two = place_of(params_of(8).train)
    write_json(folder / "places.json", {"two": two.replicas, "workers": two.workers, "chief": two.chief})
    params = params_of(8)
    for name, place in (("one", one), ("two", two)):
        model = build(place, params)
        batches = training_batches(data, params, None, EPOCHS)
        write(folder, name, model, fit(model, batches, steps_per_epoch(data, params)))
    params = params_of(6)
    model = build(one, params)
    write(folder, "together", model, fit(model, together(data, params), steps_per_epoch(data, params, WORKERS)))


def together(data: Processed, params: Params) -> Any:
    """Return the batches of all workers, put together step by step."""
    import tensorflow as tf

    from pipeline.input_pipeline import training_batches

    parts = [training_batches(data, params, None, EPOCHS, worker=k, workers=WORKERS) for k in range(WORKERS)]
    return tf.data.Dataset.zip(tuple(parts)).map(
        lambda *pairs: tuple(tf.concat(columns, axis=0) for columns in zip(*pairs, strict=True))
    )


def worker(processed: Path, folder: Path) -> None:
    """Train as one of several; then once more, and worker 1 is killed in its second epoch."""
    import keras

    from pipeline.input_pipeline import steps_per_epoch, training_batches
    from pipeline.training.cluster import one_line_if_lost, place_of
    from pipeline.training.keras_workers import chiefs, mended, own_batches

    data, params = open_processed(processed), params_of(6, "tf_config")
    keras.utils.set_random_seed(params.train.seed)
    place = place_of(params.train, {"processed images": "the same"}, 120)
    steps = steps_per_epoch(data, params, place.workers)

    def batches() -> Any:
        mine = training_batches(data, params, None, EPOCHS, worker=place.worker, workers=place.workers)
        return own_batches(mine, place)

    with one_line_if_lost():
        model = build(place, params)
        facts: dict[str, Any] = {"worker": place.worker, "replicas": place.replicas, "chief": place.chief}
        facts["sigterm_caught"] = caught(signal.SIGTERM)
        facts["unmended"] = failures(build(place, params), batches, steps)
        history = fit(mended(model, place), batches(), steps)
        write(folder / f"worker-{place.worker}", "fit", model, history)
        facts["chiefs"] = chiefs(np.array([place.worker + 0.25, 7.0]), place).tolist()
        if place.chief:
            model.save(folder / "model.keras")
        write_json(folder / f"worker-{place.worker}" / "facts.json", facts)
        fit(model, batches(), steps, callbacks=[death_of(place.worker == 1)])
    raise AssertionError("the second training must not end")


def failures(model: Any, batches: Callable[[], Any], steps: int) -> list[str]:
    """Return how Keras' own `fit` fails, and how it does where the first fault is mended; empty where it does not."""
    found = []
    for _ in range(2):
        try:
            fit(model, batches(), steps, epochs=1)
            found.append("")
        except ValueError as error:
            found.append(" ".join(str(error).split()))
        model._maybe_symbolic_build = lambda *_args, **_kwargs: None
    return found


def caught(number: signal.Signals) -> bool:
    """Say whether something in this process, not only in Python, handles a signal (proc(5), SigCgt)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def death_of(mine: bool) -> Any:
    """Return a callback that kills this process in the middle of the second epoch, if it is the one to die."""
    import keras

    class Death(keras.callbacks.Callback):
        epoch = 0

        def on_epoch_begin(self, epoch: int, *_logs: Any) -> None:
            self.epoch = epoch

        def on_train_batch_end(self, batch: int, **_logs: Any) -> None:
            if mine and (self.epoch, batch) == (1, 2):
                os.kill(os.getpid(), signal.SIGKILL)

    return Death()


if __name__ == "__main__":
    load_tensorflow()
    try:
        {"mirrored": mirrored, "worker": worker}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    except UserError as wrong:
        print(f"error: {wrong}", file=sys.stderr)
        raise SystemExit(1) from None
