"""`recorder ls` and an id by its beginning, among a million conversations."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from typing import Any

from benchmarks.harness import Measured, Settings, Side, best, compare, values
from benchmarks.peers import expect
from benchmarks.table import Row, each
from recorder.cli import queries
from recorder.storage import conversation_list as listing
from recorder.storage import id_lookup, migrate
from recorder.storage.dialects import parse_url
from tests import postgres

TITLE = "The list of conversations"
KINDS = ("sqlite", "postgres")
#: How many conversations `recorder ls` shows.
_SHOWN = 20

#: {n} is the number of a conversation, {id} makes an id from it, {time} a moment from it.
_CONVERSATIONS = "INSERT INTO conversations (id, created_at) SELECT {name}, {time} FROM {numbers}"
_RUNS = """
INSERT INTO runs (id, conversation_id, operation, status, started_at, ended_at, response_message_id)
SELECT {id}, {name}, 'chat', 'complete', {time}, {time}, {id} FROM {numbers}
"""
_MESSAGES = """
INSERT INTO messages (conversation_id, id, position, role, content, created_at)
SELECT {name}, {id}, 0, 'user', 'Where is my order?', {time} FROM {numbers}
"""
_DIALECTS = {
    "sqlite": {
        "numbers": (
            "(WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n + 1 < {count}) SELECT n FROM c)"
        ),
        "name": "printf('customer-%08d', n)",
        "id": "printf('01900000-0000-7000-8000-%012x', n)",
        "time": "strftime('%Y-%m-%dT%H:%M:%S.000000Z', 1700000000 + n, 'unixepoch')",
    },
    "postgres": {
        "numbers": "generate_series(0, {count} - 1) AS s(n)",
        "name": "'customer-' || lpad(n::text, 8, '0')",
        "id": "('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid",
        "time": "to_timestamp(1700000000 + n)",
    },
}


def rows(settings: Settings) -> list[Row]:
    """Each on both databases."""
    # One more, so that the beginning of the last id is the beginning of no other.
    count = settings.size(1_000_001, 50_001)
    sides = {
        kind: Side("benchmarks.listing:listed", {"kind": kind, "count": count}, folder=True) for kind in KINDS
    }
    found = compare(sides, 1)
    return [row for kind in KINDS for row in _rows(kind, found[kind], count)]


def _rows(kind: str, found: list[Measured], count: int) -> list[Row]:
    ls_ms, id_ms = best(found, "ls_ms"), best(found, "id_ms")
    among = f"among {count:,} conversations, {kind}"
    return [
        Row(f"recorder ls {among}", f"{ls_ms:.1f} ms", each(values(found, "ls_ms")), "", "under 50 ms", ls_ms < 50),
        Row(f"a conversation by the beginning of its id {among}", f"{id_ms:.1f} ms", each(values(found, "id_ms"))),
    ]  # fmt: skip


def listed(kind: str, count: int, folder: str) -> Measured:
    """Fill a database, and read it as the commands do."""
    url = f"sqlite:///{folder}/list.db" if kind == "sqlite" else postgres.new_database()
    try:
        _fill(kind, url, count)
        shown, ls_ms = _timed(url, lambda store: listing.conversations(store, _SHOWN))
        names = [f"customer-{count - n:08d}" for n in range(1, _SHOWN + 1)]
        expect(sum(row["id"] == name for row, name in zip(shown, names, strict=True)), _SHOWN)
        found, id_ms = _timed(url, lambda store: id_lookup.find(store, names[0][:-1]))
        expect(found.id == names[0], True)
    finally:
        if kind == "postgres":
            postgres.drop(url)
    return {"ls_ms": ls_ms, "id_ms": id_ms}


def _fill(kind: str, url: str, count: int) -> None:
    parts = {**_DIALECTS[kind]}
    parts["numbers"] = parts["numbers"].format(count=count)
    statements = [sql.format(**parts) for sql in (_CONVERSATIONS, _RUNS, _MESSAGES)]
    if kind == "postgres":
        for statement in [*statements, "ANALYZE"]:
            postgres.fetch(url, statement)
        return
    migrate.upgrade(url)
    with closing(sqlite3.connect(parse_url(url).database or "")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def _timed(url: str, query: Callable[[Any], Coroutine[Any, Any, Any]]) -> tuple[Any, float]:
    """The result, and the shortest time of five on an open connection (milliseconds)."""

    async def timed(store: Any) -> tuple[Any, float]:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            found = await query(store)
            times.append((time.perf_counter() - began) * 1000)
        return found, min(times)

    return queries.read(url, timed)
