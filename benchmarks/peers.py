"""The sides that recorder is compared with: the code or the library that one would use without it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Measured
from benchmarks.workload import size_on_disk, words
from recorder.core.ids import new_id

_COLUMNS = "run_id TEXT, seq INTEGER, at_us INTEGER, text TEXT"
_KEYED = f"CREATE TABLE tokens ({_COLUMNS}, PRIMARY KEY (run_id, seq)) WITHOUT ROWID"
_HEAP = f"CREATE TABLE tokens ({_COLUMNS})"


def executemany(folder: str, seed: int, runs: int, tokens: int, keyed: bool = True) -> Measured:
    """Raw sqlite3: one row a token, 1000 a transaction, WAL, FULL; the rows are made beforehand.

    Keyed by (run, seq), as recorder's own rows are, or without any key: faster, and then one run's tokens
    are found by reading everything.
    """
    path = str(Path(folder) / "raw.db")
    ids = [new_id() for _ in range(runs)]
    texts = words(seed, 1000)
    rows = [(ids[n % runs], n // runs, n * 10, texts[n % 1000]) for n in range(tokens)]
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute(_KEYED if keyed else _HEAP)
    began = time.perf_counter()
    for start in range(0, tokens, 1000):
        database.executemany("INSERT INTO tokens VALUES (?, ?, ?, ?)", rows[start : start + 1000])
        database.commit()
    seconds = time.perf_counter() - began
    [(stored,)] = database.execute("SELECT count(*) FROM tokens")
    database.close()
    expect(stored, tokens)
    return {"tokens_per_second": tokens / seconds, "bytes_per_token": size_on_disk(path) / tokens}


@dataclass(frozen=True, slots=True)
class Message:
    """The table of the example."""

    role: str
    content: str


class ExampleCallback:
    """The callback that LangChain's documents of streaming showed: INSERT and COMMIT for each message."""

    def __init__(self, path: str) -> None:
        self.conn = sqlite3.connect(path)
        self.c = self.conn.cursor()
        self.c.execute("CREATE TABLE chathistory (id INTEGER PRIMARY KEY, role TEXT, content TEXT)")

    def on_chat_new_message(self, message: Message) -> None:
        self.c.execute("INSERT INTO chathistory VALUES (NULL, ?, ?)", (message.role, message.content))
        self.conn.commit()


def example_callback(folder: str, seed: int, tokens: int) -> Measured:
    """The documents' callback, called for each token, sqlite3's defaults."""
    callback = ExampleCallback(str(Path(folder) / "chat_history.db"))
    messages = [Message("assistant", word) for word in words(seed, tokens)]
    began = time.perf_counter()
    for message in messages:
        callback.on_chat_new_message(message)
    seconds = time.perf_counter() - began
    [(stored,)] = callback.conn.execute("SELECT count(*) FROM chathistory")
    callback.conn.close()
    expect(stored, tokens)
    return {"tokens_per_second": tokens / seconds}


def openai_client(url: str) -> Any:
    """The official SDK's asynchronous client."""
    from openai import AsyncOpenAI

    return AsyncOpenAI(base_url=url, api_key="any", max_retries=0)


async def openai_stream(client: Any) -> AsyncIterator[str]:
    """The texts of one stream, read as the SDK's documents show."""
    messages = [{"role": "user", "content": "Write me a song about sparkling water."}]
    stream = await client.chat.completions.create(model="gpt-4o-mini", messages=messages, stream=True)
    async for chunk in stream:
        yield chunk.choices[0].delta.content or ""


async def http_stream(client: Any) -> AsyncIterator[str]:
    """The number of newlines in one stream's bytes, without decoding them."""
    messages = [{"role": "user", "content": "Write me a song about sparkling water."}]
    create = client.chat.completions.with_streaming_response.create
    async with create(model="gpt-4o-mini", messages=messages, stream=True) as response:
        async for data in response.iter_bytes():
            yield "\n" * data.count(b"\n")


def events(tokens: int) -> int:
    """The number of events of a stream with this many tokens: role, tokens, finish reason, [DONE]."""
    return tokens + 3


def langchain_model(url: str) -> Any:
    """LangChain's chat model over the same SDK."""
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model="gpt-4o-mini", base_url=url, api_key="any", max_retries=0)  # type: ignore[arg-type]


async def langchain_stream(model: Any) -> AsyncIterator[str]:
    """The texts of one stream, nothing recorded."""
    async for chunk in model.astream("Write me a song about sparkling water."):
        yield chunk.content


def anthropic_client(url: str) -> Any:
    """Anthropic's official SDK, asynchronous."""
    from anthropic import AsyncAnthropic

    return AsyncAnthropic(base_url=url.removesuffix("/v1"), api_key="any", max_retries=0)


async def anthropic_stream(client: Any) -> AsyncIterator[str]:
    """The texts of one stream, read as the SDK's documents show."""
    messages = [{"role": "user", "content": "Write me a song about sparkling water."}]
    create = client.messages.create
    async for event in await create(
        model="claude-haiku-4-5", max_tokens=4096, messages=messages, stream=True
    ):
        if event.type == "content_block_delta" and event.delta.type == "text_delta":
            yield event.delta.text


def langchain_anthropic_model(url: str) -> Any:
    """LangChain's chat model over the same SDK."""
    from langchain_anthropic import ChatAnthropic

    url = url.removesuffix("/v1")
    return ChatAnthropic(model="claude-haiku-4-5", base_url=url, api_key="any", max_retries=0)  # type: ignore[call-arg, arg-type]


def expect(stored: float, sent: float) -> None:
    """Raise an error if a side did not store everything; then it has no figure."""
    if stored != sent:
        raise AssertionError(f"{sent:,} were sent and {stored:,} stored")
