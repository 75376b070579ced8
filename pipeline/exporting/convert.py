"""From a Keras network to the files of each format. Every graph has the input and the outputs of the manifest.

Imports TensorFlow: for the export only.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.exporting.manifest import FEATURES, INPUT, MAIN_FILE, PROBABILITIES
from pipeline.exporting.silence import silenced

OPSET = 18
"""Of ONNX, from December 2022: what runtimes of the last years read."""


def convert(name: str, network: Any, folder: Path, images: NDArray[np.uint8]) -> None:
    """Write one format into a folder.

    Parameters
    ----------
    name : {'saved_model', 'float16', 'int8', 'onnx'}
        The format.
    network : keras.Model
        Of `pipeline.exporting.network`: outputs probabilities and features, all in float32.
    folder : Path
        An empty folder.
    images : ndarray of shape (n, size, size, 1), dtype=uint8
        Training images, for the ranges of int8.
    """
    writers: dict[str, Callable[[], object]] = {
        "saved_model": lambda: write_saved_model(network, folder),
        "float16": lambda: (folder / MAIN_FILE["float16"]).write_bytes(float16_model(network)),
        "int8": lambda: (folder / MAIN_FILE["int8"]).write_bytes(int8_model(network, images)),
        "onnx": lambda: write_onnx(network, folder / MAIN_FILE["onnx"]),
    }
    with silenced():
        writers[name]()


def write_saved_model(network: Any, folder: Path) -> None:
    """Write a SavedModel whose variables are saved once.

    Keras's own `export` stores each twice, once for its layers and once for the exported function. Here the function
    is saved with nothing but the variables that it reads.
    """
    function = serving_function(network, None)
    module = tf.Module()
    module.function = function
    module.variables_read = list(function.get_concrete_function().variables)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": function})


def write_onnx(network: Any, path: Path) -> None:
    """Write an ONNX model, checked by ONNX's own checker; the size of the batch is free."""
    import onnx
    import tf2onnx

    function = serving_function(network, None)
    model, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=OPSET)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)


def float16_model(network: Any) -> bytes:
    """Return a LiteRT model whose weights are float16; it computes in float32 where the processor does."""
    converter = _converter(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    return bytes(converter.convert())


def int8_model(network: Any, images: NDArray[np.uint8]) -> bytes:
    """Return a LiteRT model that computes in 8-bit integers, with weights scaled by channel.

    The head, a matrix of a few thousand weights, stays float32. Quantised, its sigmoid could give 256 values only, in
    steps of 1/256: images would tie, and a rare finding, whose probabilities are all small, would have few values left.
    TensorFlow's converter can leave operations out between its calibration and its quantisation.
    """
    from tensorflow.lite.python.convert import mlir_quantize

    converter = _converter(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: _one_by_one(images)
    converter._experimental_calibrate_only = True
    calibrated = bytes(converter.convert())
    return bytes(mlir_quantize(calibrated, denylisted_nodes=head_operations(calibrated)))


def head_operations(model: bytes) -> set[str]:
    """Return the names of the operations between features and probabilities of a LiteRT model.

    A fused operation has the names of its parts, with semicolons between them; all are returned.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model)
    outputs = interpreter.get_signature_runner().get_output_details()
    names = {item["index"]: item["name"] for item in interpreter.get_tensor_details()}
    maker = {index: each for each in interpreter._get_ops_details() for index in each["outputs"]}
    found, wanted = set(), [outputs[PROBABILITIES]["index"]]
    while wanted:
        index = wanted.pop()
        if index in maker and index != outputs[FEATURES]["index"]:
            found |= {names[index], *names[index].split(";")}
            wanted += [source for source in maker[index]["inputs"] if source >= 0]
    return found


def serving_function(network: Any, batch: int | None) -> Any:
    """Return a TensorFlow function from the named input to the named outputs; batch None is any size."""
    shape = tf.TensorSpec((batch, *network.inputs[0].shape[1:]), tf.uint8, name=INPUT)

    @tf.function(input_signature=[shape], autograph=False)  # type: ignore[untyped-decorator]
    def serve(image: Any) -> dict[str, Any]:
        probabilities, features = network(image, training=False)
        return {PROBABILITIES: probabilities, FEATURES: features}

    return serve


def _converter(network: Any) -> Any:
    function = serving_function(network, 1).get_concrete_function()
    module = tf.Module()
    module.variables_read = list(function.variables)
    return tf.lite.TFLiteConverter.from_concrete_functions([function], module)


def _one_by_one(images: NDArray[np.uint8]) -> Iterator[list[NDArray[np.uint8]]]:
    for image in images:
        yield [image[None]]
