"""What was redacted is not found any more, and its words are not in the bytes of the index."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recorder import ChatHistoryCallback
from recorder.messages import HumanMessage
from recorder.replay import Replay
from recorder.upkeep.redact import redact
from tests.oracle import new_url, sql
from tests.stores import execute

#: A word that begins as no other does, because the index stores the beginnings of neighbours once.
SECRET = "zxqsecret"


def found(url: str, query: str) -> list[str]:
    """Return the conversations of the messages that a query finds."""
    with Replay(url) as replay:
        page = replay.search(query)
    assert page.is_complete
    return [hit.conversation_id for hit in page.hits]


def bytes_of(url: str) -> bytes:
    """Return the bytes of a SQLite file and its log."""
    path = Path(url.removeprefix("sqlite:///"))
    return b"".join(each.read_bytes() for each in path.parent.glob(path.name + "*"))


def test_redacted_words_are_not_found(database: str) -> None:
    """The other words of the message still are; the replacement is a word, too. A second call changes nothing."""
    with ChatHistoryCallback(database) as history:
        for id in ("a", "b"):
            history.add_messages([HumanMessage(f"my {SECRET} is kept")], conversation_id=id)
            history.flush().wait()
        history.add_messages([HumanMessage("nothing here")], conversation_id="c")
    assert found(database, SECRET) == ["b", "a"]
    for _ in range(2):
        redact(database, [re.compile(SECRET)])
        assert found(database, SECRET) == []
        assert found(database, "kept") == ["b", "a"]
        assert found(database, "nothing") == ["c"]
    if database.startswith("sqlite"):
        assert SECRET.encode() not in bytes_of(database)
    else:
        assert sql(database, f"SELECT count(*) FROM messages WHERE words @@ '{SECRET}'") == [(0,)]


def test_messages_of_the_same_microsecond_are_still_found(tmp_path: Path) -> None:
    """On SQLite they share a row of the index with the message that was redacted."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        for id, text in (("a", f"my {SECRET} is kept"), ("b", "this one is kept")):
            history.add_messages([HumanMessage(text)], conversation_id=id)
    moment = datetime(2026, 11, 20, tzinfo=UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    execute(url, f"UPDATE messages SET created_at = '{moment}', words = NULL")
    execute(url, "INSERT INTO message_words (message_words) VALUES ('delete-all')")
    with ChatHistoryCallback(url) as history:
        history.flush().wait()
    redact(url, [re.compile(SECRET)])
    assert found(url, "kept") == ["b", "a"]
    assert found(url, SECRET) == []
    assert SECRET.encode() not in bytes_of(url)


def test_a_call_that_was_stopped_is_completed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words are removed in the transaction of the message, and from the bytes at the end of any call."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url) as history:
        history.add_messages([HumanMessage(f"my {SECRET} is kept")], conversation_id="a")

    async def stopped(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("recorder.upkeep.redact.index_again", stopped)
        with pytest.raises(KeyboardInterrupt):
            redact(url, [re.compile(SECRET)])
    assert found(url, SECRET) == []
    assert found(url, "kept") == ["a"]
    redact(url, [re.compile(SECRET)])
    assert SECRET.encode() not in bytes_of(url)
