"""The buffer of an open run: its producer appends to it, the writer drains it. The queue's lock guards it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from recorder.core.clock import monotonic_us
from recorder.core.waitable import Wait
from recorder.messages import AIMessage, BaseMessage
from recorder.recording.held_tokens import HeldTokens
from recorder.recording.run_totals import RunTotals
from recorder.storage.batch import Addition
from recorder.storage.rows import RunEnd, RunStart
from recorder.wire.from_chunks import Places

#: The reason of a gap, as it is stored.
FULL = "the queue was full"
#: A run that is stored without its messages keeps its request, metadata and tags only up to this length (characters).
_SHORT = 1_000

#: A token without its time: the text alone if its kind is "text" and its idx is "0", else (text, kind, idx).
TokenValue = str | tuple[str, str, str]
#: One token as it is stored: the offset in microseconds, then the same.
StoredToken = tuple[int, str] | tuple[int, str, str, str]


@dataclass(slots=True)
class Tokens:
    """Tokens with consecutive numbers."""

    #: Number of the first token.
    seq: int
    #: [offset, token, offset, token, ...]. With a tuple for each token the garbage collector has more objects to visit;
    #: with 10,000 open runs that took a quarter of the time.
    flat: list[int | TokenValue]

    def __len__(self) -> int:
        return len(self.flat) // 2

    def items(self) -> list[StoredToken]:
        """The tokens as they are stored."""
        flat = iter(self.flat)
        pairs: list[Any] = list(zip(flat, flat, strict=True))
        if tuple not in set(map(type, self.flat)):  # plain text, as in most runs
            return pairs
        return [(at_us, *token) if type(token) is tuple else (at_us, token) for at_us, token in pairs]


@dataclass(slots=True)
class Frames:
    """Frames with consecutive numbers."""

    #: Number of the first frame, and of the first token that came with it or later.
    seq: int
    first_delta: int
    #: [frame, offset, frame, offset, ...], offsets in microseconds.
    flat: list[Any] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.flat) // 2

    @property
    def data(self) -> list[bytes]:
        """The frames."""
        return self.flat[::2]

    @property
    def at_us(self) -> list[int]:
        """Their offsets, in microseconds."""
        return self.flat[1::2]


class OpenRun:
    """A run that is being recorded, with everything of it that the writer has not drained yet.

    It consists of few objects: with 10,000 open runs the garbage collector took a sixth of the time. Its flags:

    - `ended`: the end hook was called. `sealed`: the queue has the end.
    - `lost`: the queue was full at the start, and nothing of the run is stored, not even its row.
    - `without_messages`: the queue was full at the start, and the row is stored without messages.
    - `idle`: the run was ended after a time without tokens; its next token reopens it.
    - `reopened`: that happened, and the stored row must change.
    - `slow_path`: tokens must not take the fast path in `put`.
    """

    __slots__ = (
        "active_us",
        "bytes",
        "capacity_wait",
        "end",
        "ended",
        "ended_order",
        "ended_us",
        "first_frame",
        "first_token",
        "flat",
        "frames",
        "frozen_frames",
        "frozen_tokens",
        "full_since_us",
        "gap_count",
        "gap_reason",
        "gap_seq",
        "gaps",
        "has_frames",
        "held",
        "idle",
        "is_delayed",
        "lost",
        "places",
        "queue_offset",
        "queued",
        "reopened",
        "sealed",
        "slow_path",
        "start",
        "started_us",
        "totals",
        "without_messages",
    )  # fmt: skip

    def __init__(self, start: RunStart, started_us: int) -> None:
        self.start = start
        #: Monotonic microseconds at `start.started_at`. All offsets count from here.
        self.started_us = started_us
        #: Tokens as in `Tokens.flat`, the number of the first of them, and the frozen tokens before them.
        self.flat: list[int | TokenValue] = []
        self.first_token = 0
        self.frozen_tokens: tuple[Tokens, ...] = ()
        #: Frames, None if there are none, the number of the first (or next) of them, and the frozen frames before them.
        self.frames: Frames | None = None
        self.first_frame = 0
        self.frozen_frames: tuple[Frames, ...] = ()
        #: (first number, count, reason) of each closed gap.
        self.gaps: tuple[tuple[int, int, str], ...] = ()
        #: The gap that is still open: number of its first token, its tokens so far, and its reason; "" means `FULL`.
        self.gap_seq = self.gap_count = 0
        self.gap_reason = ""
        self.end: RunEnd | None = None
        self.ended = self.sealed = self.lost = self.without_messages = False
        self.idle = self.reopened = self.slow_path = False
        #: Since when the queue has been full for this run (monotonic microseconds, or 0), and the wait for capacity.
        self.full_since_us = 0
        self.capacity_wait: Wait[None] | None = None
        #: When the run was started, drained or lost a token last (monotonic microseconds).
        self.active_us = started_us
        #: If its bytes are translated later: when the last ones came (monotonic microseconds), and the place of its end
        #: among all events; else 0.
        self.ended_us = 0
        self.ended_order = 0
        #: Whether tokens come with their frames. If they do not: the numbers of their tool calls and content blocks.
        self.has_frames = False
        self.places: Places | None = None
        #: The tokens that a redacting recorder holds back.
        self.held: HeldTokens | None = None
        #: The bytes that it holds in the queue; whether it is queued, at which offset; whether its frames are delayed.
        self.bytes = 0
        self.queued = self.is_delayed = False
        self.queue_offset = 0
        #: What the serializer keeps of the run between batches; None before the first batch.
        self.totals: RunTotals | None = None

    @property
    def seq(self) -> int:
        """Number of the next token. Dropped tokens have numbers too."""
        return self.first_token + len(self.flat) // 2

    def moment(self) -> datetime:
        """The time now, or when its last bytes came. By the monotonic clock, because the wall clock may be set back."""
        return self.start.started_at + timedelta(
            microseconds=(self.ended_us or monotonic_us()) - self.started_us
        )

    @property
    def queued_tokens(self) -> int:
        """Tokens that are not drained yet."""
        return len(self.flat) // 2 + sum(map(len, self.frozen_tokens))

    def append(self, flat: Sequence[int | TokenValue], frame: bytes | None, at_us: int) -> None:
        """Add tokens, and a frame unless it is None. Calls come before assignments: see `Exclusive`."""
        frames = self.frames
        if frame is None:
            self.flat += flat
            return
        if frames is None:
            frames = Frames(self.first_frame, self.seq)
        frames.flat += (frame, at_us)
        self.frames = frames
        self.flat += flat

    def drop(self, tokens: int, frames: int) -> None:
        """Drop tokens and frames. Their numbers stay unused, so that the gap is visible."""
        self.freeze()
        if not self.gap_count:
            self.gap_seq = self.first_token
        self.gap_count += tokens
        self.first_token += tokens
        self.first_frame += frames
        self.slow_path = True

    def close_gap(self) -> None:
        """Make one gap of what was dropped until now."""
        if self.gap_count or self.gap_reason:
            self.gaps += ((self.gap_seq, self.gap_count, self.gap_reason or FULL),)
        self.gap_count = 0
        self.gap_reason = ""
        self.slow_path = self.ended or self.idle

    def freeze(self, *, frames: bool = True) -> None:
        """Move the current tokens (and frames) to the frozen ones, to which nothing is appended."""
        if self.flat:
            count = len(self.flat) // 2
            frozen, flat = (
                (*self.frozen_tokens, Tokens(self.first_token, self.flat)),
                list[int | TokenValue](),
            )
            self.frozen_tokens = frozen
            self.flat = flat
            self.first_token += count
        if frames and self.frames is not None:
            count = len(self.frames)
            frozen_frames = (*self.frozen_frames, self.frames)
            self.frozen_frames = frozen_frames
            self.frames = None
            self.first_frame += count

    def remove_messages(self) -> int:
        """Remove the request's messages and its large fields. Returns the number of messages."""
        start, count = self.start, len(self.start.messages)
        start.messages = start.path = ()
        start.request, start.metadata, start.tags = map(
            _if_short, (start.request, start.metadata, start.tags)
        )
        self.without_messages = True
        return count


def _if_short(text: str | None) -> str | None:
    return text if text is None or len(text) <= _SHORT else None


@dataclass(slots=True)
class DrainedRun:
    """What the writer drained of one run. It does not change any more."""

    run: OpenRun
    tokens: tuple[Tokens, ...]
    frames: tuple[Frames, ...]
    gaps: tuple[tuple[int, int, str], ...]
    end: RunEnd | None
    bytes: int
    #: Whether the stored row says that the run was ended for being idle, and a token has reopened the run.
    reopened: bool = False


@dataclass(slots=True)
class DrainedBatch:
    """What the writer drained at once. It does not change any more."""

    #: In queue order.
    runs: list[DrainedRun] = field(default_factory=list)
    additions: list[Addition] = field(default_factory=list)
    bytes: int = 0
    #: How many of the bytes were released to the queue.
    released: int = 0
    #: The queue offset of its last item.
    queue_offset: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether it holds nothing."""
        return not (self.runs or self.additions)


def size_of_start(start: RunStart) -> int:
    """Approximate size of a request in memory (bytes)."""
    size = sum(map(size_of_message, start.messages))
    for text in (start.request, start.metadata, start.tags):
        if text:
            size += len(text)
    return size


def size_of_message(message: BaseMessage) -> int:
    """Approximate size of a message in memory (bytes): content, tool calls and `additional_kwargs`."""
    size = size_of_content(message.content)
    if message.additional_kwargs:
        size += size_of_content(message.additional_kwargs)
    if isinstance(message, AIMessage) and message.has_calls:
        size += size_of_content([message.tool_calls, message.invalid_tool_calls])
    return size


def size_of_content(content: object) -> int:
    """Approximate size of a message's content in memory (bytes)."""
    if isinstance(content, str):
        return len(content) if content.isascii() else 4 * len(content)
    try:
        return len(str(content))
    except RecursionError:  # nested too deeply; the writer reports that it cannot be stored
        return 0
