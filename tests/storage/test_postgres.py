"""What only a server can do: refuse, vanish, stall, be shared; and what belongs to its URLs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from asyncpg.prepared_stmt import PreparedStatement
from sqlalchemy import make_url

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.errors import ConfigError, MissingExtra, SchemaError, StoreError
from recorder.messages import HumanMessage
from recorder.storage import migrate, schema
from recorder.storage.dialects import Postgres, masked, parse_url
from recorder.storage.rows import Batch
from recorder.storage.store import SqlStore
from tests import postgres
from tests.faults.proxy import proxy
from tests.oracle import assert_whole, begin, finish, record, say, sql, start_python, token
from tests.pooler import open_pooler
from tests.stores import PRODUCER, whole_run

#: The other connections to the same database.
OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@contextmanager
def empty_database() -> Iterator[str]:
    """A database without any table."""
    url = postgres.new_database(empty=True)
    try:
        yield url
    finally:
        postgres.drop(url)


def construct(url: str, **options: Any) -> None:
    """What a user does; closed where it goes well."""
    ChatHistoryCallback(url, **options).close().wait(10)


# -- URLs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg", "postgresql+psycopg2"])
def test_any_spelling_of_the_url_will_do(postgres_url: str, scheme: str) -> None:
    """The driver is ours to choose, and hosting companies write `postgres://`."""
    url = postgres_url.replace("postgresql", scheme, 1)
    with ChatHistoryCallback(url) as history:
        run_id = record(history, reply="a")
    assert_whole(postgres_url, run_id, ["a"])
    assert masked(url).startswith("postgresql://")


def test_what_only_libpq_understands_is_left_out(postgres_url: str) -> None:
    """asyncpg would send it to the server as a setting, which refuses the connection."""
    url = f"{postgres_url}&channel_binding=prefer&keepalives=1&connect_timeout=5&sslmode=disable"
    with ChatHistoryCallback(url) as history:
        run_id = record(history, reply="a")
    assert_whole(postgres_url, run_id, ["a"])


def test_settings_of_the_server_pass(postgres_url: str) -> None:
    """A schema of its own by `search_path`: the tables are made there, and public stays empty."""
    with empty_database() as url:
        postgres.fetch(url, "CREATE SCHEMA chats")
        with ChatHistoryCallback(f"{url}&search_path=chats") as history:
            record(history, reply="a")
        found = postgres.fetch(url, "SELECT schemaname FROM pg_tables WHERE tablename = 'segments'")
        assert [row[0] for row in found] == ["chats"]


def test_connections_are_named(postgres_url: str) -> None:
    """Whoever looks at pg_stat_activity sees whose they are; the URL may name them otherwise."""
    query = f"SELECT application_name {OTHERS}"
    for given, expected in ((postgres_url, "recorder"), (f"{postgres_url}&application_name=shop", "shop")):
        with ChatHistoryCallback(given):
            assert [row[0] for row in postgres.fetch(postgres_url, query)] == [expected]


def test_a_port_that_is_no_number() -> None:
    """Said without the password."""
    with pytest.raises(ConfigError, match=r"port.*is not a number; write 'postgresql://") as refused:
        parse_url("postgresql://me:secret@host:five/db")
    assert "secret" not in str(refused.value)


def test_sync_is_not_for_postgres(postgres_url: str) -> None:
    """The server decides with its own setting."""
    with pytest.raises(ConfigError, match=r"sync='process' is a setting for SQLite"):
        ChatHistoryCallback(postgres_url, sync="process")


def test_the_driver_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """At construction, with the command that installs it."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(MissingExtra, match=r"run: pip install 'chat-recorder\[postgres\]'"):
        ChatHistoryCallback("postgresql://localhost/db")
    with pytest.raises(MissingExtra):
        migrate.upgrade("postgresql://localhost/db")


# -- refusals ------------------------------------------------------------------------------------------------


@pytest.fixture
def locked_role(postgres_url: str) -> Iterator[str]:
    """A role with the password "right"; its name."""
    name = f"locked_{make_url(postgres_url).database}"
    postgres.fetch(postgres_url, f"CREATE ROLE {name} LOGIN PASSWORD 'right' SUPERUSER")
    with postgres.password_required(name):
        yield name
    postgres.fetch(postgres_url, f"REASSIGN OWNED BY {name} TO CURRENT_USER")
    postgres.fetch(postgres_url, f"DROP ROLE {name}")


def test_a_wrong_password(postgres_url: str, locked_role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raised at construction, strict or not, and never shown; the right one may be in the environment."""
    url = make_url(postgres_url)._replace(username=locked_role, password=None)
    for strict in (False, True):
        wrong = url.set(password="guessed").render_as_string(hide_password=False)
        with pytest.raises(StoreError, match=r"password authentication failed.*PGPASSWORD") as refused:
            construct(wrong, strict=strict)
        assert "guessed" not in str(refused.value)
    monkeypatch.setenv("PGPASSWORD", "right")
    with ChatHistoryCallback(url.render_as_string()) as history:
        run_id = record(history, reply="a")
    assert_whole(postgres_url, run_id, ["a"])


def test_an_unknown_database(postgres_url: str) -> None:
    """With the command that creates it."""
    url = make_url(postgres_url).set(database="nobody_made_this").render_as_string(hide_password=False)
    with pytest.raises(StoreError, match=r"does not exist; create it: createdb nobody_made_this"):
        construct(url)


def test_an_empty_database_gets_its_tables() -> None:
    """As an empty file does; by several processes at once too."""
    with empty_database() as url:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: asyncio.run(_opened(url)), range(4)))
        code = "import sys; from recorder import ChatHistoryCallback; ChatHistoryCallback(sys.argv[1]).close().wait()"
        both = [start_python(code, url) for _ in range(2)]
        assert [process.communicate(timeout=30)[1] for process in both] == ["", ""]
        assert sql(url, "SELECT version_num FROM alembic_version") == [(schema.HEAD,)]


async def _opened(url: str) -> None:
    store = SqlStore(url)
    await store.open()
    await store.close()


def test_an_older_schema_is_refused_with_the_command(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database is shared: someone decides when it is upgraded. Nothing was changed."""
    head = schema.HEAD
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "0099"))
    monkeypatch.setattr(schema, "HEAD", "0099")
    with pytest.raises(SchemaError, match=r"needs schema 0099. Run: recorder migrate --url"):
        construct(postgres_url)
    assert sql(postgres_url, "SELECT version_num FROM alembic_version") == [(head,)]


def test_tables_of_another_tool_are_not_touched() -> None:
    """Named, with what to do."""
    with empty_database() as url:
        postgres.fetch(url, "CREATE TABLE messages (id integer)")
        with pytest.raises(SchemaError, match=r"messages, not created.*another database, or another schema"):
            construct(url)
        assert sql(url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(1,)]


def test_without_the_right_to_create(postgres_url: str) -> None:
    """The server's own words, and what to grant."""
    with empty_database() as url:
        name = f"guest_{make_url(url).database}"
        postgres.fetch(url, f"CREATE ROLE {name} LOGIN")
        try:
            guest = make_url(url).set(username=name).render_as_string(hide_password=False)
            with pytest.raises(StoreError, match=r"permission denied.*; grant this user CREATE"):
                construct(guest)
        finally:
            postgres.fetch(url, f"DROP ROLE {name}")


# -- a server that is away, cuts, stalls -----------------------------------------------------------------------


@pytest.mark.usefixtures("hasty")
def test_a_server_that_is_away_is_buffered_for(postgres_url: str, folder: Path) -> None:
    """Loudly; strict raises; and once it is there everything is."""
    with open_pooler(postgres_url, folder) as server:
        server.close()
        with pytest.raises(StoreError, match=r"cannot be opened.*; check that the server runs"):
            construct(server.url, strict=True)
        history = ChatHistoryCallback(server.url)
        run_id = record(history, reply="a")
        assert not history.stats().healthy
        server.open()
        history.flush().wait(20)
        history.close().wait(10)
    assert_whole(postgres_url, run_id, ["a"])


@pytest.mark.usefixtures("hasty")
def test_an_answer_to_commit_that_is_lost(postgres_url: str, folder: Path) -> None:
    """The server has committed, and nobody knows: stored again it is the same. Twenty times."""
    with open_pooler(postgres_url, folder) as server:
        history = ChatHistoryCallback(server.url, flush_interval=0)
        run_id = begin(history, HumanMessage("question"))
        texts = [token(5, seq) for seq in range(200)]
        for turn in range(20):
            server.cut_at_commit = True
            say(history, run_id, texts[turn * 10 : turn * 10 + 10])
            history.flush().wait(20)
        finish(history, run_id, "answer")
        history.close().wait(20)
        assert server.cuts >= 20
    assert_whole(postgres_url, run_id, texts)
    assert sql(postgres_url, "SELECT role FROM messages ORDER BY position") == [("user",), ("assistant",)]


@pytest.mark.usefixtures("hasty")
def test_a_server_that_restarts(postgres_url: str, folder: Path) -> None:
    """Connections are cut in the middle, and for a while there is nobody."""
    with (
        open_pooler(postgres_url, folder) as server,
        ChatHistoryCallback(server.url, flush_interval=0) as history,
    ):
        run_id = begin(history)
        texts = [token(6, seq) for seq in range(300)]
        for turn in range(3):
            say(history, run_id, texts[turn * 100 : turn * 100 + 50])
            server.close()
            say(history, run_id, texts[turn * 100 + 50 : turn * 100 + 100])
            server.open()
            history.flush().wait(20)
        finish(history, run_id)
    assert_whole(postgres_url, run_id, texts)


@pytest.mark.usefixtures("hasty")
def test_a_backend_that_says_nothing(
    postgres_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, with its connection open: the statement is given up in time, and stored over another one."""
    monkeypatch.setattr("recorder.storage.dialects.url_parameters.COMMAND_TIMEOUT", 0.2)
    with open_pooler(postgres_url, folder) as server, ChatHistoryCallback(server.url) as history:
        run_id = begin(history)
        history.flush().wait(20)
        server.stalled = True
        say(history, run_id, "abc")
        while history.stats().healthy:
            pass
        server.stalled = False
        finish(history, run_id)
        history.flush().wait(20)
        assert server.clients > 1
    assert_whole(postgres_url, run_id, "abc")


@pytest.mark.usefixtures("hasty")
def test_a_commit_that_the_network_swallows(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server still has the transaction with its locks, and ends it by itself: the next attempt goes well."""
    monkeypatch.setattr("recorder.storage.dialects.url_parameters.COMMAND_TIMEOUT", 1.0)
    with proxy(postgres_url) as server, ChatHistoryCallback(server.url, flush_interval=3600) as history:
        history.add_messages("Hi", conversation_id="c")
        history.flush().wait(20)
        server.at_commit = "swallowed"
        history.add_messages("Hello", conversation_id="c")  # holds the lock of its conversation as well
        run_id = record(history, reply="a")
        history.flush().wait(20)
        assert server.cuts == 1
        idle = f"SELECT count(*) {OTHERS} AND state LIKE 'idle in transaction%'"
        assert [count for (count,) in postgres.fetch(postgres_url, idle)] == [0]
    assert_whole(postgres_url, run_id, "a")
    assert sql(postgres_url, "SELECT content FROM messages WHERE conversation_id = 'c' ORDER BY position") == [
        ("Hi",), ("Hello",)
    ]  # fmt: skip


@pytest.mark.usefixtures("hasty")
def test_a_backend_that_is_terminated(postgres_url: str) -> None:
    """By an administrator, or by a failover."""
    with ChatHistoryCallback(postgres_url, flush_interval=0) as history:
        run_id = begin(history)
        for text in "abc":
            say(history, run_id, text)
            history.flush().wait(20)
            postgres.fetch(
                postgres_url,
                f"SELECT pg_terminate_backend(pid) {OTHERS}",
            )
        finish(history, run_id)
    assert_whole(postgres_url, run_id, "abc")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("statement", ["BEGIN", "COMMIT", "ROLLBACK"])
def test_a_transaction_that_fails_at_its_edge(
    postgres_url: str, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver believes one thing of the transaction and the server another: no later batch becomes a part of it."""
    failing: list[str] = []
    execute, fetch = asyncpg.Connection.execute, PreparedStatement.fetch

    async def fail_once(connection: Any, query: str, *arguments: Any, **options: Any) -> Any:
        if failing and query.startswith(failing[-1]):
            failing.pop()
            raise asyncpg.SerializationError("could not serialize access")
        return await execute(connection, query, *arguments, **options)

    async def fail_first(prepared: Any, *arguments: Any, **options: Any) -> Any:
        if failing == ["ROLLBACK", "a query"]:
            failing.pop()
            raise asyncpg.DeadlockDetectedError("deadlock detected")
        return await fetch(prepared, *arguments, **options)

    monkeypatch.setattr(asyncpg.Connection, "execute", fail_once)
    monkeypatch.setattr(PreparedStatement, "fetch", fail_first)
    with ChatHistoryCallback(postgres_url, flush_interval=0) as history:
        run_id = begin(history)
        history.flush().wait(20)
        failing += [statement, "a query"] if statement == "ROLLBACK" else [statement]
        for text in "abc":
            say(history, run_id, text)
            history.flush().wait(20)
        assert failing == []
        assert sql(postgres_url, "SELECT count(*) FROM segments") == [(3,)]
        finish(history, run_id)
    assert_whole(postgres_url, run_id, "abc")


# -- many at once ----------------------------------------------------------------------------------------------


def test_two_that_store_the_same_rows_never_lock_each_other_out(postgres_url: str) -> None:
    """Batches are sorted: in opposite order they would deadlock."""
    rows = [each for number in range(40) for each in whole_run(number)]

    async def store_all(batch: list[Any]) -> None:
        store = SqlStore(postgres_url)
        for _ in range(5):
            await store.append(Batch(PRODUCER, batch))
        await store.close()

    async def both() -> None:
        await asyncio.gather(store_all(rows), store_all(rows[::-1]))

    asyncio.run(both())
    assert sql(postgres_url, "SELECT count(*) FROM runs") == [(40,)]


# -- errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("SELECT '{'::json", "poison"),
        ("SELECT 'x'::uuid", "poison"),
        ("INSERT INTO gaps VALUES (gen_random_uuid(), NULL, 1, '')", "poison"),
        ("SELECT * FROM nowhere", "fatal"),
        ("SELEC 1", "fatal"),
        ("SELECT pg_terminate_backend(pg_backend_pid())", "doubtful"),
        ("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$", "doubtful"),
        ("DO $$ BEGIN RAISE SQLSTATE '53100'; END $$", "doubtful"),
        ("DO $$ BEGIN RAISE SQLSTATE '25006'; END $$", "doubtful"),
    ],
)
def test_what_the_server_says_is_understood(postgres_url: str, statement: str, kind: str) -> None:
    """By its SQLSTATE: these rows never, nothing ever, or once more."""
    dialect = Postgres(parse_url(postgres_url))

    async def story() -> str:
        async with dialect.engine().connect() as connection:
            try:
                await connection.exec_driver_sql(statement)
            except Exception as error:
                await connection.invalidate()
                return dialect.failure(error)
        return "none"

    assert asyncio.run(story()) == kind
