"""The addresses of `cxr serve`."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from pipeline import __version__
from pipeline.serving import openapi
from pipeline.serving.answers import RESEARCH_ONLY, document
from pipeline.serving.door import Door
from pipeline.serving.envelope import App, Envelope
from pipeline.serving.metrics import CONTENT_TYPE
from pipeline.serving.pages import Page, assets, card_page, reading_page
from pipeline.serving.problems import KINDS, MEDIA_TYPE, RequestError
from pipeline.serving.service import Service
from pipeline.serving.uploads import ClientGoneError, announced, read_films

_GONE = 499  # of no standard: nobody is there to read it, it only stands in the log and the counters


def build_app(service: Service, door: Door, card: Path, *, token: bool) -> App:
    """Return the ASGI application.

    Parameters
    ----------
    service : Service
        What answers.
    door : Door
        Who may ask.
    card : Path
        `model_card.json` of the report.
    token : bool
        Whether the page has to ask for a token.
    """
    app = FastAPI(
        title="Chest X-ray classifier",
        version=__version__,
        description=openapi.ABOUT,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        lifespan=_lifespan(service),
    )
    _add_answers(app, service)
    _add_state(app, service)
    _add_pages(app, service, card, token=token)
    app.add_exception_handler(RequestError, _problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(ClientGoneError, _gone)
    app.add_exception_handler(Exception, _fault)
    openapi.complete(app, token=token)
    return Envelope(app, door, service.metrics)


def _add_answers(app: FastAPI, service: Service) -> None:
    @app.post("/v1/predict", **openapi.PREDICT)
    async def predict(request: Request) -> Response:
        flagged = request.query_params.get("flagged") == "true"
        async with _uploaded(request, service) as films:
            answers = await service.predict(films, _id(request), request.receive, flagged=flagged)
        return _json(document(answers, service.manifest, service.params.point, _id(request)))

    @app.post("/v1/display", **openapi.DISPLAY)
    async def display(request: Request) -> Response:
        async with _uploaded(request, service) as films:
            png, (width, height) = await service.view(_only(films), request.receive)
        return Response(png, media_type="image/png", headers={"X-Film-Size": f"{width}x{height}"})

    @app.post("/v1/explain", **openapi.EXPLAIN)
    async def explain(request: Request) -> Response:
        async with _uploaded(request, service) as films:
            return _json(await service.explain(_only(films), request.receive))


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/v1/model", **openapi.MODEL)
    async def model() -> Response:
        return _json(about(service))

    @app.get("/healthz", **openapi.HEALTH)
    async def healthz() -> Response:
        return _json({"status": "alive"})

    @app.get("/readyz", **openapi.READY)
    async def readyz() -> Response:
        if service.stopping or service.films.waiting >= service.films.room:
            raise RequestError("unavailable", "stopping" if service.stopping else "the queue is full")
        return _json({"status": "ready", "version": service.manifest.version})

    @app.get("/metrics", **openapi.METRICS)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _add_pages(app: FastAPI, service: Service, card: Path, *, token: bool) -> None:
    files = assets()
    page = reading_page(service.manifest, files, token=token)
    described = card_page(card, service.manifest, files)

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return page.response(request)

    @app.get("/model-card", include_in_schema=False)
    async def model_card(request: Request) -> Response:
        return described.response(request)

    @app.get("/assets/{name}", include_in_schema=False)
    async def asset(name: str, request: Request) -> Response:
        return _known(files.get(name)).response(request)

    @app.get("/problems/{kind}", include_in_schema=False)
    async def problem(kind: str, request: Request) -> Response:
        known = KINDS.get(kind)
        text = Page(f"{known.status}: {known.title}.\n".encode(), "text/plain; charset=utf-8") if known else None
        return _known(text).response(request)


def about(service: Service) -> dict[str, Any]:
    """Return what `/v1/model` tells: the manifest, the limits of the server, what it can do."""
    params, manifest = service.params, service.manifest
    known = manifest.as_dict()
    shown = ("title", "version", "format", "model_sha256", "input", "findings", "preprocess", "calibration")
    return {
        **{key: known[key] for key in shown},
        "operating_points": manifest.operating_points,
        "point": params.point,
        "flip": manifest.flip,
        "versions": manifest.versions,
        "training": {key: value for key, value in manifest.training.items() if key != "mlflow"},
        "gate": service.gate,
        "explain": {"available": service.maps.maker is not None, "reason": service.maps.reason or None},
        "limits": {
            "max_files": params.max_files,
            "max_upload_bytes": params.max_upload_mb << 20,
            "max_pixels": service.max_pixels,
            "answer_seconds": params.answer_s,
        },
        "use": RESEARCH_ONLY,
    }


@asynccontextmanager
async def _uploaded(request: Request, service: Service) -> AsyncIterator[list[bytes]]:
    """Read the films of a request, and hold their room in memory until it is answered."""
    boundary, limit = announced(request.headers, service.params)
    with service.budget.holding(limit):
        start = time.perf_counter()
        films = await read_films(request.receive, boundary, limit, service.params)
        service.metrics.steps.labels("read").observe(time.perf_counter() - start)
        yield films


def _lifespan(service: Service) -> Any:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.stop)

    def build(app: FastAPI) -> AbstractAsyncContextManager[None]:
        return lifespan(app)

    return build


def _only(films: list[bytes]) -> bytes:
    if len(films) != 1:
        raise RequestError("malformed", f"{len(films)} films; one is taken at this address")
    return films[0]


def _known(page: Page | None) -> Page:
    if page is None:
        raise RequestError("not-found", "there is nothing of this name")
    return page


def _id(request: Request) -> str:
    return str(request.state.request_id)


def _json(value: Any) -> Response:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text, media_type="application/json")


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    body = error.body(_id(request))
    return Response(body, status_code=error.status, media_type=MEDIA_TYPE, headers=error.headers)


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = {404: "not-found", 405: "method"}.get(error.status_code, "malformed")
    details = {"not-found": "see /openapi.json for what there is", "method": "see Allow for those that it takes"}
    headers = dict(error.headers or {})
    return await _problem(request, RequestError(kind, details.get(kind, "see /openapi.json"), headers))


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=_GONE)


async def _fault(request: Request, _error: Exception) -> Response:
    return await _problem(request, RequestError("internal", "a fault of the server; its log has the place"))
