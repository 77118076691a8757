"""What one transaction stores: the rows of runs, and what the application adds outside of runs.

The writer serializes what one batch holds of a run into `RunRows`. A failed batch is stored again with the same rows.
Only these change them: `message_tree.settle` writes the rows of their messages into them once, a run whose id is stored
already gets another one (`recording/repeated_run_ids.py`), a conversation that belongs to another user as well
(`recording/kept_apart.py`), and tokens that cannot be stored are replaced by gaps (`recording/batch_in_flight.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple

from recorder.messages import BaseMessage
from recorder.storage.columns import JsonText
from recorder.storage.rows import (
    AnnotationRow,
    ContextMessageRow,
    FrameRow,
    GapRow,
    MessageRow,
    Producer,
    RunEnd,
    RunStart,
    SegmentRow,
)

#: If a batch has more messages than this, they are indexed later (`recording/late_indexing.py`): the words of a message
#: take more time than storing it, and a burst must not be slower than without the search.
MOST_INDEXED = 16


@dataclass(slots=True)
class RunSeal:
    """The end of a run, with the count and digests that prove it complete."""

    end: RunEnd
    token_count: int
    #: Hex digest of the stored deltas, joined by commas.
    sha256: str | None
    #: Hex digest of the frames, joined; None without frames.
    frames_sha256: str | None
    #: Set by `message_tree.settle`; None without a reply.
    response_message_id: str | None = None
    #: The run's metadata again, if more was masked after the start was stored.
    metadata: str | None = None
    #: As in `RunColumns`.
    input_cost: float | None = None
    output_cost: float | None = None
    cost: float | None = None
    price: JsonText | None = None
    redaction: JsonText | None = None


@dataclass(slots=True)
class RunRows:
    """The rows of one run in one batch."""

    start: RunStart
    #: Whether the run's own row is new with this batch.
    opens: bool
    # Nothing in place of an empty list: with many runs the garbage collector visits each of their objects.
    messages: Sequence[MessageRow] = ()
    context: Sequence[ContextMessageRow] = ()
    segments: Sequence[SegmentRow] = ()
    frames: Sequence[FrameRow] = ()
    gaps: Sequence[GapRow] = ()
    seal: RunSeal | None = None
    #: Whether `messages` holds the final rows, which a retry stores again.
    threaded: bool = False
    #: The number of tokens that could not be serialized, because of a bug in recorder; `gaps` has them.
    unserialized: int = 0
    #: The number of accepted tokens in these rows.
    tokens: int = 0
    #: The bytes that they take of the queue.
    bytes: int = 0
    #: The number of this part in its batch. Parts that are made from it later have the same number.
    place: int = 0


class Added(NamedTuple):
    """A message that was added to a conversation."""

    #: As in `RunStart`.
    order: int
    at: datetime
    message: BaseMessage


@dataclass(slots=True)
class AddedMessages:
    """Messages that were added to a conversation, in their order."""

    #: [order, time, message, order, time, message, ...], as in `Tokens.flat`: without an object for each message.
    flat: list[Any] = field(default_factory=list)

    @classmethod
    def made_of(cls, added: Iterable[Added]) -> AddedMessages:
        """These messages."""
        return cls([*chain.from_iterable(added)])

    def append(self, order: int, at: datetime, messages: Iterable[BaseMessage]) -> None:
        """Append messages that were added at once."""
        for message in messages:
            self.flat += (order, at, message)

    def __len__(self) -> int:
        return len(self.flat) // 3

    def __iter__(self) -> Iterator[Added]:
        flat = iter(self.flat)
        return map(Added, flat, flat, flat)

    def cut(self, count: int) -> tuple[AddedMessages, AddedMessages]:
        """The first `count` messages, and the others."""
        return AddedMessages(self.flat[: 3 * count]), AddedMessages(self.flat[3 * count :])


@dataclass(slots=True)
class Addition:
    """What the application adds to one conversation outside of runs. The queue appends to it until it is drained."""

    #: "" if it holds annotations only, which belong to runs.
    conversation_id: str
    #: The user who adds it; None if unknown.
    user_id: str | None
    #: The time of the first of what was added, and as in `RunStart`.
    begun_at: datetime
    order: int = field(default=0, kw_only=True)
    added: AddedMessages = field(default_factory=AddedMessages)
    #: Their rows, and whether these are final, so that a retry stores the same.
    messages: list[MessageRow] = field(default_factory=list)
    #: New values of the conversation's columns, by name.
    details: dict[str, str] = field(default_factory=dict)
    annotations: list[AnnotationRow] = field(default_factory=list)
    threaded: bool = False
    #: The bytes that they take of the queue.
    bytes: int = 0
    #: Whether the queue holds this object.
    queued: bool = False
    #: Its offset in the queue.
    queue_offset: int = 0
    #: As in `RunRows`.
    place: int = 0
    #: Class constants: an addition never holds tokens.
    queued_tokens: ClassVar[int] = 0
    tokens: ClassVar[int] = 0

    @property
    def key(self) -> tuple[str, str | None]:
        """What is added under the same key is stored together."""
        return self.conversation_id, self.user_id

    @property
    def count(self) -> int:
        """How many messages, annotations and new details it holds."""
        return len(self.added) + len(self.annotations) + len(self.details)


#: A part of a batch.
Part = RunRows | Addition


class NamedConversation(NamedTuple):
    """A conversation as a run or an addition names it."""

    #: As in `RunStart`.
    order: int
    id: str
    user_id: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows that one transaction stores."""

    producer: Producer
    runs: Sequence[RunRows]
    additions: Sequence[Addition] = ()
    #: Ids of the producer's stored runs that have not ended yet.
    open_runs: Collection[str] = ()
    #: Whether to store nothing, but insert invented rows into every table and roll them back, to see whether the
    #: database accepts rows.
    trial: bool = False
    #: How many bytes these rows have.
    trial_bytes: int = 0
    #: The factor by which its statements may take longer than usual.
    patience: int = 1

    @property
    def named_conversations(self) -> Sequence[NamedConversation]:
        """The conversations of the runs and the additions that begin here, in the order in which they begin."""
        named = [
            *(NamedConversation(start.order, start.conversation_id, start.user_id, start.started_at)
              for start in (rows.start for rows in self.runs if rows.opens) if not start.is_step),
            *(NamedConversation(each.order, each.conversation_id, each.user_id, each.begun_at)
              for each in self.additions if each.conversation_id),
        ]  # fmt: skip
        return sorted(named, key=attrgetter("order"))

    @property
    def parts(self) -> Sequence[Part]:
        """All runs and additions."""
        return [*self.runs, *self.additions]
