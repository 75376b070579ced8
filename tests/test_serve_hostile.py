"""Clients that stall, lie, flood, leave, or send what is no film: only 4xx, and the next good request is answered."""

import random
import socket
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from serving_case import DarkGate, Live, live, png
from test_serve import wait_until

HEAD = "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="files"; filename="f"\r\n\r\n'


@pytest.fixture(scope="module")
def hasty() -> Iterator[Live]:
    """Return a server that waits a fraction of a second for anything."""
    with live(header_s=0.3, idle_s=0.3, upload_s=1.0, keep_alive_s=0.3, gate=DarkGate()) as found:
        yield found


@pytest.fixture(scope="module")
def patient() -> Iterator[Live]:
    """Return a server that waits as long as it does by default."""
    with live(gate=DarkGate(), max_upload_mb=1, keep_alive_s=1.0) as found:
        yield found


@contextmanager
def connected(server: Live) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        yield client


def all_of(client: socket.socket) -> bytes:
    """Return what comes until the server closes."""
    received = b""
    try:
        while piece := client.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def still_well(server: Live) -> None:
    while (status := server.post(png(100)).status_code) == 408:  # a hasty server, on a machine that is slow just now
        pass
    assert status == 200
    wait_until(lambda: server.service.budget.used == 0 and server.service.films.waiting == 0)


def body_of(film: bytes) -> bytes:
    return PART + film + b"\r\n--b--\r\n"


@pytest.mark.parametrize("sent", [b"", b"GET", b"GET /healthz HTTP/1.1\r\nHost: loc"])
def test_headers_that_never_end_are_cut_off(hasty: Live, sent: bytes) -> None:
    with connected(hasty) as client:
        client.sendall(sent)
        assert all_of(client).startswith(b"HTTP/1.1 408 ")
    still_well(hasty)


def test_a_second_request_that_never_ends_is_cut_off_too() -> None:
    with live(header_s=0.3, keep_alive_s=600.0) as server, connected(server) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 ")
        client.sendall(b"GET /healthz HTTP/1.1\r\nHo")
        assert b"HTTP/1.1 408 " in all_of(client)


@pytest.mark.parametrize(
    ("length", "begun"),
    [("Content-Length: 100000", PART), ("Transfer-Encoding: chunked", b"%x\r\n%s\r\n" % (len(PART), PART))],
)
def test_a_body_that_never_ends_is_cut_off(hasty: Live, length: str, begun: bytes) -> None:
    with connected(hasty) as client:
        client.sendall(f"{HEAD}{length}\r\n\r\n".encode() + begun)
        assert all_of(client).startswith(b"HTTP/1.1 408 ")
    still_well(hasty)


def test_a_drip_of_bytes_is_cut_off_as_a_whole(hasty: Live) -> None:
    with connected(hasty) as client:
        client.sendall(f"{HEAD}Content-Length: 100000\r\n\r\n".encode() + PART)
        client.settimeout(0.05)
        received = b""
        while not received.startswith(b"HTTP/1.1 408 "):
            try:
                client.sendall(b"x")
                received += client.recv(65536)
            except TimeoutError:
                continue
            except ConnectionError:  # so late that the server had stopped to wait for it to read
                break
    still_well(hasty)


def test_a_client_that_does_not_listen_is_dropped() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 1000), dtype=np.uint8)
    with live(idle_s=2.0) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        film = body_of(_noisy(noise))
        head = HEAD.replace("/v1/predict", "/v1/display") + f"Content-Length: {len(film)}\r\n\r\n"
        client.sendall(head.encode() + film)
        wait_until(lambda: 'path="/v1/display"' in server.service.metrics.text().decode())
        wait_until(lambda: not server.server.server_state.connections)
        still_well(server)


def _noisy(pixels: np.ndarray) -> bytes:
    import cv2

    return bytes(cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1])


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the first bytes of TLS
        b"GET / HTTP/9\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 600_000 + b"\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        bytes(2000),
    ],
)
def test_what_is_no_http_is_a_problem(patient: Live, sent: bytes) -> None:
    with connected(patient) as client:
        with suppress(ConnectionError):  # it may be refused before it is all there
            client.sendall(sent)
        received = all_of(client)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in received
    still_well(patient)


def test_a_body_longer_than_announced_is_not_read_as_a_film(patient: Live) -> None:
    film = body_of(png(100))
    with connected(patient) as client:
        client.sendall(f"{HEAD}Content-Length: {len(film) - 20}\r\n\r\n".encode() + film)
        assert all_of(client).startswith(b"HTTP/1.1 400 ")
    still_well(patient)


def test_a_refused_client_that_sends_on_can_read_why(patient: Live) -> None:
    with connected(patient) as client:
        client.sendall(f"{HEAD}Content-Length: {3 << 20}\r\n\r\n".encode())
        client.sendall(bytes(3 << 20))  # more than any buffer between the two holds
        received = all_of(client)
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b'"/problems/too-large"' in received
    still_well(patient)


def test_who_asks_before_sending_is_told_at_once(patient: Live) -> None:
    with connected(patient) as client:
        client.sendall(f"{HEAD}Content-Length: {3 << 20}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert all_of(client).startswith(b"HTTP/1.1 413 ")
    film = body_of(png(100))
    with connected(patient) as client:
        client.sendall(f"{HEAD}Content-Length: {len(film)}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
        client.sendall(film)
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_chunked_body_is_read_and_bounded(patient: Live) -> None:
    film = body_of(png(100))
    with connected(patient) as client:
        client.sendall(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n{len(film):x}\r\n".encode() + film + b"\r\n0\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    with connected(patient) as client:
        client.sendall(f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        client.sendall(f"{2 << 20:x}\r\n".encode() + PART + bytes((2 << 20) - len(PART)) + b"\r\n0\r\n\r\n")
        assert all_of(client).startswith(b"HTTP/1.1 413 ")
    still_well(patient)


def test_requests_sent_in_one_go_are_all_answered(patient: Live) -> None:
    with connected(patient) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5)
        assert all_of(client).count(b"HTTP/1.1 200 ") == 5


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(patient: Live, share: float) -> None:
    film = body_of(png(100))
    for _ in range(5):
        with connected(patient) as client:
            client.sendall(f"{HEAD}Content-Length: {len(film)}\r\n\r\n".encode() + film[: int(share * len(film))])
    still_well(patient)


def test_the_film_of_a_client_that_left_is_not_worked_on() -> None:
    with live(threads=1, batch=1) as server, ThreadPoolExecutor(2) as pool:
        server.engine.go.clear()
        first = pool.submit(server.post, png(90))
        assert server.engine.calls.acquire(timeout=30)
        film = body_of(png(100))
        with connected(server) as client:
            client.sendall(f"{HEAD}Content-Length: {len(film)}\r\n\r\n".encode() + film)
            wait_until(lambda: server.service.films.waiting == 1)
        wait_until(lambda: server.service.films.waiting == 0)
        server.engine.go.set()
        assert first.result().status_code == 200
        assert len(server.engine.sizes) == 1


def test_connections_are_bounded() -> None:
    with live(max_connections=3) as server:
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        wait_until(lambda: len(server.server.server_state.connections) == 3)
        with connected(server) as client:
            received = all_of(client)
        assert received.startswith(b"HTTP/1.1 429 ")
        assert b"Retry-After: 1\r\n" in received
        for client in held:
            client.close()
        wait_until(lambda: not server.server.server_state.connections)
        still_well(server)


def test_a_bomb_is_refused_by_its_header() -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    side = (60_000).to_bytes(4, "big")
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", side + side + b"\x08\x00\x00\x00\x00")
    bomb += chunk(b"IDAT", zlib.compress(bytes(1 << 20), 9)) + chunk(b"IEND", b"")
    with live() as server:
        answer = server.post(bomb)
        assert answer.status_code == 422
        assert "more than the allowed" in answer.json()["detail"]
        still_well(server)


def test_damaged_films_are_answered_or_refused(repository: Path) -> None:
    sys.path.insert(0, str(repository / "benchmarks"))
    try:
        from fuzz_cases import make_seeds, mutate
    finally:
        sys.path.pop(0)
    rng = random.Random(3)
    seeds = [seed for seed in make_seeds() if seed.kind in ("image", "dicom") and len(seed.data) < 100_000]
    with live(max_megapixels=4) as server, ThreadPoolExecutor(4) as pool:
        films = [mutate(chosen := rng.choice(seeds), chosen.data, rng) for _ in range(60)]
        statuses = [answer.status_code for answer in pool.map(server.post, films)]
        still_well(server)
    assert set(statuses) == {200, 422}
