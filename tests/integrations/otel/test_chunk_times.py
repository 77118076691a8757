"""Pauses between chunks are collected over all commits of a run."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from recorder.integrations.otel.chunk_times import ChunkTimes
from recorder.storage.rows import SegmentRow


def segment(seq: int, *times_us: int) -> SegmentRow:
    """Return a row of tokens with these times."""
    return SegmentRow("run", seq, len(times_us), json.dumps([[at, "x"] for at in times_us]))


def test_tokens_of_one_time_are_one_chunk() -> None:
    """A pause is between two chunks, also of two commits."""
    chunks = ChunkTimes(None)
    chunks.add([segment(0, 10, 10, 30)])
    chunks.add([segment(3, 60), segment(4, 60, 61)])
    assert chunks.pauses_us == [20, 30, 1]


def test_no_pause_is_measured_over_missing_tokens() -> None:
    """A gap would look like a slow provider."""
    chunks = ChunkTimes(None)
    chunks.add([segment(0, 10, 20), segment(7, 9_000, 9_005)])
    assert chunks.pauses_us == [10, 5]


@given(st.lists(st.integers(1, 9), max_size=40), st.integers(1, 8))
def test_a_sample_is_evenly_spread(sizes: list[int], limit: int) -> None:
    """However the tokens are cut into commits, every so many pauses one is kept, from the first one on."""
    chunks, every, seq, at = ChunkTimes(limit), [], 0, 0
    for size in sizes:
        times = [at + number * (number + seq + 1) + 1 for number in range(size)]
        times = sorted(set(times))
        chunks.add([segment(seq, *times)])
        every += times
        seq, at = seq + len(times), times[-1]
    pauses = [after - before for before, after in pairwise(every)]
    stride = 1
    while len(pauses[::stride]) > limit:
        stride *= 2
    assert chunks.pauses_us == pauses[::stride]


def test_none_can_be_kept() -> None:
    """A limit of 0 measures no pause."""
    chunks = ChunkTimes(0)
    chunks.add([segment(0, 1, 2, 3)])
    assert chunks.pauses_us == []
