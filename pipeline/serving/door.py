"""Who may ask: the token, the name in the address bar, and pages of other sites."""

import hmac
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UserError
from pipeline.serving.problems import RequestError

TOKEN, TOKEN_FILE = "CXR_SERVE_TOKEN", "CXR_SERVE_TOKEN_FILE"
MIN_TOKEN = 16
OPEN_PATHS = ("/", "/healthz", "/readyz", "/model-card")
"""What anybody may ask for: the page without any film or answer, and whether the server lives. Also below:"""
_OPEN_BELOW = ("/assets/", "/problems/")
_LOOPBACK_NAMES = {"localhost"}


def read_token(file: Path | None = None) -> str:
    """Return the token; '' where none is set.

    Parameters
    ----------
    file : Path, optional
        A file that holds it; None: the one that CXR_SERVE_TOKEN_FILE names, else the value of CXR_SERVE_TOKEN.

    Raises
    ------
    UserError
        If the file cannot be read, or the token is short or holds more than printable ASCII without blanks.
    """
    named = str(file) if file else os.environ.get(TOKEN_FILE, "")
    origin = named or TOKEN
    if named:
        try:
            token = Path(named).read_text(encoding="ascii").strip()
        except OSError as error:
            raise UserError(f"the token's file {named} cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise UserError(f"the token's file {named} holds more than ASCII") from None
    else:
        token = os.environ.get(TOKEN, "")
        if not token:
            return ""
    if len(token) < MIN_TOKEN or not all("!" <= letter <= "~" for letter in token):
        raise UserError(
            f"the token in {origin} must be of {MIN_TOKEN} or more printable ASCII characters without blanks; "
            "`openssl rand -hex 32` makes one"
        )
    return token


def is_loopback(host: str) -> bool:
    """Say whether an address reaches this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in _LOOPBACK_NAMES


class Door:
    """Decides on a request from its headers alone.

    Parameters
    ----------
    token : str
        What `Authorization: Bearer` must bring; empty: nothing is asked for.
    hosts : sequence of str
        Names that `Host` may have beside loopback's. Empty: with a token any name, because another site's page that
        reaches this server under its own name (DNS rebinding) does not know the token.
    """

    def __init__(self, token: str, hosts: Sequence[str]) -> None:
        self._token = token.encode()
        self._hosts = {host.lower() for host in hosts}
        self._any_host = bool(token) and not hosts

    def check(self, path: str, headers: dict[bytes, bytes]) -> None:
        """Let a request pass.

        Parameters
        ----------
        path : str
            Of the address.
        headers : dict
            Names in small letters to values.

        Raises
        ------
        RequestError
            421 for a foreign name, 403 for a page of another site, 401 without the token.
        """
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._any_host and not is_loopback(_name(host)) and not {host, _name(host)} & self._hosts:
            raise RequestError("host", "the name in Host is not one that serve.hosts lists")
        origin = headers.get(b"origin")
        foreign = origin is not None and origin.decode("latin-1").lower().partition("://")[2] != host
        elsewhere = foreign or headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site")
        if elsewhere and not (path == "/" and origin is None):  # a link from elsewhere to the page itself is welcome
            raise RequestError("foreign", "scripts and forms are answered for this server's own page alone")
        if self._token and path not in OPEN_PATHS and not path.startswith(_OPEN_BELOW):
            self._check_token(headers.get(b"authorization", b""))

    def _check_token(self, given: bytes) -> None:
        scheme, _, token = given.partition(b" ")
        # Compared in a time that does not tell how much of it was right.
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
            raise RequestError("token", "send Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})


def _name(host: str) -> str:
    """Return a Host header without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
