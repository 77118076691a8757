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
from recorder.storage import migrate, schema
from recorder.storage.dialects import Postgres, sqlite
from tests import postgres
from tests.oracle import sql
from tests.revisions import older_file, older_postgres, older_statements

RUN, PROMPT, REPLY, PRODUCER = (str(uuid.UUID(int=number)) for number in range(1, 5))
#: Columns that later revisions added.
ADDED = ("process", "said_at")
#: The columns of the views of revision 0001; newer revisions have them first, in this order.
COLUMNS = {
    "transcripts": "conversation_id, message_id, parent_id, branch, position, role, content, status, model, run_id, "
    "created_at",
    "tokens": "run_id, seq, at_us, kind, idx, text",
    "chathistory": "id, role, content",
    "run_stats": "run_id, conversation_id, model, status, token_count, time_to_first_token_ms, duration_ms, "
    "tokens_per_second, gap_p50_ms, gap_p95_ms",
}


@pytest.fixture(params=["sqlite", "postgres"])
def older(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of revision 0001 with rows in every table but `annotations`."""
    if request.param == "sqlite":
        yield older_file(tmp_path)
        return
    postgres.server()
    url = older_postgres(tmp_path)
    yield url
    postgres.drop(url)


def rows_of(url: str) -> dict[str, list[Any]]:
    """All rows, with the columns that revision 0001 has."""
    found = {}
    for name, table in schema.metadata.tables.items():
        columns = ", ".join(f'"{key}"' for key in table.c.keys() if key not in ADDED)  # noqa: SIM118
        found[name] = sorted(map(str, sql(url, f"SELECT {columns} FROM {name}")))
    return found


def test_an_older_database_is_upgraded_with_all_its_rows(older: str) -> None:
    """No row changes, and the views have the same rows as before and those of failed runs."""
    before = rows_of(older)
    rows_before = sorted(map(str, sql(older, f"SELECT {COLUMNS['transcripts']} FROM transcripts")))
    assert migrate.upgrade(older) == ["0002"]
    assert (migrate.connected(older, migrate.state), rows_of(older)) == ("current", before)
    after = sorted(map(str, sql(older, f"SELECT {COLUMNS['transcripts']} FROM transcripts")))
    assert [row for row in after if row not in rows_before] == [
        str(row)
        for row in sql(
            older,
            f"SELECT {COLUMNS['transcripts']} FROM transcripts WHERE status = 'error' AND content IS NULL",
        )
    ]
    assert len(after) == len(rows_before) + 1


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
    with pytest.raises(SchemaError, match=r"needs schema 0002. Run: recorder migrate --url"):
        ChatHistoryCallback(url)
    assert sql(url, "SELECT version_num FROM alembic_version") == [("0001",)]
    assert migrate.upgrade(url) == ["0002"]
    ChatHistoryCallback(url).close().wait(10)


def test_an_older_version_can_record_after_the_upgrade(older: str) -> None:
    """A process that opened the database before the upgrade writes its batches as before."""
    migrate.upgrade(older)
    write_as_0001(older)
    [found] = sql(
        older, "SELECT status, content FROM transcripts WHERE run_id IS NOT NULL AND conversation_id = 'old'"
    )
    assert found == ("complete", "La.")
    assert sql(older, "SELECT text FROM tokens WHERE run_id = ?", RUN) == [("La.",)]
    assert sql(older, "SELECT process FROM producers WHERE id = ?", PRODUCER) == [(None,)]


def write_as_0001(url: str) -> None:
    """Write one batch with a row for every table, as the writer of revision 0001 does."""
    moment = now()
    later = moment + timedelta(seconds=1)
    head = [RUN, "old", None, 1, "chat", "openai", "gpt-4o", None]
    rest = ["{}", None, None, None, PROMPT, PRODUCER]
    seal = [
        "complete",
        later,
        later,
        "stop",
        None,
        None,
        "gpt-4o",
        "x",
        1,
        1,
        2,
        "{}",
        "provider",
        1,
        "aa",
        None,
        REPLY,
    ]
    rows: list[list[Any]] = [
        [PRODUCER, "here", 1, moment, moment],
        ["old", None, moment],
        ["old", REPLY, PROMPT, 1, "assistant", "La.", None, RUN, later],
        [*head, "streaming", moment, *rest],
        [*head, moment, *rest, *seal],
        [RUN, 0, 0, 1, 5, b"x", None],
        [RUN, 1, 1, "full"],
        [RUN, 0, 1, '[[5,"La."]]'],
    ]
    if url.startswith("sqlite"):
        migrate.connected(url, partial(_one_by_one, rows))
        return
    # One statement cannot write a run twice, so one batch opens the run and the next one seals it.
    opened, sealed = 3, 4
    asyncio.run(_in_one_statement(url, rows, {sealed}))
    asyncio.run(_in_one_statement(url, rows, {opened}))


def _one_by_one(rows: list[list[Any]], connection: Connection) -> None:
    with connection.begin():
        for statement, row in zip(older_statements("sqlite"), rows, strict=True):
            values = tuple(iso(value) if isinstance(value, datetime) else value for value in row)
            connection.exec_driver_sql(statement, values)


async def _in_one_statement(url: str, rows: list[list[Any]], without: set[int]) -> None:
    """Each column is an array, which is empty where the batch has no row for a table."""
    [statement] = older_statements("postgres")
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
        SchemaError, match=r"written by a newer recorder: its schema is 0002.*pip install --upgrade"
    ):
        ChatHistoryCallback(older)
