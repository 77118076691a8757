"""Plays one run that streams, once for all who follow it, and holds its newest pieces.

It begins some thousand tokens before the last one that is stored, so that most readers find everything in the window.
What is older, and what no longer fits the window, they get from the database, page by page.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from typing import Protocol

from recorder.errors import RecorderError
from recorder.replay.driver import asteps
from recorder.replay.pace import Options
from recorder.replay.playback import QueryStep, tokens
from recorder.server.batched_queries import BatchedQueries, QueryBatches
from recorder.server.piece import Piece, pieces_of
from recorder.storage.reader import DatabaseReader, RecordedRun

log = logging.getLogger("recorder")

#: The pieces that are held of one run (estimated bytes), beside the newest one.
WINDOW_BYTES = 4 * 2**20
#: How many stored tokens are read into the window at first.
_STORED_TOKENS = 5_000


class Waker(Protocol):
    """Somebody who waits for a piece."""

    def wake(self) -> None:
        """There may be a new one."""


class LiveRun:
    """The newest pieces of a run. All methods are called on one event loop."""

    def __init__(self, run: RecordedRun, batches: QueryBatches) -> None:
        self.run = run
        self._followers: set[Waker] = set()
        # When the last follower left (`time.monotonic`); None while there are some.
        self._alone_since: float | None = None
        #: Why no more pieces come, if the database failed.
        self.failure: Exception | None = None
        self._batches = batches
        self._pieces: list[Piece] = []
        #: How many pieces have left the window, and the bytes of those in it.
        self.dropped = 0
        self._bytes = 0
        #: The number of the token with which the playback begins.
        self._edge = 0
        self._has_begun = asyncio.Event()
        self._playing = asyncio.create_task(self._play())

    @property
    def first(self) -> int:
        """The number of the first token that the window has, or will have."""
        return self._pieces[0].start if self._pieces else self._edge

    @property
    def is_over(self) -> bool:
        """Whether no more pieces come."""
        return self._playing.done()

    async def begun(self) -> None:
        """Wait until `first` is known. Raises what the database raised."""
        await self._has_begun.wait()
        if self.failure is not None:
            raise self.failure

    def place_of(self, next: int) -> int:
        """The place of the first piece that has token `next` or a later one; the place behind the last one if none."""
        for place, piece in enumerate(self._pieces, self.dropped):
            if piece.next > next or piece.is_end:
                return place
        return self.dropped + len(self._pieces)

    def piece(self, place: int) -> Piece | None:
        """The piece with this place, counted from the first of all; None if it has not come yet."""
        index = place - self.dropped
        return self._pieces[index] if index < len(self._pieces) else None

    def join(self, follower: Waker) -> None:
        """Wake a follower for each piece from now on."""
        self._followers.add(follower)
        self._alone_since = None

    def leave(self, follower: Waker) -> None:
        """A follower needs no more pieces."""
        self._followers.discard(follower)
        if not self._followers and self._alone_since is None:
            self._alone_since = time.monotonic()

    def alone_for(self, moment: float) -> float:
        """For how long nobody has followed (seconds)."""
        return 0.0 if self._alone_since is None else moment - self._alone_since

    def stop(self) -> None:
        """Play no more."""
        self._playing.cancel()

    async def _play(self) -> None:
        self._batches.know(self.run)
        try:
            stored = await self._batches.read(QueryStep(DatabaseReader.tokens_end, self.run.id))
            self._edge = max(0, stored - _STORED_TOKENS)
            options = Options(speed=None, start=self._edge or None, follow=True)
            playback = tokens(self.run, options)
            steps = asteps(BatchedQueries(self._batches, playback, options, owner=self), playback)
            async with aclosing(steps):
                self._has_begun.set()
                async for piece in pieces_of(self.run.id, steps, self._edge):
                    self._append(piece)
        except Exception as error:  # the readers raise it
            is_bug = not isinstance(error, RecorderError)
            log.warning("Run %s can no longer be followed: %s", self.run.id, error, exc_info=is_bug)
            self.failure = error
        finally:
            self._batches.forget(self.run)
            self._has_begun.set()
            self._wake_all()

    def _append(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._bytes += piece.size
        old = 0
        while self._bytes > WINDOW_BYTES and old < len(self._pieces) - 1:
            self._bytes -= self._pieces[old].size
            old += 1
        del self._pieces[:old]
        self.dropped += old
        self._wake_all()

    def _wake_all(self) -> None:
        for follower in self._followers:
            follower.wake()
