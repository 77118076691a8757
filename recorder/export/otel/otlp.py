"""Sends spans and events to a collector over OTLP/HTTP, a page at a time, through OpenTelemetry's own exporters."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from recorder.errors import ConfigError

log = logging.getLogger("recorder")

#: The paths of the two signals below a collector's URL.
_TRACES, _LOGS = "/v1/traces", "/v1/logs"
#: How often a page is sent, at most. OpenTelemetry's exporter repeats a request by itself while a collector is busy.
_ATTEMPTS = 2


class _CollectedSpans(SpanProcessor):
    """Collects the spans that end."""

    def __init__(self) -> None:
        self.items: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """A span has ended."""
        self.items.append(span)


class _CollectedEvents(LogRecordProcessor):
    """Collects the events that are emitted."""

    def __init__(self) -> None:
        self.items: list[ReadableLogRecord] = []

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """An event was emitted."""
        resource: Any = log_record.resource  # every logger of the SDK sets it
        record, scope, limits = log_record.log_record, log_record.instrumentation_scope, log_record.limits
        self.items.append(ReadableLogRecord(record, resource, scope, limits))

    def shutdown(self) -> None:
        """Nothing is open."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits."""
        return True


class Otlp:
    """A tracer and a logger provider whose spans and events are sent when `send` is called."""

    def __init__(self, endpoint: str | None) -> None:
        """`endpoint` is the URL of a collector; None is that of `OTEL_EXPORTER_OTLP_ENDPOINT`, else localhost:4318."""
        self._spans, self._events = _CollectedSpans(), _CollectedEvents()
        self.tracer_provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(self._spans)
        self.logger_provider = LoggerProvider(shutdown_on_exit=False)
        self.logger_provider.add_log_record_processor(self._events)
        self._span_exporter: Any = OTLPSpanExporter(_signal(endpoint, _TRACES))
        self._event_exporter: Any = OTLPLogExporter(_signal(endpoint, _LOGS))

    def send(self) -> tuple[int, int]:
        """Send what was collected. How many spans and events the collector has not accepted."""
        failed = (
            _failed(self._span_exporter.export, self._spans.items),
            _failed(self._event_exporter.export, self._events.items),
        )
        self._spans.items, self._events.items = [], []
        return failed

    def close(self) -> None:
        """Close the connections."""
        self._span_exporter.shutdown()
        self._event_exporter.shutdown()


def _failed(export: Callable[[Any], Any], items: Sequence[Any]) -> int:
    if not items:
        return 0
    return 0 if any(_is_sent(export, items) for _ in range(_ATTEMPTS)) else len(items)


def _is_sent(export: Callable[[Any], Any], items: Sequence[Any]) -> bool:
    try:
        return bool(export(items).name == "SUCCESS")
    except Exception as error:  # some versions of the exporter raise what others report
        log.warning("The collector did not answer: %s", error)
        return False


def _signal(endpoint: str | None, path: str) -> str | None:
    """The URL of one signal below that of a collector."""
    if endpoint is None:
        return None
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(
            f"{endpoint!r:.200} is no URL of a collector; write for example http://localhost:4318"
        )
    base = endpoint.rstrip("/")
    for each in (_TRACES, _LOGS):
        base = base.removesuffix(each)
    return base + path
