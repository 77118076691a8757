"""A batch is stored whole or not at all, and storing it again changes nothing."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.clock import now
from recorder.errors import ConfigError, SchemaError, StoreError
from recorder.messages import HumanMessage
from recorder.storage.batch import Batch, RunRows
from recorder.storage.rows import COMPLETE, INTERRUPTED, STREAMING, Producer
from recorder.storage.store import SqlStore
from recorder.storage.store_interface import Conflict, RunIdTaken
from tests.oracle import (
    assert_whole,
    begin,
    finish,
    new_url,
    observed_statements,
    record,
    run_start,
    say,
    sql,
    stored,
    token,
)
from tests.stores import PRODUCER, append, statements_of, using, whole_run

TABLES = ("conversations", "runs", "producers", "messages", "segments", "frames", "gaps")


def dump(url: str) -> dict[str, list[Any]]:
    """All rows of all tables."""
    return {name: sql(url, f"SELECT * FROM {name} ORDER BY 1, 2") for name in TABLES}


# -- append --------------------------------------------------------------------------------------------------


def test_a_batch_has_rows_in_every_table(database: str) -> None:
    """Messages have their positions, and runs their status."""
    append(database, [*whole_run(1), *whole_run(2)])
    assert {name: len(rows) for name, rows in dump(database).items()} == {
        "conversations": 2, "runs": 2, "producers": 1, "messages": 4, "segments": 2, "frames": 2, "gaps": 2
    }  # fmt: skip
    query = "SELECT role, content, position FROM messages WHERE conversation_id = 'c1' ORDER BY position"
    assert sql(database, query) == [("user", "question", 0), ("assistant", "answer", 1)]
    assert sql(database, "SELECT DISTINCT status, user_id FROM runs, conversations") == [(COMPLETE, "me")]


def test_the_same_batch_again_changes_nothing(database: str) -> None:
    """A commit may succeed although its answer is lost, so the writer repeats it."""
    batch = [*whole_run(1), *whole_run(2)]
    append(database, batch)
    before = dump(database)
    append(database, batch, batch)
    assert dump(database) == before


def test_other_tokens_with_the_same_number_raise_a_conflict(database: str) -> None:
    """Nothing of the batch is stored, and the error names the cause."""
    [rows] = whole_run(1, tokens=3)
    append(database, [rows])
    before = dump(database)
    [longer] = whole_run(1, tokens=5)
    longer.start = rows.start
    with pytest.raises(Conflict, match=r"from 0 on.*two recorders use the same run id"):
        append(database, [longer, *whole_run(2)])
    assert dump(database) == before


def test_another_run_with_the_same_id_raises_run_id_taken(database: str) -> None:
    """The stored run is open or ended; nothing of the batch is stored, and the error has the id."""
    append(database, [*whole_run(1), RunRows(run_start(2), opens=True)])
    before = dump(database)
    for other in (whole_run(1), [RunRows(run_start(1), opens=True)], [RunRows(run_start(2), opens=True)]):
        with pytest.raises(RunIdTaken) as conflict:
            append(database, [*other, *whole_run(3)])
        assert conflict.value.run_ids == {other[0].start.run_id}
        assert dump(database) == before


def test_a_longer_segment_with_the_same_number_raises_a_conflict(database: str) -> None:
    """Its additional tokens would be lost silently."""
    [rows] = whole_run(1)
    append(database, [rows])
    [row] = rows.segments
    rows.segments = [row._replace(count=row.count + 1, deltas=row.deltas[:-1] + ',[9,"more"]]')]
    with pytest.raises(Conflict):
        append(database, [rows])


def test_a_run_is_stored_as_streaming_before_its_end(database: str) -> None:
    """The seal sets the columns of the end and leaves the others."""
    start = run_start(1, request='{"temperature":0}', tags='["a"]')
    append(database, [RunRows(start, opens=True)])
    assert sql(database, "SELECT status, ended_at, token_count, sha256 FROM runs") == [
        (STREAMING, None, 0, None)
    ]
    [rows] = whole_run(1)
    start.request = start.tags = None  # the writer drops them once the run is stored
    append(database, [RunRows(start, opens=False, seal=rows.seal)])
    [(status, ended, count, request, tags)] = sql(
        database, "SELECT status, ended_at, token_count, request, tags FROM runs"
    )
    assert rows.seal is not None
    assert (status, count, request, tags) == (COMPLETE, rows.seal.token_count, '{"temperature":0}', '["a"]')
    assert ended is not None


def test_the_number_of_statements_does_not_grow_with_tokens(database: str) -> None:
    """A batch needs the same few statements for runs of three tokens and of a thousand."""
    few = [rows for number in range(100) for rows in whole_run(number)]
    many = [rows for number in range(100, 200) for rows in whole_run(number, tokens=1_000)]
    counts = [len(statements_of(lambda batch=batch: append(database, batch))) for batch in (few, many)]  # type: ignore[misc]
    # Postgres has one for all rows, SQLite one for each table; both have those of opening and of notifying.
    assert counts[0] == counts[1] <= (12 if database.startswith("sqlite") else 5)


def test_rows_returns_the_rows_of_a_query_as_dictionaries(database: str) -> None:
    """The query may have parameters."""
    append(database, whole_run(1))
    query = "SELECT role, content FROM messages WHERE role = :role"
    assert using(database, lambda store: store.rows(query, {"role": "user"})) == [
        {"role": "user", "content": "question"}
    ]


def test_append_connects_a_closed_store_again(database: str) -> None:
    """The writer closes the store after an error and goes on."""

    async def story(store: SqlStore) -> None:
        await store.open()
        await store.close()
        await store.close()
        await store.append(Batch(PRODUCER, whole_run(1)))

    using(database, story)
    assert len(dump(database)["runs"]) == 1


# -- the sweep -----------------------------------------------------------------------------------------------


def test_the_sweep_changes_only_open_runs_of_dead_producers(database: str) -> None:
    """Ended runs and runs of other producers stay, and a second sweep finds none."""
    dead, alive = (PRODUCER, Producer(str(uuid.UUID(int=98)), "there", 2, now(), now()))
    moment = now() + timedelta(seconds=1)

    async def story(store: SqlStore) -> list[int]:
        await store.append(Batch(dead, [RunRows(run_start(1), opens=True), *whole_run(2)]))
        await store.append(Batch(alive, [RunRows(run_start(3), opens=True)]))
        return [await store.sweep(lambda producer: producer.id == dead.id, moment) for _ in range(2)]

    assert using(database, story) == [1, 0]
    assert sql(database, "SELECT status FROM runs ORDER BY id") == [(INTERRUPTED,), (COMPLETE,), (STREAMING,)]


# -- open ----------------------------------------------------------------------------------------------------


def opened(url: str, **options: Any) -> None:
    using(url, lambda store: store.open(), **options)


def test_a_new_file_gets_its_tables(tmp_path: Path) -> None:
    """Two stores open the file one after the other."""
    url = f"sqlite:///{tmp_path / 'new.db'}"
    opened(url)
    opened(url)
    append(url, whole_run(1))
    assert len(dump(url)["runs"]) == 1


def construct(url: str) -> None:
    """Make a history as a user does, and close it."""
    ChatHistoryCallback(url).close().wait(10)


def test_a_file_that_is_no_database_raises_and_is_not_changed(tmp_path: Path) -> None:
    """The error has the file's name and what to do."""
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary, " * 1_000)
    with pytest.raises(
        StoreError, match=r"notes\.txt.*file is not a database; it is not a SQLite database, so name"
    ):
        construct(f"sqlite:///{path}")
    assert path.read_text() == "Dear diary, " * 1_000


def test_a_damaged_file_raises_at_construction(tmp_path: Path) -> None:
    """The file ends in the middle of its pages."""
    url = new_url(tmp_path)
    path = tmp_path / "history.db"
    path.write_bytes(path.read_bytes()[:10_000])
    with pytest.raises(StoreError, match=r"history\.db cannot be opened"):
        construct(url)


def test_a_newer_schema_raises_the_command_to_run(tmp_path: Path) -> None:
    """The file is not changed."""
    url = new_url(tmp_path)
    with closing(sqlite3.connect(tmp_path / "history.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = dump(url)
    with pytest.raises(SchemaError, match=r"newer recorder.*install a newer version of chat-recorder"):
        construct(url)
    assert dump(url) == before


def test_a_table_of_another_tool_with_the_same_name_raises(tmp_path: Path) -> None:
    """The error says to use another file."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE messages (id INTEGER)")
    with pytest.raises(SchemaError, match=r"messages, not created by recorder.*use another file"):
        construct(f"sqlite:///{path}")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://host/db", "scheme 'mysql'"),
        ("sqlite://", "in-memory"),
        ("sqlite:///{}/missing/chat.db", "does not exist; create it"),
        ("sqlite:///{}", "is a directory"),
    ],
)
def test_a_url_that_can_never_work_is_refused_at_construction(tmp_path: Path, url: str, message: str) -> None:
    """It raises before anything is opened, with `strict` and without."""
    for strict in (False, True):
        with pytest.raises(ConfigError, match=message):
            ChatHistoryCallback(url.format(tmp_path), strict=strict)


def test_reading_does_not_make_or_change_a_database(tmp_path: Path) -> None:
    """An empty file raises that it holds no recording, and a current one is opened."""
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreError, match="holds no recording yet"):
        opened(f"sqlite:///{tmp_path / 'empty.db'}", read_only=True)
    assert (tmp_path / "empty.db").read_bytes() == b""
    opened(new_url(tmp_path), read_only=True)


@contextmanager
def locked(url: str) -> Iterator[sqlite3.Connection]:
    """Inside, another program has locked the file."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


@pytest.fixture
def without_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite does not wait for locks, and the writer waits at most 1 ms between two attempts."""
    monkeypatch.setattr("recorder.storage.dialects.sqlite.BUSY_TIMEOUT", 0.001)
    monkeypatch.setattr("recorder.core.deadline.MIN_RETRY", 0.0005)
    monkeypatch.setattr("recorder.core.deadline.MAX_RETRY", 0.001)


@pytest.mark.usefixtures("without_delays")
@pytest.mark.parametrize("folder", ["plain", "readonly", "no such place", "malformed"])
def test_a_run_is_stored_when_the_lock_of_the_file_is_released(tmp_path: Path, folder: str) -> None:
    """Another program has the lock when the history is made. The folder's name looks like an error of SQLite."""
    (tmp_path / folder).mkdir()
    url = new_url(tmp_path / folder)
    with locked(url) as other:
        history = ChatHistoryCallback(url)
        run_id = record(history, reply="a")
        assert not history.stats().healthy
        with pytest.raises(StoreError, match="database is locked"):
            ChatHistoryCallback(url, strict=True)
        other.execute("ROLLBACK")
        history.flush().wait(20)
    history.close().wait(10)
    assert_whole(url, run_id, ["a"])


# -- faults of the driver ------------------------------------------------------------------------------------


@contextmanager
def nth_call_fails(number: int, error: Callable[[], Exception], after: bool) -> Iterator[list[str]]:
    """Inside, the Nth statement or commit fails, before or after the driver did it; yields the calls."""
    calls: list[str] = []

    def called(name: str) -> None:
        calls.append(name)
        if len(calls) == number:
            raise error()

    def commit(connection: Any) -> None:
        if after:
            connection.connection.dbapi_connection.commit()
        called("COMMIT")

    event.listen(Engine, "commit", commit)
    try:
        with observed_statements(lambda sql: called(sql.split("(")[0][:40]), after=after):
            yield calls
    finally:
        event.remove(Engine, "commit", commit)


@pytest.mark.usefixtures("without_delays")
@pytest.mark.parametrize("after", [False, True], ids=["before", "done, then raises"])
@pytest.mark.parametrize("name", ["disk I/O error", "database is locked"])
def test_everything_is_stored_once_when_any_call_of_the_driver_fails(
    tmp_path: Path, after: bool, name: str
) -> None:
    """The Nth call fails, for each N up to the last call."""
    number, failed = 0, True
    while failed:
        number += 1
        url = new_url(tmp_path, f"{number}.db")
        history = ChatHistoryCallback(url, conversation_id="c", flush_interval=0)
        with nth_call_fails(number, lambda: sqlite3.OperationalError(name), after) as calls:
            texts = [token(number, seq) for seq in range(20)]
            run_id = begin(history, HumanMessage("question"))
            history.flush().wait(20)
            say(history, run_id, texts)
            history.flush().wait(20)
            finish(history, run_id, "answer")
            history.close().wait(20)
        failed = len(calls) >= number
        assert_whole(url, run_id, texts)
        found = sql(url, "SELECT role, content FROM messages ORDER BY position")
        assert found == [("user", "question"), ("assistant", "answer")], f"call {number} of {calls}"
        assert sql(url, "PRAGMA integrity_check") == [("ok",)]
    assert number > 10


@pytest.mark.usefixtures("without_delays")
def test_nothing_is_lost_when_the_disk_is_full_for_a_while(tmp_path: Path) -> None:
    """The file passes the integrity check afterwards."""
    url = new_url(tmp_path)
    full = True

    def fill(connection: Any) -> None:
        limit = 1 if full else 10**6
        connection.connection.dbapi_connection.cursor().execute(f"PRAGMA max_page_count = {limit}")

    texts = [token(3, seq) * 50 for seq in range(2_000)]
    event.listen(Engine, "begin", fill)
    try:
        with ChatHistoryCallback(url) as history:
            run_id = begin(history)
            say(history, run_id, texts)
            finish(history, run_id, "done")
            while "full" not in (history.stats().last_error or ""):
                history.stats()
            assert history.stats().committed == 0
            full = False
    finally:
        event.remove(Engine, "begin", fill)
    assert_whole(url, run_id, texts)
    assert sql(url, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("happens", ["deleted", "moved", "replaced"])
def test_recording_goes_on_when_the_file_is_moved_deleted_or_replaced(
    happens: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has a warning, later runs are in a file of the same name, and a moved file is whole."""
    url, path = new_url(tmp_path), tmp_path / "history.db"
    with ChatHistoryCallback(url, flush_interval=0) as history:
        before = record(history, reply="before")
        history.flush().wait(10)
        if happens == "deleted":
            path.unlink()
        elif happens == "moved":
            path.rename(tmp_path / "moved.db")
        else:
            new_url(tmp_path, "other.db")
            (tmp_path / "other.db").replace(path)
        after = record(history, reply="after")
        history.flush().wait(10)
        assert history.stats().healthy
    assert f"{url} was moved, deleted or replaced while it was recorded into" in caplog.text
    assert_whole(url, after, ["after"])
    assert sql(url, "SELECT count(*) FROM runs") == [(1,)]
    if happens == "moved":
        assert_whole(f"sqlite:///{tmp_path / 'moved.db'}", before, ["before"])


def test_a_run_that_ends_before_its_first_token_is_sealed(database: str) -> None:
    """Its count is 0, and it has a hash."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        finish(history, run_id)
    assert_whole(database, run_id, [])
    assert stored(database, run_id).token_count == 0


def test_a_connection_that_was_closed_by_a_fork_is_in_no_transaction(tmp_path: Path) -> None:
    """A fork may close it at any moment, and only the next use of it raises."""

    async def story(store: SqlStore) -> bool:
        async with store.transaction() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        driver._conn.close()
        return store.dialect.in_transaction(connection)

    assert not using(new_url(tmp_path), story)
