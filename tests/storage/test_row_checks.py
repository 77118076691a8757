"""A row may come from any program, and a value that its column cannot hold is an error that names the column."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy.exc import StatementError

from recorder import ChatHistoryCallback
from recorder.errors import NotFound, StoreError
from recorder.messages import HumanMessage
from recorder.replay import Replay
from recorder.storage.row_checks import json_of, readable, row_of
from recorder.storage.rows import GapRow, SegmentRow
from tests.oracle import new_url, record


def test_a_value_of_a_wrong_type_or_size_raises_with_its_column() -> None:
    """Values of the right types become the row."""
    assert row_of(SegmentRow, ("r", 0, 1, "[]")) == SegmentRow("r", 0, 1, "[]")
    for values, message in [
        (("r", "x", 1, "[]"), "segment: seq is 'x' and not an integer"),
        (("r", 0, 1, b"\x1b"), r"segment: deltas is b'\\x1b' and not text"),
        (("r", 0, -1, "[]"), "segment: count cannot be -1"),
        (("r", 2**63 - 1, 1, "[]"), "segment: seq cannot be"),
        ((None, 0, 1, "[]"), "segment: run_id is None and not text"),
    ]:
        with pytest.raises(StoreError, match=message):
            row_of(SegmentRow, values)


def test_a_subclass_of_datetime_is_a_time() -> None:
    """freezegun replaces `datetime` by a subclass, and SQLAlchemy reads times as that class."""

    class Frozen(datetime):
        """The subclass of such a library."""

    class Moment(NamedTuple):
        """A row with one time."""

        at: datetime | None

    assert row_of(Moment, (Frozen(2026, 1, 2),)).at == datetime(2026, 1, 2)
    with pytest.raises(StoreError, match="moment: at is '2026' and not a time"):
        row_of(Moment, ("2026",))


def test_a_text_that_is_no_json_raises_with_its_column() -> None:
    """Values that are not text raise the same error."""
    assert json_of('{"a":1}', "usage") == {"a": 1}
    for text in ("{", b"\xff{", 7, "[" * 100_000):
        with pytest.raises(StoreError, match="usage is not JSON"):
            json_of(text, "usage")


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (sqlite3.OperationalError("no such column: x"), "The database says: no such column: x"),
        (TypeError("no"), r"cannot read \(TypeError: no\)"),
        (StatementError("no", None, None, ValueError("no id")), r"cannot read \(ValueError: no id\)"),
    ],
)
def test_errors_of_driver_sqlalchemy_and_python_become_store_errors(raised: Exception, message: str) -> None:
    """The error has the text of the first one."""
    with pytest.raises(StoreError, match=message), readable((sqlite3.Error,)):
        raise raised


def test_an_error_of_recorder_is_not_changed() -> None:
    """It is more precise than a StoreError."""
    with pytest.raises(NotFound, match="nothing"), readable((sqlite3.Error,)):
        raise NotFound("nothing")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE segments SET count = -5, seq = 5",
        "UPDATE segments SET seq = -10",
        "UPDATE runs SET started_at = '2026-01-01T00:00:00'",
        "UPDATE runs SET request_model = x'ff00'",
        "UPDATE runs SET usage = '{'",
        "UPDATE runs SET metadata = '[]'",
        "INSERT INTO gaps SELECT id, 0, -1, 'x' FROM runs",
    ],
)
def test_a_replay_of_a_damaged_row_raises_a_store_error(damage: str, tmp_path: Path) -> None:
    """A segment with a negative count must not be read for ever."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="c") as history:
        record(history, HumanMessage("Hi"), reply="Hello")
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(damage)
    with Replay(url) as replay, pytest.raises(StoreError, match="damaged"):
        list(replay.stream("c", speed=None))


@pytest.mark.parametrize(
    "deltas", ["[[0,7]]", "[7]", '[["0","a"]]', '[[1e300,"a"]]', '[[0,"a","text",null]]', '{"a":1}']
)
def test_a_damaged_token_is_played_as_a_gap(deltas: str, tmp_path: Path) -> None:
    """The reason names the row, and the rest of the run is played."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="c") as history:
        record(history, HumanMessage("Hi"), reply="Hello")
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE segments SET deltas = ?, count = 1", [deltas])
    with Replay(url) as replay:
        chunks: list[Any] = list(replay.stream("c", speed=None))
    assert "damaged" in chunks[0].additional_kwargs["gap"]["reason"]


def test_an_empty_segment_is_skipped(tmp_path: Path) -> None:
    """It must not be read again and again."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="c") as history:
        record(history, HumanMessage("Hi"), reply="Hello")
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE segments SET deltas = '[]', count = 0")
    with Replay(url) as replay:
        assert [chunk.text for chunk in replay.stream("c", speed=None) if chunk.text] == []


def test_a_gap_row_is_checked_too() -> None:
    """Its reason may be bytes in a file of another program."""
    with pytest.raises(StoreError, match="gap: reason is b'x' and not text"):
        row_of(GapRow, ("r", 0, 1, b"x"))
