"""The store: a batch is stored whole or not at all, and storing it again changes nothing."""

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
from recorder.storage.rows import COMPLETE, INTERRUPTED, STREAMING, Batch, Producer, RunRows
from recorder.storage.store import Conflict, RunIdTaken, SqlStore
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


# -- appending -----------------------------------------------------------------------------------------------


def test_a_batch_is_stored(database: str) -> None:
    """Every table has its rows."""
    append(database, [*whole_run(1), *whole_run(2)])
    assert {name: len(rows) for name, rows in dump(database).items()} == {
        "conversations": 2, "runs": 2, "producers": 1, "messages": 4, "segments": 2, "frames": 2, "gaps": 2
    }  # fmt: skip
    query = "SELECT role, content, position FROM messages WHERE conversation_id = 'c1' ORDER BY position"
    assert sql(database, query) == [("user", "question", 0), ("assistant", "answer", 1)]
    assert sql(database, "SELECT DISTINCT status, user_id FROM runs, conversations") == [(COMPLETE, "me")]


def test_the_same_batch_again_changes_nothing(database: str) -> None:
    """Its commit may have happened although its answer was lost."""
    batch = [*whole_run(1), *whole_run(2)]
    append(database, batch)
    before = dump(database)
    append(database, batch, batch)
    assert dump(database) == before


def test_another_content_under_the_same_number_is_a_conflict(database: str) -> None:
    """Nothing of that batch is stored, and the error says whose fault it is."""
    [rows] = whole_run(1, tokens=3)
    append(database, [rows])
    before = dump(database)
    [longer] = whole_run(1, tokens=5)
    longer.start = rows.start
    with pytest.raises(Conflict, match=r"from 0 on.*two recorders use the same run id"):
        append(database, [longer, *whole_run(2)])
    assert dump(database) == before


def test_another_run_with_the_same_id_is_told(database: str) -> None:
    """Of another process or of another time, open or ended: nothing of that batch is stored, and the error names it."""
    append(database, [*whole_run(1), RunRows(run_start(2), opens=True)])
    before = dump(database)
    for other in (whole_run(1), [RunRows(run_start(1), opens=True)], [RunRows(run_start(2), opens=True)]):
        with pytest.raises(RunIdTaken) as conflict:
            append(database, [*other, *whole_run(3)])
        assert conflict.value.run_ids == {other[0].start.run_id}
        assert dump(database) == before


def test_a_longer_row_under_the_same_number_is_a_conflict_too(database: str) -> None:
    """It would hide tokens silently."""
    [rows] = whole_run(1)
    append(database, [rows])
    [row] = rows.segments
    rows.segments = [row._replace(count=row.count + 1, deltas=row.deltas[:-1] + ',[9,"more"]]')]
    with pytest.raises(Conflict):
        append(database, [rows])


def test_a_run_is_known_before_its_end(database: str) -> None:
    """Streaming at first; the end sets what was not known, and leaves the rest."""
    start = run_start(1, request='{"temperature":0}', tags='["a"]')
    append(database, [RunRows(start, opens=True)])
    assert sql(database, "SELECT status, ended_at, token_count, sha256 FROM runs") == [
        (STREAMING, None, 0, None)
    ]
    [rows] = whole_run(1)
    start.request = start.tags = None  # what the writer keeps of a stored run
    append(database, [RunRows(start, opens=False, seal=rows.seal)])
    [(status, ended, count, request, tags)] = sql(
        database, "SELECT status, ended_at, token_count, request, tags FROM runs"
    )
    assert rows.seal is not None
    assert (status, count, request, tags) == (COMPLETE, rows.seal.token_count, '{"temperature":0}', '["a"]')
    assert ended is not None


def test_statements_do_not_grow_with_tokens(database: str) -> None:
    """A batch is a handful of statements, whether a run has three tokens or a thousand."""
    few = [rows for number in range(100) for rows in whole_run(number)]
    many = [rows for number in range(100, 200) for rows in whole_run(number, tokens=1_000)]
    counts = [len(statements_of(lambda batch=batch: append(database, batch))) for batch in (few, many)]  # type: ignore[misc]
    # On Postgres one for the rows and those of opening and watching; on SQLite one a table besides.
    assert counts[0] == counts[1] <= (12 if database.startswith("sqlite") else 5)


def test_a_query_of_yours(database: str) -> None:
    """Rows as dictionaries, with parameters."""
    append(database, whole_run(1))
    query = "SELECT role, content FROM messages WHERE role = :role"
    assert using(database, lambda store: store.rows(query, {"role": "user"})) == [
        {"role": "user", "content": "question"}
    ]


def test_a_closed_store_connects_again(database: str) -> None:
    """After an error the writer may let go of it and go on."""

    async def story(store: SqlStore) -> None:
        await store.open()
        await store.close()
        await store.close()
        await store.append(Batch(PRODUCER, whole_run(1)))

    using(database, story)
    assert len(dump(database)["runs"]) == 1


# -- the dead ------------------------------------------------------------------------------------------------


def test_only_open_runs_of_the_dead_are_swept(database: str) -> None:
    """Ended ones and those of the living stay; a second sweep finds nothing."""
    dead, alive = (PRODUCER, Producer(str(uuid.UUID(int=98)), "there", 2, now(), now()))
    moment = now() + timedelta(seconds=1)

    async def story(store: SqlStore) -> list[int]:
        await store.append(Batch(dead, [RunRows(run_start(1), opens=True), *whole_run(2)]))
        await store.append(Batch(alive, [RunRows(run_start(3), opens=True)]))
        return [await store.sweep(lambda producer: producer.id == dead.id, moment) for _ in range(2)]

    assert using(database, story) == [1, 0]
    assert sql(database, "SELECT status FROM runs ORDER BY id") == [(INTERRUPTED,), (COMPLETE,), (STREAMING,)]


# -- opening -------------------------------------------------------------------------------------------------


def opened(url: str, **options: Any) -> None:
    using(url, lambda store: store.open(), **options)


def test_a_new_file_gets_its_tables(tmp_path: Path) -> None:
    """Opened twice, by two stores, it is the same."""
    url = f"sqlite:///{tmp_path / 'new.db'}"
    opened(url)
    opened(url)
    append(url, whole_run(1))
    assert len(dump(url)["runs"]) == 1


def construct(url: str) -> None:
    """What a user does; closed where it goes well."""
    ChatHistoryCallback(url).close().wait(10)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """Named, with what to do; the file is left as it was."""
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary, " * 1_000)
    with pytest.raises(
        StoreError, match=r"notes\.txt.*file is not a database; it is not a SQLite database, so name"
    ):
        construct(f"sqlite:///{path}")
    assert path.read_text() == "Dear diary, " * 1_000


def test_a_damaged_file(tmp_path: Path) -> None:
    """Cut off in the middle of its pages: an error at construction, not a crash loop."""
    url = new_url(tmp_path)
    path = tmp_path / "history.db"
    path.write_bytes(path.read_bytes()[:10_000])
    with pytest.raises(StoreError, match=r"history\.db cannot be opened"):
        construct(url)


def test_a_newer_schema(tmp_path: Path) -> None:
    """Refused with the command to run, and nothing is changed."""
    url = new_url(tmp_path)
    with closing(sqlite3.connect(tmp_path / "history.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = dump(url)
    with pytest.raises(SchemaError, match=r"newer recorder.*pip install --upgrade chat-recorder"):
        construct(url)
    assert dump(url) == before


def test_somebody_elses_tables(tmp_path: Path) -> None:
    """A file of another tool that has a table of our name."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE messages (id INTEGER)")
    with pytest.raises(SchemaError, match=r"messages, not created by recorder.*use another file"):
        construct(f"sqlite:///{path}")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://host/db", "scheme 'mysql'"),
        ("chat.db", r"write 'sqlite:///chat\.db'"),
        ("sqlite://", "in-memory"),
        ("sqlite:///{}/missing/chat.db", "does not exist; create it"),
        ("sqlite:///{}", "is a directory"),
    ],
)
def test_a_url_that_can_never_work_is_refused_at_construction(tmp_path: Path, url: str, message: str) -> None:
    """Before anything is opened, and whatever the options."""
    for strict in (False, True):
        with pytest.raises(ConfigError, match=message):
            ChatHistoryCallback(url.format(tmp_path), strict=strict)


def test_reading_does_not_make_or_change_a_database(tmp_path: Path) -> None:
    """An empty file is said to hold nothing; a current one is read."""
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreError, match="holds no recording yet"):
        opened(f"sqlite:///{tmp_path / 'empty.db'}", read_only=True)
    assert (tmp_path / "empty.db").read_bytes() == b""
    opened(new_url(tmp_path), read_only=True)


@contextmanager
def locked(url: str) -> Iterator[sqlite3.Connection]:
    """The file is locked by another program inside."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite does not wait for locks, and the writer not for its next attempt."""
    monkeypatch.setattr("recorder.storage.dialects.sqlite.BUSY_TIMEOUT", 0.001)
    monkeypatch.setattr("recorder.core.deadline.MIN_RETRY", 0.0005)
    monkeypatch.setattr("recorder.core.deadline.MAX_RETRY", 0.001)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("folder", ["plain", "readonly", "no such place", "malformed"])
def test_a_locked_file_is_buffered_for(tmp_path: Path, folder: str) -> None:
    """Another program has it when the recorder is made: the recording is in it once it is free. What the folder
    is called has nothing to do with it."""
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
    """Inside, the Nth statement or commit fails, before or after the driver did it; what was called."""
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


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("after", [False, True], ids=["before", "done, then raises"])
@pytest.mark.parametrize("name", ["disk I/O error", "database is locked"])
def test_every_call_of_the_driver_may_fail_once(tmp_path: Path, after: bool, name: str) -> None:
    """The Nth, N = 1.. until none is left to fail: EXACT each time, messages and frames too."""
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


@pytest.mark.usefixtures("hasty")
def test_a_full_disk_and_then_space_again(tmp_path: Path) -> None:
    """Nothing is lost while there is memory, and the database is intact."""
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
def test_a_file_that_is_taken_away(happens: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever records is told, what comes after it is in the file of that name, and what was moved is whole."""
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


def test_a_seal_of_nothing(database: str) -> None:
    """A run that ended before its first token is sealed like any other."""
    with ChatHistoryCallback(database) as history:
        run_id = begin(history)
        finish(history, run_id)
    assert_whole(database, run_id, [])
    assert stored(database, run_id).token_count == 0


def test_a_connection_that_was_closed_beneath_has_no_transaction(tmp_path: Path) -> None:
    """A fork closes it at any moment: that is told by its next use, and harms nothing that is to be stored."""

    async def story(store: SqlStore) -> bool:
        async with store.transaction() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        driver._conn.close()
        return store.dialect.in_transaction(connection)

    assert not using(new_url(tmp_path), story)
