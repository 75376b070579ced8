"""Kaggle's calls, through its own client library: list the files of a data set or competition, open a download.

The `kaggle` package signs in over the network when it is imported, without a time limit, and prints; this module
calls `kagglesdk`, the part of it that speaks the protocol.
"""

import os
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.sources.archive_guard import MAX_FILES
from pipeline.sources.kaggle_credentials import Credentials
from pipeline.sources.retries import Patience, Retry

if TYPE_CHECKING:
    from requests import Response
    from requests.adapters import HTTPAdapter

_PAGE = 200  # files; the most that Kaggle lists at once
_ENVIRONMENTS = (None, "PROD", "LOCALHOST", "QA", "TEST")  # of kagglesdk, those that need no further secret
_COMPETITIONS = "competitions"


@dataclass(frozen=True)
class Source:
    """A data set (`owner`, `name`) or a competition (no owner)."""

    owner: str
    name: str

    @property
    def competition(self) -> bool:
        """Whether it is a competition."""
        return not self.owner

    @property
    def address(self) -> str:
        """As `download.kaggle` names it."""
        return f"{self.owner or _COMPETITIONS}/{self.name}"

    @property
    def page(self) -> str:
        """The address of its page."""
        return f"https://www.kaggle.com/{'' if self.competition else 'datasets/'}{self.address}"


@dataclass(frozen=True)
class Listed:
    """A file as Kaggle lists it; `date` is that of its version, "" if not said."""

    name: str
    size: int
    date: str


def parse_source(text: str) -> Source:
    """Read `owner/data-set` or `competitions/NAME`.

    Raises
    ------
    UserError
        If it is neither.
    """
    if not re.fullmatch(r"[\w-]+/[\w-]+", text, re.ASCII):
        raise UserError(
            f"{text!r} is neither a Kaggle data set nor a competition: write owner/data-set or competitions/NAME, "
            "as in the page's address"
        )
    owner, name = text.split("/")
    return Source("" if owner == _COMPETITIONS else owner, name)


class Kaggle:
    """Kaggle's answers about one source; every thread that calls has its own connections.

    Attributes
    ----------
    reached : bool
        Whether Kaggle has answered anything yet.
    """

    def __init__(self, source: Source, credentials: Credentials, patience: Patience) -> None:
        if os.environ.get("KAGGLE_API_ENVIRONMENT") not in _ENVIRONMENTS:
            raise UserError("KAGGLE_API_ENVIRONMENT names no environment of Kaggle's: unset it")
        self.source, self.patience, self.reached = source, patience, False
        self._credentials = credentials
        self._local = threading.local()
        self._clients: list[Any] = []

    def __enter__(self) -> "Kaggle":
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.__exit__(None, None, None)

    def pages(self) -> Iterator[list[Listed]]:
        """Yield the files of the present version, page by page.

        Raises
        ------
        requests.RequestException
            If Kaggle fails or refuses, after the tries that `patience` allows.
        UserError
            If the answer makes no sense or does not end.
        """
        token, count = "", 0
        retry = Retry(self.patience, lambda: self.reached)
        while True:
            files, following = retry(lambda token=token: self._page(token))  # type: ignore[misc]
            count += len(files)
            if count > MAX_FILES or (following and following == token):
                raise UserError(f"Kaggle's list of the files of {self.source.address} does not end: try again later")
            yield files
            if not following:
                return
            token = following

    def open(self, name: str, headers: Mapping[str, str]) -> "Response":
        """Ask for a file, or for the archive of all (name ""); once, without trying again.

        Parameters
        ----------
        name : str
            As listed.
        headers : mapping
            Of the request to the storage that Kaggle redirects to.

        Returns
        -------
        Response
            A stream; the caller closes it.

        Raises
        ------
        requests.RequestException
            If Kaggle or its storage fails or refuses.
        """
        client, adapter = self._client()
        adapter.get_headers = dict(headers)
        try:
            response: Response = _download(client, self.source, name)
        finally:
            adapter.get_headers = {}
        return response

    def _page(self, token: str) -> tuple[list[Listed], str]:
        import requests

        client, _ = self._client()
        try:
            answer = _listing(client, self.source, token)
            files = answer.files
            listed = [Listed(str(file.name), int(file.total_bytes), _date(file)) for file in files]
            return listed, str(answer.next_page_token)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            if isinstance(error, requests.RequestException) and not isinstance(error, requests.JSONDecodeError):
                raise
            raise UserError(
                f"Kaggle's list of the files of {self.source.address} cannot be read: a sign-in page or a proxy may "
                "stand in between; open the page in a browser, then try again"
            ) from None

    def _client(self) -> tuple[Any, Any]:
        if not hasattr(self._local, "client"):
            # By name, since these modules come without type information.
            http = import_module("kagglesdk.kaggle_http_client")
            given = self._credentials
            client = http.KaggleHttpClient(username=given.username, password=given.key, api_token=given.token)
            client.__enter__()
            adapter = _adapter(self)
            for scheme in ("http://", "https://"):
                client._session.mount(scheme, adapter)  # the client has no time limit of its own
            self._local.client, self._local.adapter = client, adapter
            self._clients.append(client)
        return self._local.client, self._local.adapter


def _adapter(kaggle: Kaggle) -> "HTTPAdapter":
    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        get_headers: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed

        def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
            if request.method == "GET":  # after the redirection
                request.headers.update(self.get_headers)
            limits = (kaggle.patience.connect, kaggle.patience.read)
            response = super().send(request, *args, **(kwargs | {"timeout": limits}))
            kaggle.reached = True
            if request.method == "GET" and "json" in response.headers.get("Content-Type", ""):
                response.headers["Content-Type"] = "application/octet-stream"  # or the client would load the file
            return response

    return Adapter()


def _download(client: Any, source: Source, name: str) -> Any:
    if source.competition:
        service = import_module("kagglesdk.competitions.services.competition_api_service").CompetitionApiClient(client)
        types = import_module("kagglesdk.competitions.types.competition_api_service")
        request = types.ApiDownloadDataFileRequest() if name else types.ApiDownloadDataFilesRequest()
        request.competition_name = source.name
        if name:
            request.file_name = name
        return service.download_data_file(request) if name else service.download_data_files(request)
    service = import_module("kagglesdk.datasets.services.dataset_api_service").DatasetApiClient(client)
    request = import_module("kagglesdk.datasets.types.dataset_api_service").ApiDownloadDatasetRequest()
    request.owner_slug, request.dataset_slug = source.owner, source.name
    if name:
        request.file_name = name
    return service.download_dataset(request)


def _listing(client: Any, source: Source, token: str) -> Any:
    if source.competition:
        service = import_module("kagglesdk.competitions.services.competition_api_service").CompetitionApiClient(client)
        request = import_module("kagglesdk.competitions.types.competition_api_service").ApiListDataFilesRequest()
        request.competition_name = source.name
        call = service.list_data_files
    else:
        service = import_module("kagglesdk.datasets.services.dataset_api_service").DatasetApiClient(client)
        request = import_module("kagglesdk.datasets.types.dataset_api_service").ApiListDatasetFilesRequest()
        request.owner_slug, request.dataset_slug = source.owner, source.name
        call = service.list_dataset_files
    request.page_size = _PAGE
    if token:
        request.page_token = token
    answer = call(request)
    if getattr(answer, "error_message", ""):
        raise ValueError("the answer is an error")
    return answer


def _date(file: Any) -> str:
    return file.creation_date.isoformat() if file.creation_date else ""
