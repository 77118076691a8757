"""Watches the budgets: after each commit, a thread of its own reads what was spent and calls the application.

Recording never waits for it. The thread has a connection of its own, which only reads, and each call of the function
has a thread, too, so that a function that hangs holds up neither the recorder nor the next sum.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from recorder.core.clock import now
from recorder.core.deadline import seconds
from recorder.core.late_imports import late_imports
from recorder.core.waitable import Wait
from recorder.costs.budgets import CONVERSATION, Budget, BudgetEvent, OnBudget
from recorder.storage.batch import Part, RunRows
from recorder.storage.rows import STREAMING, RunStart

if TYPE_CHECKING:
    from recorder.costs.spending import Spending

log = logging.getLogger("recorder")

#: So many runs wait at most for their sums; a sum has all runs, so only their order is lost with more.
_MOST_WAITING = 10_000
#: So many reports are remembered. For later runs the database tells that the limit was passed before.
_MOST_PASSED = 100_000
#: How long a call of the application may take until the next one does not wait for it (seconds).
_CALL_TIMEOUT = 10.0
#: So many calls may hang; no more are made then.
_MOST_HANGING = 4
#: How long `close` waits for calls that are made then (seconds).
_GRACE = 2.0
#: How long the thread sleeps between two looks at a call (seconds).
_JOIN = 0.1
#: The runs of one query.
_RUNS_A_QUERY = 500
#: The pause after a sum that could not be read, its limit after several, and its limit while the recorder closes
#: (seconds).
_RETRY, _MOST_RETRY, _CLOSING_RETRY = 0.5, 30.0, 0.2
#: How long the thread waits for work until it ends (seconds).
_IDLE = 5.0


class BudgetWatch:
    """A `RecordingListener` that calls a function when a limit is passed. Any thread may read its counts."""

    def __init__(self, url: str, budgets: Sequence[Budget], on_budget: OnBudget) -> None:
        self._url = url
        self._budgets = budgets
        self._on_budget = on_budget
        # When each limit was reported.
        self._passed: OrderedDict[tuple[Budget, str], datetime] = OrderedDict()
        self._reset()

    def _reset(self) -> None:
        #: Calls that were made, that raised or hung, and that were not made because too many hang.
        self.calls = self.failed_calls = self.dropped_calls = 0
        #: How often the sums could not be read.
        self.failed_reads = 0
        self._changed = threading.Condition(threading.Lock())
        # The runs whose conversations are to be summed up, in the order of their commits.
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._thread: threading.Thread | None = None
        self._hanging: set[threading.Thread] = set()
        # Reads that failed one after the other.
        self._failures = 0
        self._closed = False
        self._ended: Wait[None] = Wait()
        self._close_at = inf

    @property
    def errors(self) -> int:
        """What went wrong: calls that raised, hung or were not made, and sums that could not be read."""
        return self.failed_calls + self.dropped_calls + self.failed_reads

    # -- a listener's methods --------------------------------------------------------------------------------------

    def begun(self, start: RunStart) -> None:
        """Nothing is known of the cost yet."""

    def committed(self, parts: Sequence[Part]) -> None:
        """Sum up what these runs belong to, soon and elsewhere."""
        for part in parts:
            seal = part.seal if isinstance(part, RunRows) else None
            if seal is not None and seal.cost is not None and seal.end.status != STREAMING:
                self._add(part.start.run_id)  # type: ignore[union-attr]  # it has a seal

    def estimated(self, conversation_id: str, run_id: str) -> None:
        """A run got its cost after its commit."""
        self._add(run_id)

    def finish(self, seconds_left: float) -> Wait[None] | None:
        """Read the last sums and make the calls, within so many seconds and `_GRACE`. Returns what ends with them."""
        with self._changed:
            self._closed = True
            self._close_at = seconds() + min(seconds_left, _GRACE)
            self._changed.notify_all()
            return self._ended if self._thread is not None else None

    def end(self) -> None:
        """Read no more sums, and wait for no call."""
        self._closed, self._close_at = True, 0.0

    def reset_in_child(self) -> None:
        """The thread and what it waits for are the parent's."""
        self._reset()

    # -- the thread ------------------------------------------------------------------------------------------------

    def _add(self, run_id: str) -> None:
        with self._changed:
            if self._closed:
                return
            self._waiting[run_id] = None
            if len(self._waiting) > _MOST_WAITING:
                self._waiting.popitem(last=False)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = self._started(self._work, "recorder-budgets")

    def _started(self, work: Callable[[], None], name: str) -> threading.Thread | None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter ends
            log.warning("Budgets are not watched now: %s", error)
            return None
        return thread

    def _work(self) -> None:
        """Read sums until there has been nothing to do for a while."""
        database: Any = None
        try:
            while run_ids := self._next():
                events: list[BudgetEvent] = []
                try:
                    database = database or self._opened()
                    database.run(self._find(database.store, run_ids, events))
                    self._failures = 0
                except Exception as error:
                    self._report_read(error)
                    _close(database)
                    database = None
                    self._try_again_later(run_ids)
                for event in events:
                    self._call(event)
        finally:
            _close(database)
            if self._closed:
                self._ended.set(None)

    def _opened(self) -> Any:
        with late_imports():
            from recorder.storage.blocking import BlockingStore

        return BlockingStore(self._url, read_only=True)

    def _next(self) -> list[str]:
        """The next runs; empty if the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, _IDLE)
            if self._close_at <= 0 and self._waiting:
                self._leave_out_waiting()
            found = list(self._waiting)[:_RUNS_A_QUERY]
            for run_id in found:
                del self._waiting[run_id]
            if not found:
                self._thread = None
            return found

    def _try_again_later(self, run_ids: Sequence[str]) -> None:
        """The database is away: wait. A limit that these runs have passed is not found by later ones."""
        with self._changed:
            for run_id in reversed(run_ids):
                self._waiting[run_id] = None
                self._waiting.move_to_end(run_id, last=False)
            if seconds() >= self._close_at:
                self._leave_out_waiting()
                return
            was_closed = self._closed
            pause = min(_RETRY * 2**self._failures, _CLOSING_RETRY if was_closed else _MOST_RETRY)
            self._failures = min(self._failures + 1, 10)
            self._changed.wait_for(lambda: self._closed is not was_closed, pause)

    def _leave_out_waiting(self) -> None:
        """The recorder has ended, and nobody waits for these sums."""
        log.warning("The recorder closed before the costs of %d runs were summed up", len(self._waiting))
        self.failed_reads += 1
        self._waiting.clear()

    async def _find(self, store: Any, run_ids: Sequence[str], found: list[BudgetEvent]) -> None:
        """Append the budgets that were passed by these runs and not before. What was found before an error counts."""
        with late_imports():
            from recorder.costs.spending import committed_runs, spending

        # One sum for all runs of a conversation or user: the time of the first, and the id of the last one.
        latest: dict[tuple[Budget, str], tuple[datetime, str, str]] = {}
        for run in await committed_runs(store, run_ids):
            for budget in self._budgets:
                key = run.conversation_id if budget.per == CONVERSATION else run.user_id
                if key is not None:
                    began = latest.get((budget, key), (run.started_at, "", ""))[0]
                    latest[budget, key] = min(began, run.started_at), run.run_id, run.conversation_id
        for (budget, key), (began, run_id, conversation_id) in latest.items():
            sums = await spending(store, budget, key, began, now())
            if self._is_passed_now((budget, key), sums, began):
                found.append(BudgetEvent(budget, key, sums.now, run_id, conversation_id))

    def _is_passed_now(self, place: tuple[Budget, str], sums: Spending, began: datetime) -> bool:
        """Whether the limit was passed since `began`, and that was not reported.

        Runs at the same time began before the report. With `within`, a later run may pass the limit again.
        """
        limit = place[0].limit
        if sums.now < limit:
            self._passed.pop(place, None)
            return False
        reported_at = self._passed.get(place)
        if sums.before >= limit or (reported_at is not None and began <= reported_at):
            return False
        self._passed[place] = now()
        self._passed.move_to_end(place)
        if len(self._passed) > _MOST_PASSED:
            self._passed.popitem(last=False)
        return True

    # -- the application's function --------------------------------------------------------------------------------

    def _call(self, event: BudgetEvent) -> None:
        """Call the function on a thread of its own, and wait for some seconds."""
        self._hanging = {thread for thread in self._hanging if thread.is_alive()}
        if len(self._hanging) >= _MOST_HANGING:
            self.dropped_calls += 1
            log.error("on_budget hangs in %d calls; it is not called for %s", _MOST_HANGING, event)
            return
        self.calls += 1
        thread = self._started(partial(self._run, event), "recorder-on-budget")
        if thread is None:
            self.dropped_calls += 1
            return
        began = seconds()
        # Also after the time to close: a function that returns at once does not hang.
        while thread.is_alive() and seconds() < max(
            began + _JOIN, min(began + _CALL_TIMEOUT, self._close_at)
        ):
            thread.join(_JOIN)
        if thread.is_alive():
            self.failed_calls += 1
            self._hanging.add(thread)
            log.error("on_budget has not returned in time and is left alone: %s", event)

    def _run(self, event: BudgetEvent) -> None:
        try:
            found = self._on_budget(event)
            if inspect.isawaitable(found):
                asyncio.run(_awaited(found))
        except Exception:
            self.failed_calls += 1
            if self.failed_calls == 1:
                log.exception(
                    "on_budget raised an error; recording goes on, and it is called for the next limit"
                )

    def _report_read(self, error: Exception) -> None:
        self.failed_reads += 1
        if self.failed_reads == 1:
            log.warning("Budgets cannot be read (%s: %s); it is tried again", type(error).__name__, error)


async def _awaited(found: Any) -> None:
    await asyncio.wait_for(found, _CALL_TIMEOUT)


def _close(database: Any) -> None:
    if database is not None:
        try:
            database.close()
        except Exception as error:  # the connection is broken, and nobody waits for it
            log.debug("The connection of the budgets was not closed in order: %s", error)
