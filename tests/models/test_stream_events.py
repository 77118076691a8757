"""`astream_events` yields LangChain's dictionaries, filters them, and ends with its run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import openai
import pytest

from recorder.errors import ConfigError
from recorder.testing import Answer, LoopbackProvider, openai_chat_frames, openai_error_frame
from tests.chatting import chat, history_at, recorded

FRAMES = openai_chat_frames(["Hello", " there", "!"])


async def collect(model: Any, *args: Any, limit: int | None = None, **options: Any) -> list[dict[str, Any]]:
    """Return the events of a run, or the first `limit` of them."""
    found: list[dict[str, Any]] = []
    async for event in model.astream_events(*args, **options):
        found.append(event)
        if len(found) == limit:
            break
    return found


def test_events_are_the_start_the_chunks_and_the_end() -> None:
    """The start has the input as it was passed, and the end has the sum of the chunks."""
    run_id, parent = uuid4(), uuid4()
    config = {"run_id": run_id, "parent_run_id": parent, "run_name": "greeting", "tags": ["t"]}
    messages = [("user", "Hi")]
    with LoopbackProvider(Answer(frames=FRAMES)) as provider:
        events = asyncio.run(collect(chat(provider), messages, config, stop=["END"], seed=7))
    start, *streamed, end = events
    assert start["data"] == {"input": messages}
    assert "".join(event["data"]["chunk"].content for event in streamed) == "Hello there!"
    assert end["data"]["output"].content == "Hello there!"
    assert end["data"]["output"].usage_metadata["output_tokens"] == 3
    assert [event["event"] for event in events] == [
        "on_chat_model_start", *["on_chat_model_stream"] * len(streamed), "on_chat_model_end"
    ]  # fmt: skip
    for event in events:
        assert event.keys() == {"event", "data", "name", "tags", "run_id", "metadata", "parent_ids"}
        assert (event["name"], event["tags"], event["run_id"]) == ("greeting", ["t"], str(run_id))
        assert event["parent_ids"] == [str(parent)]
    assert provider.requests[0]["body"]["stop"] == ["END"]
    assert provider.requests[0]["body"]["seed"] == 7


def test_a_filter_does_not_stop_the_run(tmp_path: Path) -> None:
    """The answer is recorded although no event is yielded."""
    with LoopbackProvider(Answer(frames=FRAMES)) as provider, history_at(tmp_path) as history:
        model = chat(provider, callbacks=[history])
        assert asyncio.run(collect(model, "Hi", version="v2", include_types=["tool"])) == []
    assert recorded(history.recorder.url).text == "Hello there!"


def test_another_version_of_events_is_refused() -> None:
    """The error says what to pass instead, and no request is sent."""
    with LoopbackProvider() as provider, pytest.raises(ConfigError, match="version='v2'"):
        asyncio.run(collect(chat(provider), "Hi", version="v1"))
    assert provider.requests == []


def test_an_error_ends_the_events() -> None:
    """The events before the error are yielded, then the error is raised."""
    frames = [*FRAMES[:2], openai_error_frame("Overloaded")]
    seen: list[str] = []

    async def main(model: Any) -> None:
        async for event in model.astream_events("Hi"):
            seen.append(event["event"])

    with (
        LoopbackProvider(Answer(frames=frames)) as provider,
        pytest.raises(openai.APIError, match="Overloaded"),
    ):
        asyncio.run(main(chat(provider)))
    assert seen == ["on_chat_model_start", "on_chat_model_stream", "on_chat_model_stream"]


def test_leaving_the_events_cancels_the_run(tmp_path: Path) -> None:
    """The tokens until then are stored."""

    async def main(model: Any) -> None:
        events = model.astream_events("Hi")
        async for event in events:
            if event["event"] == "on_chat_model_stream" and event["data"]["chunk"].content:
                break
        await events.aclose()

    with LoopbackProvider(Answer(frames=FRAMES)) as provider, history_at(tmp_path) as history:
        asyncio.run(main(chat(provider, callbacks=[history])))
    found = recorded(history.recorder.url)
    assert (found.run["status"], found.text) == ("cancelled", "Hello")


def test_no_request_is_sent_before_the_second_event() -> None:
    """A caller that stops after the start event sends no request."""
    with LoopbackProvider(Answer(frames=FRAMES)) as provider:
        (start,) = asyncio.run(collect(chat(provider), "Hi", limit=1))
    assert start["event"] == "on_chat_model_start"
    assert provider.requests == []
