"""Runs that continue in another file, because the file they began in was moved, deleted, replaced or damaged.

The new file gets the row of each run, and one gap for the tokens that are in the old file. Token counts and hashes
start again, so that a run's end describes what is stored in the same file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from recorder.recording.buffer import OpenRun
from recorder.recording.run_totals import RunTotals
from recorder.recording.serialize import gap_of_move
from recorder.storage.batch import Part, RunRows
from recorder.storage.rows import STREAMING, SegmentRow


def begun_elsewhere(runs: Iterable[OpenRun], unsettled: Sequence[Part], file: int) -> list[RunRows]:
    """The rows of the runs that began in the previous file; they are stored first in the file with this number.

    `unsettled` is stored afterwards, for these runs and others; the places of its messages are computed again.
    """
    for part in unsettled:
        part.threaded = False
    rows = [part for part in unsettled if isinstance(part, RunRows)]
    rows.sort(key=_run_id)
    by_run = {run_id: [*group] for run_id, group in groupby(rows, _run_id)}
    moved = [_moved(run, by_run.get(run.start.run_id, []), file) for run in runs]
    return sorted(filter(None, moved), key=_run_id)


def _moved(run: OpenRun, unsettled: Sequence[RunRows], file: int) -> RunRows | None:
    """The run's own row and its gap; None if the run begins in the new file."""
    totals = run.totals
    assert totals is not None
    if any(rows.opens for rows in unsettled):
        totals.file = file
        return None
    numbers = [row.seq for rows in unsettled for row in rows.segments]
    numbers += [row.seq for rows in unsettled for row in rows.gaps]
    first = min(numbers, default=totals.next_seq)
    _recount(totals, unsettled, file)
    return RunRows(run.start, opens=True, gaps=gap_of_move(run.start.run_id, first), threaded=True)


def _recount(totals: RunTotals, unsettled: Sequence[RunRows], file: int) -> None:
    frames = sum(row.count for rows in unsettled for row in rows.frames)
    totals.restart(file, frames_stored=frames)
    segments = [row for rows in unsettled for row in rows.segments]
    for row in sorted(segments, key=_seq):
        totals.add_tokens(row.count, row.deltas.encode())
    for rows in unsettled:
        if rows.seal is not None and rows.seal.end.status != STREAMING:
            rows.seal.token_count, rows.seal.sha256 = totals.token_count, totals.tokens_sha256()
            rows.seal.frames_sha256 = None if totals.frames_lost else rows.seal.frames_sha256


def _run_id(rows: RunRows) -> str:
    return rows.start.run_id


def _seq(row: SegmentRow) -> int:
    return row.seq
