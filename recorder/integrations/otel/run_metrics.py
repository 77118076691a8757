"""The metrics of runs: their duration, the time to the first chunk, the times between chunks, and the token usage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from recorder.core.version import VERSION
from recorder.export.otel.attributes import error_type, first_chunk_seconds, provider_of, usage_of
from recorder.export.otel.conventions import SECONDS, TOKENS, Conventions
from recorder.export.otel.framework import SCOPE
from recorder.export.otel.span_texts import short
from recorder.export.otel.traced_run import TracedRun
from recorder.integrations.otel.chunk_times import ChunkTimes

Record = Callable[[Any, Mapping[str, Any]], None]

#: Key in the table of names -> unit, description, boundaries (None: a counter).
_INSTRUMENTS: Mapping[str, tuple[str, str, tuple[float, ...] | None]] = {
    "metric.duration": ("s", "Duration of a call of a model.", SECONDS),
    "metric.first_chunk": ("s", "Time from the request to the first chunk.", SECONDS),
    "metric.per_chunk": ("s", "Time from one chunk to the next.", SECONDS),
    "metric.usage": ("{token}", "Number of input and output tokens of a call.", TOKENS),
    "metric.usage.input": ("{token}", "Input tokens, cached ones included.", None),
    "metric.usage.output": ("{token}", "Output tokens, reasoning included.", None),
    "metric.usage.cache_read": ("{token}", "Input tokens that the provider's cache served.", None),
    "metric.usage.cache_write": ("{token}", "Input tokens that were written to the provider's cache.", None),
    "metric.usage.reasoning": ("{token}", "Output tokens of reasoning.", None),
}


class RunMetrics:
    """The instruments of one meter provider."""

    def __init__(self, meter_provider: Any, conventions: Conventions) -> None:
        self._conventions = conventions
        meter = meter_provider.get_meter(SCOPE, VERSION, schema_url=conventions.schema_url)
        self._record = {
            key: _instrument(meter, conventions.names[key], *described)
            for key, described in _INSTRUMENTS.items()
            if key in conventions.names
        }

    def ended(self, run: TracedRun, chunks: ChunkTimes, *, again: bool) -> None:
        """A model's run has ended. `again`: it was counted before, and went on after it had been idle."""
        labels = self._conventions.named(
            {
                "operation": short(run.operation),
                "provider": provider_of(run),
                "request.model": short(run.request_model),
                "response.model": short(run.response_model),
            }
        )
        self._put_usage(run, labels)
        if again:
            return
        seconds = ((run.ended_at or run.started_at) - run.started_at).total_seconds()
        failed = self._conventions.named({"error": error_type(run)})
        self._put("metric.duration", max(0.0, seconds), {**labels, **failed})
        self._put("metric.first_chunk", first_chunk_seconds(run), labels)
        for pause_us in chunks.pauses_us:
            self._put("metric.per_chunk", pause_us / 1e6, labels)

    def _put_usage(self, run: TracedRun, labels: Mapping[str, Any]) -> None:
        for key, count in usage_of(run).items():
            self._put(f"metric.{key}", count, labels)
            kind = key.removeprefix("usage.")
            if kind in ("input", "output"):
                self._put("metric.usage", count, {**labels, **self._conventions.named({"token.type": kind})})

    def _put(self, key: str, value: float | None, labels: Mapping[str, Any]) -> None:
        if value is not None and (record := self._record.get(key)) is not None:
            record(value, labels)


def _instrument(
    meter: Any, name: str, unit: str, description: str, boundaries: tuple[float, ...] | None
) -> Record:
    if boundaries is None:
        add: Record = meter.create_counter(name, unit=unit, description=description).add
        return add
    histogram = meter.create_histogram(
        name, unit=unit, description=description, explicit_bucket_boundaries_advisory=list(boundaries)
    )
    record: Record = histogram.record
    return record
