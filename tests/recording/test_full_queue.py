"""While the database does not answer and the queue is full, the application goes on, and gaps say what is missing."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from recorder.callbacks import BaseCallbackHandler
from recorder.chat_history_callback import ChatHistoryCallback
from recorder.core.waitable import Wait
from recorder.messages import HumanMessage
from recorder.models import SimpleChatModel
from recorder.recording.capacity import RUN_COST
from recorder.storage.batch import Batch
from recorder.storage.rows import COMPLETE
from recorder.storage.store import SqlStore
from recorder.testing import LoopbackProvider
from recorder.testing.song import song_pieces
from tests import anthropics, chatting
from tests.oracle import FaultyStore, assert_exact, begin, finish, say, sql, stored

TOKENS = 2_000


class Stopped(FaultyStore):
    """A store whose appends of runs wait until `gate` is set; heartbeats pass."""

    def __init__(self, url: str) -> None:
        super().__init__(SqlStore(url))
        self.gate: Wait[None] = Wait()

    async def append(self, batch: Batch) -> None:
        if batch.parts:
            await self.gate
        await super().append(batch)


class Counting(SimpleChatModel):
    """A model that streams the numbers from 0 to 1,999."""

    def _stream(self, messages: Any, **options: Any) -> Iterator[str]:
        for number in range(TOKENS):
            yield f"{number} "


async def astreamed(model: Any) -> int:
    """Count the chunks of `astream`."""
    return len([chunk async for chunk in model.astream("Count.")])


async def streamed(model: Any) -> int:
    """Count the chunks of `stream`, called on a running event loop as in a notebook."""
    return len(list(model.stream("Count.")))


async def astreamed_at_once(model: Any) -> int:
    """Count the chunks of four `astream` calls at once, and return the mean."""
    return sum(await asyncio.gather(*(astreamed(model) for _ in range(4)))) // 4


WAYS: dict[str, Callable[[Any], int]] = {
    "stream": lambda model: len(list(model.stream("Count."))),
    "astream": lambda model: asyncio.run(astreamed(model)),
    "stream on a loop": lambda model: asyncio.run(streamed(model)),
    "astreams at once": lambda model: asyncio.run(astreamed_at_once(model)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_model_streams_all_chunks_when_the_database_does_not_answer(database: str, way: str) -> None:
    """It waits for room once, not for each token, and the tokens that found no room are in gaps."""
    store = Stopped(database)
    history = ChatHistoryCallback(database, store=store, max_queue_bytes=40_000, block_timeout=0.1)
    assert WAYS[way](Counting(callbacks=[history])) == TOKENS + 1
    store.gate.set(None)
    stats = history.close().wait(20)
    runs = [run_id for (run_id,) in sql(database, "SELECT id FROM runs")]
    texts = [f"{number} " for number in range(TOKENS)]
    found = [assert_exact(database, run_id, texts) for run_id in runs]
    assert len(runs) == (4 if way == "astreams at once" else 1)
    assert sum(len(each.missing) for each in found) == stats.dropped > 1_000


@pytest.mark.matrix
@pytest.mark.parametrize("make", [chatting.chat, anthropics.chat], ids=["ChatOpenAI", "ChatAnthropic"])
@pytest.mark.parametrize("way", ["stream", "astream", "stream on a loop"])
def test_a_providers_stream_goes_on_without_the_database(
    database: str, way: str, make: Callable[..., Any]
) -> None:
    """The application gets all tokens, over the SDK's client and over aiohttp, and gaps name those that are lost."""
    store = Stopped(database)
    history = ChatHistoryCallback(database, store=store, max_queue_bytes=80_000, block_timeout=0.1)
    heard = Heard()
    with LoopbackProvider.song(tokens=TOKENS) as provider:
        WAYS[way](make(provider, callbacks=[history, heard]))
    store.gate.set(None)
    stats = history.close().wait(20)
    [(run_id,)] = sql(database, "SELECT id FROM runs")
    assert heard.texts == song_pieces(TOKENS)
    found = assert_exact(database, run_id, heard.texts)
    assert len(found.missing) == stats.dropped > 500
    assert all(reason for *_, reason in found.gaps)


class Heard(BaseCallbackHandler):
    """A handler that keeps the tokens."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_llm_new_token(self, token: str, **more: Any) -> None:
        """Keep a token."""
        self.texts += [token] if token else []


def test_a_run_waits_for_room_again_after_there_was_room(database: str) -> None:
    """A run that has a gap loses no more tokens once the database answers."""
    store = Stopped(database)

    async def story() -> None:
        run_id = begin(history)
        for text in texts[:1_000]:
            if (wait := history.on_llm_new_token(text, run_id=run_id)) is not None:
                await wait
        missing.append(history.stats().dropped)
        store.gate.set(None)
        await history.flush()
        for text in texts[1_000:]:
            if (wait := history.on_llm_new_token(text, run_id=run_id)) is not None:
                await wait
        missing.append(history.stats().dropped)
        finish(history, run_id, "done")
        ids.append(run_id)

    texts, ids, missing = [str(number) for number in range(2_000)], list[Any](), list[int]()
    with ChatHistoryCallback(database, store=store, max_queue_bytes=40_000, block_timeout=0.05) as history:
        asyncio.run(asyncio.wait_for(story(), 50))
    assert missing[0] > 500
    found = assert_exact(database, ids[0], texts)
    assert len(found.missing) == missing[1]


@pytest.mark.parametrize("on_loop", [False, True], ids=["off a loop", "on a loop"])
def test_a_run_that_begins_in_a_full_queue_is_stored_with_a_gap(database: str, on_loop: bool) -> None:
    """Its messages and first tokens found no room and are not stored; a later token is stored."""
    store = Stopped(database)
    history = ChatHistoryCallback(database, store=store, max_queue_bytes=40_000, block_timeout=0.01)

    def fill() -> uuid.UUID:
        say(history, begin(history), ["x" * 100] * 1_000)
        late = begin(history, HumanMessage("My question " * 10_000))
        say(history, late, ["a", "b"])
        return late

    async def filled() -> uuid.UUID:
        return fill()

    late = asyncio.run(filled()) if on_loop else fill()
    store.gate.set(None)
    history.flush().wait(20)
    say(history, late, ["c"])
    finish(history, late, "abc")
    stats = history.close().wait(20)
    found = stored(database, late)
    assert (found.status, found.texts) == (COMPLETE, {2: "c"})
    [(first, count, reason)] = found.gaps
    assert (first, count) == (0, 2)
    assert "messages are not stored" in reason
    assert (stats.refused_runs, stats.lost_runs, stats.lost_messages) == (1, 0, 2)
    assert stats.accepted == stats.committed + stats.dropped
    assert sql(database, "SELECT count(*) FROM messages WHERE role = 'user'") == [(1,)]


def test_memory_is_bounded_while_runs_begin_and_end_in_a_full_queue(database: str) -> None:
    """Runs that find no room have a row as long as the reserve lasts; later ones are only counted."""
    store = Stopped(database)
    history = ChatHistoryCallback(database, store=store, max_queue_bytes=40_000, overflow="drop_newest")
    say(history, begin(history), ["x" * 100] * 1_000)
    for _ in range(1_000):
        run_id = begin(history, HumanMessage("Hi" * 1_000))
        say(history, run_id, ["a"])
        finish(history, run_id, "a" * 1_000)
    assert history.stats().queued_bytes < 40_000 * 1.25 + 300 * RUN_COST
    store.gate.set(None)
    stats = history.close().wait(20)
    [(runs,)] = sql(database, "SELECT count(*) FROM runs")
    assert runs == 1_001 - stats.lost_runs
    assert 0 < stats.lost_runs < stats.refused_runs
    assert stats.accepted == 2_000 == stats.committed + stats.dropped
