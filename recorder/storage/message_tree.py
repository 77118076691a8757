"""Where messages stand in the tree of their conversation: those of requests, replies, and those that were added.

A client sends the whole history with every call. The longest beginning of it that is stored as a path from a root is
reused. If nothing of it is stored, it goes below the conversation's newest message. What differs is a new branch.
Messages that the application adds go below the newest message. The same words added again are another message.

A message is dated after the newest stored message of its conversation. So the times tell the order in which messages
were stored, whatever the clocks of the processes say. Two processes that store at the same moment may both take the
same message for the newest one. Both orders are right then. Equal times are told apart by position and id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from operator import attrgetter
from typing import NamedTuple

from recorder.core.escaping import escape, escape_json
from recorder.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, to_dict
from recorder.messages.identity import id_below, path_ids
from recorder.storage.rows import (
    Added,
    Addition,
    Known,
    MessageRow,
    Newest,
    Part,
    Placement,
    RunRows,
    RunStart,
)
from recorder.wire.reasoning import ORIGIN

#: Fields of a reply that the run's row holds; an application that sends the reply back sends them along.
_STORED_WITH_THE_RUN = frozenset(("id", "response_metadata", "usage_metadata"))
_PLAIN = frozenset((HumanMessage, SystemMessage, AIMessage))
_TICK = timedelta(microseconds=1)


def paths_to_look_up(parts: Sequence[Part]) -> dict[str, list[Sequence[str]]]:
    """The paths of message ids, by conversation, that `thread` needs to know of; may be an empty list of paths.

    The newest message of each of these conversations is needed, too. A conversation that is new is left out.
    """
    paths: dict[str, list[Sequence[str]]] = {}
    for part in parts:
        if isinstance(part, Addition):
            paths.setdefault(part.conversation_id, [])
        elif _depends_on_stored(part):
            found = paths.setdefault(part.start.conversation_id, [])
            if part.opens and part.start.messages:
                found.append(_path(part.start))
    return paths


def thread(parts: Sequence[Part], known: Mapping[str, Known]) -> list[Threaded]:
    """For each part the rows of its messages and where they stand. `settle` writes them into the parts.

    `known` says what is stored of the conversations of `paths_to_look_up`.
    """
    conversations = {
        conversation_id: _Conversation.of_stored(found) for conversation_id, found in known.items()
    }
    threaded = [Threaded() for _ in parts]
    placements: dict[str, Placement] = {}
    for step in sorted(_steps(parts, threaded), key=attrgetter("order")):
        conversation = conversations.setdefault(step.conversation_id, _Conversation())
        if isinstance(step.part, Addition):
            _thread_added(step, step.part, conversation)
        elif step.added is None:
            placement = _thread_request(step, step.part.start, conversation)
            placements[step.part.start.run_id] = step.threaded.placement = placement
        else:
            run_id, placement = step.part.start.run_id, step.part.start.placement
            _thread_replies(step, step.part, placements.get(run_id, placement), conversation)
    return threaded


def settle(parts: Sequence[Part], threaded: Sequence[Threaded]) -> None:
    """Write what `thread` found into the parts; a batch that is stored again later stores the same rows."""
    for part, found in zip(parts, threaded, strict=True):
        part.messages = found.messages
        part.threaded = True
        if isinstance(part, Addition):
            continue
        if found.placement is not None:
            part.start.placement = found.placement
        if part.seal is not None and found.response_message_id is not None:
            part.seal.response_message_id = found.response_message_id


@dataclass(slots=True)
class Threaded:
    """The rows of one part's messages."""

    messages: list[MessageRow] = field(default_factory=list)
    #: Where the request of a run ends; None of a part that has no request.
    placement: Placement | None = None
    #: The first reply of a run; None without a reply.
    response_message_id: str | None = None


@dataclass(slots=True)
class _Conversation:
    """What is known of one conversation: what is stored, and what comes earlier in the same batch."""

    times: dict[str, datetime] = field(default_factory=dict)
    newest: Newest | MessageRow | None = None
    #: The time of the latest message.
    latest: datetime | None = None

    @classmethod
    def of_stored(cls, known: Known) -> _Conversation:
        """As it is stored, before the batch."""
        return cls(dict(known.times), known.newest, known.newest and known.newest.created_at)

    def first_free_time(self, at: datetime) -> datetime:
        """This time if it is after the latest message, else one microsecond after that message."""
        return at if self.latest is None or at > self.latest else self.latest + _TICK

    def append(self, row: MessageRow, rows: list[MessageRow]) -> None:
        """Add the row, unless it is stored already: such a message does not become the newest one."""
        if row.id in self.times:
            return
        rows.append(row)
        self.times[row.id] = self.latest = row.created_at
        self.newest = row


class _Step(NamedTuple):
    """One event of a part: a request, its replies, or messages that were added."""

    #: Its place among all events of the process.
    order: int
    conversation_id: str
    part: Part
    threaded: Threaded
    #: The messages of an addition; empty for replies, None for a request.
    added: Sequence[Added] | None = None


def _depends_on_stored(rows: RunRows) -> bool:
    """Whether the place of its messages depends on what is stored."""
    if rows.opens:
        return not rows.start.fresh
    return rows.seal is not None and bool(rows.seal.end.replies)


def _path(start: RunStart) -> Sequence[str]:
    """The ids of a request's messages as a path from a root; computed once."""
    if len(start.path) != len(start.messages):
        start.path = path_ids(start.conversation_id, start.messages)
    return start.path


def _steps(parts: Sequence[Part], threaded: Sequence[Threaded]) -> list[_Step]:
    """The events of all parts, in any order."""
    steps: list[_Step] = []
    for rows, found in zip(parts, threaded, strict=True):
        if isinstance(rows, Addition):
            continue
        conversation_id = rows.start.conversation_id
        if rows.opens:
            steps.append(_Step(rows.start.order, conversation_id, rows, found))
        if rows.seal is not None and rows.seal.end.ended_at is not None:
            steps.append(_Step(rows.seal.end.order, conversation_id, rows, found, ()))
    busy = {step.conversation_id for step in steps}
    for addition, found in zip(parts, threaded, strict=True):
        if isinstance(addition, Addition):
            steps += _addition_steps(addition, found, in_one=addition.conversation_id not in busy)
    return steps


def _addition_steps(addition: Addition, threaded: Threaded, *, in_one: bool) -> list[_Step]:
    groups = [addition.added] if in_one else [[each] for each in addition.added]
    return [_Step(group[0].order, addition.conversation_id, addition, threaded, group) for group in groups]


def _thread_request(step: _Step, start: RunStart, conversation: _Conversation) -> Placement:
    path = _path(start)
    reused = _longest_stored(path, conversation)
    parent: str | None = None
    position = -1
    if reused:
        parent, position = path[reused - 1], reused - 1
    elif conversation.newest is not None:
        parent, position = conversation.newest.id, conversation.newest.position
        path = []  # its messages do not stand at a root, so their ids are others
    at = conversation.first_free_time(start.started_at)
    for place in range(reused, len(start.messages)):
        position += 1
        message = start.messages[place]
        row_id = path[place] if path else id_below(start.conversation_id, parent, message)
        row = _row(start.conversation_id, message, row_id, parent, position, at)
        conversation.append(row, step.threaded.messages)
        parent = row.id
    return Placement(parent, position, conversation.latest)


def _longest_stored(path: Sequence[str], conversation: _Conversation) -> int:
    """How many messages of a path are stored. An id depends on all ids before it, so the last stored one tells."""
    for place in range(len(path), 0, -1):
        if path[place - 1] in conversation.times:
            return place
    return 0


def _thread_replies(step: _Step, rows: RunRows, placement: Placement, conversation: _Conversation) -> None:
    seal, start = rows.seal, rows.start
    assert seal is not None
    assert seal.end.ended_at is not None
    # The message that was the newest when the run began may have been deleted since, or may not have been looked up.
    conversation.latest = max(filter(None, (conversation.latest, placement.said_at)), default=None)
    at = conversation.first_free_time(seal.end.ended_at)
    parent, position = placement.prompt_message_id, placement.position + 1
    # A microsecond apart, so that several choices have an order, and the last one is the newest also when read back.
    replies = [
        _row(
            start.conversation_id, reply, id_below(start.conversation_id, parent, reply), parent, position,
            at + number * _TICK, start.run_id,
        )
        for number, reply in enumerate(seal.end.replies)
    ]  # fmt: skip
    for row in replies:
        conversation.append(row, step.threaded.messages)
    if replies:
        step.threaded.response_message_id = replies[0].id


def _thread_added(step: _Step, addition: Addition, conversation: _Conversation) -> None:
    newest = conversation.newest
    parent, position = (newest.id, newest.position) if newest is not None else (None, -1)
    for _, added_at, message in step.added or ():
        at = conversation.first_free_time(added_at)  # two messages at one time could not be told apart later
        position += 1
        row_id = id_below(addition.conversation_id, parent, message)
        row = _row(addition.conversation_id, message, row_id, parent, position, at)
        conversation.append(row, step.threaded.messages)
        parent = row_id


def _row(
    conversation_id: str, message: BaseMessage, row_id: str, parent: str | None, position: int, at: datetime,
    run_id: str | None = None,
) -> MessageRow:  # fmt: skip
    role, content = escape(message.role), escape(message.text)
    return MessageRow(conversation_id, row_id, parent, position, role, content, _parts(message), run_id, at)


def _parts(message: BaseMessage) -> str | None:
    """All of the message as JSON; None where role and text say everything, as with most messages."""
    if type(message) in _PLAIN and type(message.content) is str and not message.additional_kwargs:
        calls = isinstance(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls)
        if not calls and not message.name:
            return None
    fields = {key: value for key, value in to_dict(message).items() if key not in _STORED_WITH_THE_RUN}
    if origin := message.response_metadata.get(ORIGIN):  # without it the thoughts beside calls cannot go back
        fields["response_metadata"] = {ORIGIN: origin}
    is_plain = len(fields) == 2 and isinstance(message.content, str)
    return None if is_plain else escape_json(fields)
