"""A piece of a stream: what is sent together. It is encoded once for each protocol, however many readers it has."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from recorder.replay.playback import EndStep, GapStep, Step, TokensStep, WaitStep
from recorder.server.cursor import PlayedStep, behind, rest

#: Writes steps in the form of one protocol. Arguments: the run's id, the number of the token before which they begin,
#: and the steps.
Encode = Callable[[str, int, Sequence[PlayedStep]], Any]

#: A piece is not continued beyond this estimate (bytes), nor is a step with more tokens than this put into one piece.
PIECE_BYTES = 64 * 1024
_PIECE_TOKENS = 500
#: The estimate of what a token takes in memory, with its encoded forms, beside its text.
_TOKEN_BYTES = 400


class Piece:
    """Consecutive steps of one run."""

    __slots__ = ("_encoded", "next", "run_id", "size", "start", "steps")

    def __init__(self, run_id: str, start: int, steps: Sequence[PlayedStep]) -> None:
        self.run_id = run_id
        #: The number of the next token before these steps, and after them.
        self.start = self.next = start
        for step in steps:
            self.next = behind(step, self.next)
        self.steps = steps
        #: Estimated bytes in memory.
        self.size = sum(_size(step) for step in steps)
        self._encoded: dict[Encode, Any] = {}

    @property
    def is_end(self) -> bool:
        """Whether it ends the stream."""
        return bool(self.steps) and isinstance(self.steps[-1], EndStep)

    def encoded(self, encode: Encode) -> Any:
        """It in the form of a protocol."""
        found = self._encoded.get(encode)
        if found is None:
            found = self._encoded[encode] = encode(self.run_id, self.start, self.steps)
        return found

    def rest_from(self, next: int) -> Piece:
        """The part from token `next` on; itself if it begins there or later."""
        if next <= self.start:
            return self
        left = (rest(step, next) for step in self.steps)
        return Piece(self.run_id, next, [step for step in left if step is not None])


async def pieces_of(run_id: str, steps: AsyncIterator[Step], start: int) -> AsyncGenerator[Piece, None]:
    """Put steps together: those of one commit, or of one page of the database, but not too many."""
    collected: list[PlayedStep] = []
    size = 0
    async for step in steps:
        for part in _parts(step):
            collected.append(part)
            size += _size(part)
            if size >= PIECE_BYTES or isinstance(part, EndStep):
                yield (piece := Piece(run_id, start, collected))
                collected, size, start = [], 0, piece.next
        if isinstance(step, WaitStep) and collected:
            yield (piece := Piece(run_id, start, collected))
            collected, size, start = [], 0, piece.next


def _parts(step: Step) -> Iterator[PlayedStep]:
    """The step, in several parts if it has many tokens; nothing for a step that readers do not get."""
    if isinstance(step, TokensStep):
        for first in range(0, len(step.items), _PIECE_TOKENS):
            yield TokensStep(step.seq + first, step.items[first : first + _PIECE_TOKENS])
    elif isinstance(step, (GapStep, EndStep)):
        yield step


def _size(step: PlayedStep) -> int:
    if isinstance(step, TokensStep):
        return sum(_TOKEN_BYTES + 2 * len(item[1]) for item in step.items)
    return _TOKEN_BYTES
