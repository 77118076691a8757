"""Many clients share few connections to Postgres through pgbouncer, or a small fake of it, in transaction mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.messages import AIMessage, HumanMessage
from recorder.replay import Replay
from recorder.storage import migrate
from tests import postgres
from tests.oracle import assert_whole, begin, finish, record, say, token
from tests.pgbouncer import PROGRAM, PgBouncer, pgbouncer
from tests.pooler import open_pooler

real = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed")


@pytest.fixture
def bouncer(postgres_url: str, folder: Path) -> Iterator[PgBouncer]:
    """A pgbouncer that has two connections to a new database."""
    with pgbouncer(postgres_url, folder, shared=2) as found:
        yield found


@pytest.mark.parametrize(
    "pooler", [open_pooler, pytest.param(pgbouncer, marks=real)], ids=["small", "pgbouncer"]
)
def test_many_recorders_share_two_connections(
    postgres_url: str, folder: Path, pooler: Callable[..., AbstractContextManager[Any]]
) -> None:
    """Each transaction may be on another connection, and every token is stored once."""
    with pooler(postgres_url, folder, shared=2) as opened:
        histories = [ChatHistoryCallback(opened.url, flush_interval=0) for _ in range(8)]
        runs = [begin(history) for history in histories]
        texts = [token(7, seq) for seq in range(100)]
        for text in texts:
            for history, run_id in zip(histories, runs, strict=True):
                say(history, run_id, [text])
        for history, run_id in zip(histories, runs, strict=True):
            finish(history, run_id)
            history.close().wait(20)
    for run_id in runs:
        assert_whole(postgres_url, run_id, texts)


def test_no_statement_is_prepared_by_name(postgres_url: str, folder: Path) -> None:
    """A name belongs to a connection, and the next transaction may be on another one."""
    with open_pooler(postgres_url, folder, shared=2) as pooler, ChatHistoryCallback(pooler.url) as history:
        record(history)
        history.flush().wait(20)
        assert pooler.clients >= 1
        assert pooler.named_statements == 0


@real
def test_a_new_database_is_made_and_read_through_pgbouncer(folder: Path) -> None:
    """The migration, runs, added messages, replay and a follower work without a session of their own."""
    target = postgres.new_database(empty=True)
    try:
        with pgbouncer(target, folder, shared=2) as bouncer:
            migrate.upgrade(bouncer.url)
            with ChatHistoryCallback(bouncer.url) as history, Replay(bouncer.url) as replay:
                history.add_messages([HumanMessage("Hi"), AIMessage("Hello")], conversation_id="c")
                run_id = begin(history)
                say(history, run_id, "ab")
                history.flush().wait(20)
                followed = replay.stream(str(run_id), follow=True)
                assert next(followed).text == "a"
                say(history, run_id, "c")
                finish(history, run_id, "abc")
                assert "".join(chunk.text for chunk in followed) == "bc"
                assert [message.text for message in replay.messages("c")] == ["Hi", "Hello"]
        assert_whole(target, run_id, "abc")
    finally:
        postgres.drop(target)


@real
@pytest.mark.usefixtures("without_delays")
def test_each_token_is_stored_once_when_pgbouncer_is_killed_and_started_again(
    bouncer: PgBouncer, postgres_url: str
) -> None:
    """Tokens that come meanwhile are stored afterwards."""
    with ChatHistoryCallback(bouncer.url, flush_interval=0) as history:
        run_id = begin(history)
        say(history, run_id, "a")
        history.flush().wait(20)
        bouncer.close()
        say(history, run_id, "b")
        bouncer.open()
        say(history, run_id, "c")
        history.flush().wait(20)
        finish(history, run_id, "abc")
    assert_whole(postgres_url, run_id, "abc")


@real
def test_five_recorders_use_the_two_connections_of_pgbouncer(bouncer: PgBouncer, postgres_url: str) -> None:
    """The server has no other connection."""
    histories = [ChatHistoryCallback(bouncer.url) for _ in range(5)]
    for history in histories:
        record(history)
        history.flush().wait(20)
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    [(connections,)] = postgres.fetch(postgres_url, query)
    for history in histories:
        history.close().wait(20)
    assert 1 <= connections <= 2
