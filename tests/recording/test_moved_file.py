"""When a SQLite file is moved while runs stream, gaps in the new file stand for the tokens in the old one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.messages import HumanMessage
from recorder.recording.serialize import MOVED
from recorder.storage.batch import Batch
from recorder.storage.rows import COMPLETE, INTERRUPTED, STREAMING
from recorder.storage.store import SqlStore
from recorder.wire.deltas import Delta
from tests.oracle import (
    FaultyStore,
    assert_exact,
    assert_whole,
    begin,
    copy_of,
    finish,
    new_url,
    record,
    say,
    sql,
    stored,
    token,
)

HOUR = 3600.0
NUMBERS = [token(7, number) for number in range(60)]


def move(path: Path) -> None:
    """Rename the file."""
    path.rename(path.with_suffix(".old"))


def delete(path: Path) -> None:
    """Delete the file."""
    path.unlink()


def replace(path: Path) -> None:
    """Put another, empty recording in the place of the file."""
    new_url(path.parent, "other.db")
    (path.parent / "other.db").replace(path)


WAYS: list[Callable[[Path], None]] = [move, delete, replace]


@pytest.mark.parametrize("away", WAYS)
def test_the_tokens_in_the_old_file_are_a_gap_in_the_new_one(
    away: Callable[[Path], None], tmp_path: Path
) -> None:
    """Count and hash are those of the tokens in the new file; the old file has all earlier tokens."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(url, flush_interval=HOUR) as history:
        run_id = begin(history, HumanMessage("Count."))
        say(history, run_id, NUMBERS[:20])
        history.flush().wait(10)
        away(path)
        say(history, run_id, NUMBERS[20:])
        finish(history, run_id, "all of them")
        history.flush().wait(10)
        assert history.stats().healthy
    found = assert_exact(url, run_id, NUMBERS)
    assert found.gaps == [(0, 20, MOVED)]
    assert [text for (text,) in sql(url, "SELECT content FROM messages")] == ["all of them"]
    if away is move:
        old = stored(f"sqlite:///{tmp_path}/history.old", run_id)
        assert [*old.texts.values()] == NUMBERS[:20]
        assert old.gaps == []


def test_every_open_run_has_a_row_and_a_gap_in_the_new_file(tmp_path: Path) -> None:
    """One run ends, one goes on, one has no more tokens, one never had a token, and one is new."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(url, flush_interval=HOUR) as history:
        ends, goes_on, silent, empty = (begin(history, HumanMessage(name)) for name in "abcd")
        over = record(history)
        for run_id in (ends, goes_on, silent):
            say(history, run_id, NUMBERS[:10])
        history.flush().wait(10)
        move(path)
        say(history, ends, NUMBERS[10:20])
        finish(history, ends, "end")
        say(history, goes_on, NUMBERS[10:20])
        new = begin(history, HumanMessage("e"))
        say(history, new, NUMBERS)
        history.flush().wait(10)
        assert stored(url, ends).status == COMPLETE
        for run_id, gaps in ((goes_on, [(0, 10, MOVED)]), (silent, [(0, 10, MOVED)]), (empty, []), (new, [])):
            found = stored(url, run_id)
            assert (found.status, found.gaps) == (STREAMING, gaps)
        for run_id in (goes_on, empty):
            say(history, run_id, NUMBERS[20:] if run_id == goes_on else NUMBERS)
        finish(history, silent, "nothing more")
    assert_exact(url, ends, NUMBERS[:20])
    assert_exact(url, goes_on, NUMBERS, INTERRUPTED)
    assert_exact(url, silent, NUMBERS[:10])
    assert_whole(url, empty, NUMBERS, INTERRUPTED)
    assert_whole(url, new, NUMBERS, INTERRUPTED)
    assert (str(over),) not in sql(url, "SELECT id FROM runs")


def test_a_run_that_ends_just_after_the_move_has_a_gap_for_all_tokens(tmp_path: Path) -> None:
    """Only its end is in the new file, with a count of 0."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(url, flush_interval=HOUR) as history:
        run_id = begin(history)
        say(history, run_id, NUMBERS)
        history.flush().wait(10)
        move(path)
        finish(history, run_id, "end")
    found = assert_exact(url, run_id, NUMBERS)
    assert (found.gaps, found.token_count) == ([(0, 60, MOVED)], 0)


def test_each_file_has_its_part_when_the_file_is_moved_six_times(tmp_path: Path) -> None:
    """Each file has a gap for all tokens before its part."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(url, flush_interval=HOUR) as history:
        run_id, silent = begin(history), begin(history)
        for part in range(6):
            say(history, run_id, NUMBERS[10 * part : 10 * part + 10])
            history.flush().wait(10)
            assert stored(url, silent).status == STREAMING
            path.rename(tmp_path / f"{part}.db")
        finish(history, run_id, "end")
    assert_exact(url, run_id, NUMBERS)
    for part in range(6):
        found = stored(f"sqlite:///{tmp_path}/{part}.db", run_id)
        assert [*found.texts] == [*range(10 * part, 10 * part + 10)]
        assert found.gaps == ([(0, 10 * part, MOVED)] if part else [])


def test_gaps_of_a_full_queue_stay_beside_the_gap_of_the_move(tmp_path: Path) -> None:
    """A gap from before the move is part of the move's gap; a later one is a gap of its own."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(url, flush_interval=HOUR) as history:
        run_id = begin(history)
        run = history.recorder.runs[run_id.int]
        say(history, run_id, NUMBERS[:10])
        run.drop(5, 0)
        say(history, run_id, NUMBERS[15:20])
        history.flush().wait(10)
        move(path)
        run.drop(5, 0)
        say(history, run_id, NUMBERS[25:])
        finish(history, run_id, "end")
    found = assert_exact(url, run_id, NUMBERS)
    assert found.gaps == [(0, 20, MOVED), (20, 5, "the queue was full")]


def test_a_run_has_no_hash_of_frames_when_some_are_in_the_old_file(tmp_path: Path) -> None:
    """A run that begins in the new file has the hash."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(url, flush_interval=HOUR) as history:
        before = begin(history)
        history.on_stream_frame(b"data: 1\n\n", 1, [Delta("1")], run_id=before)
        history.flush().wait(10)
        move(path)
        after = begin(history)
        for run_id in (before, after):
            history.on_stream_frame(b"data: 2\n\n", 2, [Delta("2")], run_id=run_id)
            finish(history, run_id, "end")
    proofs = dict(sql(url, "SELECT id, frames_sha256 IS NOT NULL FROM runs"))
    assert proofs == {str(before): 0, str(after): 1}
    assert assert_exact(url, before, ["1", "2"]).gaps == [(0, 1, MOVED)]


def test_an_idle_run_goes_on_in_the_new_file(tmp_path: Path) -> None:
    """It was closed as idle in the old file; its next token writes a row and a gap to the new one."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(
        url, flush_interval=0, heartbeat_interval=0.01, run_idle_timeout=0.02
    ) as history:
        run_id = begin(history)
        say(history, run_id, NUMBERS[:20])
        history.flush().wait(10)
        while stored(url, run_id).status != INTERRUPTED:
            history.flush().wait(10)
        move(path)
        record(history)
        history.flush().wait(10)
        say(history, run_id, NUMBERS[20:])
        finish(history, run_id, "end")
    assert assert_exact(url, run_id, NUMBERS).gaps == [(0, 20, MOVED)]


def test_the_heartbeat_writes_open_runs_to_the_new_file(tmp_path: Path) -> None:
    """No more tokens come, and the run has its row and its gap in the new file."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(url, heartbeat_interval=0.01) as history:
        run_id = begin(history)
        say(history, run_id, NUMBERS)
        history.flush().wait(10)
        move(path)
        while not path.exists() or (str(run_id), 60) not in _gaps(url):
            pass
        assert stored(url, run_id).status == STREAMING


def _gaps(url: str) -> list[tuple[str, int]]:
    there = sql(url, "SELECT 1 FROM sqlite_master WHERE name = 'gaps'")
    return sql(url, "SELECT run_id, count FROM gaps") if there else []


def test_an_added_message_writes_open_runs_to_the_new_file(tmp_path: Path) -> None:
    """The message is in the new file, and so is the row of a run that streams."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(url, conversation_id="c", flush_interval=HOUR) as history:
        history.add_messages("before")
        run_id = begin(history, HumanMessage("during"))
        say(history, run_id, NUMBERS)
        history.flush().wait(10)
        move(path)
        history.add_messages("after")
        history.flush().wait(10)
        assert sql(url, "SELECT content, parent_id FROM messages") == [("after", None)]
        assert stored(url, run_id).gaps == [(0, 60, MOVED)]


class MovingStore(FaultyStore):
    """A store whose file is moved once, and which refuses some rows."""

    moves: list[bool] = []  # noqa: RUF012 - each test replaces it
    refuses = False


def test_the_file_is_moved_between_two_attempts_to_store_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt fails, the second finds a new file, and rows that are refused are left out."""
    monkeypatch.setattr("recorder.core.deadline.MIN_RETRY", 0.0005)
    monkeypatch.setattr("recorder.core.deadline.MAX_RETRY", 0.001)
    url, path = new_url(tmp_path), tmp_path / "history.db"

    bad = uuid.uuid4()

    def fail(batch: Batch) -> None:
        if store.moves and store.moves.pop():
            move(path)
            raise ConnectionError("the database is away")
        if store.refuses and any(rows.segments for rows in batch.runs if rows.start.run_id == str(bad)):
            raise ValueError("these bytes can not be stored")

    store = MovingStore(SqlStore(url), before=repeat(fail))
    with ChatHistoryCallback(url, store=store, flush_interval=HOUR) as history:
        begin(history, run_id=bad)
        run_id = begin(history)
        for each in (bad, run_id):
            say(history, each, NUMBERS[:20])
        history.flush().wait(10)
        store.moves, store.refuses = [True], True
        for each in (bad, run_id):
            say(history, each, NUMBERS[20:])
            finish(history, each, "end")
    assert assert_exact(url, run_id, NUMBERS).gaps == [(0, 20, MOVED)]
    found = stored(url, bad)
    assert (found.texts, found.missing) == ({}, set(range(60)))


def test_the_old_file_keeps_everything_that_was_flushed(tmp_path: Path) -> None:
    """What was in the log of the file is in it, too."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(url, flush_interval=HOUR) as history:
        run_id = begin(history)
        say(history, run_id, NUMBERS[:20])
        history.flush().wait(10)
        os.mkdir(tmp_path / "copy")
        copy = copy_of(url, tmp_path / "copy")
        move(path)
        finish(history, run_id, "end")
    assert stored(copy, run_id) == stored(f"sqlite:///{tmp_path}/history.old", run_id)
