"""A server of its own for a benchmark, and requests over a bare socket; see serve_load.py and serve_hostile.py."""

import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from pipeline.params import Params, ServeParams
from pipeline.params_file import as_dict, write_yaml

BOUNDARY = b"film-boundary"
PART = b'Content-Disposition: form-data; name="files"; filename="film"\r\n\r\n'


@dataclass(frozen=True)
class Server:
    """A `cxr serve` that listens on loopback."""

    port: int
    process: "subprocess.Popen[str]"

    def memory(self) -> int:
        """Return its resident memory in bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)


@contextmanager
def started(model: Path, params: ServeParams) -> Iterator[Server]:
    """Start `cxr serve` on a free port, and stop it in the end."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "params.yaml"
        write_yaml(written, as_dict(replace(Params(), serve=replace(params, port=0))))
        command = [sys.executable, "-m", "pipeline.cli", "serve", "--params", str(written), "--model", str(model)]
        command += ["--explain", folder, "--reports", folder]
        with (Path(folder) / "log").open("w+") as log:
            process = subprocess.Popen(command, stderr=log, text=True)
            try:
                yield Server(_port(process, Path(folder) / "log"), process)
            finally:
                process.terminate()
                process.wait(120)


def _port(process: "subprocess.Popen[str]", log: Path) -> int:
    while process.poll() is None:
        if found := re.search(r"listening on http://[\d.]+:(\d+)/", log.read_text()):
            return int(found[1])
        time.sleep(0.1)
    raise SystemExit(f"the server did not start: {log.read_text()[-500:]}")


def form(*films: bytes) -> bytes:
    """Return films as the body of a form."""
    parts = b"".join(b"--" + BOUNDARY + b"\r\n" + PART + film + b"\r\n" for film in films)
    return parts + b"--" + BOUNDARY + b"--\r\n"


def request(body: bytes, length: int | None = None, path: str = "/v1/predict") -> bytes:
    """Return a whole request; `length` may lie."""
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY.decode()}"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n"
    return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Read one answer: its status and body; status 0 if the server closed without one."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        if not piece:
            return 0, received
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    while found and len(body) < int(found[1]):
        piece = connection.recv(65536)
        if not piece:
            break
        body += piece
    return int(head[9:12]), body
