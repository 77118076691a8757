"""What analyzers have done, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AnalyzerStats:
    """Counts of one analyzer: every text that it should get is analyzed, waiting, skipped or failed."""

    #: Texts that it has evaluated, also those of which it had nothing to say.
    analyzed: int
    #: Texts that wait, or that it evaluates now.
    waiting: int
    #: Texts that it did not get: too many waited, it paused, the text was too long, or the recorder was closed.
    skipped: int
    #: Texts on which it raised, returned what cannot be stored, took too long, or ended its process.
    failed: int
    #: Annotations that were handed to the recorder.
    annotations: int
    #: How often its process or thread was replaced.
    restarts: int
    #: The last failure in words; None if there was none.
    last_error: str | None


@dataclass(frozen=True, slots=True)
class AnalysisStats:
    """The counts of all analyzers of a recorder. The first four are sums."""

    analyzed: int
    waiting: int
    skipped: int
    failed: int
    #: The counts of each analyzer, by its name.
    by_analyzer: Mapping[str, AnalyzerStats]
    #: What was committed and not looked at, because too much of it waited: parts of transactions.
    parts_skipped: int = 0
