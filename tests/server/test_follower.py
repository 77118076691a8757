"""A reader ends when it is told to: while it waits, while it sends, and before it has begun."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from recorder.chat_history_callback import ChatHistoryCallback
from recorder.server import hub as hub_module
from recorder.server.cursor import START
from recorder.server.database import ServedDatabase
from recorder.server.event_stream import EventStream
from recorder.server.follower import Follower
from recorder.server.hub import Reason
from recorder.storage.reader import DatabaseReader
from tests.oracle import begin, new_url, say

#: What a client does with a message of ASGI.
Send = Callable[[Any], Awaitable[None]]


async def for_ever(*_given: Any) -> Any:
    """Wait until it is cancelled."""
    await asyncio.Event().wait()


def streamed(
    url: str, send: Send, receive: Callable[[], Awaitable[Any]], act: Callable[[Follower], Any]
) -> Follower:
    """Stream a live run with ten tokens to a client, and let `act` end it; what the follower is then."""

    async def story() -> Follower:
        async with ChatHistoryCallback(url) as history:
            run_id = begin(history)
            say(history, run_id, "0123456789")
            await history.flush()
            database = ServedDatabase(url)
            follower = Follower(database.hub(), await database.ask(DatabaseReader.run, str(run_id)), START)
            acting = asyncio.create_task(act(follower))
            async with asyncio.timeout(20):
                await EventStream(follower)({"type": "http"}, receive, send)
                await acting
            assert database.hub().followers == 0
            database.close()
            return follower

    return asyncio.run(story())


async def nothing(_follower: Follower) -> None:
    """End nothing."""


def test_a_client_that_accepts_nothing_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds in any server, also one that never says that a client stalls."""
    monkeypatch.setattr(hub_module, "STALLED_AFTER", 0.05)
    monkeypatch.setattr(hub_module, "_TICK", 0.01)
    sent = 0

    async def send(_message: Any) -> None:
        nonlocal sent
        sent += 1
        if sent == 3:  # after the head and the opening
            await for_ever()

    assert streamed(new_url(tmp_path), send, for_ever, nothing).ended == "stalled"
    assert sent == 3


def test_heartbeats_come_while_nothing_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They keep proxies from closing the connection, and do not move the cursor."""
    monkeypatch.setattr(hub_module, "HEARTBEAT", 0.01)
    monkeypatch.setattr(hub_module, "_TICK", 0.01)
    bodies: list[bytes] = []
    enough = asyncio.Event()

    async def send(message: Any) -> None:
        bodies.append(message.get("body", b""))
        if bodies.count(b":\n\n") == 3:
            enough.set()

    async def end(follower: Follower) -> None:
        await enough.wait()
        follower.end("shutdown")

    follower = streamed(new_url(tmp_path), send, for_ever, end)
    assert (follower.ended, follower.position, bodies[-1]) == ("shutdown", 10, b"")


@pytest.mark.parametrize("reason", ["left", "shutdown"])
def test_a_reader_may_be_ended_before_it_begins(tmp_path: Path, reason: Reason) -> None:
    """Only a shutdown completes the response; a client that left gets nothing."""
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    async def end(follower: Follower) -> None:
        follower.end(reason)

    assert streamed(new_url(tmp_path), send, for_ever, end).ended == reason
    assert [message.get("more_body") for message in messages][-1] is (reason == "left")
    assert b"".join(message.get("body", b"") for message in messages).startswith(b"retry: 1000\n\n")
