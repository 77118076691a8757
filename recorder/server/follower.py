"""One reader of one run: it holds a position, and gets the pieces behind it.

The pieces come from the window of the live run, or from the database if the window has lost them or the run has ended.
Both give the same tokens, so a reader changes from one to the other at an exact number.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from recorder.replay.driver import StepQueries, asteps
from recorder.replay.pace import Options
from recorder.replay.playback import GapStep, tokens
from recorder.server.cursor import StreamCursor
from recorder.server.hub import Hub, Reason
from recorder.server.live_run import LiveRun
from recorder.server.paced import paced_pieces
from recorder.server.piece import Piece, pieces_of
from recorder.storage.reader import RecordedRun

#: Tokens that one query reads from the database: many readers share its connection, and each may leave soon.
_PAGE = 500


class Follower:
    """A reader of a run, on the task that calls `run_to_its_end`."""

    def __init__(self, hub: Hub, run: RecordedRun, cursor: StreamCursor, pace: Options | None = None) -> None:
        self._hub = hub
        self.run = run
        #: The number of the next token to send.
        self.position = cursor.next
        self._pace = pace
        #: Why it was ended from outside; None while it was not.
        self.ended: Reason | None = None
        #: As in `HubReader`.
        self.sending_since: float | None = None
        self.sent_at = time.monotonic()
        self._waiting: asyncio.Future[None] | None = None
        self._task: asyncio.Task[Any] | None = None

    async def run_to_its_end(self, send: Callable[[Piece | None], Awaitable[None]]) -> bool:
        """Send each piece, and None as a heartbeat. Returns whether the end of the run was sent.

        `end` ends it at once, also while it sends or reads. Raises what the database raises.
        """
        self._hub.add(self)
        if self._is_ended():
            self._hub.remove(self)
            return False
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        try:
            async with aclosing(self._pieces()) as pieces:
                async for piece in pieces:
                    await self._send(send, piece)
                    if piece is not None and piece.is_end:
                        return True
            return False
        except asyncio.CancelledError:
            if self._is_ended():
                task.uncancel()
                return False
            raise
        finally:
            self._task = None
            self._hub.remove(self)

    def _is_ended(self) -> bool:
        return self.ended is not None

    def end(self, reason: Reason) -> None:
        """End it now."""
        if self.ended is None:
            self.ended = reason
            if self._task is not None:
                self._task.cancel()

    def wake(self) -> None:
        """Look for new pieces."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def _send(self, send: Callable[[Piece | None], Awaitable[None]], piece: Piece | None) -> None:
        self.sending_since = time.monotonic()
        await send(piece)
        self.sending_since = None
        self.sent_at = time.monotonic()
        if piece is not None:
            self.position = piece.next

    async def _pieces(self) -> AsyncGenerator[Piece | None, None]:
        if self._pace is not None:
            source = paced_pieces(self._hub.reader, self.run, self.position, self._pace)
            async with aclosing(source):
                async for piece in source:
                    yield piece
            return
        live = await self._hub.follow(self) if self.run.is_open else None
        while True:
            in_window = live is not None and self.position >= live.first
            source = self._from_window(live) if in_window and live else self._from_database(live)
            async with aclosing(source):
                async for piece in source:
                    yield piece
                    if piece is not None and piece.is_end:
                        return

    async def _from_window(self, live: LiveRun) -> AsyncGenerator[Piece | None, None]:
        """Pieces of the live run, until its end or until the window has lost the next one."""
        place = live.place_of(self.position)
        while place >= live.dropped:
            piece = live.piece(place)
            if piece is None:
                if live.failure is not None:
                    raise live.failure
                await self._new_piece()
                if self._hub.is_heartbeat_due(self):
                    yield None
                continue
            place += 1
            if piece.next > self.position or piece.is_end:
                yield piece.rest_from(self.position)

    async def _new_piece(self) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    async def _from_database(self, live: LiveRun | None) -> AsyncGenerator[Piece | None, None]:
        """Pieces of what is stored; of a live run until the window has the next one."""
        # From the token before: a start behind the last token would be refused.
        first = max(0, self.position - 1)
        options, before = Options(speed=None, start=first or None), self.position
        playback = tokens(self.run, options, _PAGE)
        steps = asteps(StepQueries(self._hub.pages, playback, options, owner=self), playback)
        async with aclosing(steps):
            async for piece in pieces_of(self.run.id, steps, first):
                found = piece.rest_from(self.position)
                if live is not None and piece.is_end:  # the end of what is stored now
                    found = Piece(found.run_id, found.start, found.steps[:-1])
                if found.steps:
                    yield found
                if live is not None and self.position >= live.first:
                    return
        if live is not None and self.position == before < live.first:
            missing = live.first - before
            yield Piece(self.run.id, before, [GapStep(0, before, missing, "the tokens were deleted")])
