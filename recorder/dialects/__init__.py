"""Everything that differs between the databases, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from recorder.dialects.common import Dialect, Failure, Insert, Watch, driver_error, said
from recorder.dialects.postgres import Postgres
from recorder.dialects.sqlite import SQLite, into_one_file
from recorder.errors import ConfigError, StoreError

__all__ = [
    "Dialect",
    "Failure",
    "Insert",
    "Postgres",
    "SQLite",
    "Watch",
    "dialect_of",
    "driver_error",
    "into_one_file",
    "is_new_file",
    "masked",
    "parse_url",
    "said",
    "unopened",
]

#: How a Postgres URL may begin; Heroku and its friends leave out the "ql".
_POSTGRES = ("postgresql", "postgres")


def dialect_of(url: URL, *, sync: Literal["full", "process"] = "full", read_only: bool = False) -> Dialect:
    """The dialect of a parsed URL."""
    kind = SQLite if url.drivername == "sqlite" else Postgres
    return kind(url, sync=sync, read_only=read_only)


def parse_url(url: str | os.PathLike[str] | URL) -> URL:
    """The URL of a database, its driver left out. Raises `ConfigError` naming what is wrong and the remedy."""
    parsed = _parsed(url)
    name = parsed.get_backend_name()
    if name in _POSTGRES:
        return parsed.set(drivername="postgresql")
    if name != "sqlite":
        raise ConfigError(
            f"Database URLs of scheme {parsed.drivername!r} are not supported; "
            "use 'sqlite:///chat_history.db' or 'postgresql://user@host/database'"
        )
    if not parsed.database or ":memory:" in parsed.database or parsed.query.get("mode") == "memory":
        raise ConfigError(
            f"{masked(parsed)!r} is an in-memory SQLite database, which dies with its connection; "
            "name a file ('sqlite:///chat_history.db'), or pass store=recorder.testing.MemoryStore() in tests"
        )
    return parsed.set(drivername="sqlite")


def _parsed(url: str | os.PathLike[str] | URL) -> URL:
    if isinstance(url, URL):
        return url
    text = os.fspath(url)
    try:
        return make_url(text)
    except ArgumentError as error:
        raise ConfigError(
            f"{text!r} is no database URL; write 'sqlite:///{text or 'chat_history.db'}' for a SQLite file"
        ) from error
    except ValueError as error:
        raise ConfigError(
            "The port in the database's URL is no number; write 'postgresql://user@host:5432/database'"
        ) from error


def is_new_file(url: str) -> bool:
    """Whether it names a SQLite file that is not there yet."""
    found = parse_url(url)
    path = Path(found.database or "")
    return found.get_backend_name() == "sqlite" and not path.exists()


def masked(url: str | URL) -> str:
    """The URL for messages: without the driver and the password."""
    parsed = make_url(url)
    name = parsed.get_backend_name()
    return parsed.set(drivername="postgresql" if name in _POSTGRES else name).render_as_string(
        hide_password=True
    )


def unopened(database: Dialect, error: BaseException) -> StoreError:
    """What to raise for a database that cannot be opened: which, what it said, what to do."""
    return StoreError(f"{masked(database.url)} cannot be opened: {said(error)}{database.remedy(error)}")
