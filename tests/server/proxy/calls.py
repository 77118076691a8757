"""Calls through providers' paths for tests, and upstreams whose responses come step by step."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx
import openai

from tests.oracle import sql
from tests.server.proxy.proxying import KEY

ASK: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Sing."}]}
CHAT = "/v1/chat/completions"
OPENING = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def frame(text: str) -> bytes:
    """Return one event of a stream."""
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode() + b"\n\n"


def piece(data: bytes) -> bytes:
    """Return bytes as one HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Stepwise:
    """A response whose frames are sent when the test says so, and its head with the first of them if it `thinks`."""

    def __init__(self, *, thinks: bool = False) -> None:
        self._go_on = threading.Semaphore(0)
        self._thinks = thinks
        self.sent = [frame(f"{number} ") for number in range(20)]

    def step(self, count: int = 1) -> None:
        """Send more frames."""
        self._go_on.release(count)

    async def __call__(self) -> AsyncIterator[bytes]:
        """The pieces, for `RawUpstream`."""
        if not self._thinks:
            yield OPENING
        for each in self.sent:
            await asyncio.to_thread(self._go_on.acquire, timeout=20)
            yield piece(each)
        yield piece(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def wait_for(url: str, query: str, expected: Any) -> None:
    """Wait until a query has this result."""
    for _ in range(2_000):
        if (found := sql(url, query)) == expected:
            return
        threading.Event().wait(0.005)
    assert found == expected


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Inside, nothing can be written to this file."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


def read_until_cut(found: httpx.Response) -> tuple[bytes, bool]:
    """Return the bytes of a response, and whether it was cut."""
    received = b""
    try:
        for data in found.iter_raw():
            received += data
    except httpx.RemoteProtocolError:
        return received, True
    return received, False


#: The clients that `client` has made, which a fixture closes.
open_clients: list[openai.OpenAI] = []


def client(address: str, upstream: str = "openai", **options: Any) -> openai.OpenAI:
    """Return OpenAI's SDK over this address; it is closed after the test."""
    found = openai.OpenAI(
        base_url=f"{address}/{upstream}/v1", **{"api_key": KEY, "max_retries": 0, **options}
    )
    open_clients.append(found)
    return found
