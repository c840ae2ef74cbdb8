"""Connection to the database of a study, and its errors in one line."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage

from mobilezoo.errors import ConfigError, MissingToolError, MobilezooError, first_line

SILENT_BEATS = 3
"""A worker that missed this many heartbeats counts as dead."""
TURN = 0x6D6F62696C657A6F
"""Key of the advisory lock under which tables and studies are created in a PostgreSQL database."""
TURN_S = 60
"""Timeout of that lock in seconds; creating takes about one."""


@contextlib.contextmanager
def database_errors(where: str) -> Iterator[None]:
    """Turns errors of the database `where` into a MobilezooError of one line."""
    import sqlalchemy.exc

    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        reason = first_line(str(getattr(cause, "orig", None) or cause or error))
        raise MobilezooError(
            f"study database {where!r}: {reason}; finished trials are kept: run the same command again to go on"
        ) from error


class _Storage(RDBStorage):
    """Optuna's storage, whose heartbeats ignore a lost database: the trial itself then fails when it writes."""

    def record_heartbeat(self, trial_id: int) -> None:
        with contextlib.suppress(MobilezooError), database_errors(""):
            super().record_heartbeat(trial_id)


def without_password(url: str) -> str:
    """Hides the password of a database URL. Raises ConfigError for no URL, or an unknown kind of database."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
        parsed.get_dialect()
        return parsed.render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        raise ConfigError(
            f"storage = {url!r}: expected a database URL such as postgresql+psycopg://USER@HOST/DATABASE"
        ) from None


@contextlib.contextmanager
def _usable(url: str) -> Iterator[None]:
    """Turns errors of connecting into one line: a missing driver, tables of another version of Optuna."""
    where = without_password(url)
    try:
        yield
    except ImportError as error:
        if url.startswith("postgresql+psycopg:"):
            raise MissingToolError("psycopg", "postgres") from None
        module = getattr(error.__cause__ or error.__context__ or error, "name", None)
        raise ConfigError(
            f"storage = {where!r}: its driver {module or ''} is not installed; "
            "for PostgreSQL write postgresql+psycopg://…"
        ) from None
    except RuntimeError as error:
        raise ConfigError(f"{where!r} was written by another optuna: {first_line(error)}") from None


@contextlib.contextmanager
def creation_lock(url: str) -> Iterator[None]:
    """Holds an advisory lock of a PostgreSQL database, so that one process at a time creates tables and studies.

    The lock ends with its connection. An SQLite file needs none: its writer holds the folder's lock.
    """
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    if not url.startswith("postgresql"):
        yield
        return
    with _usable(url):
        engine = create_engine(url, poolclass=NullPool, connect_args=_connect_args(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"SET lock_timeout = '{TURN_S}s'"))
        connection.execute(text(f"SELECT pg_advisory_lock({TURN})"))
        yield


def open_storage(url: str) -> RDBStorage:
    """Connects to a database and creates Optuna's tables where there are none.

    Raises:
        MobilezooError: the database cannot be reached or is none.
        MissingToolError: its driver is not installed.
    """
    with database_errors(without_password(url)), creation_lock(url):
        return connect(url)


def connect(url: str, heartbeat_s: int | None = None, lock_timeout_s: float = 30.0) -> RDBStorage:
    """Connect Optuna to a database.

    Args:
        url: SQLAlchemy address of the database.
        heartbeat_s: interval at which a running worker records that it is alive; None for no heartbeat.
        lock_timeout_s: longest wait for another process's lock on a SQLite file.

    Raises:
        ConfigError: the database was written by another version of Optuna, or by an unknown driver.
        MissingToolError: PostgreSQL's driver is not installed.
    """
    alive = {} if url.startswith("sqlite:") else {"pool_pre_ping": True}
    with warnings.catch_warnings(), _usable(url):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _Storage(
            url,
            engine_kwargs={"connect_args": _connect_args(url, lock_timeout_s), **alive},
            heartbeat_interval=heartbeat_s,
            grace_period=heartbeat_s * SILENT_BEATS if heartbeat_s else None,
        )


def _connect_args(url: str, lock_timeout_s: float = 30.0) -> dict[str, Any]:
    if url.startswith("sqlite:"):
        return {"timeout": lock_timeout_s}
    return {"connect_timeout": 10} if url.startswith("postgresql") else {}


def check_file(url: str) -> None:
    """Raises ConfigError for a missing SQLite file, which connecting would create."""
    file = url.removeprefix("sqlite:///")
    if file != url and not Path(file).is_file():
        raise ConfigError(f"study database {file!r} not found: begin with `mobilezoo search run`")
