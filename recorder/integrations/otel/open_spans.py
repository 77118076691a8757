"""The runs that were begun and have not ended, with their spans: what comes of a run in one commit after the other."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from recorder.core.thread_yield import ThreadYield
from recorder.export.otel.framework import Span, SpanContext
from recorder.export.otel.span_ids import application_span, span_of
from recorder.export.otel.spans import Spans
from recorder.export.otel.traced_run import TracedRun, from_start
from recorder.integrations.otel.chunk_times import ChunkTimes
from recorder.integrations.otel.run_metrics import RunMetrics
from recorder.integrations.otel.stats import ExportStats
from recorder.storage.batch import RunSeal
from recorder.storage.rows import INTERRUPTED, STREAMING, RunStart, SegmentRow

T = TypeVar("T")

#: The spans of so many runs are remembered, so that their children and their evaluations find them.
MAX_SPANS = 10_000
#: So many runs may have begun and not ended.
MAX_OPEN = 10_000
#: Of so many runs that were cut off it is remembered what they were: a run that was idle may go on.
MAX_INTERRUPTED = 1_000


@dataclass(slots=True, frozen=True)
class CommittedRun:
    """What one commit has stored of a run."""

    start: RunStart
    #: Whether it is the first commit of the run.
    opens: bool
    segments: Sequence[SegmentRow]
    seal: RunSeal | None


@dataclass(slots=True)
class _OpenSpan:
    """A run that has begun, and its span."""

    run: TracedRun
    parent: SpanContext | None
    span: Span | None
    chunks: ChunkTimes
    #: Whether the run was exported before, and went on.
    again: bool = False


class OpenSpans:
    """Starts and ends the spans of runs. Used by one thread."""

    def __init__(
        self,
        spans: Spans,
        metrics: RunMetrics,
        stats: ExportStats,
        *,
        content: bool,
        chunk_samples: int | None,
    ) -> None:
        self._spans, self._metrics, self._stats = spans, metrics, stats
        self._content, self._chunk_samples = content, chunk_samples
        self._open: OrderedDict[str, _OpenSpan] = OrderedDict()
        self._interrupted: OrderedDict[str, _OpenSpan] = OrderedDict()
        self._contexts: OrderedDict[str, SpanContext] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def span_of(self, run_id: str) -> SpanContext:
        """The span of a run, for its children and its evaluations."""
        return self._contexts.get(run_id) or span_of(run_id)

    def add(self, parts: Sequence[CommittedRun]) -> None:
        """What one transaction has stored. Parents come before their children."""
        yield_thread = ThreadYield()
        for part in sorted(parts, key=lambda part: part.start.order):
            if part.opens:
                self._begin(part.start)
        for part in parts:
            self._go_on(part)
            yield_thread()

    def _begin(self, start: RunStart) -> None:
        if (
            start.run_id in self._open
        ):  # its row is stored again, in the file that took the place of another one
            return
        run = from_start(start)
        if not self._content:
            run.messages = ()
        parent = application_span(run.metadata)
        if parent is None and run.parent_run_id is not None:
            parent = self.span_of(run.parent_run_id)
        found = _OpenSpan(run, parent, self._start_span(run, parent), ChunkTimes(self._chunk_samples))
        self._open[run.id] = found
        if len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)
            self._stats.dropped += 1

    def _start_span(self, run: TracedRun, parent: SpanContext | None) -> Span:
        span = self._spans.start(run, parent)
        context = span.get_span_context()
        if context.is_valid:
            _remember(self._contexts, run.id, context, MAX_SPANS)
        return span

    def _go_on(self, part: CommittedRun) -> None:
        run_id, seal = part.start.run_id, part.seal
        found = self._open.get(run_id) or self._reopened(run_id)
        if found is None:  # its beginning found no room, or it began before the export did
            self._stats.dropped += seal is not None and seal.end.status != STREAMING
            return
        if not found.run.is_step:
            found.chunks.add(part.segments)
        if seal is not None and seal.end.status != STREAMING:
            self._end(found, seal)

    def _reopened(self, run_id: str) -> _OpenSpan | None:
        """A run that was closed as idle, and goes on: it is exported again when it ends, with the same ids."""
        found = self._interrupted.pop(run_id, None)
        if found is not None:
            found.again, found.span = True, None
            self._open[run_id] = found
        return found

    def _end(self, found: _OpenSpan, seal: RunSeal) -> None:
        run = found.run
        self._open.pop(run.id, None)
        run.end(seal)
        if not self._content:
            run.replies = ()
        span = found.span or self._spans.start(run, found.parent)
        if self._spans.end(span, run):
            self._stats.spans += 1
        else:
            self._stats.not_sampled += 1
        if not run.is_step:
            self._metrics.ended(run, found.chunks, again=found.again)
        if run.status == INTERRUPTED:
            _remember(self._interrupted, run.id, found, MAX_INTERRUPTED)


def _remember(items: OrderedDict[str, T], key: str, value: T, limit: int) -> None:
    """Add an item, and forget the oldest one if there are too many."""
    items[key] = value
    if len(items) > limit:
        items.popitem(last=False)
