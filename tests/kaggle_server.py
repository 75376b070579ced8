"""A server on this computer that speaks Kaggle's calls and its storage's, and fails as it is told."""

import base64
import hashlib
import io
import json
import os
import threading
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import google_crc32c
import pytest
from kagglesdk import kaggle_env

SECRET = "KGAT_0123456789abcdef"
SIGNATURE = "X-Goog-Signature=0a1b2c3d4e5f"


@dataclass
class Odd:
    """How one answer differs from a good one."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    json_error: bool = False
    body: bytes | None = None  # of an error, or instead of the JSON of a list
    cut: int | None = None  # bytes after which the connection breaks
    stall: bool = False  # nothing more comes after `cut` bytes
    length: int | None = None  # what Content-Length says instead
    range: str | None = None  # what Content-Range says instead
    ignore_range: bool = False
    data: bytes | None = None  # sent instead


class Kaggle(ThreadingHTTPServer):
    """Holds files, their version, and what goes wrong; keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.wrapped: set[str] = set()  # sent as a zip of one file
        self.archive = packed({"影像/1.png": os.urandom(3 * 2**20)})
        self.etag: str | None = '"version-1"'
        self.date = "2026-01-02T03:04:05.678Z"
        self.hashes = True
        self.page = 200
        self.posts: deque[Odd | None] = deque()  # of the next requests; None is a good one
        self.gets: deque[Odd | None] = deque()
        self.released = threading.Event()
        self.seen: list[tuple[str, str, dict[str, str], Any]] = []

    def asked(self, call: str) -> list[dict[str, Any]]:
        """Return the bodies of the requests of one kind."""
        return [body for _, path, _, body in self.seen if path.endswith("/" + call)]

    def ranges(self) -> list[str | None]:
        """Return the Range of every request to the storage."""
        return [headers.get("Range") for method, _, headers, _ in self.seen if method == "GET"]

    def content(self, name: str) -> bytes:
        if not name:
            return self.archive
        return packed({name.split("/")[-1]: self.files[name]}) if name in self.wrapped else self.files[name]

    def handle_error(self, *_: object) -> None:
        """A client that goes away early is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Kaggle

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(("POST", self.path, dict(self.headers), body))
        odd = (self.server.posts.popleft() if self.server.posts else None) or Odd()
        call = self.path.rsplit("/", 1)[1]
        if odd.stall:
            self.server.released.wait()
        if odd.status is not None:
            self.fail(odd)
        elif call.startswith("List"):
            self.list(call, body, odd)
        else:
            name = quote(body.get("fileName", ""))
            self.answer(302, {"Location": f"http://localhost:{self.server.server_port}/storage/{name}?{SIGNATURE}"})

    def list(self, call: str, body: Mapping[str, Any], odd: Odd) -> None:
        start = int(body.get("pageToken", 0))
        size = min(self.server.page, int(body["pageSize"]))
        names = sorted(self.server.files)
        rows = [
            {"name": name, "totalBytes": len(self.server.files[name]), "creationDate": self.server.date}
            for name in names[start : start + size]
        ]
        values = {"files" if call == "ListDataFiles" else "datasetFiles": rows}
        if start + size < len(names):
            values |= {"nextPageToken": str(start + size)}
        text = json.dumps(values).encode() if odd.body is None else odd.body
        self.answer(200, {"Content-Type": "application/json"} | odd.headers, text)

    def fail(self, odd: Odd) -> None:
        text = json.dumps({"code": odd.status, "message": f"no: {self.headers['Authorization']} {self.path}"}).encode()
        kind = "application/json" if odd.json_error else "text/plain"
        self.answer(odd.status or 500, {"Content-Type": kind} | odd.headers, text if odd.body is None else odd.body)

    def do_GET(self) -> None:
        self.server.seen.append(("GET", self.path, dict(self.headers), None))
        odd = (self.server.gets.popleft() if self.server.gets else None) or Odd()
        if odd.status is not None:
            self.fail(odd)
            return
        name = unquote(urlsplit(self.path).path.removeprefix("/storage/"))
        data = self.server.content(name) if odd.data is None else odd.data
        start = self.start(odd)
        headers = {"Content-Type": "application/json" if name.endswith(".json") else "application/octet-stream"}
        if start is not None:
            headers["Content-Range"] = odd.range or f"bytes {start}-{len(data) - 1}/{len(data)}"
        if self.server.etag:
            headers["ETag"] = self.server.etag
        if self.server.hashes:
            headers["x-goog-hash"] = goog_hash(self.server.content(name))
        sent = data[start or 0 :]
        headers["Content-Length"] = str(len(sent) if odd.length is None else odd.length)
        self.send(
            206 if start is not None else 200, headers | odd.headers, sent if odd.cut is None else sent[: odd.cut]
        )
        if odd.stall:
            self.server.released.wait()
        if odd.cut is not None or odd.length is not None:
            self.close_connection = True

    def start(self, odd: Odd) -> int | None:
        asked = self.headers.get("Range", "")
        if not asked or odd.ignore_range or self.headers.get("If-Range") != self.server.etag:
            return None
        return int(asked.removeprefix("bytes=").removesuffix("-"))

    def answer(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send(status, {"Content-Length": str(len(body))} | headers, body)

    def send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


def packed(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, data in members.items():
            zipped.writestr(name, data)
    return buffer.getvalue()


def goog_hash(data: bytes) -> str:
    # Google Cloud Storage, "Hashes and ETags": base64 of the big-endian CRC32C and of the MD5
    crc = base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()
    return f"crc32c={crc}, md5={base64.b64encode(hashlib.md5(data).digest()).decode()}"


@contextmanager
def running() -> Iterator[Kaggle]:
    server = Kaggle()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def sign_in(monkeypatch: pytest.MonkeyPatch, home: Path, server: Kaggle | None = None) -> Path:
    """Give the test a home folder of its own, no proxy, and the server with a token, or no credentials at all."""
    for name in list(os.environ):
        if name.startswith("KAGGLE_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    if server is not None:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, endpoint)
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)
    return home
