"""When a batch and its repetition fail, a gap stands for its tokens, and each run has its row and its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.errors import StoreError
from recorder.messages import HumanMessage
from recorder.recording import replacement_rows
from recorder.storage.rows import COMPLETE, STREAMING
from recorder.storage.store import SqlStore
from tests.oracle import assert_whole, begin, finish, hasty, record, say, sql, stored


class Unwell(SqlStore):
    """A store that, while it is unwell, stores no run and raises when it is asked what kind of failure it has."""

    unwell = False

    async def append(self, batch: Any) -> None:
        if self.unwell and batch.runs:
            raise MemoryError("none left")
        await super().append(batch)

    def failure(self, error: BaseException) -> Any:
        if self.unwell:
            raise MemoryError("none at all")
        return super().failure(error)


@pytest.fixture
def store(database: str) -> Any:
    """A store whose field `unwell` a test can set."""
    with hasty():
        yield Unwell(database)


@contextmanager
def recording(store: Unwell) -> Iterator[ChatHistoryCallback]:
    """A recorder that has just stored a run, and stores nothing more until it is flushed or closed."""
    with ChatHistoryCallback(store=store, flush_interval=3600) as history:
        record(history, reply="first")
        history.flush().wait(20)
        yield history


def fail_twice(history: ChatHistoryCallback, store: Unwell) -> None:
    """The queued rows and their repetition fail, and the flush raises."""
    store.unwell = True
    with pytest.raises(StoreError, match="not stored"):
        history.flush().wait(20)


def test_lost_tokens_in_the_middle_of_a_run_are_a_gap(database: str, store: Unwell) -> None:
    """The tokens around them are stored and counted, and the run has no hash."""
    with recording(store) as history:
        run_id = begin(history)
        say(history, run_id, ["a"])
        history.flush().wait(20)
        say(history, run_id, ["b", "c"])
        fail_twice(history, store)
        store.unwell = False
        say(history, run_id, ["d"])
        history.flush().wait(20)
        found = stored(database, run_id)
        assert (found.status, found.missing) == (STREAMING, {1, 2})
        finish(history, run_id, "abcd")
    found = stored(database, run_id)
    assert (found.status, found.texts, found.missing) == (COMPLETE, {0: "a", 3: "d"}, {1, 2})
    assert (found.token_count, found.sha256) == (2, None)
    [(_, _, reason)] = found.gaps
    assert reason.startswith("quarantined: storing a batch: none")
    stats = history.stats()
    assert (stats.committed, stats.quarantined, stats.healthy) == (3, 2, True)


def test_a_lost_run_has_its_row_its_end_and_a_gap(database: str, store: Unwell) -> None:
    """A later run is complete."""
    with recording(store) as history:
        run_id = begin(history, HumanMessage("Is it there?"))
        say(history, run_id, ["a", "b"])
        finish(history, run_id, "ab")
        fail_twice(history, store)
        store.unwell = False
        later = record(history, reply="c")
    found = stored(database, run_id)
    assert (found.status, found.texts, found.missing, found.token_count) == (COMPLETE, {}, {0, 1}, 0)
    assert_whole(database, later, ["c"])


def test_close_stores_the_gap_of_the_last_tokens(database: str, store: Unwell) -> None:
    """The tokens were lost just before `close`."""
    with recording(store) as history:
        run_id = begin(history)
        history.flush().wait(20)
        say(history, run_id, ["a"])
        finish(history, run_id, "a")
        fail_twice(history, store)
        store.unwell = False
    assert stored(database, run_id).missing == {0}
    assert stored(database, run_id).status == COMPLETE


def test_gaps_that_fail_too_are_kept_until_they_can_be_stored(
    database: str, store: Unwell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At most `MOST` of them are kept, and the log names the runs of the others."""
    monkeypatch.setattr(replacement_rows, "MOST", 2)
    runs = set()
    with recording(store) as history:
        for _ in range(3):
            runs.add(str(record(history, reply="a")))
            fail_twice(history, store)
        store.unwell = False
    found = {run_id for (run_id,) in sql(database, "SELECT run_id FROM gaps")}
    [lost] = runs - found
    assert found < runs
    assert f"Run {lost} lacks tokens" in caplog.text
    assert history.stats().quarantined == 3
