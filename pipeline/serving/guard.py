"""Connections that cost little: how many there may be, how long each may take to ask and to listen.

Uvicorn closes an idle connection only after its first answer, and waits for ever for the rest of a header and for a
client that does not read. Bodies are timed by `pipeline.serving.uploads`.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from pipeline.params import ServeParams
from pipeline.serving.problems import MEDIA_TYPE, RequestError, busy


def guarded(params: ServeParams) -> type[H11Protocol]:
    """Return the protocol class of uvicorn with the limits of the parameters."""

    class Guarded(_Guarded):
        limits = params

    return Guarded


class _Guarded(H11Protocol):
    limits: ServeParams
    _timer: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.access_log = False  # its lines hold addresses as the client wrote them, whatever handlers there are

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            self._refuse(busy(f"{self.limits.max_connections} connections are open, which is as many as may be", 1))
        else:
            self._set(self.limits.header_s, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset()
        self._unset_keepalive_if_required()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._asking():
            if self._timer is None:  # the first bytes of the next request: its time begins
                self._set(self.limits.header_s, self._late)
        else:
            self._unset()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._writing = self.loop.call_later(self.limits.idle_s, self.transport.abort)

    def resume_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's sentence says no more
        self._refuse(RequestError("malformed", "this is no sound HTTP/1.1 request"))

    def _asking(self) -> bool:
        """Say whether no request has come whole to its end of headers, or the last one was answered."""
        return not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete)

    def _late(self) -> None:
        if self._asking():
            self._refuse(RequestError("slow", f"the headers did not come within {self.limits.header_s:g} seconds"))

    def _refuse(self, problem: RequestError) -> None:
        """Answer without asking the application, and close."""
        body = problem.body()
        head = {"Content-Type": MEDIA_TYPE, "Content-Length": str(len(body)), "Connection": "close"} | problem.headers
        lines = [f"HTTP/1.1 {problem.status} {problem.kind}", *(f"{name}: {value}" for name, value in head.items())]
        self._unset()
        if not self.transport.is_closing():
            self.transport.write("\r\n".join([*lines, "", ""]).encode("ascii") + body)
            self.transport.close()

    def _set(self, seconds: float, call: Any) -> None:
        self._unset()
        self._timer = self.loop.call_later(seconds, call)

    def _unset(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
