"""What runs an exported model: Keras, TensorFlow's SavedModel, LiteRT or ONNX Runtime, behind one call.

Each takes uint8 (n, height, width, 1) and returns `Outputs`. The libraries are imported when a model is opened.
"""

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError
from pipeline.exporting.manifest import FEATURES, INPUT, MAIN_FILE, PROBABILITIES

Images = NDArray[np.uint8]
Floats32 = NDArray[np.float32]


class Outputs(NamedTuple):
    """What a model gives for n images."""

    probabilities: Floats32
    """Raw, shape (n, n_findings), in [0, 1]."""
    features: Floats32
    """Pooled, before the head; shape (n, n_features)."""


class Engine(Protocol):
    """A model that is ready to run; several threads may call it."""

    def __call__(self, images: Images) -> Floats32:
        """Return raw probabilities (n, n_findings) of uint8 (n, height, width, 1)."""

    def outputs(self, images: Images) -> Outputs:
        """Return probabilities and features in one pass."""


class _Runtime:
    """An engine around a function of a batch."""

    def __init__(self, run: Callable[[Images], Outputs]) -> None:
        self._run = run

    def __call__(self, images: Images) -> Floats32:
        return self._run(images).probabilities

    def outputs(self, images: Images) -> Outputs:
        return self._run(images)


def open_runtime(folder: Path, kind: str, threads: int | None) -> Engine:
    """Open the exported model of a folder whose hashes were checked; `threads` None leaves it to the library."""
    openers = {"saved_model": _saved_model, "float16": _litert, "int8": _litert, "onnx": _onnx}
    path = folder if kind == "saved_model" else folder / MAIN_FILE[kind]
    try:
        return _Runtime(openers[kind](path, threads))
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"{path} needs a package that is missing ({error.name}): run `make setup`") from None
    except Exception as error:  # each library has errors of its own for a file that it cannot read
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be opened ({reason}): run `cxr export` again") from None


def open_keras(path: Path, threads: int | None) -> Engine:
    """Open a trained model as `evaluate` runs it."""
    from pipeline.quiet import load_tensorflow

    load_tensorflow()
    _set_threads(threads)
    from pipeline.exporting.network import with_features
    from pipeline.model import load_model

    return keras_engine(with_features(load_model(path)))


def keras_engine(model: Any) -> Engine:
    """Return the engine of a Keras model of the outputs (probabilities, features)."""
    import tensorflow as tf

    shape = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.uint8)
    function = tf.function(lambda images: model(images, training=False), input_signature=[shape], autograph=False)

    def run(images: Images) -> Outputs:
        probabilities, features = function(tf.constant(images))
        return Outputs(np.asarray(probabilities, np.float32), np.asarray(features, np.float32))

    return _Runtime(run)


def _set_threads(threads: int | None) -> None:
    """Set TensorFlow's threads, which it allows before its first computation only."""
    import tensorflow as tf

    if threads is None:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        from pipeline.progress import warn

        warn(f"TensorFlow runs already, with the threads it has; {threads} could not be set")


def _saved_model(folder: Path, threads: int | None) -> Callable[[Images], Outputs]:
    from pipeline.quiet import load_tensorflow

    load_tensorflow()
    _set_threads(threads)
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures["serving_default"]

    def run(images: Images, _kept: Any = loaded) -> Outputs:  # a signature alone does not keep its variables
        found = signature(**{INPUT: tf.constant(images)})
        return Outputs(found[PROBABILITIES].numpy(), found[FEATURES].numpy())

    return run


def _litert(path: Path, threads: int | None) -> Callable[[Images], Outputs]:
    """Run image by image, one call at a time: an interpreter has one set of tensors."""
    from ai_edge_litert.interpreter import Interpreter

    from pipeline.exporting.litert_io import Tensors
    from pipeline.exporting.silence import silenced

    with silenced():  # it says on stderr that it computes on the processor
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
    tensors, alone = Tensors(interpreter), Lock()

    def run(images: Images) -> Outputs:
        with alone:
            rows = [tensors.run(image[None]) for image in images]
        return Outputs(*(np.concatenate(column) for column in zip(*rows, strict=True)))

    return run


def _onnx(path: Path, threads: int | None) -> Callable[[Images], Outputs]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: as many as there are cores
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: Images) -> Outputs:
        return Outputs(*session.run([PROBABILITIES, FEATURES], {INPUT: np.ascontiguousarray(images)}))

    return run
