"""A run or an addition is split into two parts, which hold the same rows in the same order."""

from __future__ import annotations

from typing import Any

import pytest

from recorder.core.clock import now
from recorder.messages import HumanMessage
from recorder.recording.split_batch import halved
from recorder.storage.batch import Added, AddedMessages, Addition, Part, RunRows, RunSeal
from recorder.storage.rows import FrameRow, GapRow, MessageRow, SegmentRow
from tests.oracle import run_end, run_start

START = run_start()
ID = START.run_id


def message(number: int) -> MessageRow:
    """A message row with that number."""
    return MessageRow("c", f"m{number}", None, number, "human", str(number), None, None, now())


def run_of(messages: int, segments: int, frames: int) -> RunRows:
    """The rows of a run with so many of each, its start and its end."""
    return RunRows(
        START,
        opens=True,
        messages=[message(number) for number in range(messages)],
        segments=[SegmentRow(ID, 10 * number, 10, "[]") for number in range(segments)],
        frames=[FrameRow(ID, number, 0, 1, 0, b"", None) for number in range(frames)],
        gaps=[GapRow(ID, 900, 1, "why"), GapRow(ID, 901, 1, "why")],
        seal=RunSeal(run_end(), 10 * segments, None, None),
        threaded=True,
        tokens=10 * segments,
        bytes=1001,
    )


def leaves(part: Part) -> list[Any]:
    """The parts that cannot be split further, in order."""
    halves = halved(part)
    return [part] if halves is None else [leaf for half in halves for leaf in leaves(half)]


@pytest.mark.parametrize("counts", [(0, 0, 0), (0, 1, 0), (1, 0, 1), (3, 2, 0), (0, 7, 5), (9, 0, 0)])
def test_the_parts_hold_all_rows_of_the_run(counts: tuple[int, int, int]) -> None:
    """The run's own row comes with its last message, and its gaps and its end with the last part."""
    rows = run_of(*counts)
    parts = leaves(rows)
    assert len(parts) == sum(counts) + 2
    for name in ("messages", "segments", "frames", "gaps"):
        assert [row for part in parts for row in getattr(part, name)] == getattr(rows, name)
    for name in ("tokens", "bytes"):
        assert sum(getattr(part, name) for part in parts) == getattr(rows, name)
    opening = [place for place, part in enumerate(parts) if part.opens]
    assert opening == [max(0, counts[0] - 1)]
    assert [part.seal is not None for part in parts] == [False] * (len(parts) - 1) + [True]
    assert {part.place for part in parts} == {0}


def test_the_parts_of_an_addition_count_each_message_once() -> None:
    """One of the added messages was stored before."""
    added_messages = [Added(number, now(), HumanMessage(str(number))) for number in range(6)]
    messages = [message(number) for number in range(5)]
    addition = Addition(
        "c", None, now(), AddedMessages.made_of(added_messages), messages, threaded=True, bytes=77
    )
    parts = leaves(addition)
    assert [row for part in parts for row in part.messages] == addition.messages
    assert [each for part in parts for each in part.added] == added_messages
    assert sum(part.bytes for part in parts) == 77
    assert len(parts) == 5
