"""Files that are whole or absent."""

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.files import atomic_open, atomic_path, read_json, sha256_file, sha256_text, write_json, write_text

# FIPS 180-4, the example of one block: SHA-256("abc").
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    "name", ["a.csv", "no suffix", "胸片 表.csv", ".hidden", "x" * 240 + ".csv", "胸" * 80 + ".csv"]
)
def test_a_written_file_is_whole_and_alone(tmp_path: Path, name: str) -> None:
    path = tmp_path / "neu er Ordner" / name
    write_text(path, "ä\n胸\n")
    assert path.read_bytes() == "ä\n胸\n".encode()
    assert [found.name for found in path.parent.iterdir()] == [name]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_text(path, "old")

    def fail() -> None:
        with atomic_open(path) as handle:
            handle.write("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_text(path, "old")
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom pipeline.files import atomic_open\n"
        "with atomic_open(Path(sys.argv[1])) as handle:\n"
        "    handle.write('half'); handle.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text(encoding="utf-8") == "old"


def test_the_temporary_name_keeps_the_suffix_and_hides(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "model.keras") as temporary:
        temporary.write_bytes(b"x")
        assert temporary.suffix == ".keras"
        assert temporary.name.startswith(".")
        assert temporary.parent == tmp_path
    assert (tmp_path / "model.keras").read_bytes() == b"x"


def test_json_has_null_for_nan_and_keeps_words(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"auc": float("nan"), "list": [1, (float("nan"), "胸")]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"auc": None, "list": [1, [None, "胸"]]}
    assert "胸" in path.read_text(encoding="utf-8")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(value=JSON.filter(lambda value: json.dumps(value).find("\\ud") < 0))
def test_json_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, value)
    assert read_json(path) == value


def test_json_that_is_missing_or_damaged_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(UserError, match="missing: run the stage"):
        read_json(path)
    for content in (b"", b'{"a": ', b"\xff\xfe\x00"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not JSON"):
            read_json(path)


def test_hashes_are_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_text("abc") == sha256_file(tmp_path / "a") == ABC


def test_a_user_error_is_always_one_line() -> None:
    assert str(UserError("two\n lines\r\n\tand tabs")) == "two lines and tabs"


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as caught, atomic_path(tmp_path / "a.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.csv")
