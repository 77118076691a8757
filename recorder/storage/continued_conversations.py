"""Which conversation a request continues that names none, with `thread="history"`.

A client without an id sends the history again, or a window of it. Each reply is stored with a key: the hash of who got
it, of its prompt and of its text. A request is compared with the newest conversations that have the keys of its own
exchanges. In the one it continues, most of them are found.

A greeting and its answer are the same in many conversations. So one exchange is sufficient only if it is the newest of
the conversation, or if the newest question is repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple

from recorder.messages.identity import content_hash
from recorder.storage.batch import RunRows
from recorder.storage.previous_responses import PreviousResponses, response_id_in
from recorder.storage.request_input import after_instructions, contents_of
from recorder.storage.rows import RunStart
from recorder.storage.stored_messages import KnownMessage, StoredConversation
from recorder.storage.unnamed_conversations import HistoryOwner

#: The role of an answer.
_ANSWER = "assistant"
#: The last exchanges of a request are compared, at most so many.
_EXCHANGES = 16
#: At most so many conversations are compared with a request.
_CANDIDATES = 8
#: Fewer exchanges agree by accident, if the conversation has gone on after them.
_NO_ACCIDENT = 2


class Exchange(NamedTuple):
    """An answer in a request, with the message before it."""

    key: int
    #: The place of the answer among the messages after the instructions.
    place: int


def thread_key(owner: HistoryOwner, prompt: int, reply: int) -> int:
    """The key of a reply from the content hashes of its prompt and of itself; 64 bits with a sign."""
    text = f"{owner.name}\n{prompt}\n{reply}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


def exchanges_of(start: RunStart) -> list[Exchange]:
    """The last exchanges of a request, in their order; none if it names its conversation."""
    if start.unnamed is None or start.history_owner is None:
        return []
    contents, messages = contents_of(start), after_instructions(start)
    places = [place for place in range(1, len(messages)) if messages[place].role == _ANSWER]
    return [
        Exchange(thread_key(start.history_owner, contents[place - 1], contents[place]), place)
        for place in places[-_EXCHANGES:]
    ]


@dataclass(slots=True)
class Continuations:
    """What a batch needs to know about the conversations that its requests may continue."""

    #: The replies that have a key: stored ones, and those of this batch as soon as they have their places.
    replies: dict[int, list[KnownMessage]] = field(default_factory=dict)
    #: Run id -> the request as a request of each conversation that it may continue, by conversation id.
    variants: dict[str, dict[str, RunStart]] = field(default_factory=dict)
    #: New conversation -> the stored one that its runs turned out to continue. Of this batch only.
    moved: dict[str, str] = field(default_factory=dict)

    def add(self, message: KnownMessage) -> None:
        """Add a reply that was stored with a key."""
        if message.thread_key is not None:
            self.replies.setdefault(message.thread_key, []).append(message)

    def find_candidates(self, runs: Sequence[RunRows], responses: PreviousResponses) -> None:
        """Set the variants of all requests that begin in these runs and name no conversation."""
        families: dict[str, set[str]] = {}
        in_batch: dict[int | str, set[str]] = {}
        for rows in sorted(runs, key=lambda rows: rows.start.order):
            start, own = rows.start, {rows.start.conversation_id}
            if rows.opens and start.unnamed is not None:
                own = families.setdefault(start.unnamed.id, {start.unnamed.id})
                keys = [exchange.key for exchange in exchanges_of(start)]
                own |= self._conversations_with(keys, start)
                own |= {id for key in keys for id in in_batch.get(key, ())}
                own |= _conversations_of_response(start, responses, in_batch)
                self.variants[start.run_id] = {}
            for key in _names(rows):
                in_batch.setdefault(key, set()).update(own)
        for rows in runs:
            if (variants := self.variants.get(rows.start.run_id)) is not None:
                for id in sorted(families[rows.start.unnamed.id if rows.start.unnamed else ""]):
                    variants[id] = _as_request_of(id, rows.start)

    def choose(
        self, start: RunStart, conversations: Mapping[str, StoredConversation], place: KnownMessage | None
    ) -> RunStart:
        """The request as one of the conversation that it continues, else of its own one.

        `place` is the message below which it goes, if it names a response that is known.
        """
        variants = self.variants.get(start.run_id)
        if variants is None or start.unnamed is None:
            return start
        own = self.moved.get(start.unnamed.id, start.unnamed.id)
        found = self._continued(start, conversations, own) if place is None else place.conversation_id
        if found != own and own == start.unnamed.id:
            self.moved[own] = found
        return variants.get(found, start)

    def _continued(self, start: RunStart, conversations: Mapping[str, StoredConversation], own: str) -> str:
        """The conversation whose exchanges the request repeats, else its own one."""
        variants, found = self.variants[start.run_id], own
        best: tuple[int, bool, datetime] | None = None
        for id, (count, last) in self._agreeing(start).items():
            if id not in variants or (conversation := conversations.get(id)) is None:
                continue
            is_end = _is_end(last, variants[id], conversation)
            rank = count, is_end, last.created_at
            if (is_end or count >= _NO_ACCIDENT) and (best is None or rank > best):
                best, found = rank, id
        return found

    def _conversations_with(self, keys: Sequence[int], start: RunStart) -> set[str]:
        """The conversations in which most of these keys are stored, of equal ones the newest."""
        found: dict[str, tuple[int, datetime]] = {}
        for key in keys:
            for reply in self._replies_to(key, start):
                count, at = found.get(reply.conversation_id, (0, reply.created_at))
                found[reply.conversation_id] = count + 1, max(at, reply.created_at)
        return set(sorted(found, key=lambda id: found[id], reverse=True)[:_CANDIDATES])

    def _agreeing(self, start: RunStart) -> dict[str, tuple[int, KnownMessage]]:
        """Conversation id -> how many exchanges of the request it has, and the answer of the last one."""
        found: dict[str, tuple[int, KnownMessage]] = {}
        for key, _ in exchanges_of(start):
            for id, reply in {each.conversation_id: each for each in self._replies_to(key, start)}.items():
                found[id] = found.get(id, (0, reply))[0] + 1, reply
        return found

    def _replies_to(self, key: int, start: RunStart) -> Iterator[KnownMessage]:
        """The replies with this key that are new enough, the oldest first."""
        assert start.history_owner is not None
        since = start.started_at - start.history_owner.within
        replies = self.replies.get(key, ())
        return (
            each for each in sorted(replies, key=lambda each: each.created_at) if each.created_at >= since
        )


def _is_end(last: KnownMessage, start: RunStart, conversation: StoredConversation) -> bool:
    """Whether the conversation ends with this answer, or with answers to the message that the request ends with."""
    newest = conversation.newest
    if newest is None or newest.id == last.id:
        return newest is not None
    question = conversation.parent_of(newest)
    if newest.role != _ANSWER or question is None or question.parent_id != last.id:
        return False
    return question.content_hash == contents_of(start)[-1]


def _as_request_of(conversation_id: str, start: RunStart) -> RunStart:
    if conversation_id == start.conversation_id:
        return start
    return replace(start, conversation_id=conversation_id, fresh=False, path=())


def _conversations_of_response(
    start: RunStart, responses: PreviousResponses, in_batch: Mapping[int | str, set[str]]
) -> set[str]:
    """The conversations in which the response may stand that the request names."""
    if start.previous is None:
        return set()
    place = responses.place_of(start)
    return in_batch.get(start.previous.id, set()) | ({place.conversation_id} if place is not None else set())


def _names(rows: RunRows) -> list[int | str]:
    """What later requests name the replies in this part by: keys of exchanges, and the id of the response."""
    response_id = response_id_in(rows)
    return [*_reply_keys(rows), *([response_id] if response_id is not None else ())]


def _reply_keys(rows: RunRows) -> list[int]:
    """The keys of the replies in this part."""
    replies = rows.seal.end.replies if rows.seal is not None and rows.start.history_owner is not None else ()
    keys = (reply_key(rows.start, content_hash(reply)) for reply in replies)
    return [key for key in keys if key is not None]


def reply_key(start: RunStart, content: int) -> int | None:
    """The key of a reply of this run, from the reply's content hash; None without `thread="history"`."""
    owner = start.history_owner
    return thread_key(owner, prompt_content(start), content) if owner is not None else None


def prompt_content(start: RunStart) -> int:
    """The content hash of the last message of a request, also when its messages are not in memory any more."""
    contents = contents_of(start)
    return contents[-1] if contents else start.placement.prompt_content
