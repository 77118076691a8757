"""A run id that comes again: each attempt is a run of its own, and none changes another."""

from __future__ import annotations

import json
import uuid
from itertools import cycle

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.recording.repeated_run_ids import Attempts
from recorder.storage.rows import COMPLETE, ERROR, INTERRUPTED, RunRows, SegmentRow
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
    """Id, number, status and the first one's id of each attempt, in the order of their numbers."""
    rows = sql(url, "SELECT id, attempt, status, metadata FROM runs ORDER BY attempt")
    return [
        (id, number, status, (json.loads(metadata) if metadata else {}).get("first_run_id"))
        for id, number, status, metadata in rows
    ]


def assert_attempts(url: str, *statuses: str) -> list[str]:
    """Attempts with these statuses, all but the first with ids of their own; their ids."""
    found = attempts(url)
    assert [(number, status) for _, number, status, _ in found] == list(enumerate(statuses, 1))
    assert [first for *_, first in found] == [None, *[str(ID)] * (len(statuses) - 1)]
    ids = [id for id, *_ in found]
    assert ids[0] == str(ID)
    assert len(set(ids)) == len(ids)
    return ids


@pytest.mark.parametrize("flush", [True, False], ids=["one by one", "in one batch"])
def test_a_retry_with_the_same_id(database: str, flush: bool) -> None:
    """What each attempt got and how it ended is kept: by count and hash, and with its reply."""
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


def test_the_same_id_in_another_process(database: str) -> None:
    """After a restart, and from two recorders at once: nobody changes what another has stored."""
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


def test_an_id_that_is_live(database: str) -> None:
    """Nothing that comes can be told to be the first one's: it ends, and the newest gets it all."""
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


def test_a_commit_whose_answer_was_lost_is_no_attempt(database: str) -> None:
    """The same batch again finds its own runs: the first one's, and the second's under its new id."""
    store = FaultyStore(SqlStore(database), after=cycle([away, None]))
    with hasty(), ChatHistoryCallback(database, store=store, flush_interval=3600) as history:
        for text in ("one", "two"):
            record(history, run_id=ID, reply=text)
            history.flush().wait(20)
    assert len(store.tried) >= 5  # two for each run, and the one that found the id taken
    first, second = assert_attempts(database, COMPLETE, COMPLETE)
    assert_whole(database, first, ["one"])
    assert_whole(database, second, ["two"])


def test_what_is_remembered_of_attempts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest id is forgotten; its next attempt begins to count anew, and its own number is not taken again."""
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
