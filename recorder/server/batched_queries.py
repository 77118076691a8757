"""The queries of all live runs of a hub, sent together: each commit wakes all of them, and they ask for the same.

One query for each run and commit would take more than a core for two hundred runs.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from recorder.replay.driver import StepQueries, to_its_end
from recorder.replay.pace import Options
from recorder.replay.playback import Playback, QueryStep, WaitStep
from recorder.replay.reader_thread import ReaderThread
from recorder.storage.many_runs import RunRead, read_many
from recorder.storage.reader import RecordedRun

#: The longest pause between two looks at the database (seconds): what readers wait for at most, beside the commit.
_LONGEST_PAUSE = 0.25


class Rounds:
    """Limits how often the live runs look at the database: the event loop has half of its time for others.

    A round is a look at the database and everything that it leads to: pieces, and writes to their readers. While it
    takes long, the tokens of several commits are sent together, so thousands of readers take fewer and larger writes.
    """

    def __init__(self) -> None:
        self._began = self._used = 0.0
        self._opening: asyncio.Task[None] | None = None

    async def next(self) -> None:
        """Wait until the next round may begin. All who wait at the same time share it."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        await asyncio.shield(self._opening)

    def begin(self, moment: float, used: float) -> None:
        """A round begins now. `used` is the processor time of the thread so far (seconds, as `moment`)."""
        self._began, self._used = moment, used

    def pause(self, moment: float, used: float) -> float:
        """Seconds until the next round may begin."""
        return max(0.0, self._began + min(_LONGEST_PAUSE, 2 * (used - self._used)) - moment)

    async def _open(self) -> None:
        await asyncio.sleep(self.pause(time.monotonic(), time.thread_time()))
        self.begin(time.monotonic(), time.thread_time())
        self._opening = None


class QueryBatches:
    """Collects reads while others are under way, and sends them together. Belongs to one event loop."""

    def __init__(self, reader: ReaderThread) -> None:
        self.reader = reader
        self._pending: list[tuple[RunRead, asyncio.Future[Any]]] = []
        self._sending: asyncio.Task[None] | None = None
        self._waits: dict[int, asyncio.Task[int]] = {}
        self._rounds = Rounds()
        #: The live runs as they were read last.
        self._known: dict[str, RecordedRun] = {}

    async def read(self, step: QueryStep) -> Any:
        """The result of a query of one run."""
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending.append((RunRead(step.method, step.arguments), result))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())
        return await result

    def know(self, run: RecordedRun) -> None:
        """Read this run again only when it streams no more."""
        self._known[run.id] = run

    def forget(self, run: RecordedRun) -> None:
        """This run is played no more."""
        self._known.pop(run.id, None)

    async def after(self, version: int) -> int:
        """A version of the database after this one, soon after there is one. All who wait for it share the wait."""
        wait = self._waits.get(version)
        if wait is None:
            wait = self._waits[version] = asyncio.create_task(self._after(version))
            wait.add_done_callback(lambda done: self._end_wait(version, done))
        return await asyncio.shield(wait)

    async def _after(self, version: int) -> int:
        if self.reader.version == version:
            await to_its_end(self.reader.after(version))
        await self._rounds.next()
        return self.reader.version

    def _end_wait(self, version: int, wait: asyncio.Task[int]) -> None:
        del self._waits[version]
        if not wait.cancelled():
            wait.exception()  # mark it as retrieved: those who waited may have gone

    async def _send(self) -> None:
        """Send what was collected until nothing is left."""
        try:
            while self._pending:
                batch, self._pending = self._pending, []
                try:
                    found = await to_its_end(
                        self.reader.ask(read_many, [read for read, _ in batch], dict(self._known))
                    )
                except Exception as error:
                    found = [error] * len(batch)
                for (_, result), value in zip(batch, found, strict=True):
                    _settle(result, value)
        finally:
            self._sending = None
            for _, result in self._pending:
                result.cancel()


class BatchedQueries(StepQueries):
    """The queries of one playback that follows a live run."""

    def __init__(self, batches: QueryBatches, playback: Playback, options: Options, *, owner: object) -> None:
        super().__init__(batches.reader, playback, options, owner=owner)
        self._batches = batches

    async def answer(self, step: QueryStep | WaitStep) -> Any:
        """As `StepQueries.answer`."""
        if isinstance(step, WaitStep):
            return self.on_answer(step, await self._batches.after(self._version))
        return await self._batches.read(step)


def _settle(result: asyncio.Future[Any], value: Any) -> None:
    if result.done():  # its run is played no more
        return
    if isinstance(value, Exception):
        result.set_exception(value)
    else:
        result.set_result(value)
