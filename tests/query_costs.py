"""How much of a database the queries of some work read: rows on Postgres, steps of its machine on SQLite."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import Engine

from recorder.storage.store import SqlStore
from tests import postgres

#: A row that SQLite reads takes at least so many steps.
STEPS_A_ROW = 3


class Query(NamedTuple):
    """A statement that a driver was given, what it read, and the steps of its plan."""

    sql: str
    #: Rows that were read; on SQLite at most so many.
    rows: int
    plan: str


def queries_of(url: str, work: Callable[[SqlStore], Coroutine[Any, Any, Any]]) -> list[Query]:
    """The queries of some work on a database."""
    with _heard() as heard:
        asyncio.run(_done(url, work))
    price = _on_sqlite if url.startswith("sqlite") else _on_postgres
    return [price(url, sql, parameters) for sql, parameters in heard]


async def _done(url: str, work: Callable[[SqlStore], Coroutine[Any, Any, Any]]) -> None:
    store = SqlStore(url, read_only=True)
    try:
        await store.rows("SELECT 1 AS connected")
        await work(store)
    finally:
        await store.close()


@contextmanager
def _heard() -> Iterator[list[tuple[str, Sequence[Any]]]]:
    found: list[tuple[str, Sequence[Any]]] = []

    def hear(_connection: Any, _cursor: Any, sql: str, parameters: Any, *_more: Any) -> None:
        if "FROM" in sql and "pg_catalog" not in sql:
            found.append((sql, parameters))

    event.listen(Engine, "before_cursor_execute", hear)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", hear)


def _on_sqlite(url: str, sql: str, parameters: Sequence[Any]) -> Query:
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
        connection.set_progress_handler(step, STEPS_A_ROW)
        connection.execute(sql, parameters).fetchall()
    return Query(sql, steps, "\n".join(plan))


def _on_postgres(url: str, sql: str, parameters: Sequence[Any]) -> Query:
    [(found,)] = postgres.fetch(url, f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *parameters)
    [plan] = json.loads(found)
    return Query(sql, sum(map(_rows_of, _leaves(plan["Plan"]))), json.dumps(plan, indent=1))


def _leaves(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    below = [each for each in node.get("Plans", ()) if each.get("Parent Relationship") != "SubPlan"]
    for each in node.get("Plans", ()):
        yield from _leaves(each)
    if not below:
        yield node


def _rows_of(node: Mapping[str, Any]) -> int:
    left_out = sum(count for name, count in node.items() if name.startswith("Rows Removed by"))
    return round(float((node["Actual Rows"] + left_out) * node["Actual Loops"]))


def fill(url: str, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put many rows with the same columns into a table; times are datetimes."""
    if url.startswith("sqlite"):
        _fill_sqlite(url, table, rows)
    else:
        postgres.run(_fill_postgres(url, table, rows))


def _fill_sqlite(url: str, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    from recorder.core.clock import iso

    names, marks = ", ".join(rows[0]), ", ".join("?" * len(rows[0]))
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        values = ([iso(one) if hasattr(one, "tzinfo") else one for one in row.values()] for row in rows)
        connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", values)


async def _fill_postgres(url: str, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    connection = await asyncpg.connect(url)
    try:
        values = [tuple(row.values()) for row in rows]
        await connection.copy_records_to_table(table, records=values, columns=list(rows[0]))
        await connection.execute(f"ANALYZE {table}")
    finally:
        await connection.close()
