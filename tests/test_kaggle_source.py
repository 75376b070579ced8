import io
import json
import os
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from kagglesdk import kaggle_env

from pipeline.errors import UserError
from pipeline.kaggle_source import credentials_present, fetch_dataset

SECRET = "KGAT_0123456789abcdef"
SLUG = "nih-chest-xrays/sample"


class Kaggle(ThreadingHTTPServer):
    """Speaks the three messages of a download: a request, its redirection, the archive."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as zipped:
            zipped.writestr("影像/1.png", os.urandom(3 * 2**20))
        self.archive = buffer.getvalue()
        self.etag: str | None = '"version-1"'
        self.status = 200  # of the request
        self.json_error = False
        self.cut_at: int | None = None  # bytes after which the connection breaks
        self.ranges = True
        self.stalls = threading.Event()
        self.released = threading.Event()
        self.seen: list[tuple[str, str, dict[str, str], Any]] = []

    def handle_error(self, *_: object) -> None:
        """A client that goes away early is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Kaggle

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(("POST", self.path, dict(self.headers), body))
        if self.server.stalls.is_set():
            self.server.released.wait()
        if self.server.status != 200:
            self._error()
            return
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.server.server_port}/storage/archive.zip?signature=x")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _error(self) -> None:
        body = json.dumps({"code": self.server.status, "message": f"no: {self.headers['Authorization']}"}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json" if self.server.json_error else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.server.seen.append(("GET", self.path, dict(self.headers), None))
        data, start = self.server.archive, 0
        asked = self.headers.get("Range", "")
        if asked and self.server.ranges and self.headers.get("If-Range") == self.server.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.end_headers()
        end = len(data) if self.server.cut_at is None else self.server.cut_at
        self.wfile.write(data[start:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, clean: Path) -> Iterator[Kaggle]:
    assert clean.is_dir()
    server = Kaggle()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, endpoint)
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home folder without credentials, and no proxy in the way."""
    for name in list(os.environ):
        if name.startswith("KAGGLE_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    home = tmp_path / "家 home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    return home


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_archive_comes_whole(kaggle: Kaggle, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    archive = fetch_dataset(SLUG, tmp_path / "下载 area")
    assert archive == tmp_path / "下载 area" / "sample.zip"
    assert archive.read_bytes() == kaggle.archive
    method, path, headers, body = kaggle.seen[0]
    assert (method, path) == ("POST", "/api/v1/datasets.DatasetApiService/DownloadDataset")
    assert (body["ownerSlug"], body["datasetSlug"]) == ("nih-chest-xrays", "sample")
    assert headers["Authorization"] == f"Bearer {SECRET}"
    out, err = capfd.readouterr()
    assert not out
    assert SECRET not in err


def test_the_storage_is_not_told_the_credentials(kaggle: Kaggle, tmp_path: Path) -> None:
    fetch_dataset(SLUG, tmp_path)  # 127.0.0.1 redirects to localhost, another host by name
    gets = [headers for method, _, headers, _ in kaggle.seen if method == "GET"]
    assert len(gets) == 1
    assert "Authorization" not in gets[0]


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "settings/api"),
        (403, "accept its terms"),
        (404, "compare download.kaggle"),
        (429, "wait some minutes"),
        (500, "try again later"),
        (503, "try again later"),
        (418, "in a browser"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_every_refusal_is_one_line_with_a_remedy(
    kaggle: Kaggle, tmp_path: Path, status: int, remedy: str, as_json: bool
) -> None:
    kaggle.status, kaggle.json_error = status, as_json
    with pytest.raises(UserError, match=remedy) as error:
        fetch_dataset(SLUG, tmp_path / "area")
    assert str(status) in str(error.value)
    assert "\n" not in str(error.value)
    assert SECRET not in repr(error.value)
    assert list((tmp_path / "area").iterdir()) == []
    kaggle.status = 200
    assert fetch_dataset(SLUG, tmp_path / "area").read_bytes() == kaggle.archive


def test_a_broken_download_goes_on_where_it_stopped(kaggle: Kaggle, tmp_path: Path) -> None:
    kaggle.cut_at = 2 * 2**20
    with pytest.raises(UserError, match="goes on where it stopped") as error:
        fetch_dataset(SLUG, tmp_path)
    assert "signature" not in str(error.value)
    assert not (tmp_path / "sample.zip").exists()
    kaggle.cut_at = None
    assert fetch_dataset(SLUG, tmp_path).read_bytes() == kaggle.archive
    assert int(kaggle.seen[-1][2]["Range"].removeprefix("bytes=").removesuffix("-")) > 0


@pytest.mark.parametrize("etag", ['"version-2"', None, 'W/"version-1"'])
def test_another_version_is_never_appended(kaggle: Kaggle, tmp_path: Path, etag: str | None) -> None:
    kaggle.cut_at = 2 * 2**20
    with pytest.raises(UserError):
        fetch_dataset(SLUG, tmp_path)
    kaggle.cut_at, kaggle.etag = None, etag
    kaggle.archive = kaggle.archive[:100] + b"other" + kaggle.archive[105:]
    assert fetch_dataset(SLUG, tmp_path).read_bytes() == kaggle.archive


@pytest.mark.parametrize("etag", ['W/"version-1"', None])
def test_without_a_strong_mark_of_its_version_nothing_is_continued(
    kaggle: Kaggle, tmp_path: Path, etag: str | None
) -> None:
    kaggle.cut_at, kaggle.etag = 2 * 2**20, etag
    with pytest.raises(UserError):
        fetch_dataset(SLUG, tmp_path)
    kaggle.cut_at = None
    kaggle.archive = kaggle.archive[:100] + b"other" + kaggle.archive[105:]
    assert fetch_dataset(SLUG, tmp_path).read_bytes() == kaggle.archive
    assert not any("Range" in headers for _, _, headers, _ in kaggle.seen)


def test_a_server_that_ignores_the_range_is_read_from_the_start(kaggle: Kaggle, tmp_path: Path) -> None:
    kaggle.cut_at = 2 * 2**20
    with pytest.raises(UserError):
        fetch_dataset(SLUG, tmp_path)
    kaggle.cut_at, kaggle.ranges = None, False
    assert fetch_dataset(SLUG, tmp_path).read_bytes() == kaggle.archive


def test_a_complete_archive_is_kept_until_kaggle_has_another(kaggle: Kaggle, tmp_path: Path) -> None:
    archive = fetch_dataset(SLUG, tmp_path)
    first = archive.stat().st_mtime_ns
    assert fetch_dataset(SLUG, tmp_path).stat().st_mtime_ns == first
    kaggle.etag = '"version-2"'
    assert fetch_dataset(SLUG, tmp_path).stat().st_mtime_ns > first


def test_what_is_no_zip_is_refused_and_removed(kaggle: Kaggle, tmp_path: Path) -> None:
    kaggle.archive = b"<html>please sign in</html>"
    with pytest.raises(UserError, match="no complete zip"):
        fetch_dataset(SLUG, tmp_path)
    assert not list(tmp_path.glob("*.zip*"))


def test_a_server_that_says_nothing_is_given_up(kaggle: Kaggle, tmp_path: Path) -> None:
    kaggle.stalls.set()
    with pytest.raises(UserError, match="did not answer in time"):
        fetch_dataset(SLUG, tmp_path, timeout=0.2)


@pytest.mark.usefixtures("kaggle")
def test_no_server_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, "http://127.0.0.1:1")
    with pytest.raises(UserError, match="check the network"):
        fetch_dataset(SLUG, tmp_path)


@pytest.mark.parametrize("slug", ["sample", "a/b/c", "../x", "a/..", "", "https://kaggle.com/a/b", "甲/乙"])
def test_a_name_that_is_no_data_set_is_refused_before_anything_is_sent(
    kaggle: Kaggle, tmp_path: Path, slug: str
) -> None:
    with pytest.raises(UserError, match="owner/data-set"):
        fetch_dataset(slug, tmp_path)
    assert kaggle.seen == []


@pytest.mark.usefixtures("clean")
def test_without_credentials_the_message_says_how_to_get_them(tmp_path: Path) -> None:
    assert credentials_present() is None
    with pytest.raises(UserError, match=r"KAGGLE_API_TOKEN.*kaggle\.json"):
        fetch_dataset(SLUG, tmp_path)


def test_where_credentials_are_found_in_order(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    legacy = json.dumps({"username": "somebody", "key": SECRET})
    origins = []
    for step in (
        lambda: put(clean / "config" / "kaggle" / "kaggle.json", legacy),
        lambda: put(clean / ".kaggle" / "kaggle.json", legacy),
        lambda: (put(clean / "mine" / "kaggle.json", legacy), monkeypatch.setenv("KAGGLE_CONFIG_DIR", f"{clean}/mine")),
        lambda: (monkeypatch.setenv("KAGGLE_USERNAME", "somebody"), monkeypatch.setenv("KAGGLE_KEY", SECRET)),
        lambda: put(clean / ".kaggle" / "access_token", SECRET + "\n"),
        lambda: monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET),
    ):
        step()
        origins.append(credentials_present())
    assert origins == [
        f"{clean}/config/kaggle/kaggle.json",
        f"{clean}/.kaggle/kaggle.json",
        f"{clean}/mine/kaggle.json",
        "the environment variables KAGGLE_USERNAME and KAGGLE_KEY",
        f"{clean}/.kaggle/access_token",
        "the environment variable KAGGLE_API_TOKEN",
    ]


def test_a_user_name_and_key_are_sent_as_such(kaggle: Kaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    file = put(Path.home() / ".kaggle" / "kaggle.json", json.dumps({"username": "Aladdin", "key": "open sesame"}))
    file.chmod(stat.S_IRUSR)
    fetch_dataset(SLUG, tmp_path)
    # RFC 7617, section 2, the example
    assert kaggle.seen[0][2]["Authorization"] == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


def test_a_token_may_be_the_name_of_its_file(kaggle: Kaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", str(put(tmp_path / "my token", SECRET + "\n")))
    fetch_dataset(SLUG, tmp_path / "area")
    assert kaggle.seen[0][2]["Authorization"] == f"Bearer {SECRET}"


def test_a_very_long_token_is_taken_as_a_token(kaggle: Kaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "x" * 5000)
    fetch_dataset(SLUG, tmp_path)
    assert kaggle.seen[0][2]["Authorization"] == "Bearer " + "x" * 5000


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("value", [f"{SECRET}密", f"{SECRET}\r\nX-Evil: 1"])
def test_a_token_that_no_header_can_carry_is_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", value)
    with pytest.raises(UserError, match="no Kaggle credential") as error:
        fetch_dataset(SLUG, tmp_path)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"username": "somebody"}'])
def test_a_broken_kaggle_json_is_named(clean: Path, text: str) -> None:
    put(clean / ".kaggle" / "kaggle.json", text)
    with pytest.raises(UserError, match=r"\.kaggle/kaggle\.json"):
        credentials_present()
