"""Upgrades a database to the newest schema, or raises an error that says why it cannot.

`state` is the fast path of opening a database: plain SQL, without alembic. An upgrade is one transaction under one
lock. So an interrupted upgrade is rolled back as a whole, and processes that open the same new database at the same
time wait for each other. (With alembic's defaults on SQLite every retry of an interrupted upgrade fails with "table
already exists", and of two upgrades at the same time the second fails.)
"""

from __future__ import annotations

import os
import shlex
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from sqlalchemy import URL, Connection, NullPool, create_engine, event
from sqlalchemy.exc import OperationalError

from recorder.core.blocking_loop import BlockingLoop
from recorder.core.installation import REINSTALL, UPGRADE
from recorder.core.printable import printable_line
from recorder.errors import SchemaError, StoreError
from recorder.storage import schema, views
from recorder.storage.content_hashes import fill_content_hashes
from recorder.storage.dialects import (
    Postgres,
    file_of,
    masked,
    open_error,
    parse_url,
    private_file,
    set_up_new_file,
)
from recorder.storage.fork_safe import Handle

T = TypeVar("T")
State = Literal["empty", "current", "old"]

#: How long an upgrade waits for another process that upgrades or writes (seconds).
LOCK_TIMEOUT = 60.0
#: The key of `pg_advisory_xact_lock`: "recorder" in ASCII, below 2**63.
LOCK_KEY = int.from_bytes(b"recorder")

#: The table in which alembic stores the revision.
VERSION_TABLE = "alembic_version"
#: How many rows of alembic's table are read. Recorder's has one row, another tool's may have several.
_MOST_REVISIONS = 9
_TABLES = frozenset(schema.metadata.tables)
_NAMES = _TABLES | views.definitions("sqlite").keys() | {VERSION_TABLE, schema.MESSAGE_WORDS}
#: Tables of every revision. Where they exist, an unknown revision belongs to a newer recorder and not to another tool.
_SIGNATURE = frozenset(("conversations", "runs", "messages", "segments"))

# A view named alembic_version is skipped: in a foreign file it may return rows without end.
_NAMES_SQLITE = (
    f"SELECT lower(name) FROM sqlite_master WHERE type = 'table' OR lower(name) <> '{VERSION_TABLE}'"
)
#: The columns of all tables, without views and virtual tables, which have no root page.
_COLUMNS_SQLITE = """
SELECT lower(m.name), lower(c.name) FROM sqlite_master AS m CROSS JOIN pragma_table_info(m.name) AS c
WHERE m.type = 'table' AND m.rootpage > 0"""
# Visible relations only: recorder's statements name no schema.
_NAMES_POSTGRES = "SELECT relname::text FROM pg_catalog.pg_class WHERE pg_catalog.pg_table_is_visible(oid)"


def state(connection: Connection) -> State:
    """ "empty" without tables, "current" with the newest schema, "old" with an older one.

    Raises `SchemaError` if the schema is newer or another tool's. Reads only, in the caller's transaction.
    """
    found = _found(connection)
    revisions = stored_revisions(connection) if VERSION_TABLE in found else []
    if not revisions:
        _refuse_clash(connection, found - {VERSION_TABLE})
        return "empty"
    if not found >= _SIGNATURE:
        raise SchemaError(_foreign_version(connection, revisions))
    if set(revisions) <= {schema.HEAD}:
        _refuse_other_tables(connection)
        return "current"
    if set(revisions) <= set(schema.REVISIONS):
        return "old"
    raise SchemaError(
        f"{_where(connection)} was written by a newer recorder: its schema is {', '.join(revisions)}, and "
        f"this version knows {schema.HEAD}; {UPGRADE}"
    )


def upgrade(url: str) -> list[str]:
    """Upgrade the database at `url` to the newest schema, and compute what older versions did not store.

    Returns the applied revisions, none if it was current. May take long. Raises `SchemaError` as `state` does, and
    SQLAlchemy's `DBAPIError` for errors of the database.
    """
    applied = connected(url, upgrade_connection)
    connected(url, fill_content_hashes)
    return applied


def upgrade_connection(connection: Connection) -> list[str]:
    """`upgrade` on a connection without an open transaction. In asyncio call it by `connection.run_sync(...)`."""
    with _one_at_a_time(), exclusively(connection):
        return [] if state(connection) == "current" else _apply(connection)


def old_message(url: str) -> str:
    """The error message for tables that are older than this version."""
    shown = masked(url)
    return (
        f"{shown} has the tables of an older recorder; this version needs schema {schema.HEAD}. "
        f"Run: recorder migrate --url {shlex.quote(shown)}"
    )


def scripts() -> Path:
    """The folder of alembic's env.py and versions, in an installed package or in a source tree."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_migrations", package.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise SchemaError(f"No migrations beside {package}; {REINSTALL}")


def connected(url: str, work: Callable[[Connection], T]) -> T:
    """Call `work` with a new connection and return its result. An event loop may be running."""
    parsed = parse_url(url)
    if parsed.drivername == "postgresql":
        with BlockingLoop() as loop:  # asyncpg has no blocking calls
            return loop.run(_connected_async(parsed, work))
    engine = create_engine(
        parsed.set(drivername="sqlite+pysqlite"),
        poolclass=NullPool,
        connect_args={"timeout": LOCK_TIMEOUT, "factory": partial(Handle, path=file_of(parsed))},
    )
    event.listen(engine, "do_connect", lambda *_: private_file(file_of(parsed)))
    event.listen(engine, "connect", lambda connection, _record: set_up_new_file(connection.cursor()))
    with engine.connect() as connection:
        return work(connection)


@contextmanager
def exclusively(connection: Connection) -> Iterator[None]:
    """One transaction. Upgrades of other processes wait for its end."""
    with connection.begin():
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_KEY})")
        else:
            _begin_exclusive(connection)
        yield


def _begin_exclusive(connection: Connection) -> None:
    # Python's driver begins no transaction before DDL, so each statement would be committed separately.
    try:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")
    except OperationalError as error:
        if "within a transaction" not in str(error.orig):
            raise  # otherwise the engine's `begin` listener has run BEGIN IMMEDIATE, which is sufficient


async def _connected_async(url: URL, work: Callable[[Connection], T]) -> T:
    database = Postgres(url, with_timeout=False)  # an index on a large table takes as long as it takes
    database.check()
    try:
        async with database.engine().connect() as connection:
            return await connection.run_sync(work)
    except database.errors as error:
        raise open_error(database, error) from error


_lock = threading.Lock()
_upgrading: int | None = None


def _in_child() -> None:
    """Reset the lock: the thread that holds it exists in the parent only."""
    global _lock, _upgrading
    _lock, _upgrading = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Allow one upgrade at a time in a process, because alembic has its state in module globals."""
    global _upgrading
    if _upgrading == threading.get_ident():  # two tasks of one event loop; waiting would be a deadlock
        raise StoreError("An upgrade is already running on this thread; await it before starting another")
    with _lock:
        _upgrading = threading.get_ident()
        try:
            yield
        finally:
            _upgrading = None


def _apply(connection: Connection) -> list[str]:
    from alembic import command
    from alembic.config import Config

    applied: list[str] = []
    config = Config(attributes={"connection": connection, "applied": applied})
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    command.upgrade(config, "head")
    return applied


def _found(connection: Connection) -> frozenset[str]:
    """Those of recorder's table and view names that exist in the database."""
    query = _NAMES_POSTGRES if connection.dialect.name == "postgresql" else _NAMES_SQLITE
    return _NAMES & set(connection.exec_driver_sql(query).scalars())


def stored_revisions(connection: Connection) -> list[str]:
    """The revisions in alembic's table, which exists; recorder's tables have one."""
    found = connection.exec_driver_sql(
        f"SELECT version_num FROM {VERSION_TABLE} LIMIT {_MOST_REVISIONS}"
    ).scalars()
    return sorted(printable_line(str(each)) for each in found)  # a foreign file may have any text


def _refuse_other_tables(connection: Connection) -> None:
    """Raise `SchemaError` for a SQLite file in which a table is a view, or lacks a column."""
    if connection.dialect.name != "sqlite":
        return
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name, column in connection.exec_driver_sql(_COLUMNS_SQLITE):
        found[name].add(column)
    other = [
        table.name for table in schema.metadata.sorted_tables if not found[table.name] >= set(table.c.keys())
    ]
    if other:
        raise SchemaError(
            f"{_where(connection)} claims to have schema {schema.HEAD}, but its {', '.join(other)} is not the table "
            "that recorder creates; restore it from a backup, or name another file"
        )


def _refuse_clash(connection: Connection, clashing: frozenset[str]) -> None:
    if not clashing:
        return
    raise SchemaError(
        f"{_where(connection)} already has {_listed(clashing)}, not created by recorder, which needs "
        f"{'this name' if len(clashing) == 1 else 'these names'}. Nothing was changed; {_elsewhere(connection)}"
    )


def _foreign_version(connection: Connection, revisions: list[str]) -> str:
    return (
        f"{_where(connection)} is migrated by another tool: its {VERSION_TABLE} is {', '.join(revisions)}, and "
        f"recorder's tables do not exist. Nothing was changed; {_elsewhere(connection)}"
    )


def _listed(names: frozenset[str]) -> str:
    return ("a table or view " if len(names) == 1 else "tables or views ") + ", ".join(sorted(names))


def _elsewhere(connection: Connection) -> str:
    if connection.dialect.name == "postgresql":
        return "use another database, or another schema (search_path)"
    return "use another file, like sqlite:///recorder.db"


def _where(connection: Connection) -> str:
    return masked(connection.engine.url)
