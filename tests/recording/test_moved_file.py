"""A SQLite file that is moved while runs stream: the new one says what of them is in the old one."""

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
from recorder.storage.rows import COMPLETE, INTERRUPTED, STREAMING, Batch
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
    """The file has another name."""
    path.rename(path.with_suffix(".old"))


def delete(path: Path) -> None:
    """The file has no name."""
    path.unlink()


def replace(path: Path) -> None:
    """Another recording, an empty one, has the name."""
    new_url(path.parent, "other.db")
    (path.parent / "other.db").replace(path)


WAYS: list[Callable[[Path], None]] = [move, delete, replace]


@pytest.mark.parametrize("away", WAYS)
def test_the_tokens_in_the_old_file_are_a_gap_in_the_new_one(
    away: Callable[[Path], None], tmp_path: Path
) -> None:
    """Count and hash are those of what is in the new file; the old one has all from before."""
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


def test_every_run_that_is_open_has_its_row_and_its_gap_at_once(tmp_path: Path) -> None:
    """Of several runs one ends, one goes on, one says nothing more, one had no token, one is new."""
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


def test_a_run_that_ends_just_after(tmp_path: Path) -> None:
    """Nothing but its end comes: all its tokens are a gap, and none are counted."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(url, flush_interval=HOUR) as history:
        run_id = begin(history)
        say(history, run_id, NUMBERS)
        history.flush().wait(10)
        move(path)
        finish(history, run_id, "end")
    found = assert_exact(url, run_id, NUMBERS)
    assert (found.gaps, found.token_count) == ([(0, 60, MOVED)], 0)


def test_moved_again_and_again(tmp_path: Path) -> None:
    """Each file has its part, and a gap for all parts before it."""
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


def test_what_was_missing_before_stays_missing(tmp_path: Path) -> None:
    """A gap of a full queue before the move is inside of the gap of the move; one after it is a gap of its own."""
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


def test_frames_of_the_old_file_are_no_proof_in_the_new_one(tmp_path: Path) -> None:
    """A run whose first frames are elsewhere has no hash of them; one that begins in the new file has."""
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


def test_an_idle_run_that_goes_on_in_another_file(tmp_path: Path) -> None:
    """It was over in the old file; when a token comes all the same, the new one has its row and its gap."""
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


def test_a_quiet_recorder_finds_out_with_its_heartbeat(tmp_path: Path) -> None:
    """Nothing more comes of a run: its row and its gap are in the new file all the same."""
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


def test_added_messages_alone_find_out_too(tmp_path: Path) -> None:
    """They are in the new file, and so is the row of a run that streams."""
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


class Unlucky(FaultyStore):
    """Whose file is moved once, and which refuses some rows."""

    moves: list[bool] = []  # noqa: RUF012 - replaced by each story
    refuses = False


def test_moved_while_a_batch_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt found the database away, the second one another file; poison is left out of that as ever."""
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

    store = Unlucky(SqlStore(url), before=repeat(fail))
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


def test_the_old_file_is_a_copy_of_what_it_was(tmp_path: Path) -> None:
    """What was acknowledged is in the file that was moved, its log included."""
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
