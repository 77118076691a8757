"""`OpenTelemetryExporter`: exports every run to OpenTelemetry when it has been stored."""

from __future__ import annotations

import atexit
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from recorder.core.at_exit import in_worker
from recorder.core.deadline import seconds
from recorder.core.json import dumps
from recorder.core.living import Living
from recorder.errors import ConfigError
from recorder.export.otel.conventions import DEFAULT, check_content, conventions_of
from recorder.export.otel.evaluations import Evaluations
from recorder.export.otel.framework import trace
from recorder.export.otel.span_ids import TRACEPARENT, as_metadata
from recorder.export.otel.spans import Spans
from recorder.integrations.otel.commit_queue import CommitQueue
from recorder.integrations.otel.open_spans import MAX_SPANS, CommittedRun, OpenSpans
from recorder.integrations.otel.providers import Providers
from recorder.integrations.otel.run_metrics import RunMetrics
from recorder.integrations.otel.stats import ExportStats
from recorder.storage.batch import Addition, Part, RunRows
from recorder.storage.rows import STREAMING, AnnotationRow, RunStart

#: Chunks of a run whose times are measured. Each one costs a call of OpenTelemetry's SDK, about 12 us.
CHUNK_SAMPLES = 20
#: The most bytes of commits that wait for the exporter's thread.
MAX_QUEUE_BYTES = 16 * 2**20
#: The longest that `flush`, `close` and an exit wait for the export (seconds).
TIMEOUT = 5.0

_TRACEPARENT_KEY = f'"{TRACEPARENT}"'


class OpenTelemetryExporter:
    """Exports what `history` records: each run as a span, with metrics, and each evaluation as an event.

    `history` is a `ChatHistoryCallback`. The providers are those of OpenTelemetry's SDK; by default the ones that
    `set_tracer_provider`, `set_meter_provider` and `set_logger_provider` have set. Make them before the exporter.
    `conventions` is the version of the names ("1.41"), `content` exports messages, arguments and results, too.
    The time per output chunk is measured for `chunk_samples` chunks of a run, evenly spread; None is every chunk.

    A span is exported when its run has been stored. Its parent is the application's span in which the call began; the
    run's metadata keep it as `traceparent`. Else it is the span of the parent run. All this is done on another thread,
    behind a bounded queue, and never holds up the recording. Raises `ConfigError` for an invalid value.
    """

    def __init__(
        self, history: Any, *, tracer_provider: Any = None, meter_provider: Any = None, logger_provider: Any = None,
        content: bool = False, conventions: str = DEFAULT, chunk_samples: int | None = CHUNK_SAMPLES,
        max_queue_bytes: int = MAX_QUEUE_BYTES,
    ) -> None:  # fmt: skip
        self._conventions = conventions_of(conventions)
        if content:
            check_content(self._conventions)
        _check_numbers(chunk_samples, max_queue_bytes)
        self._recorder = _recorder_of(history)
        self._content, self._chunk_samples = content, chunk_samples
        self._providers = Providers(tracer_provider, meter_provider, logger_provider)
        self._reset_counts()
        # Ids of runs that may have children. Only the keys count.
        self._begun: OrderedDict[str, None] = OrderedDict()
        self._pipeline: _SpanPipeline | None = None
        self._is_new_child = self._is_closed = False
        self._queue: CommitQueue[_Commit] = CommitQueue(self._export, max_queue_bytes, "recorder-otel")
        self._recorder.listeners.add(self)
        _exporters.add(self)
        _register_at_exit()

    def __enter__(self) -> OpenTelemetryExporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def stats(self) -> ExportStats:
        """Counts of what was exported, dropped, and still waits."""
        pipeline = self._pipeline
        return replace(
            self._stats,
            dropped=self._stats.dropped + self._dropped,
            dropped_evaluations=self._dropped_evaluations,
            errors=self._queue.errors,
            waiting=self._queue.waiting,
            open_runs=len(pipeline.runs) if pipeline is not None else 0,
        )

    def flush(self, timeout: float = TIMEOUT) -> bool:
        """Wait until everything recorded before is stored and sent, at most `timeout` seconds. Whether it was in time.

        It blocks the thread, and asks the providers to send at once (`force_flush`).
        """
        over = seconds() + timeout
        if not self._is_new_child:
            with suppress(Exception):  # what is not stored is counted by the recorder
                self._recorder.flush().wait(max(0.0, over - seconds()))
        is_done = self._queue.flush(max(0.0, over - seconds()))
        return self._providers.force_flush(over) and is_done

    def close(self, timeout: float = TIMEOUT) -> bool:
        """Flush, and export nothing more. The providers stay open. Returns as `flush` does."""
        is_done = self.flush(timeout)
        self._recorder.listeners.remove(self)
        self._is_closed = True
        return is_done

    # -- what the recorder calls ------------------------------------------------------------------------------------

    def begun(self, start: RunStart) -> None:
        """Note in the run's metadata in which span of the application it begins, unless it has a parent run."""
        begun = self._begun
        if start.parent_run_id is None or start.parent_run_id not in begun:
            span = trace.get_current_span().get_span_context()
            if span.is_valid:
                _add_metadata(start, as_metadata(span))
        begun[start.run_id] = None
        self._is_new_child = False
        if len(begun) > MAX_SPANS:
            begun.popitem(last=False)

    def committed(self, parts: Sequence[Part]) -> None:
        """Queue what was stored for the exporter's thread."""
        runs = [
            CommittedRun(part.start, part.opens, part.segments, part.seal)
            for part in parts
            if isinstance(part, RunRows)
        ]
        rows = [row for part in parts if isinstance(part, Addition) for row in part.annotations]
        if not (runs or rows):
            return
        if not self._queue.put(_Commit(runs, rows), sum(part.bytes for part in parts)):
            self._dropped += sum(run.seal is not None and run.seal.end.status != STREAMING for run in runs)
            self._dropped_evaluations += len(rows)

    def reset_in_child(self) -> None:
        """A forked child exports its own runs only."""
        self._queue.reset()
        self._reset_counts()
        self._pipeline, self._is_new_child = None, True

    def _reset_counts(self) -> None:
        self._stats = ExportStats()
        # Counted by the thread that commits, the others by the exporter's thread.
        self._dropped = self._dropped_evaluations = 0

    # -- the exporter's thread --------------------------------------------------------------------------------------

    def _export(self, commit: _Commit) -> None:
        pipeline = self._pipeline
        if pipeline is None:
            pipeline = self._pipeline = self._new_pipeline()
        pipeline.runs.add(commit.runs)
        for row in commit.annotations:
            span = pipeline.runs.span_of(row.run_id) if row.conversation_id is None else None
            self._stats.evaluations += pipeline.evaluations.emit(row, span)

    def _new_pipeline(self) -> _SpanPipeline:
        found = self._providers.resolve()
        # A provider that was made after the exporter shuts down before `_flush_at_exit` otherwise.
        _register_at_exit()
        spans = Spans(found.tracer, self._conventions, content=self._content)
        runs = OpenSpans(
            spans,
            RunMetrics(found.meter, self._conventions),
            self._stats,
            content=self._content,
            chunk_samples=self._chunk_samples,
        )
        return _SpanPipeline(runs, Evaluations(found.logger, self._conventions, content=self._content))


@dataclass(slots=True, frozen=True)
class _Commit:
    """What one transaction has stored, as far as it is exported."""

    runs: Sequence[CommittedRun]
    annotations: Sequence[AnnotationRow]


@dataclass(slots=True, frozen=True)
class _SpanPipeline:
    """What exports, once the first commit has come."""

    runs: OpenSpans
    evaluations: Evaluations


_exporters: Living[OpenTelemetryExporter] = Living()


def _flush_at_exit() -> None:
    over = seconds() + TIMEOUT
    for exporter in _exporters.now():
        if not exporter._is_closed:
            exporter.flush(max(0.0, over - seconds()))


def _register_at_exit() -> None:
    """Flush at exit before the providers shut down: functions that were registered last are called first."""
    atexit.unregister(_flush_at_exit)
    atexit.register(_flush_at_exit)
    in_worker(_flush_at_exit)


def _add_metadata(start: RunStart, more: dict[str, str]) -> None:
    """Add texts to the metadata of a run, unless the application has set its own `traceparent`."""
    text = start.metadata or "{}"  # always a JSON object
    if _TRACEPARENT_KEY in text:
        return
    rest = dumps(more)[1:]
    start.metadata = "{" + rest if text == "{}" else f"{text[:-1]},{rest}"
    if start.mask is not None:
        start.mask.extend_metadata(more)


def _recorder_of(history: Any) -> Any:
    recorder = getattr(history, "recorder", None)
    if not hasattr(recorder, "listeners"):
        raise ConfigError(
            f"OpenTelemetryExporter got an object of type {type(history).__name__}; pass a ChatHistoryCallback"
        )
    return recorder


def _check_numbers(chunk_samples: int | None, max_queue_bytes: int) -> None:
    if chunk_samples is not None and (type(chunk_samples) is not int or chunk_samples < 0):
        raise ConfigError(
            f"chunk_samples is {chunk_samples!r}; pass a number of chunks, 0 for none or None for all"
        )
    if type(max_queue_bytes) is not int or max_queue_bytes <= 0:
        raise ConfigError(f"max_queue_bytes is {max_queue_bytes!r}; it must be above zero")
