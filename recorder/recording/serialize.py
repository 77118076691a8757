"""Turns what was drained of runs into the rows that are stored: JSON, hashes, compression. No I/O.

Each step handles a whole batch in few calls into C. Beside an application that keeps its thread busy, each time that
Python's global lock changes hands costs up to 5 ms.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from itertools import groupby
from typing import NamedTuple

import orjson

from recorder.core.escaping import escape
from recorder.core.thread_yield import ThreadYield
from recorder.recording.buffer import DrainedRun, Frames, OpenRun, StoredToken, Tokens
from recorder.recording.run_totals import RunTotals
from recorder.storage.batch import RunRows, RunSeal
from recorder.storage.compression import compress
from recorder.storage.frame_block import join
from recorder.storage.rows import STREAMING, FrameRow, GapRow, RunEnd, SegmentRow

log = logging.getLogger("recorder")

#: The most tokens, and the most frames, in one row. Readers read page by page, so rows stay small.
MAX_ROW_TOKENS = 2_000
MAX_ROW_FRAMES = 1_000

#: The reason of the gap of a run that continues in another file, where its first tokens are missing.
MOVED = "stored before the file was moved, deleted, replaced or damaged"


def serialize(drained: Sequence[DrainedRun], file: int = 0) -> list[RunRows]:
    """The rows of a batch, sorted by run, so that two writers never lock rows in opposite order.

    `file` is the number of the database file that they are stored in, counted over the recorder's files.
    """
    yield_thread = ThreadYield()
    found: list[RunRows] = []
    frames = FrameCompressor()
    for part in sorted(drained, key=lambda part: part.run.start.run_id):
        try:
            found.append(_serialize_run(part, frames, file))
        except Exception:  # a bug in recorder; it must not stop the recording of this run or of others
            log.exception(
                "Tokens of run %s could not be serialized; please report this", part.run.start.run_id
            )
            found.append(without_tokens(part, file))
            frames.discard_last(part.run)
        yield_thread()
    frames.compress()
    return found


class UncompressedRow(NamedTuple):
    """A row of frames before compression."""

    rows: RunRows
    totals: RunTotals
    #: The columns before the data: run, number of the first frame and of the first token, count, time of the first.
    columns: tuple[str, int, int, int, int]
    data: bytes


class FrameCompressor:
    """Collects the frames of a batch and compresses them in one call."""

    def __init__(self) -> None:
        self._pending: list[UncompressedRow] = []

    def add(
        self, rows: RunRows, totals: RunTotals, numbers: tuple[int, int], data: list[bytes], at_us: list[int]
    ) -> None:
        """Add one row of frames. `numbers` are those of its first frame and of its first token."""
        columns = (rows.start.run_id, *numbers, len(data), at_us[0])
        self._pending.append(UncompressedRow(rows, totals, columns, join(data, at_us)))

    def discard_last(self, run: OpenRun) -> None:
        """Remove the rows of this run if it was added last."""
        while self._pending and self._pending[-1].rows.start is run.start:
            self._pending.pop()

    def compress(self) -> None:
        """Set the frames of each run; if compressing all in one call fails, each run is compressed by itself."""
        try:
            compressed = _compressed(self._pending)
        except Exception:  # not enough memory for all of them
            compressed = []
        done = 0
        for _, group in groupby(self._pending, key=lambda row: id(row.rows)):
            pending = [*group]
            try:
                pending[0].rows.frames = compressed[done : done + len(pending)] or _compressed(pending)
            except Exception:
                _leave_out_frames(pending[0])
            done += len(pending)


def _compressed(pending: Sequence[UncompressedRow]) -> list[FrameRow]:
    compressed = compress([row.data for row in pending], [row.rows.start.wire for row in pending])
    return [FrameRow(*row.columns, *data) for row, data in zip(pending, compressed, strict=True)]


def _leave_out_frames(row: UncompressedRow) -> None:
    """Without all of its frames, the run gets no hash of them, now or at its end."""
    log.exception("Frames of run %s could not be compressed and are left out", row.rows.start.run_id)
    row.totals.frames_lost = True
    if row.rows.seal is not None:
        row.rows.seal.frames_sha256 = None


def gap_of_move(run_id: str, count: int) -> list[GapRow]:
    """The gap of a run whose first `count` tokens are in another file."""
    return [GapRow(run_id, 0, count, MOVED)] if count else []


def _begin_rows(drained: DrainedRun, file: int) -> tuple[RunRows, RunTotals]:
    run = drained.run
    totals = run.totals = run.totals or RunTotals(file=file)
    rows = RunRows(run.start, opens=not totals.row_serialized, bytes=drained.bytes)
    totals.row_serialized = True
    return rows, totals


def _serialize_run(drained: DrainedRun, frames: FrameCompressor, file: int) -> RunRows:
    run = drained.run
    rows, totals = _begin_rows(drained, file)
    if totals.file != file:  # the run was idle while the file changed, and streams again
        rows.gaps = gap_of_move(run.start.run_id, totals.next_seq)
        totals.restart(file)
    for tokens in drained.tokens:
        _serialize_tokens(rows, totals, tokens)
    for each in drained.frames:
        _serialize_frames(rows, totals, each, frames)
    if drained.gaps:
        rows.gaps = [*rows.gaps, *(GapRow(run.start.run_id, *gap) for gap in drained.gaps)]
        totals.next_seq = max(totals.next_seq, *(seq + count for seq, count, _ in drained.gaps))
    rows.seal = _seal(drained, totals)
    return rows


def _seal(drained: DrainedRun, totals: RunTotals) -> RunSeal | None:
    run, end = drained.run, drained.end
    if end is None:
        return _reopening() if drained.reopened else None
    if totals.first_token_us is not None:
        end.first_token_at = run.start.started_at + timedelta(microseconds=totals.first_token_us)
    frames_sha256 = totals.frames_sha256(accepted=run.first_frame)
    seal = RunSeal(end, totals.token_count, totals.tokens_sha256(), frames_sha256)
    seal.metadata = run.start.mask.new_metadata() if run.start.mask is not None else None
    if (redacts := run.start.redacts) is not None:
        seal.metadata, seal.redaction = redacts.json(seal.metadata), redacts.counted
    return seal


def _reopening() -> RunSeal:
    """Sets the row of a reopened run to streaming, in place of the end that was stored when it was idle."""
    return RunSeal(RunEnd(STREAMING, None), 0, None, None)


def without_tokens(drained: DrainedRun, file: int) -> RunRows:
    """The run's rows with gaps in place of its tokens. From now on the run gets no hash."""
    run = drained.run
    rows, totals = _begin_rows(drained, file)
    totals.tokens_lost = True
    reason = "could not be packed"
    rows.gaps = [GapRow(run.start.run_id, part.seq, len(part), reason) for part in drained.tokens]
    rows.gaps += [GapRow(run.start.run_id, *gap) for gap in drained.gaps]
    totals.next_seq = max([totals.next_seq, *(row.seq + row.count for row in rows.gaps)])
    rows.unserialized = sum(map(len, drained.tokens))
    if drained.end is not None:
        rows.seal = RunSeal(drained.end, totals.token_count, None, None)
    elif drained.reopened:
        rows.seal = _reopening()
    return rows


def _serialize_tokens(rows: RunRows, totals: RunTotals, tokens: Tokens) -> None:
    every = tokens.items()
    if totals.first_token_us is None and every:
        totals.first_token_us = every[0][0]
    for start in range(0, len(every), MAX_ROW_TOKENS):
        items = every[start : start + MAX_ROW_TOKENS]
        text = encode_deltas(items)
        totals.add_tokens(len(items), text)
        rows.tokens += len(items)
        row = SegmentRow(rows.start.run_id, tokens.seq + start, len(items), text.decode())
        rows.segments = [*rows.segments, row]
    totals.next_seq = tokens.seq + len(every)


def encode_deltas(items: Sequence[StoredToken]) -> bytes:
    """The tokens as stored JSON (UTF-8)."""
    try:
        text = orjson.dumps(items)
        if b"\\u0000" not in text and b"\xef\xb7\x90" not in text:
            return text
    except TypeError:  # a lone surrogate
        pass
    return orjson.dumps([(item[0], *map(escape, item[1:])) for item in items])


def _serialize_frames(rows: RunRows, totals: RunTotals, frames: Frames, pending: FrameCompressor) -> None:
    every, at_us = frames.data, frames.at_us
    for start in range(0, len(every), MAX_ROW_FRAMES):
        data = every[start : start + MAX_ROW_FRAMES]
        joined = b"".join(data)
        # Frames are masked here and not in `put_frame`: one search through a whole row, off the application's thread.
        if (mask := rows.start.mask) is not None and mask.is_in(joined):
            data = mask.frames(data)
            joined = b"".join(data)
        totals.add_frames(len(data), joined)
        times = at_us[start : start + MAX_ROW_FRAMES]
        # All rows made of one `Frames` have the same first token: a reader that seeks starts at this row or earlier.
        pending.add(rows, totals, (frames.seq + start, frames.first_delta), data, times)
