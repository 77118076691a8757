"""Rows for a trial: they are inserted and rolled back, to see whether the database accepts rows at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import chain

from recorder.core.clock import now
from recorder.core.ids import new_id
from recorder.storage.batch import Addition, Batch, Part, RunRows, RunSeal
from recorder.storage.rows import (
    COMPLETE,
    ContextMessageRow,
    FrameRow,
    GapRow,
    MessageRow,
    Producer,
    RunEnd,
    RunStart,
    SegmentRow,
)


def rows_to_try(producer: Producer, size: int = 0) -> Batch:
    """An invented run of about `size` bytes, with a row for each table that recorder writes."""
    run_id, conversation_id, moment = new_id(), new_id(), now()
    rows = RunRows(
        RunStart(run_id, conversation_id, True, moment),
        opens=True,
        messages=[MessageRow(conversation_id, new_id(), None, 0, "human", "", None, None, moment, 0)],
        context=[ContextMessageRow(conversation_id, new_id(), "system", "", None, moment)],
        segments=[SegmentRow(run_id, 0, 1, '[[0,""]]')],
        frames=[FrameRow(run_id, 0, 0, 1, 0, os.urandom(size), None)],
        gaps=[GapRow(run_id, 1, 1, "tried")],
        seal=RunSeal(RunEnd(COMPLETE, moment), 1, None, None),
    )
    return Batch(producer, [rows])


def size_of_rows(parts: Iterable[Part]) -> int:
    """How many bytes or characters the rows of these parts have, without numbers and times."""
    rows = chain.from_iterable(map(_rows_of, parts))
    return sum(len(value) for row in rows for value in row if isinstance(value, (str, bytes)))


def _rows_of(part: Part) -> Iterator[Iterable[object]]:
    yield from part.messages
    if isinstance(part, Addition):
        yield from (*part.annotations, part.details.values())
    else:
        yield from (*part.context, *part.segments, *part.frames, *part.gaps)
        yield part.start.request, part.start.metadata, part.start.tags
