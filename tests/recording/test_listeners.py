"""Listeners get what was recorded, and never harm the recording."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from recorder import ChatHistoryCallback
from recorder.core.waitable import Wait
from recorder.errors import Closed
from recorder.messages import HumanMessage
from recorder.recording.application_values import annotation
from recorder.storage.batch import Addition, Part, RunRows
from recorder.storage.rows import AnnotationRow, RunStart
from tests.oracle import new_url, record, sql


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


class AnnotatingFake(ListeningFake):
    """Adds an annotation for each run, after everything else was stored."""

    def __init__(self, history: ChatHistoryCallback, *, ends: bool = True) -> None:
        super().__init__()
        self.history, self.ends, self.end_calls = history, ends, 0
        self.wait: Wait[None] = Wait()

    def finish(self, seconds_left: float) -> Wait[None]:
        assert seconds_left > 0
        for start in self.started:
            self.history.recorder.annotate(annotation_of(start.run_id))
        if self.ends:
            self.wait.set(None)
        return self.wait

    def end(self) -> None:
        self.end_calls += 1


def annotation_of(run_id: str) -> AnnotationRow:
    """Return an annotation of a run."""
    return annotation(run_id, "late", label="yes", score=None, data=None, message_id=None)


@pytest.mark.parametrize("ends", [True, False])
def test_a_listener_annotates_after_close(database: str, ends: bool) -> None:
    """What it adds is stored before the recorder ends, also if it never says that it has finished; nobody else adds."""
    history = ChatHistoryCallback(database, conversation_id="c")
    listener = AnnotatingFake(history, ends=ends)
    history.recorder.listeners.add(listener)
    run_id = record(history, HumanMessage("Hi"))
    ended = history.close(timeout=30 if ends else 0.5)
    with pytest.raises(Closed):
        history.add_annotation(run_id, "too late", score=1)
    assert ended.wait().queued == 0
    assert history.close() is ended
    assert sql(database, "SELECT name FROM annotations") == [("late",)]
    assert listener.end_calls > 0
    with pytest.raises(Closed):
        history.recorder.annotate(annotation_of(str(run_id)))


def test_a_listener_without_a_database_is_ended(tmp_path: Path) -> None:
    """The database stops answering: what is left is lost at the deadline, and the listener is told to end."""
    history = ChatHistoryCallback(new_url(tmp_path), conversation_id="c")
    listener = AnnotatingFake(history)
    history.recorder.listeners.add(listener)
    history.flush().wait(10)
    with closing(sqlite3.connect(tmp_path / "history.db", isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        record(history, HumanMessage("Hi"))
        stats = history.close(timeout=0.3).wait()
    assert (stats.dropped, stats.healthy, stats.last_error is None) == (1, False, False)
    assert listener.end_calls > 0
