"""Calls an analyzer, in the process or on the thread where it runs."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from typing import Any

from recorder.analysis.evaluation import evaluation_from
from recorder.analysis.outcomes import Failed, Outcome
from recorder.analysis.texts import AnalyzedText

#: How many characters of an error and of its traceback are reported.
_LONGEST, _LONGEST_TRACEBACK = 300, 4_000


class AnalyzerCalls:
    """The calls of one analyzer on one thread. What is `async` runs on an event loop of its own."""

    def __init__(self, analyzer: Any) -> None:
        self._analyzer = analyzer
        self._runner: asyncio.Runner | None = None

    def prepare(self) -> Failed | None:
        """Call its `prepare`."""
        try:
            if callable(prepare := getattr(self._analyzer, "prepare", None)):
                self._result(prepare())
        except BaseException as error:
            return _failed(error)
        return None

    def evaluate(self, text: AnalyzedText) -> Outcome:
        """Evaluate one text. Raises nothing, whatever the analyzer does."""
        method = self._analyzer.on_sentence if text.is_sentence else self._analyzer.on_message
        try:
            return evaluation_from(self._result(method(text)))
        except BaseException as error:  # SystemExit, too: it must not end the thread of the application
            return _failed(error)

    def _result(self, returned: Any) -> Any:
        if not inspect.isawaitable(returned):
            return returned
        self._runner = self._runner or asyncio.Runner()
        return self._runner.run(_awaited(returned))


async def _awaited(returned: Any) -> Any:
    return await returned


def _failed(error: BaseException) -> Failed:
    try:
        text = f"{type(error).__name__}: {error}"
        lines = "".join(traceback.format_exception(error))
    except Exception:  # the methods of an exception may raise as well
        text, lines = type(error).__name__, ""
    return Failed(text[:_LONGEST], lines[-_LONGEST_TRACEBACK:])
