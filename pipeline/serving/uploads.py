"""An upload, from the network into bounded memory: never onto the disk, never further than its limits.

The form parsers of Starlette and python-multipart write what is large to temporary files; here only the parser of the
multipart grammar (RFC 7578, RFC 2046) is used, and what it finds stays in memory.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from pipeline.params import ServeParams
from pipeline.serving.problems import RequestError, busy

Receive = Callable[[], Awaitable[Any]]
MIB = 1 << 20
_FIELDS = {b"files", b"file"}
_MAX_BOUNDARY = 70  # RFC 2046, section 5.1.1


class ClientGoneError(Exception):
    """The client went away in the middle of its request: there is nobody to answer."""


class Budget:
    """How many bytes of uploads may be in memory together.

    Parameters
    ----------
    limit : int
        Bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Hold room for an upload; without room the request is sent away (429) before anything of it is read."""
        if self.used + size > self.limit:
            raise busy("the uploads under way fill the memory that is set aside for them; try again soon", 1)
        self.used += size
        try:
            yield
        finally:
            self.used -= size


def announced(headers: Mapping[str, str], params: ServeParams) -> tuple[bytes, int]:
    """Check a request's headers; return the boundary and the most bytes that the body may have.

    Raises
    ------
    RequestError
        If the body is no multipart/form-data, is compressed, or is announced as larger than `serve.max_upload_mb`.
    """
    kind, options = parse_options_header(headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data":
        raise RequestError("media-type", "Content-Type must be multipart/form-data, one part named files for each film")
    if not 1 <= len(boundary) <= _MAX_BOUNDARY:
        raise RequestError("malformed", f"Content-Type must name a boundary of 1 to {_MAX_BOUNDARY} characters")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError("media-type", "a compressed request (Content-Encoding) is not taken")
    limit = params.max_upload_mb * MIB
    length = headers.get("content-length")
    if length is None:
        return boundary, limit
    if not (length.isascii() and length.isdigit()):
        raise RequestError("malformed", "Content-Length must be a number")
    if int(length) > limit:
        raise RequestError("too-large", f"{int(length):,} bytes are announced; {limit:,} are allowed")
    return boundary, int(length)


async def read_films(receive: Receive, boundary: bytes, limit: int, params: ServeParams) -> list[bytes]:
    """Read the films of a multipart body.

    Parameters
    ----------
    receive : callable
        ASGI's.
    boundary : bytes
        Of the parts.
    limit : int
        Bytes of the whole body, at most.
    params : ServeParams
        `max_files`, `idle_s` and `upload_s`.

    Returns
    -------
    list of bytes
        The files, in their order; their names and types are thrown away, because names of files name patients.

    Raises
    ------
    RequestError
        If the body is too large, too slow, no sound multipart, or holds anything but files.
    ClientGoneError
        If the client goes away.
    """
    form = _Form(params.max_files)
    parser = MultipartParser(boundary, form.callbacks(), max_header_size=8192)  # type: ignore[arg-type]
    end, size = time.monotonic() + params.upload_s, 0
    try:
        async for chunk in _chunks(receive, end, params.idle_s):
            size += len(chunk)
            if size > limit:
                raise RequestError("too-large", f"more than the {limit:,} bytes that are allowed or were announced")
            parser.write(chunk)
    except FormParserError:
        raise RequestError("malformed", "the body is no sound multipart/form-data") from None
    if not form.ended:
        raise RequestError("malformed", "the body ends before its last boundary")
    if not form.films:
        raise RequestError("no-film", "one part named files, with a file name, is needed for each film")
    return form.films


async def _chunks(receive: Receive, end: float, idle: float) -> Any:
    while True:
        left = min(idle, end - time.monotonic())
        try:
            async with asyncio.timeout(max(left, 0.001)):
                message = await receive()
        except TimeoutError:
            raise RequestError("slow", "the body did not come in time", {"Connection": "close"}) from None
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            return


@dataclass
class _Form:
    """Takes the parser's calls and keeps the files."""

    max_files: int
    films: list[bytes] = field(default_factory=list)
    ended: bool = False
    _name: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _headers: dict[bytes, bytes] = field(default_factory=dict)
    _data: bytearray = field(default_factory=bytearray)

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_headers_finished": self._check,
            "on_part_data": lambda data, start, end: self._data.extend(memoryview(data)[start:end]),
            "on_part_end": self._end,
            "on_end": lambda: setattr(self, "ended", True),
        }

    def _begin(self) -> None:
        if len(self.films) >= self.max_files:
            raise RequestError("too-large", f"more than {self.max_files} films in one request")
        self._headers, self._data = {}, bytearray()

    def _header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def _check(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if kind != b"form-data" or options.get(b"name") not in _FIELDS or b"filename" not in options:
            raise RequestError("malformed", "a part is no file; each must be named files and have a file name")

    def _end(self) -> None:
        self.films.append(bytes(self._data))
        self._data = bytearray()
