"""`ChatOpenAI`: LangChain's methods over the real SDK, a real socket and a scripted provider."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import Any
from uuid import UUID, uuid4

import openai
import pytest

from recorder.callbacks import BaseCallbackHandler
from recorder.errors import ConfigError
from recorder.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from recorder.models import ChatOpenAI
from recorder.testing import Answer, LoopbackProvider, openai_chat_body, openai_chat_frames, scripted
from tests.chatting import ASK, CALL_STYLES, CallStyle, Log, chat, name_of, sdk

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"id": "call_1", "name": "weather", "arguments": '{"city": "Zürich"}'}
USAGE = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}


def sum_of(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    """Return the sum of the chunks."""
    return chunks[0] + chunks[1:]


# -- answers ---------------------------------------------------------------------------------------------------


@both
def test_the_sum_of_openai_chunks_has_all_fields(style: CallStyle) -> None:
    """It has content, id, usage, finish reason and model."""
    with LoopbackProvider("Hello there!") as provider:
        chunks = style.stream(chat(provider), "Hi")
    assert [chunk.content for chunk in chunks if chunk.content] == ["Hello", " there", "!"]
    answer = sum_of(chunks)
    assert answer.content == "Hello there!"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 3
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.response_metadata["model_name"] == "gpt-4o-2024-08-06"
    assert {chunk.id for chunk in chunks} == {answer.id}
    assert chunks[-1].chunk_position == "last"


@both
def test_invoke_returns_the_final_message(style: CallStyle) -> None:
    """The request has no stream."""
    run_id = uuid4()
    with LoopbackProvider("Hello there!") as provider:
        answer = style.invoke(chat(provider), "Hi", {"run_id": run_id})
    assert type(answer) is AIMessage
    assert (answer.content, answer.id) == ("Hello there!", f"run-{run_id}")
    assert answer.usage_metadata is not None
    assert answer.response_metadata["token_usage"]["total_tokens"] == answer.usage_metadata["total_tokens"]
    assert answer.response_metadata["id"].startswith("chatcmpl-")
    assert "stream" not in provider.requests[0]["body"]


@both
@pytest.mark.parametrize("streaming", [False, True], ids=["complete", "streaming"])
def test_callbacks_receive_tokens_of_invoke_with_streaming(style: CallStyle, streaming: bool) -> None:
    """With `streaming=True` tokens are passed on as they arrive; the answer is the same."""
    log = Log()
    with LoopbackProvider("Hello there!") as provider:
        answer = style.invoke(chat(provider, streaming=streaming, callbacks=[log]), "Hi")
    assert answer.content == "Hello there!"
    assert "".join(log.tokens) == ("Hello there!" if streaming else "")
    tokens = ["llm_new_token"] if streaming else []
    assert log.names == ["chat_model_start", "chat_new_message", *tokens, "chat_new_message", "llm_end"]


@both
def test_streamed_and_complete_tool_calls_are_equal(style: CallStyle) -> None:
    """The pieces add up to the call of the complete answer."""
    frames = openai_chat_frames([], tool_calls=[CALL])
    body = openai_chat_body([], tool_calls=[CALL])
    answers = scripted(Answer(frames=frames), Answer(body=body))
    with LoopbackProvider(answers) as provider:
        model = chat(provider).bind_tools([TOOL], tool_choice="weather")
        streamed = sum_of(style.stream(model, "Weather?"))
        answer = style.invoke(model, "Weather?")
    expected = [{"name": "weather", "args": {"city": "Zürich"}, "id": "call_1", "type": "tool_call"}]
    assert streamed.tool_calls == answer.tool_calls == expected
    assert streamed.response_metadata["finish_reason"] == "tool_calls"
    assert provider.requests[0]["body"]["tools"] == [TOOL]
    assert provider.requests[0]["body"]["tool_choice"] == {
        "type": "function",
        "function": {"name": "weather"},
    }


@pytest.mark.parametrize(
    ("choice", "sent"),
    [(None, None), (False, None), ("auto", "auto"), ("any", "required"), (True, "required"), ("none", "none"),
     ("weather", {"type": "function", "function": {"name": "weather"}})],
)  # fmt: skip
def test_tool_choice_accepts_langchains_and_openais_values(choice: Any, sent: Any) -> None:
    """LangChain's values are translated to those of the API."""
    with LoopbackProvider("Hello") as provider:
        chat(provider).bind_tools([TOOL], tool_choice=choice).invoke("Weather?")
    assert provider.requests[0]["body"].get("tool_choice") == sent


def test_a_number_is_refused_as_a_tool() -> None:
    """The error says what to pass."""
    with pytest.raises(ConfigError, match=r"7 is not a tool; pass a function, .*'type': 'function'"):
        ChatOpenAI(api_key="any").bind_tools([7])


@both
def test_an_openai_tool_call_that_was_cut_off_is_invalid(style: CallStyle) -> None:
    """It is in `invalid_tool_calls`, not a call with half of its arguments."""
    call = {**CALL, "arguments": ['{"city": "Zürich", "street": "Bahnhof']}
    frames = openai_chat_frames([], tool_calls=[call], finish_reason="length")
    with LoopbackProvider(Answer(frames=frames)) as provider:
        answer = sum_of(style.stream(chat(provider), "Weather?"))
    assert answer.tool_calls == []
    assert answer.invalid_tool_calls[0]["args"] == call["arguments"][0]


@both
def test_generate_gives_each_list_its_own_run(style: CallStyle) -> None:
    """Results have the order of the lists, each list is a run, and the token usage of all is added."""
    log = Log()
    with LoopbackProvider(lambda body, path: "It is " + body["messages"][-1]["content"]) as provider:
        result = style.generate(
            chat(provider, callbacks=[log]), [[HumanMessage("one")], [("user", "two")], ["three"]]
        )
    assert [choices[0].text for choices in result.generations] == ["It is one", "It is two", "It is three"]
    counts = [choices[0].message.usage_metadata["total_tokens"] for choices in result.generations]
    assert result.llm_output["token_usage"]["total_tokens"] == sum(counts)
    started = {kwargs["run_id"] for _, kwargs in log.calls_of("on_chat_model_start")}
    assert {info.run_id for info in result.run} == started
    assert len(started) == 3


@both
def test_generate_returns_the_usage_of_streams(style: CallStyle) -> None:
    """LangChain's documentation says that `token_usage` is not supported with streaming."""
    with LoopbackProvider("Hello there!") as provider:
        result = style.generate(chat(provider, streaming=True), [[HumanMessage("Hi")], [HumanMessage("Hi")]])
    usage = result.llm_output["token_usage"]
    assert usage["completion_tokens"] == 6
    assert usage["total_tokens"] == usage["prompt_tokens"] + 6
    assert result.llm_output["model_name"] == "gpt-4o-2024-08-06"
    assert result.generations[0][0].generation_info["finish_reason"] == "stop"


@both
@pytest.mark.parametrize("streaming", [False, True], ids=["complete", "streaming"])
def test_several_choices_are_several_generations(style: CallStyle, streaming: bool) -> None:
    """With `n=2` both texts are returned with ids of their own; `invoke` returns the first one."""
    frames = openai_chat_frames([["a", "b"], ["c", "d"]], n=2)
    body = openai_chat_body([["a", "b"], ["c", "d"]], n=2)

    def script(request: dict[str, Any], path: str) -> Answer:
        assert request["n"] == 2
        return Answer(frames=frames) if request.get("stream") else Answer(body=body)

    with LoopbackProvider(script) as provider:
        model = chat(provider, streaming=streaming, n=2)
        result = style.generate(model, [["Hi"]])
        assert style.invoke(model, "Hi").content == "ab"
    (choices,) = result.generations
    assert [choice.text for choice in choices] == ["ab", "cd"]
    assert choices[0].message.id + "-1" == choices[1].message.id


def test_a_stream_of_several_choices_yields_the_first() -> None:
    """Chunks of two answers are not mixed; the frames contain both."""
    frames = openai_chat_frames([["a", "b"], ["c", "d"]], n=2)
    with LoopbackProvider(Answer(frames=frames)) as provider:
        assert sum_of(list(chat(provider, n=2).stream("Hi"))).content == "ab"


def test_a_model_can_be_called() -> None:
    """`chat(messages, stop, callbacks)` works as in old versions of LangChain."""
    log = Log()
    with LoopbackProvider("Hello there!") as provider:
        answer = chat(provider)([HumanMessage("Hi")], ["\n"], [log])
    assert answer.content == "Hello there!"
    assert provider.requests[0]["body"]["stop"] == ["\n"]
    assert log.names[-1] == "llm_end"


@both
def test_reasoning_and_all_characters_are_returned(style: CallStyle) -> None:
    """Reasoning is in `additional_kwargs`; all characters are unchanged, also half of a surrogate pair."""
    text = ["Zürich", " 🎈", "中文", "\u2028", "\ud83d", "\x00", '"\\']
    frames = openai_chat_frames(text, reasoning=["Hm", "m."])
    with LoopbackProvider(Answer(frames=frames, chunks=3)) as provider:
        answer = sum_of(style.stream(chat(provider), "Ü 🎈?"))
    assert answer.content == "".join(text)
    assert answer.additional_kwargs["reasoning_content"] == "Hmm."


@both
@pytest.mark.filterwarnings(
    "ignore:Sending a large body:ResourceWarning"
)  # raised by aiohttp because of the SDK
def test_a_prompt_of_two_megabytes_is_sent(style: CallStyle) -> None:
    """The provider receives the whole prompt."""
    with LoopbackProvider(lambda body, path: str(len(body["messages"][0]["content"]))) as provider:
        assert style.invoke(chat(provider), "x" * 2**21).content == str(2**21)


def test_an_answer_after_blank_lines_is_read() -> None:
    """Some providers send blank lines before a complete answer."""
    with LoopbackProvider(Answer(body=b"\n\n  \n" + openai_chat_body(["Hi"]))) as provider:
        assert chat(provider).invoke("Hi").content == "Hi"


@both
def test_a_web_page_with_status_200_raises_the_sdks_error(style: CallStyle) -> None:
    """A proxy's login page is not an empty message."""
    page = Answer(body=b"<html>Please log in</html>", headers={"content-type": "text/html"})
    log = Log()
    with LoopbackProvider(page) as provider, pytest.raises(openai.APIResponseValidationError) as caught:
        style.invoke(chat(provider, callbacks=[log]), "Hi")
    assert "log in" in str(caught.value.body)
    assert log.names[-1] == "llm_error"


# -- input -----------------------------------------------------------------------------------------------------


def langchain_messages() -> Any:
    """Return LangChain's message objects."""
    messages = pytest.importorskip("langchain_core.messages")
    return [messages.SystemMessage("Be brief."), messages.HumanMessage("Hi")]


def langchain_prompt() -> Any:
    """Return LangChain's prompt value."""
    prompts = pytest.importorskip("langchain_core.prompt_values")
    return prompts.ChatPromptValue(messages=langchain_messages())


PAIR = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("Hi", PAIR[1:]),
        (HumanMessage("Hi"), PAIR[1:]),
        (["Hi"], PAIR[1:]),
        ([SystemMessage("Be brief."), HumanMessage("Hi")], PAIR),
        ((SystemMessage("Be brief."), HumanMessage("Hi")), PAIR),
        ([("system", "Be brief."), ("human", "Hi")], PAIR),
        (PAIR, PAIR),
        ([{"role": "system", "content": "Be brief."}, {"role": "human", "content": "Hi"}], PAIR),
        ([{"type": "system", "content": "Be brief."}, {"type": "human", "content": "Hi"}], PAIR),
        (langchain_messages, PAIR),
        (langchain_prompt, PAIR),
    ],
    ids=["text", "message", "texts", "messages", "tuple", "pairs", "openai", "roles", "types", "langchain", "prompt"],
)  # fmt: skip
def test_all_kinds_of_input_make_the_same_request(given: Any, sent: list[dict[str, Any]]) -> None:
    """Callbacks receive messages of `recorder.messages`."""
    log = Log()
    given = given() if callable(given) else given
    with LoopbackProvider("Hello") as provider:
        chat(provider, callbacks=[log]).invoke(given)
    assert provider.requests[0]["body"]["messages"] == sent
    (((_, [messages]), _),) = log.calls_of("on_chat_model_start")
    assert [{"role": message.role, "content": message.content} for message in messages] == sent


@pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)
def test_an_invalid_input_is_refused(style: CallStyle) -> None:
    """The error names the input and the accepted kinds, and no request is sent."""
    with LoopbackProvider("Hello") as provider:
        model = chat(provider)
        for way in (style.invoke, style.stream):
            with pytest.raises(ConfigError, match="cannot read a message from object"):
                way(model, [object()])
    assert provider.requests == []


def test_a_reply_with_a_tool_call_can_be_sent_back() -> None:
    """The request has the call and the tool's result in the API's form."""
    frames = openai_chat_frames([], tool_calls=[CALL])
    with LoopbackProvider(scripted(Answer(frames=frames), "Sunny.")) as provider:
        model = chat(provider)
        reply = sum_of(list(model.stream("Weather?")))
        model.invoke([HumanMessage("Weather?"), reply, ToolMessage("20 °C", tool_call_id="call_1")])
    _, assistant, tool = provider.requests[1]["body"]["messages"]
    assert assistant["tool_calls"][0]["id"] == "call_1"
    assert assistant["tool_calls"][0]["function"]["name"] == "weather"
    assert assistant["content"] is None
    assert tool == {"role": "tool", "content": "20 °C", "tool_call_id": "call_1"}


# -- options ---------------------------------------------------------------------------------------------------

OPTIONS: dict[str, Any] = {
    "temperature": 0.5,
    "seed": 7,
    "stop": ["END"],
    "response_format": {"type": "json_object"},
    "tools": [TOOL],
    "logit_bias": {"50256": -100},
    "reasoning_effort": "low",
    "max_completion_tokens": 10,
    "user": "ann",
}


@both
@pytest.mark.parametrize("where", ["constructor", "model_kwargs", "call", "bind"])
def test_all_options_of_the_openai_sdk_pass_through(style: CallStyle, where: str) -> None:
    """Options may be given to the constructor, to the call or to `bind`, with and without a stream."""
    more = OPTIONS if where == "call" else {}
    with LoopbackProvider("Hello") as provider:
        if where == "constructor":
            model = chat(provider, **OPTIONS)
        elif where == "model_kwargs":
            model = chat(provider, model_kwargs=OPTIONS)
        elif where == "bind":
            model = chat(provider).bind(**OPTIONS)
        else:
            model = chat(provider, temperature=1)
        style.stream(model, "Hi", **more)
        style.invoke(model, "Hi", **more)
    for request in provider.requests:
        assert {key: request["body"][key] for key in OPTIONS} == OPTIONS
    streamed, plain = [request["body"] for request in provider.requests]
    assert streamed.keys() - plain.keys() == {"stream", "stream_options"}


@both
def test_extra_body_headers_and_query_are_sent(style: CallStyle) -> None:
    """Handlers do not receive the headers."""
    log = Log()
    with LoopbackProvider("Hello") as provider:
        model = chat(provider, extra_body={"top_k": 3}, default_headers={"x-team": "blue"}, callbacks=[log])
        style.invoke(model, "Hi", extra_headers={"x-secret": "s3cret"}, extra_query={"v": "2"})
    (request,) = provider.requests
    assert request["body"]["top_k"] == 3
    assert (request["headers"]["x-team"], request["headers"]["x-secret"]) == ("blue", "s3cret")
    assert request["path"].endswith("?v=2")
    assert "s3cret" not in repr(log.events)


def test_langchains_argument_names_are_accepted_for_openai() -> None:
    """`model_name`, `openai_api_key`, `openai_api_base`, `request_timeout` and a secret string work."""

    class Secret:
        def get_secret_value(self) -> str:
            return "hidden"

    with LoopbackProvider("Hello") as provider:
        ChatOpenAI(
            model_name="gpt-4.1", openai_api_key=Secret(), openai_api_base=provider.base_url, request_timeout=5,
            openai_organization="org-1", stop_sequences=["END"], verbose=True,
        ).invoke("Hi")  # fmt: skip
    (request,) = provider.requests
    assert request["body"]["model"] == "gpt-4.1"
    assert request["headers"]["authorization"] == "Bearer hidden"
    assert request["headers"]["openai-organization"] == "org-1"
    assert request["body"].keys() == {"model", "messages", "stop"}


def test_key_and_url_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model reads the SDK's `OPENAI_API_KEY` and LangChain's `OPENAI_API_BASE`."""
    with LoopbackProvider("Hello") as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "from the environment")
        monkeypatch.setenv("OPENAI_API_BASE", provider.base_url)
        assert ChatOpenAI().invoke("Hi").content == "Hello"
    (request,) = provider.requests
    assert request["headers"]["authorization"] == "Bearer from the environment"
    assert request["body"]["model"] == "gpt-5.4-mini"


def test_a_stream_requests_usage_unless_stream_usage_is_false() -> None:
    """`stream_usage=False` is for providers that refuse `stream_options`."""
    with LoopbackProvider("Hello") as provider:
        list(chat(provider).stream("Hi", stream_options={"include_obfuscation": False}))
        list(chat(provider, stream_usage=False).stream("Hi"))
    first, second = [request["body"] for request in provider.requests]
    assert first["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert "stream_options" not in second


def test_invoke_with_stream_true_streams_to_the_callbacks() -> None:
    """`invoke(..., stream=True)` returns the whole answer."""
    log = Log()
    with LoopbackProvider("Hello there!") as provider:
        answer = chat(provider, callbacks=[log]).invoke("Hi", stream=True)
    assert answer.content == "".join(log.tokens) == "Hello there!"


@both
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_an_unknown_option_raises_the_openai_sdks_error(style: CallStyle, way: str) -> None:
    """No request is sent, and the run ends with this error."""
    log = Log()
    with LoopbackProvider("Hello") as provider:
        with pytest.raises(TypeError) as expected:
            sdk(provider).chat.completions.create(**{**ASK, "temprature": 1})
        with pytest.raises(TypeError) as caught:
            getattr(style, way)(chat(provider, callbacks=[log]), "Hi", temprature=1)
    assert str(caught.value).removeprefix("Async") == str(expected.value)
    assert provider.requests == []
    assert log.names == ["chat_model_start", "chat_new_message", "llm_error"]


@both
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_a_missing_openai_key_is_an_error_of_the_run(
    style: CallStyle, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK's error is raised and passed to `on_llm_error`."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_ADMIN_KEY", raising=False)
    with pytest.raises(openai.OpenAIError) as expected:
        openai.OpenAI()
    log = Log()
    with pytest.raises(openai.OpenAIError) as caught:
        getattr(style, way)(ChatOpenAI(callbacks=[log]), "Hi")
    assert str(caught.value) == str(expected.value)
    assert log.names == ["chat_model_start", "chat_new_message", "llm_error"]


def test_the_key_of_an_openai_model_is_not_shown() -> None:
    """Neither the model's `repr` nor the arguments of handlers contain it."""
    log = Log()
    with LoopbackProvider("Hello") as provider:
        model = chat(provider, api_key="sk-secret", callbacks=[log])
        model.invoke("Hi")
    assert "sk-secret" not in repr(model) + repr(log.events)
    (((serialized, _), _),) = log.calls_of("on_chat_model_start")
    assert serialized["id"] == ["recorder", "models", "openai", "ChatOpenAI"]


# -- callbacks, tags, metadata ---------------------------------------------------------------------------------


@both
def test_callbacks_of_the_call_and_of_the_model_are_called_once(style: CallStyle) -> None:
    """A handler that is in both lists is called once, too."""
    mine, yours, ours = Log(), Log(), Log()
    with LoopbackProvider("Hello") as provider:
        style.stream(chat(provider, callbacks=[mine, ours]), "Hi", {"callbacks": [yours, ours]})
    for log in (mine, yours, ours):
        assert log.names == [
            "chat_model_start",
            "chat_new_message",
            "llm_new_token",
            "chat_new_message",
            "llm_end",
        ]


@both
def test_tags_and_metadata_of_the_call_override_the_models(style: CallStyle) -> None:
    """Tags are added; the run id and the run's name reach all handlers."""
    log, run_id = Log(), uuid4()
    config = {
        "tags": ["call"], "metadata": {"team": "red", "n": 1}, "run_id": run_id, "run_name": "greeting",
        "configurable": {"thread_id": "t1", "__private": "x", "store": object()},
    }  # fmt: skip
    with LoopbackProvider("Hello") as provider:
        model = chat(
            provider, callbacks=[log], tags=["model", "call"], metadata={"team": "blue", "b": 2},
            temperature=0.5, max_tokens=9, stop=["END"],
        )  # fmt: skip
        style.stream(model, "Hi", config)
    ((_, kwargs),) = log.calls_of("on_chat_model_start")
    assert kwargs["run_id"] == run_id
    assert kwargs["tags"] == ["call", "model"]
    assert kwargs["name"] == "greeting"
    assert kwargs["metadata"] == {
        "ls_provider": "openai", "ls_model_name": "gpt-4o", "ls_model_type": "chat", "ls_temperature": 0.5,
        "ls_max_tokens": 9, "ls_stop": ["END"], "team": "red", "b": 2, "n": 1, "thread_id": "t1",
    }  # fmt: skip
    assert kwargs["invocation_params"] == {
        "model": "gpt-4o", "temperature": 0.5, "max_tokens": 9, "stop": ["END"],
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    for name in ("on_llm_new_token", "on_llm_end"):
        assert {event[1]["run_id"] for event in log.calls_of(name)} == {run_id}
        assert log.calls_of(name)[0][1]["tags"] == ["call", "model"]


@both
def test_equal_requests_have_equal_hashes(style: CallStyle) -> None:
    """A stream and a complete answer have the same hash; another question or option changes it."""
    log = Log()
    with LoopbackProvider("Hello") as provider:
        model = chat(provider, callbacks=[log])
        style.stream(model, "Hi")
        style.invoke(model, [("user", "Hi")], timeout=9, extra_headers={"x": "y"})
        style.invoke(model, "Ho")
        style.invoke(model, "Hi", seed=1)
    hashes = [kwargs["input_hash"] for _, kwargs in log.calls_of("on_chat_model_start")]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_a_run_id_must_be_a_uuid_and_belong_to_one_run() -> None:
    """Its text is accepted; other text, or one id for two lists, is refused without a request."""
    log, run_id = Log(), uuid4()
    with LoopbackProvider("Hello") as provider:
        model = chat(provider, callbacks=[log])
        model.invoke("Hi", {"run_id": str(run_id)})
        with pytest.raises(ConfigError, match="'chat-42' is not a UUID"):
            model.invoke("Hi", {"run_id": "chat-42"})
        with pytest.raises(ConfigError, match="2 lists"):
            model.generate([["Hi"], ["Ho"]], run_id=run_id)
    assert len(provider.requests) == 1
    assert log.calls_of("on_llm_end")[0][1]["run_id"] == run_id


def test_generate_accepts_tags_metadata_name_and_run_id() -> None:
    """They are keywords, as in LangChain, and are not part of the request."""
    log, run_id = Log(), uuid4()
    with LoopbackProvider("Hello") as provider:
        chat(provider).generate(
            [["Hi"]],
            callbacks=[log],
            tags=["t"],
            metadata={"m": 1},
            run_name="n",
            run_id=run_id,
            stop=["END"],
        )
    ((_, kwargs),) = log.calls_of("on_chat_model_start")
    assert (kwargs["tags"], kwargs["name"], kwargs["run_id"]) == (["t"], "n", run_id)
    assert kwargs["metadata"]["m"] == 1
    assert provider.requests[0]["body"]["stop"] == ["END"]
    assert "metadata" not in provider.requests[0]["body"]


def test_the_parent_run_id_of_a_callback_manager_is_used() -> None:
    """Inside of a chain, `callbacks` is a manager with the parent's id."""
    manager = pytest.importorskip("langchain_core.callbacks").CallbackManager
    log, parent = Log(), uuid4()
    with LoopbackProvider("Hello") as provider:
        chat(provider).invoke("Hi", {"callbacks": manager(handlers=[log], parent_run_id=parent)})
        chat(provider).invoke("Hi", {"callbacks": [log], "parent_run_id": str(parent)})
    assert [kwargs["parent_run_id"] for _, kwargs in log.calls_of("on_chat_model_start")] == [parent, parent]


def test_each_message_of_a_conversation_is_reported_once() -> None:
    """Clients send all messages with each call, but `on_chat_new_message` receives each one once."""
    seen: list[tuple[str, Any]] = []

    class Store(BaseCallbackHandler):
        def on_chat_new_message(self, message: Any) -> None:
            seen.append((message.role, message.content))

    conversation: list[Any] = [SystemMessage("Be brief.")]
    with LoopbackProvider(lambda body, path: f"answer {len(body['messages'])}") as provider:
        model = chat(provider, callbacks=[Store()])
        for turn in range(3):
            conversation.append(HumanMessage(f"question {turn}"))
            conversation.append(
                model.invoke(conversation) if turn % 2 else sum_of(list(model.stream(conversation)))
            )
    assert seen == [(message.role, message.content) for message in conversation]


# -- several inputs --------------------------------------------------------------------------------------------


def echo(body: dict[str, Any], path: str) -> Answer:
    """Answer with the question after 0.1 s; refuse "fail"."""
    content = body["messages"][-1]["content"]
    if content == "fail":
        return Answer.error(400, "no")
    return Answer(body=openai_chat_body([content]), delay=0.1)


class Gauge(BaseCallbackHandler):
    """A handler that counts how many runs are open at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = self.most = 0

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        with self._lock:
            self._open += 1
            self.most = max(self.most, self._open)

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        with self._lock:
            self._open -= 1


@both
def test_a_batch_keeps_its_order_and_its_limit(style: CallStyle) -> None:
    """Of six questions at most two are sent at once, and the answers have their order."""
    gauge = Gauge()
    questions = [f"q{number}" for number in range(6)]
    with LoopbackProvider(echo) as provider:
        answers = style.batch(chat(provider), questions, {"max_concurrency": 2, "callbacks": [gauge]})
        assert style.batch(chat(provider), []) == []
    assert [answer.content for answer in answers] == questions
    assert gauge.most == 2


@both
def test_a_batch_without_a_limit_runs_concurrently(style: CallStyle) -> None:
    """All four runs are open at the same time."""
    gauge = Gauge()
    with LoopbackProvider(echo) as provider:
        style.batch(chat(provider, callbacks=[gauge]), ["a", "b", "c", "d"])
    assert gauge.most == 4


@both
def test_each_input_may_have_its_own_config(style: CallStyle) -> None:
    """There is one config for each input, and another number is refused; a shared run id belongs to the first input."""
    log, run_id = Log(), uuid4()
    with LoopbackProvider(echo) as provider:
        model = chat(provider, callbacks=[log])
        style.batch(model, ["a", "b"], [{"tags": ["one"]}, {"tags": ["two"]}])
        with pytest.raises(ConfigError, match="got 1 configs for 2 inputs"):
            style.batch(model, ["a", "b"], [{}])
        style.batch(model, ["c", "d"], {"run_id": run_id, "max_concurrency": 1})
    tags = {args[1][0][0].content: kwargs["tags"] for args, kwargs in log.calls_of("on_chat_model_start")}
    assert (tags["a"], tags["b"]) == (["one"], ["two"])
    ids = {args[1][0][0].content: kwargs["run_id"] for args, kwargs in log.calls_of("on_chat_model_start")}
    assert ids["c"] == run_id != ids["d"]


@both
def test_a_batch_can_return_its_errors(style: CallStyle) -> None:
    """With `return_exceptions=True` each error is at its place, and the other inputs are answered."""
    with LoopbackProvider(echo) as provider:
        answers = style.batch(chat(provider), ["a", "fail", "b"], return_exceptions=True)
    assert [type(answer) for answer in answers] == [AIMessage, openai.BadRequestError, AIMessage]


@both
def test_after_an_error_a_batch_sends_no_more_requests(style: CallStyle) -> None:
    """At most three of eleven requests are sent, because the other answers would be lost."""
    with LoopbackProvider(echo) as provider, pytest.raises(openai.BadRequestError):
        style.batch(chat(provider), ["fail", *"abcdefghij"], {"max_concurrency": 1})
    assert len(provider.requests) <= 3


def test_after_an_error_no_task_of_generate_runs() -> None:
    """The other runs are cancelled and have ended when the error is raised."""
    log = Log()

    async def main(provider: LoopbackProvider) -> set[Any]:
        model = chat(provider, callbacks=[log])
        with pytest.raises(openai.BadRequestError):
            await model.agenerate([["a"], ["fail"], ["b"]])
        return asyncio.all_tasks() - {asyncio.current_task()}

    with LoopbackProvider(echo) as provider:
        assert asyncio.run(main(provider)) == set()
    assert len(log.calls_of("on_llm_error")) == 3


@both
def test_handlers_of_a_batch_see_the_callers_context_variables(style: CallStyle) -> None:
    """This holds on threads, too."""
    user: ContextVar[str] = ContextVar("user", default="nobody")
    seen: list[str] = []

    class Reads(BaseCallbackHandler):
        def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
            seen.append(user.get())

    with LoopbackProvider(echo) as provider:
        user.set("ann")
        style.batch(chat(provider, callbacks=[Reads()]), ["a", "b", "c"])
    assert seen == ["ann"] * 3


def test_bind_does_not_change_the_model() -> None:
    """`bind` returns a copy with more options."""
    with LoopbackProvider("Hello") as provider:
        model = chat(provider, temperature=1)
        bound = model.bind(seed=7).bind(stop=["END"])
        bound.invoke("Hi")
        model.invoke("Hi")
    first, second = [request["body"] for request in provider.requests]
    assert (first["seed"], first["stop"], first["temperature"]) == (7, ["END"], 1)
    assert "seed" not in second
    assert isinstance(bound, ChatOpenAI)
    assert bound.model == "gpt-4o"


def test_each_run_has_a_new_id() -> None:
    """Ids are UUIDs that sort by time."""
    log = Log()
    with LoopbackProvider("Hello") as provider:
        for _ in range(3):
            chat(provider, callbacks=[log]).invoke("Hi")
    ids = [kwargs["run_id"] for _, kwargs in log.calls_of("on_llm_end")]
    assert all(isinstance(run_id, UUID) for run_id in ids)
    assert ids == sorted(set(ids))
