"""Where messages stand in the tree of their conversation: those of requests, replies, and those that were added.

A client sends the whole history with every call, a window of it, or only what is new. The beginning that agrees with
stored messages is these messages (`alignment.py`). What follows goes below them, as a new branch if they have been
answered already. If nothing agrees, all of the request goes below the conversation's newest message. A request that
names a response goes below its reply (`previous_responses.py`). Instructions, and what stands in place of left-out
messages, are no part of the tree (`request_input.py`). Messages that the application adds go below the newest message.
The same words added again are another message.

A message is dated after the newest stored message of its conversation. So the times tell the order in which messages
were stored, whatever the clocks of the processes say. Two processes that store at the same moment may both take the
same message for the newest one. Both orders are right then. Equal times are told apart by position and id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from recorder.messages import BaseMessage
from recorder.messages.identity import encoded_key, hash_of_key, id_of_key
from recorder.storage import alignment
from recorder.storage.batch import Added, Addition, Part, RunRows
from recorder.storage.continued_conversations import prompt_content, reply_key
from recorder.storage.message_columns import columns_of_message
from recorder.storage.message_lookups import Known
from recorder.storage.previous_responses import response_id_in
from recorder.storage.request_input import (
    after_instructions,
    context_row,
    encoded_ids,
    encoded_input,
    path_of,
)
from recorder.storage.rows import ContextMessageRow, MessageRow, Placement, RunStart
from recorder.storage.stored_messages import KnownMessage, StoredConversation, StoredMessage

_TICK = timedelta(microseconds=1)


def thread(parts: Sequence[Part], known: Known) -> list[Threaded]:
    """For each part the rows of its messages and where they stand. `settle` writes them into the parts.

    `known` is what `look_up` found. What this batch stores is added to it.
    """
    threaded = [Threaded(known) for _ in parts]
    for step in sorted(_steps(parts, threaded), key=attrgetter("order")):
        if isinstance(step.part, Addition):
            _thread_added(step, step.part, known.conversation(step.conversation_id))
        elif step.added is None:
            below = known.responses.place_of(step.part.start)
            start = known.continuations.choose(step.part.start, known.conversations, below)
            step.threaded.start = start
            here = known.conversation(start.conversation_id)
            step.threaded.placement = _thread_request(step, start, here)
        else:
            start = step.threaded.start or step.part.start
            placement = step.threaded.placement or start.placement
            _thread_replies(step, step.part, start, placement, known.conversation(start.conversation_id))
    return threaded


def settle(parts: Sequence[Part], threaded: Sequence[Threaded]) -> None:
    """Write what `thread` found into the parts; a batch that is stored again later stores the same rows."""
    for part, found in zip(parts, threaded, strict=True):
        part.messages = found.messages
        part.threaded = True
        if isinstance(part, Addition):
            continue
        part.context = found.context
        _settle_start(part.start, found)
        if part.seal is not None and found.response_message_id is not None:
            part.seal.response_message_id = found.response_message_id


def _settle_start(start: RunStart, found: Threaded) -> None:
    if found.placement is not None:
        start.placement = found.placement
        start.path = ()  # not needed any more, and another list for the garbage collector
    if found.start is not None and found.start is not start:
        start.conversation_id, start.path, start.fresh = found.start.conversation_id, (), False
    if start.unnamed is not None:
        moved = found.known.continuations.moved
        if start.is_step and start.conversation_id in moved:  # a chain follows the model's run in it
            start.conversation_id, start.fresh = moved[start.conversation_id], False
        start.unnamed.id = moved.get(start.unnamed.id, start.unnamed.id)


@dataclass(slots=True)
class Threaded:
    """The rows of one part's messages."""

    known: Known
    messages: list[MessageRow] = field(default_factory=list)
    context: list[ContextMessageRow] = field(default_factory=list)
    #: Where the request of a run ends; None of a part that has no request.
    placement: Placement | None = None
    #: The request, in the conversation that it continues; None of a part that has no request.
    start: RunStart | None = None
    #: The first reply of a run; None without a reply.
    response_message_id: str | None = None


class _Step(NamedTuple):
    """One event of a part: a request, its replies, or messages that were added."""

    #: Its place among all events of the process.
    order: int
    #: Of a request, the one that it names.
    conversation_id: str
    part: Part
    threaded: Threaded
    #: The messages of an addition; empty for replies, None for a request.
    added: Sequence[Added] | None = None


def _steps(parts: Sequence[Part], threaded: Sequence[Threaded]) -> list[_Step]:
    """The events of all parts, in any order."""
    steps: list[_Step] = []
    for rows, found in zip(parts, threaded, strict=True):
        if isinstance(rows, Addition) or rows.start.is_step:
            continue
        conversation_id = rows.start.conversation_id
        if rows.opens:
            steps.append(_Step(rows.start.order, conversation_id, rows, found))
        if rows.seal is not None and rows.seal.end.ended_at is not None:
            steps.append(_Step(rows.seal.end.order, conversation_id, rows, found, ()))
    busy = {step.conversation_id for step in steps}
    busy.update(chain.from_iterable(threaded[0].known.continuations.variants.values()) if threaded else ())
    for addition, found in zip(parts, threaded, strict=True):
        if isinstance(addition, Addition) and addition.added:
            steps += _addition_steps(addition, found, in_one=addition.conversation_id not in busy)
    return steps


def _addition_steps(addition: Addition, threaded: Threaded, *, in_one: bool) -> list[_Step]:
    added = [*addition.added]
    groups = [added] if in_one else [[each] for each in added]
    return [_Step(group[0].order, addition.conversation_id, addition, threaded, group) for group in groups]


def _thread_request(step: _Step, start: RunStart, conversation: StoredConversation) -> Placement:
    known = step.threaded.known
    messages, path = after_instructions(start), path_of(start, known.path_ids)
    below = known.place_of(start)
    found = alignment.of_request(start, conversation) if below is None else None
    parent = found.end if found is not None else below or conversation.newest
    is_from_root = parent is None or (found is not None and found.from_root)
    at = conversation.first_free_time(start.started_at)
    sent: list[KnownMessage | ContextMessageRow] = []
    for message, stored in zip(messages, found.messages if found is not None else (), strict=False):
        sent.append(stored or _context(step, start, message, at))
    for place in range(len(sent), len(messages)):
        id = path[place] if is_from_root else None
        parent = _append(step, conversation, messages[place], parent, at, id=id)
        sent.append(parent)
    given = start.messages[: len(start.messages) - len(messages)]
    before = at - len(given) * _TICK  # so that they are sorted before what was said
    instructions = [_context(step, start, each, before + n * _TICK).id for n, each in enumerate(given)]
    return Placement(
        parent.id if parent is not None else None,
        parent.position if parent is not None else -1,
        conversation.latest,
        encoded_ids(instructions),
        None
        if is_from_root
        else encoded_input(sent, conversation.path_to(parent, alignment.compared(len(sent)))),
        prompt_content(start) if start.history_owner is not None else 0,
    )


def _context(step: _Step, start: RunStart, message: BaseMessage, at: datetime) -> ContextMessageRow:
    row = context_row(start.conversation_id, message, at)
    step.threaded.context.append(row)
    return row


def _thread_replies(
    step: _Step, rows: RunRows, start: RunStart, placement: Placement, conversation: StoredConversation
) -> None:
    seal, known = rows.seal, step.threaded.known
    assert seal is not None
    assert seal.end.ended_at is not None
    # The message that was the newest when the run began may have been deleted since, or may not have been looked up.
    conversation.latest = max(filter(None, (conversation.latest, placement.said_at)), default=None)
    at = conversation.first_free_time(seal.end.ended_at)
    prompt = placement.prompt_message_id, placement.position
    # A microsecond apart, so that several choices have an order, and the last one is the newest also when read back.
    replies = [
        _append_below(step, conversation, reply, *prompt, at + number * _TICK, reply_in=start)
        for number, reply in enumerate(seal.end.replies)
    ]
    for message, reply in zip(seal.end.replies, replies, strict=True):
        known.path_ids.add(start.conversation_id, reply.parent_id, message, reply.id)
    if replies:
        step.threaded.response_message_id = replies[0].id
    if response_id_in(rows) is not None:
        known.responses.add_run(rows, _prompt(start, placement), replies[0] if replies else None)
    for reply in replies:
        known.continuations.add(reply)


def _prompt(start: RunStart, placement: Placement) -> KnownMessage | None:
    """The message that a request ends with, as far as a run remembers it: without its content."""
    if placement.prompt_message_id is None or placement.said_at is None:
        return None
    return StoredMessage(
        start.conversation_id, placement.prompt_message_id, None, placement.position, "", placement.said_at, 0
    )


def _thread_added(step: _Step, addition: Addition, conversation: StoredConversation) -> None:
    parent = conversation.newest
    for _, added_at, message in step.added or ():
        at = conversation.first_free_time(added_at)  # two messages at one time could not be told apart later
        parent = _append(step, conversation, message, parent, at)


def _append(
    step: _Step, conversation: StoredConversation, message: BaseMessage, parent: KnownMessage | None,
    at: datetime, *, id: str | None = None,
) -> KnownMessage:  # fmt: skip
    parent_id, position = (parent.id, parent.position) if parent is not None else (None, -1)
    return _append_below(step, conversation, message, parent_id, position, at, id=id)


def _append_below(
    step: _Step, conversation: StoredConversation, message: BaseMessage, parent_id: str | None, position: int,
    at: datetime, *, reply_in: RunStart | None = None, id: str | None = None,
) -> KnownMessage:  # fmt: skip
    """The message below its parent. Its row is added, unless it is stored already."""
    here, encoded = conversation.id, encoded_key(message)
    id = id or id_of_key(here, parent_id, encoded)
    if (stored := conversation.messages.get(id)) is not None:
        return stored
    content = hash_of_key(encoded)
    run_id = reply_in.run_id if reply_in is not None else None
    key = reply_key(reply_in, content) if reply_in is not None else None
    row = MessageRow(
        here, id, parent_id, position + 1, *columns_of_message(message), run_id, at, content, key
    )
    step.threaded.messages.append(row)
    conversation.append(row)
    return row
