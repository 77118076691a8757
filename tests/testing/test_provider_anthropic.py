"""The loopback provider's Anthropic side, seen by the genuine SDK over real sockets, beside genuine streams."""

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
    """The SDK's final message of a stream."""
    with sdk(provider).messages.stream(**{**ASK, **more}) as stream:
        return stream.get_final_message()


def test_without_a_script_it_sings_in_both_formats() -> None:
    """The same provider answers whichever SDK asks."""
    with LoopbackProvider.song() as provider:
        message = streamed_message(provider)
        client = openai.OpenAI(base_url=provider.base_url, api_key="any")
        ask: dict[str, Any] = {"model": "gpt-4o", "messages": ASK["messages"]}
        assert client.chat.completions.create(**ask).choices[0].message.content == song()
        client.close()
    assert message.content[0].text == song()
    assert (message.model, message.stop_reason) == ("claude-haiku-4-5-20251001", "end_turn")
    assert message.usage.output_tokens > 100


def test_an_asynchronous_client_reads_the_same() -> None:
    """On an event loop."""

    async def main(provider: LoopbackProvider) -> str:
        async with (
            anthropic.AsyncAnthropic(base_url=provider.url, api_key="any") as client,
            client.messages.stream(**ASK) as stream,
        ):
            return await stream.get_final_text()

    with LoopbackProvider("Hello there!") as provider:
        assert asyncio.run(main(provider)) == "Hello there!"


def test_both_base_urls_will_do() -> None:
    """The SDK puts the version behind whatever it is given."""
    with LoopbackProvider("Hello") as provider:
        assert provider.url + "/v1" == provider.base_url
        for url in (provider.base_url, provider.url):
            assert blocks_of(streamed_message(provider)) == blocks_of(
                sdk(provider, base_url=url).messages.create(**ASK)
            )


def test_a_whole_answer_says_the_same_as_a_streamed_one() -> None:
    """Blocks of every kind, stop reason and usage."""
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
def test_errors_are_worded_as_the_api_does(status: int, error: Any, type: str) -> None:
    """The SDK finds type, message and request id in their places."""
    with LoopbackProvider(Answer.anthropic_error(status)) as provider, pytest.raises(error) as caught:
        sdk(provider).messages.create(**ASK)
    assert caught.value.type == type
    assert caught.value.api_message
    assert caught.value.request_id.startswith("req_011")
    assert caught.value.body["request_id"] == caught.value.request_id


def test_what_is_no_request_is_refused_in_the_api_s_words() -> None:
    """A body that is no JSON, another method, and a script that fails."""

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


def test_an_error_inside_of_a_stream() -> None:
    """The SDK raises it after what had come."""
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


def test_the_list_of_models() -> None:
    """In the words of whoever asks."""
    with LoopbackProvider() as provider:
        assert "claude-haiku-4-5-20251001" in [model.id for model in sdk(provider).models.list()]


def test_the_same_id_gives_the_same_bytes() -> None:
    """Padding included."""
    assert anthropic_messages_frames(**MANY, id="msg_1") == anthropic_messages_frames(**MANY, id="msg_1")
    assert anthropic_messages_frames(**MANY, id="msg_1") != anthropic_messages_frames(**MANY, id="msg_2")


def test_prompts_count_about_their_words() -> None:
    """System and messages, text and blocks."""
    few = anthropic_prompt_tokens({"messages": [{"role": "user", "content": "Hi"}]})
    more = anthropic_prompt_tokens(
        {"system": "Be brief.", "messages": [{"content": [{"type": "text", "text": "Hi"}]}]}
    )
    assert 0 < few < more


@genuine_anthropic
def test_frames_look_as_the_api_s(stream: Stream) -> None:
    """Event for event the same keys in the same order, blanks before the last brace, the name in front."""
    genuine = {shape(frame) for frame in frames_of([stream.body])}
    made = {shape(frame) for frame in anthropic_messages_frames(**MANY)}
    for name in ("content_block_start text", "content_block_delta text_delta", "content_block_stop", "message_stop",
                 "ping", "content_block_delta signature_delta", "content_block_delta input_json_delta"):  # fmt: skip
        theirs, ours = ({each for each in found if each[0] == name} for found in (genuine, made))
        assert ours <= theirs or not theirs, name
    assert [name for name, _ in genuine if name == "message_start"]


def shape(frame: bytes) -> tuple[str, str]:
    """Name of an event, and its bytes without values and blanks."""
    head, _, data = frame.decode().partition("\ndata: ")
    event = json.loads(data)
    inner = event.get("delta") or event.get("content_block") or {}
    name = (
        " ".join(filter(None, [event["type"], inner.get("type")])) if event["type"] != "message_delta" else ""
    )
    values = re.sub(r'(?<=:)"(?:[^"\\]|\\.)*"|(?<=:)\d+', "#", data.rstrip())
    return name or event["type"], head + re.sub(r" *}$", "}", values)
