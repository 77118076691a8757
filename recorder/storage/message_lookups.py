"""What has to be known of the stored messages before the messages of a batch get their places (`message_tree.py`).

The questions do not depend on the database: a store answers one after the other.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from recorder.messages.identity import PathIds
from recorder.storage import alignment
from recorder.storage.batch import Addition, Part, RunRows
from recorder.storage.continued_conversations import Continuations, exchanges_of
from recorder.storage.previous_responses import PreviousResponses, response_keys
from recorder.storage.request_input import after_instructions, contents_of, path_of
from recorder.storage.rows import RunStart
from recorder.storage.stored_messages import KnownMessage, Lookup, StoredConversation, StoredMessage

#: How many messages with the same content are compared at least; for a longer request, as many as it has messages.
_SAME_CONTENT = 32
#: How many replies with the same key are compared.
_SAME_KEY = 32

#: By id.
Conversations = dict[str, StoredConversation]


@dataclass(slots=True)
class Known:
    """What is known of the conversations, and which of them the requests without an id may continue."""

    conversations: Conversations = field(default_factory=dict)
    continuations: Continuations = field(default_factory=Continuations)
    responses: PreviousResponses = field(default_factory=PreviousResponses)
    #: Of the messages in the requests of this batch.
    path_ids: PathIds = field(default_factory=PathIds)

    def conversation(self, id: str) -> StoredConversation:
        """What is known of a conversation; nothing of a new one."""
        found = self.conversations.get(id)
        if found is None:
            found = self.conversations[id] = StoredConversation(id)
        return found

    def place_of(self, start: RunStart) -> KnownMessage | None:
        """The message below which a request goes because it names a response of its conversation; else None.

        None also for a request whose messages include that one.
        """
        place = self.responses.place_of(start)
        if place is None or place.conversation_id != start.conversation_id:
            return None
        # Recorder's own model reports all messages, also those that the server has already.
        return place if place.id not in path_of(start, self.path_ids) else None


#: Asks, gets the messages that were found, and returns what is known.
Lookups = Generator[Lookup, Sequence[StoredMessage], Known]


def look_up(parts: Sequence[Part]) -> Lookups:
    """Find out what is stored, as far as `thread` needs it. Of a conversation that is new, nothing is asked."""
    known = Known()
    runs = [part for part in parts if isinstance(part, RunRows)]
    opening = [rows.start for rows in runs if rows.opens]
    if (lookup := _replies([start for start in opening if start.history_owner is not None])) is not None:
        for reply in (yield lookup):
            known.continuations.add(reply)
    if keys := response_keys(opening):
        for message in (yield Lookup("responses", keys)):
            known.responses.add(message)
    if any(start.unnamed is not None for start in opening):
        known.continuations.find_candidates(runs, known.responses)
    if requests := _requests(parts, known.continuations):
        known.conversations = {id: StoredConversation(id) for id in requests}
        yield from _messages(known, requests)
    return known


def _replies(starts: Sequence[RunStart]) -> Lookup | None:
    """The question for the replies in the requests that name no conversation."""
    keys = sorted({exchange.key for start in starts for exchange in exchanges_of(start)})
    if not keys:
        return None
    since = min(start.started_at - start.history_owner.within for start in starts if start.history_owner)
    return Lookup("replies", [["", None, key] for key in keys], _SAME_KEY, since)


def _messages(
    known: Known, requests: Mapping[str, Sequence[RunStart]]
) -> Generator[Lookup, Sequence[StoredMessage], None]:
    """Find out what is stored of these conversations."""
    conversations = known.conversations
    _begin(conversations, (yield Lookup("newest", [[id, None, None] for id in requests])))
    begun = [requests[id] for id, conversation in conversations.items() if conversation.newest is not None]
    starts = list(chain.from_iterable(begun))
    if ids := sorted({(start.conversation_id, id) for start in starts for id in _ids(start, known)}):
        _add(conversations, (yield Lookup("ids", [[*pair, None] for pair in ids])))
    unclear = [start for start in starts if known.place_of(start) is None]
    unclear = [start for start in unclear if _is_unclear(start, conversations[start.conversation_id])]
    if unclear:
        contents = sorted({(start.conversation_id, each) for start in unclear for each in contents_of(start)})
        limit = max(_SAME_CONTENT, *(len(contents_of(start)) for start in unclear))
        _add(conversations, (yield Lookup("content", [[id, None, each] for id, each in contents], limit)))
    if paths := _paths(unclear, conversations):
        _add(conversations, (yield Lookup("above", [[*key, limit] for key, limit in paths.items()])))


def _ids(start: RunStart, known: Known) -> Sequence[str]:
    """The ids of what was said in a request: below the response that it names, else from a root."""
    place = known.place_of(start)
    if place is None:
        return path_of(start, known.path_ids)
    return known.path_ids.compute(place.conversation_id, after_instructions(start), place.id)


def _requests(parts: Sequence[Part], continuations: Continuations) -> dict[str, list[RunStart]]:
    """The conversations that must be known, and the requests in them whose places depend on what is stored."""
    requests: dict[str, list[RunStart]] = {}
    for part in parts:
        if isinstance(part, Addition):
            if part.added:
                requests.setdefault(part.conversation_id, [])
            continue
        variants = continuations.variants.get(part.start.run_id) if part.opens else None
        for start in variants.values() if variants is not None else (part.start,):
            if _depends_on_stored(part, start):
                found = requests.setdefault(start.conversation_id, [])
                if part.opens and after_instructions(start):
                    found.append(start)
    return requests


def _depends_on_stored(rows: RunRows, start: RunStart) -> bool:
    """Whether the place of its messages depends on what is stored."""
    if rows.opens:
        return not start.fresh and not start.is_step
    return rows.seal is not None and bool(rows.seal.end.replies)


def _begin(known: Conversations, messages: Sequence[StoredMessage]) -> None:
    """Set the newest message of each conversation."""
    for message in messages:
        conversation = known[message.conversation_id]
        conversation.add(message)
        conversation.newest, conversation.latest = message, message.created_at


def _add(known: Conversations, messages: Sequence[StoredMessage]) -> None:
    for message in messages:
        known[message.conversation_id].add(message)


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
        found[key] = max(found.get(key, 0), alignment.compared(len(contents)))
    return found
