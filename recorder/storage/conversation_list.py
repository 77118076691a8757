"""The list of conversations, those with the newest runs or messages first, whole or page by page.

A conversation is dated by its newest run or message, since a run may have no message, and a message no run. Of a few
conversations the newest row of each is read. Of many conversations the rows of both tables are read by time, the newest
first, until they name enough conversations. The rows of a conversation that was named already are skipped inside the
database, by an index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from recorder.core.clock import parse_iso
from recorder.core.escaping import escape, unescape
from recorder.core.json import dumps
from recorder.storage.conversation_filter import ConversationFilter, matching
from recorder.storage.reader import DatabaseReader
from recorder.storage.rows import INTERRUPTED, STREAMING
from recorder.storage.statuses import IS_MODEL_CALL_SQL
from recorder.storage.store import SqlStore

Row = Mapping[str, Any]

#: More conversations than this are not counted.
COUNTED = 1_000
#: Of at most so many conversations the newest row of each is read.
_FEW = 1_000
#: Of so many conversations at once the counts and the opening are read.
_IDS_A_QUERY = 1_000
_COUNT = "SELECT count(*) AS stored FROM (SELECT 1 FROM conversations LIMIT :most) AS c"
_MESSAGES, _RUNS = ("messages", "created_at"), ("runs", "started_at")
#: A page of the rows of conversations that are not among the keys. With EXISTS, Postgres would read all conversations.
_OTHERS = """
SELECT s.conversation_id AS id, s.{time} AS at,
    (SELECT 1 FROM conversations AS c WHERE c.id = s.conversation_id) AS known
FROM {table} AS s
WHERE s.conversation_id NOT IN (SELECT a.conversation_id FROM {keys} AS a) {and_not_newer}
ORDER BY s.{time} DESC LIMIT :read
"""
_AND_NOT_NEWER = "AND s.{time} <= :since"

_EMPTY = """
SELECT c.id FROM conversations AS c
WHERE NOT EXISTS (
        SELECT 1 FROM messages AS m WHERE m.conversation_id = c.id AND CAST(m.created_at AS text) <> '')
    AND NOT EXISTS (SELECT 1 FROM runs AS r WHERE r.conversation_id = c.id AND CAST(r.started_at AS text) <> '')
    {behind}
ORDER BY c.id DESC LIMIT :read
"""
#: The conversations among the keys that have a row after a time.
_NEWER = """
SELECT a.conversation_id AS id FROM {keys} AS a
WHERE EXISTS (SELECT 1 FROM messages AS m WHERE m.conversation_id = a.conversation_id AND m.created_at > :at)
    OR EXISTS (SELECT 1 FROM runs AS r WHERE r.conversation_id = a.conversation_id AND r.started_at > :at)
"""

_ABOUT = """
SELECT a.conversation_id AS id,
    (SELECT count(*) FROM runs AS r WHERE r.conversation_id = a.conversation_id AND {model_call}) AS runs,
    (SELECT count(*) FROM messages AS m WHERE m.conversation_id = a.conversation_id) AS messages,
    (SELECT r.id FROM runs AS r WHERE r.conversation_id = a.conversation_id AND {model_call}
        ORDER BY r.started_at DESC, r.id DESC LIMIT 1) AS run_id,
    (SELECT r.status FROM runs AS r WHERE r.conversation_id = a.conversation_id AND {model_call}
        ORDER BY r.started_at DESC, r.id DESC LIMIT 1) AS status,
    (SELECT c.title FROM conversations AS c WHERE c.id = a.conversation_id) AS title,
    (SELECT substr(m.content, 1, 200) FROM messages AS m
        WHERE m.conversation_id = a.conversation_id AND m.role = 'user'
        ORDER BY m.created_at, m.position, m.id LIMIT 1) AS opening
FROM {keys} AS a
"""


class ListPlace(NamedTuple):
    """A place in the list: that of one conversation, by its last time ("" for none) and its id."""

    at: str
    id: str

    def is_before(self, id: str, at: str | None) -> bool:
        """Whether a conversation comes behind this place."""
        return (str(at or ""), str(id)) < self


@dataclass(frozen=True, slots=True)
class Listing:
    """A part of the conversations that match, the newest first."""

    rows: Sequence[Row]
    #: How many match; None if they are more than `COUNTED` and were not counted.
    total: int | None

    @property
    def is_cut(self) -> bool:
        """Whether more match than are in `rows`."""
        return self.total != len(self.rows)


async def listed(store: SqlStore, limit: int | None, wanted: ConversationFilter) -> Listing:
    """At most `limit` of the conversations that match; None is all of them."""
    if limit is not None and wanted.is_empty:
        rows = await conversations(store, limit)
        stored = len(rows) if len(rows) < limit else await _count(store, max(limit, COUNTED))
        return Listing(rows, stored if stored <= max(limit, COUNTED) else None)
    times = await matching(store, wanted)
    return Listing(await _about(store, dict(islice(times.items(), limit))), len(times))


async def conversations(store: SqlStore, limit: int) -> list[dict[str, Any]]:
    """At most `limit` conversations, the one with the newest run or message first."""
    return await page(store, limit, ConversationFilter())


async def page(
    store: SqlStore, limit: int, wanted: ConversationFilter, after: ListPlace | None = None
) -> list[dict[str, Any]]:
    """At most `limit` of the conversations that match, from the one behind this place on."""
    return await _about(store, await _times(store, limit, wanted, after))


async def _about(store: SqlStore, times: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """What is shown of these conversations."""
    ids, found = list(times), []
    for start in range(0, len(ids), _IDS_A_QUERY):
        part = ids[start : start + _IDS_A_QUERY]
        rows = await store.rows(
            _ABOUT.format(keys=store.dialect.key_rows, model_call=IS_MODEL_CALL_SQL),
            {"keys": dumps([[id] for id in part])},
        )
        dead = await DatabaseReader(store).dead([row["run_id"] for row in rows if row["status"] == STREAMING])
        by_id = {row["id"]: row for row in rows}
        found += [_listed(by_id.get(id) or _unreadable(id), times[id], dead) for id in part]
    return found


async def _times(
    store: SqlStore, limit: int, wanted: ConversationFilter, after: ListPlace | None
) -> Mapping[str, str | None]:
    few = max(limit, _FEW)
    if wanted.is_empty and await _count(store, few) > few:
        return await _by_time(store, limit, after)
    times = await matching(store, wanted)
    behind = ((id, at) for id, at in times.items() if after is None or after.is_before(id, at))
    return dict(islice(behind, limit))


async def _count(store: SqlStore, most: int) -> int:
    """How many conversations are stored; `most` + 1 if they are more than that."""
    [found] = await store.rows(_COUNT, {"most": most + 1})
    return int(found["stored"])


async def _by_time(store: SqlStore, limit: int, after: ListPlace | None) -> dict[str, str | None]:
    if after is not None and not after.at:
        return await _empty(store, limit, after)
    tables = [_RowsByTime(store, *table, after.at if after else "") for table in (_MESSAGES, _RUNS)]
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
        newer = [(at, id) for id, at in times.items() if at > last.since or not last.since]
        certain = sorted(newer, key=lambda each: (each[0], str(each[1])), reverse=True)
        if after is not None:
            certain = await _behind(store, certain, after)
        if len(certain) >= limit:
            return {id: at for at, id in certain[:limit]}
        if not last.since:
            return {id: at for at, id in certain} | await _empty(store, limit - len(certain))
        read *= 4
        await last.read(read)


async def _behind(
    store: SqlStore, found: Sequence[tuple[str, str]], after: ListPlace
) -> list[tuple[str, str]]:
    """Those behind a place; a conversation with a row newer than the place was listed before it."""
    behind = [(at, id) for at, id in found if after.is_before(id, at)]
    keys = dumps([[id] for _, id in behind])
    rows = await store.rows(
        _NEWER.format(keys=store.dialect.key_rows), {"keys": keys, "at": _time(store, after.at)}
    )
    listed_before = {row["id"] for row in rows}
    return [(at, id) for at, id in behind if id not in listed_before]


class _RowsByTime:
    """The rows of a table, the newest first. Each page leaves out the conversations of the pages before it."""

    def __init__(self, store: SqlStore, table: str, time: str, since: str) -> None:
        self._store = store
        self._names = {"table": table, "time": time, "keys": store.dialect.key_rows}
        self._seen: dict[str, None] = {}
        #: The time of the newest row of each conversation, as text in an order that is the order of time.
        self.times: dict[str, str] = {}
        #: Rows that are older than this were not read; "" if all were, and at first for the newest rows.
        self.since = since
        self._stored_since: Any = since or None

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


def _time(store: SqlStore, at: str) -> Any:
    """A time of the list for the database, as `_RowsByTime` passes it."""
    return at if store.dialect.name == "sqlite" else parse_iso(at)


async def _empty(store: SqlStore, limit: int, after: ListPlace | None = None) -> dict[str, str | None]:
    """At most `limit` conversations without runs and messages. In a foreign file rows may have no time."""
    behind, given = ("AND c.id < :after", {"after": escape(after.id)}) if after is not None else ("", {})
    rows = await store.rows(_EMPTY.format(behind=behind), {"read": limit, **given})
    return dict.fromkeys(row["id"] for row in rows)


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
