"""`search_page`: one page of the messages that match a query, the newest first."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from recorder.core.clock import parse_iso
from recorder.core.escaping import unescape
from recorder.core.json import dumps, loads
from recorder.errors import ConfigError
from recorder.storage.conversation_filter import ConversationFilter, from_options, matching_among
from recorder.storage.reader import DatabaseReader
from recorder.storage.schema import dashed
from recorder.storage.search.candidates import Row, SearchPlace, candidates, merged, not_indexed, place_of
from recorder.storage.search.hits import SearchHit, first_match, matches, snippet
from recorder.storage.search.query import SearchQuery, parsed
from recorder.storage.search.searched_text import MAX_TEXT, call_texts, own_text
from recorder.storage.store import SqlStore

#: Candidates that are compared for one page. If there are more, the page ends there, and may have fewer hits.
MOST_COMPARED = 2_000
#: So many characters, and so many rows of the index, count as one more comparison.
_CHARACTERS, _INDEX_ROWS = 2_000, 10
#: Hits of one page.
MOST_HITS = 500
#: Candidates of one query.
_MOST_AT_ONCE = 200

_TEXTS = """
SELECT m.conversation_id, m.id, substr(m.content, 1, {most}) AS content,
    CASE WHEN m.parts IS NULL THEN 0 ELSE 1 END AS has_parts
FROM {keys} AS a JOIN messages AS m ON m.conversation_id = a.conversation_id AND m.id = a.id
"""
_PARTS = """
SELECT m.conversation_id, m.id, m.parts
FROM {keys} AS a JOIN messages AS m ON m.conversation_id = a.conversation_id AND m.id = a.id
WHERE m.parts IS NOT NULL
"""
#: Conversation and id of a message.
_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Some of the messages that match, the newest first."""

    hits: tuple[SearchHit, ...]
    #: `after` of the next page; None if this is the last one.
    next: str | None
    #: False if messages are stored that are not indexed yet, so that more may match. `recorder migrate` indexes them.
    is_complete: bool


def searched(
    user: str | None, model: str | None, status: str | None, tag: str | None, since: str | datetime | None,
    until: str | datetime | None, metadata: Sequence[str] = (), *, prefix: str = "",
) -> ConversationFilter:  # fmt: skip
    """The conditions of a search, as `conversation_filter.from_options`; times may be given as `datetime`."""
    return from_options(status, user, model, tag, _text(since), _text(until), metadata, prefix=prefix)


def _text(time: str | datetime | None) -> str | None:
    if not isinstance(time, datetime):
        return time
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).isoformat()


async def search(
    reader: DatabaseReader, text: str, wanted: ConversationFilter, limit: int, after: str | None = None
) -> SearchPage:
    """`search_page` for a reader."""
    return await search_page(reader.store, text, wanted, limit, after)


async def search_page(
    store: SqlStore, text: str, wanted: ConversationFilter, limit: int, after: str | None = None
) -> SearchPage:
    """At most `limit` hits behind a place. `wanted.since` and `until` are compared with the times of the messages.

    Raises `ConfigError` for a query that is too long and a place that no page gave; `StoreError`.
    """
    if not 1 <= limit <= MOST_HITS:
        raise ConfigError(f"limit is {limit}; give a number from 1 to {MOST_HITS}")
    query, place = parsed(text), place_from(after)
    if not query.words:
        return SearchPage((), None, True)
    found: list[tuple[Row, SearchHit]] = []
    compared, growth = 0, 1
    late = await not_indexed(store, wanted, place)
    while len(found) <= limit:
        count = min(_MOST_AT_ONCE, (limit + 1) * growth)
        growth *= 4
        batch = merged(await candidates(store, query, wanted, place, count), late or (), place)
        hits, characters = await _hits(store, query, wanted, batch.rows)
        found += hits
        compared += max(len(batch.rows) + characters // _CHARACTERS, batch.index_rows // _INDEX_ROWS, 1)
        place = batch.after
        if place is None or compared >= MOST_COMPARED:
            break
    if len(found) > limit:
        place = place_of(found[limit - 1][0])
    shown = tuple(hit for _, hit in found[:limit])
    return SearchPage(shown, None if place is None else cursor_of(place), late is not None)


async def _hits(
    store: SqlStore, query: SearchQuery, wanted: ConversationFilter, rows: Sequence[Row]
) -> tuple[list[tuple[Row, SearchHit]], int]:
    """The candidates that match, and how many characters were compared."""
    rows = await _of_matching_conversations(store, wanted, rows)
    if not rows:
        return [], 0
    contents = await _columns(store, _TEXTS, rows)
    rows = [row for row in rows if _key(row) in contents]  # others were deleted meanwhile
    own = {_key(row): own_text(str(row["role"]), str(contents[_key(row)]["content"])) for row in rows}
    rest = {key for key, text in own.items() if not matches(query, [text])}
    with_parts = [row for row in rows if _key(row) in rest and contents[_key(row)]["has_parts"]]
    parts = await _columns(store, _PARTS, with_parts) if with_parts else {}
    found: list[tuple[Row, SearchHit]] = []
    for row in rows:
        key, text = _key(row), own[_key(row)]
        calls = call_texts(parts[key]["parts"]) if key in parts else []
        if key not in rest or (calls and matches(query, [text, *calls])):
            found.append((row, _hit(query, row, text, calls)))
    return found, sum(map(len, own.values()))


async def _of_matching_conversations(
    store: SqlStore, wanted: ConversationFilter, rows: Sequence[Row]
) -> Sequence[Row]:
    others = replace(wanted, user=None, since=None, until=None)
    if others.is_empty or not rows:
        return rows
    ids = await matching_among(store, others, list(dict.fromkeys(row["conversation_id"] for row in rows)))
    return [row for row in rows if row["conversation_id"] in ids]


def _hit(query: SearchQuery, row: Row, text: str, calls: Sequence[str]) -> SearchHit:
    place, part = first_match(query, text), text
    in_text = place is not None
    for call in calls:
        if place is None:
            place, part = first_match(query, call), call
    assert place is not None
    return SearchHit(
        unescape(row["conversation_id"]),
        str(row["id"]),
        row["run_id"] and str(row["run_id"]),
        unescape(row["role"]),
        str(row["created_at"]),
        "text" if in_text else "tool_call",
        place.start if in_text else None,
        place.end if in_text else None,
        snippet(query, part, place),
    )


async def _columns(store: SqlStore, sql: str, rows: Sequence[Row]) -> dict[_Key, Row]:
    statement = sql.format(keys=store.dialect.key_rows, most=MAX_TEXT)
    found = await store.rows(statement, {"keys": dumps([_key(row) for row in rows])})
    return {_key(row): row for row in found}


def _key(row: Row) -> _Key:
    return row["conversation_id"], str(row["id"])


def cursor_of(place: SearchPlace) -> str:
    """A place as text for `after`."""
    return base64.urlsafe_b64encode(dumps(place).encode()).decode().rstrip("=")


def place_from(cursor: str | None) -> SearchPlace | None:
    """The place of `after`. Raises `ConfigError` for a text that `cursor_of` did not make."""
    if not cursor:
        return None
    try:
        found = loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True))
        at, conversation_id, id = found
        if not (isinstance(found, list) and all(isinstance(each, str) for each in found)):
            raise ValueError("it has no texts")
        if parse_iso(at).tzinfo is None:
            raise ValueError("its time has no zone")
        return SearchPlace(at, conversation_id, dashed(id) if id else "")
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise ConfigError(f"after is {cursor!r:.80}; send `next` of the page before") from error
