"""What is stored of a conversation, as far as a request needs to know, and the questions that find it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple

from recorder.errors import StoreError
from recorder.messages.identity import content_hash
from recorder.storage.failures import ROW_ERRORS
from recorder.storage.message_columns import message_of
from recorder.storage.rows import MessageRow, PreviousResponse


class StoredMessage(NamedTuple):
    """One stored message without its content."""

    conversation_id: str
    id: str
    parent_id: str | None
    position: int
    role: str
    created_at: datetime
    content_hash: int
    #: As in `MessageRow`.
    thread_key: int | None = None
    #: The response that was looked up, of the kind `responses`.
    response: PreviousResponse | None = None


#: A message of which is known where it stands: one that was looked up, or one of this batch.
KnownMessage = StoredMessage | MessageRow


class Lookup(NamedTuple):
    """One question for any number of conversations. Each key is a list of a conversation id, an id and a number.

    - `ids`: the messages with these ids. The number is not used.
    - `newest`: the newest message of the conversation. Id and number are not used.
    - `content`: the newest `limit` messages whose content hash is the number. The id is not used.
    - `above`: the message with this id and its ancestors, at most as many messages as the number says.
    - `replies`: in all conversations, the newest `limit` messages since `since` whose thread key is the number.
      Conversation and id are not used.
    - `responses`: in all conversations, the reply to the newest run with this response, complete runs first. The
      response's id stands in place of the conversation's; the id is not used. With the number 1 it is the prompt.
    """

    kind: Literal["ids", "newest", "content", "above", "replies", "responses"]
    keys: Sequence[Sequence[Any]]
    limit: int = 0
    since: datetime | None = None


_TICK = timedelta(microseconds=1)


@dataclass(slots=True)
class StoredConversation:
    """What is known of one conversation: what is stored, and what comes earlier in the same batch."""

    id: str
    #: By id.
    messages: dict[str, KnownMessage] = field(default_factory=dict)
    newest: KnownMessage | None = None
    #: The time of the latest message.
    latest: datetime | None = None
    #: By content hash; computed when it is needed first, which is never for messages that are only added.
    _by_content: dict[int | None, list[KnownMessage]] | None = None

    def add(self, message: KnownMessage) -> None:
        """Add a message, unless it is known already."""
        if message.id in self.messages:
            return
        self.messages[message.id] = message
        if self._by_content is not None:
            self._by_content.setdefault(message.content_hash, []).append(message)

    def append(self, message: KnownMessage) -> None:
        """Add a new message, which becomes the newest one."""
        self.add(message)
        self.newest, self.latest = message, message.created_at

    def first_free_time(self, at: datetime) -> datetime:
        """This time if it is after the latest message, else one microsecond after that message."""
        return at if self.latest is None or at > self.latest else self.latest + _TICK

    def with_content(self, content: int) -> Sequence[KnownMessage]:
        """The known messages with this content hash."""
        if self._by_content is None:
            self._by_content = {}
            for message in self.messages.values():
                self._by_content.setdefault(message.content_hash, []).append(message)
        return self._by_content.get(content, ())

    def parent_of(self, message: KnownMessage) -> KnownMessage | None:
        """Its parent; None for a root, and for a parent that was not looked up."""
        return self.messages.get(message.parent_id) if message.parent_id is not None else None

    def path_to(self, message: KnownMessage | None, limit: int) -> list[KnownMessage]:
        """The known part of the path that ends at this message, oldest first; its last `limit` messages at most."""
        path: dict[str, KnownMessage] = {}
        # A damaged database may have a circle.
        while message is not None and message.id not in path and len(path) < limit:
            path[message.id] = message
            message = self.parent_of(message)
        return list(path.values())[::-1]


def stored_message(row: Any) -> StoredMessage:
    """The message of a row. Older rows have no content hash, and come with their content instead."""
    found = row.content_hash
    if found is None:
        found = hash_of_row(row) or 0
    parent_id = row.parent_id and str(row.parent_id)
    return StoredMessage(row.conversation_id, str(row.id), parent_id, row.position,
                         row.role, row.created_at, found, row.thread_key)  # fmt: skip


def hash_of_row(row: Any) -> int | None:
    """The content hash of a row with role, content and parts; None if it is damaged, which readers report."""
    try:
        return content_hash(message_of(row.role, row.content, row.parts))
    except (StoreError, *ROW_ERRORS):
        return None
