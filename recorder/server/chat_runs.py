"""The runs that clients of this server have started. They go on when their readers leave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from uuid import UUID
from weakref import WeakMethod, WeakValueDictionary

from recorder.errors import Closed, StoreError
from recorder.memory.branch_reader import BranchReader
from recorder.memory.conversation_memory import answered_messages
from recorder.messages import BaseMessage
from recorder.server.chat_models import ServedModel
from recorder.server.configuration import ChatTable, nearest
from recorder.server.database import ServedDatabase
from recorder.server.problem import ProblemError
from recorder.server.served_run import ServedRun
from recorder.server.stop_watch import StopWatch

log = logging.getLogger("recorder")

#: Seconds that a cancelled run may take to end.
_CUT_WITHIN = 2.0


class ChatRuns:
    """The models of a server, and the runs of them that are under way in this process."""

    def __init__(
        self, database: ServedDatabase, models: Iterable[ServedModel] = (), limits: ChatTable | None = None
    ) -> None:
        self.database = database
        self.models = {each.name: each for each in models}
        self.limits = limits or ChatTable()
        self._runs: dict[UUID, ServedRun] = {}
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self._stops = StopWatch(database)
        self._is_draining = False
        self._branches: BranchReader | None = None
        database.on_close.append(WeakMethod(self.cancel_all))

    @property
    def under_way(self) -> int:
        """How many runs there are."""
        return len(self._runs)

    def model(self, name: str) -> ServedModel:
        """A model by its name. Raises `ProblemError`."""
        if (found := self.models.get(name)) is None:
            raise ProblemError(
                422, f"body.model: There is no model {name!r:.200}; {nearest(name, [*self.models])}"
            )
        return found

    def find(self, run_id: UUID) -> ServedRun | None:
        """A run under way by its id."""
        return self._runs.get(run_id)

    def lock(self, run_id: UUID) -> asyncio.Lock:
        """Repetitions of one request wait for each other."""
        found = self._locks.get(run_id)
        if found is None:
            found = self._locks[run_id] = asyncio.Lock()
        return found

    async def start(self, run: ServedRun) -> None:
        """Call the model on a task of its own.

        Raises `ProblemError` beyond a limit, `Closed` while draining, and `StoreError` while nothing can be stored.
        """
        history = await self.database.recording()
        if not (stats := history.stats()).healthy:
            raise StoreError(f"Nothing can be recorded now, so no model is called: {stats.last_error}")
        self._check_limits(run)
        self._runs[run.run_id] = run
        run.task = asyncio.create_task(run.call(history))
        run.task.add_done_callback(lambda _: self._forget(run))
        self._stops.add(str(run.run_id), run.cancel)

    async def earlier(self, run: ServedRun) -> list[BaseMessage]:
        """The messages of the conversation that are sent again. Raises what the database raises."""
        history, memory = await self.database.recording(), run.model.memory
        if self._branches is None or self._branches.history is not history:
            self._branches = BranchReader(history)
        found = await self._branches.aread(run.conversation_id, run.user_id, answered_messages, memory.tail)
        return memory.bounded(found, run.model.llm)

    async def drain(self) -> None:
        """Accept no more runs. Wait for those under way, then cut the rest and wait until they have ended."""
        self._is_draining = True
        tasks = {run.task for run in self._runs.values() if run.task is not None}
        if not tasks:
            return
        _, left = await asyncio.wait(tasks, timeout=self.limits.drain_within)
        for task in left:
            task.cancel()
        if left:
            log.warning("%d runs were cut because the server ends; what had come is stored", len(left))
            await asyncio.wait(left, timeout=_CUT_WITHIN)

    def cancel_all(self) -> None:
        """Cut all runs and accept no more; any thread may call this."""
        self._is_draining = True
        for run in list(self._runs.values()):
            run.cancel()

    def _forget(self, run: ServedRun) -> None:
        self._runs.pop(run.run_id, None)
        self._stops.remove(str(run.run_id))

    def _check_limits(self, run: ServedRun) -> None:
        if self._is_draining:
            raise Closed("This server ends; send the request again, to another process")
        runs = self._runs.values()
        counts = [
            ("this server", len(runs), self.limits.max_runs),
            ("this model", sum(each.model is run.model for each in runs), run.model.max_runs),
        ]
        if run.user_id is not None:
            of_user = sum(each.user_id == run.user_id for each in runs)
            counts.append(("this user", of_user, self.limits.max_runs_per_user))
        for scope, count, limit in counts:
            if count >= limit:
                detail = (
                    f"{count} runs of {scope} are under way, which is the limit; send the request again later"
                )
                raise ProblemError(429, detail, {"retry-after": "1"})
