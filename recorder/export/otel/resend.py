"""Sends stored runs and evaluations to a collector again, with their original times and ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from recorder.export.counts import Progress
from recorder.export.ended_runs import EndedRuns
from recorder.export.exporter import wanted_runs
from recorder.export.otel.conventions import DEFAULT, check_content, conventions_of
from recorder.export.otel.evaluations import Evaluations
from recorder.export.otel.otlp import Otlp
from recorder.export.otel.spans import Spans
from recorder.export.otel.stored_spans import StoredSpans
from recorder.export.otel.traced_run import from_row
from recorder.export.row_reader import CONVERSATIONS, RUNS, RowReader, RunKey, batches
from recorder.storage.rows import AnnotationRow, RunRow

#: After so many pages in a row that a collector has not accepted, it is taken to be away.
_MOST_FAILED_PAGES = 3


@dataclass(slots=True)
class Resent:
    """The result of an export of stored runs."""

    #: The collector has accepted them.
    spans: int = 0
    evaluations: int = 0
    #: It has not accepted so many spans and evaluations, although they were sent more than once.
    failed: int = 0
    #: Whether the rest was not sent, because nothing was accepted any more.
    stopped: bool = False
    #: Ids of the runs that still stream; they are not sent.
    left_out: list[str] = field(default_factory=list)


def resend(
    url: str, ids: Sequence[str] | None = None, *, endpoint: str | None = None, conventions: str = DEFAULT,
    content: bool = False, progress: Progress | None = None,
) -> Resent:  # fmt: skip
    """Send stored runs as spans, and evaluations as events, to a collector over OTLP/HTTP.

    `url` is the database. `ids` are ids of conversations and runs, or their beginnings; None is everything. `endpoint`
    is the collector, "http://localhost:4318"; None is `OTEL_EXPORTER_OTLP_ENDPOINT`. OpenTelemetry's other variables
    hold, too: headers, certificates, the timeout, the resource. `conventions` and `content` are as in
    `OpenTelemetryExporter`. Ids and times are those of the live export, so a backend that knows them stores nothing
    twice. Metrics are not sent again. `progress` gets the number of runs that are done, and of all runs. Raises
    `NotFound`, `ConfigError` and `StoreError`.
    """
    names = conventions_of(conventions)
    if content:
        check_content(names)
    with closing(RowReader(url)) as reader, closing(Otlp(endpoint)) as otlp:
        work = _Resending(
            reader,
            otlp,
            Spans(otlp.tracer_provider, names, content=content),
            Evaluations(otlp.logger_provider, names, content=content),
            content=content,
        )
        work.send_all(None if ids is None else wanted_runs(reader, ids), progress)
        return work.done


class _Resending:
    """Reads a page of runs, sends it, and goes on. In memory is one page."""

    def __init__(
        self, reader: RowReader, otlp: Otlp, spans: Spans, evaluations: Evaluations, *, content: bool
    ) -> None:
        self._reader, self._otlp, self._content = reader, otlp, content
        self._spans, self._evaluations = spans, evaluations
        self._places, self._runs = StoredSpans(reader), EndedRuns(reader)
        self._failed_pages = 0
        self.done = Resent(left_out=self._runs.left_out)

    def send_all(self, wanted: dict[str, set[str] | None] | None, progress: Progress | None) -> None:
        """Send the runs of these conversations, and the evaluations; everything if None."""
        total = self._reader.run_count() if wanted is None and progress is not None else None
        count = 0
        for keys in batches(self._keys(wanted), RUNS):
            self._send_runs(self._runs.ended(keys))
            count += len(keys)
            if progress is not None:
                progress(count, total)
            if self.done.stopped:
                return
        complete = None if wanted is None else [id for id, runs in wanted.items() if runs is None]
        for rows in batches(self._reader.annotations_of_messages(complete), RUNS):
            for row in rows:
                self._evaluations.emit(row, None)
            self._send(0, len(rows))
            if self.done.stopped:
                return

    def _keys(self, wanted: dict[str, set[str] | None] | None) -> Iterator[RunKey]:
        if wanted is None:
            yield from self._reader.all_run_keys()
            return
        for page in batches(wanted, CONVERSATIONS):
            for id, keys in self._reader.run_keys(page).items():
                only = wanted[id]
                yield from (key for key in keys if only is None or key.id in only)

    def _send_runs(self, keys: Sequence[RunKey]) -> None:
        runs = [*self._runs.read(keys)]
        if not runs:
            return
        annotations = self._reader.annotations_of([run.id for run in runs])
        evaluations = 0
        for run in runs:
            self._write_span(run)
            for row in annotations.of_run(run.id):
                evaluations += self._write_event(row)
        self._send(len(runs), evaluations)

    def _write_span(self, row: RunRow) -> None:
        run = from_row(row)
        if self._content and not run.is_step:
            run.messages, run.replies = self._reader.content(run.id)
        self._spans.end(self._spans.start(run, self._places.parent_of(run)), run)

    def _write_event(self, row: AnnotationRow) -> bool:
        return self._evaluations.emit(row, self._places.span_of(row.run_id))

    def _send(self, spans: int, evaluations: int) -> None:
        failed_spans, failed_events = self._otlp.send()
        self.done.spans += spans - failed_spans
        self.done.evaluations += max(0, evaluations - failed_events)
        self.done.failed += failed_spans + failed_events
        self._failed_pages = self._failed_pages + 1 if failed_spans or failed_events else 0
        self.done.stopped = self._failed_pages >= _MOST_FAILED_PAGES
