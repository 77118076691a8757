"""Readers that are cut at random, and servers and writers that are killed, lose and repeat no token."""

from __future__ import annotations

import asyncio
import random
import threading
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import connect

from recorder.chat_history_callback import ChatHistoryCallback
from tests.oracle import begin, finish, say, start_python, token
from tests.server.serving import Events, parse, read, recorded, serving, serving_processes


@asynccontextmanager
async def responding(session: aiohttp.ClientSession, url: str, known: Events) -> AsyncIterator[Any]:
    """Connect with the cursor of what is known."""
    headers = {"last-event-id": known.id} if known.id else {}
    async with session.get(url, headers=headers) as response:
        assert response.status == 200, await response.text()
        yield response


async def read_some(session: aiohttp.ClientSession, url: str, known: Events, most: int) -> None:
    """Read at most so many events over HTTP, then cut the connection, perhaps in the middle of an event."""
    rest = b""
    async with responding(session, url, known) as response:
        async for chunk in response.content.iter_any():
            *found, rest = (rest + chunk).split(b"\n\n")
            for block in found:
                if (event := parse(block.decode())) is not None:
                    known.add(*event)
                    most -= 1
                if most <= 0:
                    return


async def receive_some(url: str, known: Events, most: int) -> None:
    """Read at most so many events over a WebSocket, then cut it."""
    address = url.replace("http", "ws", 1) + (f"?starting_after={known.id}" if known.id else "")
    async with connect(address) as socket:
        async for message in socket:
            before = len(known.seqs)
            known.add_message(str(message))
            most -= len(known.seqs) - before
            if most <= 0:
                socket.transport.abort()
                return


class Reconnecting:
    """Readers of one run, which connect to random servers again and again."""

    def __init__(self, urls: list[str], run_id: uuid.UUID, chance: random.Random) -> None:
        self.connections = 0
        self.known = [Events() for _ in range(8)]
        self.connected = asyncio.Event()
        self._streams = [f"{url}/streams/{run_id}" for url in urls]
        self._chance = chance

    async def read(self, known: Events) -> None:
        """Read the run to its end."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:
            while known.end is None:
                self.connections += 1
                self.connected.set()
                url, most = self._chance.choice(self._streams), self._chance.randrange(1, 20)
                if self._chance.random() < 0.2:
                    await receive_some(url, known, most)
                else:
                    await read_some(session, url, known, most)

    async def wait_for_the_last(self, tokens: int) -> None:
        """Wait until each has read all but some hundred of these tokens."""
        while min(len(each.seqs) for each in self.known) < tokens - 300:
            self.connected.clear()
            await self.connected.wait()


def test_random_reconnects_concatenate_exactly(database: str, pytestconfig: pytest.Config) -> None:
    """Readers move between two server processes, over HTTP and WebSockets, while the run is recorded."""
    seed, wanted = pytestconfig.option.seed, 1_000 if pytestconfig.option.all else 200
    print(f"seed {seed}")
    texts: list[str] = []
    run_id, chance = uuid.uuid4(), random.Random(seed)

    async def record(history: ChatHistoryCallback, readers: Reconnecting) -> None:
        while readers.connections < wanted:
            await readers.wait_for_the_last(len(texts))
            new = [token(seed, len(texts) + place) or "." for place in range(chance.randrange(1, 40))]
            texts.extend(new)
            say(history, run_id, new)
            await history.flush()
        finish(history, run_id, "done")

    async def story(urls: list[str]) -> list[Events]:
        async with ChatHistoryCallback(database) as history:
            begin(history, run_id=run_id)
            await history.flush()
            readers = Reconnecting(urls, run_id, chance)
            await asyncio.gather(record(history, readers), *map(readers.read, readers.known))
        return readers.known

    with serving_processes(database, 2) as servers:
        found = asyncio.run(story([url for _, url in servers]))
    assert {tuple(events.seqs) for events in found} == {tuple(range(len(texts)))}
    assert all(events.texts == texts and events.end == {"status": "complete"} for events in found)


ENDLESS = """
import sys, uuid
from recorder.chat_history_callback import ChatHistoryCallback
from tests.oracle import begin, say, token
history = ChatHistoryCallback(sys.argv[1], flush_interval=0.005)
run_id = begin(history, run_id=uuid.UUID(sys.argv[2]))
for seq in range(200):
    say(history, run_id, [token(9, seq) or "."])
history.flush().wait(10)
print("stored", flush=True)
sys.stdin.read()
"""


def test_a_killed_writer_ends_its_run_as_interrupted(database: str) -> None:
    """Readers get every token that is stored, and the end, though nobody wrote it."""
    run_id = uuid.uuid4()
    with serving(database) as server, start_python(ENDLESS, database, str(run_id)) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "stored\n"
        killing = threading.Timer(0.2, writer.kill)
        killing.start()
        events = read(server.url, run_id)
        killing.join()
    assert events.texts == [token(9, seq) or "." for seq in range(200)]
    assert events.end == {"status": "interrupted"}
    assert events.id == f"{run_id}:200.interrupted"


def test_a_killed_server_is_replaced_by_another(database: str) -> None:
    """The reader continues at another process with the last id that it has seen."""
    texts = [token(4, seq) or "." for seq in range(300)]
    with ChatHistoryCallback(database, flush_interval=0.005) as history:
        run_id = begin(history)
        recorded(history, run_id, texts[:200])
        known = Events()
        with serving_processes(database, 1) as [(process, url)]:

            async def until_the_kill() -> None:
                async with aiohttp.ClientSession() as session:
                    await read_some(session, f"{url}/streams/{run_id}", known, 200)
                    process.kill()

            asyncio.run(until_the_kill())
        say(history, run_id, texts[200:])
        finish(history, run_id, "done")
        with serving(database) as server:
            read(server.url, run_id, known)
    assert (known.texts, known.seqs) == (texts, list(range(300)))
