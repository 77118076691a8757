"""The conversation and the user of a run come from its metadata, from the code around it, or from its parent."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from recorder import ChatHistoryCallback
from recorder.errors import ConfigError
from recorder.messages import HumanMessage
from recorder.testing import MemoryStore
from tests.oracle import begin, finish, record, sql


def named(database: str) -> list[tuple[str, str | None]]:
    """The conversation of each run, and its user, in the order in which the runs began."""
    query = "SELECT c.id, c.user_id FROM runs AS r JOIN conversations AS c ON c.id = r.conversation_id"
    return sql(database, f"{query} ORDER BY r.started_at, r.id")


def test_the_blocks_around_a_call_name_its_conversation_and_its_user(database: str) -> None:
    """An inner block overrides an outer one, and keeps what it does not name. Metadata override both."""
    with ChatHistoryCallback(database, conversation_id="default") as history:
        record(history)
        with history.user("ada"), history.conversation("c1"):
            record(history)
            with history.conversation("c2", user="bob"):
                record(history)
                with history.user("cem"), history.conversation("c3"):
                    record(history)
            record(history, metadata={"session_id": "c4", "user_id": 7})
        record(history)
    assert named(database) == [
        ("default", None), ("c1", "ada"), ("c2", "bob"), ("c3", "cem"), ("c4", "7"), ("default", None),
    ]  # fmt: skip


def test_the_details_of_a_conversation_are_stored(database: str) -> None:
    """A later value replaces an earlier one, None changes nothing, and a conversation need not exist."""
    with ChatHistoryCallback(database) as history:
        with history.conversation(
            "c", "ada", title="Rød \x00", tags=["a", "b"], metadata={"plan": 1, "api_key": "k"}
        ):
            record(history)
        history.update_conversation("c", tags=["b"])
        history.update_conversation("c", title="Refund", tags=None)
        history.update_conversation("new", title="Later")
        history.update_conversation("c")
        history.flush().wait(10)
        history.update_conversation("c", metadata={})
    [title, tags, metadata, user] = sql(
        database, "SELECT title, tags, metadata, user_id FROM conversations WHERE id = 'c'"
    )[0]
    assert (title, json.loads(tags), json.loads(metadata), user) == ("Refund", ["b"], {}, "ada")
    assert sql(database, "SELECT title FROM conversations WHERE id = 'new'") == [("Later",)]


def test_details_and_runs_of_many_conversations_share_a_batch(database: str) -> None:
    """Each conversation gets the columns that were set for it, in whatever combination."""
    with ChatHistoryCallback(database, flush_interval=3600) as history:
        for number in range(8):
            given: dict[str, Any] = {"title": f"t{number}", "tags": [str(number)], "metadata": {"n": number}}
            chosen = {key: value for bit, (key, value) in enumerate(given.items()) if number >> bit & 1}
            with history.conversation(f"c{number}", **chosen):
                record(history)
                history.add_messages("more")
    found = sql(database, "SELECT title, tags, metadata FROM conversations ORDER BY id")
    wanted = [
        (f"t{n}" if n & 1 else None, f'["{n}"]' if n & 2 else None, f'{{"n":{n}}}' if n & 4 else None)
        for n in range(8)
    ]  # fmt: skip
    assert found == wanted
    assert sql(database, "SELECT count(*) FROM messages") == [(24,)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda history: history.update_conversation(title="x"), "a conversation is needed; pass conversation_id="),
        (lambda history: history.update_conversation("c", title=3), "title must be a str, not int"),
        (lambda history: history.update_conversation("c", tags="a"), "tags is 'a'; pass a list of texts"),
        (lambda history: history.update_conversation("c", tags=[1]), r"tags is \[1\]; pass a list of texts"),
        (lambda history: history.update_conversation("c", metadata=[1]), r"metadata is \[1\]; pass a dict"),
        (lambda history: history.conversation("").__enter__(), "conversation_id is empty"),
        (lambda history: history.conversation("c", "").__enter__(), "user is empty"),
        (lambda history: history.user(7).__enter__(), "user must be a str, not int"),
    ],
)  # fmt: skip
def test_a_wrong_value_raises_and_stores_nothing(call: Any, message: str) -> None:
    """The error names the argument and what to pass."""
    store = MemoryStore()
    with ChatHistoryCallback(store=store) as history, pytest.raises(ConfigError, match=message):
        call(history)
    assert not store.details


def test_a_block_is_run_although_its_title_cannot_be_stored(caplog: pytest.LogCaptureFixture) -> None:
    """Recording never disturbs the application: the recorder is closed, and the log says what is missing."""
    history, ran = ChatHistoryCallback(store=MemoryStore()), []
    history.close().wait(10)
    with history.conversation("c", title="Refund"):
        ran.append("block")
    assert ran == ["block"]
    assert "Title, tags or metadata of a conversation are not stored: This recorder is closed" in caplog.text


def test_a_bound_function_keeps_its_names_on_other_threads(database: str) -> None:
    """An executor runs it in a context of its own. Several threads may call it at once."""
    with ChatHistoryCallback(database) as history, ThreadPoolExecutor(4) as pool:
        with history.conversation("c", user="ada"):
            bound = history.bind(partial(record, history))
            meet = threading.Barrier(4)
            waiting = history.bind(lambda: meet.wait(20) is not None and record(history))
        pool.submit(bound, HumanMessage("one")).result()
        for each in [pool.submit(waiting) for _ in range(4)]:
            each.result()
        record(history)
    assert named(database)[:5] == [("c", "ada")] * 5
    assert named(database)[5][0] != "c"


def test_a_bound_coroutine_function_keeps_its_names_in_an_empty_context(database: str) -> None:
    """Also what it does after an await, and a `partial` of it."""
    history = ChatHistoryCallback(database)

    async def work(text: str) -> None:
        await asyncio.sleep(0)
        record(history, HumanMessage(text))

    async def main() -> None:
        with history.conversation("c"):
            bound: list[Any] = [history.bind(work), history.bind(partial(work))]
        works = [each(str(number)) for number, each in enumerate(bound)]
        await asyncio.gather(*(asyncio.create_task(each, context=contextvars.Context()) for each in works))
        await history.close()

    asyncio.run(main())
    assert named(database) == [("c", None)] * 2


def test_a_bound_generator_has_its_names_in_each_step_and_its_consumer_has_not(database: str) -> None:
    """A server runs each step on another thread. What is sent and thrown in arrives, and the end is the generator's."""
    history = ChatHistoryCallback(database)

    def answer(text: str) -> Generator[Any, Any, str]:
        with history.user("ada"):
            record(history, HumanMessage(text))
            got = yield "first"
            record(history, HumanMessage(str(got)))
            try:
                yield "second"
            except KeyError:
                record(history, HumanMessage("thrown"))
            yield "third"
        return "end"

    with history.conversation("c"):
        bound = history.bind(answer)
    steps: Any = bound("a")
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        assert one.submit(next, steps).result() == "first"
        record(history)
        assert other.submit(steps.send, 3).result() == "second"
        assert one.submit(steps.throw, KeyError()).result() == "third"
        with pytest.raises(StopIteration, match="end"):
            next(steps)
    left = bound("b")
    next(left)
    left.close()
    history.close().wait(10)
    conversations = [id for id, _ in named(database)]
    assert [id == "c" for id in conversations] == [True, False, True, True, True]


def test_a_bound_async_generator_has_its_names_in_each_step(database: str) -> None:
    """Its steps may be tasks with contexts of their own, and it is closed when its consumer leaves."""
    history, ends = ChatHistoryCallback(database), []

    async def answer() -> AsyncIterator[int]:
        try:
            for number in range(3):
                await asyncio.sleep(0)
                record(history, HumanMessage(str(number)))
                yield number
        finally:
            ends.append("closed")

    async def main() -> None:
        with history.conversation("c"):
            bound = history.bind(answer)
        steps: Any = bound()
        for number in range(2):
            step = asyncio.create_task(anext(steps), context=contextvars.Context())
            assert await step == number
        await steps.aclose()
        assert [each async for each in bound()] == [0, 1, 2]
        await history.close()

    asyncio.run(main())
    assert (named(database), ends) == ([("c", None)] * 5, ["closed"] * 2)


def test_a_block_may_end_in_another_context_than_it_began() -> None:
    """The rest of a generator is run in another one, as web servers do. No error, and the names there are unchanged."""
    history = ChatHistoryCallback(store=MemoryStore())

    def steps() -> Iterator[int]:
        with history.conversation("c"):
            yield 1

    running = steps()
    assert contextvars.copy_context().run(next, running) == 1
    with history.conversation("d"), pytest.raises(StopIteration):
        next(running)
    history.close().wait(10)


def test_children_of_a_parent_share_its_conversation_and_take_the_user_of_their_block(database: str) -> None:
    """A run without a parent and without a name opens a conversation."""
    with ChatHistoryCallback(database) as history:
        parent = record(history)
        with history.user("ada"):
            for _ in range(2):
                run = begin(history, parent_run_id=parent)
                finish(history, run, "Hello")
    [first, second, third] = named(database)
    assert first[0] != second[0]
    assert second == third == (second[0], "ada")
