"""The real SDKs read encoded streams over a socket as they read the provider's own bytes."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import openai
import orjson
import pytest

from recorder.testing import Answer, LoopbackProvider
from recorder.wire.deltas import CITATION, REASONING, REFUSAL, SIGNATURE, TEXT, TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.encode import body
from recorder.wire.recorded_run import ANTHROPIC, CHAT, COMPLETIONS, Failure, Recorded
from tests.encoded import (
    ASK_ANTHROPIC,
    ASK_OPENAI,
    accumulated_by_anthropic,
    accumulated_by_openai,
    anthropic_client,
    body_of,
    genuine,
    openai_client,
    read,
    run_of,
    serving,
    timed,
)
from tests.genuine import MISSING, Stream, name_of

#: A run of OpenAI with every kind of delta, and one of Anthropic.
CHAT_RUN = Recorded(
    wire=CHAT,
    response_id="chatcmpl-1",
    model="gpt-x",
    created=7,
    finish_reasons={0: "tool_calls", 1: "stop"},
    usage={
        "prompt_tokens": 9,
        "completion_tokens": 5,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
)
CHAT_DELTAS = [
    Delta("Let me ", REASONING),
    Delta("see.", REASONING),
    Delta("It is "),
    Delta("here.", TEXT, "1"),
    Delta("warm."),
    Delta('{"id":"call_1","name":"weather"}', TOOL_CALL, "0.0"),
    Delta('{"city":', TOOL_ARGS, "0.0"),
    Delta('"Rome"}', TOOL_ARGS, "0.0"),
    Delta('{"id":"call_2","name":"time"}', TOOL_CALL, "0.1"),
    Delta("I can't", REFUSAL, "1"),
]
MESSAGE_RUN = Recorded(
    wire=ANTHROPIC,
    response_id="msg_1",
    model="claude-x",
    finish_reasons={0: "tool_use"},
    usage={"input_tokens": 5, "cache_read_input_tokens": 4, "output_tokens": 5},
)
MESSAGE_DELTAS = [
    Delta("Let me ", REASONING),
    Delta("see.", REASONING),
    Delta("c2ln", SIGNATURE),
    Delta("It is ", TEXT, "0.1"),
    Delta("warm.", TEXT, "0.1"),
    Delta('{"type":"web_search_result_location","url":"https://a","title":"A"}', CITATION, "0.1"),
    Delta('{"id":"toolu_1","name":"weather"}', TOOL_CALL, "0.2"),
    Delta('{"city":', TOOL_ARGS, "0.2"),
    Delta('"Rome"}', TOOL_ARGS, "0.2"),
    Delta('{"id":"toolu_2","name":"time"}', TOOL_CALL, "0.3"),
]
#: Both runs, which are encoded in every format.
RUNS = pytest.mark.parametrize(
    ("run", "deltas"), [(CHAT_RUN, CHAT_DELTAS), (MESSAGE_RUN, MESSAGE_DELTAS)], ids=["chat", "message"]
)


def called(message: Any) -> list[tuple[str, str]]:
    """Return names and arguments of a chat message's calls."""
    return [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]


# -- any run to any client -------------------------------------------------------------------------------------


@RUNS
def test_openais_helper_reads_every_run(run: Recorded, deltas: list[Delta]) -> None:
    """It reads text, reasoning, calls, finish reason and usage of both runs."""
    received = accumulated_by_openai(body_of(CHAT, run, deltas))
    choice = received.choices[0]
    assert (received.id, received.model) == (run.response_id, run.model)
    assert choice.message.content == "It is warm."
    assert choice.message.reasoning_content == "Let me see."
    assert called(choice.message) == [("weather", '{"city":"Rome"}'), ("time", "")]
    assert [call.id for call in choice.message.tool_calls] == [
        delta.text.split('"')[3] for delta in deltas if delta.kind == TOOL_CALL
    ]
    assert choice.finish_reason == "tool_calls"
    assert (received.usage.prompt_tokens, received.usage.completion_tokens, received.usage.total_tokens) == (
        9,
        5,
        14,
    )
    assert received.usage.prompt_tokens_details.cached_tokens == 4


def test_openais_helper_reads_every_choice() -> None:
    """The second choice has its own text, refusal and finish reason."""
    second = accumulated_by_openai(body_of(CHAT, CHAT_RUN, CHAT_DELTAS)).choices[1]
    assert (second.message.content, second.message.refusal, second.finish_reason) == (
        "here.",
        "I can't",
        "stop",
    )


@RUNS
def test_anthropics_helper_reads_every_run(run: Recorded, deltas: list[Delta]) -> None:
    """It reads blocks, stop reason and usage of both runs."""
    received = accumulated_by_anthropic(body_of(ANTHROPIC, run, deltas))
    thinking, text, weather, time = received.content
    assert (received.id, received.model, received.role, received.type) == (
        run.response_id,
        run.model,
        "assistant",
        "message",
    )
    assert (thinking.type, thinking.thinking) == ("thinking", "Let me see.")
    assert (text.type, text.text) == ("text", "It is warm.")
    assert (weather.type, weather.name, weather.input) == ("tool_use", "weather", {"city": "Rome"})
    assert (time.type, time.name, time.input) == ("tool_use", "time", {})
    assert received.stop_reason == "tool_use"
    spent = received.usage
    assert (spent.input_tokens, spent.cache_read_input_tokens, spent.output_tokens) == (5, 4, 5)


@RUNS
def test_a_client_of_legacy_completions_reads_every_run(run: Recorded, deltas: list[Delta]) -> None:
    """It reads text, finish reason and usage, with and without a stream."""
    with (
        serving(body_of(COMPLETIONS, run, deltas)) as provider,
        openai_client(provider) as client,
        client.completions.create(model="m", prompt="Hi", stream=True) as stream,
    ):
        chunks = list(stream)
    first = [choice for chunk in chunks for choice in chunk.choices if choice.index == 0]
    assert "".join(choice.text for choice in first) == "It is warm."
    assert [choice.finish_reason for choice in first if choice.finish_reason] == ["stop"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 14
    body_bytes = body(COMPLETIONS, run, timed(deltas))
    with LoopbackProvider(Answer(body=body_bytes)) as provider, openai_client(provider) as client:
        received = client.completions.create(model="m", prompt="Hi")
    assert received.choices[0].text == "It is warm."
    assert received.usage is not None
    assert received.usage.total_tokens == 14


@RUNS
def test_sdks_read_complete_encoded_responses(run: Recorded, deltas: list[Delta]) -> None:
    """A client that does not stream gets one body with the same content."""
    with (
        LoopbackProvider(Answer(body=body(CHAT, run, timed(deltas)))) as provider,
        openai_client(provider) as client,
    ):
        chat = client.chat.completions.create(**ASK_OPENAI)
    message = chat.choices[0].message
    assert (message.content, called(message)) == (
        "It is warm.",
        [("weather", '{"city":"Rome"}'), ("time", "")],
    )
    assert (chat.choices[0].finish_reason, chat.usage and chat.usage.total_tokens) == ("tool_calls", 14)
    body_bytes = body(ANTHROPIC, run, timed(deltas))
    with LoopbackProvider(Answer(body=body_bytes)) as provider, anthropic_client(provider) as client_:
        message = client_.messages.create(**ASK_ANTHROPIC)
    streamed = accumulated_by_anthropic(body_of(ANTHROPIC, run, deltas))
    # The helper's blocks have one more key.
    assert [block.to_dict() for block in message.content] == [
        {key: value for key, value in block.to_dict().items() if key != "parsed_output"}
        for block in streamed.content
    ]
    assert (message.stop_reason, message.usage.output_tokens) == ("tool_use", 5)


@RUNS
def test_asynchronous_sdks_read_the_same_from_encoded_streams(run: Recorded, deltas: list[Delta]) -> None:
    """The results equal those of the synchronous SDKs."""

    async def openais() -> Any:
        with serving(body_of(CHAT, run, deltas)) as provider:
            async with (
                openai.AsyncOpenAI(base_url=provider.base_url, api_key="any", max_retries=0) as client,
                client.chat.completions.stream(**ASK_OPENAI) as stream,
            ):
                return await stream.get_final_completion()

    async def anthropics() -> Any:
        with serving(body_of(ANTHROPIC, run, deltas)) as provider:
            root = provider.base_url.removesuffix("/v1")
            async with (
                anthropic.AsyncAnthropic(base_url=root, api_key="any", max_retries=0) as client,
                client.messages.stream(**ASK_ANTHROPIC) as stream,
            ):
                return await stream.get_final_message()

    assert asyncio.run(openais()) == accumulated_by_openai(body_of(CHAT, run, deltas))
    assert asyncio.run(anthropics()) == accumulated_by_anthropic(body_of(ANTHROPIC, run, deltas))


def test_without_requested_usage_every_event_has_choices() -> None:
    """Simple clients read the first choice of each event."""
    run = Recorded(wire=CHAT, usage={"prompt_tokens": 1}, include_usage=False)
    with (
        serving(body_of(CHAT, run, [Delta("Hi")])) as provider,
        openai_client(provider) as client,
        client.chat.completions.create(**ASK_OPENAI, stream=True) as stream,
    ):
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hi"


# -- errors ----------------------------------------------------------------------------------------------------


@RUNS
def test_sdks_raise_an_encoded_error(run: Recorded, deltas: list[Delta]) -> None:
    """Text before it is received, and each SDK raises its own class."""
    failure = Failure("Overloaded", "anthropic.OverloadedError")
    failed = Recorded(wire=run.wire, response_id="r", model="m", failure=failure)
    received = chat_read_by_sdk(body_of(CHAT, failed, deltas))
    assert (received["choices"][0]["text"], received["error"]) == ("It is warm.", "Overloaded")
    with pytest.raises(anthropic.APIStatusError, match="Overloaded") as refused:
        accumulated_by_anthropic(body_of(ANTHROPIC, failed, deltas))
    assert refused.value.body == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "Overloaded"},
    }


# -- genuine streams ---------------------------------------------------------------------------------------------

_ABSENT = [pytest.param(None, marks=pytest.mark.skip(reason=MISSING), id="none")]
each_chat = pytest.mark.parametrize(
    "stream", genuine(CHAT) or _ABSENT, ids=name_of if genuine(CHAT) else None
)
each_message = pytest.mark.parametrize(
    "stream", genuine(ANTHROPIC) or _ABSENT, ids=name_of if genuine(ANTHROPIC) else None
)


def chat_read_by_sdk(stream: bytes) -> dict[str, Any]:
    """Return the sum of the SDK's chunks of a stream, or what came before an error, and the error."""
    found: dict[str, Any] = {"choices": {}, "usage": None, "error": None, "id": None, "model": None}
    with serving(stream) as provider, openai_client(provider) as client:
        try:
            for chunk in client.chat.completions.create(**ASK_OPENAI, stream=True):
                _add(found, chunk)
        except openai.APIError as error:
            found["error"] = error.message
    return found


def _add(found: dict[str, Any], chunk: Any) -> None:
    found["id"], found["model"] = found["id"] or chunk.id, found["model"] or chunk.model
    extra = (chunk.model_extra or {}).get("x_groq") or {}
    found["usage"] = (chunk.usage and chunk.usage.to_dict()) or extra.get("usage") or found["usage"]
    for choice in chunk.choices:
        known = found["choices"].setdefault(
            choice.index, {"text": "", "reasoning": "", "refusal": "", "calls": {}}
        )
        more = choice.delta.model_extra or {}
        known["text"] += choice.delta.content or ""
        known["reasoning"] += more.get("reasoning_content") or more.get("reasoning") or ""
        known["refusal"] += choice.delta.refusal or ""
        known["finish_reason"] = choice.finish_reason or known.get("finish_reason")
        for call in choice.delta.tool_calls or ():
            known_call = known["calls"].setdefault(call.index, ["", "", ""])
            function = call.function
            known_call[0] = known_call[0] or call.id or ""
            known_call[1] = known_call[1] or (function and function.name) or ""
            known_call[2] += (function and function.arguments) or ""


@pytest.mark.matrix
@each_chat
def test_a_genuine_chat_stream_is_read_equally_after_encoding(stream: Stream) -> None:
    """Text, reasoning, refusal, calls, finish reasons, usage and errors are the same."""
    deltas, reply = read(CHAT, stream.body)
    encoded = body_of(CHAT, run_of(CHAT, reply), deltas)
    again, _ = read(CHAT, encoded)
    assert again == deltas
    theirs, ours = chat_read_by_sdk(stream.body), chat_read_by_sdk(encoded)
    if theirs["error"] is not None:
        theirs["usage"] = ours["usage"]  # the SDK does not return the usage of an error event
        theirs["id"], theirs["model"] = theirs["id"] or ours["id"], theirs["model"] or ours["model"]
        ours["choices"] = {number: ours["choices"][number] for number in theirs["choices"]}
        for number, choice in theirs["choices"].items():
            choice["finish_reason"] = ours["choices"][number]["finish_reason"]
    assert ours == theirs


@pytest.mark.matrix
@each_chat
def test_a_genuine_chat_stream_is_read_by_anthropics_sdk(stream: Stream) -> None:
    """Text, reasoning and calls are the same, as blocks."""
    deltas, reply = read(CHAT, stream.body)
    encoded = body_of(ANTHROPIC, run_of(CHAT, reply), deltas)
    if reply.error is not None:
        with pytest.raises(anthropic.APIStatusError):
            accumulated_by_anthropic(encoded)
        return
    received = accumulated_by_anthropic(encoded)
    message = {
        kind: "".join(getattr(block, kind, "") for block in received.content) for kind in ("text", "thinking")
    }
    assert message == {"text": reply.text(), "thinking": reply.text(0, REASONING)}
    calls = [(call["id"], call["name"], call["arguments"]) for call in reply.tool_calls()]
    received_calls = [
        (block.id, block.name, block.input) for block in received.content if block.type == "tool_use"
    ]
    assert received_calls == [(id, name, orjson.loads(arguments or "{}")) for id, name, arguments in calls]


@each_message
def test_a_genuine_anthropic_stream_is_read_equally_after_encoding(stream: Stream) -> None:
    """The SDK's helper returns the same message."""
    deltas, reply = read(ANTHROPIC, stream.body)
    encoded = body_of(ANTHROPIC, run_of(ANTHROPIC, reply), deltas)
    again, its_reply = read(ANTHROPIC, encoded)
    assert again == deltas
    assert (its_reply.raw_usage, its_reply.metadata) == (reply.raw_usage, reply.metadata)
    theirs, ours = accumulated_by_anthropic(stream.body), accumulated_by_anthropic(encoded)
    # The helper has no class for blocks of a beta, so that pydantic would warn.
    assert ours.model_dump(warnings=False) == theirs.model_dump(warnings=False)


@each_message
def test_a_genuine_anthropic_stream_is_read_by_openais_sdk(stream: Stream) -> None:
    """Calls and counts are the same, and text and reasoning are present."""
    deltas, reply = read(ANTHROPIC, stream.body)
    received = accumulated_by_openai(body_of(CHAT, run_of(ANTHROPIC, reply), deltas))
    message = received.choices[0].message
    assert message.content or reply.text() == ""
    assert getattr(message, "reasoning_content", None) or reply.text(0, REASONING) == ""
    expected = [(call["name"], call["arguments"]) for call in reply.tool_calls()]
    assert called(message) == expected
    spent = reply.raw_usage
    input_tokens = sum(
        spent.get(f"{kind}input_tokens") or 0 for kind in ("", "cache_read_", "cache_creation_")
    )
    assert (received.usage.prompt_tokens, received.usage.completion_tokens) == (
        input_tokens,
        spent["output_tokens"],
    )
