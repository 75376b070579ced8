"""Credentials: where they are found, in which order, and that their values are shown nowhere."""

import json
from pathlib import Path

import pytest
from kaggle_server import SECRET, sign_in

from pipeline.errors import UserError
from pipeline.sources.kaggle_credentials import credentials_present, find_credentials, needed_credentials


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home folder without credentials."""
    return sign_in(monkeypatch, tmp_path / "家 home")


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.usefixtures("clean")
def test_without_credentials_the_message_says_how_to_get_them() -> None:
    assert credentials_present() is None
    with pytest.raises(UserError, match=r"KAGGLE_API_TOKEN.*kaggle\.json"):
        needed_credentials()


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


@pytest.mark.usefixtures("clean")
def test_a_token_may_be_the_name_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", str(put(tmp_path / "my token", SECRET + "\n")))
    found = find_credentials()
    assert found is not None
    assert found.token == SECRET
    assert SECRET not in f"{found} {found!r}"


@pytest.mark.usefixtures("clean")
def test_a_very_long_token_is_taken_as_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "x" * 5000)
    assert needed_credentials().token == "x" * 5000


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("value", [f"{SECRET}密", f"{SECRET}\r\nX-Evil: 1"])
def test_a_token_that_no_header_can_carry_is_not_quoted(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", value)
    with pytest.raises(UserError, match="no Kaggle credential") as error:
        needed_credentials()
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"username": "somebody"}'])
def test_a_broken_kaggle_json_is_named(clean: Path, text: str) -> None:
    put(clean / ".kaggle" / "kaggle.json", text)
    with pytest.raises(UserError, match=r"\.kaggle/kaggle\.json"):
        credentials_present()


def test_a_token_file_that_is_no_text_is_named_and_not_quoted(clean: Path) -> None:
    file = put(clean / ".kaggle" / "access_token", "")
    file.write_bytes(SECRET.encode("utf-16"))
    with pytest.raises(UserError, match=r"access_token cannot be read") as error:
        credentials_present()
    assert "KGAT" not in str(error.value).replace("\\x00", "")
