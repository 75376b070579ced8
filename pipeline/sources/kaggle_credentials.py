"""Kaggle credentials: where they are found, and never what they are."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError

HOW_TO_SIGN_IN = (
    "make a token at https://www.kaggle.com/settings/api and put it into the environment variable KAGGLE_API_TOKEN or "
    "the file ~/.kaggle/access_token (a kaggle.json goes to ~/.kaggle/kaggle.json)"
)


@dataclass(frozen=True)
class Credentials:
    """A token, or a user name and a key; their values never appear in its text form."""

    origin: str
    token: str | None = None
    username: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        for value in (self.token, self.username, self.key):
            if value is not None and not (value.isascii() and value.isprintable() and value):
                # The HTTP library's own error would quote it.
                raise UserError(f"what {self.origin} holds is no Kaggle credential: {HOW_TO_SIGN_IN}")

    def __repr__(self) -> str:
        return f"credentials from {self.origin}"  # the values belong into no log


def credentials_present() -> str | None:
    """Say where Kaggle credentials were found, never what they are; None if there are none.

    Looks where Kaggle's own client looks, in its order: KAGGLE_API_TOKEN (a token, or a file that holds one),
    `~/.kaggle/access_token`, KAGGLE_USERNAME with KAGGLE_KEY, `kaggle.json`.

    Raises
    ------
    UserError
        If one of the files is there and cannot be read, or holds no credentials.
    """
    found = find_credentials()
    return found.origin if found else None


def needed_credentials() -> Credentials:
    """Return the credentials.

    Raises
    ------
    UserError
        If there are none, or as in `credentials_present`.
    """
    found = find_credentials()
    if found is None:
        raise UserError(f"no Kaggle credentials were found: {HOW_TO_SIGN_IN}")
    return found


def find_credentials() -> Credentials | None:
    """Return the credentials, or None; see `credentials_present`."""
    # Read here and not by the client: it takes any token for a possible path, and the error names it.
    token = os.environ.get("KAGGLE_API_TOKEN", "").strip()
    if token:
        return Credentials("the environment variable KAGGLE_API_TOKEN", token=_token_or_file(token))
    for name in ("access_token", "access_token.txt"):
        path = Path.home() / ".kaggle" / name
        if path.is_file() and (token := _text(path)):
            return Credentials(str(path), token=token)
    user, key = os.environ.get("KAGGLE_USERNAME"), os.environ.get("KAGGLE_KEY")
    if user and key:
        return Credentials("the environment variables KAGGLE_USERNAME and KAGGLE_KEY", username=user, key=key)
    return _from_json(_config_folder() / "kaggle.json")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:  # the error of a wrong encoding would quote the bytes
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise UserError(f"{path} cannot be read ({reason}): {HOW_TO_SIGN_IN}") from None


def _token_or_file(value: str) -> str:
    try:
        return Path(value).read_text(encoding="utf-8").strip() or value
    except (OSError, ValueError):  # no such file, or a name longer than names can be: it is the token itself
        return value


def _config_folder() -> Path:
    if given := os.environ.get("KAGGLE_CONFIG_DIR"):
        return Path(given)
    usual = Path.home() / ".kaggle"
    if usual.exists() or not sys.platform.startswith("linux"):
        return usual
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kaggle"


def _from_json(path: Path) -> Credentials | None:
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Credentials(str(path), username=str(values["username"]), key=str(values["key"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} cannot be read or holds no username and key: {HOW_TO_SIGN_IN}") from None
