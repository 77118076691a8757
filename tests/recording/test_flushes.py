"""Each loss of tokens is raised by all flushes that wait at that moment, or else by the next flush."""

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


def assert_raises_loss(wait: Wait[None]) -> None:
    """The flush is over and raises the loss."""
    with pytest.raises(StoreError, match="2 tokens were not stored"):
        wait.wait(0)


def test_a_loss_is_raised_by_each_waiting_flush(queue: RecordingQueue) -> None:
    """A flush that begins afterwards does not raise it."""
    flushes = Flushes(queue)
    waits = [flushes.add(), flushes.add()]
    flushes.accept_new()
    flushes.fail(queue.drain(2**20).queue_offset, LOSS)
    for wait in waits:
        assert_raises_loss(wait)
    flushes.add().wait(0)


def test_a_loss_is_raised_by_the_next_flush_when_none_waits(queue: RecordingQueue) -> None:
    """The flush after that does not raise it."""
    flushes = Flushes(queue)
    flushes.fail(queue.drain(2**20).queue_offset, LOSS)
    assert_raises_loss(flushes.add())
    flushes.add().wait(0)


def test_a_flush_that_the_writer_has_not_accepted_raises_the_loss(queue: RecordingQueue) -> None:
    """It began before the loss, and an accepted flush waits beside it."""
    flushes = Flushes(queue)
    seen = flushes.add()
    flushes.accept_new()
    unseen = flushes.add()
    flushes.fail(queue.drain(2**20).queue_offset, LOSS)
    assert_raises_loss(seen)
    assert_raises_loss(unseen)
    flushes.add().wait(0)


def test_a_flush_that_waits_for_more_than_was_lost_raises_the_loss(queue: RecordingQueue) -> None:
    """A flush that ended without an error would claim that everything before it is stored."""
    flushes = Flushes(queue)
    earlier = flushes.add()
    flushes.accept_new()
    lost = queue.drain(2**20).queue_offset
    started(queue, run_start(1), monotonic_us())
    later = flushes.add()
    flushes.accept_new()
    flushes.fail(lost, LOSS)
    assert_raises_loss(earlier)
    assert_raises_loss(later)
    flushes.settle(queue.drain(2**20).queue_offset)
    flushes.add().wait(0)


def test_the_next_flush_raises_the_last_of_several_losses(queue: RecordingQueue) -> None:
    """No flush waited for them, and the flush after that one does not raise."""
    flushes = Flushes(queue)
    flushes.fail(1, StoreError("1 token was not stored"))
    flushes.fail(queue.drain(2**20).queue_offset, LOSS)
    assert_raises_loss(flushes.add())
    flushes.add().wait(0)


def test_a_flush_that_ends_while_the_writer_looks_at_it_ends_once(
    queue: RecordingQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flush takes itself out of the new ones on its own thread; the writer takes the others."""
    flushes = Flushes(queue)
    ended, waiting = flushes.add(), flushes.add()
    drain = queue.request_full_drain

    def meanwhile() -> int:
        flushes._new.remove(ended)
        return drain()

    monkeypatch.setattr(queue, "request_full_drain", meanwhile)
    flushes.accept_new()
    flushes.settle(queue.drain(2**20).queue_offset)
    assert (ended.done, waiting.done) == (False, True)


def test_a_flush_that_finds_the_queue_empty_while_a_loss_is_reported_raises_it(
    queue: RecordingQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss is there before the queue counts as settled."""
    flushes = Flushes(queue)
    offset = queue.drain(2**20).queue_offset
    found: list[Wait[None]] = []

    def settled(self: Flushes, value: int) -> None:
        self.__dict__["settled"] = value
        if value == offset:
            found.append(self.add())

    monkeypatch.setattr(Flushes, "__setattr__", lambda self, name, value: (
        settled(self, value) if name == "settled" else object.__setattr__(self, name, value)
    ))  # fmt: skip
    flushes.fail(offset, LOSS)
    assert_raises_loss(found[0])
