"""Lists the conversations with the newest runs or messages without reading all conversations."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from recorder.cli import listing
from recorder.storage import schema
from recorder.storage.store import SqlStore
from tests.oracle import sql

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
