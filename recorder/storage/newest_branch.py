"""Which branch of a conversation is the newest: that in which something was stored last.

It leads to the newest message, or to a run that streams and began after that message was stored. A run that ended
without a message is on it only where the last message of the branch asked it, and the one that began last of these:
a question that was asked again in vain does not take back the answer that it has.

Messages are dated in the order in which they are stored (`recorder/storage/message_tree.py`), whatever the clocks
say, and a run knows which message was the newest as it began. One order holds for storing, reading and drawing: it is
written here.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, select

from recorder.storage.rows import STREAMING
from recorder.storage.schema import messages, runs
from recorder.storage.statuses import select_runs, status_of

#: What says where a run without a message stands.
_UNANSWERED = [runs.c[name] for name in ("id", "prompt_message_id", "status", "started_at", "said_at")]
#: Deeper than any message.
_DEEPEST = 2**63

#: Orders messages, and runs without one: the greatest is the newest.
Place = tuple[bool, datetime, int, datetime, str]


class End(NamedTuple):
    """Where a branch ends."""

    #: None where there is but a run that was asked nothing.
    message_id: str | None
    #: The run that the message asked, and that has no message.
    run_id: str | None


def newest_first(alias: str) -> str:
    """What orders messages in SQL, the newest first; from `messages_by_time` in one seek."""
    return f"{alias}.created_at DESC, {alias}.position DESC, {alias}.id DESC"


def place_of_message(created_at: datetime, position: int, id: str) -> Place:
    """The same order in Python."""
    return (True, created_at, position, created_at, id)


def place_of_run(status: str, said_at: datetime | None, started_at: datetime, id: str) -> Place:
    """Where a run without a message stands among the messages and the other runs.

    One that streams comes after the message that was the newest as it began, one that has ended before all messages.
    """
    return (status == STREAMING, said_at or started_at, _DEEPEST, started_at, id)


def newest_message(conversation_id: str) -> Select[Any]:
    """Its newest message: id, created_at, position."""
    query = select(messages.c.id, messages.c.created_at, messages.c.position)
    newest = messages.c.created_at.desc(), messages.c.position.desc(), messages.c.id.desc()
    return query.where(messages.c.conversation_id == conversation_id).order_by(*newest).limit(1)


def unanswered_runs(conversation_id: str) -> Select[Any]:
    """Its runs without a message; few, and by an index of their own."""
    here = runs.c.conversation_id == conversation_id, runs.c.response_message_id.is_(None)
    return select_runs(*_UNANSWERED).where(*here)


def end_of(newest: Any, unanswered: Iterable[Any], moment: datetime) -> End | None:
    """Where the newest branch ends, given the rows of the two queries above; None without any."""
    places = {
        place_of_run(status_of(run, moment), run.said_at, run.started_at, run.id): run for run in unanswered
    }
    last = max(places, default=None)
    if newest is None:
        return last and End(places[last].prompt_message_id, places[last].id)
    if last is not None and last > place_of_message(newest.created_at, newest.position, newest.id):
        return End(places[last].prompt_message_id, places[last].id)
    below = [place for place, run in places.items() if run.prompt_message_id == newest.id]
    return End(newest.id, places[max(below)].id if below else None)


def path_to(conversation_id: str, message_id: str, *columns: ColumnElement[Any]) -> Select[Any]:
    """The messages from a root to this one: id, parent_id and these columns. `in_order` puts the rows in order.

    Read by key from the last one up, whatever else the conversation holds. UNION, for a stranger's database may have a
    message among its own parents.
    """
    here = messages.c.conversation_id == conversation_id
    keys = messages.c.id, messages.c.parent_id
    above = select(*keys).where(here, messages.c.id == message_id).cte("above", recursive=True)
    above = above.union(select(*keys).where(here, messages.c.id == above.c.parent_id))
    return select(*keys, *columns).join(above, messages.c.id == above.c.id).where(here)


def in_order(rows: Iterable[Any], message_id: str) -> list[Any]:
    """The rows of `path_to`, the first message first."""
    above = {row.id: row for row in rows}
    found = []
    at: str | None = message_id
    while at is not None and (row := above.pop(at, None)) is not None:
        found.append(row)
        at = row.parent_id
    return found[::-1]


def message_count(conversation_id: str) -> Select[Any]:
    """How many messages a conversation has, on whatever branch; from an index alone."""
    return select(func.count()).select_from(messages).where(messages.c.conversation_id == conversation_id)
