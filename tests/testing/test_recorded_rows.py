"""The rows of a text recording: merged by key, and in the order of an export."""

from __future__ import annotations

import random
from datetime import timedelta
from uuid import UUID

from recorder.export.format import Row
from recorder.storage.rows import RunRow
from recorder.testing.recorded_rows import RecordedRows
from tests.export.test_format import (
    ANNOTATION,
    CONTEXT,
    CONVERSATION,
    EVERYTHING,
    MESSAGE,
    PRODUCER,
    RUN,
    START,
    segment,
)

SECOND = str(UUID(int=20))


def run_of(conversation_id: str, number: int, seconds: int) -> list[Row]:
    """Return a run with one token."""
    id = str(UUID(int=number))
    run = RUN._replace(
        id=id,
        conversation_id=conversation_id,
        started_at=START + timedelta(seconds=seconds),
        producer_id=None,
    )
    return [run, segment(0, (1, "Hi"), run_id=id)]


def test_processes_are_left_out() -> None:
    """Their rows, and their ids in runs; everything else stays as it is, in its order."""
    expected = [row for row in EVERYTHING if row is not PRODUCER]
    expected[expected.index(RUN)] = RUN._replace(producer_id=None)
    assert list(RecordedRows(EVERYTHING)) == expected


def test_the_order_does_not_depend_on_the_order_of_recording() -> None:
    """Conversations are ordered by id, their messages by position, their runs by start."""
    answer = MESSAGE._replace(id=SECOND, parent_id=MESSAGE.id, position=1)
    parts: list[list[Row]] = [
        [CONVERSATION], [CONTEXT], [MESSAGE], [answer], run_of("c", 9, 1), run_of("c", 8, 2),
        [CONVERSATION._replace(id="d")], run_of("d", 7, 0),
    ]  # fmt: skip
    expected = [row for part in parts for row in part]
    for seed in range(20):
        random.Random(seed).shuffle(parts)
        assert list(RecordedRows(row for part in parts for row in part)) == expected


def test_the_later_row_of_a_key_stays() -> None:
    """A run is replaced with all its rows."""
    titled = CONVERSATION._replace(title="Printer")
    rows = RecordedRows([CONVERSATION, *run_of("c", 9, 1), ANNOTATION._replace(run_id=str(UUID(int=9)))])
    rows.add([titled, *run_of("c", 9, 2)])
    assert list(rows) == [titled, *run_of("c", 9, 2)]
    assert sum(isinstance(row, RunRow) for row in rows) == 1
