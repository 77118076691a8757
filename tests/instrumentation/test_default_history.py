"""The default recorder is opened once, and an event loop never waits for a thread that opens it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from recorder import StoreError
from recorder.instrumentation import default_history as module
from recorder.instrumentation.default_history import default_history


class FakeHistory:
    """A recorder whose constructor waits off an event loop, as that of a slow database does."""

    made: list[FakeHistory]
    gate: threading.Event

    def __init__(self, *, thread: str) -> None:
        self.recorder = SimpleNamespace(closed=False)
        self.made.append(self)
        if threading.current_thread() is not threading.main_thread():
            self.gate.wait(10)

    def close(self, timeout: float | None = None) -> None:
        """Close it."""
        self.recorder.closed = True


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeHistory]]:
    """Put the fake in the place of the recorder, which nobody has opened yet."""
    FakeHistory.made, FakeHistory.gate = [], threading.Event()
    monkeypatch.setattr("recorder.chat_history_callback.ChatHistoryCallback", FakeHistory)
    monkeypatch.setattr(module, "_default", None)
    monkeypatch.setattr(module, "_error", None)
    yield FakeHistory
    FakeHistory.gate.set()


def test_threads_share_one_recorder(fake: type[FakeHistory]) -> None:
    """The first one opens it, and the others wait for that."""
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(default_history())) for _ in range(4)]
    for thread in threads:
        thread.start()
    fake.gate.set()
    for thread in threads:
        thread.join(10)
    assert (len(found), len({*map(id, found)}), len(fake.made)) == (4, 1, 1)


def test_an_event_loop_does_not_wait_for_a_thread(fake: type[FakeHistory]) -> None:
    """It opens one itself, which the thread then uses, too."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(default_history()))
    thread.start()

    async def call() -> Any:
        return default_history()

    on_loop = asyncio.run(call())
    fake.gate.set()
    thread.join(10)
    assert found == [on_loop]
    assert [each.recorder.closed for each in fake.made if each is not on_loop] == [True] * (
        len(fake.made) - 1
    )


def test_a_recorder_that_was_closed_is_replaced(fake: type[FakeHistory]) -> None:
    """A program may close it, and go on."""
    first = default_history()
    first.close()
    assert default_history() is not first


def test_a_failure_is_raised_again_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call would wait for the database otherwise."""
    attempts: list[str] = []

    def fail(*, thread: str) -> None:
        attempts.append(thread)
        raise StoreError("no database")

    monkeypatch.setattr("recorder.chat_history_callback.ChatHistoryCallback", fail)
    errors = []
    for _ in range(2):
        with pytest.raises(StoreError) as raised:
            default_history()
        errors.append(raised.value)
    assert errors[0] is errors[1]
    assert attempts == ["history"]
