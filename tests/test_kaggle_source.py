"""The archive of a whole data set or competition, from a server that speaks Kaggle's calls."""

import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from kaggle_server import SECRET, SIGNATURE, Kaggle, Odd, running, sign_in
from kagglesdk import kaggle_env

from pipeline.errors import UserError
from pipeline.sources.kaggle_source import announced_size, fetch_dataset
from pipeline.sources.retries import Patience

SET = "nih-chest-xrays/sample"
COMPETITION = "competitions/rsna-pneumonia-detection-challenge"


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kaggle]:
    with running() as server:
        sign_in(monkeypatch, tmp_path / "家 home", server)
        yield server


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def patience(waits: list[float]) -> Patience:
    return Patience(tries=3, sleep=waits.append)


def test_the_archive_comes_whole(kaggle: Kaggle, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    archive = fetch_dataset(SET, tmp_path / "下载 area")
    assert archive == tmp_path / "下载 area" / "sample.zip"
    assert archive.read_bytes() == kaggle.archive
    method, path, headers, body = kaggle.seen[0]
    assert (method, path) == ("POST", "/api/v1/datasets.DatasetApiService/DownloadDataset")
    assert (body["ownerSlug"], body["datasetSlug"]) == ("nih-chest-xrays", "sample")
    assert headers["Authorization"] == f"Bearer {SECRET}"
    out, err = capfd.readouterr()
    assert not out
    assert "verified: size, crc32c and md5" in err
    assert SECRET not in err
    assert SIGNATURE not in err


def test_a_competition_has_calls_of_its_own(kaggle: Kaggle, tmp_path: Path) -> None:
    archive = fetch_dataset(COMPETITION, tmp_path)
    assert archive.name == "rsna-pneumonia-detection-challenge.zip"
    assert archive.read_bytes() == kaggle.archive
    assert kaggle.seen[0][1] == "/api/v1/competitions.CompetitionApiService/DownloadDataFiles"
    assert kaggle.seen[0][3] == {"competitionName": "rsna-pneumonia-detection-challenge"}


def test_the_storage_is_not_told_the_credentials(kaggle: Kaggle, tmp_path: Path) -> None:
    fetch_dataset(SET, tmp_path)  # 127.0.0.1 redirects to localhost, another host by name
    gets = [headers for method, _, headers, _ in kaggle.seen if method == "GET"]
    assert len(gets) == 1
    assert "Authorization" not in gets[0]
    assert gets[0]["Accept-Encoding"] == "identity"


def test_a_user_name_and_key_are_sent_as_such(kaggle: Kaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    file = Path.home() / ".kaggle" / "kaggle.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"username": "Aladdin", "key": "open sesame"}), encoding="utf-8")
    file.chmod(stat.S_IRUSR)
    fetch_dataset(SET, tmp_path)
    # RFC 7617, section 2, the example
    assert kaggle.seen[0][2]["Authorization"] == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


@pytest.mark.parametrize(
    ("address", "status", "remedy"),
    [
        (SET, 401, "settings/api"),
        (SET, 403, "datasets/nih-chest-xrays/sample and accept its terms"),
        (COMPETITION, 403, "competitions/rsna-pneumonia-detection-challenge/rules"),
        (SET, 404, "compare download.kaggle.*kaggle.com/datasets/nih"),
        (COMPETITION, 404, "compare download.kaggle.*kaggle.com/competitions/rsna"),
        (SET, 407, "HTTPS_PROXY"),
        (SET, 429, "wait some minutes"),
        (SET, 500, "try again later"),
        (SET, 503, "try again later"),
        (SET, 418, "in a browser"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_every_refusal_is_one_line_with_a_remedy(
    kaggle: Kaggle, tmp_path: Path, patience: Patience, address: str, status: int, remedy: str, as_json: bool
) -> None:
    kaggle.posts.extend([Odd(status, json_error=as_json)] * 3)
    with pytest.raises(UserError, match=remedy) as error:
        fetch_dataset(address, tmp_path / "area", patience)
    assert str(status) in str(error.value)
    assert "\n" not in str(error.value)
    assert SECRET not in repr(error.value)
    assert list((tmp_path / "area").iterdir()) == []
    passing = status == 429 or status >= 500
    assert len(kaggle.seen) == (3 if passing else 1)  # what does not pass is not asked for again
    kaggle.posts.clear()
    assert fetch_dataset(address, tmp_path / "area").read_bytes() == kaggle.archive


def test_an_error_under_status_200_is_an_error(kaggle: Kaggle, tmp_path: Path) -> None:
    # Kaggle's own client raises for a JSON body with a code of 400 and more, whatever the status is.
    kaggle.posts.append(Odd(200, body=b'{"code": 403, "message": "x"}', json_error=True))
    with pytest.raises(UserError, match=r"403.*accept its terms"):
        fetch_dataset(SET, tmp_path)


def test_a_storage_that_refuses_is_not_taken_for_kaggle(kaggle: Kaggle, tmp_path: Path, patience: Patience) -> None:
    kaggle.gets.append(Odd(403))
    assert fetch_dataset(SET, tmp_path, patience).read_bytes() == kaggle.archive  # with a new address
    kaggle.etag = '"version-2"'
    kaggle.gets.extend([Odd(403)] * 3)
    with pytest.raises(UserError, match=r"storage refuses.*403.*clock") as error:
        fetch_dataset(SET, tmp_path, patience)
    assert "terms" not in str(error.value)


def test_what_is_no_zip_is_refused_and_removed(kaggle: Kaggle, tmp_path: Path) -> None:
    kaggle.archive = b"<html>please sign in</html>"
    with pytest.raises(UserError, match="no complete zip"):
        fetch_dataset(SET, tmp_path)
    assert not list(tmp_path.glob("*.zip"))


def test_a_server_that_says_nothing_is_given_up(
    kaggle: Kaggle, tmp_path: Path, waits: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.posts.extend([Odd(stall=True)] * 2)
    with pytest.raises(UserError, match="did not answer in time"):
        fetch_dataset(SET, tmp_path, Patience(read=0.2, tries=2, sleep=waits.append))
    assert len(waits) == 1
    assert "did not answer in time; waiting" in capsys.readouterr().err


def test_no_network_is_said_after_few_tries(
    kaggle: Kaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    assert kaggle.server_port
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, "http://127.0.0.1:1")
    with pytest.raises(UserError, match="check the network"):
        fetch_dataset(SET, tmp_path, Patience(sleep=waits.append))
    assert len(waits) == Patience().first_tries - 1


@pytest.mark.parametrize("proxy", ["http://somebody:geheim@127.0.0.1:1", "http://geheim:x@[::1"])
def test_a_proxy_that_is_away_is_named_and_its_password_is_not(
    kaggle: Kaggle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    waits: list[float],
    proxy: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(UserError, match="proxy") as error:
        fetch_dataset(SET, tmp_path, Patience(sleep=waits.append))
    assert "geheim" not in str(error.value) + "".join(capfd.readouterr())
    assert kaggle.seen == []


@pytest.mark.parametrize("address", ["sample", "a/b/c", "../x", "a/..", "", "https://kaggle.com/a/b", "甲/乙"])
def test_a_name_that_is_no_source_is_refused_before_anything_is_sent(
    kaggle: Kaggle, tmp_path: Path, address: str
) -> None:
    with pytest.raises(UserError, match="owner/data-set or competitions/NAME"):
        fetch_dataset(address, tmp_path)
    assert kaggle.seen == []


def test_an_unknown_environment_is_refused(kaggle: Kaggle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "ELSEWHERE")
    with pytest.raises(UserError, match="KAGGLE_API_ENVIRONMENT"):
        fetch_dataset(SET, tmp_path)
    assert kaggle.seen == []


def test_odd_headers_bring_no_signed_address_into_the_log(
    kaggle: Kaggle, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    # urllib3 warns of a header that it cannot read, and quotes the address.
    kaggle.gets.append(Odd(headers={"X-Odd": "1\r\nno colon here\r\nX-More: 2"}))
    with caplog.at_level(logging.WARNING):
        fetch_dataset(SET, tmp_path, Patience(tries=1))
    assert SIGNATURE not in caplog.text + "".join(capfd.readouterr())
    written = [path.read_text("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(SIGNATURE in text or SECRET in text for text in written)


def test_more_than_the_disk_holds_is_refused_before_it_comes(kaggle: Kaggle, tmp_path: Path) -> None:
    kaggle.gets.append(Odd(length=10**18))
    with pytest.raises(UserError, match=r"needs 2000000000\.0 GB.* make room") as error:  # as much again, unpacked
        fetch_dataset(SET, tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("*.part"))
    assert announced_size(SET, tmp_path) == 10**18


def test_the_announced_size_is_known_without_a_network(kaggle: Kaggle, tmp_path: Path) -> None:
    assert announced_size(SET, tmp_path) is None
    fetch_dataset(SET, tmp_path)
    assert announced_size(SET, tmp_path) == len(kaggle.archive)
    (tmp_path / "sample.zip.mark").write_text("[]", encoding="utf-8")
    assert announced_size(SET, tmp_path) is None
