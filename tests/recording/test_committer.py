"""Batches that take too long become smaller; rows that can never be stored are left out, except when no row can be."""

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
from recorder.storage.batch import Batch
from recorder.storage.rows import COMPLETE
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
def _without_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer waits at most 1 ms between two attempts."""
    monkeypatch.setattr("recorder.core.deadline.MIN_RETRY", 0.0005)
    monkeypatch.setattr("recorder.core.deadline.MAX_RETRY", 0.001)


def rows_of(batch: Batch) -> int:
    """How many messages, segments and blocks of frames a batch has."""
    rows = [row for part in batch.parts for row in part.messages]
    return len(rows) + sum(len(run.segments) + len(run.frames) for run in batch.runs)


# -- a slow network ------------------------------------------------------------------------------------------


def slow_above(rows: int) -> Callable[[Batch], None]:
    """A fault that raises TimeoutError for each batch with more than this many rows."""

    def give_up(batch: Batch) -> None:
        if rows_of(batch) > rows:
            raise TimeoutError

    return give_up


def test_a_batch_that_takes_too_long_is_halved(database: str) -> None:
    """Where only single rows get through in time, batches shrink to one row, and all is stored once in order."""
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


def test_a_batch_grows_again_when_the_network_is_quick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After four timeouts, later batches become as large as before."""
    monkeypatch.setattr("recorder.recording.batch_size._QUICK", HOUR)  # a busy machine is slow
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


def test_all_parts_of_a_split_run_get_the_new_id_when_its_id_is_in_use(database: str) -> None:
    """The first part finds that the id is in use, and the later parts have the same new id."""
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


def test_a_large_batch_gets_through_a_slow_network_to_postgres(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of one statement is enough for a tenth of the batch."""
    monkeypatch.setattr("recorder.storage.dialects.url_parameters.COMMAND_TIMEOUT", 0.25)
    texts = [f"{number:0>100}" for number in range(50)]
    with (
        proxy(postgres_database) as server,
        ChatHistoryCallback(server.url, flush_interval=HOUR) as history,
    ):
        begin(history)
        history.flush().wait(20)
        server.rate = 200_000
        runs = [begin(history) for _ in range(30)]
        for run_id in runs:
            say(history, run_id, texts)
            finish(history, run_id, "end")
        history.flush().wait(50)
        server.rate = None
        assert history.stats().quarantined == 0
    for run_id in runs[::10]:
        assert_whole(postgres_database, run_id, texts)
    assert sql(postgres_database, "SELECT sum(count) FROM segments") == [(1500,)]


@pytest.mark.timeout(180)  # it waits for some thirty statements to be cancelled, one after the other
def test_a_row_that_never_gets_through(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even with the longest time for a statement: it is left out, which the log says, and all others are stored."""
    monkeypatch.setattr("recorder.recording.failure_cause.SUSPECT_AFTER", 0)
    monkeypatch.setattr("recorder.storage.dialects.url_parameters.COMMAND_TIMEOUT", 0.05)
    with (
        proxy(postgres_database) as server,
        ChatHistoryCallback(server.url, flush_interval=HOUR) as history,
    ):
        begin(history)
        history.flush().wait(20)
        server.rate = 200_000
        asked, said = begin(history, HumanMessage("x" * 400_000)), begin(history)
        say(history, asked, ["small"])
        say(history, said, ["y" * 400_000])
        for run_id in (asked, said):
            finish(history, run_id, "end")
        other = record(history, reply="other")
        history.flush().wait(150)
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


# -- errors that come from some rows -------------------------------------------------------------------------


def record_beside_poison(url: str, store: FaultyStore | None = None) -> tuple[uuid.UUID, list[uuid.UUID]]:
    """Record eight runs in one batch, one with the token "poison", and a later run; return that one and the others."""
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
    """The tokens of the bad run are a gap, its end is stored, and the other runs are complete."""
    found = stored(url, bad)
    assert (found.status, found.texts, [gap[:2] for gap in found.gaps]) == (COMPLETE, {}, [(0, 2)])
    for run_id in others[:-1]:
        assert_whole(url, run_id, ["a", "b"])
    assert_whole(url, others[-1], ["later"])


def test_a_run_has_a_gap_and_no_hash_when_half_of_its_tokens_cannot_be_stored(database: str) -> None:
    """The tokens of the other half are stored and counted."""
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
def test_tokens_that_a_postgres_trigger_refuses_are_a_gap(
    postgres_database: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other runs are recorded, whatever the class of the trigger's error."""
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
    assert_left_out(postgres_database, *record_beside_poison(postgres_database))


@pytest.mark.parametrize("words", ["the list is locked", "no such customer", "disk is full", "malformed"])
def test_tokens_that_a_sqlite_trigger_refuses_are_a_gap(tmp_path: Path, words: str) -> None:
    """The text of the trigger's error looks like an error of the database, and is not taken for one."""
    url = new_url(tmp_path)
    with closing(sqlite3.connect(tmp_path / "history.db")) as connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON segments WHEN NEW.deltas LIKE '%poison%' "
            f"BEGIN SELECT RAISE(ABORT, '{words}'); END"
        )
    assert_left_out(url, *record_beside_poison(url))


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
def test_tokens_that_raise_any_error_are_a_gap(tmp_path: Path, error: Exception) -> None:
    """The other runs are recorded, whatever the type of the error."""
    url = new_url(tmp_path)

    def refuse(batch: Batch) -> None:
        if any("poison" in row.deltas for rows in batch.runs for row in rows.segments):
            raise error

    store = FaultyStore(SqlStore(url), before=repeat(refuse))
    assert_left_out(url, *record_beside_poison(url, store))


# -- errors of the database ----------------------------------------------------------------------------------


class Away(FaultyStore):
    """A store whose appends raise `error` `left` times in a row; with `rows_only` only those that have rows."""

    def __init__(self, url: str, error: Exception, times: int, *, rows_only: bool) -> None:
        super().__init__(SqlStore(url))
        self.error, self.left, self.rows_only = error, 0, rows_only
        self.times = times

    async def append(self, batch: Batch) -> None:
        if self.left and (batch.parts or not self.rows_only):
            self.left -= bool(batch.parts)
            raise self.error
        await super().append(batch)


#: Each error, and whether an append without rows passes meanwhile.
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
def test_no_row_is_left_out_when_the_database_is_away(
    tmp_path: Path, error: Exception, rows_only: bool
) -> None:
    """The database raises the same error a hundred times, and then all rows are stored."""
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
@pytest.mark.parametrize("outage", ["of some tables", "long"])
def test_no_row_is_left_out_when_postgres_is_away(
    postgres_database: str, code: str, outage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either appends without rows pass meanwhile, or the server stores no other rows and the outage lasts long."""
    if outage == "long":
        monkeypatch.setattr("recorder.recording.failure_cause.SUSPECT_AFTER", 0)
    store = Away(postgres_database, SERVER[code]("not now"), 50, rows_only=outage != "long")
    with ChatHistoryCallback(postgres_database, store=store, flush_interval=HOUR) as history:
        begin(history)
        history.flush().wait(20)
        store.left = 50
        runs = [record(history, reply="whole") for _ in range(4)]
        history.flush().wait(50)
        assert history.stats().quarantined == 0
    for run_id in runs:
        assert_whole(postgres_database, run_id, ["whole"])


def test_a_large_row_waits_when_the_disk_of_postgres_has_space_for_small_rows_only(
    postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other rows of its size would not be stored either."""
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
def test_no_row_is_left_out_when_a_table_is_renamed_for_a_while(database: str, table: str) -> None:
    """Every row of that table is refused until it has its name again, so no run is at fault."""
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
    """Another program changes the tables."""
    if not url.startswith("sqlite"):
        return postgres.fetch(url, statement)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=20)) as connection:
        # Without it SQLite would also rename the table in the views.
        connection.execute("PRAGMA legacy_alter_table = ON")
        return connection.execute(statement)


def test_looking_for_bad_rows_leaves_no_row_behind(database: str) -> None:
    """The rows that the writer stores in order to test them are rolled back in each table."""
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
