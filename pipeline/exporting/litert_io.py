"""The tensors of a LiteRT model by name, and the quantisation of its input and outputs."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.exporting.manifest import FEATURES, PROBABILITIES


class Tensors:
    """Input and outputs of an allocated interpreter for one image.

    Parameters
    ----------
    interpreter : ai_edge_litert.interpreter.Interpreter
        Of a model with one signature, whose outputs have the names of `pipeline.exporting.manifest`.
    """

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        self._input = interpreter.get_input_details()[0]["index"]
        # Its names are those of the graph; a call through the runner itself would allocate all tensors each time.
        outputs = interpreter.get_signature_runner().get_output_details()
        self._outputs = [outputs[name] for name in (PROBABILITIES, FEATURES)]

    def run(self, image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Return probabilities (1, n_findings) and features (1, n_features) of uint8 (1, height, width, 1)."""
        self._interpreter.set_tensor(self._input, image)
        self._interpreter.invoke()
        return [self._value(item) for item in self._outputs]

    def _value(self, item: dict[str, Any]) -> NDArray[np.float32]:
        value = self._interpreter.get_tensor(item["index"])
        if value.dtype == np.float32:
            return np.asarray(value)
        scale, zero = item["quantization"]
        return np.asarray((value.astype(np.float32) - np.float32(zero)) * np.float32(scale))
