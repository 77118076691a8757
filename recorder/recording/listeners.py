"""Calls other parts of recorder with what was recorded: analyzers, budgets and exporters stand behind it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, runtime_checkable

from recorder.config import Config
from recorder.core.deadline import Deadline
from recorder.core.waitable import Wait
from recorder.costs.budget_watch import BudgetWatch
from recorder.costs.budgets import checked_budgets
from recorder.errors import ConfigError
from recorder.recording.queue import RecordingQueue
from recorder.storage.batch import Part
from recorder.storage.rows import RunStart

log = logging.getLogger("recorder")

#: The part of the time to close that is left for storing what listeners add last, and its limit (seconds).
_RESERVE, _MAX_RESERVE = 0.2, 1.0
#: How often the writer looks whether listeners have added something while it waits for their end (seconds).
_SLICE = 0.05


class RecordingListener(Protocol):
    """Gets every run that begins and everything that is committed. Its methods must return at once.

    What they raise is logged once for each listener and counted. It never reaches the application or the writer.

    A listener may have `estimated(conversation_id, run_id)`. It is called on the writer's thread when the usage of a
    run was estimated after its commit.
    """

    def begun(self, start: RunStart) -> None:
        """A run begins. Called in the context and on the thread of the model's call, or of its first event."""

    def committed(self, parts: Sequence[Part]) -> None:
        """One transaction has stored these parts. Called on the writer's thread; the parts must not be changed."""

    def reset_in_child(self) -> None:
        """The process is a forked child: what the parent does must not be done here as well. Takes no lock."""


@runtime_checkable
class FinishingListener(Protocol):
    """A listener that works for some time after the last commit. It may add annotations then."""

    def finish(self, seconds_left: float) -> Wait[None] | None:
        """Everything is committed. Returns what ends after the last annotation was added, within so many seconds; None
        if there is nothing to wait for. Called on the writer's thread."""

    def end(self) -> None:
        """Nothing is stored any more: everything that runs must end. May be called more than once, on any thread, and
        without `finish`. Takes no lock."""


class Listeners:
    """The listeners of a recorder. With none, recording does no more than check that the list is empty."""

    def __init__(self) -> None:
        self._all: tuple[RecordingListener, ...] = ()
        self._failed: set[int] = set()
        self._errors = 0

    def __bool__(self) -> bool:
        return bool(self._all)

    @property
    def errors(self) -> int:
        """How many of their calls raised, and what went wrong in themselves, if they count it as `errors`."""
        return self._errors + sum(getattr(each, "errors", 0) for each in self._all)

    def add(self, listener: RecordingListener) -> None:
        """From now on, call this one too."""
        self._all = (*self._all, listener)

    def remove(self, listener: RecordingListener) -> None:
        """Call this one no more."""
        self._all = tuple(each for each in self._all if each is not listener)

    def begun(self, start: RunStart) -> None:
        """A run begins."""
        for each in self._all:
            self._call(each, each.begun, start)

    def committed(self, parts: Sequence[Part]) -> None:
        """One transaction has stored these parts."""
        for each in self._all:
            self._call(each, each.committed, parts)

    def estimated(self, conversation_id: str, run_id: str) -> None:
        """The usage of a stored run was estimated. For listeners that have this method."""
        for each in self._all:
            if (method := getattr(each, "estimated", None)) is not None:
                self._call(each, method, conversation_id, run_id)

    def finish(self, seconds_left: float) -> list[Wait[None]]:
        """Everything is committed. Returns what to wait for."""
        waits = [self._call(each, each.finish, seconds_left) for each in self._finishing()]
        return [wait for wait in waits if wait is not None]

    def end(self) -> None:
        """Nothing is stored any more."""
        for each in self._finishing():
            self._call(each, each.end)

    def _finishing(self) -> list[FinishingListener]:
        return [each for each in self._all if isinstance(each, FinishingListener)]

    def reset_in_child(self) -> None:
        """The process is a forked child, which counts its own errors."""
        self._errors = 0
        for each in self._all:
            self._call(each, each.reset_in_child)

    def _call(self, listener: object, method: Callable[..., Any], *given: Any) -> Any:
        try:
            return method(*given)
        except Exception:
            self._errors += 1
            if id(listener) not in self._failed:
                self._failed.add(id(listener))
                log.exception("%s failed; recording goes on", type(listener).__qualname__)
        return None


class LastAnnotations:
    """What listeners add between `close` and the end of the writer. Their time ends before that of the writer."""

    def __init__(self, listeners: Listeners, queue: RecordingQueue, deadline: Deadline) -> None:
        self._listeners = listeners
        self._queue = queue
        self._deadline = deadline
        self._waits: list[Wait[None]] | None = None

    async def may_come(self) -> bool:
        """Called when everything is stored and the queue is closed. Returns whether to look into the queue again."""
        if not self._queue.accepts_annotations:
            return False
        left = self._deadline.left
        reserve = min(_MAX_RESERVE, left * _RESERVE)
        if self._waits is None:
            self._waits = self._listeners.finish(left - reserve)
        self._waits = [wait for wait in self._waits if not wait.done]
        if not self._waits or left <= _MAX_RESERVE * _RESERVE:
            self._queue.accepts_annotations = False
        else:
            await _first_of(self._waits, min(_SLICE, left))
        return True


async def _first_of(waits: Sequence[Wait[None]], timeout: float) -> None:
    """Wait for the end of the first one, or until the timeout."""
    with suppress(TimeoutError):
        await asyncio.wait_for(waits[0], timeout)


def listeners_of(url: str, config: Config, store: Any) -> Listeners:
    """The listeners that a configuration names. Raises `ConfigError` for budgets that cannot be watched."""
    found = Listeners()
    if budgets := checked_budgets(config.budgets, config.on_budget):
        if store is not None:
            raise ConfigError("budgets need a database that can be read; pass url=, and leave store= out")
        assert config.on_budget is not None
        found.add(BudgetWatch(url, budgets, config.on_budget))
    return found
