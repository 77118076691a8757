"""The list of `recorder ls`: the conversations with the newest runs or messages.

A conversation is dated by its newest run or message, since a run may have no message, and a message no run. The newest
rows of both tables are read by time until they name enough conversations. The time it takes does not depend on how many
other conversations there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from recorder.core.escaping import unescape
from recorder.core.json import dumps
from recorder.storage.reader import DatabaseReader
from recorder.storage.rows import INTERRUPTED, STREAMING
from recorder.storage.store import SqlStore

Row = Mapping[str, Any]

_RECENT = """
SELECT g.*, EXISTS (SELECT 1 FROM conversations AS c WHERE c.id = g.id) AS known
FROM (SELECT s.id, max(s.at) AS last_at, min(s.at) AS first_at, count(*) AS seen
      FROM (SELECT conversation_id AS id, {time} AS at FROM {table} ORDER BY {time} DESC LIMIT :read) AS s
      GROUP BY s.id) AS g
"""
_MESSAGES = _RECENT.format(table="messages", time="created_at")
_RUNS = _RECENT.format(table="runs", time="started_at")

_IDS = "SELECT id FROM conversations ORDER BY id DESC LIMIT :read"

_ABOUT = """
SELECT a.conversation_id AS id,
    (SELECT count(*) FROM runs AS r WHERE r.conversation_id = a.conversation_id) AS runs,
    (SELECT count(*) FROM messages AS m WHERE m.conversation_id = a.conversation_id) AS messages,
    (SELECT r.id FROM runs AS r WHERE r.conversation_id = a.conversation_id
        ORDER BY r.started_at DESC, r.id DESC LIMIT 1) AS run_id,
    (SELECT r.status FROM runs AS r WHERE r.conversation_id = a.conversation_id
        ORDER BY r.started_at DESC, r.id DESC LIMIT 1) AS status,
    (SELECT c.title FROM conversations AS c WHERE c.id = a.conversation_id) AS title,
    (SELECT substr(m.content, 1, 200) FROM messages AS m
        WHERE m.conversation_id = a.conversation_id AND m.role = 'user'
        ORDER BY m.created_at, m.position, m.id LIMIT 1) AS opening
FROM {keys} AS a
"""


class _Seen(NamedTuple):
    """The conversations that the newest rows of a table name."""

    #: The time of the newest row of each conversation, as text in an order that is the order of time.
    times: dict[str, str]
    #: Rows that are older than this were not read; "" if all were.
    since: str


async def conversations(store: SqlStore, limit: int) -> list[dict[str, Any]]:
    """At most `limit` conversations, the one with the newest run or message first."""
    times = await _newest(store, limit)
    about = await store.rows(
        _ABOUT.format(keys=store.dialect.key_rows), {"keys": dumps([[id] for id in times])}
    )
    by_id = {row["id"]: row for row in about}
    dead = await DatabaseReader(store).dead([row["run_id"] for row in about if row["status"] == STREAMING])
    return [_listed(by_id[id], last_at, dead) for id, last_at in times.items()]


async def _newest(store: SqlStore, limit: int) -> dict[str, str | None]:
    read = 2 * limit
    while True:
        seen = [await _seen(store, query, read) for query in (_MESSAGES, _RUNS)]
        since = max(each.since for each in seen)
        times: dict[str, str] = {}
        for each in seen:
            for id, at in each.times.items():
                times[id] = max(at, times.get(id, ""))
        # More rows may have the time of the oldest row that was read, so only newer ones are certain.
        certain = sorted(((at, id) for id, at in times.items() if at > since), reverse=True)
        if len(certain) >= limit:
            return {id: at for at, id in certain[:limit]}
        if not since:
            return {id: at for at, id in certain} | await _empty(store, times, limit - len(certain))
        read *= 8


async def _seen(store: SqlStore, query: str, read: int) -> _Seen:
    rows = await store.rows(query, {"read": read})
    is_all = sum(row["seen"] for row in rows) < read
    times = {row["id"]: row["last_at"] for row in rows if row["known"]}
    return _Seen(times, "" if is_all else min(row["first_at"] for row in rows))


async def _empty(store: SqlStore, times: Mapping[str, str], limit: int) -> dict[str, str | None]:
    """At most `limit` conversations without runs and messages."""
    rows = await store.rows(_IDS, {"read": limit + len(times)})
    return dict.fromkeys([row["id"] for row in rows if row["id"] not in times][:limit])


def _listed(row: Row, last_at: str | None, dead: set[str]) -> dict[str, Any]:
    found = {
        "id": row["id"],
        "last_at": last_at,
        **{name: row[name] for name in row if name not in ("id", "run_id")},
    }
    if row["run_id"] in dead:
        found["status"] = INTERRUPTED
    return {name: unescape(value) if isinstance(value, str) else value for name, value in found.items()}
