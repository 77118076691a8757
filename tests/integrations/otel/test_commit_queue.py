"""Putting into the queue never waits, and nothing is done twice or lost silently."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from recorder.integrations.otel.commit_queue import CommitQueue


def test_items_are_done_in_their_order_on_another_thread() -> None:
    """`flush` waits for what was put before."""
    done: list[tuple[int, bool]] = []
    here = threading.current_thread()
    queue = CommitQueue[int](
        lambda item: done.append((item, threading.current_thread() is here)), 10_000, "q"
    )
    for number in range(5):
        assert queue.put(number, 1)
    assert queue.flush(10)
    assert done == [(number, False) for number in range(5)]
    assert queue.waiting == 0


def test_what_finds_no_room_is_refused() -> None:
    """One item is always accepted while nothing waits; a flush with too little time says so."""
    held, begun = threading.Event(), threading.Event()

    def work(_item: int) -> None:
        begun.set()
        held.wait(30)

    queue = CommitQueue[int](work, 1_000, "q")
    assert queue.put(1, 1_000_000)
    begun.wait(30)
    assert queue.put(2, 100)
    assert not queue.put(3, 100)
    assert not queue.flush(0.01)
    held.set()
    assert queue.flush(10)


def test_a_failed_item_is_counted_and_the_next_one_is_done(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the first error only."""
    done: list[int] = []
    queue = CommitQueue[int](lambda item: done.append(1 // item), 10_000, "q")
    for number in (0, 0, 1):
        queue.put(number, 1)
    assert queue.flush(10)
    assert (queue.errors, len(caplog.records), done) == (2, 1, [1])


def test_the_thread_ends_when_nothing_comes_and_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that is never closed leaves no thread behind for ever."""
    monkeypatch.setattr("recorder.integrations.otel.commit_queue._IDLE", 0.001)
    threads: list[threading.Thread] = []
    queue = CommitQueue[int](lambda _item: threads.append(threading.current_thread()), 10_000, "q")
    queue.put(1, 1)
    assert queue.flush(10)
    threads[0].join(10)
    queue.put(2, 1)
    assert queue.flush(10)
    assert not threads[0].is_alive()
    assert len(set(threads)) == 2


def test_without_a_thread_the_flush_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the interpreter ends, no thread can be started."""

    def refused(_thread: Any) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refused)
    done: list[int] = []
    queue = CommitQueue[int](done.append, 10_000, "q")
    assert queue.put(1, 1)
    assert done == []
    assert queue.flush(1)
    assert done == [1]


def test_a_child_of_a_fork_drops_what_the_parent_has() -> None:
    """`reset` makes a queue that is empty and works, whoever held its lock."""
    done: list[int] = []
    queue = CommitQueue[int](done.append, 10_000, "q")
    with queue._changed:
        queue.reset()
    queue.put(1, 1)
    assert queue.flush(10)
    assert done == [1]
