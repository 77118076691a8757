"""Databases of older revisions are upgraded with all their rows, and older versions can still write to them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, make_url

from recorder import ChatHistoryCallback
from recorder.core.clock import iso, now
from recorder.errors import SchemaError
from recorder.messages import AIMessage, HumanMessage, SystemMessage
from recorder.messages.identity import content_hash
from recorder.replay import Replay
from recorder.storage import migrate, schema
from recorder.storage.dialects import Postgres, sqlite
from recorder.storage.schema import HEAD, REVISIONS
from tests import postgres
from tests.oracle import record, sql
from tests.revisions import older_file, older_postgres, older_statements
from tests.stores import execute

RUN, PROMPT, REPLY, PRODUCER = (str(uuid.UUID(int=number)) for number in range(1, 5))
#: Columns that later revisions added.
ADDED = (
    "producers.process",
    "runs.said_at",
    "runs.instructions",
    "runs.input",
    "runs.output",
    "messages.content_hash",
    "messages.thread_key",
    "messages.words",
    "conversations.tags",
    *(f"runs.{name}" for name in ("input_cost", "output_cost", "cost", "price", "redaction")),
    "annotations.conversation_id",
)
NEW_TABLES = ("context_messages", "stop_requests")
#: The columns of the views of revision 0001; newer revisions have them first, in this order.
COLUMNS = {
    "transcripts": "conversation_id, message_id, parent_id, branch, position, role, content, status, model, run_id, "
    "created_at",
    "tokens": "run_id, seq, at_us, kind, idx, text",
    "chathistory": "id, role, content",
    "run_stats": "run_id, conversation_id, model, status, token_count, time_to_first_token_ms, duration_ms, "
    "tokens_per_second, gap_p50_ms, gap_p95_ms",
}


@pytest.fixture(params=REVISIONS[:-1])
def revision(request: pytest.FixtureRequest) -> str:
    """Each earlier revision."""
    found: str = request.param
    return found


@pytest.fixture(params=["sqlite", "postgres"])
def older(request: pytest.FixtureRequest, revision: str, tmp_path: Path) -> Iterator[str]:
    """A database of the revision with rows in every table but `annotations`."""
    if request.param == "sqlite":
        yield older_file(tmp_path, revision)
        return
    postgres.server()
    url = older_postgres(tmp_path, revision)
    yield url
    postgres.drop(url)


def rows_of(url: str) -> dict[str, list[Any]]:
    """All rows, with the columns that revision 0001 has."""
    found = {}
    for name, table in schema.metadata.tables.items():
        if name in NEW_TABLES:
            continue
        columns = ", ".join(f'"{key}"' for key in table.c.keys() if f"{name}.{key}" not in ADDED)  # noqa: SIM118
        found[name] = sorted(map(str, sql(url, f"SELECT {columns} FROM {name}")))
    return found


def test_an_older_database_is_upgraded_with_all_its_rows(older: str, revision: str) -> None:
    """No row changes, and the views have the same rows as before; since 0002 they have those of failed runs, too."""
    before = rows_of(older)
    rows_before = sorted(map(str, sql(older, f"SELECT {COLUMNS['transcripts']} FROM transcripts")))
    assert migrate.upgrade(older) == list(REVISIONS[REVISIONS.index(revision) + 1 :])
    assert (migrate.connected(older, migrate.state), rows_of(older)) == ("current", before)
    after = sorted(map(str, sql(older, f"SELECT {COLUMNS['transcripts']} FROM transcripts")))
    failed = f"SELECT {COLUMNS['transcripts']} FROM transcripts WHERE status = 'error' AND content IS NULL"
    new = list(map(str, sql(older, failed))) if revision == "0001" else []
    assert after == sorted([*rows_before, *new])


def test_the_views_keep_their_columns_in_their_order(older: str) -> None:
    """New columns come last, so SQL that was written for an older version finds the same."""
    migrate.upgrade(older)
    for view, columns in COLUMNS.items():
        [*_, last] = sql(older, f"SELECT * FROM {view}")
        [*_, named] = sql(older, f"SELECT {columns} FROM {view}")
        assert last[: len(named)] == named


def test_a_small_older_file_is_upgraded_when_it_is_opened(tmp_path: Path) -> None:
    """One program uses the file, and the upgrade takes an instant."""
    url = older_file(tmp_path)
    with ChatHistoryCallback(url):
        pass
    assert migrate.connected(url, migrate.state) == "current"


def test_a_large_older_file_raises_the_command_that_upgrades_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade would keep the constructor waiting; the file is not changed."""
    url = older_file(tmp_path)
    path = Path(url.removeprefix("sqlite:///"))
    monkeypatch.setattr(sqlite, "MAX_UPGRADED", path.stat().st_size - 1)
    with pytest.raises(SchemaError, match=rf"needs schema {HEAD}. Run: recorder migrate --url"):
        ChatHistoryCallback(url)
    assert sql(url, "SELECT version_num FROM alembic_version") == [("0001",)]
    assert migrate.upgrade(url) == list(REVISIONS[1:])
    ChatHistoryCallback(url).close().wait(10)


def test_an_older_version_can_record_after_the_upgrade(older: str, revision: str) -> None:
    """A process that opened the database before the upgrade writes its batches as before."""
    migrate.upgrade(older)
    write_as(revision, older)
    [found] = sql(
        older, "SELECT status, content FROM transcripts WHERE run_id IS NOT NULL AND conversation_id = 'old'"
    )
    assert found == ("complete", "La.")
    assert sql(older, "SELECT text FROM tokens WHERE run_id = ?", RUN) == [("La.",)]
    process = None if revision == "0001" else "boot 7"
    assert sql(older, "SELECT process FROM producers WHERE id = ?", PRODUCER) == [(process,)]


def write_as(revision: str, url: str) -> None:
    """Write one batch with a row for every table, as the writer of that revision does."""
    moment, is_first, has_context = now(), revision == "0001", revision >= "0003"
    hashes = [*([1] if has_context else []), *([None] if revision >= "0004" else [])]
    later = moment + timedelta(seconds=1)
    head = [RUN, "old", None, 1, "chat", "openai", "gpt-4o", None]
    rest = ["{}", None, None, *([None, PROMPT, PRODUCER] if is_first else [PROMPT, None, PRODUCER, None])]
    if has_context:
        rest = ["{}", None, None, PROMPT, None, None, None, PRODUCER, None]
    status, model = ["complete", later, later, "stop", None, None], ["gpt-4o", "x"]
    counts: list[Any] = [
        1,
        1,
        2,
        "{}",
        "provider",
        *([None] if revision >= "0006" else []),
        1,
        "aa",
        None,
        REPLY,
    ]
    counts += [0.5, 0.5, 1.0, "{}", None] if revision >= "0007" else []
    seal = [*status, *model, *counts] if is_first else [*model, *status, *counts]
    if has_context:
        seal = [*model, *status, *counts]
    rows: list[list[Any]] = [
        [PRODUCER, "here", 1, moment, moment, *([] if is_first else ["boot 7"])],
        ["old", None, moment],
        ["old", REPLY, PROMPT, 1, "assistant", "La.", None, RUN, later, *hashes],
        *([["old", PROMPT, "system", "Sing.", None, moment]] if has_context else []),
        [*head, "streaming", moment, *rest] if is_first else [*head, moment, *rest, "streaming"],
        [*head, moment, *rest, *seal],
        [RUN, 0, 0, 1, 5, b"x", None],
        [RUN, 1, 1, "full"],
        [RUN, 0, 1, '[[5,"La."]]'],
    ]
    if url.startswith("sqlite"):
        migrate.connected(url, partial(_one_by_one, revision, rows))
        return
    # One statement cannot write a run twice, so one batch opens the run and the next one seals it.
    opened, sealed = (4, 5) if has_context else (3, 4)
    asyncio.run(_in_one_statement(revision, url, rows, {sealed}))
    asyncio.run(_in_one_statement(revision, url, rows, {opened}))


def _one_by_one(revision: str, rows: list[list[Any]], connection: Connection) -> None:
    with connection.begin():
        for statement, row in zip(older_statements(revision, "sqlite"), rows, strict=True):
            values = tuple(iso(value) if isinstance(value, datetime) else value for value in row)
            connection.exec_driver_sql(statement, values)


async def _in_one_statement(revision: str, url: str, rows: list[list[Any]], without: set[int]) -> None:
    """Each column is an array, which is empty where the batch has no row for a table."""
    [statement] = older_statements(revision, "postgres")
    arrays = [[] if place in without else [value] for place, row in enumerate(rows) for value in row]
    async with Postgres(make_url(url)).engine().connect() as connection:
        await connection.exec_driver_sql(statement, tuple(arrays))
        await connection.commit()


def test_an_older_version_that_opens_a_newer_database_is_refused(
    older: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the command that installs the newest version."""
    migrate.upgrade(older)
    monkeypatch.setattr(schema, "REVISIONS", ("0001",))
    monkeypatch.setattr(schema, "HEAD", "0001")
    with pytest.raises(
        SchemaError,
        match=rf"written by a newer recorder: its schema is {HEAD}.*install a newer version of chat-recorder",
    ):
        ChatHistoryCallback(older)


def test_an_older_conversation_continues(older: str) -> None:
    """The history that is sent again is not stored again. Before 0003 its system message is in the tree, and stays."""
    migrate.upgrade(older)
    with Replay(older) as replay:
        in_tree = "SELECT conversation_id FROM messages WHERE role = 'system'"
        apart = "SELECT conversation_id FROM context_messages WHERE role = 'system'"
        ids = [id for (id,) in sql(older, f"{in_tree} UNION {apart}")]
        before = {id: replay.messages(id) for id in ids}
    assert ids
    [(stored,)] = sql(older, "SELECT count(*) FROM messages")
    for id, history in before.items():
        assert history[0].role == "system"
        with ChatHistoryCallback(older, conversation_id=id) as callback:
            for turn in range(2):
                sent = [*history, HumanMessage(f"And {turn}?")]
                record(callback, *sent, reply=f"So {turn}.")
                history = [*sent, AIMessage(f"So {turn}.")]
        with Replay(older) as replay:
            assert [each.text for each in replay.messages(id)] == [each.text for each in history]
    assert sql(older, "SELECT count(*) FROM messages") == [(stored + 4 * len(ids),)]


def test_the_command_computes_the_content_hashes_of_older_messages(older: str) -> None:
    """They are those of the same messages stored today. A second call finds those that are missing then."""
    assert migrate.upgrade(older)
    found = sql(older, "SELECT role, content, content_hash FROM messages WHERE parts IS NULL")
    assert len(found) > 9
    classes = {"user": HumanMessage, "assistant": AIMessage, "system": SystemMessage}
    assert [hash for _, _, hash in found] == [content_hash(classes[role](text)) for role, text, _ in found]
    execute(older, "UPDATE messages SET content_hash = NULL, content = 'other' WHERE position = 0")
    assert migrate.upgrade(older) == []
    assert sql(older, "SELECT count(*) FROM messages WHERE content_hash IS NULL") == [(0,)]
