"""What `/openapi.json` says of each address: what it takes, what it gives, with examples."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from pipeline.serving.answers import RESEARCH_ONLY
from pipeline.serving.problems import KINDS, MEDIA_TYPE

ABOUT = (
    f"{RESEARCH_ONLY} Films are PNG, JPEG, TIFF or DICOM files, sent as multipart/form-data. Nothing that is sent is "
    "kept or logged, and nothing of a DICOM header but its pixels' meaning is read. Errors are problem details "
    "(RFC 9457). Every answer has an X-Request-Id."
)

FILM = {
    "id": "9f0c1d2e3a4b5c6d-0",
    "status": "ok",
    "error": None,
    "gate": {"accepted": True, "reasons": [], "scores": {"film": 0.41, "far": 0.63}},
    "notes": [],
    "findings": [
        {"finding": "Effusion", "raw": 0.4180, "probability": 0.7312, "threshold": 0.2544, "called": True},
        {"finding": "Hernia", "raw": 0.0213, "probability": 0.0031, "threshold": None, "called": None},
    ],
    "milliseconds": {"decode": 5.8, "prepare": 0.7, "model": 7.4, "gate": 0.9},
}
ANSWER = {
    "request_id": "9f0c1d2e3a4b5c6d",
    "model": {"version": "3c5e91aa07d2-int8", "title": "Chest X-ray classifier"},
    "point": "youden",
    "use": RESEARCH_ONLY,
    "films": [FILM],
}
"""An answer of `/v1/predict`; tests/test_serve.py holds it against a real one."""
FLAGGED = {
    **FILM,
    "status": "flagged",
    "gate": {
        "accepted": False,
        "reasons": [{"code": "no-film", "sentence": "does not look like a chest film"}],
        "scores": {"film": 3.2, "far": 1.4},
    },
    "findings": None,
}
_NUMBER = {"type": ["number", "null"]}
_FINDING = {
    "type": "object",
    "properties": {
        "finding": {"type": "string"},
        "raw": {**_NUMBER, "description": "the model's output, 0 to 1; what the threshold applies to"},
        "probability": {**_NUMBER, "description": "calibrated; null where the finding could not be calibrated"},
        "threshold": {**_NUMBER, "description": "of the operating point; null: the finding has none"},
        "called": {"type": ["boolean", "null"], "description": "raw is at the threshold or above; null: no threshold"},
    },
}
_FILM_SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "of this film, for labels that come later"},
        "status": {"enum": ["ok", "flagged", "failed"]},
        "error": {"type": ["string", "null"], "description": "why the film cannot be read"},
        "gate": {"type": ["object", "null"], "description": "the input gate's verdict; null: the model has no gate"},
        "notes": {"type": "array", "description": "what is suspicious though usable about the file"},
        "findings": {
            "type": ["array", "null"],
            "items": _FINDING,
            "description": "null where the film failed, or was flagged and flagged=true was not asked for",
        },
        "milliseconds": {"type": "object"},
    },
}
_ANSWER_SCHEMA = {
    "type": "object",
    "properties": {
        "request_id": {"type": "string"},
        "model": {"type": "object"},
        "point": {"type": "string"},
        "use": {"type": "string"},
        "films": {"type": "array", "items": _FILM_SCHEMA, "description": "in the order in which they were sent"},
    },
}


def _problems(*kinds: str) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        known = KINDS[kind]
        example = {"type": f"/problems/{kind}", "title": known.title, "status": known.status, "detail": "…"}
        found[known.status] = {
            "description": known.title,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}},
        }
    return found


def _upload(*, several: bool) -> dict[str, Any]:
    films = {"type": "array", "items": {"type": "string", "format": "binary"}} | ({} if several else {"maxItems": 1})
    schema = {"type": "object", "properties": {"files": films}, "required": ["files"]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def _takes(summary: str, given: dict[str, Any], *, several: bool = False, **more: Any) -> dict[str, Any]:
    kinds = ("malformed", "token", "foreign", "slow", "too-large", "media-type", "unreadable", "busy", "late")
    extra = _upload(several=several) | more
    return {"summary": summary, "responses": {200: given} | _problems(*kinds), "openapi_extra": extra}


def _json(description: str, example: Any, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    content = {"schema": schema or {"type": "object"}, "example": example}
    return {"description": description, "content": {"application/json": content}}


_PREDICTED = _json("What the model makes of each film", ANSWER, _ANSWER_SCHEMA)
_PREDICTED["content"]["application/json"].pop("example")
_PREDICTED["content"]["application/json"]["examples"] = {
    "a film": {"value": ANSWER},
    "no film": {"summary": "the gate flags it", "value": ANSWER | {"films": [FLAGGED]}},
}
_QUERY = {
    "name": "flagged",
    "in": "query",
    "schema": {"type": "boolean", "default": False},
    "description": "true: numbers also for films that the gate flags",
}

_EXPLAINED = _json(
    "values from 0 to 1; null: no place raises this output",
    {
        "layer": "backbone",
        "fit": "stretch",
        "width": 2500,
        "height": 2048,
        "maps": {"Effusion": [[0.0, 0.31], [0.52, 1.0]], "Hernia": None},
    },
)

PREDICT: dict[str, Any] = _takes("Findings of one film or several", _PREDICTED, several=True, parameters=[_QUERY])
DISPLAY: dict[str, Any] = _takes(
    "The film's pixels as PNG, for display",
    {"description": "at most 2048 pixels a side", "content": {"image/png": {}}},
)
EXPLAIN: dict[str, Any] = _takes("Where the model looks: a small heat map for each finding", _EXPLAINED)
MODEL: dict[str, Any] = {
    "summary": "Which model answers, and what this server takes",
    "responses": {200: _json("The model", {"version": "3c5e91aa07d2-int8", "findings": ["Effusion", "Hernia"]})},
}
HEALTH: dict[str, Any] = {"summary": "The process lives", "responses": {200: _json("Alive", {"status": "alive"})}}
READY: dict[str, Any] = {
    "summary": "It takes films now",
    "responses": {200: _json("Ready", {"status": "ready", "version": "3c5e91aa07d2-int8"})} | _problems("unavailable"),
}
METRICS: dict[str, Any] = {
    "summary": "Counters for Prometheus",
    "responses": {200: {"description": "Prometheus' text format", "content": {"text/plain": {}}}},
}


def complete(app: FastAPI, *, token: bool) -> None:
    """Let the application's document name problems and, with a token, how to bring it."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            for path, given in (("/v1/predict", _PREDICTED), ("/v1/explain", _EXPLAINED)):  # where null is an answer:
                found["paths"][path]["post"]["responses"]["200"] = given  # FastAPI leaves it out
            parts = found.setdefault("components", {})
            text, number = {"type": "string"}, {"type": "integer"}
            properties = {"type": text, "title": text, "status": number, "detail": text, "instance": text}
            parts.setdefault("schemas", {})["Problem"] = {"type": "object", "properties": properties}
            if token:
                parts["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
                found["security"] = [{"bearer": []}]
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
