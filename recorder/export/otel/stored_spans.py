"""The parents of stored runs: the same spans as those of the live export."""

from __future__ import annotations

from collections import OrderedDict

from recorder.export.otel.framework import SpanContext
from recorder.export.otel.span_ids import application_span, span_of, trace_id_of
from recorder.export.otel.traced_run import TracedRun, json_object
from recorder.export.row_reader import RowReader, RunPlace

#: The traces of so many runs are remembered.
_MAX_TRACES = 10_000
#: Runs above each other, in a damaged or hostile database.
_MAX_DEPTH = 1_000


class StoredSpans:
    """Finds the trace of a run by going up to the run above it that has no parent run."""

    def __init__(self, reader: RowReader) -> None:
        self._reader = reader
        self._traces: OrderedDict[str, int] = OrderedDict()

    def parent_of(self, run: TracedRun) -> SpanContext | None:
        """The span that a run's span is in; None for the first one of a trace."""
        found = application_span(run.metadata)
        if found is not None or run.parent_run_id is None:
            return found
        return self.span_of(run.parent_run_id)

    def span_of(self, run_id: str) -> SpanContext:
        """The span of a run."""
        return span_of(run_id, self._trace_of(run_id))

    def _trace_of(self, run_id: str) -> int:
        path: list[str] = []
        at = run_id
        while (trace := self._traces.get(at)) is None:
            path.append(at)
            place = self._place(at)
            next_id = place.parent_run_id if place is not None else None
            above = application_span(json_object(place.metadata)) if place is not None else None
            if above is not None:
                trace = above.trace_id
                break
            if next_id is None or next_id in path or len(path) >= _MAX_DEPTH:
                trace = trace_id_of(at)
                break
            at = next_id
        for each in path:
            self._traces[each] = trace
        while len(self._traces) > _MAX_TRACES:
            self._traces.popitem(last=False)
        return trace

    def _place(self, run_id: str) -> RunPlace | None:
        found = self._reader.run_places([run_id])
        return found[0] if found else None
