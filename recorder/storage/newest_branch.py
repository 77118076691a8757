"""Which branch of a conversation is the newest: the branch in which something was stored last.

The newest branch ends at the newest message, or at a run that streams and started after this message was stored. A run
that ended without a message belongs to the branch only if the branch's last message was its prompt; of several such
runs, the one that started last. So a failed retry of a question does not hide the answer that the question has.

The times of messages follow the order in which they are stored (`recorder/storage/message_tree.py`), whatever the
clocks of the processes say. Each run knows the time of the newest message at its start (`said_at`). Storing, reading
and drawing use the same order, which is defined here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, func, select

from recorder.messages import BaseMessage
from recorder.storage.rows import STREAMING
from recorder.storage.schema import messages, runs
from recorder.storage.statuses import IS_MODEL_CALL, select_runs, status_of

#: The columns that decide where a run without a message stands.
_UNANSWERED = [runs.c[name] for name in ("id", "prompt_message_id", "status", "started_at", "said_at")]
#: Greater than the position of any message.
_DEEPEST = 2**63

#: A sort key of messages and of runs without a message: the greatest is the newest.
Place = tuple[bool, datetime, int, datetime, str]


class BranchMessage(NamedTuple):
    """One message of a branch."""

    id: str
    #: The run that produced it; None for any message that is no reply.
    run_id: str | None
    message: BaseMessage


class BranchMessages(NamedTuple):
    """The messages of a conversation's newest branch, without instructions."""

    #: As it is stored: escaped, and the user's own if the given id belongs to another user.
    conversation_id: str
    messages: Sequence[BranchMessage]
    #: A run after the last message that has no message itself; None if there is none.
    unanswered_run_id: str | None


class BranchEnd(NamedTuple):
    """Where a branch ends."""

    #: None if the branch is only a run without a prompt message.
    message_id: str | None
    #: A run after this message that has no message itself; None if there is none.
    run_id: str | None


def newest_first(alias: str) -> str:
    """The ORDER BY terms for messages, the newest first. The index `messages_by_time` answers them with one seek."""
    return f"{alias}.created_at DESC, {alias}.position DESC, {alias}.id DESC"


def place_of_message(created_at: datetime, position: int, id: str) -> Place:
    """The sort key of a message, with the order of `newest_first`."""
    return (True, created_at, position, created_at, id)


def place_of_run(status: str, said_at: datetime | None, started_at: datetime, id: str) -> Place:
    """The sort key of a run without a message, among messages and other runs.

    A streaming run sorts after the message that was the newest at its start. A run that has ended sorts before all
    messages.
    """
    return (status == STREAMING, said_at or started_at, _DEEPEST, started_at, id)


def newest_message(conversation_id: str) -> Select[Any]:
    """A query of the conversation's newest message: id, created_at, position."""
    query = select(messages.c.id, messages.c.created_at, messages.c.position)
    newest = messages.c.created_at.desc(), messages.c.position.desc(), messages.c.id.desc()
    return query.where(messages.c.conversation_id == conversation_id).order_by(*newest).limit(1)


def unanswered_runs(conversation_id: str) -> Select[Any]:
    """A query of the conversation's runs of models without a message. These are few, and have a partial index."""
    here = runs.c.conversation_id == conversation_id, runs.c.response_message_id.is_(None), IS_MODEL_CALL
    return select_runs(*_UNANSWERED).where(*here)


def end_of(newest: Any, unanswered: Iterable[Any], moment: datetime) -> BranchEnd | None:
    """Where the newest branch ends, from the rows of the two queries above; None without rows."""
    places = {
        place_of_run(status_of(run, moment), run.said_at, run.started_at, run.id): run for run in unanswered
    }
    last = max(places, default=None)
    if newest is None:
        return last and BranchEnd(places[last].prompt_message_id, places[last].id)
    if last is not None and last > place_of_message(newest.created_at, newest.position, newest.id):
        return BranchEnd(places[last].prompt_message_id, places[last].id)
    below = [place for place, run in places.items() if run.prompt_message_id == newest.id]
    return BranchEnd(newest.id, places[max(below)].id if below else None)


def path_to(
    conversation_id: str, message_id: str, *columns: ColumnElement[Any], first: int = 0
) -> Select[Any]:
    """A query of the messages from position `first` of a path to this one, its last: id, parent_id and `columns`.

    `in_order` sorts the rows.

    It reads by key from the message up, and no other messages. UNION instead of UNION ALL: in a damaged
    database a message may be its own ancestor, and the recursion must end.
    """
    here = messages.c.conversation_id == conversation_id
    keys = messages.c.id, messages.c.parent_id
    above = select(*keys).where(here, messages.c.id == message_id).cte("above", recursive=True)
    on_path = here, messages.c.id == above.c.parent_id, messages.c.position >= first
    above = above.union(select(*keys).where(*on_path))
    return select(*keys, *columns).join(above, messages.c.id == above.c.id).where(here)


def in_order(rows: Iterable[Any], message_id: str) -> list[Any]:
    """The rows of `path_to`, from the first message to the last."""
    above = {row.id: row for row in rows}
    found = []
    at: str | None = message_id
    while at is not None and (row := above.pop(at, None)) is not None:
        found.append(row)
        at = row.parent_id
    return found[::-1]


def message_count(conversation_id: str) -> Select[Any]:
    """A query of the number of a conversation's messages on all branches. Reads an index only."""
    return select(func.count()).select_from(messages).where(messages.c.conversation_id == conversation_id)
