"""What goes around every request: its identifier, the door, the answer's headers, one line in the log, its end."""

import asyncio
import logging
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from pipeline.serving.door import Door
from pipeline.serving.metrics import Metrics
from pipeline.serving.problems import MEDIA_TYPE, RequestError
from pipeline.serving.uploads import ClientGoneError

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

LOG = logging.getLogger("cxr.serve")
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Frame-Options": "DENY",
}
_RAW = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_NO_STORE = (b"cache-control", b"no-store")
_METHODS = {"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"}
_LINGER = 2.0  # seconds to take and throw away what a refused client still sends, so that it reads why


class Envelope:
    """The outermost application.

    Parameters
    ----------
    app : ASGI application
        What answers.
    door : Door
        Who may ask.
    metrics : Metrics
        Where requests are counted.
    """

    def __init__(self, app: App, door: Door, metrics: Metrics) -> None:
        self._app, self._door, self._metrics = app, door, metrics

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Any) -> None:
        """Answer a request; the lifespan passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        try:
            self._door.check(scope["path"], dict(scope["headers"]))
            await self._app(scope, exchange.receive, exchange.send)
        except RequestError as problem:
            await exchange.refuse(problem)
        except ClientGoneError:
            pass
        except Exception as error:  # a fault of ours: said without the words of the error, which may quote a film
            LOG.error("%s fault %s", exchange.id, _place(error))
            await exchange.refuse(RequestError("internal", "a fault of the server; its log has the place"))
        finally:
            self._record(exchange)

    def _record(self, exchange: "_Exchange") -> None:
        """Count the request and log one line: nothing that the client chose but one of our own addresses."""
        route = exchange.scope.get("route")
        path = getattr(route, "path", "unmatched")
        method = exchange.scope["method"] if exchange.scope["method"] in _METHODS else "other"
        seconds = time.perf_counter() - exchange.start
        status = str(exchange.status or "gone")
        self._metrics.requests.labels(path, method, status).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        LOG.info("%s %s %s %s %.0f ms", exchange.id, method, path, status, 1000 * seconds)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Any) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.id, self.start, self.status = secrets.token_hex(8), time.perf_counter(), 0
        scope.setdefault("state", {})["request_id"] = self.id
        names = {name for name, _ in scope["headers"]}
        self._unread = bool(names & {b"content-length", b"transfer-encoding"})

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])
            headers = [*message.get("headers", []), *_RAW, (b"x-request-id", self.id.encode())]
            if b"cache-control" not in {name.lower() for name, _ in headers}:
                headers.append(_NO_STORE)
            if self._unread:
                headers = [item for item in headers if item[0].lower() != b"connection"] + [(b"connection", b"close")]
            message["headers"] = headers
        elif self._unread and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def refuse(self, problem: RequestError) -> None:
        """Answer with a problem, unless an answer has begun."""
        if self.status:
            return
        body = problem.body(self.id)
        head = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body))} | problem.headers
        raw = [(name.lower().encode(), value.encode()) for name, value in head.items()]
        await self.send({"type": "http.response.start", "status": problem.status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body})

    async def _linger(self) -> None:
        """Read on for a moment: a connection that is closed with bytes unread loses the answer on its way."""
        try:
            async with asyncio.timeout(_LINGER):
                while self._unread:
                    await self.receive()
        except TimeoutError:
            return


def _place(error: BaseException) -> str:
    """Return the kind of an error and where it rose, without its words."""
    frames = traceback.extract_tb(error.__traceback__)
    last = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"
    return f"{type(error).__name__} at {last}"
