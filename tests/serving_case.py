"""A real server on a free loopback port, in a thread, around a model whose outputs can be worked out by hand."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from numpy.typing import NDArray
from PIL import Image

from pipeline.exported import Exported, Manifest, Outputs
from pipeline.gate import Verdict
from pipeline.params import PreprocessParams, ServeParams
from pipeline.predicting import Predictor
from pipeline.serve import bound, server_config
from pipeline.serving.app import build_app
from pipeline.serving.door import Door
from pipeline.serving.pictures import MapMaker
from pipeline.serving.service import Maps, Service

FINDINGS = ("Effusion", "Mass", "Pleural_Thickening")
MANIFEST = Manifest(
    format="int8",
    files={},
    model_sha256="ab" * 32,
    findings=FINDINGS,
    preprocess=PreprocessParams(size=32, clahe=False),
    calibration={"method": "none", "findings": {name: {"method": "none", "parameters": {}} for name in FINDINGS}},
    operating_points={"Effusion": {"youden": 0.5}, "Mass": {"youden": 0.75}, "Pleural_Thickening": {"youden": None}},
    flip=False,
    versions={},
    training={"mlflow": {"run_id": "r"}, "seed": 7},
    title="Simulated <films> & more",
)
PARAMS = ServeParams(port=0, threads=2, stop_s=20.0)


class MeanEngine:
    """Gives each finding a known function of the mean of the pixels; may be held up until it is let go."""

    def __init__(self) -> None:
        self.go, self.calls, self.sizes = threading.Event(), threading.Semaphore(0), []
        self.go.set()

    def outputs(self, images: NDArray[np.uint8]) -> Outputs:
        self.sizes.append(len(images))
        self.calls.release()
        assert self.go.wait(60)
        mean = images.reshape(len(images), -1).mean(axis=1) / 255
        if (images == 13).all(axis=(1, 2, 3)).any():
            raise RuntimeError("patient DOE^JANE")  # a fault whose words must not come out
        raw = np.stack([mean, mean / 2, 1 - mean], axis=1).astype(np.float32)
        return Outputs(raw, np.zeros((len(images), 4), np.float32))

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.outputs(images).probabilities


class DarkGate:
    """Flags what is dark."""

    def judge(self, images: NDArray[np.uint8], _features: Any, _facts: Any) -> list[Verdict]:
        dark = images.reshape(len(images), -1).mean(axis=1) < 32
        return [Verdict(not bad, ("no-film",) if bad else (), {"film": 2.0 if bad else 0.5}) for bad in dark]


class SquareMaps(MapMaker):
    """Gives the first finding a map of two places a side, the others none."""

    def __call__(self, data: bytes, max_pixels: int) -> dict[str, Any]:
        assert data
        assert max_pixels
        maps: dict[str, Any] = dict.fromkeys(FINDINGS)
        return {
            "layer": "backbone",
            "fit": "stretch",
            "width": 80,
            "height": 72,
            "maps": maps | {"Effusion": [[0, 0.25], [0.5, 1]]},
        }


@dataclass
class Live:
    """A server that listens."""

    url: str
    port: int
    engine: MeanEngine
    service: Service
    server: uvicorn.Server
    thread: threading.Thread

    def post(self, *films: bytes, path: str = "/v1/predict", **options: Any) -> httpx.Response:
        files = [("files", ("film", film)) for film in films]
        return httpx.post(self.url + path, files=files, timeout=60, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60, **options)

    def stop(self) -> None:
        self.engine.go.set()
        self.server.should_exit = True
        self.thread.join(60)
        assert not self.thread.is_alive()


@contextmanager
def live(
    params: ServeParams = PARAMS,
    *,
    token: str = "",
    gate: Any = None,
    maps: bool = False,
    log: Any = None,
    card: Path = Path("none"),
    predictors: list[Predictor] | None = None,
    **changes: Any,
) -> Iterator[Live]:
    """Serve until the block ends; `changes` are parameters."""
    params, engine = replace(params, **changes), MeanEngine()
    if predictors is None:
        one = Predictor(Exported(MANIFEST, engine, Path()), gate, max_pixels=params.max_megapixels * 1_000_000)
        predictors = [one] * params.threads
    drawn = Maps(SquareMaps(Path(), MANIFEST), "") if maps else Maps(None, "there is no Keras model")
    service = Service(predictors, params, drawn, log)
    app = build_app(service, Door(token, params.hosts), card, token=bool(token))
    listener = bound(params)
    port = int(listener.getsockname()[1])
    server = uvicorn.Server(server_config(app, params))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    found = Live(f"http://127.0.0.1:{port}", port, engine, service, server, thread)
    try:
        yield found
    finally:
        found.stop()


def png(level: int, shape: tuple[int, int] = (72, 80)) -> bytes:
    """Return a film of one gray level."""
    buffer = io.BytesIO()
    Image.fromarray(np.full(shape, level, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
