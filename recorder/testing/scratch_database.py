"""A SQLite file for one test, made in a few milliseconds: without alembic, and without waiting for the disk.

Nothing is lost if the computer stops while it is written, because it is a copy of a text file.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import astuple
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import NullPool, create_engine, event

from recorder.core.clock import iso
from recorder.export.format import Row
from recorder.storage import schema, views
from recorder.storage.columns import names_of
from recorder.storage.dialects import set_up_new_file
from recorder.storage.migrate import VERSION_TABLE
from recorder.storage.rows import Producer

_COUNTS = " + ".join(f"(SELECT count(*) FROM {table.name})" for table in schema.TABLES.values())


def create(path: Path) -> None:
    """Create a file with the tables and views of the newest schema. Takes about 30 ms, so copy the file."""
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    event.listen(engine, "connect", _set_up)
    with engine.begin() as connection:
        schema.metadata.create_all(connection)
        views.create(connection)
        connection.exec_driver_sql(
            f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"
        )
        connection.exec_driver_sql(f"INSERT INTO {VERSION_TABLE} VALUES (?)", (schema.HEAD,))


def _set_up(connection: sqlite3.Connection, _record: object) -> None:
    set_up_new_file(connection.cursor())
    connection.execute("PRAGMA synchronous = OFF")


def fill(template: Path, path: Path, rows: Iterable[Row]) -> None:
    """Make a copy of the template, and insert these rows into it."""
    shutil.copyfile(template, path)
    by_type: defaultdict[type[Any], list[tuple[Any, ...]]] = defaultdict(list)
    for row in rows:
        by_type[type(row)].append(_values(row))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for row_type, values in by_type.items():
            names = names_of(row_type)
            places = ",".join("?" * len(names))
            table = f'"{schema.TABLES[row_type].name}" ({",".join(names)})'
            connection.executemany(f"INSERT INTO {table} VALUES ({places})", values)
        connection.commit()


def count_rows(path: Path) -> int:
    """How many rows all tables have together; 0 for a file that does not exist."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path)) as connection:
        [[count]] = connection.execute(f"SELECT {_COUNTS}")
    return int(count)


def _values(row: Any) -> tuple[Any, ...]:
    values = astuple(row) if isinstance(row, Producer) else row
    return tuple(iso(value) if isinstance(value, datetime) else value for value in values)
