"""The loopback provider answers Anthropic's SDK as the real API does."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import anthropic
import openai
import pytest

from recorder.testing import (
    Answer,
    LoopbackProvider,
    anthropic_error_frame,
    anthropic_messages_body,
    anthropic_messages_frames,
    scripted,
    song,
)
from recorder.testing.anthropic_messages import anthropic_prompt_tokens
from tests.anthropics import ASK, blocks_of, sdk
from tests.genuine import Stream
from tests.wires import frames_of, genuine_anthropic

MANY: dict[str, Any] = {
    "pieces": ["Let me", " see."], "thinking": ["Hm", "m."], "signature": "Eq==", "redacted_thinking": "X==",
    "tool_calls": [{"id": "toolu_1", "name": "weather", "input": {"city": "Zürich"}}],
    "blocks": [{"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}],
}  # fmt: skip


def streamed_message(provider: LoopbackProvider, **more: Any) -> Any:
    """Return the SDK's final message of a stream."""
    with sdk(provider).messages.stream(**{**ASK, **more}) as stream:
        return stream.get_final_message()


def test_without_a_script_the_provider_streams_a_song_in_both_formats() -> None:
    """OpenAI's and Anthropic's SDK can use one provider."""
    with LoopbackProvider.song() as provider:
        message = streamed_message(provider)
        client = openai.OpenAI(base_url=provider.base_url, api_key="any")
        ask: dict[str, Any] = {"model": "gpt-4o", "messages": ASK["messages"]}
        assert client.chat.completions.create(**ask).choices[0].message.content == song()
        client.close()
    assert message.content[0].text == song()
    assert (message.model, message.stop_reason) == ("claude-haiku-4-5-20251001", "end_turn")
    assert message.usage.output_tokens > 100


def test_an_asynchronous_anthropic_client_reads_the_same_text() -> None:
    """It runs on an event loop."""

    async def main(provider: LoopbackProvider) -> str:
        async with (
            anthropic.AsyncAnthropic(base_url=provider.url, api_key="any") as client,
            client.messages.stream(**ASK) as stream,
        ):
            return await stream.get_final_text()

    with LoopbackProvider("Hello there!") as provider:
        assert asyncio.run(main(provider)) == "Hello there!"


def test_the_base_url_may_end_with_the_version() -> None:
    """The SDK appends the version to either URL."""
    with LoopbackProvider("Hello") as provider:
        assert provider.url + "/v1" == provider.base_url
        for url in (provider.base_url, provider.url):
            assert blocks_of(streamed_message(provider)) == blocks_of(
                sdk(provider, base_url=url).messages.create(**ASK)
            )


def test_a_complete_anthropic_answer_equals_a_streamed_one() -> None:
    """Blocks of every kind, stop reason and usage are the same."""
    body, frames = anthropic_messages_body(**MANY, id="msg_1"), anthropic_messages_frames(**MANY, id="msg_1")
    with LoopbackProvider(scripted(Answer(body=body), Answer(frames=frames))) as provider:
        answer, streamed = sdk(provider).messages.create(**ASK), streamed_message(provider)
    assert blocks_of(answer) == blocks_of(streamed)
    assert [block.type for block in answer.content] == [
        "thinking", "redacted_thinking", "text", "tool_use", "web_search_tool_result"
    ]  # fmt: skip
    assert answer.usage == streamed.usage
    assert (answer.id, answer.stop_reason) == (streamed.id, streamed.stop_reason) == ("msg_1", "tool_use")


@pytest.mark.parametrize(
    ("status", "error", "type"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (529, anthropic.OverloadedError, "overloaded_error"),
    ],
)
def test_errors_have_the_form_of_anthropics_api(status: int, error: Any, type: str) -> None:
    """The SDK finds type, message and request id."""
    with LoopbackProvider(Answer.anthropic_error(status)) as provider, pytest.raises(error) as caught:
        sdk(provider).messages.create(**ASK)
    assert caught.value.type == type
    assert caught.value.api_message
    assert caught.value.request_id.startswith("req_011")
    assert caught.value.body["request_id"] == caught.value.request_id


def test_invalid_requests_get_errors_in_anthropics_form() -> None:
    """A failing script and another method get an error; the script's error is raised when the provider stops."""

    def fails(request: dict[str, Any], path: str) -> Answer:
        raise RuntimeError("no more songs")

    provider = LoopbackProvider(fails).start()
    with pytest.raises(anthropic.InternalServerError, match="no more songs") as caught:
        sdk(provider).messages.create(**ASK)
    assert caught.value.type == "api_error"
    with pytest.raises(anthropic.APIStatusError, match="Not allowed to GET") as refused:
        sdk(provider).get("/v1/messages", cast_to=object)
    assert refused.value.type == "invalid_request_error"
    with pytest.raises(RuntimeError, match="no more songs"):
        provider.__exit__(None, None, None)


def test_an_anthropic_error_event_is_raised_by_the_sdk() -> None:
    """The events before it are received."""
    frames = [
        *anthropic_messages_frames(["Hello"])[:4],
        anthropic_error_frame("Overloaded", "overloaded_error"),
    ]
    with LoopbackProvider(Answer(frames=frames)) as provider:
        seen: list[str] = []
        with pytest.raises(anthropic.APIStatusError) as caught:
            seen.extend(event.type for event in sdk(provider).messages.create(**ASK, stream=True))
    assert seen == ["message_start", "content_block_start", "content_block_delta"]
    assert caught.value.type == "overloaded_error"


def test_the_models_are_listed_in_anthropics_form() -> None:
    """The SDK's `models.list()` works."""
    with LoopbackProvider() as provider:
        assert "claude-haiku-4-5-20251001" in [model.id for model in sdk(provider).models.list()]


def test_anthropic_frames_with_the_same_id_have_the_same_bytes() -> None:
    """Their random padding is the same, too."""
    assert anthropic_messages_frames(**MANY, id="msg_1") == anthropic_messages_frames(**MANY, id="msg_1")
    assert anthropic_messages_frames(**MANY, id="msg_1") != anthropic_messages_frames(**MANY, id="msg_2")


def test_prompt_tokens_grow_with_the_prompt() -> None:
    """The system message, text and blocks are counted."""
    few = anthropic_prompt_tokens({"messages": [{"role": "user", "content": "Hi"}]})
    more = anthropic_prompt_tokens(
        {"system": "Be brief.", "messages": [{"content": [{"type": "text", "text": "Hi"}]}]}
    )
    assert 0 < few < more


@genuine_anthropic
def test_anthropic_frames_have_the_form_of_genuine_ones(stream: Stream) -> None:
    """Event names, keys, their order and the blanks before the last brace are the same."""
    genuine = {shape(frame) for frame in frames_of([stream.body])}
    made = {shape(frame) for frame in anthropic_messages_frames(**MANY)}
    for name in ("content_block_start text", "content_block_delta text_delta", "content_block_stop", "message_stop",
                 "ping", "content_block_delta signature_delta", "content_block_delta input_json_delta"):  # fmt: skip
        theirs, ours = ({each for each in found if each[0] == name} for found in (genuine, made))
        assert ours <= theirs or not theirs, name
    assert [name for name, _ in genuine if name == "message_start"]


def shape(frame: bytes) -> tuple[str, str]:
    """Return the name of an event, and its bytes without values and blanks."""
    head, _, data = frame.decode().partition("\ndata: ")
    event = json.loads(data)
    inner = event.get("delta") or event.get("content_block") or {}
    name = (
        " ".join(filter(None, [event["type"], inner.get("type")])) if event["type"] != "message_delta" else ""
    )
    values = re.sub(r'(?<=:)"(?:[^"\\]|\\.)*"|(?<=:)\d+', "#", data.rstrip())
    return name or event["type"], head + re.sub(r" *}$", "}", values)
