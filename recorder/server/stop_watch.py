"""Looks for requests to stop the runs of this process, with one query for all of them, and only while there are any."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from recorder.errors import RecorderError
from recorder.server.database import ServedDatabase
from recorder.storage.stop_requests import runs_to_stop

log = logging.getLogger("recorder")

#: Seconds between two queries. A run is stopped about a second after the request, with the time of the query.
_INTERVAL = 0.5


class StopWatch:
    """The runs of this process that others may stop."""

    def __init__(self, database: ServedDatabase) -> None:
        self._database = database
        #: Run -> the function that leaves its provider.
        self._runs: dict[str, Callable[[], None]] = {}
        self._watching: asyncio.Task[None] | None = None

    def add(self, run_id: str, cancel: Callable[[], None]) -> None:
        """Call `cancel` once somebody wants to stop this run."""
        self._runs[run_id] = cancel
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())

    def remove(self, run_id: str) -> None:
        """The run has ended."""
        self._runs.pop(run_id, None)

    async def _watch(self) -> None:
        is_away = False
        while self._runs:
            await asyncio.sleep(_INTERVAL)
            try:
                await self._look()
                is_away = False
            except Exception as error:  # the runs go on, and are looked for again
                if not is_away:
                    is_bug = not isinstance(error, RecorderError)
                    log.warning("Requests to stop runs cannot be read now: %s", error, exc_info=is_bug)
                is_away = True

    async def _look(self) -> None:
        for run_id in await self._database.ask(runs_to_stop, list(self._runs)):
            if (cancel := self._runs.pop(run_id, None)) is not None:
                cancel()
