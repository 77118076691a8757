"""Estimates the usage of runs that the provider left silent, while nothing else is to be stored.

The writer calls `advance` when its queue is empty. Reading a run and storing the result are short and use the writer's
connection. The tokens are counted on another thread, because a megabyte takes tiktoken a tenth of a second: the writer
goes on meanwhile, and no commit waits for a count. `RecordingListener`s see the run before it is estimated.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from recorder.core.deadline import seconds
from recorder.core.late_imports import late_imports
from recorder.costs.missing_usage import needs_estimate
from recorder.storage.batch import RunRows
from recorder.storage.rows import STREAMING

if TYPE_CHECKING:
    from recorder.costs.usage_estimate import Estimate, StoredExchange

log = logging.getLogger("recorder")

#: So many runs wait at most. More end without an estimate, and `recorder stats --cost --fill` makes it.
_MOST_WAITING = 1_000
#: So many runs are read, counted and stored together, fewer if the writer has something to store.
_AT_ONCE = 50
#: The pause after reading or storing, as a multiple of the time that it took: a sixth of one thread is used at most.
_PAUSE = 5
#: A longer answer is counted alone (characters).
_LONG = 100_000
#: How long the estimates of the last runs may delay the end of the recorder (seconds).
_AT_THE_END = 2.0


class WaitingRun(NamedTuple):
    """A run that is stored and waits for its estimate."""

    run_id: str
    conversation_id: str
    #: Whose prices hold, and the service tier of the response.
    host: str | None
    tier: str | None


class LiveEstimates:
    """The runs of this process that wait for an estimate. Its methods are called on the writer's thread."""

    def __init__(
        self, store: Any, host_of: Callable[[str | None], str | None], *, is_on: bool, is_busy: Callable[[], bool],
        wake: Callable[[], None], stored: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        """`is_busy` is whether the writer has something to store, and `wake` wakes it. `stored` gets the conversation
        and the run of each estimate."""
        self._store = store
        self._host_of = host_of
        self._is_on = is_on
        self._is_busy = is_busy
        self._wake = wake
        self._stored = stored
        self._waiting: deque[WaitingRun] = deque()
        self._counting: asyncio.Future[list[Estimate | Exception]] | None = None
        self._next_at = 0.0
        # The runs that are counted, by id.
        self._current: dict[str, WaitingRun] = {}
        #: Runs that were estimated, that found no room here, and whose estimate failed.
        self.estimated = self.skipped = self.failed = 0

    def add(self, parts: Sequence[RunRows]) -> None:
        """These runs are stored: remember those that need an estimate."""
        for rows in parts if self._is_on else ():
            start, seal = rows.start, rows.seal
            if seal is None or seal.end.status == STREAMING or start.is_step:
                continue
            if not needs_estimate(start.wire, seal.end):
                continue
            if len(self._waiting) >= _MOST_WAITING:
                self.skipped += 1
            else:
                run = WaitingRun(
                    start.run_id, start.conversation_id, self._host_of(start.host), seal.end.service_tier
                )
                self._waiting.append(run)

    @property
    def not_estimated(self) -> int:
        """How many runs ended without the estimate that they need."""
        return self.skipped + self.failed

    @property
    def delay(self) -> float:
        """Seconds until `advance` is to be called; infinite without work. Most of the time is left to others."""
        if not (self._waiting if self._counting is None else self._counting.done()):
            return inf
        return max(0.0, self._next_at - seconds())

    async def advance(self) -> None:
        """Read the next runs, or store the counts of the last ones. What it raises is counted and ends the estimate."""
        counting, self._counting = self._counting, None
        began = seconds()
        try:
            if counting is None:
                await self._begin()
            else:
                await self._end(counting.result())
        except BaseException as error:
            self._report(error, max(1, len(self._current)))
            if not isinstance(error, Exception):  # cancelled when the time to close was over
                raise
        self._next_at = seconds() + _PAUSE * (seconds() - began)

    async def finish(self, is_over: Callable[[], bool]) -> None:
        """Estimate what waits, for some seconds at most, and not after the time to close is over."""
        over = seconds() + _AT_THE_END
        while (self._waiting or self._counting is not None) and seconds() < over and not is_over():
            if self._counting is not None and not self._counting.done():
                await asyncio.wait({self._counting}, timeout=min(0.1, over - seconds()))
            else:
                await self.advance()

    def give_up(self) -> None:
        """Count what has no estimate. What is counted on the other thread is not waited for any more."""
        self.skipped += len(self._waiting)
        self._waiting.clear()
        if self._counting is not None:
            self.skipped += len(self._current)
            self._counting.cancel()
            self._counting = None

    async def _begin(self) -> None:
        """Read some runs, and count on another thread."""
        with late_imports():
            from recorder.costs.usage_estimate import estimate_all, exchange_of, is_known
            from recorder.storage.reader import DatabaseReader

        self._current = {}
        store = self._sql_store()
        if store is None:  # a store of the application's own, or in memory
            self._waiting.clear()
            return
        reader = DatabaseReader(store)
        found: list[tuple[StoredExchange, str | None, str | None]] = []
        while self._waiting and len(found) < _AT_ONCE and not (found and self._is_busy()):
            run = self._waiting.popleft()
            self._current[run.run_id] = run
            exchange = await exchange_of(reader, await reader.run(run.run_id))
            if not is_known(exchange):
                del self._current[run.run_id]
                self.skipped += 1
                continue
            found.append((exchange, run.host, run.tier))
            if len(exchange.generated) > _LONG:
                break
        self._counting = asyncio.get_running_loop().run_in_executor(None, estimate_all, found)
        self._counting.add_done_callback(lambda _: self._wake())

    async def _end(self, found: list[Estimate | Exception]) -> None:
        with late_imports():
            from recorder.costs.usage_estimate import store_estimates

        estimates = [each for each in found if not isinstance(each, Exception)]
        stored = await store_estimates(self._sql_store(), estimates)
        for error in found:
            if isinstance(error, Exception):
                self._report(error, 1)
        self.estimated += len(stored)
        for run_id in stored:
            self._stored(self._current[run_id].conversation_id, run_id)

    def _sql_store(self) -> Any:
        """The store with a database, once it is open; None for another one."""
        store = getattr(self._store, "loaded", self._store)
        return store if hasattr(store, "fetch") and hasattr(store, "transaction") else None

    def _report(self, error: BaseException, runs: int) -> None:
        is_first = not self.failed
        self.failed += runs
        if is_first:
            log.warning(
                "The usage of a run could not be estimated (%s: %s); `recorder stats --cost --fill` tries again",
                type(error).__name__,
                error,
            )
