"""The account of an exporter: where the runs are that it was given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class ExportStats:
    """Counts of runs and evaluations since the exporter was made."""

    #: Spans that were given to the tracer provider.
    spans: int = 0
    #: Runs that a sampler left out.
    not_sampled: int = 0
    #: Events that were given to the logger provider.
    evaluations: int = 0
    #: Runs that are not exported, because the queue was full or too many runs were open.
    dropped: int = 0
    #: Evaluations that are not exported, because the queue was full.
    dropped_evaluations: int = 0
    #: Steps of the export that raised; the first error is in the log.
    errors: int = 0
    #: Commits that wait for the exporter's thread.
    waiting: int = 0
    #: Runs that have begun and not ended.
    open_runs: int = 0
