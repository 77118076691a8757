"""What an id, or the beginning of one, stands for; looked up by keys, however many there are."""

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
from recorder.storage.store import SqlStore

#: How many candidates an ambiguous id shows.
_SHOWN = 6
_SURROGATES = range(0xD800, 0xE000)


class Found(NamedTuple):
    """What an id stands for."""

    #: conversation or run.
    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


async def find(store: SqlStore, given: str) -> Found:
    """The one conversation or run whose id is this or begins like this.

    Raises `NotFound`: with the nearest ids for one that is unknown, with the candidates for an ambiguous one.
    """
    wanted = escape(given)
    found = await _exactly(store, wanted) or await _beginning(store, wanted)
    if len(found) == 1:
        return found[0]
    if found:
        shown = "\n".join(f"  {one}" for one in found[:_SHOWN]) + ("\n  ..." if len(found) > _SHOWN else "")
        raise NotFound(f"{given!r} begins more than one id; write more of one of these:\n{shown}")
    raise NotFound(f"Nothing is stored under {given!r}{await _nearest(store, wanted)}")


async def newest_run(store: SqlStore) -> Found:
    """The run that began last. Raises `NotFound`."""
    rows = await store.fetch(select(runs.c.id).order_by(runs.c.started_at.desc(), runs.c.id.desc()).limit(1))
    if not rows:
        raise NotFound(f"{masked(store.url)} holds no run yet; record something, or name another with --url")
    return Found("run", rows[0].id)


async def _exactly(store: SqlStore, wanted: str) -> list[Found]:
    rows = await store.fetch(select(conversations.c.id).where(conversations.c.id == wanted))
    found = [Found("conversation", row.id) for row in rows]
    if (run_id := uuid_of(wanted)) and await store.fetch(select(runs.c.id).where(runs.c.id == run_id)):
        found.append(Found("run", run_id))
    return found


async def _beginning(store: SqlStore, wanted: str) -> list[Found]:
    begins = store.dialect.between(conversations.c.id, wanted, after(wanted))
    query = select(conversations.c.id).where(begins).limit(_SHOWN + 1)
    found = [Found("conversation", id) for id in sorted(row.id for row in await store.fetch(query))]
    if (bounds := _bounds_of(wanted)) is not None:
        low, high = bounds
        here = runs.c.id >= low, runs.c.id <= high
        query = select(runs.c.id).where(*here).order_by(runs.c.id).limit(_SHOWN + 1)
        found += [Found("run", row.id) for row in await store.fetch(query)]
    return found


async def _nearest(store: SqlStore, wanted: str) -> str:
    """The stored ids that look most like it, as the end of a sentence."""
    newest = select(sql_cast(runs.c.id, Text).label("id"), runs.c.conversation_id)
    kinds: dict[str, str] = {}
    for row in await store.fetch(newest.order_by(runs.c.started_at.desc()).limit(500)):
        kinds |= {row.id: "run", row.conversation_id: "conversation"}
    near = get_close_matches(wanted, kinds, n=3, cutoff=0.5)
    if not near:
        return "; `recorder ls` shows what there is."
    return "; the nearest are:\n" + "\n".join(f"  {kinds[id]} {id}" for id in near)


def after(beginning: str) -> str | None:
    """The first text, by code points, that comes after all that begin so; None where none does."""
    kept = beginning.rstrip(chr(sys.maxunicode))
    if not kept:
        return None
    point = ord(kept[-1]) + 1
    return kept[:-1] + chr(_SURROGATES.stop if point in _SURROGATES else point)


def uuid_of(given: str) -> str | None:
    """A run's id as it is stored; None for what is none."""
    try:
        return dashed(given)
    except ValueError:
        return None


def _bounds_of(prefix: str) -> tuple[str, str] | None:
    """The lowest and the highest id that begins so; None for what no id begins with."""
    digits = prefix.lower().replace("-", "")
    if not digits or len(digits) > 32 or any(digit not in "0123456789abcdef" for digit in digits):
        return None
    low, high = (str(uuid.UUID(digits.ljust(32, fill))) for fill in "0f")
    return (low, high) if low.startswith(prefix.lower()) else None
