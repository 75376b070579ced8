"""`cxr serve`: the model behind HTTP on this machine, with a page to read films. docs/serving.md explains it."""

import dataclasses
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UserError
from pipeline.parallel import use_one_thread
from pipeline.params import Params, ServeParams
from pipeline.progress import is_quiet, note, warn
from pipeline.serving.door import Door, is_loopback, read_token

if TYPE_CHECKING:
    import uvicorn

    from pipeline.serving.service import AnswerLog, Service

LOG_URL = "CXR_LOG_URL"
"""The variable that names the prediction log where its address holds a password; it wins over `serve.log`."""
_MAX_HEADER = 16384  # bytes of a request's line and headers


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the server finds what it serves.

    Attributes
    ----------
    model : Path
        An exported folder of one format, the folder of all (then int8), or a `model.keras`.
    explain : Path
        The `model.keras` for heat maps; they are left out if it is missing or another's.
    reports : Path
        The folder with `model_card.json`.
    token_file : Path or None
        A file that holds the token; None: see `pipeline.serving.door.read_token`.
    """

    model: Path
    explain: Path
    reports: Path
    token_file: Path | None = None


def serve(places: Places, params: Params) -> None:
    """Open the model, listen, and answer until the process is told to stop.

    Parameters
    ----------
    places : Places
        Model, Keras model for heat maps, model card, token.
    params : Params
        Sections `serve`: how it listens and what it takes; and `log`: how answers are noted, where `serve.log` (or
        CXR_LOG_URL in the environment) names a prediction log.

    Raises
    ------
    UserError
        If the model or the log cannot be opened, the token is no good, the address is not free, or others than this
        machine could ask without a token.
    """
    from pipeline.serving.app import build_app

    token = read_token(places.token_file)
    check_reach(params.serve, token)
    with bound(params.serve) as listener:
        use_one_thread()
        service = open_service(places, params.serve, described=bool(_log_address(params)))
        door, card = Door(token, params.serve.hosts), places.reports / "model_card.json"
        with answer_log(params, service) as service.log:
            app = build_app(service, door, card, token=bool(token))
            quieten()
            _run(server_config(app, params.serve), listener, service)


@contextmanager
def answer_log(params: Params, service: "Service") -> "Iterator[AnswerLog | None]":
    """Open the prediction log, if one is named; close it, with what waits written, when the server has stopped."""
    address = _log_address(params)
    if not address:
        yield None
        return
    from pipeline.prediction_log import PredictionLog

    with PredictionLog(address, service.manifest, params.log) as log:
        service.metrics.watch_log(log.state)
        note(f"answers are noted in {log.address}")
        yield log


def _log_address(params: Params) -> str:
    return os.environ.get(LOG_URL) or params.serve.log


def server_config(app: Any, params: ServeParams) -> "uvicorn.Config":
    """Return how uvicorn runs the application."""
    import uvicorn

    from pipeline.serving.guard import guarded

    return uvicorn.Config(
        app,
        http=guarded(params),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # its lines hold addresses as the client wrote them
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=params.keep_alive_s,  # type: ignore[arg-type] # it is only given to call_later
        timeout_graceful_shutdown=params.stop_s,  # type: ignore[arg-type]
        h11_max_incomplete_event_size=_MAX_HEADER,
    )


def check_reach(params: ServeParams, token: str) -> None:
    """Refuse to listen for other machines without a token, unless the parameters say so.

    Raises
    ------
    UserError
        Says how to go on.
    """
    if is_loopback(params.host) or token:
        return
    if not params.anywhere:
        raise UserError(
            f"serve.host is {params.host}, where other machines could send films and read answers, and there is no "
            "token: set CXR_SERVE_TOKEN, or listen on 127.0.0.1, or set serve.anywhere to true"
        )
    warn(f"listening on {params.host} without a token: whoever reaches this machine may ask")


def open_service(places: Places, params: ServeParams, *, described: bool) -> "Service":
    """Open the model for every thread, and let each answer once; `described`: see `predicting.answer`."""
    from pipeline.predict_stream import open_predictors
    from pipeline.serving.pictures import find_maps
    from pipeline.serving.service import Maps, Service

    opened = open_predictors(places.model, params.threads or None, params.point)
    pixels = params.max_megapixels * 1_000_000
    predictors = [dataclasses.replace(each, described=described, max_pixels=pixels) for each in opened]
    for exported in {id(each.exported): each.exported for each in predictors}.values():
        size = exported.manifest.size
        exported.outputs(np.zeros((1, size, size, 1), np.uint8))
    manifest = predictors[0].exported.manifest
    if predictors[0].gate is None:
        warn("the model has no input gate: anything that can be decoded is answered for")
    maps = Maps(*find_maps(places.explain, manifest))
    note(f"model {manifest.version} ({manifest.title}), {len(manifest.findings)} findings, {len(predictors)} threads")
    if maps.maker is None:
        note(f"no heat maps: {maps.reason}")
    return Service(predictors, params, maps)


def _run(config: "uvicorn.Config", listener: socket.socket, service: "Service") -> None:
    """Say where, serve, and return when all that was accepted is answered."""
    import uvicorn

    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    class Announced(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            note(f"listening on {address} (Ctrl+C stops)")

    if threading.current_thread() is threading.main_thread():
        for name in (signal.SIGINT, signal.SIGTERM):  # uvicorn handles them, and then raises them once more
            signal.signal(name, lambda *_: None)
    try:
        Announced(config).run(sockets=[listener])
    finally:
        service.stop()


def bound(params: ServeParams) -> socket.socket:
    """Take the address, before the model is loaded for nothing; nobody is answered yet."""
    listener = None
    try:
        found = socket.getaddrinfo(params.host, params.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise UserError(f"{params.host}:{params.port} cannot be listened on ({error.strerror}): give another") from None
    return listener


def quieten() -> None:
    """Let the log hold our own lines alone: those of libraries may quote what was sent."""
    # Not sys.stderr: while TensorFlow is loaded for the first map, descriptor 2 leads elsewhere (`pipeline.quiet`).
    stream = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8")
    logging.basicConfig(stream=stream, level=logging.ERROR, format="%(asctime)s %(message)s", force=True)
    logging.getLogger("cxr.serve").setLevel(logging.ERROR if is_quiet() else logging.INFO)
    for name in ("python_multipart", "uvicorn", "uvicorn.error", "asyncio", "multipart"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
