"""The loopback provider answers the OpenAI SDK's Responses client as the real API does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest

from recorder.testing import (
    Answer,
    LoopbackProvider,
    openai_responses_body,
    openai_responses_error_frame,
    openai_responses_frames,
    scripted,
    song,
)
from recorder.wire.openai.responses import OpenAIResponses
from tests.genuine import MISSING, responses_streams
from tests.wires import frames_of, translated

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "input": "Hi"}
SEARCH = {
    "id": "ws_1",
    "type": "web_search_call",
    "status": "completed",
    "action": {"type": "search", "query": "x"},
}
CALLS = [
    {"id": "call_1", "name": "weather", "arguments": '{"city":"Zürich"}'},
    {"id": "call_2", "name": "time", "arguments": "{}"},
]
MANY: dict[str, Any] = {
    "pieces": ["It is", " warm."], "reasoning": ["Hm", "m."], "items": [SEARCH], "tool_calls": CALLS, "id": "resp_1",
    "created": 7,
}  # fmt: skip


@contextmanager
def client_of(script: Any) -> Iterator[openai.OpenAI]:
    """Yield the SDK's client of a provider with this script."""
    with (
        LoopbackProvider(script) as provider,
        openai.OpenAI(base_url=provider.base_url, api_key="any", max_retries=0) as client,
    ):
        yield client


def streamed(client: openai.OpenAI, **more: Any) -> Any:
    """Return the SDK's final response of a stream."""
    with client.responses.stream(**{**ASK, **more}) as stream:
        return stream.get_final_response()


def test_a_text_is_the_answer_streamed_and_not_streamed() -> None:
    """The request decides."""
    with client_of("Hello there!") as client:
        whole, parts = client.responses.create(**ASK), streamed(client)
    assert (whole.output_text, parts.output_text) == ("Hello there!", "Hello there!")
    assert (whole.status, parts.status, whole.model) == ("completed", "completed", "gpt-4o-mini-2024-07-18")
    assert whole.usage == parts.usage
    assert whole.id != parts.id


def test_without_a_script_the_provider_sings() -> None:
    """As in the other formats."""
    with client_of(None) as client:
        assert streamed(client).output_text == song()


def test_an_asynchronous_client_reads_the_same_text() -> None:
    """It runs on an event loop."""

    async def main(provider: LoopbackProvider) -> str:
        async with (
            openai.AsyncOpenAI(base_url=provider.base_url, api_key="any") as client,
            client.responses.stream(**ASK) as stream,
        ):
            return (await stream.get_final_response()).output_text

    with LoopbackProvider("Hello there!") as provider:
        assert asyncio.run(main(provider)) == "Hello there!"


def test_a_complete_answer_equals_a_streamed_one() -> None:
    """Items of every kind, status and usage are the same."""
    answers = scripted(
        Answer(body=openai_responses_body(**MANY)), Answer(frames=openai_responses_frames(**MANY))
    )
    with client_of(answers) as client:
        whole, parts = client.responses.create(**ASK), streamed(client)
    assert whole.model_dump(exclude={"output"}) == parts.model_dump(exclude={"output"})
    assert whole.output_text == parts.output_text == "It is warm."
    assert [item.type for item in parts.output] == [
        "reasoning",
        "web_search_call",
        "message",
        "function_call",
        "function_call",
    ]
    assert [item.to_dict() for item in whole.output][:2] == [item.to_dict() for item in parts.output][:2]
    assert (parts.output[3].arguments, parts.output[3].call_id) == ('{"city":"Zürich"}', "call_1")
    assert (parts.usage.input_tokens, parts.usage.output_tokens_details.reasoning_tokens) == (14, 2)


@pytest.mark.parametrize(
    ("fields", "status", "reason", "error"),
    [
        ({"incomplete": "max_output_tokens"}, "incomplete", "max_output_tokens", None),
        ({"error": {"code": "server_error", "message": "no memory"}}, "failed", None, "no memory"),
        ({"refusal": "I can't."}, "completed", None, None),
    ],
)
def test_an_answer_may_be_cut_off_or_fail(
    fields: dict[str, Any], status: str, reason: str | None, error: str | None
) -> None:
    """The last event says so."""
    answers = scripted(
        Answer(frames=openai_responses_frames(["Hi"], **fields)),
        Answer(body=openai_responses_body(["Hi"], **fields)),
    )
    with client_of(answers) as client:
        last = [*client.responses.create(**ASK, stream=True)][-1].response
        whole = client.responses.create(**ASK)
    for found in (last, whole):
        assert found.status == status
        assert (
            found.incomplete_details and found.incomplete_details.reason,
            found.error and found.error.message,
        ) == (reason, error)
    if "refusal" in fields:
        assert whole.output[0].content[0].refusal == "I can't."


def test_an_error_event_is_raised_by_the_sdk() -> None:
    """The events before it are received."""
    frames = [*openai_responses_frames(["Hello"])[:5], openai_responses_error_frame("no memory")]
    seen: list[str] = []
    with client_of(Answer(frames=frames)) as client, pytest.raises(openai.APIError, match="no memory"):
        seen.extend(event.type for event in client.responses.create(**ASK, stream=True))
    assert seen[-1] == "response.output_text.delta"


def test_errors_have_the_form_of_the_api() -> None:
    """The SDK finds the status and the code."""
    with client_of(Answer.error(429)) as client, pytest.raises(openai.RateLimitError) as caught:
        client.responses.create(**ASK)
    assert caught.value.code == "rate_limit_exceeded"


def test_the_previous_response_is_in_the_answer() -> None:
    """The prompt is counted from the instructions and the input."""
    with client_of("Hi") as client:
        found = client.responses.create(**ASK, previous_response_id="resp_0", instructions="Be brief.")
        longer = client.responses.create(
            model="m", input=[{"role": "user", "content": "Hi there, how are you?"}]
        )
    assert (found.previous_response_id, found.usage and found.usage.input_tokens) == ("resp_0", 15)
    assert longer.usage
    assert longer.usage.input_tokens > 10


def test_the_events_are_those_of_the_api() -> None:
    """A genuine stream of a text has the same events with the same keys."""
    if not responses_streams():
        pytest.skip(MISSING)
    genuine = next(
        stream for stream in responses_streams() if stream.name.endswith("phase-streamed-on-part-start-1")
    )
    ours = b"".join(openai_responses_frames(["Hi"]))
    assert keys_of(ours) == keys_of(genuine.body)


def keys_of(body: bytes) -> dict[str, set[str]]:
    """Return the keys of each type of event."""
    events = [json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: ")]
    return {event["type"]: set(event) for event in events}


def test_the_same_id_gives_the_same_bytes() -> None:
    """Padding depends on the id."""
    assert openai_responses_frames(**MANY) == openai_responses_frames(**MANY)
    assert b"obfuscation" not in b"".join(openai_responses_frames(["Hi"], obfuscation=False))


def test_the_translator_reads_every_part_of_an_answer() -> None:
    """Streamed and not streamed."""
    streamed_reply = translated(frames_of(openai_responses_frames(**MANY)), OpenAIResponses)[1]
    whole = translated([openai_responses_body(**MANY)], OpenAIResponses)[1]
    assert streamed_reply.message() == whole.message()
    assert (whole.text(), whole.text(kind="reasoning"), len(whole.tool_calls())) == ("It is warm.", "Hmm.", 2)
