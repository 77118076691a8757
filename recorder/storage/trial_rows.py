"""Rows for a trial: they are inserted and rolled back, to see whether the database accepts rows at all."""

from __future__ import annotations

from recorder.core.clock import now
from recorder.core.ids import new_id
from recorder.storage.rows import (
    COMPLETE,
    Batch,
    FrameRow,
    GapRow,
    MessageRow,
    Producer,
    RunEnd,
    RunRows,
    RunSeal,
    RunStart,
    SegmentRow,
)


def rows_to_try(producer: Producer) -> Batch:
    """An invented run with a row for each table that recorder writes."""
    run_id, conversation_id, moment = new_id(), new_id(), now()
    rows = RunRows(
        RunStart(run_id, conversation_id, True, moment),
        opens=True,
        messages=[MessageRow(conversation_id, new_id(), None, 0, "human", "", None, None, moment)],
        segments=[SegmentRow(run_id, 0, 1, '[[0,""]]')],
        frames=[FrameRow(run_id, 0, 0, 1, 0, b"", None)],
        gaps=[GapRow(run_id, 1, 1, "tried")],
        seal=RunSeal(RunEnd(COMPLETE, moment), 1, None, None),
    )
    return Batch(producer, [rows])
