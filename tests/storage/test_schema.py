"""The tables and views: what is stored, and what users read with SQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Protocol

import pytest
from sqlalchemy import (
    Connection,
    CursorResult,
    Dialect,
    Executable,
    NullPool,
    create_engine,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.schema import CreateTable

from recorder.storage import schema, views
from recorder.storage.dialects import Postgres
from tests import postgres
from tests.oracle import new_url

POSTGRES: Dialect = make_url("postgresql+asyncpg://host/db").get_dialect()()
START = datetime(2026, 11, 21, 1, 2, 3, 999_999, tzinfo=UTC)


class Database(Protocol):
    """The methods of a connection that these tests use."""

    def execute(self, statement: Executable) -> CursorResult[Any]: ...
    def exec_driver_sql(self, statement: str) -> CursorResult[Any]: ...


class OnLoop:
    """An asynchronous connection with synchronous methods."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    def execute(self, statement: Executable) -> Any:
        return postgres.run(self._connection.execute(statement))

    def exec_driver_sql(self, statement: str) -> Any:
        return postgres.run(self._connection.exec_driver_sql(statement))


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Connection]:
    """A connection to a new file with the newest schema."""
    with create_engine(new_url(tmp_path), poolclass=NullPool).connect() as connection:
        yield connection


@pytest.fixture(params=["sqlite", "postgres"])
def db(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A connection to a new database of each kind."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite")
        return
    engine = Postgres(make_url(request.getfixturevalue("postgres_url"))).engine()
    connection = postgres.run(_connected(engine))
    yield OnLoop(connection)
    postgres.run(connection.close())
    postgres.run(engine.dispose())


async def _connected(engine: AsyncEngine) -> AsyncConnection:
    return await engine.connect()


def at(seconds: float) -> datetime:
    """The time so many seconds after the start."""
    return START + timedelta(seconds=seconds)


def uid(number: int) -> str:
    """The id made of a number; ids sort as their numbers."""
    return str(uuid.UUID(int=number))


def say(db: Database, number: int, content: str, **more: Any) -> None:
    """Store a message of the conversation `song`."""
    row = {"parent_id": None, "position": 0, "role": "user", "created_at": at(number), **more}
    db.execute(insert(schema.messages).values(conversation_id="song", id=uid(number), content=content, **row))


def run(db: Database, number: int, **more: Any) -> None:
    """Store a run of the conversation `song`."""
    row = {"status": "streaming", "operation": "chat", "request_model": "gpt-4o-mini", **more}
    row = {"started_at": at(number), **row}
    db.execute(insert(schema.runs).values(id=uid(number), conversation_id="song", **row))


def stream(db: Database, number: int, seq: int, deltas: str, count: int) -> None:
    """Store a segment of a run."""
    db.execute(insert(schema.segments).values(run_id=uid(number), seq=seq, count=count, deltas=deltas))


def test_ids_are_dashed_lower_case_text(sqlite: Connection) -> None:
    """UUID objects and every way to write one become the same text."""
    given = uuid.UUID("01A1FBD0-1AC9-7730-8FBC-C96C2C6E92F0")
    for number, spelling in enumerate((given, str(given).upper(), given.hex)):
        row = {"run_id": spelling, "seq": number, "count": 1, "reason": "full"}
        sqlite.execute(insert(schema.gaps).values(row))
    assert sqlite.exec_driver_sql("SELECT DISTINCT run_id FROM gaps").scalars().all() == [str(given)]
    assert sqlite.execute(select(schema.gaps.c.run_id)).scalars().all() == [str(given)] * 3


def test_an_id_that_is_no_uuid_is_refused(db: Database) -> None:
    """Postgres would refuse it too."""
    with pytest.raises(StatementError, match="badly formed"):
        db.execute(insert(schema.gaps).values(run_id="chat-42", seq=0, count=1, reason="full"))


def test_times_are_text_that_sorts_by_time(sqlite: Connection) -> None:
    """They are in UTC with six decimals and Z, whatever their zone was, and are read as aware datetimes."""
    summer = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    sqlite.execute(insert(schema.conversations).values(id="song", created_at=summer))
    stored = sqlite.exec_driver_sql("SELECT created_at FROM conversations").scalar_one()
    assert stored == "2026-07-01T10:00:00.000000Z"
    assert sqlite.execute(select(schema.conversations.c.created_at)).scalar_one().isoformat() == (
        "2026-07-01T10:00:00+00:00"
    )


def test_a_time_without_zone_is_refused(db: Database) -> None:
    """It would mean another moment on another machine."""
    with pytest.raises(StatementError, match="no time zone"):
        db.execute(insert(schema.conversations).values(id="song", created_at=datetime(2026, 7, 1)))


@pytest.mark.parametrize("written", ['{"b": 1,  "a": "\\u0000"}', '"text"', "[]", "null", None])
def test_json_is_the_text_that_was_written(db: Database, written: str | None) -> None:
    """It is neither encoded a second time nor reordered."""
    db.execute(insert(schema.conversations).values(id="song", created_at=START, metadata=written))
    assert db.exec_driver_sql("SELECT metadata FROM conversations").scalar_one() == written
    assert db.execute(select(schema.conversations.c.metadata)).scalar_one() == written


def test_a_driver_of_postgres_that_decodes_json_raises_what_to_set() -> None:
    """The column needs the text, not the decoded value."""
    read = schema.Json().result_processor(POSTGRES, None)
    assert read is not None
    assert [read("[1]"), read(None)] == ["[1]", None]
    with pytest.raises(TypeError, match="json_deserializer=str"):
        read([1])


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (schema.runs.c.id, "UUID"),
        (schema.runs.c.conversation_id, "TEXT"),
        (schema.runs.c.started_at, "TIMESTAMP WITH TIME ZONE"),
        (schema.runs.c.token_count, "BIGINT"),
        (schema.segments.c.seq, "BIGINT"),
        (schema.segments.c.deltas, "JSON"),
        (schema.frames.c.data, "BYTEA"),
        (schema.annotations.c.score, "DOUBLE PRECISION"),
    ],
    ids=str,
)
def test_types_on_postgres(column: Any, kind: str) -> None:
    """Postgres has types of its own for what SQLite stores as text."""
    ddl = str(CreateTable(column.table).compile(dialect=POSTGRES))
    assert f"\t{column.name} {kind}" in ddl


def test_every_table_can_be_distributed() -> None:
    """Each primary key begins with the run or the conversation; no foreign keys, unique indexes or serial ids."""
    keys = {name: next(iter(table.primary_key)).name for name, table in schema.metadata.tables.items()}
    own = dict.fromkeys(("conversations", "producers", "runs"), "id")
    by_run = dict.fromkeys(("segments", "frames", "gaps", "annotations", "stop_requests"), "run_id")
    by_conversation = dict.fromkeys(("messages", "context_messages"), "conversation_id")
    assert keys == {**own, **by_run, **by_conversation}
    for table in schema.metadata.tables.values():
        assert not table.foreign_keys
        assert not any(index.unique for index in table.indexes)
        assert "SERIAL" not in str(CreateTable(table).compile(dialect=POSTGRES))


def test_a_token_is_stored_once(db: Database) -> None:
    """The primary key of a segment is (run_id, seq)."""
    stream(db, 1, 0, '[[1,"a"]]', 1)
    with pytest.raises(IntegrityError):
        stream(db, 1, 0, '[[1,"b"]]', 1)


def test_the_view_tokens_has_one_row_for_each_token(db: Database) -> None:
    """Left-out kinds and indexes have their defaults, and escaped text stays escaped."""
    stream(db, 1, 2, '[[30,"{}","tool_args","0.1"],[31,"\ufdd00000\\n"]]', 2)
    stream(db, 1, 0, '[[10,"Ü"],[20,"hm","reasoning"]]', 2)
    rows = db.execute(select(views.tokens).order_by(views.tokens.c.seq)).all()
    assert [tuple(row)[1:] for row in rows] == [
        (0, 10, "text", "0", "Ü"),
        (1, 20, "reasoning", "0", "hm"),
        (2, 30, "tool_args", "0.1", "{}"),
        (3, 31, "text", "0", "\ufdd00000\n"),
    ]


def two_branches(db: Database) -> None:
    """Store a prompt, two answers to it, and a message after the second answer."""
    say(db, 1, "Sing.")
    run(
        db,
        2,
        status="complete",
        prompt_message_id=uid(1),
        response_message_id=uid(3),
        response_model="gpt-4o",
    )
    say(db, 3, "La.", parent_id=uid(1), position=1, role="assistant", run_id=uid(2))
    run(db, 4, status="incomplete", prompt_message_id=uid(1), response_message_id=uid(5))
    say(db, 5, "Li.", parent_id=uid(1), position=1, role="assistant", run_id=uid(4))
    say(db, 6, "Louder!", parent_id=uid(5), position=2)


def transcript(db: Database) -> list[tuple[Any, ...]]:
    """Branch, position, role, content, status and model of each row, in order."""
    view = views.transcripts.c
    columns = (view.branch, view.position, view.role, view.content, view.status, view.model)
    rows = db.execute(select(*columns).order_by(view.position, view.branch, view.created_at))
    return [tuple(row) for row in rows]


def test_a_transcript_has_every_message_and_its_branch(db: Database) -> None:
    """Status and model of a reply are those of its run; other messages are complete and have no model."""
    two_branches(db)
    assert transcript(db) == [
        (1, 0, "user", "Sing.", "complete", None),
        (1, 1, "assistant", "La.", "complete", "gpt-4o"),
        (2, 1, "assistant", "Li.", "incomplete", "gpt-4o-mini"),
        (1, 2, "user", "Louder!", "complete", None),
    ]


def test_first_messages_of_a_conversation_are_numbered_as_branches(db: Database) -> None:
    """They are numbered by time, then by id, in each conversation by itself."""
    db.execute(
        insert(schema.messages).values(
            conversation_id="other", id=uid(9), position=0, role="user", content="Hello", created_at=START
        )
    )
    say(db, 3, "later")
    say(db, 2, "second", created_at=START)
    say(db, 1, "first", created_at=START)
    view = views.transcripts.c
    rows = db.execute(select(view.content, view.branch).where(view.conversation_id == "song"))
    assert dict(tuple(row) for row in rows) == {"first": 1, "second": 2, "later": 3}


def test_a_run_without_a_message_shows_its_text_so_far(db: Database) -> None:
    """It is the text of the first choice, in the order of its tokens."""
    two_branches(db)
    run(db, 7, prompt_message_id=uid(6), first_token_at=at(7.5))
    stream(db, 7, 3, '[[40,"one","text","1"],[50,"LA","text","0.2"]]', 2)
    stream(db, 7, 0, '[[10,"louder?","reasoning"],[20,"LA "],[30,"\ufdd0D800 "]]', 3)
    run(db, 8, status="interrupted", prompt_message_id=uid(6))
    stream(db, 8, 0, '[[10,"LO"]]', 1)
    run(db, 9, prompt_message_id=uid(6))
    stream(db, 9, 0, '[[10,"{}","tool_args"],[20,""]]', 2)  # no text
    assert transcript(db)[4:] == [
        (1, 3, "assistant", "LA \ufdd0D800 LA", "streaming", "gpt-4o-mini"),
        (2, 3, "assistant", "LO", "interrupted", "gpt-4o-mini"),
        (3, 3, "assistant", "", "streaming", "gpt-4o-mini"),
    ]
    partial = db.execute(select(views.transcripts).where(views.transcripts.c.run_id == uid(7))).one()
    assert (partial.message_id, partial.parent_id, partial.run_id) == (None, uid(6), uid(7))
    assert (partial.conversation_id, partial.created_at) == ("song", at(7.5))


def test_a_run_that_ended_without_a_reply_has_a_row_with_its_error(db: Database) -> None:
    """It has the last branch after its prompt, and the error is written as Python prints it."""
    two_branches(db)
    words = {"error_type": "openai.RateLimitError", "error_message": "slow down"}
    run(db, 7, status="error", prompt_message_id=uid(6), **words)
    run(db, 8, status="error", prompt_message_id=uid(6), error_type="TimeoutError", error_message="")
    run(db, 9, status="error", prompt_message_id=uid(6), error_message="away")
    run(db, 10, status="cancelled", prompt_message_id=uid(1))
    run(db, 11, status="interrupted")  # its messages were never stored
    db.execute(schema.runs.update().where(schema.runs.c.id == uid(4)).values(status="error", **words))
    view = views.transcripts.c
    query = select(view.position, view.branch, view.content, view.status, view.error)
    rows = db.execute(query.where(view.status != "complete").order_by(view.position, view.branch))
    assert [tuple(row) for row in rows] == [
        (0, 2, None, "interrupted", None),
        (1, 2, "Li.", "error", "openai.RateLimitError: slow down"),
        (1, 3, None, "cancelled", None),
        (3, 1, None, "error", "openai.RateLimitError: slow down"),
        (3, 2, None, "error", "TimeoutError"),
        (3, 3, None, "error", "away"),
    ]


def test_a_streaming_answer_has_the_last_branch(db: Database) -> None:
    """One run streams the third answer to a prompt, and another has no prompt."""
    two_branches(db)
    run(db, 7, prompt_message_id=uid(1))
    stream(db, 7, 0, '[[10,"Lu"]]', 1)
    run(db, 8)
    stream(db, 8, 0, '[[10,"Hm"]]', 1)
    found = [
        (branch, position) for branch, position, _, _, status, _ in transcript(db) if status == "streaming"
    ]
    assert found == [(2, 0), (3, 1)]


def test_the_message_replaces_the_partial_text(db: Database) -> None:
    """The transcript has the answer once."""
    say(db, 1, "Sing.")
    run(db, 2, prompt_message_id=uid(1))
    stream(db, 2, 0, '[[10,"La."]]', 1)
    assert [row[3:5] for row in transcript(db)] == [("Sing.", "complete"), ("La.", "streaming")]
    say(db, 3, "La.", parent_id=uid(1), position=1, role="assistant", run_id=uid(2))
    db.execute(schema.runs.update().values(response_message_id=uid(3), status="complete"))
    assert [row[3:5] for row in transcript(db)] == [("Sing.", "complete"), ("La.", "complete")]


def test_chathistory_has_id_role_and_content(db: Database) -> None:
    """Rows are numbered by time, then by conversation."""
    two_branches(db)
    run(db, 7, prompt_message_id=uid(6))
    stream(db, 7, 0, '[[10,"LA"]]', 1)
    run(db, 8, status="error", prompt_message_id=uid(6))  # it has no text
    assert [tuple(row) for row in db.exec_driver_sql("SELECT * FROM chathistory")] == [
        (1, "user", "Sing."),
        (2, "assistant", "La."),
        (3, "assistant", "Li."),
        (4, "user", "Louder!"),
        (5, "assistant", "LA"),
    ]


def stats(db: Database, number: int) -> dict[str, Any]:
    """The row of a run in `run_stats`, without ids and model."""
    row = db.execute(select(views.run_stats).where(views.run_stats.c.run_id == uid(number))).one()
    return {
        key: value for key, value in row._mapping.items() if key not in ("run_id", "conversation_id", "model")
    }


def test_run_stats_of_a_sealed_run(db: Database) -> None:
    """The token distances are 1, 2, ..., 20 ms, their percentiles are by nearest rank, and the duration is exact."""
    run(
        db,
        1,
        status="complete",
        ended_at=at(1) + timedelta(microseconds=300_001),
        token_count=21,
        sha256="5e",
    )
    offsets = [50_000 + 1_000 * sum(range(n + 1)) for n in range(21)]
    deltas = ",".join(f'[{offset},"a"]' for offset in offsets)
    stream(db, 1, 0, f"[{deltas}]", 21)
    assert stats(db, 1) == {
        "status": "complete",
        "token_count": 21,
        "time_to_first_token_ms": 50.0,
        "duration_ms": 300.001,
        "tokens_per_second": pytest.approx(20 / 0.210),
        "gap_p50_ms": 10.0,
        "gap_p95_ms": 19.0,
    }


def test_run_stats_of_a_streaming_run(db: Database) -> None:
    """They are counted from the stored tokens, up to the last one."""
    run(db, 1)
    stream(db, 1, 0, '[[400000,"a"],[420000,"b"]]', 2)
    stream(db, 1, 2, '[[500000,"c"]]', 1)
    assert stats(db, 1) == {
        "status": "streaming",
        "token_count": 3,
        "time_to_first_token_ms": 400.0,
        "duration_ms": 500.0,
        "tokens_per_second": 20.0,
        "gap_p50_ms": 20.0,
        "gap_p95_ms": 80.0,
    }


def test_run_stats_of_a_run_whose_tokens_are_pruned(db: Database) -> None:
    """Only the values of the run's own row are left."""
    ends = {"first_token_at": at(1.25), "ended_at": at(3)}
    run(db, 1, status="complete", token_count=70, sha256="5e", pruned_at=at(9), **ends)
    assert stats(db, 1) == {
        "status": "complete",
        "token_count": 70,
        "time_to_first_token_ms": 250.0,
        "duration_ms": 2000.0,
        "tokens_per_second": None,
        "gap_p50_ms": None,
        "gap_p95_ms": None,
    }


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM tokens WHERE run_id = 'r'",
        "SELECT * FROM run_stats WHERE run_id = 'r'",
        "SELECT * FROM run_stats WHERE conversation_id = 'c'",
        "SELECT * FROM transcripts WHERE conversation_id = 'c' ORDER BY position",
    ],
)
def test_reading_one_run_or_conversation_scans_no_table(sqlite: Connection, query: str) -> None:
    """The query plan searches an index of every table, so the cost does not grow with other rows."""
    plan = [row[3] for row in sqlite.execute(text(f"EXPLAIN QUERY PLAN {query}"))]
    seeks = [step for step in plan if step.startswith("SEARCH")]
    scans = [
        step for step in plan if step.split()[:2] in (["SCAN", alias] for alias in ("m", "o", "p", "r", "s"))
    ]
    assert seeks
    assert scans == []


def test_the_sweep_uses_the_index_of_open_runs(sqlite: Connection) -> None:
    """The index has only runs with the status `streaming`."""
    query = "EXPLAIN QUERY PLAN SELECT id FROM runs WHERE status = 'streaming' AND producer_id = 'p'"
    assert "runs_streaming" in sqlite.execute(text(query)).one()[3]


def test_the_branch_of_a_message_is_counted_with_an_index(sqlite: Connection) -> None:
    """The index finds the messages with the same parent, so a long transcript is not read for each of its messages."""
    details = [row[-1] for row in sqlite.exec_driver_sql("EXPLAIN QUERY PLAN SELECT * FROM transcripts")]
    siblings = [detail for detail in details if "SEARCH s" in detail and "messages" in detail]
    assert siblings
    assert all("messages_by_parent" in detail for detail in siblings)


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_views_have_the_same_columns_in_sql_and_in_python(dialect: str) -> None:
    """This holds for both databases."""
    described = {view.name: view for view in views.VIEWS}
    assert list(views.definitions(dialect)) == list(described)
    for name, body in views.definitions(dialect).items():
        first = body.split("\nUNION ALL\n")[0]
        named = [column for column in described[name].c.keys() if f" AS {column}" in first]  # noqa: SIM118
        assert named == list(described[name].c.keys())
