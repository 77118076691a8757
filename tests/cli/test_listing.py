"""Lists the conversations with the newest runs or messages without reading all conversations."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import uuid
from collections.abc import Callable, Coroutine
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from recorder.storage import conversation_list as listing
from recorder.storage import schema
from recorder.storage.store import SqlStore
from tests import hostile
from tests.oracle import new_url, sql

START = datetime(2026, 11, 21, tzinfo=UTC)


def using(url: str, work: Callable[[SqlStore], Coroutine[Any, Any, Any]]) -> Any:
    """Run work with a store and return its result."""

    async def main() -> Any:
        store = SqlStore(url)
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(main())


def fill(url: str, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Insert rows into tables."""

    async def work(store: SqlStore) -> None:
        async with store.transaction() as connection:
            for name, found in rows.items():
                if found:
                    await connection.execute(insert(schema.metadata.tables[name]), found)

    using(url, work)


def listed(url: str, limit: int) -> list[Any]:
    """Return the id and time of each conversation, as `recorder ls` reads them."""
    rows = using(url, lambda store: listing.conversations(store, limit))
    return [(row["id"], row["last_at"]) for row in rows]


def conversation(id: str) -> dict[str, Any]:
    return {"id": id, "created_at": START}


def message(conversation_id: str, seconds: int, role: str = "user") -> dict[str, Any]:
    at = START + timedelta(seconds=seconds)
    key = {"conversation_id": conversation_id, "id": str(uuid.uuid4()), "position": 0}
    return {**key, "role": role, "content": f"{conversation_id} at {seconds}", "created_at": at}


def run(conversation_id: str, seconds: int) -> dict[str, Any]:
    at = START + timedelta(seconds=seconds)
    key = {"id": str(uuid.uuid4()), "conversation_id": conversation_id}
    return {**key, "operation": "chat", "status": "complete", "started_at": at}


#: Returns the same result by reading all rows.
_ALL = """
SELECT c.id, (SELECT max(s.at) FROM (
    SELECT max(r.started_at) AS at FROM runs AS r WHERE r.conversation_id = c.id
    UNION ALL SELECT max(m.created_at) FROM messages AS m WHERE m.conversation_id = c.id) AS s) AS last_at
FROM conversations AS c
"""


@pytest.mark.parametrize("few", [1_000, 3], ids=["each", "by time"])
def test_the_listing_equals_a_query_of_all_rows(
    database: str, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """There are equal times, long conversations, empty ones, and rows without a conversation."""
    monkeypatch.setattr(listing, "_FEW", few)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    names = [f"c{number:02}" for number in range(40)]
    used_names = names[:34]
    rows = {
        "conversations": [conversation(name) for name in names],
        "messages": [message(chance.choice([*used_names, "gone"]), chance.randrange(60)) for _ in range(300)],
        "runs": [run(chance.choice([*used_names, "gone"]), chance.randrange(60)) for _ in range(60)],
    }
    rows["messages"] += [message("c00", chance.randrange(60, 90)) for _ in range(200)]
    fill(database, rows)
    every = sorted(((at or "", id) for id, at in sql(database, _ALL)), reverse=True)
    for limit in (1, 2, 7, 33, 40, 100):
        assert listed(database, limit) == [(id, at or None) for at, id in every[:limit]]


def test_an_empty_database_lists_no_conversation(database: str) -> None:
    """The result is an empty list."""
    assert listed(database, 20) == []


def test_the_opening_of_a_conversation_is_its_first_user_message(database: str) -> None:
    """Messages of other roles before it do not count."""
    rows = [message("c", 1, "system"), message("c", 3), message("c", 2)]
    fill(database, {"conversations": [conversation("c")], "messages": rows})
    [row] = using(database, lambda store: listing.conversations(store, 5))
    assert (row["opening"], row["messages"], row["runs"], row["status"]) == ("c at 2", 3, 0, None)


@pytest.mark.parametrize("few", [1_000, 0], ids=["each", "by time"])
def test_every_conversation_of_a_malicious_file_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """Ids, times and titles have wrong types."""
    monkeypatch.setattr(listing, "_FEW", few)
    url, seed = new_url(tmp_path), random.randrange(2**32)
    print(f"seed {seed}")
    using(url, lambda store: store.size())
    hostile.spoil(tmp_path / "history.db", seed)
    [(stored,)] = sql(url, "SELECT count(DISTINCT id) FROM conversations")
    for limit in (1, 20, 1_000):
        assert len(listed(url, limit)) == min(limit, stored)


#: Times that recorder does not write; SQLite stores an integer as text in this column.
_BAD_TIMES = ["yesterday", "2026-13-45", 7, 0, -1, 1.5, b"\x1b[2J", b"", "", "2026-01-01", "\x1b[2J"]


@pytest.mark.parametrize("table", ["messages", "runs"])
def test_whatever_times_a_file_has_every_conversation_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """Each of many bad times ends a page, as the time of a message or of a run. The good times come in their order."""
    monkeypatch.setattr(listing, "_FEW", 0)
    url, names = new_url(tmp_path), [f"c{number:02}" for number in range(30)]
    make = {"messages": message, "runs": run}[table]
    rows = [make(name, number) for number, name in enumerate(names)]
    fill(url, {"conversations": [conversation(name) for name in names], table: rows})
    time = {"messages": "created_at", "runs": "started_at"}[table]
    with closing(sqlite3.connect(tmp_path / "history.db")) as connection, connection:
        for name, bad in zip(names, _BAD_TIMES, strict=False):
            connection.execute(f"UPDATE {table} SET {time} = ? WHERE conversation_id = ?", (bad, name))
    for limit in (1, 2, 3, 7, 29, 30, 100):
        assert len(dict(listed(url, limit))) == min(limit, 30)
    good = [name for name, _ in listed(url, 30) if name in names[len(_BAD_TIMES) :]]
    assert good == names[: len(_BAD_TIMES) - 1 : -1]
