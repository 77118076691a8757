"""Runs an analyzer on a thread of the application. A call that does not return keeps it, and another thread goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from recorder.analysis.call_limits import SLICE, START_TIMEOUT, CallLimits
from recorder.analysis.calls import AnalyzerCalls
from recorder.analysis.outcomes import Failed, Outcome, Skipped
from recorder.analysis.texts import AnalyzedText
from recorder.core.deadline import seconds

#: How many threads may hang in calls. After that the analyzer is called no more, until one of them returns.
MAX_HANGING = 3


class WorkerThread:
    """An `Executor`. The thread is started for the first text."""

    def __init__(self, analyzer: Any, limits: CallLimits) -> None:
        self.restarts = 0
        self._analyzer = analyzer
        self._limits = limits
        self._calls: _CallThread | None = None
        self._hanging: list[_CallThread] = []

    def evaluate(self, texts: Sequence[AnalyzedText]) -> Iterator[Outcome]:
        """As `Executor.evaluate`."""
        for text in texts:
            if self._limits.is_over:
                return
            self._hanging = [each for each in self._hanging if each.is_alive()]
            if len(self._hanging) >= MAX_HANGING:
                yield Skipped(f"{MAX_HANGING} calls of the analyzer have not returned")
            else:
                yield self._evaluate(text)

    def close(self) -> None:
        """As `Executor.close`. A call that hangs cannot be ended: its daemon thread ends with the process."""
        calls, self._calls = self._calls, None
        if calls is not None:
            calls.put(None)

    def forget_in_child(self) -> None:
        """As `Executor.forget_in_child`."""
        self.restarts = 0
        self._calls, self._hanging = None, []

    def _evaluate(self, text: AnalyzedText) -> Outcome:
        if self._calls is None:
            self._calls = _CallThread(self._analyzer)
            try:
                self._calls.start()
            except RuntimeError as error:  # the limit of threads, or the end of the interpreter
                self._calls = None
                return Failed(f"no thread can be started: {error}")
            failure = self._receive(START_TIMEOUT)
            if failure is not None:
                self._calls = None
                return failure
        self._calls.put(text)
        return self._receive(self._limits.timeout)

    def _receive(self, timeout: float) -> Outcome:
        assert self._calls is not None
        over = seconds() + timeout
        while (left := min(over, self._limits.until) - seconds()) > 0:
            try:
                return self._calls.answers.get(timeout=min(left, SLICE))
            except Empty:
                pass
        return self._give_up(timeout)

    def _give_up(self, timeout: float) -> Outcome:
        assert self._calls is not None
        self._hanging.append(self._calls)
        self.close()
        self.restarts += 1
        if self._limits.is_over:
            return Skipped("the time to close is over")
        return Failed(f"it did not return within {timeout:g} s")


class _CallThread(threading.Thread):
    """Evaluates one text after another until it gets None."""

    def __init__(self, analyzer: Any) -> None:
        super().__init__(name="recorder-analyzer", daemon=True)
        self._calls = AnalyzerCalls(analyzer)
        self._texts: SimpleQueue[AnalyzedText | None] = SimpleQueue()
        self.answers: SimpleQueue[Outcome] = SimpleQueue()

    def put(self, text: AnalyzedText | None) -> None:
        """Evaluate this text next."""
        self._texts.put(text)

    def run(self) -> None:
        """The first answer is that of `prepare`."""
        failure = self._calls.prepare()
        self.answers.put(failure)
        while failure is None and (text := self._texts.get()) is not None:
            self.answers.put(self._calls.evaluate(text))
