"""A stream with the pauses that were recorded, or faster or slower: each reader plays by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace

from recorder.replay.driver import StepQueries, asteps
from recorder.replay.pace import Options, Pace
from recorder.replay.playback import EndStep, GapStep, Step, TokensStep, WaitStep, tokens
from recorder.replay.reader_thread import ReaderThread
from recorder.server.cursor import PlayedStep, rest
from recorder.server.piece import Piece
from recorder.storage.reader import RecordedRun

#: A heartbeat is sent when nothing else was for so long (seconds).
HEARTBEAT = 15.0
#: Tokens that are due within this time (seconds) are not waited for.
_NOW = 0.001


async def paced_pieces(
    reader: ReaderThread, run: RecordedRun, position: int, pace: Options
) -> AsyncGenerator[Piece | None, None]:
    """Yield the pieces of a run from token `position` on when they are due, and None for a heartbeat."""
    options = replace(pace, start=max(0, position - 1) or None, follow=True)
    playback = tokens(run, options)
    steps = asteps(StepQueries(reader, playback, options, owner=run), playback)
    clock = _PaceClock(replace(options, start=position or None))
    async with aclosing(steps):
        async for step in steps:
            if isinstance(step, WaitStep) and clock.is_heartbeat_due():
                yield None
            for part in _single_tokens(step, position):
                async for _ in clock.until(part):
                    yield None
                yield (piece := Piece(run.id, position, [part]))
                position = piece.next


def _single_tokens(step: Step, position: int) -> Iterator[PlayedStep]:
    """What readers get of a step from token `position` on, each token by itself."""
    if not isinstance(step, (TokensStep, GapStep, EndStep)):
        return
    left = rest(step, position)
    if isinstance(left, TokensStep):
        yield from (TokensStep(seq, [item]) for seq, item in enumerate(left.items, left.seq))
    elif left is not None:
        yield left


class _PaceClock:
    """When tokens and heartbeats are due."""

    def __init__(self, options: Options) -> None:
        self._pace = Pace(options)
        self._began = self._sent = time.monotonic()

    def is_heartbeat_due(self) -> bool:
        """Whether nothing was sent for long; if so, a heartbeat is sent now."""
        is_due = time.monotonic() - self._sent >= HEARTBEAT
        if is_due:
            self._sent = time.monotonic()
        return is_due

    async def until(self, part: PlayedStep) -> AsyncIterator[None]:
        """Wait until a token is due; yields for each heartbeat meanwhile. Gaps and the end are due at once."""
        if isinstance(part, TokensStep):
            due = self._began + self._pace.due(part.items[0][0])
            while (left := due - time.monotonic()) > _NOW:
                await asyncio.sleep(min(left, HEARTBEAT))
                if self.is_heartbeat_due():
                    yield None
        self._sent = time.monotonic()
