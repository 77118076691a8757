"""Finds the conversation or run of an id or of the beginning of an id. Uses indexes only."""

from __future__ import annotations

import sys
import uuid
from difflib import get_close_matches
from typing import NamedTuple

from sqlalchemy import Text, select
from sqlalchemy import cast as sql_cast

from recorder.core.escaping import escape
from recorder.errors import NotFound
from recorder.storage.dialects import masked
from recorder.storage.schema import conversations, dashed, runs
from recorder.storage.statuses import IS_MODEL_CALL
from recorder.storage.store import SqlStore

#: How many candidates the error for an ambiguous id shows.
_SHOWN = 6
_SURROGATES = range(0xD800, 0xE000)


class Found(NamedTuple):
    """The conversation or run of an id."""

    #: "conversation" or "run".
    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


async def find(store: SqlStore, given: str) -> Found:
    """The conversation or run with this id, or the only one whose id begins with this text.

    Raises `NotFound`: for an unknown id with the nearest ids, for an ambiguous one with the candidates.
    """
    wanted = escape(given)
    found = await _exactly(store, wanted) or await beginning_with(store, wanted, _SHOWN + 1)
    if len(found) == 1:
        return found[0]
    if found:
        shown = "\n".join(f"  {one}" for one in found[:_SHOWN]) + ("\n  ..." if len(found) > _SHOWN else "")
        raise NotFound(
            f"More than one id begins with {given!r}; write more characters of one of these:\n{shown}"
        )
    raise NotFound(f"Nothing is stored under {given!r}{await _nearest(store, wanted)}")


async def beginning_with(store: SqlStore, wanted: str, limit: int) -> list[Found]:
    """At most `limit` conversations and as many runs whose ids begin with this text, in the order of their ids."""
    id = conversations.c.id
    query = select(id).where(store.dialect.between(id, wanted, after(wanted)))
    query = query.order_by(store.dialect.in_order(id)).limit(limit)
    found = [Found("conversation", row.id) for row in await store.fetch(query)]
    if (bounds := _bounds_of(wanted)) is not None:
        low, high = bounds
        here = runs.c.id >= low, runs.c.id <= high
        query = select(runs.c.id).where(*here).order_by(runs.c.id).limit(limit)
        found += [Found("run", row.id) for row in await store.fetch(query)]
    return found


async def newest_run(store: SqlStore) -> Found:
    """The run of a model that started last. Raises `NotFound`."""
    newest = runs.c.started_at.desc(), runs.c.id.desc()
    rows = await store.fetch(select(runs.c.id).where(IS_MODEL_CALL).order_by(*newest).limit(1))
    if not rows:
        raise NotFound(f"{masked(store.url)} holds no run yet; record something, or name another with --url")
    return Found("run", rows[0].id)


async def _exactly(store: SqlStore, wanted: str) -> list[Found]:
    rows = await store.fetch(select(conversations.c.id).where(conversations.c.id == wanted))
    found = [Found("conversation", row.id) for row in rows]
    if (run_id := uuid_of(wanted)) and await store.fetch(select(runs.c.id).where(runs.c.id == run_id)):
        found.append(Found("run", run_id))
    return found


async def _nearest(store: SqlStore, wanted: str) -> str:
    """The end of the error message: the most similar ids among the newest 500 runs and their conversations."""
    newest = select(sql_cast(runs.c.id, Text).label("id"), runs.c.conversation_id)
    kinds: dict[str, str] = {}
    for row in await store.fetch(newest.order_by(runs.c.started_at.desc()).limit(500)):
        kinds |= {row.id: "run", row.conversation_id: "conversation"}
    near = get_close_matches(wanted, kinds, n=3, cutoff=0.5)
    if not near:
        return "; `recorder ls` lists the stored conversations."
    return "; the nearest are:\n" + "\n".join(f"  {kinds[id]} {id}" for id in near)


def after(beginning: str) -> str | None:
    """The first text, by code points, that sorts after all texts with this beginning; None if there is no such text."""
    prefix = beginning.rstrip(chr(sys.maxunicode))
    if not prefix:
        return None
    point = ord(prefix[-1]) + 1
    return prefix[:-1] + chr(_SURROGATES.stop if point in _SURROGATES else point)


def uuid_of(given: str) -> str | None:
    """A UUID in its stored form, dashed and lower case; None for text that is not a UUID."""
    try:
        return dashed(given)
    except ValueError:
        return None


def _bounds_of(prefix: str) -> tuple[str, str] | None:
    """The lowest and the highest UUID with this prefix; None if no UUID can have it."""
    digits = prefix.lower().replace("-", "")
    if not digits or len(digits) > 32 or any(digit not in "0123456789abcdef" for digit in digits):
        return None
    low, high = (str(uuid.UUID(digits.ljust(32, fill))) for fill in "0f")
    return (low, high) if low.startswith(prefix.lower()) else None
