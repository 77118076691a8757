"""A producer that is ahead waits for the reader, and for no reader that is gone."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from recorder.callbacks import AsyncIteratorCallbackHandler, async_iterator
from recorder.core.waitable import Wait

DEADLINE = 20


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Producers look every moment whether the reader is gone."""
    monkeypatch.setattr(async_iterator, "CHECK_INTERVAL", 0.01)


async def read_one(handler: AsyncIteratorCallbackHandler) -> object:
    """Read one token, and leave the iteration open."""
    tokens = handler.aiter()
    await anext(tokens)
    return tokens


def full(handler: AsyncIteratorCallbackHandler) -> Wait[None]:
    """What a producer waits for when the buffer is full."""
    while (space := handler.on_llm_new_token("x")) is None:
        pass
    return space


def left_by_a_closed_loop(handler: AsyncIteratorCallbackHandler) -> tuple[Wait[None], object]:
    """Read one token on a loop, fill the buffer and close the loop: what a producer waits for, and the reader."""
    loop = asyncio.new_event_loop()
    handler.on_llm_new_token("a")
    left = loop.run_until_complete(read_one(handler))
    space = full(handler)
    loop.close()
    return space, left


def test_a_reader_whose_loop_was_closed_holds_up_nobody() -> None:
    """The producer streams on, on a thread and on a loop, and the next iteration is a new one."""
    handler = AsyncIteratorCallbackHandler(limit=3)
    space, left = left_by_a_closed_loop(handler)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(space.wait).result(DEADLINE)
    assert handler.on_llm_new_token("y") is None
    handler.on_llm_start({}, ["again"])
    handler.on_llm_new_token("b")
    handler.on_llm_end(None)

    async def read() -> list[str]:
        return [token async for token in handler.aiter()]

    assert asyncio.run(read()) == ["b"]
    del left


def test_a_producer_on_a_loop_does_not_wait_for_a_closed_one() -> None:
    """It awaits the same space."""
    handler = AsyncIteratorCallbackHandler(limit=3)
    space, left = left_by_a_closed_loop(handler)

    async def produce() -> None:
        async with asyncio.timeout(DEADLINE):
            await space

    asyncio.run(produce())
    del left


def test_a_reader_that_reads_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After `PATIENCE`. Once it reads again, producers wait for it again."""
    monkeypatch.setattr(async_iterator, "PATIENCE", 0.05)
    handler = AsyncIteratorCallbackHandler(limit=3)

    async def story() -> None:
        handler.on_llm_new_token("a")
        tokens = handler.aiter()
        await anext(tokens)
        space = full(handler)
        await asyncio.to_thread(space.wait)
        assert handler.on_llm_new_token("y") is None
        assert await anext(tokens) == "x"
        await tokens.aclose()  # type: ignore[attr-defined]

    asyncio.run(story())


def test_a_wait_with_a_timeout_still_ends_with_it() -> None:
    """The reader's loop is open, and it reads nothing."""
    handler = AsyncIteratorCallbackHandler(limit=3)
    seen = threading.Event()

    async def story() -> None:
        handler.on_llm_new_token("a")
        tokens = await read_one(handler)
        space = full(handler)

        def wait() -> None:
            with pytest.raises(TimeoutError):
                space.wait(0.02)
            seen.set()

        await asyncio.to_thread(wait)
        del tokens

    asyncio.run(story())
    assert seen.is_set()
