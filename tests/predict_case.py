"""A model whose outputs can be worked out by hand, and films of one gray, for the tests of prediction."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.exported import Manifest, Outputs
from pipeline.gate import Verdict
from pipeline.params import PreprocessParams

FINDINGS = ("Effusion", "Mass", "Hernia")
PLAIN: dict[str, Any] = {"method": "none", "parameters": {}}
MANIFEST = Manifest(
    format="int8",
    files={},
    model_sha256="ab" * 32,
    findings=FINDINGS,
    preprocess=PreprocessParams(size=32, clahe=False),
    calibration={
        "method": "temperature",
        "findings": {
            "Effusion": PLAIN,
            "Mass": {"method": "temperature", "parameters": {"temperature": 2.0}},
            "Hernia": PLAIN,
        },
    },
    operating_points={
        "Effusion": {"youden": 0.5, "sensitivity": 0.9},
        "Mass": {"youden": 0.4, "sensitivity": None},
        "Hernia": {"youden": None, "sensitivity": None},
    },
    flip=False,
    versions={},
    training={},
    title="by hand",
)


class MeanEngine:
    """Gives the mean gray, half of it, and what is missing to white, each of 0 to 1."""

    def outputs(self, images: NDArray[np.uint8]) -> Outputs:
        mean = images.reshape(len(images), -1).mean(axis=1) / 255
        raw = np.stack([mean, mean / 2, 1 - mean], axis=1).astype(np.float32)
        return Outputs(raw, np.outer(mean, np.arange(1, 7)).astype(np.float32))

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.outputs(images).probabilities


class BrightnessGate:
    """Flags what is dark."""

    def judge(self, images: NDArray[np.uint8], _features: Any, _films: Any) -> list[Verdict]:
        dark = images.reshape(len(images), -1).mean(axis=1) < 32
        return [Verdict(not bad, ("no-film",) if bad else (), {"pattern": 2.0 if bad else 0.5}) for bad in dark]


def brightness_gate() -> Any:
    """Return a gate that flags films of a mean gray below 32."""
    return BrightnessGate()


def png(gray: int, shape: tuple[int, int] = (72, 80)) -> bytes:
    """Return a film of one gray."""
    buffer = io.BytesIO()
    Image.fromarray(np.full(shape, gray, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
