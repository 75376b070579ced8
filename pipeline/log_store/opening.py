"""Opening the prediction log: any SQLAlchemy URL, its tables brought to the present version first.

A password in a URL is never printed: messages show `shown(url)`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from pipeline.errors import UserError

_MIGRATIONS = Path(__file__).with_name("migrations")
_BUSY_SECONDS = 30  # how long a writer of SQLite waits for another
_FORMS = "a file name, sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE"


def url_of(address: str) -> URL:
    """Return the URL of a log; a plain file name means SQLite.

    Raises
    ------
    UserError
        If it is no URL.
    """
    try:
        url = make_url(address if "://" in address else f"sqlite:///{address}")
    except ArgumentError:  # its message quotes the address, password and all
        raise UserError(f"the prediction log's address is no URL; {_FORMS} is needed") from None
    if not address.strip():
        raise UserError(f"the prediction log's address is empty; {_FORMS} is needed")
    # Without a driver SQLAlchemy 2.0 would take psycopg2, which is not among the extras.
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url


def shown(address: str) -> str:
    """Return the address with stars for the password and without the query, which may hold one, too."""
    return url_of(address).set(query={}).render_as_string(hide_password=True)


def open_store(address: str, *, create: bool = True, latest: str = "head") -> sa.Engine:
    """Open a log and bring its tables to the present version.

    Parameters
    ----------
    address : str
        See `url_of`.
    create : bool
        Make an SQLite file that is not there, with its folder; else that is an error.
    latest : str
        The version to bring it to; tests open earlier ones.

    Raises
    ------
    UserError
        If the log is away, of a later version, or its driver is missing.
    """
    url = url_of(address)
    if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
        file = Path(str(url.database))
        if not create and not file.is_file():
            raise UserError(f"{file} is missing: give the log that `cxr serve` or `cxr predict --log` wrote")
        file.parent.mkdir(parents=True, exist_ok=True)
    try:
        engine = sa.create_engine(url, hide_parameters=True)
    except (NoSuchModuleError, ImportError) as error:
        hint = "make setup EXTRAS=postgres" if url.get_backend_name() == "postgresql" else "install its driver"
        raise UserError(f"{shown(address)} cannot be opened ({type(error).__name__}): {hint}") from None
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
    try:
        _migrate(engine, latest)
    except SQLAlchemyError as error:
        engine.dispose()
        raise UserError(f"{shown(address)} cannot be used: {reason_of(error)}") from None
    except BaseException:
        engine.dispose()
        raise
    return engine


def reason_of(error: SQLAlchemyError) -> str:
    """Return the first line of what the database said, without statement, parameters and address."""
    said = str(getattr(error, "orig", None) or error).strip().splitlines()
    return (said[0] if said else type(error).__name__)[:200]


def version_of(engine: sa.Engine) -> str:
    """Return the version of the tables; '0' where there are none."""
    from alembic.runtime.migration import MigrationContext

    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() or "0"


def _migrate(engine: sa.Engine, latest: str) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory

    config = _config()
    known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    found = version_of(engine)
    if found != "0" and found not in known:
        raise UserError(
            f"the prediction log has tables of version {found}, and this cxr knows {max(known)}: use a later cxr"
        )
    if found == (max(known) if latest == "head" else latest):
        return
    with _alone(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, latest)


@contextmanager
def _alone(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection on which nobody else migrates at the same time."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(6742069)"))
        elif engine.dialect.name == "sqlite":
            connection.execute(sa.text("BEGIN IMMEDIATE"))
        yield connection


def _config() -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _prepare_sqlite(connection: Any, _: Any) -> None:
    """Let readers and a writer work at once, and give freed pages back to the disk when asked to.

    `synchronous = FULL`: what is committed survives a power cut, too; only the thread that writes waits for it.
    """
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {_BUSY_SECONDS * 1000}",
        "auto_vacuum = INCREMENTAL",
        "journal_mode = WAL",
        "synchronous = FULL",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
