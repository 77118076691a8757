"""Snippets from other projects' documentation about streaming run with recorder's imports in place of theirs."""

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
    """Yield a provider to which the environment variables of the OpenAI SDK point."""
    with LoopbackProvider() as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        yield provider


def test_the_stdout_handler_prints_the_answer(
    provider: LoopbackProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    """`StreamingStdOutCallbackHandler` prints the tokens of a model that is called as a function."""
    chat = ChatOpenAI(streaming=True, callbacks=[StreamingStdOutCallbackHandler()], temperature=0)
    resp = chat([HumanMessage(content="Write me a song about sparkling water.")])
    assert capsys.readouterr().out == resp.content == song()
    assert provider.requests[0]["body"]["temperature"] == 0


def test_a_handler_stores_each_new_message(provider: LoopbackProvider, tmp_path: Path) -> None:
    """A handler inserts the question and the answer into a table of its own."""

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
def test_chunks_are_iterated(capsys: pytest.CaptureFixture[str]) -> None:
    """`for chunk in llm.stream(messages)` yields the answer."""
    llm = ChatOpenAI(streaming=True, temperature=0.7)
    messages = [HumanMessage("Write me a song about sparkling water.")]
    for chunk in llm.stream(messages):
        print(chunk.content, end="", flush=True)
    assert capsys.readouterr().out == song()


@pytest.mark.usefixtures("provider")
def test_chunks_are_iterated_on_an_event_loop(capsys: pytest.CaptureFixture[str]) -> None:
    """`async for chunk in llm.astream(text)` yields the answer."""
    llm = ChatOpenAI()

    async def main() -> None:
        async for chunk in llm.astream("Write me a 1 verse song about goldfish on the moon"):
            print(chunk.content, end="|", flush=True)

    asyncio.run(main())
    assert capsys.readouterr().out.replace("|", "") == song()


@pytest.mark.usefixtures("provider")
def test_an_event_stream_can_be_left_early() -> None:
    """The loop over `astream_events` is left after four events: the start and three chunks."""
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
    """Yield the tokens of `agenerate`, which runs in a task, as the snippet does (with its missing parenthesis)."""
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
    """Print the tokens, as the snippet's `main` does."""
    async for token in async_chat("Write me a song about sparkling water."):
        print(token, end="")


@pytest.mark.usefixtures("provider")
def test_tokens_are_iterated_while_a_task_calls_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    """`AsyncIteratorCallbackHandler.aiter()` yields the tokens of a call in another task."""
    asyncio.run(async_print())
    assert capsys.readouterr().out == song()


@pytest.mark.usefixtures("provider")
def test_concurrent_chats_do_not_mix_their_tokens() -> None:
    """Each of 20 concurrent readers receives the tokens of its own model."""

    async def read() -> str:
        return "".join([token async for token in async_chat("Write me a song.")])

    async def main() -> list[str]:
        return await asyncio.gather(*(read() for _ in range(20)))

    assert asyncio.run(main()) == [song()] * 20


def test_a_model_that_fails_ends_the_iteration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The iteration yields the tokens before the failure and ends; the task raises the error."""
    frames = [*openai_chat_frames(["Hello", " there"])[:3], openai_error_frame("Overloaded")]
    monkeypatch.setenv("OPENAI_API_KEY", "any")

    async def main() -> str:
        return "".join([token async for token in async_chat("Hi")])

    with LoopbackProvider(Answer(frames=frames)) as provider:
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        assert asyncio.run(main()) == "Hello there"
    assert "Caught exception: Overloaded" in capsys.readouterr().out


@pytest.mark.usefixtures("provider")
def test_iterating_after_generate_yields_the_tokens_below_the_limit() -> None:
    """Without a reader the model does not wait: the handler yields as many tokens as its limit, then an error."""

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
    """While a reader iterates, the model waits when it is 20 tokens ahead."""
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
