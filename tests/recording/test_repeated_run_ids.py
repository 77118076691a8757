"""Each run that begins with an id that was used before is an attempt in a row of its own and changes no other row."""

from __future__ import annotations

import json
import uuid
from itertools import cycle

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.recording.repeated_run_ids import Attempts
from recorder.storage.batch import RunRows
from recorder.storage.rows import COMPLETE, ERROR, INTERRUPTED, SegmentRow
from recorder.storage.store import SqlStore
from tests.oracle import (
    FaultyStore,
    assert_whole,
    away,
    begin,
    finish,
    hasty,
    record,
    run_start,
    say,
    sql,
)

ID = uuid.UUID(int=7)


def attempts(url: str) -> list[tuple[str, int, str, str | None]]:
    """Id, number, status and first run's id of each attempt, in the order of their numbers."""
    rows = sql(url, "SELECT id, attempt, status, metadata FROM runs ORDER BY attempt")
    return [
        (id, number, status, (json.loads(metadata) if metadata else {}).get("first_run_id"))
        for id, number, status, metadata in rows
    ]


def assert_attempts(url: str, *statuses: str) -> list[str]:
    """The stored attempts have these statuses, and all but the first have new ids; return the ids."""
    found = attempts(url)
    assert [(number, status) for _, number, status, _ in found] == list(enumerate(statuses, 1))
    assert [first for *_, first in found] == [None, *[str(ID)] * (len(statuses) - 1)]
    ids = [id for id, *_ in found]
    assert ids[0] == str(ID)
    assert len(set(ids)) == len(ids)
    return ids


@pytest.mark.parametrize("flush", [True, False], ids=["one by one", "in one batch"])
def test_each_retry_with_the_same_id_is_stored_as_an_attempt(database: str, flush: bool) -> None:
    """Each attempt has its own tokens, count, hash, status and reply."""
    with ChatHistoryCallback(database, flush_interval=3600, conversation_id="c") as history:
        record(history, reply="others")
        history.flush().wait(10)
        for number in range(4):
            begin(history, run_id=ID, metadata={"mine": number})
            say(history, ID, [f"token {number}"])
            if number < 3:
                history.on_llm_error(LookupError("no luck"), run_id=ID)
            else:
                finish(history, ID, "at last")
            if flush:
                history.flush().wait(10)
        record(history, reply="others")
    sql_of_others = "SELECT count(*) FROM runs WHERE attempt = 1 AND id <> ?"
    assert sql(database, sql_of_others, str(ID)) == [(2,)]
    ids = [id for id, *_ in attempts(database) if id == str(ID) or uuid.UUID(id).version == 5]
    assert len(ids) == 4
    for number, id in enumerate(ids):
        assert_whole(database, id, [f"token {number}"], ERROR if number < 3 else COMPLETE)
        [(found,)] = sql(database, "SELECT metadata FROM runs WHERE id = ?", id)
        assert json.loads(found) == {"mine": number, **({"first_run_id": str(ID)} if number else {})}
    assert sql(database, "SELECT run_id FROM messages WHERE content = 'at last'") == [(ids[3],)]


def test_recorders_that_use_the_same_id_store_separate_attempts(database: str) -> None:
    """This holds for a recorder after a restart, and for two recorders at the same time."""
    for text in ("one", "two"):
        with ChatHistoryCallback(database) as history:
            record(history, run_id=ID, reply=text)
    with ChatHistoryCallback(database) as three, ChatHistoryCallback(database) as four:
        for text, history in (("three", three), ("four", four)):
            begin(history, run_id=ID)
            history.flush().wait(10)
            say(history, ID, [text])
        for history in (four, three):
            finish(history, ID, "done")
    ids = assert_attempts(database, *[COMPLETE] * 4)
    for id, text in zip(ids, ("one", "two", "three", "four"), strict=True):
        assert_whole(database, id, [text])


def test_a_run_is_interrupted_when_its_id_begins_again(database: str) -> None:
    """Later tokens and the end go to the newest run, because nothing tells them from those of the first one."""
    with ChatHistoryCallback(database) as history:
        begin(history, run_id=ID)
        say(history, ID, ["first"])
        history.flush().wait(10)
        begin(history, run_id=ID)
        say(history, ID, ["second", " more"])
        finish(history, ID, "second more")
        finish(history, ID, "twice")
        assert history.stats().open_runs == 0
    first, second = assert_attempts(database, INTERRUPTED, COMPLETE)
    assert_whole(database, first, ["first"], INTERRUPTED)
    assert_whole(database, second, ["second", " more"])


def test_a_repeated_commit_adds_no_attempt(database: str) -> None:
    """The answer to the commit was lost; the repeated batch finds the rows of its own runs."""
    store = FaultyStore(SqlStore(database), after=cycle([away, None]))
    with hasty(), ChatHistoryCallback(database, store=store, flush_interval=3600) as history:
        for text in ("one", "two"):
            record(history, run_id=ID, reply=text)
            history.flush().wait(20)
    assert len(store.tried) >= 5  # two for each run, and one that found the id in use
    first, second = assert_attempts(database, COMPLETE, COMPLETE)
    assert_whole(database, first, ["one"])
    assert_whole(database, second, ["two"])


def test_attempts_forget_the_oldest_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counting of a forgotten id begins again, and a batch never gives one number twice."""
    monkeypatch.setattr("recorder.recording.repeated_run_ids._REMEMBERED", 1)
    numbering = Attempts()

    def again(id: int, count: int = 1) -> RunRows:
        rows = RunRows(run_start(id), opens=True, segments=[SegmentRow(str(uuid.UUID(int=id)), 0, 1, "[]")])
        for _ in range(count):
            numbering.rename([rows], [rows.start.run_id])
        assert rows.segments[0].run_id == rows.start.run_id
        return rows

    assert [again(1).start.attempt for _ in range(3)] == [2, 3, 4]
    assert again(2).start.attempt == 2
    assert again(1, count=2).start.attempt == 3
