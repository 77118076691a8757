"""What the writer needs of every store; the stores in memory, on SQLite and on Postgres behave the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from recorder.core.clock import now
from recorder.messages import AIMessage, HumanMessage
from recorder.storage.batch import Added, AddedMessages, Addition, Batch, Part, RunRows
from recorder.storage.rows import INTERRUPTED
from recorder.storage.store import SqlStore
from recorder.storage.store_interface import Conflict, RunIdTaken, Store
from recorder.testing import MemoryStore
from tests.oracle import run_end, run_start
from tests.stores import PRODUCER, unthreaded_run, whole_run

#: Every method of a store; a new one needs a test here.
VERBS = {"open", "append", "sweep", "close", "failure"}


@pytest.fixture(params=["memory", "database"])
def store(request: pytest.FixtureRequest, database: str) -> Store:
    """A store of each kind, empty and not opened."""
    return MemoryStore() if request.param == "memory" else SqlStore(database)


def play(store: Store, story: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine function between `open` and `close`, and return its result."""

    async def opened() -> Any:
        await store.open()
        try:
            return await story()
        finally:
            await store.close()

    return asyncio.run(opened())


async def texts(store: Store) -> list[str]:
    """The texts of all stored messages, the oldest first."""
    if isinstance(store, MemoryStore):
        rows = sorted(store.messages.values(), key=lambda row: (row.created_at, row.position))
        return [row.content for row in rows]
    assert isinstance(store, SqlStore)
    found = await store.rows("SELECT content FROM messages ORDER BY created_at, position")
    return [row["content"] for row in found]


async def counts(store: Store) -> dict[str, int]:
    """How many rows are stored of each kind."""
    names = ("messages", "segments", "frames", "gaps")
    if isinstance(store, MemoryStore):
        return {name: len(getattr(store, name)) for name in names} | {"runs": len(store.starts)}
    assert isinstance(store, SqlStore)
    return {
        name: (await store.rows(f"SELECT count(*) AS n FROM {name}"))[0]["n"] for name in (*names, "runs")
    }


def added(*contents: str) -> Addition:
    """Messages of conversation "c1" that belong to no run."""
    messages = AddedMessages.made_of(
        Added(place, now(), HumanMessage(text)) for place, text in enumerate(contents)
    )
    return Addition("c1", None, now(), messages)


def parents(*parts: Part) -> list[str | None]:
    """The parents of all messages of these parts."""
    return [row.parent_id for part in parts for row in part.messages]


def test_a_store_has_five_methods() -> None:
    """The writer calls no other one."""
    assert {name for name in vars(Store) if not name.startswith("_")} == VERBS


def test_a_batch_is_stored_once(store: Store) -> None:
    """The same batch again, as after a lost answer, changes nothing."""

    async def story() -> list[dict[str, int]]:
        batch = Batch(PRODUCER, [*unthreaded_run(1), *unthreaded_run(2)])
        found = []
        for _ in range(2):
            await store.append(batch)
            found.append(await counts(store))
        return found

    assert play(store, story) == [{"messages": 4, "segments": 2, "frames": 2, "gaps": 2, "runs": 2}] * 2


def test_messages_are_threaded_by_the_store(store: Store) -> None:
    """Request, reply and added messages follow each other, and the store puts the rows into the parts."""

    async def story() -> list[str]:
        [run] = unthreaded_run(1)
        await store.append(Batch(PRODUCER, [run]))
        more = added("one", "two")
        await store.append(Batch(PRODUCER, [], [more]))
        ids = [row.id for part in (run, more) for row in part.messages]
        assert parents(run, more) == [None, *ids[:-1]]
        assert run.threaded
        assert more.threaded
        await store.append(Batch(PRODUCER, [], [more]))
        return await texts(store)

    assert play(store, story) == ["question", "answer", "one", "two"]


def test_messages_that_are_stored_are_not_stored_again(store: Store) -> None:
    """The next turn sends them again, and only its question is new."""

    async def story() -> list[str]:
        [first] = unthreaded_run(1)
        await store.append(Batch(PRODUCER, [first]))
        history = [HumanMessage("question"), AIMessage("answer"), HumanMessage("and then?")]
        start = run_start(2, conversation_id="c1", fresh=False, started_at=now(), messages=history)
        second = RunRows(start, opens=True)
        await store.append(Batch(PRODUCER, [second]))
        assert start.placement.prompt_message_id == second.messages[-1].id
        assert start.placement.position == 2
        return await texts(store)

    assert play(store, story) == ["question", "answer", "and then?"]


def test_other_tokens_with_the_same_number_raise_a_conflict(store: Store) -> None:
    """Nothing of their batch is stored."""

    async def story() -> tuple[dict[str, int], dict[str, int]]:
        await store.append(Batch(PRODUCER, whole_run(1)))
        before = await counts(store)
        with pytest.raises(Conflict):
            await store.append(Batch(PRODUCER, whole_run(1, tokens=5)))
        return before, await counts(store)

    before, after = play(store, story)
    assert before == after


def test_another_run_with_the_same_id_raises_run_id_taken(store: Store) -> None:
    """The error has the id, so that the run can be stored with another one."""

    async def story() -> frozenset[str]:
        await store.append(Batch(PRODUCER, whole_run(1)))
        [other] = whole_run(1)
        other.start.started_at += timedelta(seconds=1)
        with pytest.raises(RunIdTaken) as error:
            await store.append(Batch(PRODUCER, [other]))
        return error.value.run_ids

    assert play(store, story) == {whole_run(1)[0].start.run_id}


def test_a_trial_stores_nothing(store: Store) -> None:
    """A trial only shows whether the database accepts rows."""

    async def story() -> dict[str, int]:
        await store.append(Batch(PRODUCER, [], trial=True))
        return await counts(store)

    assert set(play(store, story).values()) == {0}


def test_a_later_batch_can_end_an_open_run(store: Store) -> None:
    """Its row comes first, and its reply, which follows the request, comes with the end."""

    async def story() -> list[str]:
        start = run_start(1, conversation_id="c1", messages=[HumanMessage("question")])
        opening = RunRows(start, opens=True)
        await store.append(Batch(PRODUCER, [opening], open_runs=[start.run_id]))
        [whole] = unthreaded_run(1)
        assert whole.seal is not None
        ending = RunRows(start, opens=False, seal=whole.seal)
        ending.seal.end = run_end(replies=[AIMessage("answer")])  # type: ignore[union-attr]
        await store.append(Batch(PRODUCER, [ending]))
        assert parents(ending) == [opening.messages[0].id]
        return await texts(store)

    assert play(store, story) == ["question", "answer"]


def test_append_opens_a_closed_store_again(store: Store) -> None:
    """Batches from before and after `close` are stored."""

    async def story() -> dict[str, int]:
        await store.append(Batch(PRODUCER, whole_run(1)))
        await store.close()
        await store.append(Batch(PRODUCER, whole_run(2)))
        return await counts(store)

    assert play(store, story)["runs"] == 2


def test_failure_names_the_kind_of_an_error(store: Store) -> None:
    """By the kind, the writer repeats a batch, splits it or looks for the bad row."""
    errors = (ConnectionError(), TimeoutError(), Conflict("x"), ValueError())
    assert [store.failure(error) for error in errors] == ["transient", "slow", "poison", "poison"]


def test_the_sweep_interrupts_runs_of_dead_producers(store: Store) -> None:
    """A store in memory belongs to one process, so it has no runs of another one."""

    async def story() -> tuple[int, list[str]]:
        start = run_start(1)
        await store.append(Batch(PRODUCER, [RunRows(start, opens=True)], open_runs=[start.run_id]))
        assert await store.sweep(lambda producer: False, now()) == 0
        swept = await store.sweep(lambda producer: producer.id == PRODUCER.id, now())
        if isinstance(store, MemoryStore):
            return swept, []
        assert isinstance(store, SqlStore)
        return swept, [row["status"] for row in await store.rows("SELECT status FROM runs")]

    expected = (0, []) if isinstance(store, MemoryStore) else (1, [INTERRUPTED])
    assert play(store, story) == expected
