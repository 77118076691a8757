"""What is asked of a database takes as long for 20,000 conversations as for ten: each query reads a few rows."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recorder.errors import NotFound
from recorder.storage import conversation_list as listing
from recorder.storage import id_lookup
from recorder.storage.activity import activity_of
from recorder.storage.known_messages import known_messages
from recorder.storage.reader import DatabaseReader
from recorder.storage.store import SqlStore
from recorder.storage.stored_messages import Lookup
from tests import postgres
from tests.oracle import new_url
from tests.query_costs import fill, queries_of

START = datetime(2026, 11, 21, tzinfo=UTC)
#: Conversations, each with a message and a run; and the messages of one more, which are newer than all of them.
MANY = 20_000
LONG = "the long one"
#: A query may read so many rows.
FEW = 3_000


def id_of(number: int) -> str:
    """The id of a message and of a run: they are in no order."""
    return str(uuid.UUID(int=(number + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128))


def at(seconds: int) -> datetime:
    return START + timedelta(seconds=seconds)


def message(conversation_id: str, number: int, **more: Any) -> dict[str, Any]:
    key = {"conversation_id": conversation_id, "id": id_of(number), "position": 0, "role": "user"}
    return {**key, "content": "Hi", "content_hash": 1, "created_at": at(number), "parent_id": None, **more}


def run(number: int) -> dict[str, Any]:
    known = {"id": id_of(number), "conversation_id": f"c{number:05}", "operation": "chat"}
    known |= {"wire": "openai.responses", "response_id": f"resp_{number}"}
    return {**known, "status": "complete", "started_at": at(number), "response_message_id": id_of(number)}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Many conversations, and one of many messages."""
    on_postgres = request.param == "postgres"
    url = postgres.new_database() if on_postgres else new_url(Path(tmp_path_factory.mktemp("many")))
    names = [f"c{number:05}" for number in range(MANY)]
    fill(url, "conversations", [{"id": name, "created_at": START} for name in [*names, LONG]])
    said = [message(name, number) for number, name in enumerate(names)]
    path = [
        message(LONG, number, position=number - MANY, parent_id=id_of(number - 1) if number > MANY else None)
        for number in range(MANY, 2 * MANY)
    ]
    fill(url, "messages", said + path)
    fill(url, "runs", [run(number) for number in range(MANY)])
    yield url
    if on_postgres:
        postgres.drop(url)


async def _listed(store: SqlStore) -> None:
    ids = [row["id"] for row in await listing.conversations(store, 20)]
    assert ids == [LONG, *(f"c{number:05}" for number in range(MANY - 1, MANY - 20, -1))]


async def _found(store: SqlStore, lookup: Lookup) -> list[str]:
    async with store.transaction() as connection:
        return [each.id for each in await known_messages(connection, store.dialect, lookup)]


async def _newest_messages(store: SqlStore) -> None:
    keys = [[LONG, None, None], ["c00007", None, None], ["nobody", None, None]]
    assert await _found(store, Lookup("newest", keys)) == [id_of(2 * MANY - 1), id_of(7)]


async def _messages_by_id(store: SqlStore) -> None:
    keys = [[LONG, id_of(MANY), None], [LONG, id_of(7), None], ["c00007", id_of(7), None]]
    assert await _found(store, Lookup("ids", keys)) == [id_of(MANY), id_of(7)]


async def _same_content(store: SqlStore) -> None:
    found = await _found(store, Lookup("content", [[LONG, None, 1], ["c00007", None, 1]], limit=3))
    assert sorted(found) == sorted(map(id_of, [2 * MANY - 1, 2 * MANY - 2, 2 * MANY - 3, 7]))


async def _end_of_a_path(store: SqlStore) -> None:
    found = await _found(store, Lookup("above", [[LONG, id_of(2 * MANY - 1), 3], ["c00007", id_of(7), 3]]))
    assert sorted(found) == sorted(map(id_of, [2 * MANY - 1, 2 * MANY - 2, 2 * MANY - 3, 7]))


async def _responses(store: SqlStore) -> None:
    keys = [["resp_7", None, 0], ["resp_8", None, 1], ["resp_x", None, 0]]
    assert await _found(store, Lookup("responses", keys)) == [id_of(7)]


async def _newest_branch(store: SqlStore) -> None:
    assert (await DatabaseReader(store).newest_branch("c00007")).message_ids == (id_of(7),)


async def _short_path(store: SqlStore) -> None:
    assert len(await DatabaseReader(store).path(LONG, id_of(MANY + 9))) == 10


async def _newest_end(store: SqlStore) -> None:
    end, unanswered = await DatabaseReader(store)._newest_end(LONG)
    assert (end and end.message_id, unanswered) == (id_of(2 * MANY - 1), 0)


async def _begun_conversation(store: SqlStore) -> None:
    assert (await id_lookup.find(store, "the l")).id == LONG


async def _begun_run(store: SqlStore) -> None:
    assert (await id_lookup.find(store, id_of(77)[:14])).id == id_of(77)


async def _whole_run(store: SqlStore) -> None:
    assert (await id_lookup.find(store, id_of(77))).kind == "run"


async def _begins_often(store: SqlStore) -> None:
    for beginning in ("c", "c0", "c19"):
        with pytest.raises(NotFound, match="More than one id"):
            await id_lookup.find(store, beginning)


async def _nobody(store: SqlStore) -> None:
    with pytest.raises(NotFound, match="the nearest are"):
        await id_lookup.find(store, "c99999")


async def _newest_run(store: SqlStore) -> None:
    assert (await id_lookup.newest_run(store)).id == id_of(MANY - 1)


async def _latest_runs(store: SqlStore) -> None:
    reader = DatabaseReader(store)
    found = await reader.latest(3)
    assert [each.id for each in await reader.latest(1, before=found[-1])] == [id_of(MANY - 4)]


async def _activity(store: SqlStore) -> None:
    found = await activity_of(store)
    assert found.newest_run_at == at(MANY - 1)
    assert (found.processes, found.missing.gaps) == (0, 0)


WORK: list[Callable[[SqlStore], Coroutine[Any, Any, None]]] = [
    _newest_messages, _messages_by_id, _same_content, _end_of_a_path, _responses, _newest_branch, _short_path,
    _newest_end, _begun_conversation, _begun_run, _whole_run, _begins_often, _nobody, _newest_run, _latest_runs,
    _activity,
]  # fmt: skip


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__.strip("_"))
def test_a_few_rows_of_many_are_read(database: str, work: Callable[[SqlStore], Any]) -> None:
    """The newest message, a branch, ids by their beginning: an index leads to each."""
    found = queries_of(database, work)
    assert found
    assert [query for query in found if query.rows > FEW] == []


def test_the_list_reads_the_newest_conversation_once(database: str) -> None:
    """Its 20,000 messages are newer than all others: one query passes over them in an index, another counts them."""
    found = queries_of(database, _listed)
    pages = [query for query in found if "NOT IN" in query.sql]
    [about] = [query for query in found if "AS opening" in query.sql]
    assert len(pages) <= 4
    assert sum(query.rows for query in pages) < 7 * MANY
    assert about.rows < 5 * MANY
    rest = [query for query in found if query not in (*pages, about)]
    assert [query for query in rest if query.rows > FEW] == []
