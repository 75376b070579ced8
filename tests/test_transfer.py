"""Breaks, kills, lies and other versions: the file is the server's present one, whole, or it is not there."""

import base64
import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaggle_server import SECRET, SIGNATURE, Kaggle, Odd, goog_hash, packed, running, sign_in

from pipeline.errors import UserError
from pipeline.progress import set_quiet
from pipeline.sources.byte_progress import ByteProgress
from pipeline.sources.checksums import announced_checksums, check_file
from pipeline.sources.kaggle_source import fetch_dataset
from pipeline.sources.retries import Patience, Retry
from pipeline.sources.transfer import described

SET = "nih-chest-xrays/sample"
MIB = 2**20


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kaggle]:
    with running() as server:
        sign_in(monkeypatch, tmp_path / "home", server)
        yield server


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def patience(waits: list[float]) -> Patience:
    return Patience(tries=3, sleep=waits.append)


@pytest.fixture
def area(tmp_path: Path) -> Path:
    return tmp_path / "下载 area"


def test_a_break_in_the_middle_goes_on_where_it_was(
    kaggle: Kaggle, area: Path, patience: Patience, waits: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    kaggle.gets.append(Odd(cut=2 * MIB))
    assert fetch_dataset(SET, area, patience).read_bytes() == kaggle.archive
    assert kaggle.ranges() == [None, f"bytes={2 * MIB}-"]
    assert len(waits) == 1
    err = capfd.readouterr().err
    assert "the connection broke off; waiting" in err
    assert SIGNATURE not in err
    assert SECRET not in err


def test_a_stall_is_a_break(kaggle: Kaggle, area: Path, waits: list[float]) -> None:
    kaggle.gets.append(Odd(cut=2 * MIB, stall=True))
    patience = Patience(read=0.3, tries=3, sleep=waits.append)
    assert fetch_dataset(SET, area, patience).read_bytes() == kaggle.archive
    assert kaggle.ranges() == [None, f"bytes={2 * MIB}-"]


def test_the_next_run_goes_on_too(kaggle: Kaggle, area: Path, waits: list[float]) -> None:
    kaggle.gets.append(Odd(cut=2 * MIB))
    with pytest.raises(UserError, match=r"did not come whole.*goes on where it stopped"):
        fetch_dataset(SET, area, Patience(tries=1, sleep=waits.append))
    assert not (area / "sample.zip").exists()
    assert fetch_dataset(SET, area).read_bytes() == kaggle.archive
    assert kaggle.ranges()[-1] == f"bytes={2 * MIB}-"


KILLED = """
import os, signal, sys
from pathlib import Path
from kagglesdk import kaggle_env
from pipeline.sources import kaggle_source
from pipeline.sources.byte_progress import ByteProgress

kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.LOCAL] = sys.argv[1]

class Deadly(ByteProgress):
    def advance(self, count):
        super().advance(count)
        if self.done >= int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

kaggle_source.ByteProgress = Deadly
kaggle_source.fetch_dataset("nih-chest-xrays/sample", Path(sys.argv[2]))
"""


def killed(kaggle: Kaggle, area: Path, after: int) -> None:
    endpoint = f"http://127.0.0.1:{kaggle.server_port}"
    child = subprocess.run([sys.executable, "-c", KILLED, endpoint, str(area), str(after)], check=False)
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize("changed", [False, True])
def test_a_killed_download_goes_on_or_begins_anew_if_kaggle_has_another(
    kaggle: Kaggle, area: Path, changed: bool
) -> None:
    killed(kaggle, area, 2 * MIB)
    assert not (area / "sample.zip").exists()
    if changed:
        kaggle.etag = '"version-2"'
        kaggle.archive = kaggle.archive[:100] + b"other" + kaggle.archive[105:]
    assert fetch_dataset(SET, area).read_bytes() == kaggle.archive
    assert kaggle.ranges() == [None, f"bytes={2 * MIB}-"]
    assert sorted(path.name for path in area.iterdir()) == ["sample.zip", "sample.zip.mark"]


def test_a_download_killed_at_its_last_byte_is_confirmed(kaggle: Kaggle, area: Path) -> None:
    size = len(kaggle.archive)
    killed(kaggle, area, size)
    assert fetch_dataset(SET, area).read_bytes() == kaggle.archive
    assert kaggle.ranges()[-1] == f"bytes={size - 1}-"


def test_a_complete_archive_is_kept_until_kaggle_has_another(kaggle: Kaggle, area: Path) -> None:
    fetch_dataset(SET, area)
    fetch_dataset(SET, area)
    assert kaggle.ranges()[1] == f"bytes={len(kaggle.archive) - 1}-"  # one byte confirms the version
    kaggle.etag = '"version-2"'
    kaggle.archive = kaggle.archive[:100] + b"other" + kaggle.archive[105:]
    assert fetch_dataset(SET, area).read_bytes() == kaggle.archive


@pytest.mark.parametrize("etag", ['"version-2"', None, 'W/"version-1"'])
@pytest.mark.parametrize("same_run", [False, True])
def test_another_version_is_never_appended(
    kaggle: Kaggle, area: Path, waits: list[float], etag: str | None, same_run: bool
) -> None:
    kaggle.hashes = False  # they would find out as well

    def change(seconds: float) -> None:
        waits.append(seconds)
        kaggle.etag = etag
        kaggle.archive = kaggle.archive[:100] + b"other" + kaggle.archive[105:]

    kaggle.gets.append(Odd(cut=2 * MIB))
    if same_run:
        fetch_dataset(SET, area, Patience(sleep=change))
    else:
        with pytest.raises(UserError):
            fetch_dataset(SET, area, Patience(tries=1))
        change(0)
        fetch_dataset(SET, area)
    assert (area / "sample.zip").read_bytes() == kaggle.archive


@pytest.mark.parametrize("etag", ['W/"version-1"', None])
def test_without_a_strong_mark_of_its_version_nothing_is_continued(
    kaggle: Kaggle, area: Path, patience: Patience, etag: str | None
) -> None:
    kaggle.etag = etag
    kaggle.gets.append(Odd(cut=2 * MIB))
    assert fetch_dataset(SET, area, patience).read_bytes() == kaggle.archive
    assert kaggle.ranges() == [None, None]


OTHER = bytes(4 * MIB)


@pytest.mark.parametrize(
    "odd",
    [
        Odd(ignore_range=True),  # 200 and all of it
        Odd(range="bytes 0-9/10", data=OTHER),
        Odd(range=f"bytes {2 * MIB}-{2 * MIB + 9}/{2 * MIB + 10}", data=OTHER),
        Odd(range="nonsense", data=OTHER),
        Odd(headers={"ETag": '"version-2"'}, data=OTHER),  # 206 of another version: If-Range was ignored
        Odd(headers={"ETag": ""}, data=OTHER),
        Odd(length=17),  # shorter than the part that it announces
        Odd(headers={"Content-Length": ""}, cut=17),  # and without any length
        Odd(416),
    ],
)
@pytest.mark.parametrize("hashes", [False, True])
def test_a_server_that_gets_ranges_wrong_never_makes_a_mixed_file(
    kaggle: Kaggle, area: Path, patience: Patience, odd: Odd, hashes: bool
) -> None:
    kaggle.hashes = hashes
    if odd.data is not None:
        kaggle.archive = packed({"1.png": os.urandom(4 * MIB + 1 - len(packed({"1.png": b"x"})))})
        assert len(kaggle.archive) == len(OTHER)
    kaggle.gets.extend([Odd(cut=2 * MIB), odd])
    assert fetch_dataset(SET, area, patience).read_bytes() == kaggle.archive


def test_a_part_that_nobody_asked_for_is_refused(kaggle: Kaggle, area: Path, patience: Patience) -> None:
    kaggle.gets.append(Odd(206, body=b"x" * 100))
    assert fetch_dataset(SET, area, patience).read_bytes() == kaggle.archive


def test_a_length_that_is_too_large_is_a_break_each_time(kaggle: Kaggle, area: Path, waits: list[float]) -> None:
    kaggle.gets.extend([Odd(length=len(kaggle.archive) + 1)] * 9)
    with pytest.raises(UserError, match="did not come whole"):
        fetch_dataset(SET, area, Patience(tries=3, sleep=waits.append))
    assert not (area / "sample.zip").exists()
    assert len(kaggle.ranges()) == 3


def test_a_length_that_is_too_small_is_found_by_the_checksum(kaggle: Kaggle, area: Path, patience: Patience) -> None:
    kaggle.gets.append(Odd(length=len(kaggle.archive) - 5))
    assert fetch_dataset(SET, area, patience).read_bytes() == kaggle.archive
    assert kaggle.ranges() == [None, None]


def test_wrong_bytes_are_fetched_anew_and_never_kept(
    kaggle: Kaggle, area: Path, patience: Patience, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = bytearray(kaggle.archive)
    wrong[1000] ^= 1
    kaggle.gets.append(Odd(data=bytes(wrong)))
    assert fetch_dataset(SET, area, patience).read_bytes() == kaggle.archive
    assert "the crc32c and md5 of what came is wrong" in capfd.readouterr().err
    kaggle.etag = '"version-2"'
    kaggle.gets.extend([Odd(data=bytes(wrong))] * 3)
    with pytest.raises(UserError, match="crc32c and md5"):
        fetch_dataset(SET, area, patience)
    assert not list(area.glob("*.zip*"))


def test_a_damaged_part_is_found_at_the_end(kaggle: Kaggle, area: Path, patience: Patience) -> None:
    kaggle.gets.append(Odd(cut=2 * MIB))
    with pytest.raises(UserError):
        fetch_dataset(SET, area, Patience(tries=1))
    with (area / "sample.zip.part").open("r+b") as handle:
        handle.write(b"damage by a failing disk")
    assert fetch_dataset(SET, area, patience).read_bytes() == kaggle.archive


@pytest.mark.parametrize("text", ["", "{", "[]", '{"etag": "\\"version-1\\"", "total": "x", "sums": {}}', "null"])
def test_a_mark_that_cannot_be_read_means_from_the_start(kaggle: Kaggle, area: Path, text: str) -> None:
    kaggle.gets.append(Odd(cut=2 * MIB))
    with pytest.raises(UserError):
        fetch_dataset(SET, area, Patience(tries=1))
    (area / "sample.zip.mark").write_text(text, encoding="utf-8")
    assert fetch_dataset(SET, area).read_bytes() == kaggle.archive
    assert kaggle.ranges() == [None, None]


def test_neither_size_nor_checksum_is_refused(kaggle: Kaggle, area: Path, patience: Patience) -> None:
    kaggle.hashes = False
    kaggle.gets.extend([Odd(headers={"Content-Length": ""})] * 3)
    with pytest.raises(UserError, match="neither the size nor a checksum"):
        fetch_dataset(SET, area, patience)
    kaggle.hashes = True
    kaggle.gets.append(Odd(headers={"Content-Length": ""}))
    assert fetch_dataset(SET, area, patience).read_bytes() == kaggle.archive


def test_an_encoding_that_nobody_asked_for_is_refused(kaggle: Kaggle, area: Path) -> None:
    kaggle.gets.append(Odd(headers={"Content-Encoding": "gzip"}))
    with pytest.raises(UserError, match="encoded otherwise"):
        fetch_dataset(SET, area, Patience(tries=1))


FULL = """
import resource, sys
from pathlib import Path
from kagglesdk import kaggle_env
from pipeline.errors import UserError
from pipeline.sources.kaggle_source import fetch_dataset

kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.LOCAL] = sys.argv[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    fetch_dataset("nih-chest-xrays/sample", Path(sys.argv[2]))
except UserError as error:
    sys.exit(str(error))
"""


def test_a_disk_that_fills_up_on_the_way_is_one_line(kaggle: Kaggle, area: Path) -> None:
    # The system's limit on a file's size makes writing fail as a full disk does: the last block is cut short.
    limit = 2 * MIB + 5
    command = [sys.executable, "-c", FULL, f"http://127.0.0.1:{kaggle.server_port}", str(area), str(limit)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert child.stderr.count("\n") == 1
    assert "is full" in child.stderr
    assert "it goes on where it stopped" in child.stderr
    assert fetch_dataset(SET, area).read_bytes() == kaggle.archive
    assert kaggle.ranges() == [None, f"bytes={limit}-"]


# Waiting


def test_waits_grow_with_jitter_up_to_the_cap(kaggle: Kaggle, area: Path, waits: list[float]) -> None:
    kaggle.posts.extend([Odd(500)] * 9)
    with pytest.raises(UserError, match="fault of its own"):
        fetch_dataset(SET, area, Patience(tries=8, first_wait=1, cap=10, sleep=waits.append))
    assert len(waits) == 7
    for number, wait in enumerate(waits):
        assert min(10, 2**number) <= wait <= min(10, 2**number + 1)
    assert any(wait != round(wait) for wait in waits[:3])


@pytest.mark.parametrize(
    ("value", "wait"),
    [("7", 7), ("100000", 20), ("-5", 1), ("soon", 1), ("", 1), ("Wed, 21 Oct 2015 07:28:00 GMT", 1), ("0", 1)],
)
def test_retry_after_is_honoured_up_to_the_cap(
    kaggle: Kaggle, area: Path, waits: list[float], value: str, wait: float
) -> None:
    kaggle.posts.append(Odd(429, headers={"Retry-After": value}))
    fetch_dataset(SET, area, Patience(cap=20, sleep=waits.append))
    assert len(waits) == 1
    assert wait <= waits[0] <= max(2, wait)


def test_retry_after_may_be_a_date(kaggle: Kaggle, area: Path, waits: list[float]) -> None:
    moment = datetime.now(UTC) + timedelta(hours=1)
    kaggle.posts.append(Odd(503, headers={"Retry-After": format_datetime(moment, usegmt=True)}))
    fetch_dataset(SET, area, Patience(cap=7200, sleep=waits.append))
    assert 3500 < waits[0] <= 3600


def test_every_wait_is_one_line(
    kaggle: Kaggle, area: Path, waits: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    kaggle.posts.extend([Odd(429, headers={"Retry-After": "7"}), Odd(500)])
    fetch_dataset(SET, area, Patience(sleep=waits.append))
    lines = [line for line in capfd.readouterr().err.splitlines() if "waiting" in line]
    assert lines[0] == "Kaggle: it answered with status 429; waiting 7 s before try 2 of 8"
    assert "try 3 of 8" in lines[1]


def test_a_bad_line_may_break_as_often_as_it_likes_if_it_gets_on(
    kaggle: Kaggle, area: Path, waits: list[float]
) -> None:
    kaggle.gets.extend([Odd(cut=MIB + 7)] * 2)
    assert fetch_dataset(SET, area, Patience(tries=2, sleep=waits.append)).read_bytes() == kaggle.archive
    assert len(kaggle.ranges()) == 3  # two tries in a row that failed would have been the last


def test_a_server_that_always_begins_anew_is_given_up(kaggle: Kaggle, area: Path, waits: list[float]) -> None:
    kaggle.etag = None
    kaggle.gets.extend([Odd(cut=2 * MIB)] * 20)
    with pytest.raises(UserError, match="did not come whole"):
        fetch_dataset(SET, area, Patience(tries=3, sleep=waits.append))
    assert len(kaggle.ranges()) == 3  # the first brought bytes, the others no more than it


def test_what_is_no_failure_of_the_network_is_not_tried_again() -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise UserError("no")

    with pytest.raises(UserError):
        Retry(Patience())(fail)
    assert len(calls) == 1


# Checksums


def test_checksums_are_those_of_the_published_examples(tmp_path: Path) -> None:
    # CRC-32C: RFC 3720, B.4, 32 bytes of zeros: 0x8a9136aa; MD5: RFC 1321, A.5, "abc"
    zeros, abc = tmp_path / "zeros", tmp_path / "abc"
    zeros.write_bytes(bytes(32))
    abc.write_bytes(b"abc")
    crc = base64.b64encode(bytes.fromhex("8a9136aa")).decode()
    md5 = base64.b64encode(bytes.fromhex("900150983cd24fb0d6963f7d28e17f72")).decode()
    assert check_file(zeros, {"crc32c": crc}) == (["crc32c"], [])
    assert check_file(abc, {"crc32c": crc, "md5": md5}) == (["md5"], ["crc32c"])
    assert check_file(abc, announced_checksums({"Content-MD5": md5})) == (["md5"], [])
    assert check_file(abc, announced_checksums({"ETag": '"900150983cd24fb0d6963f7d28e17f72"'})) == (["md5"], [])
    assert check_file(abc, announced_checksums({"ETag": '"00000000000000000000000000000000"'})) == ([], [])


@given(st.text(max_size=60))
def test_no_header_breaks_the_reading_of_checksums(text: str) -> None:
    for name in ("x-goog-hash", "Content-MD5", "ETag"):
        assert set(announced_checksums({name: text})) <= {"crc32c", "md5", "etag-md5"}
    assert described({"ETag": text, "Content-Length": text}).total >= 0


def test_both_sums_of_google_are_read() -> None:
    assert set(announced_checksums({"x-goog-hash": goog_hash(b"x")})) == {"crc32c", "md5"}
    assert set(announced_checksums({"x-goog-hash": "crc32c=AAAAAA==,md5=x"})) == {"crc32c"}


# Progress


def test_a_log_gets_sparse_lines_with_speed_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    progress = ByteProgress("downloading sample", total=1_000_000_000, clock=lambda: now[0])
    with progress:
        progress.found(100_000_000)
        for _ in range(40):
            now[0] += 1
            progress.advance(10_000_000)
    lines = capsys.readouterr().err.splitlines()
    # 30 s at 10 MB/s and what was there make 400 MB; the other 600 MB take 60 s
    assert lines == ["downloading sample: 400/1,000 MB (40 %), 10.0 MB/s, 60 s left"]


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    set_quiet(True)
    try:
        with ByteProgress("x", clock=lambda: now[0]) as progress:
            now[0] = 100
            progress.advance(1)
    finally:
        set_quiet(False)
    assert capsys.readouterr().err == ""


TERMINAL = """
from pipeline.sources.byte_progress import ByteProgress
with ByteProgress("downloading [bold]sample", 5_000_000) as progress:
    progress.found(1_000_000)
    progress.advance(4_000_000)
"""


def test_a_terminal_gets_a_bar_with_bytes_and_speed() -> None:
    leader, follower = os.openpty()
    environment = os.environ | {"COLUMNS": "120", "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", TERMINAL], stderr=follower, env=environment, check=True)
    os.close(follower)
    shown = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert "downloading [bold]sample" in shown
    assert "5.0/5.0 MB" in shown


def test_no_checksum_is_said(kaggle: Kaggle, area: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kaggle.hashes = False
    fetch_dataset(SET, area)
    assert "verified: size, no checksum, since Kaggle gave none" in capfd.readouterr().err


def test_cuts_anywhere_give_the_same_file(kaggle: Kaggle, area: Path, waits: list[float]) -> None:
    places = random.Random(1)
    kaggle.gets.extend(Odd(cut=places.randrange(MIB)) for _ in range(6))
    archive = fetch_dataset(SET, area, Patience(tries=20, sleep=waits.append))
    assert hashlib.sha256(archive.read_bytes()).digest() == hashlib.sha256(kaggle.archive).digest()
