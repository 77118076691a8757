"""What only a server can do: refuse, go away, not answer and be shared; and the parameters of its URL."""

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
from recorder.core.clock import now
from recorder.errors import ConfigError, MissingExtra, SchemaError, StoreError
from recorder.messages import HumanMessage
from recorder.storage import migrate, schema
from recorder.storage.batch import Batch, RunRows
from recorder.storage.dialects import Postgres, masked, parse_url
from recorder.storage.store import SqlStore
from tests import postgres
from tests.faults.proxy import proxy
from tests.oracle import assert_whole, begin, finish, record, run_start, say, sql, start_python, token
from tests.pooler import open_pooler
from tests.stores import PRODUCER, using, whole_run

#: The end of a query on the other connections to the same database.
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
    """Make a history as a user does, and close it."""
    ChatHistoryCallback(url, **options).close().wait(10)


# -- URLs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg", "postgresql+psycopg2"])
def test_the_url_may_have_any_scheme_of_postgres(postgres_url: str, scheme: str) -> None:
    """recorder chooses the driver itself, and hosting companies write `postgres://`."""
    url = postgres_url.replace("postgresql", scheme, 1)
    with ChatHistoryCallback(url) as history:
        run_id = record(history, reply="a")
    assert_whole(postgres_url, run_id, ["a"])
    assert masked(url).startswith("postgresql://")


def test_parameters_that_only_libpq_knows_are_left_out(postgres_url: str) -> None:
    """asyncpg would send them to the server as settings, and the server would refuse the connection."""
    url = f"{postgres_url}&channel_binding=prefer&keepalives=1&connect_timeout=5&sslmode=disable"
    with ChatHistoryCallback(url) as history:
        run_id = record(history, reply="a")
    assert_whole(postgres_url, run_id, ["a"])


def test_settings_of_the_server_can_be_in_the_url(postgres_url: str) -> None:
    """With `search_path`, the tables are made in that schema, and `public` stays empty."""
    with empty_database() as url:
        postgres.fetch(url, "CREATE SCHEMA chats")
        with ChatHistoryCallback(f"{url}&search_path=chats") as history:
            record(history, reply="a")
        found = postgres.fetch(url, "SELECT schemaname FROM pg_tables WHERE tablename = 'segments'")
        assert [row[0] for row in found] == ["chats"]


def test_connections_are_named(postgres_url: str) -> None:
    """pg_stat_activity has the name `recorder`, or the name that the URL gives."""
    query = f"SELECT application_name {OTHERS}"
    for given, expected in ((postgres_url, "recorder"), (f"{postgres_url}&application_name=shop", "shop")):
        with ChatHistoryCallback(given):
            assert [row[0] for row in postgres.fetch(postgres_url, query)] == [expected]


def test_a_port_that_is_no_number_raises_without_the_password() -> None:
    """The ConfigError says how to write the URL."""
    with pytest.raises(ConfigError, match=r"port.*is not a number; write 'postgresql://") as refused:
        parse_url("postgresql://me:secret@host:five/db")
    assert "secret" not in str(refused.value)


def test_sync_is_refused_for_postgres(postgres_url: str) -> None:
    """The server has a setting of its own for it."""
    with pytest.raises(ConfigError, match=r"sync='process' is a setting for SQLite"):
        ChatHistoryCallback(postgres_url, sync="process")


def test_a_missing_driver_raises_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The constructor raises it, and so does an upgrade."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(MissingExtra, match=r"run: pip install 'asyncpg>=0\.30'"):
        ChatHistoryCallback("postgresql://localhost/db")
    with pytest.raises(MissingExtra):
        migrate.upgrade("postgresql://localhost/db")


# -- refusals ------------------------------------------------------------------------------------------------


@pytest.fixture
def locked_role(postgres_url: str) -> Iterator[str]:
    """The name of a role with the password "right"."""
    name = f"locked_{make_url(postgres_url).database}"
    postgres.fetch(postgres_url, f"CREATE ROLE {name} LOGIN PASSWORD 'right' SUPERUSER")
    with postgres.password_required(name):
        yield name
    postgres.fetch(postgres_url, f"REASSIGN OWNED BY {name} TO CURRENT_USER")
    postgres.fetch(postgres_url, f"DROP ROLE {name}")


def test_a_wrong_password_raises_at_construction(
    postgres_url: str, locked_role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises with `strict` and without and does not show the password; the right one may be in PGPASSWORD."""
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


def test_an_unknown_database_raises_the_command_that_creates_it(postgres_url: str) -> None:
    """The command has the name of the database."""
    url = make_url(postgres_url).set(database="nobody_made_this").render_as_string(hide_password=False)
    with pytest.raises(StoreError, match=r"does not exist; create it: createdb nobody_made_this"):
        construct(url)


def test_an_empty_database_gets_its_tables() -> None:
    """This holds also when several threads and processes open it at once."""
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
    """A database is shared, so a person decides when to upgrade it; nothing is changed."""
    head = schema.HEAD
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "0099"))
    monkeypatch.setattr(schema, "HEAD", "0099")
    with pytest.raises(SchemaError, match=r"needs schema 0099. Run: recorder migrate --url"):
        construct(postgres_url)
    assert sql(postgres_url, "SELECT version_num FROM alembic_version") == [(head,)]


def test_tables_of_another_tool_are_not_changed() -> None:
    """The error names the table and what to do."""
    with empty_database() as url:
        postgres.fetch(url, "CREATE TABLE messages (id integer)")
        with pytest.raises(SchemaError, match=r"messages, not created.*another database, or another schema"):
            construct(url)
        assert sql(url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(1,)]


def test_a_user_without_the_right_to_create_tables_gets_an_error(postgres_url: str) -> None:
    """The error names the schema, and what to grant."""
    with empty_database() as url:
        name = f"guest_{make_url(url).database}"
        postgres.fetch(url, f"CREATE ROLE {name} LOGIN")
        try:
            guest = make_url(url).set(username=name).render_as_string(hide_password=False)
            with pytest.raises(
                StoreError, match=r"cannot create tables in the schema public .*; run: GRANT CREATE"
            ):
                construct(guest)
        finally:
            postgres.fetch(url, f"DROP ROLE {name}")


# -- a server that is away, cuts connections or does not answer ------------------------------------------------


@pytest.mark.usefixtures("without_delays")
def test_a_run_is_stored_when_the_server_comes_back(postgres_url: str, folder: Path) -> None:
    """With `strict` the constructor raises; without, the recorder is unhealthy until the server answers."""
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


@pytest.mark.usefixtures("without_delays")
def test_each_token_is_stored_once_when_answers_to_commits_are_lost(postgres_url: str, folder: Path) -> None:
    """The connection is cut after each of twenty commits."""
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


@pytest.mark.usefixtures("without_delays")
def test_each_token_is_stored_once_when_the_server_restarts(postgres_url: str, folder: Path) -> None:
    """Connections are cut in the middle of a run, and new ones are refused for a while."""
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


@pytest.mark.usefixtures("without_delays")
def test_a_statement_without_an_answer_is_repeated_over_another_connection(
    postgres_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server stops answering with its connection open; the statement is given up after COMMAND_TIMEOUT."""
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


@pytest.mark.usefixtures("without_delays")
def test_a_commit_that_never_reaches_the_server_is_repeated(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends the first transaction and releases its locks, so the next attempt succeeds."""
    monkeypatch.setattr("recorder.storage.dialects.url_parameters.COMMAND_TIMEOUT", 1.0)
    # Without estimates, which read in a transaction of their own after the flush.
    options: dict[str, Any] = {"flush_interval": 3600, "estimate_usage": False}
    with proxy(postgres_url) as server, ChatHistoryCallback(server.url, **options) as history:
        history.add_messages("Hi", conversation_id="c")
        history.flush().wait(20)
        server.at_commit = "swallowed"
        history.add_messages("Hello", conversation_id="c")  # the transaction also locks the conversation
        run_id = record(history, reply="a")
        history.flush().wait(20)
        assert server.cuts == 1
        idle = f"SELECT count(*) {OTHERS} AND state LIKE 'idle in transaction%'"
        assert [count for (count,) in postgres.fetch(postgres_url, idle)] == [0]
    assert_whole(postgres_url, run_id, "a")
    assert sql(postgres_url, "SELECT content FROM messages WHERE conversation_id = 'c' ORDER BY position") == [
        ("Hi",), ("Hello",)
    ]  # fmt: skip


def test_a_swallowed_commit_of_a_sweep(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of the dead process and of its runs are free again: the next sweep marks them, and batches come in."""
    monkeypatch.setattr("recorder.storage.dialects.url_parameters.COMMAND_TIMEOUT", 1.0)
    start = run_start(1)
    batch = Batch(PRODUCER, [RunRows(start, opens=True)], open_runs=[start.run_id])

    async def story(store: SqlStore) -> int:
        await store.append(batch)
        server.at_commit = "swallowed"
        with pytest.raises(store.errors):
            await store.sweep(lambda _: True, now())
        found = await store.sweep(lambda _: True, now())
        await store.append(batch)
        return found

    with proxy(postgres_url) as server:
        assert using(server.url, story) == 1
    assert server.cuts == 1


def test_the_server_ends_each_transaction_that_may_write(postgres_url: str) -> None:
    """After two thirds of the time of a statement; nothing is set for the session, nor for those who only read."""
    url = f"{postgres_url}&command_timeout=9"
    shown = "SHOW idle_in_transaction_session_timeout"

    async def story(store: SqlStore) -> list[Any]:
        async with store.transaction() as connection:
            found = [(await connection.exec_driver_sql(shown)).scalar_one()]
            async with connection.begin_nested():
                found.append((await connection.exec_driver_sql(shown)).scalar_one())
            driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        return [*found, await driver.fetchval(shown)]

    assert using(url, story) == ["6s", "6s", "0"]
    assert using(url, story, read_only=True) == ["0", "0", "0"]


@pytest.mark.usefixtures("without_delays")
def test_each_token_is_stored_once_when_backends_are_terminated(postgres_url: str) -> None:
    """An administrator or a failover terminates them."""
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


@pytest.mark.usefixtures("without_delays")
@pytest.mark.parametrize("statement", ["BEGIN", "COMMIT", "ROLLBACK"])
def test_no_batch_joins_the_transaction_of_another_when_begin_commit_or_rollback_fails(
    postgres_url: str, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Driver and server disagree on whether a transaction is open."""
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


# -- two writers -----------------------------------------------------------------------------------------------


def test_two_stores_of_the_same_rows_never_deadlock(postgres_url: str) -> None:
    """A store sorts its rows, so both lock them in the same order."""
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
def test_an_sqlstate_decides_the_kind_of_failure(postgres_url: str, statement: str, kind: str) -> None:
    """These rows can never be stored, no rows can, or the statement can be repeated."""
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
