"""Everything that differs between SQLite and Postgres."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import URL

from recorder.errors import StoreError
from recorder.storage.dialects.common import Damage, Dialect, Insert, Statements, Watch
from recorder.storage.dialects.postgres import Postgres
from recorder.storage.dialects.sqlite import SQLite, into_one_file, private_file, set_up_new_file
from recorder.storage.dialects.url import file_of, is_new_file, masked, missing_file, parse_url
from recorder.storage.failures import error_text

__all__ = [
    "Damage",
    "Dialect",
    "Insert",
    "Postgres",
    "SQLite",
    "Statements",
    "Watch",
    "dialect_of",
    "file_of",
    "into_one_file",
    "is_new_file",
    "masked",
    "missing_file",
    "open_error",
    "parse_url",
    "private_file",
    "set_up_new_file",
]


def dialect_of(url: URL, *, sync: Literal["full", "process"] = "full", read_only: bool = False) -> Dialect:
    """The dialect of a parsed URL."""
    kind = SQLite if url.drivername == "sqlite" else Postgres
    return kind(url, sync=sync, read_only=read_only)


def open_error(database: Dialect, error: BaseException) -> StoreError:
    """The error to raise for a database that cannot be opened: its URL, the driver's text and the remedy."""
    return StoreError(f"{masked(database.url)} cannot be opened: {error_text(error)}{database.remedy(error)}")
