"""Rows that anybody may have written: a value that its column cannot hold is an error that names it."""

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


def test_a_row_is_made_of_what_its_columns_hold() -> None:
    """And of nothing else."""
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


def test_the_time_of_a_library_that_sets_the_clock_is_a_time() -> None:
    """freezegun and its like put a subclass in place of `datetime`, and SQLAlchemy makes what it reads of that."""

    class Frozen(datetime):
        """As they do."""

    class Moment(NamedTuple):
        """One time."""

        at: datetime | None

    assert row_of(Moment, (Frozen(2026, 1, 2),)).at == datetime(2026, 1, 2)
    with pytest.raises(StoreError, match="moment: at is '2026' and not a time"):
        row_of(Moment, ("2026",))


def test_json_is_json() -> None:
    """Text of it, that is; the error says where it stands."""
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
def test_what_comes_of_odd_rows_is_told(raised: Exception, message: str) -> None:
    """Of the driver, of SQLAlchemy or of Python."""
    with pytest.raises(StoreError, match=message), readable((sqlite3.Error,)):
        raise raised


def test_an_error_of_ours_stays_what_it_is() -> None:
    """It says more already."""
    with pytest.raises(NotFound, match="nothing"), readable((sqlite3.Error,)):
        raise NotFound("nothing")


@pytest.mark.parametrize(
    "spoil",
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
def test_a_replay_of_a_spoilt_row_comes_to_an_end(spoil: str, tmp_path: Path) -> None:
    """With an error that says what is wrong with it; a row that says that it goes back was played for ever."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="c") as history:
        record(history, HumanMessage("Hi"), reply="Hello")
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(spoil)
    with Replay(url) as replay, pytest.raises(StoreError, match="damaged"):
        list(replay.stream("c", speed=None))


@pytest.mark.parametrize(
    "deltas", ["[[0,7]]", "[7]", '[["0","a"]]', '[[1e300,"a"]]', '[[0,"a","text",null]]', '{"a":1}']
)
def test_what_is_no_token_is_a_gap(deltas: str, tmp_path: Path) -> None:
    """The row is named, and what else there is of the run plays."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="c") as history:
        record(history, HumanMessage("Hi"), reply="Hello")
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE segments SET deltas = ?, count = 1", [deltas])
    with Replay(url) as replay:
        chunks: list[Any] = list(replay.stream("c", speed=None))
    assert "damaged" in chunks[0].additional_kwargs["gap"]["reason"]


def test_a_row_of_nothing_is_passed_over(tmp_path: Path) -> None:
    """It was read again and again."""
    url = new_url(tmp_path)
    with ChatHistoryCallback(url, conversation_id="c") as history:
        record(history, HumanMessage("Hi"), reply="Hello")
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE segments SET deltas = '[]', count = 0")
    with Replay(url) as replay:
        assert [chunk.text for chunk in replay.stream("c", speed=None) if chunk.text] == []


def test_a_gap_row_is_checked_too() -> None:
    """Its reason may be bytes in a stranger's file."""
    with pytest.raises(StoreError, match="gap: reason is b'x' and not text"):
        row_of(GapRow, ("r", 0, 1, b"x"))
