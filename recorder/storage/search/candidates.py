"""Finds the messages that may match a query by the index of either database, the newest first.

The order is the same on both: by time, then by conversation and id, all of them descending. Too many are found: the
index has no positions, and on SQLite it cannot tell messages of one microsecond apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from recorder.core.clock import iso, parse_iso
from recorder.core.escaping import escape
from recorder.core.json import dumps
from recorder.errors import StoreError
from recorder.storage.conversation_filter import ConversationFilter
from recorder.storage.dialects.sqlite_words import EXISTS, has_fts5, rowid_of, time_of
from recorder.storage.row_checks import json_of
from recorder.storage.schema import MESSAGE_WORDS
from recorder.storage.search.query import SearchQuery
from recorder.storage.store import SqlStore

Row = Mapping[str, Any]

#: On SQLite, of a user with at most so many messages each of them is a candidate.
_FEW = 2_000
#: So many messages that are not indexed yet are candidates. If there are more, the search says that it is not complete.
MOST_NOT_INDEXED = 500
#: On Postgres, if the planner expects at most so many rows, all of them are read, else the newest messages by time.
_EXPECTED = 3_000
#: Of so many messages, the newest first, the words are compared without the index.
_WINDOWS = (2_000, 20_000)
#: On SQLite, rowids of one query if a user's messages are looked for among those of all users.
_ROWIDS = 1_000

_COLUMNS = "m.conversation_id, m.id, m.role, m.run_id, m.created_at"
_OF_USER = "m.conversation_id IN (SELECT c.id FROM conversations AS c WHERE c.user_id = :user)"


class SearchPlace(NamedTuple):
    """A place in the order of the hits: behind this message, or without an id behind all messages of this time."""

    at: str
    conversation_id: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Messages that may match."""

    rows: Sequence[Row]
    #: Where the next ones begin; None if there are no more.
    after: SearchPlace | None


def place_of(row: Row) -> SearchPlace:
    """The place of a message."""
    return SearchPlace(str(row["created_at"]), row["conversation_id"], str(row["id"]))


async def not_indexed(
    store: SqlStore, wanted: ConversationFilter, after: SearchPlace | None
) -> Sequence[Row] | None:
    """The newest messages behind a place that are not indexed yet; None if they are too many to be compared."""
    some = f"SELECT 1 FROM messages AS m WHERE m.words IS NULL LIMIT {MOST_NOT_INDEXED + 1}"
    [row] = await store.rows(f"SELECT count(*) AS stored FROM ({some}) AS n")
    if not 0 < row["stored"] <= MOST_NOT_INDEXED:
        return None if row["stored"] else []
    conditions, parameters = _conditions(store, wanted, after)
    where = " AND ".join(("m.words IS NULL", *conditions[1:]))
    sql = f"SELECT {_COLUMNS} FROM messages AS m WHERE {where} ORDER BY {_order(store)}"
    return await store.rows(sql, parameters)


async def candidates(
    store: SqlStore, query: SearchQuery, wanted: ConversationFilter, after: SearchPlace | None, count: int
) -> Candidates:
    """At least one candidate and about `count`, unless there are no more. Of `wanted` only the user and times count.

    Raises `StoreError` for a SQLite file without an index.
    """
    if not query.words:
        return Candidates([], None)
    if store.dialect.name == "sqlite":
        return await _on_sqlite(store, query, wanted, after, count)
    return await _on_postgres(store, query, wanted, after, count)


def merged(found: Candidates, others: Sequence[Row], after: SearchPlace | None) -> Candidates:
    """The candidates behind a place, with those of others that come before the next ones, in order."""
    rows = [
        row
        for row in others
        if (found.after is None or place_of(row) > found.after) and (after is None or place_of(row) < after)
    ]
    both = {row["id"]: row for row in (*found.rows, *rows)}
    return Candidates(sorted(both.values(), key=place_of, reverse=True), found.after)


def _conditions(
    store: SqlStore, wanted: ConversationFilter, after: SearchPlace | None
) -> tuple[list[str], dict[str, Any]]:
    """The conditions besides the words, and their parameters."""
    binary = _binary(store)
    conditions, parameters = ["m.words IS NOT NULL"], dict[str, Any]()
    if wanted.user is not None:
        conditions.append(_OF_USER)
        parameters["user"] = escape(wanted.user)
    for name, moment in (("since", wanted.since), ("until", wanted.until)):
        if moment is not None:
            conditions.append(f"m.created_at {'>=' if name == 'since' else '<='} :{name}")
            parameters[name] = moment
    if after is not None:
        parameters["at"] = parse_iso(after.at)
        conditions.append("m.created_at <= :at" if after.id else "m.created_at < :at")
        if after.id:
            conditions.append(
                f"(m.created_at < :at OR m.conversation_id{binary} < :place_conversation"
                " OR (m.conversation_id = :place_conversation AND m.id < :place_id))"
            )
            parameters |= {"place_conversation": after.conversation_id, "place_id": UUID(after.id)}
    return conditions, parameters


def _order(store: SqlStore) -> str:
    return f"m.created_at DESC, m.conversation_id{_binary(store)} DESC, m.id DESC"


def _binary(store: SqlStore) -> str:
    """What compares texts by their bytes, as SQLite does."""
    return "" if store.dialect.name == "sqlite" else ' COLLATE "C"'


# -- SQLite --------------------------------------------------------------------------------------------------


async def _on_sqlite(
    store: SqlStore, query: SearchQuery, wanted: ConversationFilter, after: SearchPlace | None, count: int
) -> Candidates:
    if not (has_fts5() and await store.rows(EXISTS)):
        raise StoreError(
            "This SQLite file has no index for the search, or SQLite has no FTS5 here; "
            "run `recorder migrate` with a Python whose SQLite has it"
        )
    conditions, parameters = _conditions(store, wanted, after)
    where, order = " AND ".join(conditions), _order(store)
    most = count if wanted.user is None else max(count, _ROWIDS)
    rowids = await _rowids(store, query, wanted, after, most)
    # A frequent word, and nearly all of its messages are of other users.
    if wanted.user is not None and len(rowids) == most and await _has_few(store, parameters["user"]):
        sql = f"SELECT {_COLUMNS} FROM messages AS m WHERE {where} ORDER BY {order} LIMIT :most"
        rows = await store.rows(sql, {**parameters, "most": count})
        return Candidates(rows, place_of(rows[-1]) if len(rows) == count else None)
    sql = (
        f"SELECT {_COLUMNS} FROM messages AS m WHERE m.created_at IN (SELECT value FROM json_each(:times)) "
        f"AND {where} ORDER BY {order} LIMIT :most"
    )
    rows = await store.rows(sql, {**parameters, "times": dumps(rowids), "most": most})
    if len(rows) == most:
        return Candidates(rows, place_of(rows[-1]))
    return Candidates(rows, SearchPlace(rowids[-1]) if len(rowids) == most else None)


async def _rowids(
    store: SqlStore, query: SearchQuery, wanted: ConversationFilter, after: SearchPlace | None, most: int
) -> list[str]:
    """Times of messages whose words match, the newest first."""
    newest = [moment for moment in (wanted.until, after and parse_iso(after.at)) if moment is not None]
    high = rowid_of(min(newest)) if newest else 2**62
    if after is not None and not after.id and high == rowid_of(parse_iso(after.at)):
        high -= 1
    low = rowid_of(wanted.since) if wanted.since is not None else -(2**62)
    sql = (
        f"SELECT rowid AS number FROM {MESSAGE_WORDS} WHERE {MESSAGE_WORDS} MATCH :words "
        "AND rowid <= :high AND rowid >= :low ORDER BY rowid DESC LIMIT :most"
    )
    words = " AND ".join(f'"{word}"' for word in query.words)
    rows = await store.rows(sql, {"words": words, "high": high, "low": low, "most": most})
    return [iso(at) for row in rows if (at := _time(row["number"])) is not None]


def _time(rowid: int) -> datetime | None:
    try:
        return time_of(rowid)
    except OverflowError:
        return None  # in a foreign file


async def _has_few(store: SqlStore, user: str) -> bool:
    sql = (
        "SELECT count(*) AS stored FROM (SELECT 1 FROM conversations AS c "
        "JOIN messages AS m ON m.conversation_id = c.id WHERE c.user_id = :user LIMIT :most)"
    )
    [row] = await store.rows(sql, {"user": user, "most": _FEW + 1})
    return bool(row["stored"] <= _FEW)


# -- Postgres ------------------------------------------------------------------------------------------------


async def _on_postgres(
    store: SqlStore, query: SearchQuery, wanted: ConversationFilter, after: SearchPlace | None, count: int
) -> Candidates:
    """The planner cannot know whether the index of words or that of times reads fewer rows: of rare words it always
    expects some. So it is asked how many rows match, and then gets a query that leaves it no choice."""
    conditions, parameters = _conditions(store, wanted, after)
    parameters["words"] = " & ".join(f"'{word}'" for word in query.words)
    if await _expected(store, conditions, parameters) > _EXPECTED:
        for window in _WINDOWS:
            rows = await store.rows(
                _newest_that_match(conditions, _order(store), window), {**parameters, "most": count}
            )
            if len(rows) == count:
                return Candidates(rows, place_of(rows[-1]))
    rows = await store.rows(_all_that_match(conditions, _order(store)), {**parameters, "most": count})
    return Candidates(rows, place_of(rows[-1]) if len(rows) == count else None)


_MATCH = "m.words @@ CAST(:words AS tsquery)"


async def _expected(store: SqlStore, conditions: Sequence[str], parameters: Mapping[str, Any]) -> float:
    """How many rows the planner expects."""
    where = " AND ".join((_MATCH, *conditions))
    [row] = await store.rows(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM messages AS m WHERE {where}", parameters)
    [plan] = row.values()
    return float((json_of(plan, "the plan") if isinstance(plan, str) else plan)[0]["Plan"]["Plan Rows"])


def _newest_that_match(conditions: Sequence[str], order: str, window: int) -> str:
    times = [each for each in conditions if each is not _OF_USER]
    of_user = [each for each in conditions if each is _OF_USER]
    rows = f"SELECT {_COLUMNS}, m.words FROM messages AS m WHERE {' AND '.join(times)}"
    newest = f"{rows} ORDER BY {order} LIMIT {window}"
    where = " AND ".join((_MATCH, *of_user))
    return f"SELECT {_COLUMNS} FROM ({newest}) AS m WHERE {where} ORDER BY {order} LIMIT :most"


def _all_that_match(conditions: Sequence[str], order: str) -> str:
    where = " AND ".join((_MATCH, *conditions))
    return (
        f"WITH m AS MATERIALIZED (SELECT {_COLUMNS} FROM messages AS m WHERE {where}) "
        f"SELECT {_COLUMNS} FROM m ORDER BY {order} LIMIT :most"
    )
