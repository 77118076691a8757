"""Where an analyzer runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from recorder.analysis.outcomes import Outcome
from recorder.analysis.texts import AnalyzedText


class Executor(Protocol):
    """Runs one analyzer: in a process, or on a thread. Used by one thread at a time."""

    #: How often it started again because the analyzer hung or ended it.
    restarts: int

    def evaluate(self, texts: Sequence[AnalyzedText]) -> Iterator[Outcome]:
        """One outcome for each text, in their order. Ends early when the limits are over. Raises nothing."""

    def close(self) -> None:
        """End what runs. Called on the thread that calls `evaluate`."""

    def forget_in_child(self) -> None:
        """In a forked child: let the parent's worker alone, and start another one if it is needed. Takes no lock."""
