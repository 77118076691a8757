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


def test_a_loss_while_the_writer_has_not_seen_the_flush(queue: RecordingQueue) -> None:
    """The flush came before the loss, and raises it once it is seen."""
    flushes = Flushes(queue)
    wait = flushes.add()
    flushes.fail(queue.drain(2**20).queue_offset, LOSS)
    assert not wait.done
    flushes.accept_new()
    flushes.settle(flushes.settled)
    assert_told(wait)
