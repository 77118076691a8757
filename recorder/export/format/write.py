"""Turns rows into the lines of an export."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain
from typing import Any

import orjson

from recorder.core.clock import iso, now
from recorder.core.json import dumps
from recorder.errors import StoreError
from recorder.export.format.shapes import FORMAT, KINDS, VERSION, Checksums, Row, object_of
from recorder.storage.compression import decompress
from recorder.storage.frame_block import split
from recorder.storage.rows import ROWS_OF_A_RUN, AnnotationRow, FrameRow, GapRow, RunRow, SegmentRow


def write(rows: Iterable[Row], *, source: str = "", at: datetime | None = None) -> Iterator[str]:
    """Yield the lines of an export, each with its line end. `source` and `at` go into the header.

    A conversation must come before its messages and runs, and a run directly before its segments, frames, gaps and
    annotations. Annotations of messages without a run come after the messages. Raises `StoreError` for a row of a run
    that is not the last one.
    """
    writer = _LineWriter()
    yield from _encoded(_header(source, at or now()))
    for row in rows:
        for line in writer.lines(row):
            yield from _encoded(line)
    for line in writer.end():
        yield from _encoded(line)


def _header(source: str, at: datetime) -> dict[str, Any]:
    return {"format": FORMAT, "version": VERSION, "exported_at": iso(at), "source": source}


def _encoded(line: Any) -> Iterator[str]:
    try:
        yield orjson.dumps(line).decode() + "\n"
    except TypeError:  # a lone surrogate, or an integer of more than 64 bits
        yield dumps(line) + "\n"


class _LineWriter:
    def __init__(self) -> None:
        self._run: RunRow | None = None
        self._checksums = Checksums()
        self._runs = 0

    def lines(self, row: Row) -> Iterator[Any]:
        """The lines of one row. If it does not belong to the current run, the end of that run comes first."""
        if isinstance(row, ROWS_OF_A_RUN) and not (isinstance(row, AnnotationRow) and row.is_without_run):
            yield from self._of_the_run(row)
            return
        yield from self._end_of_run()
        if isinstance(row, RunRow):
            self._run = row
            self._runs += 1
            yield [0, "run", object_of(row)]
        else:
            yield [None, KINDS[type(row)], object_of(row)]

    def end(self) -> Iterator[Any]:
        """The lines that end the last run and the export."""
        yield from self._end_of_run()
        yield [None, "eof", {"runs": self._runs}]

    def _end_of_run(self) -> Iterator[Any]:
        run, self._run = self._run, None
        if run is not None:
            ended = None if run.ended_at is None else _since(run, run.ended_at)
            yield [ended, "end", self._checksums.fields()]
            self._checksums = Checksums()

    def _of_the_run(self, row: SegmentRow | FrameRow | GapRow | AnnotationRow) -> Iterator[Any]:
        run = self._run
        if run is None or row.run_id != run.id:
            before = "no run" if run is None else f"run {run.id}"
            raise StoreError(f"A row of run {row.run_id} comes after {before}; rows are written run by run")
        if isinstance(row, SegmentRow):
            self._checksums.add_segment(row)
            yield from _segment(row)
        elif isinstance(row, FrameRow):
            yield from self._frames(row)
        elif isinstance(row, GapRow):
            yield [None, "gap", row.seq, row.count, row.reason]
        else:
            yield [_since(run, row.created_at), "annotation", object_of(row)]

    def _frames(self, row: FrameRow) -> Iterator[Any]:
        try:
            found = split(decompress(row.data, row.dictionary))
        except StoreError:
            found = []
        if len(found) != row.count or row.count == 0 or found[0][0] != row.at_us:
            # The stored row is damaged: its bytes are copied, so that the import has the same damage.
            self._checksums.add_frames(row.count, row.data)
            numbers = [row.seq, row.first_delta, row.count, row.dictionary]
            yield [row.at_us, "stored", *numbers, base64.b64encode(row.data).decode()]
            return
        self._checksums.add_frames(row.count, b"".join(frame for _, frame in found))
        yield [row.at_us, "frames", row.seq, row.first_delta, row.count]
        for at_us, frame in found:
            yield _frame(at_us, frame)


def _segment(row: SegmentRow) -> Iterator[Any]:
    """One line for each token; one line with the stored text if the tokens would not give the same text."""
    lines = _tokens(row)
    if lines is None:
        yield [None, "segment", row.seq, row.count, row.deltas]
        return
    yield from chain([[lines[0][0], "segment", row.seq, row.count]], lines)


def _tokens(row: SegmentRow) -> list[list[Any]] | None:
    try:
        items = orjson.loads(row.deltas)
        if len(items) != row.count or not items or orjson.dumps(items).decode() != row.deltas:
            return None
        return [_token(*item) for item in items]
    except (ValueError, TypeError):
        return None


def _token(at_us: int, text: str, kind: str | None = None, idx: str | None = None) -> list[Any]:
    if type(at_us) is not int or type(text) is not str:
        raise ValueError
    if kind is None:
        return [at_us, "text", text]
    if type(kind) is not str or type(idx) is not str:
        raise ValueError
    return [at_us, kind, text, idx]


def _frame(at_us: int, frame: bytes) -> list[Any]:
    try:
        return [at_us, "frame", frame.decode()]
    except UnicodeDecodeError:
        return [at_us, "frame64", base64.b64encode(frame).decode()]


def _since(run: RunRow, moment: datetime) -> int:
    """Microseconds from the run's start."""
    passed = moment - run.started_at
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds
