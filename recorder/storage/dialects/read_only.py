"""Settings of a read-only connection to a SQLite file that any program may have written."""

from __future__ import annotations

import sqlite3
from typing import Any

from recorder.storage.views import definitions


def read_only(cursor: Any) -> None:
    """Set up a new connection. Temporary views hide tables and views of the same names in the file."""
    for name, body in definitions("sqlite").items():
        cursor.execute(f"CREATE TEMP VIEW {name} AS {body}")
    cursor.execute("PRAGMA query_only = ON")
    cursor.execute("PRAGMA cell_size_check = ON")  # https://sqlite.org/security.html


def this_file_only(action: int, *_details: object) -> int:
    """An authorizer that refuses `ATTACH` and `VACUUM INTO`, which would read or write other files."""
    is_another = action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH)
    return sqlite3.SQLITE_DENY if is_another else sqlite3.SQLITE_OK
