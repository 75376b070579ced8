"""Trying again, politely: exponential waits with jitter and a cap, Retry-After honoured, tries bounded."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, TypeVar

from pipeline.progress import note

if TYPE_CHECKING:
    from tenacity import RetryCallState

T = TypeVar("T")

_PROGRESS = 2**20  # bytes that a try must add to count as getting on; bounds the tries by the size of the file
_PASSING_STATUS = (408, 425, 429)  # RFC 9110, 15.5.9; RFC 8470, 5.2; RFC 6585, 4; and every 5xx


class BrokenTransferError(Exception):
    """What came is cut short, damaged or another part than was asked for; trying again may help."""


@dataclass(frozen=True)
class Patience:
    """How long a server may take.

    Attributes
    ----------
    connect, read : float
        Seconds until a connection stands, and between two packets of an answer.
    tries : int
        Tries in a row without getting on.
    first_tries : int
        Tries to reach the server at all, while nothing has been heard of it yet.
    first_wait, cap : float
        Seconds of the first wait, which doubles from try to try, and of the longest one.
    sleep : callable, optional
        Waits that many seconds.
    """

    connect: float = 15.0
    read: float = 60.0
    tries: int = 8
    first_tries: int = 3
    first_wait: float = 1.0
    cap: float = 120.0
    sleep: Callable[[float], None] = time.sleep


@dataclass
class Retry:
    """Calls a function until it succeeds, fails for good, or has been tried often enough.

    Attributes
    ----------
    patience : Patience
        The bounds.
    reached : callable
        Says whether the server has been heard of.
    bytes_there : callable
        Says how many bytes the tries have brought so far: a long transfer over a bad line may break often, as long as
        it gets on.
    """

    patience: Patience
    reached: Callable[[], bool] = lambda: False
    bytes_there: Callable[[], int] = lambda: 0
    _failures: int = field(default=0, init=False)
    _best: int = field(default=0, init=False)

    def __call__(self, function: Callable[[], T]) -> T:
        """Return what `function` returns; its last error is raised as it is."""
        import tenacity

        self._failures, self._best = 0, self.bytes_there()
        retrying = tenacity.Retrying(
            retry=self._again,
            wait=self._wait,
            sleep=self.patience.sleep,
            before_sleep=self._say,
            reraise=True,
        )
        return retrying(function)

    def _again(self, state: "RetryCallState") -> bool:
        error = _error(state)
        if error is None or not is_passing(error):
            return False
        there = self.bytes_there()
        if there >= self._best + _PROGRESS:
            self._best, self._failures = there, 0
        self._failures += 1
        return self._failures < self._limit(error)

    def _limit(self, error: BaseException) -> int:
        import requests

        lost = isinstance(error, requests.ConnectionError) and not self.reached()
        return min(self.patience.first_tries, self.patience.tries) if lost else self.patience.tries

    def _wait(self, state: "RetryCallState") -> float:
        import tenacity

        cap = self.patience.cap
        # tenacity counts calls; what counts here are failures in a row.
        backoff = tenacity.wait_exponential_jitter(self.patience.first_wait, cap, jitter=self.patience.first_wait)
        numbered = tenacity.RetryCallState(state.retry_object, state.fn, state.args, state.kwargs)
        numbered.attempt_number = self._failures
        return max(backoff(numbered), min(retry_after(_error(state)), cap))

    def _say(self, state: "RetryCallState") -> None:
        wait = state.next_action.sleep if state.next_action else 0.0
        tries = self._limit(_error(state) or Exception())
        reason = reason_of(_error(state))
        note(f"Kaggle: {reason}; waiting {wait:.0f} s before try {self._failures + 1} of {tries}")


def is_passing(error: BaseException) -> bool:
    """Say whether the same request may succeed later."""
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(error)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        # The storage's refusal concerns the address that Kaggle gave; the next try asks for a new one.
        from_storage = error.response.request.method == "GET"
        status = status_of(error)
        return from_storage or status in _PASSING_STATUS or status >= 500
    passing = (
        BrokenTransferError,
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
    )
    return isinstance(error, passing)


def reason_of(error: BaseException | None) -> str:
    """Name a failure in a few words; never its own text, which may hold addresses with permissions."""
    import requests

    if isinstance(error, requests.HTTPError):
        return f"it answered with status {status_of(error)}"
    if isinstance(error, requests.Timeout):
        return "it did not answer in time"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not let it through"
    if isinstance(error, BrokenTransferError):
        return str(error)
    return "the connection failed"


def status_of(error: BaseException) -> int:
    """Return the status of an HTTP error, or 0; Kaggle also sends errors as JSON under status 200."""
    import requests

    if not isinstance(error, requests.HTTPError) or error.response is None:
        return 0
    if error.response.status_code >= 400:
        return int(error.response.status_code)
    try:
        code = error.response.json()["code"]
    except (ValueError, TypeError, KeyError):
        return 0
    return code if isinstance(code, int) else 0


def retry_after(error: BaseException | None) -> float:
    """Return the seconds that an answer asks to wait (RFC 9110, 10.2.3: a number, or a date), else 0."""
    import requests

    if not isinstance(error, requests.HTTPError) or error.response is None:
        return 0.0
    value = error.response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value, re.ASCII):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _error(state: "RetryCallState") -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
