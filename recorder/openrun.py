"""A run while it is recorded: what its producer appends, and what is taken of it. The intake's lock guards it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from recorder.messages import AIMessage, BaseMessage
from recorder.records import Addition, RunEnd, RunStart

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
    data: list[bytes] = field(default_factory=list)
    #: Their offsets, in microseconds.
    at_us: list[int] = field(default_factory=list)


class OpenRun:
    """A run while it is recorded: what its producer has appended and nobody has taken yet.

    Few objects: with 10,000 open runs the garbage collector took a sixth of the time.
    """

    __slots__ = (
        "bytes", "cut_frames", "cut_tokens", "dropped", "dropped_at", "end", "ended", "extend", "first_frame",
        "first_token", "flat", "framed", "frames", "gaps", "held", "later", "queued", "refused", "start", "started_us",
        "state", "ticket",
    )  # fmt: skip

    def __init__(self, start: RunStart, started_us: int) -> None:
        self.start = start
        #: Monotonic microseconds at `start.started_at`, the zero of all offsets.
        self.started_us = started_us
        #: Tokens that are open, as in `Tokens`, the number of the first one, and what was cut off before it.
        self.flat: list[int | Said] = []
        self.extend = self.flat.extend
        self.first_token = 0
        self.cut_tokens: tuple[Tokens, ...] = ()
        #: Frames that are open, the number of the first one, whether there is one or not; what was cut off before it.
        self.frames: Frames | None = None
        self.first_frame = 0
        self.cut_frames: tuple[Frames, ...] = ()
        self.gaps: tuple[tuple[int, int, str], ...] = ()
        self.dropped_at = 0
        self.dropped = 0
        self.end: RunEnd | None = None
        #: No more tokens: its end came; it was never taken; one of the two, or its tokens find no room now.
        self.ended = False
        self.refused = False
        self.held = False
        #: Whether its tokens come with their frames.
        self.framed = False
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

    @property
    def waiting(self) -> int:
        """How many tokens nobody has taken yet."""
        return len(self.flat) // 2 + sum(map(len, self.cut_tokens))

    def add_frame(self, frame: bytes, at_us: int) -> None:
        """A frame came; before its tokens."""
        if self.frames is None:
            self.frames = Frames(self.first_frame, self.seq)
        self.frames.data.append(frame)
        self.frames.at_us.append(at_us)

    def take_tokens(self, *, dropped: int = 0) -> tuple[Tokens, ...]:
        """What there is; the next token's number comes after so many dropped ones."""
        taken, self.cut_tokens = self.cut_tokens, ()
        if self.flat:
            seq = self.seq
            taken += (Tokens(self.first_token, self.flat),)
            self.first_token, self.flat = seq, []
            self.extend = self.flat.extend
        self.first_token += dropped
        return taken

    def take_frames(self, *, dropped: int = 0) -> tuple[Frames, ...]:
        """What there is; the next frame's number comes after so many dropped ones."""
        taken, self.cut_frames = self.cut_frames, ()
        if self.frames is not None:
            taken += (self.frames,)
            self.first_frame += len(self.frames.data)
            self.frames = None
        self.first_frame += dropped
        return taken


@dataclass(slots=True)
class Taken:
    """What was taken of one run; nobody appends to it any more."""

    run: OpenRun
    tokens: tuple[Tokens, ...]
    frames: tuple[Frames, ...]
    gaps: tuple[tuple[int, int, str], ...]
    end: RunEnd | None
    bytes: int


@dataclass(slots=True)
class Took:
    """What the writer took; nobody appends to it any more."""

    #: In the order they were queued.
    runs: list[Taken] = field(default_factory=list)
    additions: list[Addition] = field(default_factory=list)
    bytes: int = 0
    #: The place in the queue of the last of it; 0 for nothing.
    ticket: int = 0


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
