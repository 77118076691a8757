"""Runs that go on in another file than the one they began in, because that one was moved, deleted or replaced.

The new file gets their rows, and for the tokens that the old one has a gap each. Their counts and hashes begin anew, so
that a run's end tells of what is stored in the file that it stands in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from recorder.recording.buffer import OpenRun
from recorder.recording.serialize import Sealing, gap_of_move
from recorder.storage.rows import STREAMING, Part, RunRows, SegmentRow


def begun_elsewhere(runs: Iterable[OpenRun], left: Sequence[Part], file: int) -> list[RunRows]:
    """The rows to store first in the file with this number: of the runs that began in the one before.

    `left` is what is to be stored of them and of others afterwards; where its messages stand is to be found anew.
    """
    for part in left:
        part.threaded = False
    rows = [part for part in left if isinstance(part, RunRows)]
    rows.sort(key=_run_id)
    of_run = {run_id: [*found] for run_id, found in groupby(rows, _run_id)}
    carried = [_carried(run, of_run.get(run.start.run_id, []), file) for run in runs]
    return sorted(filter(None, carried), key=_run_id)


def _carried(run: OpenRun, left: Sequence[RunRows], file: int) -> RunRows | None:
    """The run's own row and its gap; None of a run that begins in the new file."""
    memory = run.state
    assert isinstance(memory, Sealing)
    if any(rows.opens for rows in left):
        memory.file = file
        return None
    numbers = [row.seq for rows in left for row in rows.segments]
    numbers += [row.seq for rows in left for row in rows.gaps]
    first = min(numbers, default=memory.next)
    _count_anew(memory, left, file)
    return RunRows(run.start, opens=True, gaps=gap_of_move(run.start.run_id, first), threaded=True)


def _count_anew(memory: Sealing, left: Sequence[RunRows], file: int) -> None:
    frames = sum(row.count for rows in left for row in rows.frames)
    memory.begin_again(file, frames_stored=frames)
    segments = [row for rows in left for row in rows.segments]
    for row in sorted(segments, key=_seq):
        memory.add(row.count, row.deltas.encode())
    for rows in left:
        if rows.seal is not None and rows.seal.end.status != STREAMING:
            rows.seal.token_count, rows.seal.sha256 = memory.tokens, memory.proof()
            rows.seal.frames_sha256 = None if memory.frames_lost else rows.seal.frames_sha256


def _run_id(rows: RunRows) -> str:
    return rows.start.run_id


def _seq(row: SegmentRow) -> int:
    return row.seq
