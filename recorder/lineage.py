"""Where messages stand: a request's history and the replies, threaded into their conversation.

Clients send the whole history with every call. Its longest beginning that is already a path from a root is
reused; if nothing of it is known, it goes on below the conversation's newest message; what differs branches off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from recorder.identity import id_below, path_ids
from recorder.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, to_dict
from recorder.records import Known, MessageRow, RunRows, RunStart
from recorder.stored import escape, escape_json

#: What the run's row says of a reply; an application that sends the reply back sends these along.
_OF_THE_RUN = frozenset(("id", "response_metadata", "usage_metadata"))
_PLAIN = frozenset((HumanMessage, SystemMessage, AIMessage))


@dataclass(slots=True)
class _Conversation:
    """What is known of one conversation: stored before, or further up in the same batch."""

    positions: dict[str, int] = field(default_factory=dict)
    newest: tuple[str, int] | None = None


def asked(batch: Sequence[RunRows]) -> dict[str, list[Sequence[str]]]:
    """The paths to look up, by conversation, before `thread`; none for conversations that are new."""
    wanted: dict[str, list[Sequence[str]]] = {}
    for rows in batch:
        start = rows.start
        if rows.opens and start.messages and not start.fresh:
            wanted.setdefault(start.conversation_id, []).append(_path(start))
    return wanted


def _path(start: RunStart) -> Sequence[str]:
    """The ids of a request's messages as a path from a root; worked out once."""
    if len(start.path) != len(start.messages):
        start.path = path_ids(start.conversation_id, start.messages)
    return start.path


def thread(batch: Sequence[RunRows], known: Mapping[str, Known]) -> None:
    """Give every run of the batch the rows of its messages, in the order in which runs began and ended."""
    conversations = {
        conversation_id: _Conversation(dict(found.positions), found.newest)
        for conversation_id, found in known.items()
    }
    for rows in batch:
        rows.messages = []  # of an attempt that failed half-way
    for _, is_end, rows in sorted(_events(batch), key=lambda event: event[:2]):
        conversation = conversations.setdefault(rows.start.conversation_id, _Conversation())
        if is_end:
            _thread_replies(rows, conversation)
        else:
            _thread_history(rows, conversation)
    for rows in batch:
        rows.threaded = True


def _events(batch: Sequence[RunRows]) -> list[tuple[datetime, bool, RunRows]]:
    begins = [(rows.start.started_at, False, rows) for rows in batch if rows.opens]
    ends = [(rows.seal.end.ended_at, True, rows) for rows in batch if rows.seal is not None]
    return begins + ends


def _thread_history(rows: RunRows, conversation: _Conversation) -> None:
    start, history = rows.start, rows.start.messages
    path = _path(start)
    reused = _longest_known(path, conversation)
    parent: str | None = None
    position = -1
    if reused:
        parent, position = path[reused - 1], reused - 1
    elif conversation.newest is not None:
        parent, position = conversation.newest
        path = []  # it stands elsewhere
    for place in range(reused, len(history)):
        position += 1
        row_id = path[place] if path else id_below(start.conversation_id, parent, history[place])
        row = _row(rows, history[place], row_id, parent, position, start.started_at, run_id=None)
        _keep(rows, row, conversation)
        parent = row.id
    start.prompt_message_id, start.position = parent, position
    if parent is not None:
        conversation.newest = (parent, position)


def _longest_known(ids: Sequence[str], conversation: _Conversation) -> int:
    """How many ids from the first on are known; each id holds all before it, so the last known one tells."""
    for place in range(len(ids), 0, -1):
        if ids[place - 1] in conversation.positions:
            return place
    return 0


def _thread_replies(rows: RunRows, conversation: _Conversation) -> None:
    seal, start = rows.seal, rows.start
    assert seal is not None
    # A microsecond apart, so that several choices have an order, and the last is the newest here as when read back.
    parent, position = start.prompt_message_id, start.position + 1
    replies = [
        _row(
            rows, reply, id_below(start.conversation_id, parent, reply), parent, position,
            seal.end.ended_at + timedelta(microseconds=number), start.run_id,
        )
        for number, reply in enumerate(seal.end.replies)
    ]  # fmt: skip
    for row in replies:
        _keep(rows, row, conversation)
    if replies:
        seal.response_message_id = replies[0].id
        conversation.newest = (replies[-1].id, replies[-1].position)


def _keep(rows: RunRows, row: MessageRow, conversation: _Conversation) -> None:
    if row.id not in conversation.positions:
        rows.messages.append(row)
    conversation.positions[row.id] = row.position


def _row(
    rows: RunRows, message: BaseMessage, row_id: str, parent: str | None, position: int, at: datetime,
    run_id: str | None,
) -> MessageRow:  # fmt: skip
    content = escape(message.text)
    parts = _parts(message)
    return MessageRow(
        rows.start.conversation_id, row_id, parent, position, message.role, content, parts, run_id, at
    )


def _parts(message: BaseMessage) -> str | None:
    """What there is beside role and text, as JSON; None for nothing, as with most messages."""
    if type(message) in _PLAIN and type(message.content) is str and not message.additional_kwargs:
        calls = isinstance(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls)
        if not calls and not message.name:
            return None
    said = {key: value for key, value in to_dict(message).items() if key not in _OF_THE_RUN}
    says_all = len(said) == 2 and isinstance(message.content, str)
    return None if says_all else escape_json(said)
