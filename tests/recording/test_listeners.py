"""Listeners get what was recorded, and never harm the recording."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from recorder import ChatHistoryCallback
from recorder.messages import HumanMessage
from recorder.storage.batch import Addition, Part, RunRows
from recorder.storage.rows import RunStart
from tests.oracle import record, sql


class ListeningFake:
    """A listener that collects what it gets."""

    def __init__(self) -> None:
        self.started: list[RunStart] = []
        self.parts: list[Part] = []

    def begun(self, start: RunStart) -> None:
        self.started.append(start)

    def committed(self, parts: Sequence[Part]) -> None:
        self.parts += parts

    def reset_in_child(self) -> None:
        self.parts.clear()


class FailingFake(ListeningFake):
    """A listener whose methods raise."""

    def begun(self, start: RunStart) -> None:
        raise ZeroDivisionError(start.run_id)

    def committed(self, parts: Sequence[Part]) -> None:
        raise ZeroDivisionError(len(parts))


def test_a_listener_gets_runs_and_additions_after_their_commit(tmp_path: Path) -> None:
    """The parts have the rows of the messages, the tokens and the end."""
    listener = ListeningFake()
    with ChatHistoryCallback(f"sqlite:///{tmp_path / 'a.db'}", conversation_id="c") as history:
        history.recorder.listeners.add(listener)
        record(history, HumanMessage("Hi"), reply="Hello.")
        history.add_messages("One more")
        history.flush().wait(10)
        history.recorder.listeners.remove(listener)
        record(history, HumanMessage("Unheard"), reply="Nobody listens.")
    [start] = listener.started
    runs = [part for part in listener.parts if isinstance(part, RunRows)]
    added = [part for part in listener.parts if isinstance(part, Addition)]
    assert {rows.start.run_id for rows in runs} == {start.run_id}
    assert [row.content for rows in runs for row in rows.messages] == ["Hi", "Hello."]
    assert [rows.seal.end.status for rows in runs if rows.seal] == ["complete"]
    assert [row.content for part in added for row in part.messages] == ["One more"]


def test_a_listener_that_raises_costs_nothing_but_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Everything is stored, the next listener is called, and the errors are counted."""
    url, second = f"sqlite:///{tmp_path / 'a.db'}", ListeningFake()
    with (
        caplog.at_level(logging.ERROR, logger="recorder"),
        ChatHistoryCallback(url, conversation_id="c") as history,
    ):
        history.recorder.listeners.add(FailingFake())
        history.recorder.listeners.add(second)
        for text in ("Hi", "And?"):
            record(history, HumanMessage(text), reply="Yes.")
    assert sql(url, "SELECT count(*) FROM runs WHERE status = 'complete'") == [(2,)]
    assert len(second.started) == 2
    assert history.recorder.listeners.errors >= 3
    assert [each.message for each in caplog.records] == ["FailingFake failed; recording goes on"]
