"""Everything that differs between the databases, and nothing else."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import URL

from recorder.errors import StoreError
from recorder.storage.dialects.common import (
    TO_BE_TRIED_AGAIN,
    Damage,
    Dialect,
    Failure,
    Insert,
    Watch,
    driver_error,
    said,
)
from recorder.storage.dialects.postgres import Postgres
from recorder.storage.dialects.sqlite import SQLite, into_one_file, private_file, set_up_new_file
from recorder.storage.dialects.url import file_of, is_new_file, masked, parse_url

__all__ = [
    "TO_BE_TRIED_AGAIN",
    "Damage",
    "Dialect",
    "Failure",
    "Insert",
    "Postgres",
    "SQLite",
    "Watch",
    "dialect_of",
    "driver_error",
    "file_of",
    "into_one_file",
    "is_new_file",
    "masked",
    "parse_url",
    "private_file",
    "said",
    "set_up_new_file",
    "unopened",
]


def dialect_of(url: URL, *, sync: Literal["full", "process"] = "full", read_only: bool = False) -> Dialect:
    """The dialect of a parsed URL."""
    kind = SQLite if url.drivername == "sqlite" else Postgres
    return kind(url, sync=sync, read_only=read_only)


def unopened(database: Dialect, error: BaseException) -> StoreError:
    """What to raise for a database that cannot be opened: which, what it said, what to do."""
    return StoreError(f"{masked(database.url)} cannot be opened: {said(error)}{database.remedy(error)}")
