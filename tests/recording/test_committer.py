"""Batches that take too long shrink; rows that never can be stored are told from a database that is away."""

from __future__ import annotations

import errno
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import repeat
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.errors import StoreError
from recorder.messages import HumanMessage
from recorder.storage.rows import COMPLETE, Batch
from recorder.storage.store import SqlStore
from recorder.storage.trial_rows import size_of_rows
from recorder.wire.deltas import Delta
from tests import postgres
from tests.faults.proxy import proxy
from tests.oracle import (
    FaultyStore,
    assert_whole,
    begin,
    finish,
    new_url,
    record,
    say,
    sql,
    stored,
    token,
)

HOUR = 3600.0


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr("recorder.core.deadline.MIN_RETRY", 0.0005)
    monkeypatch.setattr("recorder.core.deadline.MAX_RETRY", 0.001)


def rows_of(batch: Batch) -> int:
    """How many rows of any length a batch has."""
    rows = [row for part in batch.parts for row in part.messages]
    return len(rows) + sum(len(run.segments) + len(run.frames) for run in batch.runs)


# -- a slow way to the database --------------------------------------------------------------------------------


def slow_above(rows: int) -> Callable[[Batch], None]:
    """The fault of a network over which no more than so many rows get through in time."""

    def give_up(batch: Batch) -> None:
        if rows_of(batch) > rows:
            raise TimeoutError

    return give_up


def test_a_batch_that_takes_too_long_is_halved(database: str) -> None:
    """Down to single rows of one run where nothing less gets through: all is stored once, in order."""
    store = FaultyStore(SqlStore(database), before=repeat(slow_above(1)))
    runs = [uuid.UUID(int=number) for number in range(1, 6)]
    texts = [token(3, number) for number in range(5000)]
    with ChatHistoryCallback(database, store=store, flush_interval=HOUR, conversation_id="c") as history:
        first = begin(history)
        history.flush().wait(20)
        history.add_messages([HumanMessage(f"added {number}") for number in range(9)])
        for run_id in runs:
            begin(history, HumanMessage(f"question {run_id}"), HumanMessage("and"), run_id=run_id)
            for at, text in enumerate(texts[:30]):
                history.on_stream_frame(b"frame %d" % at, at, [Delta(text)], run_id=run_id)
            finish(history, run_id, f"answer {run_id}")
        say(history, first, texts)
        finish(history, first, "all")
        history.flush().wait(60)
        stats = history.stats()
    assert (stats.queued_bytes, stats.quarantined, stats.dropped) == (0, 0, 0)
    assert (stats.committed, stats.messages_stored) == (5150, 9)
    assert_whole(database, first, texts)
    for run_id in runs:
        assert_whole(database, run_id, texts[:30])
    assert sql(database, "SELECT count(*) FROM frames") == [(5,)]
    assert sql(database, "SELECT count(*) FROM messages") == [(9 + 2 * 5 + 5 + 2,)]
    assert sql(database, "SELECT count(*) FROM runs WHERE frames_sha256 IS NULL") == [(1,)]


def test_a_batch_grows_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the network is quick, later batches are as large as ever."""
    monkeypatch.setattr("recorder.recording.batch_size._QUICK", HOUR)  # however busy this machine is
    url = new_url(tmp_path)
    store = FaultyStore(SqlStore(url), before=[slow_above(0)] * 4)
    text = "x" * 10_000
    with ChatHistoryCallback(url, store=store, flush_interval=HOUR) as history:
        runs = [begin(history) for _ in range(100)]
        for _ in range(8):
            for run_id in runs:
                say(history, run_id, [text])
            history.flush().wait(20)
        assert max(len(batch.runs) for batch in store.tried[-2:]) == 100
        for run_id in runs:
            finish(history, run_id, "end")
    for run_id in runs:
        assert_whole(url, run_id, [text] * 8)


def test_a_further_attempt_whose_rows_are_halved(database: str) -> None:
    """Its id is taken, which is found with its first half: the second one has the new id, too."""
    texts = [token(4, number) for number in range(5000)]
    with ChatHistoryCallback(database) as history:
        run_id = record(history, reply="first")
    store = FaultyStore(SqlStore(database), before=repeat(slow_above(1)))
    with ChatHistoryCallback(database, store=store, flush_interval=HOUR) as history:
        begin(history)
        history.flush().wait(20)
        begin(history, run_id=run_id)
        say(history, run_id, texts)
        finish(history, run_id, "second")
    assert_whole(database, run_id, ["first"])
    [(second,)] = sql(database, "SELECT id FROM runs WHERE attempt = 2")
    assert_whole(database, second, texts)


def test_a_slow_network_to_postgres(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of which a statement has time for a tenth only: it gets through all the same."""
    monkeypatch.setattr("recorder.storage.dialects.url_parameters.COMMAND_TIMEOUT", 0.5)
    texts = [f"{number:0>100}" for number in range(50)]
    with (
        proxy(postgres_database) as server,
        ChatHistoryCallback(server.url, flush_interval=HOUR) as history,
    ):
        begin(history)
        history.flush().wait(20)
        server.rate = 200_000
        runs = [begin(history) for _ in range(60)]
        for run_id in runs:
            say(history, run_id, texts)
            finish(history, run_id, "end")
        history.flush().wait(50)
        server.rate = None
        assert history.stats().quarantined == 0
    for run_id in runs[::10]:
        assert_whole(postgres_database, run_id, texts)
    assert sql(postgres_database, "SELECT sum(count) FROM segments") == [(3000,)]


def test_a_row_that_never_gets_through(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even with the longest time for a statement: it is left out, which the log says, and all others are stored."""
    monkeypatch.setattr("recorder.recording.failure_cause.SUSPECT_AFTER", 0)
    monkeypatch.setattr("recorder.storage.dialects.url_parameters.COMMAND_TIMEOUT", 0.2)
    with (
        proxy(postgres_database) as server,
        ChatHistoryCallback(server.url, flush_interval=HOUR) as history,
    ):
        begin(history)
        history.flush().wait(20)
        server.rate = 200_000
        asked, said = begin(history, HumanMessage("x" * 1_000_000)), begin(history)
        say(history, asked, ["small"])
        say(history, said, ["y" * 1_000_000])
        for run_id in (asked, said):
            finish(history, run_id, "end")
        other = record(history, reply="other")
        history.flush().wait(55)
        stats = history.stats()
        server.rate = None
    assert (stats.quarantined, stats.committed, stats.queued_bytes) == (1, 2, 0)
    assert_whole(postgres_database, asked, ["small"])
    assert_whole(postgres_database, other, ["other"])
    found = stored(postgres_database, said)
    assert (found.status, [gap[:2] for gap in found.gaps]) == (COMPLETE, [(0, 1)])
    assert any("its messages cannot be stored" in line for line in caplog.messages)
    assert any("1 tokens cannot be stored" in line for line in caplog.messages)


@pytest.fixture
def postgres_database() -> Iterator[str]:
    """A database on the server of the tests."""
    url = postgres.new_database()
    try:
        yield url
    finally:
        postgres.drop(url)


# -- what the rows are to blame for --------------------------------------------------------------------------------


def recorded_beside_poison(url: str, store: FaultyStore | None = None) -> tuple[uuid.UUID, list[uuid.UUID]]:
    """Eight runs in one batch, one of which says "poison"; that one, and the others. Later ones are stored, too."""
    runs = [uuid.UUID(int=number) for number in range(1, 9)]
    with ChatHistoryCallback(url, store=store, flush_interval=HOUR) as history:
        begin(history)
        history.flush().wait(20)
        for run_id in runs:
            begin(history, run_id=run_id)
            say(history, run_id, ["a", "poison" if run_id == runs[4] else "b"])
            finish(history, run_id, "end")
        history.flush().wait(30)
        runs.append(record(history, reply="later"))
        history.flush().wait(30)
        stats = history.stats()
    assert (stats.committed, stats.quarantined, stats.queued_bytes, stats.healthy) == (15, 2, 0, True)
    return runs.pop(4), runs


def assert_left_out(url: str, bad: uuid.UUID, others: list[uuid.UUID]) -> None:
    """Its tokens are a gap, its end is stored, and the others are whole."""
    found = stored(url, bad)
    assert (found.status, found.texts, [gap[:2] for gap in found.gaps]) == (COMPLETE, {}, [(0, 2)])
    for run_id in others[:-1]:
        assert_whole(url, run_id, ["a", "b"])
    assert_whole(url, others[-1], ["later"])


def test_poison_in_one_half_of_a_run(database: str) -> None:
    """Its tokens are a gap, those of the other half are stored and counted, and nothing proves that all are there."""
    texts = ["poison", *(token(4, number) for number in range(1, 5000))]

    def refuse(batch: Batch) -> None:
        slow_above(1)(batch)
        if any("poison" in row.deltas for rows in batch.runs for row in rows.segments):
            raise ValueError("not these")

    store = FaultyStore(SqlStore(database), before=repeat(refuse))
    with ChatHistoryCallback(database, store=store, flush_interval=HOUR) as history:
        begin(history)
        history.flush().wait(20)
        run_id = begin(history)
        say(history, run_id, texts)
        finish(history, run_id, "end")
        history.flush().wait(30)
        assert history.stats().quarantined == 2000
    found = stored(database, run_id)
    assert (found.status, found.token_count, found.sha256) == (COMPLETE, 3000, None)
    assert found.missing == set(range(2000))
    assert [*found.texts.values()] == texts[2000:]


#: The codes of outages, which a trigger may raise as well.
OUTAGE_CODES = [
    "08006", "25006", "25P03", "25P04", "26000", "40001", "40P01", "53100", "53200", "53300", "55P03", "57014", "57P01",
    "57P03", "58030", "72000",
]  # fmt: skip
CODES = [
    *OUTAGE_CODES,
    "21000", "22023", "23514", "P0001", "42501", "42P01", "0A000", "3F000", "XX000", "XX002", "24000", "F0000", "99999",
]  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_a_trigger_refuses_some_tokens(
    postgres_database: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the class of its error: the recording of others goes on, and a gap says what is missing."""
    monkeypatch.setattr("recorder.recording.failure_cause.SUSPECT_AFTER", 0)
    raising = f"RAISE EXCEPTION 'not these' USING ERRCODE = '{code}'"
    postgres.fetch(
        postgres_database,
        "CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN IF NEW.deltas::text LIKE '%poison%' THEN "
        f"{raising}; END IF; RETURN NEW; END $$ LANGUAGE plpgsql",
    )
    postgres.fetch(
        postgres_database,
        "CREATE TRIGGER refuse BEFORE INSERT ON segments FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    assert_left_out(postgres_database, *recorded_beside_poison(postgres_database))


@pytest.mark.parametrize("words", ["the list is locked", "no such customer", "disk is full", "malformed"])
def test_a_trigger_of_sqlite_refuses_some_tokens(tmp_path: Path, words: str) -> None:
    """Its words are its own, and say nothing of the database."""
    url = new_url(tmp_path)
    with closing(sqlite3.connect(tmp_path / "history.db")) as connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON segments WHEN NEW.deltas LIKE '%poison%' "
            f"BEGIN SELECT RAISE(ABORT, '{words}'); END"
        )
    assert_left_out(url, *recorded_beside_poison(url))


ERRORS: list[Exception] = [
    TypeError("a bug of ours"),
    RuntimeError("a bug of the driver's"),
    AssertionError("a bug of anybody's"),
    MemoryError("one large row"),
    NotImplementedError("not these"),
    sqlite3.OperationalError("too many terms in compound SELECT"),
    sqlite3.InternalError("a bug of SQLite's"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_that_comes_of_some_rows(tmp_path: Path, error: Exception) -> None:
    """Whatever its type."""
    url = new_url(tmp_path)

    def refuse(batch: Batch) -> None:
        if any("poison" in row.deltas for rows in batch.runs for row in rows.segments):
            raise error

    store = FaultyStore(SqlStore(url), before=repeat(refuse))
    assert_left_out(url, *recorded_beside_poison(url, store))


# -- and what they are not ---------------------------------------------------------------------------------------


class Away(FaultyStore):
    """A database that does nothing but raise this error, so many times in a row."""

    def __init__(self, url: str, error: Exception, times: int, *, rows_only: bool) -> None:
        super().__init__(SqlStore(url))
        self.error, self.left, self.rows_only = error, 0, rows_only
        self.times = times

    async def append(self, batch: Batch) -> None:
        if self.left and (batch.parts or not self.rows_only):
            self.left -= bool(batch.parts)
            raise self.error
        await super().append(batch)


#: Of those that only come of the database nothing is made up that would refuse other rows.
OUTAGES: list[tuple[Exception, bool]] = [
    (ConnectionRefusedError("nobody there"), True),
    (ConnectionResetError("cut"), True),
    (TimeoutError(), True),
    (OSError(errno.ENOSPC, "No space left on device"), True),
    (sqlite3.OperationalError("database is locked"), True),
    (sqlite3.OperationalError("database or disk is full"), True),
    (sqlite3.OperationalError("disk I/O error"), True),
    (StoreError("was moved, and other programs have it open"), True),
    (sqlite3.OperationalError("attempt to write a readonly database"), False),
    (RuntimeError("the driver is unwell"), False),
    (MemoryError("none left"), False),
]


@pytest.mark.parametrize(("error", "rows_only"), OUTAGES, ids=lambda value: str(value))
def test_an_outage_costs_nothing(tmp_path: Path, error: Exception, rows_only: bool) -> None:
    """The same message a hundred times: nothing is blamed on the rows."""
    url = new_url(tmp_path)
    store = Away(url, error, 100, rows_only=rows_only)
    with ChatHistoryCallback(url, store=store, flush_interval=HOUR, conversation_id="c") as history:
        begin(history)
        history.flush().wait(20)
        store.left = 100
        runs = [begin(history) for _ in range(4)]
        for run_id in runs:
            say(history, run_id, [token(5, number) for number in range(50)])
            finish(history, run_id, "end")
        history.add_messages("between")
        history.flush().wait(50)
        stats = history.stats()
    assert (store.left, stats.quarantined, stats.dropped, stats.lost_messages) == (0, 0, 0, 0)
    assert (stats.committed, stats.messages_stored) == (200, 1)
    for run_id in runs:
        assert_whole(url, run_id, [token(5, number) for number in range(50)])


SERVER = {
    "57P03": asyncpg.CannotConnectNowError,
    "57P01": asyncpg.AdminShutdownError,
    "53100": asyncpg.DiskFullError,
    "55P03": asyncpg.LockNotAvailableError,
    "40P01": asyncpg.DeadlockDetectedError,
    "57014": asyncpg.QueryCanceledError,
    "08006": asyncpg.ConnectionFailureError,
    "closed": asyncpg.InterfaceError,
}


@pytest.mark.parametrize("code", SERVER)
def test_an_outage_of_a_server_costs_nothing(postgres_database: str, code: str) -> None:
    """Though other rows could be stored meanwhile."""
    store = Away(postgres_database, SERVER[code]("not now"), 50, rows_only=True)
    with ChatHistoryCallback(postgres_database, store=store, flush_interval=HOUR) as history:
        begin(history)
        history.flush().wait(20)
        store.left = 50
        runs = [record(history, reply="whole") for _ in range(4)]
        history.flush().wait(50)
        assert history.stats().quarantined == 0
    for run_id in runs:
        assert_whole(postgres_database, run_id, ["whole"])


@pytest.mark.parametrize("code", SERVER)
def test_a_long_outage_of_a_server_costs_nothing(
    postgres_database: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it lasts, because the server stores no other rows either."""
    monkeypatch.setattr("recorder.recording.failure_cause.SUSPECT_AFTER", 0)
    store = Away(postgres_database, SERVER[code]("not now"), 50, rows_only=False)
    with ChatHistoryCallback(postgres_database, store=store, flush_interval=HOUR) as history:
        begin(history)
        history.flush().wait(20)
        store.left = 50
        runs = [record(history, reply="whole") for _ in range(4)]
        history.flush().wait(50)
        assert history.stats().quarantined == 0
    for run_id in runs:
        assert_whole(postgres_database, run_id, ["whole"])


def test_a_disk_with_space_for_small_rows_only(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large row waits until there is space again, because other rows of its size would not be stored either."""
    monkeypatch.setattr("recorder.recording.failure_cause.SUSPECT_AFTER", 0)

    class Full(Away):
        """Has no space for 10,000 bytes, so many times."""

        async def append(self, batch: Batch) -> None:
            self.rows_only = max(batch.trial_bytes, size_of_rows(batch.parts)) < 10_000
            await super().append(batch)

    store = Full(postgres_database, asyncpg.DiskFullError("no space"), 30, rows_only=True)
    with ChatHistoryCallback(postgres_database, store=store, flush_interval=HOUR) as history:
        begin(history)
        history.flush().wait(20)
        store.left = 30
        run_id = record(history, reply="x" * 20_000)
        history.flush().wait(50)
        assert (store.left, history.stats().quarantined) == (0, 0)
    assert_whole(postgres_database, run_id, ["x" * 20_000])


@pytest.mark.parametrize("table", ["messages", "segments", "runs"])
def test_a_table_that_is_away_for_a_while(database: str, table: str) -> None:
    """Somebody renames it and back: it would refuse other rows, too, so nothing is left out."""
    with ChatHistoryCallback(database, flush_interval=0) as history:
        history.flush().wait(20)
        change(database, f"ALTER TABLE {table} RENAME TO elsewhere")
        runs = [begin(history) for _ in range(3)]
        for run_id in runs:
            say(history, run_id, ["whole"])
        while table not in (history.stats().last_error or ""):
            pass
        refused = history.stats().commits
        for run_id in runs:
            finish(history, run_id, "end")
        change(database, f"ALTER TABLE elsewhere RENAME TO {table}")
        history.flush().wait(30)
        stats = history.stats()
    assert (stats.quarantined, stats.lost_messages, stats.healthy) == (0, 0, True)
    assert stats.commits > refused
    for run_id in runs:
        assert_whole(database, run_id, ["whole"])


def change(url: str, statement: str) -> Any:
    """Somebody else changes the tables."""
    if not url.startswith("sqlite"):
        return postgres.fetch(url, statement)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=20)) as connection:
        # SQLite would rename what views say, too.
        connection.execute("PRAGMA legacy_alter_table = ON")
        return connection.execute(statement)


def test_a_trial_leaves_nothing(database: str) -> None:
    """What is stored to see whether anything is taken is taken back, in each table."""
    bad = uuid.uuid4()

    def refuse(batch: Batch) -> None:
        if any(rows.start.run_id == str(bad) for rows in batch.runs):
            raise ValueError("not this")

    store = FaultyStore(SqlStore(database), before=repeat(refuse))
    with ChatHistoryCallback(database, store=store) as history:
        record(history, run_id=bad)
        history.flush().wait(20)
    for table in ("conversations", "messages", "runs", "segments", "frames", "gaps"):
        assert sql(database, f"SELECT count(*) FROM {table}") == [(0,)]
