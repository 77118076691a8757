"""Plays each live run once for all of its readers in this process, on one event loop."""

from __future__ import annotations

import asyncio
import time
from typing import Literal, Protocol

from recorder.replay.reader_thread import ReaderThread
from recorder.server.batched_queries import QueryBatches
from recorder.server.live_run import LiveRun
from recorder.server.paced import HEARTBEAT
from recorder.storage.reader import RecordedRun

#: Why a reader ends before its run: its client left, the server shuts down, or the client does not read.
Reason = Literal["left", "shutdown", "stalled"]

#: A reader that has not accepted a piece for so long is dropped (seconds).
STALLED_AFTER = 30.0
#: A live run is played for so long without readers, for those that come back (seconds).
_LINGERS = 5.0
#: How often readers are looked at (seconds).
_TICK = 1.0


class HubReader(Protocol):
    """A reader of one run; `recorder.server.follower` has the only one."""

    run: RecordedRun
    #: When the piece that is being sent was handed over (`time.monotonic`); None between two pieces.
    sending_since: float | None
    #: When the last piece or heartbeat was sent.
    sent_at: float

    def wake(self) -> None:
        """There may be a new piece, or a heartbeat is due."""

    def end(self, reason: Reason) -> None:
        """Read no more."""


class Hub:
    """The live runs and the readers of this process."""

    def __init__(self, reader: ReaderThread, pages: ReaderThread) -> None:
        #: Follows live runs.
        self.reader = reader
        #: Reads stored pages for readers that are late, and runs that have ended.
        self.pages = pages
        self._live: dict[str, LiveRun] = {}
        self._batches = QueryBatches(reader)
        self._followers: set[HubReader] = set()
        self._ticking: asyncio.Task[None] | None = None
        #: Whether no readers are accepted any more.
        self.is_draining = False

    @property
    def followers(self) -> int:
        """How many readers there are."""
        return len(self._followers)

    @property
    def stall(self) -> float:
        """For how long the slowest reader has not accepted a piece (seconds)."""
        began = [each.sending_since for each in self._followers if each.sending_since is not None]
        return time.monotonic() - min(began) if began else 0.0

    def add(self, follower: HubReader) -> None:
        """One more reader."""
        self._followers.add(follower)
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick())
        if self.is_draining:
            follower.end("shutdown")

    def remove(self, follower: HubReader) -> None:
        """A reader has ended."""
        self._followers.discard(follower)
        if (live := self._live.get(follower.run.id)) is not None:
            live.leave(follower)

    async def follow(self, follower: HubReader) -> LiveRun:
        """The live run of a reader, once it plays. Raises what the database raises."""
        live = self._live.get(follower.run.id)
        if live is None or live.is_over:
            # Readers of one that is over have its last pieces to send; they hold it.
            live = self._live[follower.run.id] = LiveRun(follower.run, self._batches)
        live.join(follower)
        await live.begun()
        return live

    def is_heartbeat_due(self, follower: HubReader) -> bool:
        """Whether nothing was sent to a reader for long."""
        return time.monotonic() - follower.sent_at >= HEARTBEAT

    def drain(self) -> None:
        """End all readers now, and accept no more. They come back with their cursors, to another process."""
        self.is_draining = True
        for follower in list(self._followers):
            follower.end("shutdown")

    async def _tick(self) -> None:
        """Wake readers for their heartbeats, drop those that do not read, and stop runs that nobody follows."""
        while self._followers or self._live:
            await asyncio.sleep(_TICK)
            moment = time.monotonic()
            for follower in list(self._followers):
                since = follower.sending_since
                if since is not None and moment - since > STALLED_AFTER:
                    follower.end("stalled")
                elif self.is_heartbeat_due(follower):
                    follower.wake()
            for id, live in list(self._live.items()):
                if live.is_over or live.alone_for(moment) > (0 if self.is_draining else _LINGERS):
                    live.stop()
                    del self._live[id]
        self._ticking = None
