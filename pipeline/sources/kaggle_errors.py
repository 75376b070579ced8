"""What Kaggle and the network refuse, each in one line with its remedy."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import UserError
from pipeline.sources.kaggle_api import Source
from pipeline.sources.kaggle_credentials import HOW_TO_SIGN_IN
from pipeline.sources.retries import BrokenTransferError, status_of

_AGAIN = "run the stage again; it goes on where it stopped"


@contextmanager
def explained(source: Source, origin: str) -> Iterator[None]:
    """Turn the failures of the network into one line each; their own texts may hold addresses with permissions.

    Parameters
    ----------
    source : Source
        What is asked for.
    origin : str
        Where the credentials come from.

    Raises
    ------
    UserError
        For every failure of a request.
    """
    import requests

    try:
        with _silent_library():
            yield
    except requests.HTTPError as error:
        from_storage = error.response is not None and error.response.request.method == "GET"
        if error.response is not None:
            error.response.close()  # it is a stream that nobody reads
        raise UserError(_refusal(source, origin, status_of(error), from_storage)) from None
    except BrokenTransferError as error:
        raise UserError(f"{source.address} did not come whole ({error}): {_AGAIN}") from None
    except requests.Timeout:
        raise UserError(f"Kaggle did not answer in time: {_AGAIN}") from None
    except requests.exceptions.ProxyError:
        raise UserError(
            f"the proxy does not answer or does not let Kaggle through: check HTTPS_PROXY and HTTP_PROXY, then {_AGAIN}"
        ) from None
    except requests.exceptions.SSLError:
        raise UserError(
            "the certificate of Kaggle's server could not be verified: where a proxy reads along, put its certificate "
            f"into a file and name that in REQUESTS_CA_BUNDLE, then {_AGAIN}"
        ) from None
    except requests.RequestException as error:
        raise UserError(
            f"the connection to Kaggle failed ({type(error).__name__}): check the network and the proxy settings, "
            f"then {_AGAIN}"
        ) from None


@contextmanager
def _silent_library() -> Iterator[None]:
    # Its warnings of odd headers quote the address, and Kaggle's addresses carry their permission.
    logger = logging.getLogger("urllib3")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _refusal(source: Source, origin: str, status: int, from_storage: bool) -> str:
    if status == 429:
        return "Kaggle has had too many requests from you (429): wait some minutes, then run the stage again"
    if status >= 500:
        return f"Kaggle has a fault of its own ({status}): try again later, see https://status.kaggle.com"
    if status == 407:
        return f"the proxy asks for a name and password (407): put them into HTTPS_PROXY, then {_AGAIN}"
    if from_storage:
        return (
            f"Kaggle's storage refuses the address that Kaggle gave ({status}): check this computer's clock and the "
            f"proxy, then {_AGAIN}"
        )
    if status == 401:
        return f"Kaggle refuses the credentials from {origin} (401): {HOW_TO_SIGN_IN}"
    if status == 403 and source.competition:
        return (
            f"Kaggle denies access to the competition {source.name} (403): sign in, join it and accept its rules at "
            f"{source.page}/rules, then run the stage again"
        )
    if status == 403:
        return (
            f"Kaggle denies access to {source.address} (403): sign in at {source.page} and accept its terms, then run "
            "the stage again"
        )
    if status == 404:
        kind = "competition" if source.competition else "data set"
        return (
            f"Kaggle knows no {kind} {source.address} (404): compare download.kaggle with the address of its page, "
            f"{source.page}"
        )
    return (
        f"Kaggle answered {source.address} with status {status}, which nothing here expects: try {source.page} in a "
        "browser"
    )
