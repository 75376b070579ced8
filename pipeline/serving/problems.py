"""Errors over HTTP as problem details (RFC 9457): a kind, a title, one sentence, and what a program needs to go on."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

MEDIA_TYPE = "application/problem+json"


class Kind(NamedTuple):
    """A kind of problem: its status and its title (RFC 9457, section 3.1), which is the same each time."""

    status: int
    title: str


KINDS = {
    "malformed": Kind(400, "The request is not what its headers announce"),
    "no-film": Kind(400, "The request holds no film"),
    "token": Kind(401, "A bearer token is needed"),
    "foreign": Kind(403, "Another site's page may not ask this server"),
    "not-found": Kind(404, "There is nothing at this address"),
    "method": Kind(405, "This address does not take this method"),
    "slow": Kind(408, "The request came too slowly"),
    "too-large": Kind(413, "The request is larger than is taken here"),
    "media-type": Kind(415, "Films are taken as multipart/form-data"),
    "host": Kind(421, "The server does not answer to this name"),
    "unreadable": Kind(422, "The film cannot be read"),
    "busy": Kind(429, "The server has as much to do as it takes on"),
    "internal": Kind(500, "The server has a fault"),
    "unavailable": Kind(503, "The server cannot do this now"),
    "late": Kind(503, "The answer took too long"),
}
"""Every problem this server answers with; `type` is `/problems/KEY`, an address that explains it."""


class RequestError(Exception):
    """A request that ends in an error.

    Parameters
    ----------
    kind : str
        A key of `KINDS`.
    detail : str
        What was wrong this time, what is allowed: a sentence without anything that was uploaded.
    headers : mapping, optional
        More headers of the answer, such as Retry-After.
    more : mapping, optional
        Extension members (RFC 9457, section 3.2).
    """

    def __init__(
        self,
        kind: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail
        self.headers, self.more = dict(headers or {}), dict(more or {})

    @property
    def status(self) -> int:
        """The HTTP status."""
        return KINDS[self.kind].status

    def body(self, request_id: str = "") -> bytes:
        """Return the problem as JSON; `instance` names the request, as the header X-Request-Id does."""
        known = KINDS[self.kind]
        document = {"type": f"/problems/{self.kind}", "title": known.title, "status": known.status}
        document |= {"detail": self.detail} | ({"instance": f"urn:request:{request_id}"} if request_id else {})
        return json.dumps(document | self.more, ensure_ascii=False).encode()


def busy(detail: str, seconds: float) -> RequestError:
    """Return the problem of a full server; Retry-After says when it may have room (RFC 9110, section 10.2.3)."""
    return RequestError("busy", detail, {"Retry-After": str(max(1, round(seconds)))})


def explained() -> dict[str, str]:
    """Return a sentence for each kind, as `/problems/KEY` shows it."""
    return {key: f"{kind.status}: {kind.title}." for key, kind in KINDS.items()}
