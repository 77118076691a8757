"""A run while it is recorded: what its producer appends, and what is taken of it. The intake's lock guards it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from recorder.core.clock import monotonic_us
from recorder.core.waitable import Wait
from recorder.messages import AIMessage, BaseMessage
from recorder.storage.rows import Addition, RunEnd, RunStart

#: Why tokens are missing.
FULL = "the queue was full"
#: Longest text that a run without room for its messages keeps of its request and its metadata, each.
_SHORT = 1_000

#: A token's text; with kind and idx unless they are "text" and "0".
Said = str | tuple[str, str, str]
#: One token as it is stored: offset in microseconds, text, and kind and idx unless they are "text" and "0".
Item = tuple[int, str] | tuple[int, str, str, str]


@dataclass(slots=True)
class Tokens:
    """Tokens with consecutive numbers."""

    #: Number of the first.
    seq: int
    #: Offset and text, offset and text, ...: a tuple a token would be one more thing for the garbage collector
    #: to walk through, and with 10,000 open runs that took a quarter of the time.
    flat: list[int | Said]

    def __len__(self) -> int:
        return len(self.flat) // 2

    def items(self) -> list[Item]:
        """The tokens as they are stored."""
        flat = iter(self.flat)
        pairs: list[Any] = list(zip(flat, flat, strict=True))
        if tuple not in set(map(type, self.flat)):  # plain text, as most runs are
            return pairs
        return [(at_us, *said) if type(said) is tuple else (at_us, said) for at_us, said in pairs]


@dataclass(slots=True)
class Frames:
    """Frames with consecutive numbers."""

    #: Number of the first, and of the first token that came with it or later.
    seq: int
    first_delta: int
    #: Frame and offset in microseconds, frame and offset, ...: as tokens are.
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
    """A run while it is recorded: what its producer has appended and nobody has taken yet.

    Few objects: with 10,000 open runs the garbage collector took a sixth of the time.
    """

    __slots__ = (
        "bytes", "cut_frames", "cut_tokens", "dropped", "dropped_at", "end", "ended", "first_frame", "first_token",
        "flat", "framed", "frames", "full_since_us", "gap_reason", "gaps", "held", "idle", "later", "places",
        "queued", "refused", "reopened", "room", "sealed", "shortened", "start", "started_us", "state", "ticket",
        "touched_us",
    )  # fmt: skip

    def __init__(self, start: RunStart, started_us: int) -> None:
        self.start = start
        #: Monotonic microseconds at `start.started_at`, the zero of all offsets.
        self.started_us = started_us
        #: Tokens that are open, as in `Tokens`, the number of the first one, and what was cut off before it.
        self.flat: list[int | Said] = []
        self.first_token = 0
        self.cut_tokens: tuple[Tokens, ...] = ()
        #: Frames that are open, the number of the first one, whether there is one or not; what was cut off before it.
        self.frames: Frames | None = None
        self.first_frame = 0
        self.cut_frames: tuple[Frames, ...] = ()
        #: (first number, count, reason) of each gap that is over.
        self.gaps: tuple[tuple[int, int, str], ...] = ()
        #: The gap that is not over: number of its first token, how many so far, and its reason, "" for none.
        self.dropped_at = 0
        self.dropped = 0
        self.gap_reason = ""
        self.end: RunEnd | None = None
        #: `ended`: the end hook was called. `sealed`: the queue has the end. `refused`: there was no room even for its
        #: row, so nothing of it is stored. `shortened`: there was room for its row only, its messages are not stored.
        #: `idle`: it was closed after a time without tokens, and the next token opens it again. `reopened`: that
        #: happened, and its stored row is to say so. `held`: the fast path is off, for any of these or a full queue.
        self.ended = self.sealed = self.refused = self.shortened = False
        self.idle = self.reopened = self.held = False
        #: Since when its tokens have found no room (monotonic microseconds), and what they wait for.
        self.full_since_us = 0
        self.room: Wait[None] | None = None
        #: When something of it was taken last (monotonic microseconds).
        self.touched_us = started_us
        #: Whether its tokens come with their frames; where the calls and blocks of those that come alone belong.
        self.framed = False
        self.places: object = None
        #: What it holds of the queue's bytes; whether it is in the queue, where, and among those with young frames.
        self.bytes = 0
        self.queued = False
        self.ticket = 0
        self.later = False
        #: What the writer remembers of the run between batches.
        self.state: object = None

    @property
    def seq(self) -> int:
        """Number of the next token; the dropped ones have numbers too."""
        return self.first_token + len(self.flat) // 2

    def moment(self) -> datetime:
        """The time now, by the monotonic clock: no duration is negative when the wall clock is set back."""
        return self.start.started_at + timedelta(microseconds=monotonic_us() - self.started_us)

    @property
    def waiting(self) -> int:
        """How many tokens nobody has taken yet."""
        return len(self.flat) // 2 + sum(map(len, self.cut_tokens))

    def append(self, flat: Sequence[int | Said], frame: bytes | None, at_us: int) -> None:
        """A frame came, unless None, and its tokens. First calls, then assignments: see `Exclusive`."""
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
        """So many found no room. Their numbers are used up, so that the hole shows."""
        self.cut()
        if not self.dropped:
            self.dropped_at = self.first_token
        self.dropped += tokens
        self.first_token += tokens
        self.first_frame += frames
        self.held = True

    def close_gap(self) -> None:
        """There is room again, or the run is over: what was dropped until now is one gap."""
        if self.dropped or self.gap_reason:
            self.gaps += ((self.dropped_at, self.dropped, self.gap_reason or FULL),)
        self.dropped = 0
        self.gap_reason = ""
        self.held = self.ended or self.idle

    def cut(self, *, frames: bool = True) -> None:
        """Nothing more is appended to the pieces that are open; new ones begin."""
        if self.flat:
            count = len(self.flat) // 2
            pieces, flat = (*self.cut_tokens, Tokens(self.first_token, self.flat)), list[int | Said]()
            self.cut_tokens = pieces
            self.flat = flat
            self.first_token += count
        if frames and self.frames is not None:
            count = len(self.frames)
            framed = (*self.cut_frames, self.frames)
            self.cut_frames = framed
            self.frames = None
            self.first_frame += count

    def shorten(self) -> int:
        """Leave out the messages of the request and what else of it is large; how many messages that were."""
        start, count = self.start, len(self.start.messages)
        start.messages = start.path = ()
        start.request, start.metadata, start.tags = map(
            _if_short, (start.request, start.metadata, start.tags)
        )
        self.shortened = True
        return count


def _if_short(text: str | None) -> str | None:
    return text if text is None or len(text) <= _SHORT else None


@dataclass(slots=True)
class Taken:
    """What was taken of one run; nobody appends to it any more."""

    run: OpenRun
    tokens: tuple[Tokens, ...]
    frames: tuple[Frames, ...]
    gaps: tuple[tuple[int, int, str], ...]
    end: RunEnd | None
    bytes: int
    #: Whether it was closed for being idle, which is stored, and goes on.
    reopened: bool = False


@dataclass(slots=True)
class Took:
    """What the writer took; nobody appends to it any more."""

    #: In the order they were queued.
    runs: list[Taken] = field(default_factory=list)
    additions: list[Addition] = field(default_factory=list)
    bytes: int = 0
    #: How many of the bytes were given back to the queue.
    released: int = 0
    #: The place in the queue of the last of it; 0 for nothing.
    ticket: int = 0


def weight_of_start(start: RunStart) -> int:
    """Bytes of a request in memory, roughly."""
    size = sum(map(weight_of, start.messages))
    for text in (start.request, start.metadata, start.tags):
        if text:
            size += len(text)
    return size


def weight_of(message: BaseMessage) -> int:
    """Bytes of a message in memory, roughly: of what is said, of the calls and of all else that is kept."""
    size = size_of(message.content)
    if message.additional_kwargs:
        size += size_of(message.additional_kwargs)
    if isinstance(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls):
        size += size_of([message.tool_calls, message.invalid_tool_calls])
    return size


def size_of(content: object) -> int:
    """Bytes of a message's content in memory, roughly."""
    if isinstance(content, str):
        return len(content) if content.isascii() else 4 * len(content)
    try:
        return len(str(content))
    except RecursionError:  # nested beyond reason; the writer will say that it cannot be stored
        return 0
