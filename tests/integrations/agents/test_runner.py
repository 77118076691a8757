"""`Runner.run` with our `Session` does what it does with the SQLite session of OpenAI Agents."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest

import recorder
from recorder.integrations.agents import Session
from recorder.testing import (
    Answer,
    LoopbackProvider,
    openai_chat_body,
    openai_chat_frames,
    openai_responses_body,
    openai_responses_frames,
    scripted,
)
from tests.oracle import new_url, sql

agents: Any = pytest.importorskip("agents")

CALL = {"id": "call_1", "name": "add", "arguments": '{"a": 1,  "b": 2}'}
#: The answers to two questions; the first one needs a tool.
REPLIES: list[dict[str, Any]] = [
    {"pieces": [], "reasoning": ["I ", "think"], "tool_calls": [CALL], "id": "resp_1"},
    {"pieces": ["It is ", "3."], "id": "resp_2"},
    {"pieces": ["Still 3."], "id": "resp_3"},
]
MESSAGES = [
    ("user", "1+2?"), ("assistant", ""), ("tool", "3"), ("assistant", "It is 3."),
    ("user", "And now?"), ("assistant", "Still 3."),
]  # fmt: skip
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


@agents.function_tool  # type: ignore[untyped-decorator]
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@pytest.fixture(autouse=True)
def no_tracing() -> Iterator[None]:
    """Let OpenAI Agents send no traces."""
    agents.set_tracing_disabled(True)
    yield
    agents.set_tracing_disabled(False)


def provider(streamed: bool, *, chat: bool = False) -> LoopbackProvider:
    """Return a provider that gives the replies in order."""
    frames: Any = openai_chat_frames if chat else openai_responses_frames
    body: Any = openai_chat_body if chat else openai_responses_body

    def make(fields: dict[str, Any]) -> Answer:
        return Answer(frames=frames(**fields)) if streamed else Answer(body=body(**fields))

    return LoopbackProvider(scripted(*map(make, REPLIES)))


async def talk(
    session: Any, client: Any, streamed: bool, *, model: str = "OpenAIResponsesModel"
) -> list[Any]:
    """Ask both questions, and return the items of the session."""
    agent = agents.Agent(
        "calculator",
        instructions="Be brief.",
        tools=[add],
        model=getattr(agents, model)("gpt-5.4-mini", client),
    )
    for question in ("1+2?", "And now?"):
        if streamed:
            async for _ in agents.Runner.run_streamed(agent, question, session=session).stream_events():
                pass
        else:
            await agents.Runner.run(agent, question, session=session)
    return list(await session.get_items())


async def theirs(streamed: bool, **options: Any) -> tuple[list[Any], list[Any]]:
    """Return the items of the SQLite session, and what the model was sent."""
    with provider(streamed, chat="model" in options) as found:
        async with openai.AsyncOpenAI(base_url=found.base_url, api_key="any") as client:
            with closing(agents.SQLiteSession("c1")) as session:
                items = await talk(session, client, streamed, **options)
        return items, [request["body"].get("input") for request in found.requests]


async def ours(
    url: str, streamed: bool, *, attach: bool = True, **options: Any
) -> tuple[list[Any], list[Any]]:
    """Return the same of our session, beside an attached client."""
    with provider(streamed, chat="model" in options) as found:
        async with (
            recorder.ChatHistoryCallback(url, conversation_id="c1") as history,
            openai.AsyncOpenAI(base_url=found.base_url, api_key="any") as client,
        ):
            if attach:
                recorder.attach(client, callbacks=[history])
            items = await talk(Session("c1", history), client, streamed, **options)
        return items, [request["body"].get("input") for request in found.requests]


def stored(url: str) -> list[tuple[str, str]]:
    """Return the role and the text of each stored message."""
    return sql(url, "SELECT role, content FROM messages ORDER BY created_at")


@STREAMED
def test_beside_an_attached_client_each_message_is_stored_once(tmp_path: Path, streamed: bool) -> None:
    """The model is sent the same as with the SQLite session, and the items are the same, byte for byte."""
    url = new_url(tmp_path)
    assert asyncio.run(ours(url, streamed)) == asyncio.run(theirs(streamed))
    assert stored(url) == MESSAGES


@STREAMED
def test_a_session_alone_stores_everything(tmp_path: Path, streamed: bool) -> None:
    """Without an attached client the items are the same, too."""
    url = new_url(tmp_path)
    assert asyncio.run(ours(url, streamed, attach=False)) == asyncio.run(theirs(streamed))
    assert stored(url) == MESSAGES


@STREAMED
def test_a_model_of_chat_completions(tmp_path: Path, streamed: bool) -> None:
    """The items mean the same; a message of this format has no items of its own."""
    url = new_url(tmp_path)
    items, _ = asyncio.run(ours(url, streamed, model="OpenAIChatCompletionsModel"))
    assert [item.get("type", item.get("role")) for item in items if item.get("type") != "reasoning"] == [
        "user", "function_call", "function_call_output", "message", "user", "message",
    ]  # fmt: skip
    assert stored(url) == MESSAGES


def test_what_was_recorded_can_be_popped(tmp_path: Path) -> None:
    """The last question and its answer leave the memory, and stay in the record."""
    url = new_url(tmp_path)
    items, _ = asyncio.run(ours(url, True))

    async def pop() -> tuple[list[Any], list[Any]]:
        async with recorder.ChatHistoryCallback(url) as history:
            session = Session("c1", history)
            return [await session.pop_item() for _ in range(2)], list(await session.get_items())

    popped, left = asyncio.run(pop())
    assert (popped, left) == (items[:-3:-1], items[:-2])
    assert stored(url)[: len(MESSAGES)] == MESSAGES


def test_a_conversation_goes_on_in_another_process(tmp_path: Path) -> None:
    """A new recorder and a new session read the items that the provider sent."""
    url = new_url(tmp_path)
    items, _ = asyncio.run(ours(url, True))

    async def again() -> list[Any]:
        async with recorder.ChatHistoryCallback(url) as history:
            return list(await Session("c1", history).get_items())

    assert asyncio.run(again()) == items


def test_it_is_a_session_of_openai_agents(tmp_path: Path) -> None:
    """The protocol of the framework is fulfilled, and a limit of the settings is used."""

    async def limited() -> list[Any]:
        async with recorder.ChatHistoryCallback(new_url(tmp_path)) as history:
            session = Session("c1", history, session_settings=agents.SessionSettings(limit=1))
            assert isinstance(session, agents.Session)
            await session.add_items([{"role": "user", "content": "1"}, {"role": "user", "content": "2"}])
            return list(await session.get_items())

    assert asyncio.run(limited()) == [{"role": "user", "content": "2"}]
