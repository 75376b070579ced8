"""Uploads: what is sent is what is read, in memory, within the limits, whatever the pieces it comes in."""

import asyncio
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.params import ServeParams
from pipeline.serving.problems import KINDS, RequestError
from pipeline.serving.uploads import Budget, ClientGoneError, announced, read_films

PARAMS = ServeParams(max_files=4)
RUNNER = asyncio.Runner()
PART = b'Content-Disposition: form-data; name="files"; filename="%s"\r\nContent-Type: image/png\r\n\r\n'


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    RUNNER.close()


def body(films: Sequence[bytes], boundary: bytes = b"b", name: bytes = b"film") -> bytes:
    parts = b"".join(b"--" + boundary + b"\r\n" + PART % name + film + b"\r\n" for film in films)
    return parts + b"--" + boundary + b"--\r\n"


def read(
    pieces: Sequence[bytes],
    boundary: bytes = b"b",
    limit: int = 1 << 20,
    params: ServeParams = PARAMS,
    *,
    ends: bool = True,
) -> list[bytes]:
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if ends:
        messages.append({"type": "http.request", "body": b"", "more_body": False})
    waiting = iter(messages)

    async def receive() -> dict[str, object]:
        for message in waiting:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    return RUNNER.run(read_films(receive, boundary, limit, params))


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.data())
def test_films_come_out_as_they_were_sent_however_they_were_cut(films: list[bytes], data: st.DataObject) -> None:
    boundary = b"----x9"
    films = [film for film in films if boundary not in film] or [b"film"]
    sent = body(films, boundary)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=12)))
    pieces = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert read(pieces, boundary) == films


@settings(max_examples=50)
@given(st.binary(max_size=400))
def test_any_bytes_end_in_films_or_in_a_problem(data: bytes) -> None:
    for sent in (data, b"--b\r\n" + data, body([data])[: len(data)]):
        problem = None
        try:
            films = read([sent])
        except RequestError as error:
            problem, films = error, []
        assert problem is None or 400 <= problem.status < 500
        assert problem is None or data not in problem.detail.encode() or len(data) < 12
        assert all(isinstance(film, bytes) for film in films)


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (b"", "malformed"),
        (b"--b--\r\n", "no-film"),
        (body([b"film"])[:-5], "malformed"),  # its last boundary is cut
        (body([b"1"] * 5), "too-large"),
        (body([b"film"]).replace(b'name="files"', b'name="patient"'), "malformed"),
        (body([b"film"]).replace(b'; filename="film"', b""), "malformed"),
        (body([b"film"], name=b"x" * 9000), "malformed"),
        (body([bytes(2000)]), "too-large"),
    ],
)
def test_what_is_no_upload_is_refused(sent: bytes, kind: str) -> None:
    with pytest.raises(RequestError) as caught:
        read([sent], limit=1000 if kind == "too-large" and len(sent) > 1500 else 1 << 20)
    assert caught.value.kind == kind
    assert "patient" not in caught.value.detail


def test_a_client_that_stalls_is_told_and_one_that_goes_is_not() -> None:
    quick = replace(PARAMS, idle_s=0.05, upload_s=60.0)
    with pytest.raises(RequestError) as caught:
        read([b"--b\r\n"], params=quick, ends=False)
    assert caught.value.status == 408

    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientGoneError):
        RUNNER.run(read_films(gone, b"b", 100, PARAMS))


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({}, "media-type"),
        ({"content-type": "image/png"}, "media-type"),
        ({"content-type": "multipart/form-data"}, "malformed"),
        ({"content-type": "multipart/form-data; boundary=" + "x" * 71}, "malformed"),
        (
            {
                "content-type": "multipart/form-data; boundary=b",
                "content-length": str(PARAMS.max_upload_mb * 2**20 + 1),
            },
            "too-large",
        ),
        ({"content-type": "multipart/form-data; boundary=b", "content-length": "-1"}, "malformed"),
        ({"content-type": "multipart/form-data; boundary=b", "content-encoding": "gzip"}, "media-type"),
    ],
)
def test_headers_are_enough_to_refuse(headers: dict[str, str], kind: str) -> None:
    with pytest.raises(RequestError) as caught:
        announced(headers, PARAMS)
    assert caught.value.kind == kind


def test_an_announced_length_is_the_limit() -> None:
    assert announced({"content-type": 'multipart/form-data; boundary="b"', "content-length": "7"}, PARAMS) == (b"b", 7)
    _, limit = announced({"content-type": "multipart/form-data; boundary=b"}, PARAMS)
    assert limit == PARAMS.max_upload_mb * 2**20


def test_nothing_goes_to_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise AssertionError("a file was opened")

    for owner, name in ((tempfile, "SpooledTemporaryFile"), (tempfile, "NamedTemporaryFile"), (os, "open")):
        monkeypatch.setattr(owner, name, refuse)
    monkeypatch.setattr("builtins.open", refuse)
    large = bytes(3 << 20)
    assert read([body([large])], limit=8 << 20) == [large]


def test_memory_is_held_and_given_back() -> None:
    budget = Budget(100)
    with budget.holding(60):
        with pytest.raises(RequestError) as caught, budget.holding(60):
            pass
        assert caught.value.status == 429
        assert int(caught.value.headers["Retry-After"]) >= 1
        with budget.holding(40):
            assert budget.used == 100
    assert budget.used == 0


def test_every_problem_is_one_of_the_client_or_says_to_come_again() -> None:
    assert {kind.status for kind in KINDS.values()} <= {400, 401, 403, 404, 405, 408, 413, 415, 421, 422, 429, 500, 503}
