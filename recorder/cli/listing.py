"""The list of `recorder ls`: the conversations with the newest runs or messages.

A conversation is dated by its newest run or message, since a run may have no message, and a message no run. Of a few
conversations the newest row of each is read. Of many conversations the rows of both tables are read by time, the newest
first, until they name enough conversations. The rows of a conversation that was named already are skipped inside the
database, by an index.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recorder.core.clock import parse_iso
from recorder.core.escaping import unescape
from recorder.core.json import dumps
from recorder.storage.reader import DatabaseReader
from recorder.storage.rows import INTERRUPTED, STREAMING
from recorder.storage.store import SqlStore

Row = Mapping[str, Any]

#: Of at most so many conversations the newest row of each is read.
_FEW = 1_000
_COUNT = "SELECT count(*) AS stored FROM (SELECT 1 FROM conversations LIMIT :most) AS c"
_EACH = """
SELECT c.id,
    (SELECT max(m.created_at) FROM messages AS m WHERE m.conversation_id = c.id) AS said_at,
    (SELECT max(r.started_at) FROM runs AS r WHERE r.conversation_id = c.id) AS began_at
FROM conversations AS c
"""

_MESSAGES, _RUNS = ("messages", "created_at"), ("runs", "started_at")
#: A page of the rows of conversations that are not among the keys.
_OTHERS = """
SELECT s.conversation_id AS id, s.{time} AS at,
    EXISTS (SELECT 1 FROM conversations AS c WHERE c.id = s.conversation_id) AS known
FROM {table} AS s
WHERE s.conversation_id NOT IN (SELECT a.conversation_id FROM {keys} AS a) {and_not_newer}
ORDER BY s.{time} DESC LIMIT :read
"""
_AND_NOT_NEWER = "AND s.{time} <= :since"

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


async def conversations(store: SqlStore, limit: int) -> list[dict[str, Any]]:
    """At most `limit` conversations, the one with the newest run or message first."""
    times = await _newest(store, limit)
    about = await store.rows(
        _ABOUT.format(keys=store.dialect.key_rows), {"keys": dumps([[id] for id in times])}
    )
    by_id = {row["id"]: row for row in about}
    dead = await DatabaseReader(store).dead([row["run_id"] for row in about if row["status"] == STREAMING])
    return [_listed(by_id.get(id) or _unreadable(id), last_at, dead) for id, last_at in times.items()]


async def _newest(store: SqlStore, limit: int) -> dict[str, str | None]:
    few = max(limit, _FEW)
    [found] = await store.rows(_COUNT, {"most": few + 1})
    return await (_of_each if found["stored"] <= few else _by_time)(store, limit)


async def _of_each(store: SqlStore, limit: int) -> dict[str, str | None]:
    times = {}
    for row in await store.rows(_EACH):
        times[row["id"]] = max(filter(None, (row["said_at"], row["began_at"])), key=str, default=None)
    newest = sorted(times.items(), key=lambda each: (str(each[1] or ""), str(each[0])), reverse=True)
    return dict(newest[:limit])


async def _by_time(store: SqlStore, limit: int) -> dict[str, str | None]:
    tables = [_RowsByTime(store, *table) for table in (_MESSAGES, _RUNS)]
    read = 2 * limit
    for table in tables:
        await table.read(read)
    while True:
        last = max(tables, key=lambda table: table.since)
        times: dict[str, str] = {}
        for table in tables:
            for id, at in table.times.items():
                times[id] = max(at, times.get(id, ""))
        # More rows may have the time of the oldest row that was read, so only newer ones are certain.
        newer = [(at, id) for id, at in times.items() if at > last.since]
        certain = sorted(newer, key=lambda each: (each[0], str(each[1])), reverse=True)
        if len(certain) >= limit:
            return {id: at for at, id in certain[:limit]}
        if not last.since:
            return {id: at for at, id in certain} | await _empty(store, times, limit - len(certain))
        read *= 4
        await last.read(read)


class _RowsByTime:
    """The rows of a table, the newest first. Each page leaves out the conversations of the pages before it."""

    def __init__(self, store: SqlStore, table: str, time: str) -> None:
        self._store = store
        self._names = {"table": table, "time": time, "keys": store.dialect.key_rows}
        self._seen: dict[str, None] = {}
        #: The time of the newest row of each conversation, as text in an order that is the order of time.
        self.times: dict[str, str] = {}
        #: Rows that are older than this were not read; "" if all were.
        self.since = ""
        self._stored_since: Any = None

    async def read(self, count: int) -> None:
        """Read the next `count` rows."""
        given: dict[str, Any] = {"keys": dumps([[id] for id in self._seen]), "read": count}
        older = ""
        if self.since:
            older, given["since"] = _AND_NOT_NEWER.format_map(self._names), self._parameter()
        rows = await self._store.rows(_OTHERS.format(**self._names, and_not_newer=older), given)
        for row in rows:
            self._seen[row["id"]] = None
            if row["known"] and row["at"]:
                self.times.setdefault(row["id"], str(row["at"]))
        self._stored_since = rows[-1]["at"] if len(rows) == count else None
        self.since = str(self._stored_since or "")

    def _parameter(self) -> Any:
        """The time for the database. SQLite gets back what it stores, which need not be a time in a foreign file."""
        return self._stored_since if self._store.dialect.name == "sqlite" else parse_iso(self.since)


async def _empty(store: SqlStore, times: Mapping[str, str], limit: int) -> dict[str, str | None]:
    """At most `limit` conversations without runs and messages."""
    rows = await store.rows(_IDS, {"read": limit + len(times)})
    return dict.fromkeys([row["id"] for row in rows if row["id"] not in times][:limit])


def _unreadable(id: object) -> Row:
    """The row of a conversation whose id in a foreign file is no text, and so cannot be asked for."""
    return {
        "id": str(id),
        "runs": 0,
        "messages": 0,
        "run_id": None,
        **dict.fromkeys(("status", "title", "opening")),
    }


def _listed(row: Row, last_at: str | None, dead: set[str]) -> dict[str, Any]:
    found = {
        "id": row["id"],
        "last_at": last_at,
        **{name: row[name] for name in row if name not in ("id", "run_id")},
    }
    if row["run_id"] in dead:
        found["status"] = INTERRUPTED
    return {name: unescape(value) if isinstance(value, str) else value for name, value in found.items()}
