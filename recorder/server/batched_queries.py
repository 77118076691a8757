"""The queries of all live runs of a hub, sent together: each commit wakes all of them, and they ask for the same.

One query for each run and commit would take more than a core for two hundred runs.
"""

from __future__ import annotations

import asyncio
from typing import Any

from recorder.replay.driver import StepQueries, to_its_end
from recorder.replay.pace import Options
from recorder.replay.playback import Playback, QueryStep, WaitStep
from recorder.replay.reader_thread import ReaderThread
from recorder.storage.many_runs import RunRead, read_many
from recorder.storage.reader import RecordedRun


class QueryBatches:
    """Collects reads while others are under way, and sends them together. Belongs to one event loop."""

    def __init__(self, reader: ReaderThread) -> None:
        self.reader = reader
        self._pending: list[tuple[RunRead, asyncio.Future[Any]]] = []
        self._sending: asyncio.Task[None] | None = None
        self._waits: dict[int, asyncio.Task[int]] = {}
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
        """The first version of the database after this one, as soon as there is one."""
        if self.reader.version != version:
            return self.reader.version
        wait = self._waits.get(version)
        if wait is None:
            wait = self._waits[version] = asyncio.create_task(to_its_end(self.reader.after(version)))
            wait.add_done_callback(lambda done: self._end_wait(version, done))
        return await asyncio.shield(wait)

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
