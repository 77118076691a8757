"""`ChatAnthropic`: LangChain's methods over the real SDK, a real socket and a scripted provider."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import anthropic
import pytest

from recorder.callbacks import StreamingStdOutCallbackHandler
from recorder.errors import ConfigError
from recorder.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage, from_any
from recorder.models import ChatAnthropic
from recorder.models.anthropic import DEFAULT_MODEL, limit_of
from recorder.testing import (
    Answer,
    LoopbackProvider,
    anthropic_error_frame,
    anthropic_messages_body,
    anthropic_messages_frames,
    openai_chat_frames,
    scripted,
)
from tests.anthropics import ASK, chat, sdk
from tests.chatting import CALL_STYLES, CallStyle, CountingProvider, Log, history_at, name_of, recorded, runs
from tests.oracle import sql

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)
ways = pytest.mark.parametrize("way", ["invoke", "stream"])
TOOL = {"name": "weather", "description": "Of a city", "input_schema": {"type": "object", "properties": {}}}
OPENAI_TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "Of a city", "parameters": {"type": "object", "properties": {}}},
}  # fmt: skip
CALL: dict[str, Any] = {"id": "toolu_1", "name": "weather", "input": {"city": "Zürich"}}
MANY: dict[str, Any] = {
    "pieces": ["Let me", " see."], "thinking": ["Hm", "m."], "signature": "Eq==", "redacted_thinking": "X==",
    "tool_calls": [CALL],
}  # fmt: skip
BLOCKS = [
    {"type": "thinking", "thinking": "Hmm.", "signature": "Eq=="},
    {"type": "redacted_thinking", "data": "X=="},
    {"type": "text", "text": "Let me see."},
    {"type": "tool_use", **CALL},
]
THINKING = {"type": "enabled", "budget_tokens": 1024}


def sum_of(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    """Return the sum of the chunks."""
    return chunks[0] + chunks[1:]


def answer_of(**fields: Any) -> Any:
    """Return a script that answers with these fields, streamed or not as the request asks."""

    def script(request: dict[str, Any], path: str) -> Answer:
        if request.get("stream"):
            return Answer(frames=anthropic_messages_frames(**fields))
        return Answer(body=anthropic_messages_body(**fields))

    return script


# -- answers ---------------------------------------------------------------------------------------------------


@both
def test_the_sum_of_chunks_has_all_fields(style: CallStyle) -> None:
    """It has content, id, usage, stop reason and model."""
    with LoopbackProvider("Hello there!") as provider:
        chunks = style.stream(chat(provider, model="claude-haiku-4-5"), "Hi")
    assert [chunk.content for chunk in chunks if chunk.content] == ["Hello", " there", "!"]
    answer = sum_of(chunks)
    assert answer.content == "Hello there!"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 3
    assert answer.response_metadata["stop_reason"] == "end_turn"
    assert answer.response_metadata["model_name"] == "claude-haiku-4-5-20251001"
    assert answer.response_metadata["model_provider"] == "anthropic"
    assert {chunk.id for chunk in chunks} == {answer.id}
    assert chunks[-1].chunk_position == "last"


@both
@pytest.mark.parametrize("streaming", [False, True], ids=["complete", "streaming"])
def test_invoke_returns_blocks_text_and_tool_calls(style: CallStyle, streaming: bool) -> None:
    """Content with more than text is a list of blocks; `.text` has the text, and tool calls are parsed."""
    log = Log()
    with LoopbackProvider(answer_of(**MANY)) as provider:
        answer = style.invoke(chat(provider, streaming=streaming, callbacks=[log]), "Hi")
    assert type(answer) is AIMessage
    assert answer.content == BLOCKS
    assert answer.text == "Let me see."
    assert answer.tool_calls == [
        {"name": "weather", "args": {"city": "Zürich"}, "id": "toolu_1", "type": "tool_call"}
    ]
    assert answer.response_metadata["stop_reason"] == "tool_use"
    assert "".join(log.tokens) == ("Let me see." if streaming else "")
    assert provider.requests[0]["body"].get("stream") is (True if streaming else None)


@both
def test_an_answer_of_text_only_is_a_string(style: CallStyle) -> None:
    """The chunks are strings, too, unless the request has tools or thinking, as in LangChain."""
    with LoopbackProvider("Hello!") as provider:
        assert style.invoke(chat(provider), "Hi").content == "Hello!"
        chunks = style.stream(chat(provider).bind_tools([TOOL]), "Hi")
    assert sum_of(chunks).content == [{"type": "text", "text": "Hello!", "index": 0}]
    assert sum_of(chunks).text == "Hello!"


@both
def test_the_sum_of_chunks_is_sent_back_as_the_same_blocks(style: CallStyle) -> None:
    """Thinking, text and tool calls of the sum are equal to those of the message."""
    with LoopbackProvider(answer_of(**MANY)) as provider:
        model = chat(provider, thinking=THINKING).bind_tools([TOOL])
        answer = sum_of(style.stream(model, "Hi"))
        style.invoke(model, ["Hi", answer, ToolMessage("20 °C", tool_call_id="toolu_1")])
    assert answer.text == "Let me see."
    assert [call["args"] for call in answer.tool_calls] == [{"city": "Zürich"}]
    assert provider.requests[1]["body"]["messages"][1] == {"role": "assistant", "content": BLOCKS}


@both
def test_thinking_without_a_request_for_it_leaves_text_chunks_strings(style: CallStyle) -> None:
    """The sum has thinking and text."""
    with LoopbackProvider(answer_of(pieces=["Yes", "."], thinking=["Hm"], signature="Eq==")) as provider:
        chunks = style.stream(chat(provider), "Hi")
    assert [chunk.content for chunk in chunks if isinstance(chunk.content, str) and chunk.content] == [
        "Yes",
        ".",
    ]
    assert sum_of(chunks).text == "Yes."
    assert sum_of(chunks).content[0] == {
        "type": "thinking",
        "thinking": "Hm",
        "signature": "Eq==",
        "index": 0,
    }


@both
def test_a_tool_call_that_was_cut_off_is_invalid(style: CallStyle) -> None:
    """It is in `invalid_tool_calls`, not a call with half of its arguments."""
    call = {**CALL, "input": ['{"city": "Zürich", "street": "Bahnhof']}
    frames = anthropic_messages_frames(tool_calls=[call], stop_reason="max_tokens")
    with LoopbackProvider(Answer(frames=frames)) as provider:
        answer = sum_of(style.stream(chat(provider).bind_tools([TOOL]), "Weather?"))
        message = style.invoke(chat(provider, streaming=True), "Weather?")
    for each in (answer, message):
        assert each.tool_calls == []
        assert each.invalid_tool_calls[0]["args"] == call["input"][0]


@both
@pytest.mark.parametrize("streaming", [False, True], ids=["complete", "streaming"])
def test_generate_returns_one_result_for_each_list(style: CallStyle, streaming: bool) -> None:
    """Results have the order of the lists, and the token usage of all is added."""
    with LoopbackProvider(lambda body, path: "It is " + body["messages"][-1]["content"]) as provider:
        model = chat(provider, model="claude-haiku-4-5", streaming=streaming)
        result = style.generate(model, [["one"], [HumanMessage("two")]])
    assert [choices[0].text for choices in result.generations] == ["It is one", "It is two"]
    assert result.llm_output["token_usage"]["output_tokens"] == 6
    assert result.llm_output["model_name"] == "claude-haiku-4-5-20251001"
    assert result.generations[0][0].generation_info["stop_reason"] == "end_turn"


def test_a_model_can_be_called_as_in_langchains_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    """`ChatAnthropic(streaming=True, callbacks=[...])([HumanMessage(...)])` prints and returns the answer."""
    with LoopbackProvider.song(tokens=5) as provider:
        handler = StreamingStdOutCallbackHandler()
        model = ChatAnthropic(
            streaming=True, callbacks=[handler], temperature=0, base_url=provider.url, api_key="any"
        )  # fmt: skip
        answer = model([HumanMessage(content="Write me a song about sparkling water.")])
    assert capsys.readouterr().out == answer.content
    body = provider.requests[0]["body"]
    assert (body["model"], body["temperature"], body["max_tokens"]) == (DEFAULT_MODEL, 0, 128_000)


def test_events_have_a_start_chunks_and_an_end() -> None:
    """`astream_events` yields the start, one event for each chunk, and the end with the whole answer."""

    async def main(model: ChatAnthropic) -> list[dict[str, Any]]:
        return [event async for event in model.astream_events("Hi", version="v2")]

    with LoopbackProvider("Hello!") as provider:
        events = asyncio.run(main(chat(provider)))
    assert [events[0]["event"], events[-1]["event"]] == ["on_chat_model_start", "on_chat_model_end"]
    assert events[0]["name"] == "ChatAnthropic"
    assert events[-1]["data"]["output"].content == "Hello!"
    assert events[0]["metadata"]["ls_provider"] == "anthropic"


# -- requests ----------------------------------------------------------------------------------------------------


@both
@ways
def test_the_request_has_the_models_options(style: CallStyle, way: str) -> None:
    """Parameters that the SDK has removed go into `extra_body`."""
    with LoopbackProvider("Hello") as provider:
        model = chat(provider, temperature=0.5, top_k=3, top_p=0.9, stop_sequences=["END"])
        getattr(style, way)(model, [SystemMessage("Be brief."), HumanMessage("Hi")])
    (request,) = provider.requests
    expected = {
        "model": DEFAULT_MODEL, "max_tokens": 128_000, "system": "Be brief.", "temperature": 0.5, "top_k": 3,
        "top_p": 0.9, "stop_sequences": ["END"], "messages": [{"role": "user", "content": "Hi"}],
    }  # fmt: skip
    assert request["body"] == expected | ({"stream": True} if way == "stream" else {})
    assert request["path"] == "/v1/messages"


OPTIONS: dict[str, Any] = {
    "metadata": {"user_id": "ann"},
    "service_tier": "auto",
    "tools": [TOOL],
    "tool_choice": {"type": "auto"},
    "thinking": THINKING,
    "temperature": 1,
}


@both
@pytest.mark.parametrize("where", ["model_kwargs", "call", "bind"])
def test_all_options_of_the_anthropic_sdk_pass_through(style: CallStyle, where: str) -> None:
    """Options may be given to the constructor, to the call or to `bind`, with and without a stream."""
    more = OPTIONS if where == "call" else {}
    with LoopbackProvider("Hello") as provider:
        model = chat(provider, **({"model_kwargs": OPTIONS} if where == "model_kwargs" else {}))
        model = model.bind(**OPTIONS) if where == "bind" else model
        style.stream(model, "Hi", **more)
        style.invoke(model, "Hi", **more)
    for request in provider.requests:
        assert {key: request["body"][key] for key in OPTIONS} == OPTIONS


def test_stop_of_a_call_replaces_the_models_stop_sequences() -> None:
    """The metadata of the run contain it."""
    log = Log()
    with LoopbackProvider("Hello") as provider:
        chat(provider, callbacks=[log], stop_sequences=["A"]).invoke("Hi", stop=["B"])
    assert provider.requests[0]["body"]["stop_sequences"] == ["B"]
    ((_, kwargs),) = log.calls_of("on_chat_model_start")
    assert kwargs["metadata"] == {
        "ls_provider": "anthropic", "ls_model_name": DEFAULT_MODEL, "ls_model_type": "chat", "ls_temperature": None,
        "ls_max_tokens": 128_000, "ls_stop": ["B"],
    }  # fmt: skip
    assert kwargs["invocation_params"] == {
        "model": DEFAULT_MODEL,
        "max_tokens": 128_000,
        "stop_sequences": ["B"],
    }


def test_langchains_argument_names_are_accepted_for_anthropic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among them are `model_name`, `anthropic_api_key` (a secret), `anthropic_api_url` and `max_tokens_to_sample`."""

    class Secret:
        def get_secret_value(self) -> str:
            return "hidden"

    with LoopbackProvider("Hello") as provider:
        ChatAnthropic(
            model_name="claude-opus-4-5", anthropic_api_key=Secret(), anthropic_api_url=provider.url,
            max_tokens_to_sample=7, default_request_timeout=5, effort="low", verbose=True,
        ).invoke("Hi")  # fmt: skip
        monkeypatch.setenv("ANTHROPIC_API_KEY", "from the environment")
        monkeypatch.setenv("ANTHROPIC_API_URL", provider.url)
        ChatAnthropic().invoke("Hi", max_tokens=9)
    first, second = provider.requests
    assert (first["body"]["model"], first["body"]["max_tokens"]) == ("claude-opus-4-5", 7)
    assert first["body"]["output_config"] == {"effort": "low"}
    # anthropic 1 sends the key in another header than anthropic 2.
    keys = [each["headers"].get("x-api-key") or each["headers"]["authorization"] for each in (first, second)]
    assert [key.removeprefix("Bearer ") for key in keys] == ["hidden", "from the environment"]
    assert second["body"]["max_tokens"] == 9


def test_the_default_token_limit_equals_langchains() -> None:
    """It depends on the model; unknown models have 4096."""
    profiles = pytest.importorskip("langchain_anthropic.data._profiles")._PROFILES
    assert {name: limit_of(name) for name in profiles} == {
        name: profile.get("max_output_tokens", 4096) for name, profile in profiles.items()
    }
    assert limit_of("claude-0") == 4096


@both
def test_betas_are_sent_in_the_beta_header(style: CallStyle) -> None:
    """The header has the caller's betas and those that Anthropic's own tools need."""
    tool = {"type": "memory_20250818", "name": "memory"}
    with LoopbackProvider("Hello") as provider:
        style.stream(chat(provider, betas=["context-1m-2025-08-07"]).bind_tools([tool]), "Hi")
        style.invoke(chat(provider, betas=["context-1m-2025-08-07"], temperature=1), "Hi")
    first, second = provider.requests
    assert first["headers"]["anthropic-beta"] == "context-1m-2025-08-07,context-management-2025-06-27"
    assert second["headers"]["anthropic-beta"] == "context-1m-2025-08-07"
    assert first["body"]["tools"] == [tool]
    assert second["body"]["temperature"] == 1


@pytest.mark.parametrize(
    ("choice", "sent"),
    [(None, None), (False, None), ("auto", {"type": "auto"}), ("any", {"type": "any"}), (True, {"type": "any"}),
     ("required", {"type": "any"}), ("none", {"type": "none"}), ("weather", {"type": "tool", "name": "weather"}),
     ({"type": "tool", "name": "weather"}, {"type": "tool", "name": "weather"}),
     ({"type": "function", "function": {"name": "weather"}}, {"type": "tool", "name": "weather"})],
    ids=str,
)  # fmt: skip
def test_tool_choice_accepts_langchains_openais_and_anthropics_values(choice: Any, sent: Any) -> None:
    """Tools may be in OpenAI's or Anthropic's form."""
    with LoopbackProvider("Hello") as provider:
        for tool in (TOOL, OPENAI_TOOL, OPENAI_TOOL["function"]):
            chat(provider).bind_tools([tool], tool_choice=choice).invoke("Weather?")
    for request in provider.requests:
        assert request["body"].get("tool_choice") == sent
        assert request["body"]["tools"] == [TOOL]


def test_tools_may_be_strict_and_not_parallel() -> None:
    """While thinking is on, a tool is not forced, and a warning says so."""
    with LoopbackProvider("Hello") as provider:
        chat(provider).bind_tools([TOOL], parallel_tool_calls=False, strict=True).invoke("Weather?")
        with pytest.warns(UserWarning, match="does not allow forcing a tool while thinking is on"):
            chat(provider, thinking=THINKING).bind_tools([TOOL], tool_choice="any").invoke("Weather?")
    first, second = [request["body"] for request in provider.requests]
    assert first["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert first["tools"] == [{**TOOL, "strict": True}]
    assert "tool_choice" not in second


@pytest.mark.parametrize("tool", [7, {"name": "weather"}, {"type": "function"}], ids=str)
def test_an_invalid_tool_is_refused_for_anthropic(tool: Any) -> None:
    """`bind_tools` raises an error that says what to pass."""
    with pytest.raises(ConfigError, match=r"is not a tool; pass .*'input_schema'"):
        ChatAnthropic(api_key="any").bind_tools([tool])


def test_a_large_token_limit_works_without_a_stream() -> None:
    """The bare SDK refuses such a limit without a stream."""
    with LoopbackProvider("Hello") as provider:
        with pytest.raises(ValueError, match="Streaming is required"):
            sdk(provider).messages.create(**{**ASK, "max_tokens": 128_000})
        assert chat(provider).invoke("Hi").content == "Hello"
    assert provider.requests[0]["headers"]["x-stainless-timeout"] == "3600"


def test_the_timeout_option_ends_a_silent_stream() -> None:
    """A provider that stops sending causes the SDK's timeout error."""
    answer = Answer(frames=anthropic_messages_frames(["Hi"]), hang_after=3)
    with LoopbackProvider(answer) as provider, pytest.raises(anthropic.APITimeoutError):
        list(chat(provider, timeout=0.2).stream("Hi"))


# -- errors ------------------------------------------------------------------------------------------------------


@both
@ways
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 529])
def test_http_errors_equal_those_of_the_bare_anthropic_sdk(style: CallStyle, way: str, status: int) -> None:
    """Class, type and message are the same, and handlers receive the error."""
    log = Log()
    with LoopbackProvider(Answer.anthropic_error(status)) as provider:
        with pytest.raises(anthropic.APIStatusError) as expected:
            sdk(provider).messages.create(**ASK)
        with pytest.raises(anthropic.APIStatusError) as caught:
            getattr(style, way)(chat(provider, callbacks=[log]), "Hi")
    assert type(caught.value) is type(expected.value)
    assert str(caught.value) == str(expected.value)
    assert caught.value.type == expected.value.type is not None
    assert caught.value.request_id == expected.value.request_id is not None
    assert log.names[-1] == "llm_error"


@both
def test_an_error_event_raises_the_sdks_error(style: CallStyle) -> None:
    """Handlers receive the partial answer with the error."""
    frames = [
        *anthropic_messages_frames(["Hello", " there"])[:4],
        anthropic_error_frame("Overloaded", "overloaded_error"),
    ]
    log = Log()
    with LoopbackProvider(Answer(frames=frames)) as provider:
        with pytest.raises(anthropic.APIStatusError) as expected:
            list(sdk(provider).messages.create(**ASK, stream=True))
        with pytest.raises(anthropic.APIStatusError) as caught:
            style.stream(chat(provider, callbacks=[log]), "Hi")
    assert type(caught.value) is type(expected.value)
    assert (str(caught.value), caught.value.body) == (str(expected.value), expected.value.body)
    assert (caught.value.status_code, caught.value.type) == (200, "overloaded_error")
    ((_, kwargs),) = log.calls_of("on_llm_error")
    assert kwargs["response"].generations[0][0].text == "Hello"


@both
def test_an_error_or_a_page_with_status_200_raises_an_error(style: CallStyle) -> None:
    """Some gateways send an error, or a login page, with status 200."""
    body = b'{"type":"error","error":{"type":"api_error","message":"Out of order"}}'
    with LoopbackProvider(scripted(Answer(body=body), Answer(body=b"<html>log in</html>"))) as provider:
        with pytest.raises(anthropic.APIStatusError, match="Out of order"):
            style.invoke(chat(provider), "Hi")
        with pytest.raises(anthropic.APIResponseValidationError):
            style.invoke(chat(provider), "Hi")


@both
@ways
def test_a_refused_connection_raises_a_connection_error(style: CallStyle, way: str) -> None:
    """The error is not a timeout."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(anthropic.APIConnectionError) as caught:
            getattr(style, way)(ChatAnthropic(base_url=url, api_key="any", max_retries=0), "Hi")
    assert type(caught.value) is anthropic.APIConnectionError


@both
def test_a_broken_anthropic_stream_raises_the_sdks_error(style: CallStyle) -> None:
    """Handlers received the tokens before it."""
    log = Log()
    answer = Answer(frames=anthropic_messages_frames(["Hello", " there"]), cut_after=4)
    with LoopbackProvider(answer) as provider, pytest.raises(anthropic.APIConnectionError):
        style.stream(chat(provider, callbacks=[log]), "Hi")
    assert "".join(log.tokens) == "Hello"


@both
@ways
def test_a_missing_anthropic_key_raises_the_sdks_error(
    style: CallStyle, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request is sent."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    with LoopbackProvider("Hello") as provider, pytest.raises(TypeError, match="authentication"):
        getattr(style, way)(chat(provider, api_key=None), "Hi")
    assert provider.requests == []


@both
def test_an_unknown_option_raises_the_anthropic_sdks_error(style: CallStyle) -> None:
    """No request is sent."""
    with LoopbackProvider("Hello") as provider, pytest.raises(TypeError, match="temprature"):
        style.invoke(chat(provider), "Hi", temprature=1)
    assert provider.requests == []


@both
def test_a_failed_request_is_retried_by_the_sdk(style: CallStyle) -> None:
    """`max_retries` is the number of retries."""
    script = scripted(Answer.anthropic_error(529, headers={"retry-after-ms": "1"}), "Hello")
    with LoopbackProvider(script) as provider:
        assert style.invoke(chat(provider, max_retries=1), "Hi").content == "Hello"
    assert len(provider.requests) == 2


def test_the_key_of_an_anthropic_model_is_not_shown() -> None:
    """Neither the model's `repr` nor the arguments of handlers contain it."""
    log = Log()
    with LoopbackProvider("Hello") as provider:
        model = chat(provider, api_key="sk-ant-secret", callbacks=[log])
        model.invoke("Hi")
    assert "sk-ant-secret" not in repr(model) + repr(log.events)
    (((serialized, _), _),) = log.calls_of("on_chat_model_start")
    assert serialized["id"] == ["recorder", "models", "anthropic", "ChatAnthropic"]


# -- connections -----------------------------------------------------------------------------------------------


def test_models_reuse_one_connection_per_loop() -> None:
    """Streams and complete answers of all models use one connection on threads, and one on a loop."""

    async def main(provider: LoopbackProvider) -> None:
        for _ in range(3):
            assert [chunk.text async for chunk in chat(provider).astream("Hi") if chunk.text] == ["Hello"]
            await chat(provider).ainvoke("Hi")

    with CountingProvider("Hello") as provider:
        for _ in range(3):
            list(chat(provider).stream("Hi"))
            chat(provider).invoke("Hi")
        assert provider.connections == 1
        asyncio.run(main(provider))
    assert provider.connections == 2


def test_the_callers_http_client_is_used_for_anthropic() -> None:
    """It is not closed by the model."""
    seen: list[str] = []
    hooks = {"request": [lambda request: seen.append(request.url.path)]}
    with LoopbackProvider("Hello") as provider, anthropic.DefaultHttpxClient(event_hooks=hooks) as http:
        assert chat(provider, http_client=http).invoke("Hi").content == "Hello"
        assert not http.is_closed
    assert seen == ["/v1/messages"]


@both
def test_a_response_in_openais_format_is_undecodable(style: CallStyle) -> None:
    """The answer is empty, and its bytes are stored as `undecodable`."""
    with LoopbackProvider(Answer(frames=openai_chat_frames(["Hi"]))) as provider:
        answer = sum_of(style.stream(chat(provider), "Hi"))
    assert answer.text == ""
    assert "undecodable" in answer.additional_kwargs


# -- what is stored --------------------------------------------------------------------------------------------


@both
def test_a_stream_without_event_names_is_recorded(style: CallStyle, tmp_path: Path) -> None:
    """Some servers omit the names; the bare SDK yields nothing then."""
    frames = [frame[frame.index(b"data:") :] for frame in anthropic_messages_frames(["Hello", " there!"])]
    with LoopbackProvider(Answer(frames=frames)) as provider, history_at(tmp_path) as history:
        style.stream(chat(provider, callbacks=[history]), "Hi")
    found = recorded(history.recorder.url)
    assert found.transcript == [("user", "Hi"), ("assistant", "Hello there!")]
    assert found.run["status"] == "complete"
    assert found.body == b"".join(frames)


@both
@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Answer(frames=anthropic_messages_frames(["Hello", " there"])[:4]), "interrupted"),
        (Answer(frames=anthropic_messages_frames(["Hello"], stop_reason="max_tokens")), "incomplete"),
        (Answer(frames=anthropic_messages_frames(["Hello"], stop_reason="refusal")), "incomplete"),
        (Answer(frames=anthropic_messages_frames(["Hello"], stop_reason="pause_turn")), "complete"),
    ],
    ids=["ends in the middle", "a limit", "a refusal", "a pause"],
)
def test_the_stop_reason_decides_the_status_of_the_run(
    style: CallStyle, answer: Answer, status: str, tmp_path: Path
) -> None:
    """The partial answer is stored, with the input tokens that are known from the start."""
    with LoopbackProvider(answer) as provider, history_at(tmp_path) as history:
        style.stream(chat(provider, callbacks=[history]), "Hi")
    found = recorded(history.recorder.url)
    assert found.run["status"] == status
    assert found.transcript[-1] == ("assistant", "Hello")
    assert found.run["input_tokens"] == 14


def as_ours(answer: AIMessage) -> list[Any]:
    """Return the reply and the tool's result as messages of recorder."""
    return [answer, ToolMessage("20 °C", tool_call_id="toolu_1")]


def as_dicts(answer: AIMessage) -> list[Any]:
    """Return them as Anthropic's users write them: blocks, and the result inside of the user's message."""
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "20 °C"}
    return [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]


def as_langchain(answer: AIMessage) -> list[Any]:
    """Return them as LangChain's messages."""
    messages = pytest.importorskip("langchain_core.messages")
    content = [{**block, "index": at} for at, block in enumerate(answer.content)]
    reply = messages.AIMessage(content, tool_calls=answer.tool_calls, id="lc_run--1")
    return [reply, messages.ToolMessage("20 °C", tool_call_id="toolu_1", name="weather")]


def as_its_sdk(answer: AIMessage) -> list[Any]:
    """Return the reply as the SDK's message object."""
    body = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": answer.content,
        "stop_reason": "tool_use", "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
    }  # fmt: skip
    return [anthropic.types.Message.model_validate(body), as_dicts(answer)[1]]


def without_thinking(answer: AIMessage) -> list[Any]:
    """Return them as a client that drops thinking and writes tool arguments as JSON of its own."""
    function = {"name": "weather", "arguments": '{ "city" : "Zürich" }'}
    call = {"id": "toolu_1", "type": "function", "function": function}
    return [
        {"role": "assistant", "content": answer.text.rstrip(), "tool_calls": [call]},
        *as_ours(answer)[1:],
    ]


@both
@pytest.mark.parametrize("form", [as_ours, as_dicts, as_langchain, as_its_sdk, without_thinking])
def test_a_conversation_with_a_tool_is_stored_once(style: CallStyle, form: Any, tmp_path: Path) -> None:
    """Each message is stored once, although the client sends the history back in a form of its own."""
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "Z"}}
    frames = anthropic_messages_frames(**MANY, blocks=[search])
    script = scripted(Answer(frames=frames), Answer(frames=anthropic_messages_frames(["Sunny."])), "Bye")
    with LoopbackProvider(script) as provider, history_at(tmp_path, conversation_id="c") as history:
        model = chat(provider, streaming=True, thinking=THINKING, callbacks=[history]).bind_tools([TOOL])
        first = style.invoke(model, [SystemMessage("Be brief."), HumanMessage("Weather?")])
        given: list[Any] = [("system", "Be brief."), ("user", "Weather?"), *form(first)]
        second = style.invoke(model, given)
        style.invoke(model, [*given, second, "Thanks"])
    url = history.recorder.url
    rows = sql(url, "SELECT role, content, branch FROM transcripts ORDER BY position, branch")
    assert [row[:2] for row in rows] == [
        ("system", "Be brief."), ("user", "Weather?"), ("assistant", "Let me see."), ("tool", "20 °C"),
        ("assistant", "Sunny."), ("user", "Thanks"), ("assistant", "Bye"),
    ]  # fmt: skip
    assert {row[2] for row in rows} == {1}
    assert [run["status"] for run in runs(url)] == ["complete"] * 3
    ((parts,),) = sql(url, "SELECT parts FROM messages WHERE content = 'Let me see.'")
    assert json.loads(parts)["content"] == [*BLOCKS, search]


def test_a_sum_of_chunks_is_recognized_as_the_stored_message(tmp_path: Path) -> None:
    """An application that streams sends back the sum of its chunks."""
    script = scripted(Answer(frames=anthropic_messages_frames(**MANY)), "Sunny.")
    with LoopbackProvider(script) as provider, history_at(tmp_path, conversation_id="c") as history:
        model = chat(provider, thinking=THINKING, callbacks=[history]).bind_tools([TOOL])
        answer = sum_of(list(model.stream("Weather?")))
        list(model.stream(["Weather?", answer, ToolMessage("20 °C", tool_call_id="toolu_1")]))
    rows = sql(history.recorder.url, "SELECT role FROM transcripts ORDER BY position, branch")
    assert rows == [("user",), ("assistant",), ("tool",), ("assistant",)]


def test_tool_results_in_the_users_message_become_tool_messages() -> None:
    """Each result is a message of its own, and the user's text follows them; the request is unchanged."""
    log = Log()
    results = [
        {"type": "text", "text": "Well?"},
        {"type": "tool_result", "tool_use_id": "a", "content": "1"},
        {
            "type": "tool_result",
            "tool_use_id": "b",
            "content": [{"type": "text", "text": "2"}],
            "is_error": True,
        },
    ]
    calls: list[Any] = [{"type": "tool_use", "id": id, "name": "f", "input": {}} for id in ("a", "b")]
    with LoopbackProvider("Hello") as provider:
        given = ["Hi", {"role": "assistant", "content": calls}, {"role": "user", "content": results}]
        chat(provider, callbacks=[log]).invoke(given)
    new = [args[0] for args, _ in log.calls_of("on_chat_new_message")]
    assert [(message.role, message.text) for message in new] == [
        ("tool", "1"), ("tool", "2"), ("user", "Well?"), ("assistant", "Hello")
    ]  # fmt: skip
    assert [message.status for message in new[:2]] == ["success", "error"]
    assert provider.requests[0]["body"]["messages"][2]["content"] == results
    assert from_any(given[2]).content == results
