"""One file over HTTP: resumed after a break or a kill, never mixed of two versions, size and checksums verified."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.sources.archive_guard import MAX_BYTES
from pipeline.sources.byte_progress import ByteProgress
from pipeline.sources.checksums import announced_checksums, check_file
from pipeline.sources.disk_room import check_room, full_disk_explained
from pipeline.sources.retries import BrokenTransferError, Retry

if TYPE_CHECKING:
    from requests import Response

Open = Callable[[Mapping[str, str]], "Response"]
"""Sends the request with these headers; returns the answer as a stream (status 200 or 206) or raises."""

_BLOCK = 2**20


@dataclass(frozen=True)
class Mark:
    """Which version a partial file belongs to.

    Attributes
    ----------
    etag : str
        The server's strong mark of a version, or "": then nothing can be continued (RFC 9110, 8.8.3 and 13.1.5).
    total : int
        Bytes of the whole file; 0 if the server does not say.
    sums : dict
        See `pipeline.sources.checksums.announced_checksums`.
    """

    etag: str = ""
    total: int = 0
    sums: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Received:
    """A file that came whole: its bytes, and the checksums that agreed."""

    size: int
    verified: list[str]


@dataclass
class Transfer:
    """Fetches one file.

    Attributes
    ----------
    name : str
        The file's name, for messages.
    send : Open
        Sends the request.
    target : Path
        The file. `TARGET.part` and `TARGET.mark` lie beside it until it is whole.
    progress : ByteProgress
        Told of every byte; what it raises stops the transfer.
    whole : int
        How many times the file's size must be free on the disk, 2 if it is unpacked afterwards.
    known_size : int
        Bytes that the file should have, from elsewhere; used where the server does not say. -1: not known.
    """

    name: str
    send: Open
    target: Path
    progress: ByteProgress
    whole: int = 1
    known_size: int = -1
    _expected: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._expected = max(0, self.known_size)  # so much of it is in the progress already

    def fetch(self, retry: Retry) -> Received:
        """Fetch the file, or what is missing of it; a complete file of the present version is kept.

        Raises
        ------
        requests.RequestException, BrokenTransferError
            The last failure, if trying again did not help. What has come stays for the next call.
        UserError
            If there is no room for it, or the server encodes it in a way that cannot be checked.
        """
        if self.target.is_file():
            self.target.replace(self.part)  # it counts as a part that lacks nothing, so its version is asked for
        if not self._have(self._read_mark()):
            self.mark.unlink(missing_ok=True)
            self.part.unlink(missing_ok=True)
        self.progress.found(self._size())
        retry.bytes_there = self._size
        with full_disk_explained(self.target.parent):
            received = retry(self._attempt)
        self.part.replace(self.target)
        return received

    @property
    def part(self) -> Path:
        """The file while it is incomplete."""
        return self.target.with_name(self.target.name + ".part")

    @property
    def mark(self) -> Path:
        """Which version `part` belongs to."""
        return self.target.with_name(self.target.name + ".mark")

    def _attempt(self) -> Received:
        import requests

        mark = self._read_mark()
        # At least one byte is asked for, or there would be no answer that confirms the version.
        start = max(0, min(self._have(mark), mark.total - 1))
        headers = {"Accept-Encoding": "identity"}  # sizes, ranges and checksums are of the file as it is
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": mark.etag}
        try:
            response = self.send(headers)
        except requests.HTTPError as error:
            if error.response is None or error.response.status_code != 416 or not start:
                raise
            self._discard()
            raise BrokenTransferError("it has no more the part that is missing, so all is fetched anew") from None
        with response:
            mark, start = self._agree(response, mark, start)
            self._copy(response, start, mark)
        return self._verify(mark)

    def _agree(self, response: "Response", mark: Mark, start: int) -> tuple[Mark, int]:
        """Decide from which byte on the answer's body counts, and write down which version it is."""
        if response.headers.get("Content-Encoding", "identity") not in ("", "identity"):
            raise UserError(
                "Kaggle's storage, or a proxy in between, sent the file encoded otherwise than it was asked for: try "
                "another network"
            )
        if response.status_code == 206 and start and _continues(response, mark, start):
            return mark, start
        self._discard()
        if response.status_code != 200:
            raise BrokenTransferError("it sent another part than was asked for, so all is fetched anew")
        mark = described(response.headers)
        write_json(self.mark, asdict(mark))
        return mark, 0

    def _copy(self, response: "Response", start: int, mark: Mark) -> None:
        what = f"{self.name}, of which {start / 1e9:.1f} of {mark.total / 1e9:.1f} GB are here,"
        check_room(self.target.parent, self.whole * mark.total - start, what)
        self.progress.expect(mark.total - self._expected)
        self._expected = mark.total
        self.progress.advance(start - self._size())
        with self.part.open("r+b" if start else "wb") as handle:
            handle.truncate(start)
            handle.seek(start)
            for block in _blocks(response):
                handle.write(block)
                handle.flush()  # or a kill would lose what the progress counts
                self.progress.advance(len(block))
                if handle.tell() > MAX_BYTES:
                    raise UserError(f"more than {MAX_BYTES:,} bytes came for one file: that is no data set")
            os.fsync(handle.fileno())

    def _verify(self, mark: Mark) -> Received:
        size = self._size()
        verified, wrong = check_file(self.part, mark.sums)
        if wrong:
            self._discard()
            raise BrokenTransferError(f"the {' and '.join(wrong)} of what came is wrong, so all is fetched anew")
        if not mark.total and not verified and size != self.known_size:
            self._discard()
            raise BrokenTransferError("it said neither the size nor a checksum, and what came cannot be verified")
        if mark.total and size != mark.total:
            raise BrokenTransferError(f"{size:,} of {mark.total:,} bytes came")
        return Received(size, verified)

    def _read_mark(self) -> Mark:
        try:
            values = json.loads(self.mark.read_text(encoding="utf-8"))
            mark = Mark(str(values["etag"]), int(values["total"]), dict(values["sums"]))
        except (OSError, ValueError, TypeError, KeyError):
            return Mark()
        return mark if mark.etag.isascii() and mark.etag.isprintable() else Mark()

    def _have(self, mark: Mark) -> int:
        size = self._size()
        return size if mark.etag and size <= mark.total else 0

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _discard(self) -> None:
        self.progress.advance(-self._size())
        self.mark.unlink(missing_ok=True)
        self.part.unlink(missing_ok=True)


def described(headers: Mapping[str, str]) -> Mark:
    """Read an answer's headers; a weak ETag is none (RFC 9110, 8.8.1), a length that is no number is unknown."""
    etag, length = headers.get("ETag", ""), headers.get("Content-Length", "")
    strong = etag.startswith('"') and etag.endswith('"') and len(etag) > 2
    total = int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 0
    return Mark(etag if strong else "", total, announced_checksums(headers))


def _continues(response: "Response", mark: Mark, start: int) -> bool:
    """Say whether a partial answer is the missing rest of this very version (RFC 9110, 14.4 and 15.3.7)."""
    headers = response.headers
    wanted = f"bytes {start}-{mark.total - 1}/{mark.total}"
    length = headers.get("Content-Length", str(mark.total - start))
    return (
        headers.get("Content-Range") == wanted
        and headers.get("ETag") == mark.etag
        and (length == str(mark.total - start))
    )


def _blocks(response: "Response") -> Iterable[bytes]:
    """Yield the body; every way in which it can break off is one that may pass."""
    import requests
    import urllib3

    try:
        yield from response.iter_content(_BLOCK)
    except (requests.RequestException, urllib3.exceptions.HTTPError):
        raise BrokenTransferError("the connection broke off") from None
