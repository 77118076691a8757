"""The snippets of other people's documents about streaming, with our imports in place of theirs."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterable, Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recorder.callbacks import AsyncIteratorCallbackHandler, CallbackHandler, StreamingStdOutCallbackHandler
from recorder.errors import RecorderError
from recorder.messages import HumanMessage
from recorder.models import ChatOpenAI
from recorder.testing import Answer, LoopbackProvider, openai_chat_frames, openai_error_frame, song
from tests.chatting import Log


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackProvider]:
    """A provider that sings, which the environment names."""
    with LoopbackProvider() as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        yield provider


def test_the_lyrics_are_printed_as_they_come(
    provider: LoopbackProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    """`StreamingStdOutCallbackHandler`, and calling the model."""
    chat = ChatOpenAI(streaming=True, callbacks=[StreamingStdOutCallbackHandler()], temperature=0)
    resp = chat([HumanMessage(content="Write me a song about sparkling water.")])
    assert capsys.readouterr().out == resp.content == song()
    assert provider.requests[0]["body"]["temperature"] == 0


def test_a_table_of_the_chat_history(provider: LoopbackProvider, tmp_path: Path) -> None:
    """A handler that inserts each new message into a table of three columns."""

    class ChatHistoryCallback(CallbackHandler):
        def __init__(self) -> None:
            self.conn = sqlite3.connect(tmp_path / "chat_history.db")
            self.c = self.conn.cursor()
            self.c.execute("""CREATE TABLE chathistory
                (id INTEGER PRIMARY KEY, role TEXT, content TEXT)""")

        def on_chat_new_message(self, message: Any) -> None:
            self.c.execute("INSERT INTO chathistory VALUES (NULL, ?, ?)", (message.role, message.content))
            self.conn.commit()

    history = ChatHistoryCallback()
    chat = ChatOpenAI(streaming=True, callbacks=[history])
    chat([HumanMessage("Hello!")])
    rows = history.c.execute("SELECT * FROM chathistory").fetchall()
    history.conn.close()
    assert rows == [(1, "user", "Hello!"), (2, "assistant", song())]


@pytest.mark.usefixtures("provider")
def test_chunk_by_chunk(capsys: pytest.CaptureFixture[str]) -> None:
    """`for chunk in llm.stream(messages)`."""
    llm = ChatOpenAI(streaming=True, temperature=0.7)
    messages = [HumanMessage("Write me a song about sparkling water.")]
    for chunk in llm.stream(messages):
        print(chunk.content, end="", flush=True)
    assert capsys.readouterr().out == song()


@pytest.mark.usefixtures("provider")
def test_chunk_by_chunk_on_a_loop(capsys: pytest.CaptureFixture[str]) -> None:
    """`async for chunk in llm.astream(messages)`, with a plain string."""
    llm = ChatOpenAI()

    async def main() -> None:
        async for chunk in llm.astream("Write me a 1 verse song about goldfish on the moon"):
            print(chunk.content, end="|", flush=True)

    asyncio.run(main())
    assert capsys.readouterr().out.replace("|", "") == song()


@pytest.mark.usefixtures("provider")
def test_events_that_are_left_in_the_middle() -> None:
    """`astream_events`, truncated after a few events."""
    chat = ChatOpenAI(model="gpt-4o-mini")
    seen: list[dict[str, Any]] = []

    async def main() -> None:
        idx = 0
        async for event in chat.astream_events("Write me a 1 verse song about goldfish on the moon"):
            idx += 1
            if idx >= 5:
                break
            seen.append(event)

    asyncio.run(main())
    start, *streamed = seen
    assert start == {
        "event": "on_chat_model_start",
        "data": {"input": "Write me a 1 verse song about goldfish on the moon"},
        "name": "ChatOpenAI",
        "tags": [],
        "run_id": start["run_id"],
        "metadata": {
            "ls_provider": "openai",
            "ls_model_name": "gpt-4o-mini",
            "ls_model_type": "chat",
            "ls_temperature": None,
        },
        "parent_ids": [],
    }
    assert [event["event"] for event in streamed] == ["on_chat_model_stream"] * 3
    assert {event["data"]["chunk"].id for event in streamed} == {f"run-{start['run_id']}"}


async def async_chat(message: str, log: Log | None = None) -> AsyncIterable[str]:
    """The tokens of `agenerate` beside its task, as the snippet has it, with its parenthesis closed."""
    callback = AsyncIteratorCallbackHandler()
    chat = ChatOpenAI(
        streaming=True, callbacks=[callback, *([log] if log else [])], temperature=0, max_retries=0
    )

    async def wrap_done(fn: Awaitable[Any], event: asyncio.Event) -> None:
        try:
            await fn
        except Exception as e:
            print(f"Caught exception: {e}")
        finally:
            event.set()

    task = asyncio.create_task(
        wrap_done(chat.agenerate(messages=[[HumanMessage(content=message)]]), callback.done)
    )
    async for token in callback.aiter():
        yield f"{token}"
    await task


async def async_print() -> None:
    """The snippet's main."""
    async for token in async_chat("Write me a song about sparkling water."):
        print(token, end="")


@pytest.mark.usefixtures("provider")
def test_tokens_beside_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    """`AsyncIteratorCallbackHandler` with `aiter()` and `done`."""
    asyncio.run(async_print())
    assert capsys.readouterr().out == song()


@pytest.mark.usefixtures("provider")
def test_many_chats_at_once() -> None:
    """Each reader gets the tokens of its own model."""

    async def read() -> str:
        return "".join([token async for token in async_chat("Write me a song.")])

    async def main() -> list[str]:
        return await asyncio.gather(*(read() for _ in range(20)))

    assert asyncio.run(main()) == [song()] * 20


def test_a_model_that_fails_ends_the_iteration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tokens that came, then the end; the error is the task's."""
    frames = [*openai_chat_frames(["Hello", " there"])[:3], openai_error_frame("Overloaded")]
    monkeypatch.setenv("OPENAI_API_KEY", "any")

    async def main() -> str:
        return "".join([token async for token in async_chat("Hi")])

    with LoopbackProvider(Answer(frames=frames)) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        assert asyncio.run(main()) == "Hello there"
    assert "Caught exception: Overloaded" in capsys.readouterr().out


@pytest.mark.usefixtures("provider")
def test_generate_and_only_then_iterate() -> None:
    """Where nobody reads beside it, a limit is not waited for: the tokens that it held come, then an error."""

    async def main() -> list[str]:
        handler = AsyncIteratorCallbackHandler(limit=10)
        chat = ChatOpenAI(streaming=True, callbacks=[handler])
        await chat.agenerate([[HumanMessage("Write me a song.")]])
        tokens = handler.aiter()
        found = [await anext(tokens) for _ in range(10)]
        with pytest.raises(RecorderError, match="tokens are missing here"):
            await anext(tokens)
        return found

    found = asyncio.run(main())
    assert len(found) == 10
    assert song().startswith("".join(found))


def test_a_slow_reader_slows_the_model_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler is bounded: while someone iterates, the model waits instead of running ahead."""
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    pieces = [f" {number}" for number in range(500)]
    ahead: list[int] = []

    async def main() -> str:
        log = Log()
        handler = AsyncIteratorCallbackHandler(limit=20)
        chat = ChatOpenAI(streaming=True, callbacks=[log, handler])
        task = asyncio.create_task(chat.agenerate([["Count."]]))
        read: list[str] = []
        async for token in handler.aiter():
            read.append(token)
            ahead.append(len([token for token in log.tokens if token]) - len(read))
            await asyncio.sleep(0)
        await task
        return "".join(read)

    with LoopbackProvider(Answer(frames=openai_chat_frames(pieces))) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        assert asyncio.run(main()) == "".join(pieces)
    assert max(ahead) <= 22
