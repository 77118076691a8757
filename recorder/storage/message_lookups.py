"""What has to be known of the stored messages before the messages of a batch get their places (`message_tree.py`).

The questions do not depend on the database: a store answers one after the other.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from itertools import chain

from recorder.storage import alignment
from recorder.storage.request_input import after_instructions, contents_of, path_of
from recorder.storage.rows import Addition, Part, RunRows, RunStart
from recorder.storage.stored_messages import Lookup, StoredConversation, StoredMessage

#: How many messages with the same content are compared at least; for a longer request, as many as it has messages.
_SAME_CONTENT = 32
#: On the newest path so many more messages are compared than twice as many as the request has.
_LEFT_OUT = 64

#: What is known, by conversation.
Known = dict[str, StoredConversation]
#: Asks, gets the messages that were found, and returns what is known.
Lookups = Generator[Lookup, Sequence[StoredMessage], Known]


def look_up(parts: Sequence[Part]) -> Lookups:
    """Find out what is stored, as far as `thread` needs it. Of a conversation that is new, nothing is asked."""
    requests = _requests(parts)
    known = {conversation_id: StoredConversation() for conversation_id in requests}
    if not requests:
        return known
    _begin(known, (yield Lookup("newest", [[id, None, None] for id in requests])))
    starts = list(chain.from_iterable(requests.values()))
    if ids := sorted({(start.conversation_id, id) for start in starts for id in path_of(start)}):
        _add(known, (yield Lookup("ids", [[*pair, None] for pair in ids])))
    unclear = [start for start in starts if _is_unclear(start, known[start.conversation_id])]
    if unclear:
        contents = sorted({(start.conversation_id, each) for start in unclear for each in contents_of(start)})
        limit = max(_SAME_CONTENT, *(len(contents_of(start)) for start in unclear))
        _add(known, (yield Lookup("content", [[id, None, each] for id, each in contents], limit)))
    if paths := _paths(unclear, known):
        _add(known, (yield Lookup("above", [[*key, limit] for key, limit in paths.items()])))
    return known


def _requests(parts: Sequence[Part]) -> dict[str, list[RunStart]]:
    """The conversations that must be known, and the requests in them whose places depend on what is stored."""
    requests: dict[str, list[RunStart]] = {}
    for part in parts:
        if isinstance(part, Addition):
            requests.setdefault(part.conversation_id, [])
        elif _depends_on_stored(part):
            found = requests.setdefault(part.start.conversation_id, [])
            if part.opens and after_instructions(part.start):
                found.append(part.start)
    return requests


def _depends_on_stored(rows: RunRows) -> bool:
    """Whether the place of its messages depends on what is stored."""
    if rows.opens:
        return not rows.start.fresh
    return rows.seal is not None and bool(rows.seal.end.replies)


def _begin(known: Known, messages: Sequence[StoredMessage]) -> None:
    """Set the newest message of each conversation."""
    for message in messages:
        conversation = known[message.conversation_id]
        conversation.add([message])
        conversation.newest, conversation.latest = message, message.created_at


def _add(known: Known, messages: Sequence[StoredMessage]) -> None:
    for message in messages:
        known[message.conversation_id].add([message])


def _is_unclear(start: RunStart, conversation: StoredConversation) -> bool:
    """Whether of a request more than the last message is not stored as a path from a root."""
    path = path_of(start)
    if conversation.newest is None or len(path) == 1:
        return False
    found = alignment.from_root(path, conversation)
    return found is None or len(found.messages) < len(path) - 1


def _paths(
    unclear: Sequence[RunStart], known: Mapping[str, StoredConversation]
) -> dict[tuple[str, str], int]:
    """The newest messages of the conversations whose newest path has to be compared, and how many messages of it."""
    found: dict[tuple[str, str], int] = {}
    for start in unclear:
        conversation, contents = known[start.conversation_id], contents_of(start)
        stretch = alignment.contiguous(contents, conversation)
        if stretch is None or stretch.agreeing >= len(contents) - 1:
            continue  # nothing is stored, or all but the last message
        assert conversation.newest is not None
        key = start.conversation_id, conversation.newest.id
        found[key] = max(found.get(key, 0), 2 * len(contents) + _LEFT_OUT)
    return found
