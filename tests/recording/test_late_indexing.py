"""Messages that were stored without being indexed are indexed while nothing else is to be stored."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest

from recorder import ChatHistoryCallback
from recorder.messages import HumanMessage
from recorder.recording import late_indexing
from recorder.replay import Replay
from recorder.storage import migrate
from recorder.storage.batch import MOST_INDEXED
from tests.oracle import copy_of, new_url, sql
from tests.revisions import older_file

NOT_INDEXED = "SELECT count(*) FROM messages WHERE words IS NULL"


def wait_until_indexed(url: str) -> None:
    """Ask until no message is left, for a minute at most."""
    end = monotonic() + 60
    while sql(url, NOT_INDEXED) != [(0,)]:
        assert monotonic() < end


def hits(url: str, query: str) -> int:
    """Return how many messages a query finds."""
    with Replay(url) as replay:
        return len(replay.search(query, limit=500).hits)


def test_a_burst_is_indexed_after_it_was_stored(database: str) -> None:
    """It is found at once, and its messages are in the index soon."""
    with ChatHistoryCallback(database) as history:
        history.add_messages(
            [HumanMessage(f"hello {n}") for n in range(5 * MOST_INDEXED)], conversation_id="c"
        )
        history.flush().wait()
        assert hits(database, "hello") == 5 * MOST_INDEXED
        wait_until_indexed(database)
        assert hits(database, "hello") == 5 * MOST_INDEXED


def test_what_a_process_leaves_the_next_one_indexes(tmp_path: Path) -> None:
    """Also after a crash: a copy of the file as it is on disk after the commit finds the same."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        history.add_messages([HumanMessage(f"hello {n}") for n in range(100)], conversation_id="c")
        history.flush().wait()
        (tmp_path / "crashed").mkdir()
        crashed = copy_of(url, tmp_path / "crashed")
    assert hits(crashed, "hello") == 100
    with ChatHistoryCallback(crashed):
        wait_until_indexed(crashed)
    assert hits(crashed, "hello") == 100


def test_messages_of_an_older_version_are_indexed(tmp_path: Path) -> None:
    """A small file is upgraded when it is opened, and indexed later."""
    url = older_file(tmp_path, "0007")
    with ChatHistoryCallback(url):
        wait_until_indexed(url)
    assert hits(url, "parcel") == 1
    assert hits(url, '"sparkling water"') == 1


def test_an_error_is_no_error_of_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged index: messages are stored without it, and the rest of the file is as it was."""
    monkeypatch.setattr(late_indexing, "_RETRY", 0.01)
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        history.add_messages([HumanMessage("before")], conversation_id="c")
        history.flush().wait()
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute("UPDATE message_words_data SET block = zeroblob(8)")
        for number in range(3):
            history.add_messages([HumanMessage(f"after {number}")], conversation_id="c")
            history.flush().wait()
    assert sql(url, "SELECT count(*) FROM messages") == [(4,)]
    assert migrate.upgrade(url) == []
    assert [hits(url, query) for query in ("before", "after")] == [1, 3]
