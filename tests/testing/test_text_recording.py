"""A text recording: it is replayed from a temporary database, and written as a whole."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from recorder import ChatHistoryCallback
from recorder.errors import ConfigError, StoreError
from recorder.messages import HumanMessage
from recorder.testing.text_recording import TextRecordings
from tests.oracle import record


@pytest.fixture
def recordings(tmp_path: Path) -> TextRecordings:
    """Return the text recordings of a process."""
    (tmp_path / "databases").mkdir()
    return TextRecordings(tmp_path / "databases")


def test_a_file_is_written_if_something_was_recorded(recordings: TextRecordings, tmp_path: Path) -> None:
    """Otherwise there is neither a file nor a folder; no temporary database stays."""
    path = tmp_path / "recordings" / "test.jsonl"
    with recordings.replay(path, nullcontext):
        pass
    assert not path.parent.exists()
    with recordings.replay(path, nullcontext) as replay, ChatHistoryCallback(replay.url) as history:
        record(history, HumanMessage("Hello"), reply="Hi")
    written = path.read_bytes()
    for lock in (nullcontext, None):
        with recordings.replay(path, lock) as replay:
            assert "".join(chunk.text for chunk in replay.stream(speed=None)) == "Hi"
        assert path.read_bytes() == written
    assert [file.name for file in (tmp_path / "databases").iterdir()] == ["template.db"]
    assert [file.name for file in path.parent.iterdir()] == ["test.jsonl"]


def test_without_a_lock_the_file_never_changes(recordings: TextRecordings, tmp_path: Path) -> None:
    """What is recorded then is thrown away."""
    with recordings.replay(tmp_path / "a.jsonl", None) as replay, ChatHistoryCallback(replay.url) as history:
        record(history)
    assert not (tmp_path / "a.jsonl").exists()


def test_the_rows_of_others_are_kept(recordings: TextRecordings, tmp_path: Path) -> None:
    """Two tests that overlap add to one file."""
    path = tmp_path / "shared.jsonl"
    with recordings.replay(path, nullcontext) as one, recordings.replay(path, nullcontext) as two:
        for replay in (one, two):
            with ChatHistoryCallback(replay.url, conversation_id="c") as history:
                record(history, HumanMessage("Hello"))
    with recordings.replay(path, None) as replay:
        assert path.read_text().count('"run",') == 2
        assert [message.text for message in replay.messages("c")] == ["Hello", "Hello"]


_HEADER = '{"format":"recorder","version":2,"exported_at":"2026-11-21T01:02:03Z"}\n'


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", ConfigError, "The file is empty"),
        ("SQLite format 3\0", ConfigError, "it is a SQLite database"),
        ('{"format":"recorder","version":99}\n', ConfigError, "has version 99"),
        (_HEADER, StoreError, "was cut off after line 1"),
        (_HEADER + "=====\n", StoreError, "Line 2"),
    ],
    ids=["empty", "database", "newer", "cut off", "conflict marker"],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named(
    recordings: TextRecordings, tmp_path: Path, text: str, error: type[Exception], message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The error says what is wrong and what to do."""
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text(text)
    opening = recordings.replay(tmp_path / "a.jsonl", None)
    with pytest.raises(error, match=rf"^a\.jsonl: .*{message}.*version control.*--record-mode=all$"):
        opening.__enter__()
    assert Path("a.jsonl").read_text() == text
