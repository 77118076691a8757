"""Few recent frames of a run are delayed; tests/recording/test_queue.py tests what the queue does with them."""

from __future__ import annotations

from math import inf

import pytest

from recorder.core.clock import monotonic_us
from recorder.recording.buffer import OpenRun
from recorder.recording.delayed_frames import FRAME_COST, DelayedFrames
from tests.oracle import run_end, run_start

HOUR_US = 3_600_000_000


def run_with(*frames: bytes, at_us: int = 0) -> OpenRun:
    """A run that begins now and has these frames."""
    run = OpenRun(run_start(), monotonic_us())
    for frame in frames:
        run.append((), frame, at_us)
    return run


def test_few_recent_frames_are_delayed_and_counted() -> None:
    """`delay` returns their bytes, which stay counted in the queue."""
    delayed = DelayedFrames(HOUR_US)
    assert delayed.delay(run_with(b"one", b"three")) == 8 + 2 * FRAME_COST
    assert 3_590 < delayed.seconds_until_due() <= 3_600


@pytest.mark.parametrize(
    "run",
    [run_with(), run_with(b"old", at_us=-2 * HOUR_US), run_with(b"x" * 70_000)],
    ids=["none", "old", "many"],
)
def test_frames_are_not_delayed_when_they_are_none_old_or_many(run: OpenRun) -> None:
    """The run has no frames, or they came two hours ago, or they fill a row."""
    delayed = DelayedFrames(HOUR_US)
    assert (delayed.delay(run), delayed.seconds_until_due()) == (0, inf)


def test_the_frames_of_an_ended_run_are_not_delayed() -> None:
    """No more frames will come."""
    delayed, run = DelayedFrames(HOUR_US), run_with(b"last")
    run.ended, run.end = True, run_end()
    assert delayed.delay(run) == 0


def test_frames_after_a_dropped_frame_are_not_delayed() -> None:
    """The frames before the dropped one are drained now, and later frames together with them."""
    delayed, run = DelayedFrames(HOUR_US), run_with(b"before")
    run.drop(0, 1)
    run.append((), b"after", 0)
    assert delayed.delay(run) == 0


def test_runs_are_due_once_in_the_order_of_their_frames() -> None:
    """A run that was delayed twice is due once, and a run whose frames were drained meanwhile is not due."""
    delayed = DelayedFrames(HOUR_US)
    runs = [run_with(b"a"), run_with(b"b"), run_with(b"c")]
    for run in [*runs, *runs]:
        delayed.delay(run)
    runs[1].freeze()
    assert list(delayed.pop_due(monotonic_us())) == []
    assert list(delayed.pop_due(inf)) == [runs[0], runs[2]]
    assert list(delayed.pop_due(inf)) == []
    delayed.delay(runs[2])
    assert list(delayed.pop_due(inf)) == [runs[2]]
