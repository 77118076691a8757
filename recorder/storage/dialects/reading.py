"""A connection to a SQLite file that only reads, whoever has written the file."""

from __future__ import annotations

import sqlite3
from typing import Any

from recorder.storage.views import definitions


def read_only(cursor: Any) -> None:
    """Set up a new connection. What it reads by are our own views, whatever has their names in the file."""
    for name, body in definitions("sqlite").items():
        cursor.execute(f"CREATE TEMP VIEW {name} AS {body}")
    cursor.execute("PRAGMA query_only = ON")
    cursor.execute("PRAGMA cell_size_check = ON")  # https://sqlite.org/security.html


def this_file_only(action: int, *_of_it: object) -> int:
    """An authorizer: `VACUUM INTO` and `ATTACH` would write, or read, another file than the one that was named."""
    is_another = action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH)
    return sqlite3.SQLITE_DENY if is_another else sqlite3.SQLITE_OK
