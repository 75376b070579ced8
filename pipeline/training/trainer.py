"""The phases of a training, one after the other. Imports TensorFlow: for the training process only."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.augment import build_augment
from pipeline.errors import UserError
from pipeline.input_pipeline import rows_of_batch, steps_per_epoch, training_batches
from pipeline.model import save_model
from pipeline.params import Params
from pipeline.progress import note
from pipeline.scoring_input import predict
from pipeline.shards import Processed
from pipeline.training.callbacks import ExactAuc, Log, Memory, StopAtNaN, names_of
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.cluster import Place, place_of
from pipeline.training.features import feature_batches, head_of, pooled_features, rows_of_feature_batch
from pipeline.training.fit import History
from pipeline.training.fused_norm import plain
from pipeline.training.holding import describe_hold
from pipeline.training.keras_workers import chiefs, mended, own_batches
from pipeline.training.losses import build_loss, reported_loss
from pipeline.training.network import build_model, prevalence_of
from pipeline.training.optimizers import averaged_weights, penalise, scaled_rate
from pipeline.training.phases import Phase, plan, prepare
from pipeline.training.progress_bar import ProgressBar
from pipeline.training.resume import key_of
from pipeline.training.state import KeptState

_ADVICE = (
    "lower optimizer.learning_rate, set optimizer.clip_norm, or train in float32, and run again (the step before may "
    "have spoilt the weights)"
)
_WHAT = {"all": "training", "head": "training the head", "backbone": "training the backbone"}


class Trainer:
    """Everything of one training.

    Parameters
    ----------
    data, params, log, boards, label
        As in `pipeline.training.fit.fit`.
    folder : Path
        Of the checkpoints: where it goes on, and where it keeps its state.

    Attributes
    ----------
    place : Place
        On what devices, and which worker this is.
    network : keras.Model
        The network that is trained.
    checkpoints : Checkpoints
        What is in `folder`.
    """

    def __init__(self, data: Processed, params: Params, log: Log, folder: Path, boards: Path, label: str) -> None:
        self._data, self._params, self._log, self._boards, self._label = data, params, log, boards, label
        self.place = place_of(params.train, {"parameters, images or code": key_of(data, params)[:12]})
        set_up(params)
        # Only now: in a cluster all workers have met, and the chief has cleared what is no longer of use.
        self.checkpoints = Checkpoints(folder, writes=self.place.chief)
        self._labels = data.labels[(data.table["split"] == "train").to_numpy()]
        self._steps = steps_per_epoch(data, params, self.place.workers)
        with self.place.strategy.scope():
            fused = params.train.fused
            prevalence = prevalence_of(self._labels)
            self.network = build_model(params.model, data.size, prevalence, self.place.replicas, fused=fused)
        # Made before anything is frozen: what is frozen, which changes with the phase, would stand in the file.
        self._twin = plain(self.network)
        with self.place.strategy.scope():
            penalise(self.network, params.optimizer)
            self._state = KeptState(self.network, self.checkpoints, self._save)
        require_same_epoch(self._state.epochs, self.place)
        describe(data, params, self.place, self.network)

    def run(self) -> History:
        """Train what is left to train; return the figures of all epochs."""
        if self._state.epochs:
            note(f"going on after epoch {self._state.epochs}")
        for phase in plan(self._params, self.place.workers):
            if self._state.epochs < phase.end and not self._state.stopped:
                self._run(phase)
        return self._state.history

    def _run(self, phase: Phase) -> None:
        with self.place.strategy.scope():
            optimizer = prepare(self.network, phase, self._params, self._steps)
            model, score = self.network, self._score
            if phase.cached:
                model, score, batches = self._from_features(phase)
            share = self.place.replicas / self._params.train.batch_size
            loss = build_loss(self._params.loss, self._labels, share)
            model.compile(optimizer, loss, metrics=[reported_loss(loss)], jit_compile=use_xla(self._params))
            build_measures(model, self._labels.shape[1])
            optimizer.build(model.trainable_variables)
            self._state.enter(phase.name, optimizer)
        if not phase.cached:
            batches = self._batches(phase)
        bar = self._bar(phase)
        try:
            mended(model, self.place).fit(
                own_batches(batches, self.place),
                initial_epoch=self._state.epochs,
                epochs=phase.end,
                steps_per_epoch=self._steps,
                callbacks=self._callbacks(phase, score, bar),
                shuffle=False,  # the batches come shuffled
                verbose=0,
            )
        finally:
            bar.close()  # Keras does not say that a training broke off

    def _batches(self, phase: Phase) -> Any:
        """Return batches of images from the epoch on that is the next; the head alone sees them as they are."""
        params, place = self._params, self.place
        changed = params.augment.enabled and (phase.name != "head" or params.finetune.head_augment)
        augment = build_augment(params.augment, params.train.seed) if changed else None
        return training_batches(
            self._data, params, augment, phase.end, self._state.epochs, worker=place.worker, workers=place.workers
        )

    def _from_features(self, phase: Phase) -> tuple[Any, Callable[..., NDArray[np.float32]], Any]:
        """Return the head as a model of its own, how it is scored, and its batches."""
        note("computing the frozen backbone's features, once")
        batch = self._params.train.batch_size
        features = {name: pooled_features(self.network, self._data, name, batch) for name in ("train", "val")}
        head = head_of(self.network)
        batches = feature_batches(features["train"], self._labels, self._params, phase.end, self._state.epochs)

        def score(split: str, count: int | None = None) -> NDArray[np.float32]:
            return np.asarray(head.predict(features[split][:count], batch_size=batch, verbose=0), np.float32)

        return head, score, batches

    def _score(self, split: str, count: int | None = None) -> NDArray[np.float32]:
        """Return probabilities of the network as it would be saved."""
        with averaged_weights(self.network):
            return predict(self._scored(), self._data, split, self._params.train.batch_size, count)

    def _scored(self) -> Any:
        """Return the network, or in a cluster a copy of this worker's own: every worker scores all the images."""
        return self.network if self.place.workers == 1 else self._stock()

    def _stock(self) -> Any:
        """Return the network in stock Keras layers, with the weights of now."""
        self._twin.set_weights(self.network.get_weights())
        return self._twin

    def _save(self, path: Path) -> None:
        """Write the network in stock Keras layers."""
        with averaged_weights(self.network):  # not compiled while the head learns from features: as it is
            save_model(self._stock(), path)

    def _bar(self, phase: Phase) -> ProgressBar:
        best = max((value for value in self._state.history.get("val_auc", []) if value == value), default=np.nan)
        images, epochs = len(self._data.rows("train")), phase.end - phase.first
        return ProgressBar(images, epochs, _WHAT[phase.name], first=phase.first, best=best)

    def _callbacks(self, phase: Phase, score: Callable[..., NDArray[np.float32]], bar: ProgressBar) -> list[Any]:
        """Return the callbacks in the order in which they must run."""
        params, chief = self._params, self.place.chief
        data, best = self._data, {"monitor": "val_auc", "mode": "max"}
        measured = build_loss(params.loss, self._labels)
        watched: dict[str, Any] = {}
        if phase.name != "head":
            watched["stop"] = keras.callbacks.EarlyStopping(patience=params.train.stop_patience, **best)
        if phase.name != "head" and params.schedule.name == "plateau":
            plateau = {"factor": params.schedule.factor, "patience": params.schedule.patience}
            watched["plateau"] = keras.callbacks.ReduceLROnPlateau(**plateau, **best)
        log = self._log if chief else _no_log
        shown = [bar, keras.callbacks.TensorBoard(str(self._boards), write_graph=False)] if chief else []
        return [
            StopAtNaN(self._images_of_features if phase.cached else self._images_of, _ADVICE),
            ExactAuc(data, score, measured, params.train.auc_images, log, self._label, self._agreed),
            *shown,
            *watched.values(),
            Memory(self._state, watched),
        ]

    def _agreed(self, figures: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the chief's figures: what rests on them, such as to stop, must be the same in every worker."""
        return chiefs(figures, self.place)

    def _images_of(self, epoch: int, step: int) -> list[str]:
        """Return the identifiers of the images of a batch."""
        place = self.place
        rows = rows_of_batch(self._data, self._params, epoch, step, worker=place.worker, workers=place.workers)
        return names_of(self._data, rows.tolist())

    def _images_of_features(self, epoch: int, step: int) -> list[str]:
        """Return the same for a batch of features."""
        among = rows_of_feature_batch(self._labels, self._params, epoch, step)
        return names_of(self._data, self._data.rows("train")["row"].to_numpy(int)[among].tolist())


def require_same_epoch(epochs: int, place: Place) -> None:
    """Refuse to go on if the workers of a cluster do not find the same checkpoint."""
    if place.workers > 1 and epochs != chiefs(np.array([float(epochs)]), place)[0]:
        raise UserError(
            f"worker {place.worker} finds {epochs} finished epochs in the folder of models, the chief another number; "
            "all workers must see the same folder (docs/cluster.md)"
        )


def set_up(params: Params) -> None:
    """Set seeds, determinism and precision for this process; call it before the network is built."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(params.train.seed)
    if params.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(params.train.precision)


def build_measures(model: Any, findings: int) -> None:
    """Let loss and metrics make their variables now: before the first step Keras would run all the network for that."""
    labels, probabilities = np.zeros((1, findings), np.float32), np.full((1, findings), 0.5, np.float32)
    model.compute_loss(y=labels, y_pred=probabilities)
    model.compute_metrics(None, labels, probabilities)
    model.reset_metrics()


def use_xla(params: Params) -> bool:
    """Say whether the step is compiled: on GPUs, if asked; on a processor that is two to four times slower."""
    return params.train.xla and bool(tf.config.list_physical_devices("GPU"))


def describe(data: Processed, params: Params, place: Place, network: Any) -> None:
    """Say what is about to be trained, and on what."""
    counts = {name: len(data.rows(name)) for name in ("train", "val")}
    train, rate = params.train, scaled_rate(params.optimizer, params.train.batch_size)
    xla = "on" if use_xla(params) else "off"
    scaled = f" (scaled from {params.optimizer.learning_rate:g})" if params.optimizer.reference_batch else ""
    note(
        f"training {params.model.backbone} (weights {params.model.weights}, {network.count_params():,} parameters) on "
        f"{counts['train']} images of {data.size}x{data.size}, validating on {counts['val']}; "
        f"{describe_hold(data, params, place.worker, place.workers)}"
    )
    note(
        f"{place.replicas} device(s) of {place.workers} worker(s), {train.batch_size} images a step over all, "
        f"{params.optimizer.name} at {rate:g}{scaled}, {train.precision}"
        f"{' with loss scaling' if train.precision == 'mixed_float16' else ''}, XLA {xla}"
    )


def _no_log(_figures: dict[str, float], _epoch: int) -> None:
    """Log nothing: only the chief does."""
