"""Where messages stand: a request's history, the replies and what is added, threaded into their conversation.

Clients send the whole history with every call. Its longest beginning that is already a path from a root is
reused; if nothing of it is known, it goes on below the conversation's newest message; what differs branches off.
What the application adds by itself goes below the newest message, the same words again as a message of their own.
A message is dated after the newest one that is stored of its conversation, so that their times tell the order in
which they were stored, whatever the clocks of the processes say. Two processes that store at the same moment may take
the same newest message for the last one: both orders are right then, and equal times are told apart by position and id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from operator import itemgetter

from recorder.core.escaping import escape, escape_json
from recorder.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, to_dict
from recorder.messages.identity import id_below, path_ids
from recorder.storage.rows import Added, Addition, Known, MessageRow, Newest, Part, RunRows, RunStart
from recorder.wire.thoughts import ORIGIN

#: What the run's row says of a reply; an application that sends the reply back sends these along.
_OF_THE_RUN = frozenset(("id", "response_metadata", "usage_metadata"))
_PLAIN = frozenset((HumanMessage, SystemMessage, AIMessage))
_TICK = timedelta(microseconds=1)


@dataclass(slots=True)
class _Conversation:
    """What is known of one conversation: stored before, or further up in the same batch."""

    times: dict[str, datetime] = field(default_factory=dict)
    newest: Newest | MessageRow | None = None
    #: When the latest of these was said.
    latest: datetime | None = None

    def after(self, at: datetime) -> datetime:
        """This time, or the first one at which nothing was said yet."""
        return at if self.latest is None or at > self.latest else self.latest + _TICK

    def append(self, row: MessageRow) -> None:
        """A message more, which is the newest now."""
        self.times[row.id] = self.latest = row.created_at
        self.newest = row


#: Its place in the order of all that happened, in which conversation, and how to thread it.
_Step = tuple[int, str, Callable[[_Conversation], None]]


def asked(batch: Sequence[Part]) -> dict[str, list[Sequence[str]]]:
    """The paths to look up, by conversation, before `thread`; of each of them the newest message is looked up, too.

    A conversation that is new with this batch is not in it.
    """
    wanted: dict[str, list[Sequence[str]]] = {}
    for part in batch:
        if isinstance(part, Addition):
            wanted.setdefault(part.conversation_id, [])
        elif _has_a_place(part):
            paths = wanted.setdefault(part.start.conversation_id, [])
            if part.opens and part.start.messages:
                paths.append(_path(part.start))
    return wanted


def _has_a_place(rows: RunRows) -> bool:
    """Whether where it stands depends on what is stored: at its begin and with its replies, unless it is all new."""
    if rows.opens:
        return not rows.start.fresh
    return rows.seal is not None and bool(rows.seal.end.replies)


def _path(start: RunStart) -> Sequence[str]:
    """The ids of a request's messages as a path from a root; worked out once."""
    if len(start.path) != len(start.messages):
        start.path = path_ids(start.conversation_id, start.messages)
    return start.path


def thread(batch: Sequence[Part], known: Mapping[str, Known]) -> None:
    """Give every part of the batch the rows of its messages, in the order in which things happened."""
    conversations = {
        conversation_id: _Conversation(
            dict(found.times), found.newest, found.newest and found.newest.created_at
        )
        for conversation_id, found in known.items()
    }
    for part in batch:
        part.messages = []  # of an attempt that failed half-way
    for _, conversation_id, step in sorted(_steps(batch), key=itemgetter(0)):
        step(conversations.setdefault(conversation_id, _Conversation()))
    for part in batch:
        part.threaded = True


def _steps(batch: Sequence[Part]) -> list[_Step]:
    """What happened, in no order yet."""
    steps: list[_Step] = []
    for rows in batch:
        if isinstance(rows, Addition):
            continue
        id = rows.start.conversation_id
        if rows.opens:
            steps.append((rows.start.order, id, partial(_thread_history, rows)))
        if rows.seal is not None and rows.seal.end.ended_at is not None:
            steps.append((rows.seal.end.order, id, partial(_thread_replies, rows)))
    busy = {step[1] for step in steps}
    for addition in batch:
        if isinstance(addition, Addition):
            steps += _added(addition, at_once=addition.conversation_id not in busy)
    return steps


def _added(addition: Addition, *, at_once: bool) -> list[_Step]:
    parts = [addition.said] if at_once else [[each] for each in addition.said]
    id = addition.conversation_id
    return [(part[0].order, id, partial(_thread_added, addition, part)) for part in parts]


def _thread_history(rows: RunRows, conversation: _Conversation) -> None:
    start, history = rows.start, rows.start.messages
    path = _path(start)
    reused = _longest_known(path, conversation)
    parent: str | None = None
    position = -1
    if reused:
        parent, position = path[reused - 1], reused - 1
    elif conversation.newest is not None:
        parent, position = conversation.newest.id, conversation.newest.position
        path = []  # it stands elsewhere
    at = conversation.after(start.started_at)
    for place in range(reused, len(history)):
        position += 1
        row_id = path[place] if path else id_below(start.conversation_id, parent, history[place])
        row = _row(start.conversation_id, history[place], row_id, parent, position, at)
        _keep(rows, row, conversation)
        parent = row.id
    start.prompt_message_id, start.position, start.said_at = parent, position, conversation.latest


def _longest_known(ids: Sequence[str], conversation: _Conversation) -> int:
    """How many ids from the first on are known; each id holds all before it, so the last known one tells."""
    for place in range(len(ids), 0, -1):
        if ids[place - 1] in conversation.times:
            return place
    return 0


def _thread_replies(rows: RunRows, conversation: _Conversation) -> None:
    seal, start = rows.seal, rows.start
    assert seal is not None
    assert seal.end.ended_at is not None
    # What was stored when the run began may have been deleted since, or not be looked up: it is all new.
    conversation.latest = max(filter(None, (conversation.latest, start.said_at)), default=None)
    at = conversation.after(seal.end.ended_at)
    # A microsecond apart, so that several choices have an order, and the last is the newest here as when read back.
    parent, position = start.prompt_message_id, start.position + 1
    replies = [
        _row(
            start.conversation_id, reply, id_below(start.conversation_id, parent, reply), parent, position,
            at + number * _TICK, start.run_id,
        )
        for number, reply in enumerate(seal.end.replies)
    ]  # fmt: skip
    for row in replies:
        _keep(rows, row, conversation)
    if replies:
        seal.response_message_id = replies[0].id


def _thread_added(addition: Addition, said: Sequence[Added], conversation: _Conversation) -> None:
    newest = conversation.newest
    parent, position = (newest.id, newest.position) if newest is not None else (None, -1)
    for _, said_at, message in said:
        at = conversation.after(said_at)  # at the same time the same words would fall together later on
        position += 1
        row_id = id_below(addition.conversation_id, parent, message)
        _keep(addition, _row(addition.conversation_id, message, row_id, parent, position, at), conversation)
        parent = row_id


def _keep(rows: RunRows | Addition, row: MessageRow, conversation: _Conversation) -> None:
    # What is there already moves nothing: here as when read back, the newest is what was said for the first time last.
    if row.id not in conversation.times:
        rows.messages.append(row)
        conversation.append(row)


def _row(
    conversation_id: str, message: BaseMessage, row_id: str, parent: str | None, position: int, at: datetime,
    run_id: str | None = None,
) -> MessageRow:  # fmt: skip
    role, content = escape(message.role), escape(message.text)
    return MessageRow(conversation_id, row_id, parent, position, role, content, _parts(message), run_id, at)


def _parts(message: BaseMessage) -> str | None:
    """What there is beside role and text, as JSON; None for nothing, as with most messages."""
    if type(message) in _PLAIN and type(message.content) is str and not message.additional_kwargs:
        calls = isinstance(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls)
        if not calls and not message.name:
            return None
    said = {key: value for key, value in to_dict(message).items() if key not in _OF_THE_RUN}
    if origin := message.response_metadata.get(ORIGIN):  # without it what belongs to its calls cannot go back
        said["response_metadata"] = {ORIGIN: origin}
    says_all = len(said) == 2 and isinstance(message.content, str)
    return None if says_all else escape_json(said)
