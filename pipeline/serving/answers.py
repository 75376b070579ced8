"""Answers as JSON: what `/v1/predict` gives, film by film."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from pipeline.exported import Manifest
from pipeline.predicting import Answer
from pipeline.serving.problems import RequestError

RESEARCH_ONLY = "Research use only: not validated for any decision about a person, and not a medical device."


def withheld(answer: Answer) -> Answer:
    """Return the answer for a film that the gate flagged without its numbers; others as they are."""
    if not answer.flagged:
        return answer
    return dataclasses.replace(answer, raw=None, calibrated=None, decisions=None)


def document(answers: Sequence[Answer], manifest: Manifest, point: str, request_id: str) -> dict[str, Any]:
    """Return the answer to a request.

    Parameters
    ----------
    answers : sequence of Answer
        In the order of the films; each name is the identifier of that film.
    manifest : Manifest
        Of the model that answered.
    point : str
        The operating point of the decisions.
    request_id : str
        As in the header X-Request-Id.

    Returns
    -------
    dict
        Ready for JSON: numbers that are undefined are None.

    Raises
    ------
    RequestError
        Kind `unreadable` if no film could be read; with several films each one's reason stands beside it.
    """
    films = [_film(answer, manifest, point) for answer in answers]
    if all(answer.error for answer in answers):
        several = f"none of {len(films)} films can be read; the reasons stand in films"
        raise RequestError("unreadable", answers[0].error if len(films) == 1 else several, more={"films": films})
    return {
        "request_id": request_id,
        "model": {"version": manifest.version, "title": manifest.title},
        "point": point,
        "use": RESEARCH_ONLY,
        "films": films,
    }


def _film(answer: Answer, manifest: Manifest, point: str) -> dict[str, Any]:
    verdict = answer.verdict
    return {
        "id": answer.name,
        "status": answer.status,
        "error": answer.error or None,
        "gate": None
        if verdict is None
        else {
            "accepted": verdict.accepted,
            "reasons": [
                {"code": code, "sentence": sentence}
                for code, sentence in zip(verdict.reasons, verdict.sentences, strict=True)
            ],
            "scores": {name: _number(score) for name, score in verdict.scores.items()},
        },
        "notes": [{"code": code, "sentence": sentence} for code, sentence in answer.notes],
        "findings": None if answer.raw is None else _findings(answer, manifest, point),
        "milliseconds": {step: round(value, 3) for step, value in answer.timings.items()},
    }


def _findings(answer: Answer, manifest: Manifest, point: str) -> list[dict[str, Any]]:
    assert answer.raw is not None
    assert answer.calibrated is not None
    assert answer.decisions is not None
    return [
        {
            "finding": name,
            "raw": _number(answer.raw[k]),
            "probability": _number(answer.calibrated[k]),
            "threshold": manifest.operating_points[name].get(point),
            "called": None if answer.decisions[k] < 0 else bool(answer.decisions[k]),
        }
        for k, name in enumerate(manifest.findings)
    ]


def _number(value: Any) -> float | None:
    """Return a number as it is, to the last bit; None for NaN, which JSON lacks."""
    number = float(value)
    return number if math.isfinite(number) else None
