"""Makes the spans of runs through a tracer of OpenTelemetry's SDK, with the ids and the times of the runs."""

from __future__ import annotations

from typing import Any

from recorder.core.version import VERSION
from recorder.export.otel import attributes
from recorder.export.otel.conventions import Conventions
from recorder.export.otel.framework import SCOPE, Span, SpanContext, context_of
from recorder.export.otel.span_ids import RUN_IDS
from recorder.export.otel.traced_run import TracedRun


class Spans:
    """The spans of one tracer provider. Used by one thread."""

    def __init__(self, tracer_provider: Any, conventions: Conventions, *, content: bool) -> None:
        self._tracer = tracer_provider.get_tracer(SCOPE, VERSION, schema_url=conventions.schema_url)
        # The tracer is that of our scope alone. Tracers other than the SDK's choose the ids themselves.
        if hasattr(self._tracer, "id_generator"):
            self._tracer.id_generator = RUN_IDS
        self._conventions, self._content = conventions, content

    def start(self, run: TracedRun, parent: SpanContext | None) -> Span:
        """Start the span of a run at the time at which the run began."""
        RUN_IDS.use(run.id)
        span: Span = self._tracer.start_span(
            attributes.span_name(run),
            context=context_of(parent),
            kind=attributes.span_kind(run),
            attributes=attributes.start_attributes(run, self._conventions),
            start_time=attributes.nanoseconds(run.started_at),
        )
        return span

    def end(self, span: Span, run: TracedRun) -> bool:
        """End the span at the time at which the run ended. Whether it is exported: a sampler may have refused it."""
        if not span.is_recording():
            return False
        span.set_attributes(attributes.end_attributes(run, self._conventions))
        if self._content:
            span.set_attributes(attributes.content_attributes(run, self._conventions))
        span.set_status(attributes.span_status(run))
        span.end(attributes.nanoseconds(max(run.ended_at or run.started_at, run.started_at)))
        return True
