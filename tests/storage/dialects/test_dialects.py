"""What differs between databases: URLs, files, statements and errors."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.clock import now, parse_iso
from recorder.errors import ConfigError, StoreError
from recorder.replay import Replay
from recorder.storage.dialects import Insert, SQLite, masked, parse_url
from recorder.storage.dialects.sqlite import MAX_ROWS_A_STATEMENT
from recorder.storage.migrate import upgrade
from recorder.storage.schema import PAGE_SIZE, conversations, producers, segments
from recorder.storage.store import SqlStore
from tests.oracle import new_url, sql

# -- URLs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("chat", r"'chat' is no database URL, and no file has this name; write 'sqlite:///chat'"),
        ("", r"write 'sqlite:///chat_history\.db'"),
        ("mysql://me:secret@host/db", r"scheme 'mysql' are not supported.*use 'sqlite:///chat_history\.db'"),
        ("nonsense://x", r"scheme 'nonsense'"),
        ("sqlite://", r"in-memory.*recorder\.testing\.MemoryStore"),
        ("sqlite:///:memory:", r"in-memory.*name a file"),
        ("sqlite+aiosqlite:///:memory:", r"in-memory"),
        ("sqlite:///file::memory:?uri=true", r"in-memory"),
        ("sqlite:///file:x?mode=memory&cache=shared&uri=true", r"in-memory"),
    ],
)
def test_a_url_that_can_never_work_raises_what_to_write(url: str, message: str) -> None:
    """The error has the URL without its password."""
    with pytest.raises(ConfigError, match=message) as refused:
        parse_url(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["sqlite:///chat.db", "sqlite+aiosqlite:///chat.db", "sqlite+pysqlite:///chat.db"]
)
def test_the_url_may_name_any_driver_of_sqlite(url: str) -> None:
    """recorder chooses the driver itself."""
    assert parse_url(url).database == "chat.db"


def test_a_path_object_is_a_file_and_never_a_url() -> None:
    """Its name needs no ending. `Path` takes slashes out of a URL, so a URL in it is refused."""
    assert parse_url(Path("some/chat")).database == "some/chat"
    with pytest.raises(ConfigError, match="not a URL that can be parsed"):
        parse_url(Path("sqlite:///some/chat.db"))


def test_masked_hides_the_password() -> None:
    """The masked URL can be part of any message."""
    assert "secret" not in masked("postgresql://me:secret@host/db")


# -- files ---------------------------------------------------------------------------------------------------


def check(path: Path, **options: Any) -> None:
    """Run the check of a file by its path."""
    SQLite(parse_url(f"sqlite:///{path}"), **options).check()


def test_a_path_that_can_never_work_raises_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a directory, in a missing folder, or in a folder or file without the right to write."""
    with pytest.raises(ConfigError, match=r"is a directory; name a file in it, e\.g\. .*chat_history\.db"):
        check(tmp_path)
    with pytest.raises(ConfigError, match=r"The folder .*missing of chat\.db does not exist; create it"):
        check(tmp_path / "missing" / "chat.db")
    # The answer is faked, because the user of the tests may have the right to write everything.
    refused: list[Path] = []
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) not in refused)
    check(tmp_path / "chat.db")
    refused.append(tmp_path)
    with pytest.raises(ConfigError, match=r"chat\.db cannot be written by this user; change its permissions"):
        check(tmp_path / "chat.db")
    (tmp_path / "chat.db").touch()
    check(tmp_path / "chat.db")
    refused.append(tmp_path / "chat.db")
    with pytest.raises(ConfigError, match="cannot be written"):
        check(tmp_path / "chat.db")
    check(tmp_path / "chat.db", read_only=True)


def test_reading_needs_a_file(tmp_path: Path) -> None:
    """Reading does not make the file."""
    with pytest.raises(ConfigError, match=r"There is no file .*chat\.db; record something"):
        check(tmp_path / "chat.db", read_only=True)
    assert list(tmp_path.iterdir()) == []


def connected(
    url: str, work: Callable[[AsyncConnection, SQLite], Coroutine[Any, Any, Any]], **options: Any
) -> Any:
    """The result of `work` on a connection of the dialect's engine."""
    dialect = SQLite(parse_url(url), **options)

    async def story() -> Any:
        engine = dialect.engine()
        async with engine.connect() as connection:
            found = await work(connection, dialect)
        await engine.dispose()
        return found

    return asyncio.run(story())


async def pragmas(connection: AsyncConnection, _dialect: SQLite) -> list[Any]:
    """The settings of a connection."""
    names = ("journal_mode", "synchronous", "busy_timeout", "page_size", "query_only")
    return [(await connection.exec_driver_sql(f"PRAGMA {name}")).scalar() for name in names]


@pytest.mark.parametrize(("sync", "level"), [("full", 2), ("process", 1)])
def test_sync_decides_how_durable_a_commit_is(tmp_path: Path, sync: Any, level: int) -> None:
    """The journal is WAL, `synchronous` is FULL or NORMAL, and a new file has the page size of the schema."""
    found = connected(f"sqlite:///{tmp_path / 'new.db'}", pragmas, sync=sync)
    # It waits for locks in steps of 100 ms, so that a fork can come between two of them.
    assert found == ["wal", level, 100, PAGE_SIZE, 0]


@pytest.mark.parametrize("name", ["plain.db", "with space.db", "100%.db", "what?.db", "a#b.db", "ä%20.db"])
def test_a_file_is_opened_read_only_under_any_name(tmp_path: Path, name: str) -> None:
    """A write raises an error."""
    path = tmp_path / name
    path.write_bytes((tmp_path / Path(new_url(tmp_path)).name).read_bytes())
    dialect = SQLite(parse_url("sqlite:///x").set(database=str(path)), read_only=True)

    async def story() -> None:
        engine = dialect.engine()
        async with engine.connect() as connection:
            assert (await connection.exec_driver_sql("SELECT count(*) FROM runs")).scalar() == 0
            with pytest.raises(OperationalError, match="readonly"):
                await connection.exec_driver_sql("CREATE TABLE x (y)")
        await engine.dispose()

    asyncio.run(story())


def test_a_transaction_takes_the_lock_when_it_begins(tmp_path: Path) -> None:
    """A later statement cannot fail for want of the lock; a read-only transaction takes none."""
    url = new_url(tmp_path)

    async def begun(connection: AsyncConnection, _dialect: SQLite) -> str:
        async with connection.begin():
            other = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0, isolation_level=None)
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                return str(error)
            finally:
                other.close()
        return "free"

    assert connected(url, begun) == "database is locked"
    assert connected(url, begun, read_only=True) == "free"


# -- statements ----------------------------------------------------------------------------------------------


def test_rows_are_inserted_in_few_statements(tmp_path: Path) -> None:
    """One statement inserts 500 rows; rows whose key is stored change nothing and are not counted."""
    url = new_url(tmp_path)
    rows = [
        (f"00000000-0000-0000-0000-{number:012}", 0, 1, "[]")
        for number in range(2 * MAX_ROWS_A_STATEMENT + 1)
    ]

    async def work(connection: AsyncConnection, dialect: SQLite) -> list[int]:
        statements: list[str] = []
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.set_trace_callback(statements.append)
        async with connection.begin():
            columns = ("run_id", "seq", "count", "deltas")
            inserts = [Insert(segments, columns, part) for part in (rows, rows, [])]
            changed = await dialect.insert(connection, dialect.statements(inserts))
        return [*changed, sum(statement.startswith("INSERT") for statement in statements)]

    assert connected(url, work) == [len(rows), 0, 0, 6]
    assert sql(url, "SELECT count(*) FROM segments") == [(len(rows),)]


def test_an_insert_updates_only_the_given_columns_when_the_key_is_stored(tmp_path: Path) -> None:
    """The other columns do not change."""
    url = new_url(tmp_path)
    first, later = now(), now()
    columns = ("id", "host", "pid", "started_at", "heartbeat_at")

    async def work(connection: AsyncConnection, dialect: SQLite) -> None:
        async with connection.begin():
            for host, moment in (("here", first), ("there", later)):
                row = ("00000000-0000-0000-0000-000000000001", host, 1, moment, moment)
                insert = Insert(producers, columns, [row], ("heartbeat_at",))
                await dialect.insert(connection, dialect.statements([insert]))

    connected(url, work)
    [(host, started, beat)] = sql(url, "SELECT host, started_at, heartbeat_at FROM producers")
    assert (host, parse_iso(started), parse_iso(beat)) == ("here", first, later)


def test_null_is_inserted_as_null(tmp_path: Path) -> None:
    """It stands in a row with times."""
    url = new_url(tmp_path)

    async def work(connection: AsyncConnection, dialect: SQLite) -> None:
        async with connection.begin():
            rows = [("a", None, now()), ("b", "me", now())]
            insert = Insert(conversations, ("id", "user_id", "created_at"), rows)
            await dialect.insert(connection, dialect.statements([insert]))

    connected(url, work)
    assert sql(url, "SELECT id, user_id FROM conversations ORDER BY id") == [("a", None), ("b", "me")]


# -- errors --------------------------------------------------------------------------------------------------


def wrapped(error: Exception) -> DBAPIError:
    """The error as SQLAlchemy raises it."""
    return DBAPIError("INSERT ...", (), error)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (sqlite3.OperationalError("database is locked"), "transient"),
        (sqlite3.OperationalError("database table is locked"), "transient"),
        (sqlite3.OperationalError("disk I/O error"), "transient"),
        (sqlite3.OperationalError("database or disk is full"), "transient"),
        (sqlite3.OperationalError("interrupted"), "transient"),
        (sqlite3.ProgrammingError("Cannot operate on a closed database."), "transient"),
        (sqlite3.OperationalError("too many SQL variables"), "refused"),
        (sqlite3.DatabaseError("file is not a database"), "fatal"),
        (sqlite3.DatabaseError("database disk image is malformed"), "fatal"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "fatal"),
        (sqlite3.OperationalError("unable to open database file"), "fatal"),
        (sqlite3.OperationalError("no such table: runs"), "fatal"),
        (sqlite3.OperationalError("table runs has no column named x"), "fatal"),
        (sqlite3.IntegrityError("NOT NULL constraint failed: runs.status"), "poison"),
        (sqlite3.DataError("string or blob too big"), "poison"),
        (sqlite3.InterfaceError("Error binding parameter 3: type 'dict' is not supported"), "poison"),
        (sqlite3.ProgrammingError("Error binding parameter 3: type 'dict' is not supported"), "poison"),
        (OverflowError("Python int too large to convert to SQLite INTEGER"), "poison"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), "poison"),
        (RecursionError("maximum recursion depth exceeded"), "poison"),
        (KeyError("a bug of ours"), "poison"),
        (AttributeError("a bug of ours"), "poison"),
        (TypeError("a bug of ours"), "poison"),
        (ConnectionError("cut"), "transient"),
        (TimeoutError(), "slow"),
        (OSError("no space left on device"), "transient"),
        (MemoryError(), "refused"),
        (RuntimeError("a bug of the driver's"), "refused"),
    ],
    ids=lambda value: f"{type(value).__name__}: {value}" if isinstance(value, Exception) else "",
)
def test_failure_names_the_kind_of_an_error(error: Exception, kind: str) -> None:
    """The statement can be repeated, these rows can never be stored, or no rows can."""
    dialect = SQLite(parse_url("sqlite:///chat.db"))
    assert dialect.failure(error) == kind
    if isinstance(error, sqlite3.Error):
        assert dialect.failure(wrapped(error)) == kind


def test_a_file_that_cannot_be_opened_prints_no_traceback_of_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's thread may answer an event loop that has ended. This is rare, so the test repeats it."""
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda failed: raised.append(failed.exc_value))
    before = set(threading.enumerate())
    (tmp_path / "chat.db").symlink_to(tmp_path / "nowhere" / "chat.db")
    for _ in range(100):
        with pytest.raises(StoreError, match="unable to open database file"):
            asyncio.run(SqlStore(f"sqlite:///{tmp_path / 'chat.db'}").open())
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert raised == []


# -- permissions of the file ---------------------------------------------------------------------------------


@pytest.fixture
def no_umask() -> Iterator[None]:
    """New files of this process may be read and written by every user."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    """The mode of each file in a folder."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.mark.usefixtures("no_umask")
def test_a_new_file_and_its_log_can_be_read_by_their_owner_only(tmp_path: Path) -> None:
    """Other users of the machine cannot read the messages."""
    with ChatHistoryCallback(f"sqlite:///{tmp_path / 'chat.db'}", conversation_id="c") as history:
        history.add_messages("Hi")
        history.flush().wait(10)
        assert modes(tmp_path) == {"chat.db": 0o600, "chat.db-wal": 0o600, "chat.db-shm": 0o600}


@pytest.mark.usefixtures("no_umask")
@pytest.mark.parametrize("mode", [0o640, 0o644, 0o660])
def test_an_existing_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    """A user may share it on purpose, and then its log has the same mode."""
    path = tmp_path / "chat.db"
    path.touch(mode)
    with ChatHistoryCallback(f"sqlite:///{path}", conversation_id="c") as history:
        history.add_messages("Hi")
        history.flush().wait(10)
        assert set(modes(tmp_path).values()) == {mode}


@pytest.mark.usefixtures("no_umask")
def test_a_file_that_an_upgrade_makes_can_be_read_by_its_owner_only(tmp_path: Path) -> None:
    """This holds also for a URL in the form of SQLite's own URI."""
    upgrade(f"sqlite:///{tmp_path / 'one.db'}")
    upgrade(f"sqlite:///file:{tmp_path / 'two.db'}?uri=true")
    assert modes(tmp_path) == {"one.db": 0o600, "two.db": 0o600}


@pytest.mark.usefixtures("no_umask")
def test_the_file_that_replaces_a_deleted_one_can_be_read_by_its_owner_only(tmp_path: Path) -> None:
    """Recording goes on in the new file."""
    path = tmp_path / "chat.db"
    with ChatHistoryCallback(f"sqlite:///{path}", conversation_id="c") as history:
        history.flush().wait(10)
        path.unlink()
        history.add_messages("Hi")
        history.flush().wait(10)
        assert modes(tmp_path)["chat.db"] == 0o600


def test_deleted_messages_are_overwritten_and_their_pages_can_be_freed(tmp_path: Path) -> None:
    """Nothing of their text is left in the file, and an incremental vacuum makes it smaller."""
    path = tmp_path / "chat.db"
    word = "wonderfully-deleted-words"
    with ChatHistoryCallback(f"sqlite:///{path}", conversation_id="c") as history:
        history.add_messages([f"{word} {number} {'x' * 4000}" for number in range(200)])
    assert word in path.read_text("latin-1")

    async def delete(connection: AsyncConnection, _dialect: SQLite) -> None:
        async with connection.begin():
            await connection.exec_driver_sql("DELETE FROM messages")

    before = path.stat().st_size
    connected(f"sqlite:///{path}", delete)
    assert word not in path.read_text("latin-1")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        connection.executescript("PRAGMA incremental_vacuum")  # `execute` would do only one step
    assert path.stat().st_size < before / 2


@pytest.mark.parametrize("name", ["plain.db", "with%20space.db"])
def test_a_url_may_have_the_form_of_sqlites_uri(tmp_path: Path, name: str) -> None:
    """`sqlite:///file:chat.db?uri=true` names the same file for writing and for reading."""
    url = f"sqlite:///file:{tmp_path / name}?uri=true"
    with ChatHistoryCallback(url, conversation_id="c") as history:
        history.add_messages("Hi")
    assert [path.name for path in tmp_path.iterdir()] == [unquote(name)]
    with Replay(url) as replay:
        assert [message.text for message in replay.messages("c")] == ["Hi"]
