"""Calls other parts of recorder with what was recorded: analyzers, budgets and exporters stand behind it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from recorder.config import Config
from recorder.core.deadline import seconds
from recorder.costs.budget_watch import BudgetWatch
from recorder.costs.budgets import checked_budgets
from recorder.errors import ConfigError
from recorder.storage.batch import Part
from recorder.storage.rows import RunStart

log = logging.getLogger("recorder")


class RecordingListener(Protocol):
    """Gets every run that begins and everything that is committed. Its methods must return at once.

    What they raise is logged once for each listener and counted. It never reaches the application or the writer.

    A listener may have two more methods, which are called on the writer's thread: `estimated(conversation_id, run_id)`,
    when the usage of a run was estimated after its commit, and `close(seconds)`, when nothing more is committed.
    """

    def begun(self, start: RunStart) -> None:
        """A run begins. Called in the context and on the thread of the model's call, or of its first event."""

    def committed(self, parts: Sequence[Part]) -> None:
        """One transaction has stored these parts. Called on the writer's thread; the parts must not be changed."""

    def reset_in_child(self) -> None:
        """The process is a forked child: what the parent does must not be done here as well. Takes no lock."""


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

    def close(self, timeout: float) -> None:
        """Nothing more is committed. For listeners that have this method; together they may take so many seconds."""
        over = seconds() + timeout
        for each in self._all:
            if (method := getattr(each, "close", None)) is not None:
                self._call(each, method, max(0.0, over - seconds()))

    def reset_in_child(self) -> None:
        """The process is a forked child."""
        for each in self._all:
            self._call(each, each.reset_in_child)

    def _call(self, listener: RecordingListener, method: Callable[..., None], *given: Any) -> None:
        try:
            method(*given)
        except Exception:
            self._errors += 1
            if id(listener) not in self._failed:
                self._failed.add(id(listener))
                log.exception("%s failed; recording goes on", type(listener).__qualname__)


def listeners_of(url: str, config: Config, store: Any) -> Listeners:
    """The listeners that a configuration names. Raises `ConfigError` for budgets that cannot be watched."""
    found = Listeners()
    if budgets := checked_budgets(config.budgets, config.on_budget):
        if store is not None:
            raise ConfigError("budgets need a database that can be read; pass url=, and leave store= out")
        assert config.on_budget is not None
        found.add(BudgetWatch(url, budgets, config.on_budget))
    return found
