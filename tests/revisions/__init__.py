"""Databases that older versions of recorder made, and the SQL statements with which those versions write.

`0001.db.gz` was recorded by the recorder of revision 0001: the runs of `tests/shop.py`, and a run with frames and two
messages that were added to it. `0001.sqlite.sql` and `0001.postgres.sql` are the statements that it sends. The later
files are the same of the recorders of their revisions; their run with frames was sent a system message.
"""

from __future__ import annotations

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from recorder.storage import migrate, schema
from tests import postgres

FOLDER = Path(__file__).resolve().parent


def older_file(folder: Path, revision: str = "0001") -> str:
    """Copy the stored file of a revision into a folder and return the copy's URL."""
    path = folder / "older.db"
    path.write_bytes(gzip.decompress((FOLDER / f"{revision}.db.gz").read_bytes()))
    return f"sqlite:///{path}"


def older_postgres(folder: Path, revision: str = "0001") -> str:
    """Create a Postgres database of a revision with the rows of its file, and return its URL."""
    url = postgres.new_database(empty=True)
    rows = _rows_of(older_file(folder, revision))

    def fill(connection: Connection) -> None:
        with migrate.exclusively(connection):
            config = Config(attributes={"connection": connection, "applied": []})
            config.set_main_option("script_location", str(migrate.scripts()))
            command.upgrade(config, revision)
            for name, found in rows.items():
                _insert(connection, name, found)

    migrate.connected(url, fill)
    return url


def older_statements(revision: str, name: str) -> list[str]:
    """Return the statements with which the writer of a revision stores a batch, one a line."""
    return (FOLDER / f"{revision}.{name}.sql").read_text().splitlines()


def _rows_of(url: str) -> dict[str, list[dict[str, Any]]]:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.row_factory = sqlite3.Row
        tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
        names = schema.metadata.tables.keys() & {name for [name] in connection.execute(tables)}
        return {
            name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in sorted(names)
        }


def _insert(connection: Connection, name: str, rows: list[dict[str, Any]]) -> None:
    """Insert rows as text, because Postgres parses ids, times and JSON in the form that SQLite stores."""
    for row in rows:
        columns = schema.metadata.tables[name].c
        kinds = {key: columns[key].type.compile(dialect=connection.dialect) for key in row}
        values = ", ".join(f"CAST(CAST(:{key} AS text) AS {kind})" for key, kind in kinds.items())
        plain = {key: value for key, value in row.items() if not isinstance(value, bytes)}
        given = {key: None if value is None else str(value) for key, value in plain.items()}
        for key in row.keys() - plain.keys():
            values = values.replace(f"CAST(CAST(:{key} AS text) AS BYTEA)", f"decode(:{key}, 'hex')")
            given[key] = row[key].hex()
        connection.execute(
            text(f"INSERT INTO {name} ({', '.join(map(_quoted, row))}) VALUES ({values})"), given
        )


def _quoted(name: str) -> str:
    """Return a name as SQL quotes it."""
    return f'"{name}"'
