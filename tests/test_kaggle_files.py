"""Some files of a set: listed page by page, chosen by patterns, fetched once, unpacked, resumed after a kill."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kaggle_server import SECRET, SIGNATURE, Kaggle, Odd, packed, running, sign_in

from pipeline.download import download, with_files
from pipeline.errors import UserError
from pipeline.files import DOWNLOAD_RECORD as RECORD
from pipeline.params import DownloadParams, Params
from pipeline.sources.kaggle_files import fetch_files
from pipeline.sources.retries import Patience

SET = "nih-chest-xrays/data"
COMPETITION = "competitions/rsna-pneumonia-detection-challenge"
FILES = {
    "Data_Entry_2017.csv": b"Image Index,Finding Labels\n",
    "images_001/images/1.png": b"\x89PNG one",
    "images_001/images/片 2.png": b"\x89PNG two",
    "images_002/images/3.png": b"\x89PNG three",
    "readme.json": b'{"code": 500, "message": "a file, and no error"}',
}


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kaggle]:
    with running() as server:
        sign_in(monkeypatch, tmp_path / "home", server)
        server.files = dict(FILES)
        yield server


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tmp_path / "数据 data" / "raw"


def wanted(*patterns: str, address: str = SET) -> Params:
    return Params(download=DownloadParams(source="kaggle", kaggle=address, files=list(patterns)))


def tree(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop(RECORD, None)
    return found


def picked(*names: str) -> dict[str, bytes]:
    return {name: FILES[name] for name in names}


def fetched(kaggle: Kaggle) -> list[str]:
    """Return the names that were asked for since the last call."""
    names = sorted(body["fileName"] for body in kaggle.asked("DownloadDataset") + kaggle.asked("DownloadDataFile"))
    kaggle.seen.clear()
    return names


@pytest.mark.parametrize("address", [SET, COMPETITION])
@pytest.mark.parametrize("page", [1, 2, 200])
def test_the_files_that_match_come_and_no_others(kaggle: Kaggle, raw: Path, address: str, page: int) -> None:
    kaggle.page = page
    download(wanted("images_001/*", "*.csv", address=address), raw)
    assert tree(raw) == picked("Data_Entry_2017.csv", "images_001/images/1.png", "images_001/images/片 2.png")
    assert [path.name for path in raw.parent.iterdir()] == ["raw"]
    lists = kaggle.asked("ListDatasetFiles") + kaggle.asked("ListDataFiles")
    assert len(lists) == -(-len(FILES) // page)
    assert len({body.get("pageToken") for body in lists}) == len(lists)
    assert len(fetched(kaggle)) == 3


def test_a_folders_name_stands_for_what_it_holds(kaggle: Kaggle, raw: Path) -> None:
    download(wanted("images_002", "readme.json"), raw)
    assert tree(raw) == picked("images_002/images/3.png", "readme.json")
    assert kaggle.seen


def test_a_second_folder_adds_to_the_first_and_nothing_comes_twice(kaggle: Kaggle, raw: Path) -> None:
    download(wanted("images_001/*"), raw)
    assert len(fetched(kaggle)) == 2
    download(wanted("images_001/*", "images_002/*"), raw)
    assert fetched(kaggle) == ["images_002/images/3.png"]
    assert tree(raw) == {name: data for name, data in FILES.items() if name.startswith("images")}
    download(wanted("images_002/*"), raw)  # the raw folder is what the parameters say
    assert fetched(kaggle) == []
    assert tree(raw) == picked("images_002/images/3.png")


def test_a_new_version_or_a_changed_file_is_fetched_again(kaggle: Kaggle, raw: Path) -> None:
    download(wanted("images_001/*"), raw)
    fetched(kaggle)
    (raw / "images_001" / "images" / "1.png").write_bytes(b"cut")
    download(wanted("images_001/*"), raw)
    assert fetched(kaggle) == ["images_001/images/1.png"]
    kaggle.date = "2026-02-03T04:05:06Z"
    download(wanted("images_001/*"), raw)
    assert len(fetched(kaggle)) == 2
    assert tree(raw) == picked("images_001/images/1.png", "images_001/images/片 2.png")


def test_another_source_takes_nothing_over(kaggle: Kaggle, raw: Path) -> None:
    download(wanted("images_001/*"), raw)
    fetched(kaggle)
    download(wanted("images_001/*", address="somebody/data"), raw)
    assert len(fetched(kaggle)) == 2
    area = raw.with_name("area")
    for address, count in ((SET, 5), (SET, 0), ("somebody/data", 5)):
        fetch_files(address, ["*"], raw.with_name("none"), area)
        assert len(fetched(kaggle)) == count


@pytest.mark.parametrize("pattern", ["imagse_001/*", "images_001/images/1.PNG", "[", "images_00"])
def test_a_pattern_without_a_match_names_what_there_is(kaggle: Kaggle, raw: Path, pattern: str) -> None:
    with pytest.raises(UserError, match=r"matches none of the 5 files.*images_001/") as error:
        download(wanted("*.csv", pattern), raw)
    assert repr(pattern) in str(error.value)
    assert fetched(kaggle) == []
    assert not raw.exists()


def test_a_single_file_that_comes_as_a_zip_is_unpacked(kaggle: Kaggle, raw: Path) -> None:
    kaggle.wrapped = {"Data_Entry_2017.csv", "images_002/images/3.png"}
    download(wanted("*.csv", "images_002"), raw)
    assert tree(raw) == picked("Data_Entry_2017.csv", "images_002/images/3.png")


def test_a_zip_based_format_is_left_as_it_is(kaggle: Kaggle, raw: Path) -> None:
    kaggle.files["table.xlsx"] = packed({"xl/workbook.xml": b"<x/>", "[Content_Types].xml": b"<y/>"})
    kaggle.files["odd.xlsx"] = packed({"../x": b""})
    download(wanted("*.xlsx"), raw)
    assert tree(raw) == {name: kaggle.files[name] for name in ("table.xlsx", "odd.xlsx")}


def test_a_listed_archive_is_unpacked_into_a_folder_of_its_name(kaggle: Kaggle, raw: Path) -> None:
    kaggle.files = {"train/part1.zip": packed({"a/1.png": b"1"}), "train/2.png": b"2"}
    download(wanted("train"), raw)
    assert tree(raw) == {"train/part1/a/1.png": b"1", "train/2.png": b"2"}
    kaggle.seen.clear()
    download(wanted("train"), raw)
    assert fetched(kaggle) == []
    assert tree(raw) == {"train/part1/a/1.png": b"1", "train/2.png": b"2"}


def test_a_hostile_archive_in_the_list_is_refused(kaggle: Kaggle, raw: Path) -> None:
    kaggle.files = {"a.zip": packed({"../../evil": b"1"}), "b.png": b"2"}
    with pytest.raises(UserError, match="leads out of the folder"):
        download(wanted("*"), raw)
    assert not raw.exists()
    assert not any(path.name == "evil" for path in raw.parent.parent.rglob("*"))


def test_a_damaged_archive_is_removed_and_fetched_anew(kaggle: Kaggle, raw: Path) -> None:
    good = packed({"1.png": b"PNG 1"})
    kaggle.files = {"a.zip": good.replace(b"PNG 1", b"PNG 2")}
    with pytest.raises(UserError, match="run the stage again"):
        download(wanted("a.zip"), raw)
    kaggle.files = {"a.zip": good}
    download(wanted("a.zip"), raw)
    assert tree(raw) == {"a/1.png": b"PNG 1"}


@pytest.mark.parametrize(
    "names",
    [
        ["../evil.png"],
        ["/etc/evil.png"],
        ["a\\..\\evil.png"],
        ["a/../../evil.png"],
        ["nul.png"],
        ["a\n.png"],
        ["a//b.png"],
        ["A.png", "a.png"],
        ["\u00e9.png", "e\u0301.png"],
    ],
)
def test_a_name_that_must_not_be_written_is_refused_before_anything_comes(
    kaggle: Kaggle, raw: Path, names: list[str]
) -> None:
    kaggle.files = dict.fromkeys(names, b"evil")
    with pytest.raises(UserError, match=r"choose others with download\.files") as error:
        download(wanted("*"), raw)
    assert "\n" not in str(error.value)
    assert fetched(kaggle) == []


def test_an_evil_name_that_nobody_wants_does_no_harm(kaggle: Kaggle, raw: Path) -> None:
    kaggle.files["../evil.csv"] = b"evil"
    download(wanted("images_002"), raw)
    assert tree(raw) == picked("images_002/images/3.png")


@pytest.mark.parametrize(
    "body",
    [b"<html>sign in</html>", b"[]", b"3", b"null", b'{"datasetFiles": 3}', b'{"datasetFiles": [{"totalBytes": "x"}]}'],
)
def test_a_list_that_makes_no_sense_is_one_line(kaggle: Kaggle, raw: Path, body: bytes) -> None:
    kaggle.posts.append(Odd(body=body))
    with pytest.raises(UserError, match=r"cannot be read: a sign-in page|matches none"):
        fetch_files(SET, ["*"], raw, raw.with_name("area"))


def test_a_list_that_does_not_end_is_given_up(kaggle: Kaggle, raw: Path) -> None:
    kaggle.posts.extend([Odd(body=b'{"nextPageToken": "5"}')] * 3)
    with pytest.raises(UserError, match="does not end"):
        fetch_files(SET, ["*"], raw, raw.with_name("area"))


def test_failures_on_the_way_are_tried_again(kaggle: Kaggle, raw: Path) -> None:
    waits: list[float] = []
    kaggle.posts.extend([None, Odd(429), Odd(500)])
    kaggle.gets.extend([Odd(503), Odd(cut=3), Odd(data=b"wrong")])
    entries = fetch_files(SET, ["*"], raw, raw.with_name("area"), Patience(sleep=waits.append))
    assert {name: (entry.folder / name).read_bytes() for entry in entries for name in entry.files} == FILES
    assert len(waits) == 5


def test_one_refusal_ends_all_and_keeps_what_came(kaggle: Kaggle, raw: Path) -> None:
    kaggle.files |= {f"images_003/{number:03}.png": b"x" * number for number in range(100)}
    kaggle.posts.extend([None] * 30 + [Odd(403)])
    with pytest.raises(UserError, match="accept its terms"):
        download(wanted("*"), raw)
    assert not raw.exists()
    first = len(fetched(kaggle))
    assert first < len(kaggle.files)
    download(wanted("*"), raw)
    assert tree(raw) == kaggle.files
    assert len(fetched(kaggle)) < len(kaggle.files)


KILLED = """
import os, signal, sys
from pathlib import Path
from kagglesdk import kaggle_env
from pipeline.download import download
from pipeline.sources.fetched import Ledger
from pipeline.params import DownloadParams, Params

kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.LOCAL] = sys.argv[1]
event, word, left = sys.argv[3], sys.argv[4], int(sys.argv[5])

def hook(name, arguments):
    global left
    if name == event and word in str(arguments[0]):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
params = DownloadParams(source="kaggle", kaggle="nih-chest-xrays/data", files=["*"])
download(Params(download=params), Path(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("event", "word", "count"),
    [
        ("open", "complete.jsonl", 8),  # some files are complete
        ("open", "content/zz/", 2),  # a listed archive is being unpacked
        ("os.link", "", 3),  # the raw folder is being filled
        ("os.rename", "raw.partial", 1),  # just before it takes its place
    ],
)
def test_a_killed_run_is_continued(kaggle: Kaggle, raw: Path, event: str, word: str, count: int) -> None:
    kaggle.files |= {f"more/{number}.png": b"x" * number for number in range(20)}
    kaggle.files["zz.zip"] = packed({f"{number}.png": b"y" * number for number in range(5)})
    endpoint = f"http://127.0.0.1:{kaggle.server_port}"
    command = [sys.executable, "-c", KILLED, endpoint, str(raw), event, word, str(count)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not raw.exists()
    before = fetched(kaggle)
    download(wanted("*"), raw)
    plain = {name: data for name, data in kaggle.files.items() if name != "zz.zip"}
    assert tree(raw) == plain | {f"zz/{number}.png": b"y" * number for number in range(5)}
    again = fetched(kaggle)
    assert len(again) < len(kaggle.files)
    if event.startswith("os."):
        assert again == []
        assert len(before) == len(kaggle.files)


@pytest.mark.parametrize(
    "record",
    ["", "{", "[]", '{"source": "nih-chest-xrays/data", "files": [3, {}, {"name": "x"}]}'],
)
def test_a_record_that_cannot_be_read_means_that_all_is_fetched(kaggle: Kaggle, raw: Path, record: str) -> None:
    download(wanted("images_001"), raw)
    fetched(kaggle)
    (raw / RECORD).write_text(record, encoding="utf-8")
    download(wanted("images_001"), raw)
    assert len(fetched(kaggle)) == 2


def test_a_record_does_not_lead_out_of_the_raw_folder(kaggle: Kaggle, raw: Path) -> None:
    download(wanted("readme.json"), raw)
    secret = raw.parent / "secret"
    secret.write_bytes(b"s" * len(FILES["readme.json"]))
    record = json.loads((raw / RECORD).read_text(encoding="utf-8"))
    (raw / "link").symlink_to(secret)
    for path in ("../secret", "link"):
        record["files"][0]["files"] = {path: (raw / path).lstat().st_size}
        (raw / RECORD).write_text(json.dumps(record), encoding="utf-8")
        fetched(kaggle)
        download(wanted("readme.json"), raw)
        assert fetched(kaggle) == ["readme.json"]
        assert tree(raw) == picked("readme.json")
        (raw / "link").symlink_to(secret)


def test_nothing_secret_is_written_or_said(kaggle: Kaggle, raw: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kaggle.posts.append(Odd(500))
    kaggle.gets.append(Odd(503))
    waits: list[float] = []
    fetch_files(SET, ["*"], raw, raw.with_name("area"), Patience(sleep=waits.append))
    texts = [path.read_text("latin-1") for path in raw.parent.rglob("*") if path.is_file()]
    texts += ["".join(capfd.readouterr())]
    assert len(texts) > 5
    assert not any(SECRET in text or SIGNATURE in text for text in texts)


def test_more_than_the_disk_holds_is_refused_before_it_comes(kaggle: Kaggle, raw: Path) -> None:
    body = {"datasetFiles": [{"name": "a.png", "totalBytes": 10**18, "creationDate": kaggle.date}]}
    kaggle.posts.append(Odd(body=json.dumps(body).encode()))
    with pytest.raises(UserError, match=r"needs 1000000000\.0 GB.*make room"):
        download(wanted("*"), raw)
    assert fetched(kaggle) == []


def test_what_was_verified_is_said(kaggle: Kaggle, raw: Path, capfd: pytest.CaptureFixture[str]) -> None:
    download(wanted("*"), raw)
    assert "verified: all sizes, the checksums of 5 (crc32c, md5)" in capfd.readouterr().err
    kaggle.hashes, kaggle.date = False, "2026-03-04T05:06:07Z"
    kaggle.gets.append(Odd(data=b"other"))
    with pytest.raises(UserError, match=r"3\.png: Kaggle lists .* bytes, other came, and no checksum"):
        download(wanted("images_002"), raw)
    download(wanted("images_002"), raw)
    assert "Kaggle gave no checksum" in capfd.readouterr().err


def test_the_command_line_chooses_files_of_kaggle_only() -> None:
    assert with_files(wanted("a"), ["b", "c"]).download.files == ["b", "c"]
    with pytest.raises(UserError, match=r"download\.source is simulated"):
        with_files(Params(), ["a"])
    with pytest.raises(UserError, match="empty pattern"):
        with_files(wanted("a"), [""])


def test_the_command_fetches_what_it_is_told(kaggle: Kaggle, raw: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(
        f"download: {{source: kaggle, kaggle: {SET}, files: [images_001]}}\n", encoding="utf-8"
    )
    code = (
        "import sys; from kagglesdk import kaggle_env; from pipeline.cli import main\n"
        "kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.LOCAL] = sys.argv[1]\n"
        "sys.exit(main(sys.argv[2:]))"
    )
    command = [sys.executable, "-c", code, f"http://127.0.0.1:{kaggle.server_port}", "download", "--out", str(raw)]
    options = ["--params", str(tmp_path / "params.yaml"), "--files", "images_002", "*.csv"]
    child = subprocess.run([*command, *options], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert child.returncode == 0, child.stderr
    assert tree(raw) == picked("images_002/images/3.png", "Data_Entry_2017.csv")
