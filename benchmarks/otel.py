"""What the live export to OpenTelemetry adds to a recorded run and to a token, with a collector that costs nothing."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from benchmarks import ours
from benchmarks.harness import Measured, Settings, Side, best, compare, values
from benchmarks.table import Row, each
from benchmarks.workload import cpu_seconds

TITLE = "Live export to OpenTelemetry (microseconds of CPU beyond recording)"
#: The most that a run and a token may add on the thread that streams.
_RUN_GOAL, _TOKEN_GOAL = 20.0, 0.2
_TOKENS = 300
_PARTS = ("producer", "process")


def rows(settings: Settings) -> list[Row]:
    """Runs and tokens, on the thread that streams and in the whole process."""
    sizes = {"short": settings.size(1_000, 200), "long": settings.size(200, 40)}
    found = compare({"otel": Side("benchmarks.otel:measured", sizes, folder=True)}, settings.rounds)["otel"]
    lines = []
    for part in _PARTS:
        where = "the thread that streams" if part == "producer" else "the whole process, SDK included"
        for what, goal in (("run", _RUN_GOAL), ("token", _TOKEN_GOAL)):
            key = f"{part}, {what}"
            added = best(found, key)
            is_bound = part == "producer"
            lines.append(
                Row(
                    f"a {what}, {where}",
                    f"{added:.2f} us",
                    each(values(found, key), ".2f"),
                    "",
                    f"under {goal:g} us" if is_bound else "",
                    added < goal if is_bound else None,
                )
            )
    return lines


def measured(short: int, long: int, folder: str) -> Measured:
    """Microseconds that the export adds to a run of one token, and to each token of long runs."""
    added: dict[str, list[float]] = {}
    for size, runs in ((1, short), (_TOKENS, long)):
        sides = {
            is_on: [_measure(folder, runs, size, is_on=is_on) for _ in range(3)] for is_on in (False, True)
        }
        for number, part in enumerate(_PARTS):
            without, with_export = (min(each[number] for each in sides[is_on]) for is_on in (False, True))
            added.setdefault(part, []).append((with_export - without) / runs * 1e6)
    return {
        key: figure
        for part, (of_short, of_long) in added.items()
        for key, figure in (
            (f"{part}, run", of_short),
            (f"{part}, token", (of_long - of_short) / (_TOKENS - 1)),
        )
    }


def _measure(folder: str, runs: int, size: int, *, is_on: bool) -> Sequence[float]:
    """CPU seconds of the thread that streams, and of the process, for some runs."""
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

    history = ours.open_history(ours.new_file(folder), max_queue_bytes=2**30)
    exporter: AbstractContextManager[Any] = _exporter(history) if is_on else nullcontext()
    span = NonRecordingSpan(SpanContext(1, 1, is_remote=False, trace_flags=TraceFlags(1)))
    with exporter, use_span(span):  # in a span of the application, which the export notes with each run
        before, process_before = time.thread_time(), cpu_seconds()
        for _ in range(runs):
            run_id = uuid.uuid4()
            history.on_chat_model_start(
                {}, [[("user", "Sing!")]], run_id=run_id, invocation_params={"model": "m"}
            )
            for _ in range(size):
                history.on_llm_new_token("word ", run_id=run_id)
            history.on_llm_end(_result(), run_id=run_id)
        producer = time.thread_time() - before
        history.flush().wait()
        if is_on:
            assert exporter.flush(60)  # type: ignore[attr-defined]
        process = cpu_seconds() - process_before
    history.close().wait()
    return producer, process


def _result() -> Any:
    """The end of a run with its usage."""
    from recorder.messages import AIMessage, ChatGeneration, LLMResult

    reply = AIMessage("word", usage_metadata={"input_tokens": 5, "output_tokens": 9, "total_tokens": 14})
    return LLMResult(generations=[[ChatGeneration(reply, {"finish_reason": "stop"})]], llm_output={})


def _exporter(history: Any) -> Any:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    from recorder.integrations.otel import OpenTelemetryExporter

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(Nowhere(), max_queue_size=100_000))
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    return OpenTelemetryExporter(history, tracer_provider=tracers, meter_provider=meters)
