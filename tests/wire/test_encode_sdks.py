"""The genuine SDKs take what is encoded, over a socket, and make of it what they make of the provider's own bytes."""

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
    anthropic_client,
    body_of,
    genuine,
    heard_by_anthropic,
    heard_by_openai,
    openai_client,
    read,
    run_of,
    serving,
    timed,
)
from tests.genuine import MISSING, Stream, name_of

#: A run of OpenAI's that says a bit of everything, and one of Anthropic's.
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
#: Both, to be told in any format.
RUNS = pytest.mark.parametrize(
    ("run", "deltas"), [(CHAT_RUN, CHAT_DELTAS), (MESSAGE_RUN, MESSAGE_DELTAS)], ids=["chat", "message"]
)


def called(message: Any) -> list[tuple[str, str]]:
    """Names and arguments of a chat message's calls."""
    return [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]


# -- any run to any client -------------------------------------------------------------------------------------


@RUNS
def test_openais_helper_hears_any_run(run: Recorded, deltas: list[Delta]) -> None:
    """Text, reasoning, calls, the finish reason, usage; all of it, whoever said it first."""
    heard = heard_by_openai(body_of(CHAT, run, deltas))
    choice = heard.choices[0]
    assert (heard.id, heard.model) == (run.response_id, run.model)
    assert choice.message.content == "It is warm."
    assert choice.message.reasoning_content == "Let me see."
    assert called(choice.message) == [("weather", '{"city":"Rome"}'), ("time", "")]
    assert [call.id for call in choice.message.tool_calls] == [
        delta.text.split('"')[3] for delta in deltas if delta.kind == TOOL_CALL
    ]
    assert choice.finish_reason == "tool_calls"
    assert (heard.usage.prompt_tokens, heard.usage.completion_tokens, heard.usage.total_tokens) == (9, 5, 14)
    assert heard.usage.prompt_tokens_details.cached_tokens == 4


def test_openais_helper_hears_every_choice() -> None:
    """The second has a text of its own, a refusal and another end."""
    second = heard_by_openai(body_of(CHAT, CHAT_RUN, CHAT_DELTAS)).choices[1]
    assert (second.message.content, second.message.refusal, second.finish_reason) == (
        "here.",
        "I can't",
        "stop",
    )


@RUNS
def test_anthropics_helper_hears_any_run(run: Recorded, deltas: list[Delta]) -> None:
    """The same as blocks, with the stop reason and the counts in its words."""
    heard = heard_by_anthropic(body_of(ANTHROPIC, run, deltas))
    thinking, text, weather, time = heard.content
    assert (heard.id, heard.model, heard.role, heard.type) == (
        run.response_id,
        run.model,
        "assistant",
        "message",
    )
    assert (thinking.type, thinking.thinking) == ("thinking", "Let me see.")
    assert (text.type, text.text) == ("text", "It is warm.")
    assert (weather.type, weather.name, weather.input) == ("tool_use", "weather", {"city": "Rome"})
    assert (time.type, time.name, time.input) == ("tool_use", "time", {})
    assert heard.stop_reason == "tool_use"
    spent = heard.usage
    assert (spent.input_tokens, spent.cache_read_input_tokens, spent.output_tokens) == (5, 4, 5)


@RUNS
def test_a_legacy_client_hears_the_text_of_any_run(run: Recorded, deltas: list[Delta]) -> None:
    """Streamed and whole."""
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
        heard = client.completions.create(model="m", prompt="Hi")
    assert heard.choices[0].text == "It is warm."
    assert heard.usage is not None
    assert heard.usage.total_tokens == 14


@RUNS
def test_whole_answers_say_the_same(run: Recorded, deltas: list[Delta]) -> None:
    """A client that does not stream gets one body."""
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
    streamed = heard_by_anthropic(body_of(ANTHROPIC, run, deltas))
    # The helper's blocks have a key more.
    assert [block.to_dict() for block in message.content] == [
        {key: value for key, value in block.to_dict().items() if key != "parsed_output"}
        for block in streamed.content
    ]
    assert (message.stop_reason, message.usage.output_tokens) == ("tool_use", 5)


@RUNS
def test_asynchronous_clients_hear_the_same(run: Recorded, deltas: list[Delta]) -> None:
    """On an event loop, with the helpers of both."""

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

    assert asyncio.run(openais()) == heard_by_openai(body_of(CHAT, run, deltas))
    assert asyncio.run(anthropics()) == heard_by_anthropic(body_of(ANTHROPIC, run, deltas))


def test_a_client_that_did_not_ask_for_usage_gets_choices_in_every_event() -> None:
    """A naive loop takes the first of each."""
    run = Recorded(wire=CHAT, usage={"prompt_tokens": 1}, include_usage=False)
    with (
        serving(body_of(CHAT, run, [Delta("Hi")])) as provider,
        openai_client(provider) as client,
        client.chat.completions.create(**ASK_OPENAI, stream=True) as stream,
    ):
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hi"


# -- errors ----------------------------------------------------------------------------------------------------


@RUNS
def test_an_error_in_the_stream_is_raised_by_the_sdks(run: Recorded, deltas: list[Delta]) -> None:
    """With what had come before, in the words of each."""
    failure = Failure("Overloaded", "anthropic.OverloadedError")
    failed = Recorded(wire=run.wire, response_id="r", model="m", failure=failure)
    heard = chat_heard(body_of(CHAT, failed, deltas))
    assert (heard["choices"][0]["text"], heard["error"]) == ("It is warm.", "Overloaded")
    with pytest.raises(anthropic.APIStatusError, match="Overloaded") as refused:
        heard_by_anthropic(body_of(ANTHROPIC, failed, deltas))
    assert refused.value.body == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "Overloaded"},
    }


# -- what real providers sent ------------------------------------------------------------------------------------

_ABSENT = [pytest.param(None, marks=pytest.mark.skip(reason=MISSING), id="none")]
each_chat = pytest.mark.parametrize(
    "stream", genuine(CHAT) or _ABSENT, ids=name_of if genuine(CHAT) else None
)
each_message = pytest.mark.parametrize(
    "stream", genuine(ANTHROPIC) or _ABSENT, ids=name_of if genuine(ANTHROPIC) else None
)


def chat_heard(stream: bytes) -> dict[str, Any]:
    """What the SDK says of each choice of a stream, and of its usage; an error, and all before."""
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
            kept = known["calls"].setdefault(call.index, ["", "", ""])
            function = call.function
            kept[0] = kept[0] or call.id or ""
            kept[1] = kept[1] or (function and function.name) or ""
            kept[2] += (function and function.arguments) or ""


@pytest.mark.matrix
@each_chat
def test_a_genuine_chat_is_heard_as_it_was(stream: Stream) -> None:
    """Decoded, encoded, and heard by the SDK: text, reasoning, refusal, calls, ends, usage, error."""
    deltas, reply = read(CHAT, stream.body)
    encoded = body_of(CHAT, run_of(CHAT, reply), deltas)
    again, _ = read(CHAT, encoded)
    assert again == deltas
    theirs, ours = chat_heard(stream.body), chat_heard(encoded)
    if theirs["error"] is not None:
        theirs["usage"] = ours["usage"]  # the event of the error may tell it, which the SDK does not pass on
        theirs["id"], theirs["model"] = theirs["id"] or ours["id"], theirs["model"] or ours["model"]
        ours["choices"] = {number: ours["choices"][number] for number in theirs["choices"]}
        for number, choice in theirs["choices"].items():
            choice["finish_reason"] = ours["choices"][number]["finish_reason"]
    assert ours == theirs


@pytest.mark.matrix
@each_chat
def test_a_genuine_chat_is_heard_by_anthropics_sdk(stream: Stream) -> None:
    """The same text, reasoning and calls, in blocks."""
    deltas, reply = read(CHAT, stream.body)
    encoded = body_of(ANTHROPIC, run_of(CHAT, reply), deltas)
    if reply.error is not None:
        with pytest.raises(anthropic.APIStatusError):
            heard_by_anthropic(encoded)
        return
    heard = heard_by_anthropic(encoded)
    message = {
        kind: "".join(getattr(block, kind, "") for block in heard.content) for kind in ("text", "thinking")
    }
    assert message == {"text": reply.text(), "thinking": reply.text(0, REASONING)}
    calls = [(call["id"], call["name"], call["arguments"]) for call in reply.tool_calls()]
    heard_calls = [(block.id, block.name, block.input) for block in heard.content if block.type == "tool_use"]
    assert heard_calls == [(id, name, orjson.loads(arguments or "{}")) for id, name, arguments in calls]


@each_message
def test_a_genuine_message_is_heard_as_it_was(stream: Stream) -> None:
    """Decoded, encoded, and heard by the SDK's helper: the same message."""
    deltas, reply = read(ANTHROPIC, stream.body)
    encoded = body_of(ANTHROPIC, run_of(ANTHROPIC, reply), deltas)
    again, its_reply = read(ANTHROPIC, encoded)
    assert again == deltas
    assert (its_reply.raw_usage, its_reply.metadata) == (reply.raw_usage, reply.metadata)
    theirs, ours = heard_by_anthropic(stream.body), heard_by_anthropic(encoded)
    # Blocks of a beta are none that the helper has a class for.
    assert ours.model_dump(warnings=False) == theirs.model_dump(warnings=False)


@each_message
def test_a_genuine_message_is_heard_by_openais_sdk(stream: Stream) -> None:
    """Text, reasoning, calls, and the counts in its words."""
    deltas, reply = read(ANTHROPIC, stream.body)
    heard = heard_by_openai(body_of(CHAT, run_of(ANTHROPIC, reply), deltas))
    message = heard.choices[0].message
    assert message.content or reply.text() == ""
    assert getattr(message, "reasoning_content", None) or reply.text(0, REASONING) == ""
    expected = [(call["name"], call["arguments"]) for call in reply.tool_calls()]
    assert called(message) == expected
    spent = reply.raw_usage
    input_tokens = sum(
        spent.get(f"{kind}input_tokens") or 0 for kind in ("", "cache_read_", "cache_creation_")
    )
    assert (heard.usage.prompt_tokens, heard.usage.completion_tokens) == (
        input_tokens,
        spent["output_tokens"],
    )
