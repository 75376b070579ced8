"""A data set from Kaggle, through Kaggle's own client library.

The `kaggle` package signs in over the network when it is imported, without a time limit, and prints; this module
calls `kagglesdk`, the part of it that speaks the protocol, and reads the same credentials from the same places.
"""

import json
import math
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.progress import note, track

if TYPE_CHECKING:
    from requests import Response
    from requests.adapters import HTTPAdapter

_MIB = 2**20
HOW_TO_SIGN_IN = (
    "make a token at https://www.kaggle.com/settings/api and put it into the environment variable KAGGLE_API_TOKEN or "
    "the file ~/.kaggle/access_token (a kaggle.json goes to ~/.kaggle/kaggle.json)"
)


@dataclass(frozen=True)
class _Credentials:
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
        If `kaggle.json` is there and holds no user name and key.
    """
    found = _credentials()
    return found.origin if found else None


def fetch_dataset(slug: str, folder: Path, timeout: float = 60.0) -> Path:
    """Download a data set's archive; continue one that was cut short, and keep one that is complete.

    Parameters
    ----------
    slug : str
        `owner/data-set`, as in the page's address.
    folder : Path
        Where the archive goes. Part of a file stays there, with the server's mark of its version, if the
        connection breaks.
    timeout : float
        Seconds without an answer or a byte after which the connection counts as broken.

    Returns
    -------
    Path
        The zip file in `folder`.

    Raises
    ------
    UserError
        Without credentials, if they are refused, if the data set is unknown or its terms are not accepted, if
        Kaggle or the network fails, if there is no room, or if what came is no zip file.
    """
    if not re.fullmatch(r"[\w-]+/[\w-]+", slug, re.ASCII):
        raise UserError(f"{slug!r} is no Kaggle data set: write owner/data-set, as in the page's address")
    credentials = _credentials()
    if credentials is None:
        raise UserError(f"no Kaggle credentials were found: {HOW_TO_SIGN_IN}")
    folder.mkdir(parents=True, exist_ok=True)
    with _explained(slug, credentials.origin), _requested(slug, credentials, timeout) as response:
        return _save(response, folder / (slug.split("/")[1] + ".zip"), timeout)


def _credentials() -> _Credentials | None:
    # Read here and not by the client: it takes any token for a possible path, and the error names it.
    token = os.environ.get("KAGGLE_API_TOKEN", "").strip()
    if token:
        return _Credentials("the environment variable KAGGLE_API_TOKEN", token=_token_or_file(token))
    for name in ("access_token", "access_token.txt"):
        path = Path.home() / ".kaggle" / name
        if path.is_file() and (token := path.read_text(encoding="utf-8").strip()):
            return _Credentials(str(path), token=token)
    user, key = os.environ.get("KAGGLE_USERNAME"), os.environ.get("KAGGLE_KEY")
    if user and key:
        return _Credentials("the environment variables KAGGLE_USERNAME and KAGGLE_KEY", username=user, key=key)
    return _from_json(_config_folder() / "kaggle.json")


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


def _from_json(path: Path) -> _Credentials | None:
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return _Credentials(str(path), username=str(values["username"]), key=str(values["key"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{path} cannot be read or holds no username and key: {HOW_TO_SIGN_IN}") from None


@contextmanager
def _requested(slug: str, credentials: _Credentials, timeout: float) -> Iterator["Response"]:
    """Ask for the archive; the answer is a stream of its bytes, after Kaggle's redirection to its storage."""
    # By name, since these modules come without type information.
    http = import_module("kagglesdk.kaggle_http_client")
    service = import_module("kagglesdk.datasets.services.dataset_api_service")
    types = import_module("kagglesdk.datasets.types.dataset_api_service")
    request = types.ApiDownloadDatasetRequest()
    request.owner_slug, request.dataset_slug = slug.split("/")
    with http.KaggleHttpClient(
        username=credentials.username, password=credentials.key, api_token=credentials.token
    ) as client:
        for scheme in ("http://", "https://"):
            client._session.mount(scheme, _patient_adapter(timeout))  # the client has no time limit of its own
        response: Response = service.DatasetApiClient(client).download_dataset(request)
        with response:
            yield response


def _patient_adapter(timeout: float) -> "HTTPAdapter":
    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
            return super().send(request, *args, **(kwargs | {"timeout": timeout}))

    return Adapter()


def _save(response: "Response", archive: Path, timeout: float) -> Path:
    partial, mark = archive.with_suffix(".zip.part"), archive.with_suffix(".version")
    total = int(response.headers.get("Content-Length") or 0)
    version = f"{response.headers.get('ETag', '')} {total}"
    # Bytes of another version must never be continued: the ETag identifies one (RFC 9110, 8.8.3 and 13.1.5).
    strong = response.headers.get("ETag", "").startswith('"')
    if not (strong and mark.is_file() and mark.read_text(encoding="utf-8") == version):
        for path in (archive, partial):
            path.unlink(missing_ok=True)
        mark.write_text(version, encoding="utf-8")
    if archive.is_file():
        note(f"{archive.name} is here already, in Kaggle's present version")
        return archive
    if not 0 < total == _size(partial):
        _check_room(archive.parent, total - _size(partial))
        with _continued(response, _size(partial), total, timeout) as (rest, start):
            _append(rest, partial, start, total)
    if _size(partial) != total > 0 or not zipfile.is_zipfile(partial):
        partial.unlink()
        raise UserError(f"what Kaggle sent for {archive.stem} is no complete zip file: run the stage again")
    partial.replace(archive)
    return archive


@contextmanager
def _continued(response: "Response", have: int, total: int, timeout: float) -> Iterator[tuple["Response", int]]:
    """Yield the answer to read and the byte at which it starts."""
    import requests

    if not 0 < have < total:
        yield response, 0
        return
    headers = {"Range": f"bytes={have}-", "If-Range": response.headers["ETag"]}
    # Without the credentials: the address that Kaggle redirected to carries its own permission.
    with requests.get(response.url, headers=headers, stream=True, timeout=timeout) as rest:
        rest.raise_for_status()
        continues = rest.status_code == 206 and rest.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        yield (rest, have) if continues else (response, 0)


def _append(response: "Response", partial: Path, start: int, total: int) -> None:
    """Write the bytes as they come; not through `atomic_path`, because a part is worth keeping."""
    blocks: Iterable[bytes] = response.iter_content(_MIB)
    with partial.open("ab" if start else "wb") as handle:
        for block in track(blocks, math.ceil((total - start) / _MIB), f"downloading {partial.stem}", unit="MiB"):
            handle.write(block)
        handle.flush()
        os.fsync(handle.fileno())


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the archive needs {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB free: make room there"
        )


@contextmanager
def _explained(slug: str, origin: str) -> Iterator[None]:
    """Turn the failures of the network into one line each; their own texts may hold addresses with permissions."""
    import requests

    try:
        yield
    except requests.HTTPError as error:
        status = 0
        if error.response is not None:
            status = error.response.status_code
            error.response.close()  # it is a stream that nobody reads
        raise UserError(_refusal(slug, origin, status)) from None
    except requests.Timeout:
        raise UserError("Kaggle did not answer in time: run the stage again, it goes on where it stopped") from None
    except requests.RequestException as error:
        raise UserError(
            f"the connection to Kaggle failed ({type(error).__name__}): check the network and the proxy settings, "
            "then run the stage again; it goes on where it stopped"
        ) from None


def _refusal(slug: str, origin: str, status: int) -> str:
    page = f"https://www.kaggle.com/datasets/{slug}"
    if status == 401:
        return f"Kaggle refuses the credentials from {origin} (401): {HOW_TO_SIGN_IN}"
    if status == 403:
        return f"Kaggle denies access to {slug} (403): sign in at {page} and accept its terms, then run the stage again"
    if status == 404:
        return f"Kaggle knows no data set {slug} (404): compare download.kaggle with the address of its page, {page}"
    if status == 429:
        return "Kaggle has had too many requests from you (429): wait some minutes, then run the stage again"
    if status >= 500:
        return f"Kaggle has a fault of its own ({status}): try again later, see https://status.kaggle.com"
    return f"Kaggle answered {slug} with status {status}, which nothing here expects: try {page} in a browser"
