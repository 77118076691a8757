"""Who flushes is told of each loss, whenever it happened."""

from __future__ import annotations

import pytest

from recorder.core.clock import monotonic_us
from recorder.core.waitable import Wait
from recorder.errors import StoreError
from recorder.recording.flushes import Flushes
from recorder.recording.queue import RecordingQueue
from tests.oracle import run_start, started

LOSS = StoreError("2 tokens were not stored")


@pytest.fixture
def queue() -> RecordingQueue:
    """A queue that holds the start of a run, at offset 1."""
    queue = RecordingQueue(2**20)
    started(queue, run_start(0), monotonic_us())
    return queue


def assert_told(wait: Wait[None]) -> None:
    """The flush is over, and raises the loss."""
    with pytest.raises(StoreError, match="2 tokens were not stored"):
        wait.wait(0)


def test_a_loss_is_told_to_those_who_wait_for_it(queue: RecordingQueue) -> None:
    """Each of them raises it, and whoever flushes afterwards does not."""
    flushes = Flushes(queue)
    waits = [flushes.add(), flushes.add()]
    flushes.accept_new()
    flushes.fail(queue.drain(2**20).queue_offset, LOSS)
    for wait in waits:
        assert_told(wait)
    flushes.add().wait(0)


def test_a_loss_that_nobody_waited_for(queue: RecordingQueue) -> None:
    """The next flush raises it, and the one after that does not."""
    flushes = Flushes(queue)
    flushes.fail(queue.drain(2**20).queue_offset, LOSS)
    assert_told(flushes.add())
    flushes.add().wait(0)


def test_a_flush_that_the_writer_has_not_seen_raises_the_loss(queue: RecordingQueue) -> None:
    """The flush came before the loss, also where another one waits already."""
    flushes = Flushes(queue)
    seen = flushes.add()
    flushes.accept_new()
    unseen = flushes.add()
    flushes.fail(queue.drain(2**20).queue_offset, LOSS)
    assert_told(seen)
    assert_told(unseen)
    flushes.add().wait(0)


def test_a_flush_that_waits_for_more_than_was_lost_raises_the_loss(queue: RecordingQueue) -> None:
    """Its end would say that everything before it is stored."""
    flushes = Flushes(queue)
    earlier = flushes.add()
    flushes.accept_new()
    lost = queue.drain(2**20).queue_offset
    started(queue, run_start(1), monotonic_us())
    later = flushes.add()
    flushes.accept_new()
    flushes.fail(lost, LOSS)
    assert_told(earlier)
    assert_told(later)
    flushes.settle(queue.drain(2**20).queue_offset)
    flushes.add().wait(0)


def test_of_several_losses_the_next_flush_raises_the_last(queue: RecordingQueue) -> None:
    """Nobody waited for any of them; the flush after that one ends well."""
    flushes = Flushes(queue)
    flushes.fail(1, StoreError("1 token was not stored"))
    flushes.fail(queue.drain(2**20).queue_offset, LOSS)
    assert_told(flushes.add())
    flushes.add().wait(0)
