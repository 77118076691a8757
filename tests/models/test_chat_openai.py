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
from tests.chatting import ASK, ROADS, Log, Road, chat, name_of, sdk

both = pytest.mark.parametrize("road", ROADS, ids=name_of)
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"id": "call_1", "name": "weather", "arguments": '{"city": "Zürich"}'}
USAGE = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}


def sum_of(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    """The chunks added up."""
    return chunks[0] + chunks[1:]


# -- answers ---------------------------------------------------------------------------------------------------


@both
def test_the_chunks_of_a_stream_have_a_sum(road: Road) -> None:
    """Content, id, usage, finish reason and model are in the sum."""
    with LoopbackProvider("Hello there!") as provider:
        chunks = road.stream(chat(provider), "Hi")
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
def test_the_whole_answer_at_once(road: Road) -> None:
    """`invoke` sends a request without a stream and returns the final message."""
    run_id = uuid4()
    with LoopbackProvider("Hello there!") as provider:
        answer = road.invoke(chat(provider), "Hi", {"run_id": run_id})
    assert type(answer) is AIMessage
    assert (answer.content, answer.id) == ("Hello there!", f"run-{run_id}")
    assert answer.usage_metadata is not None
    assert answer.response_metadata["token_usage"]["total_tokens"] == answer.usage_metadata["total_tokens"]
    assert answer.response_metadata["id"].startswith("chatcmpl-")
    assert "stream" not in provider.requests[0]["body"]


@both
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
def test_with_streaming_the_callbacks_get_tokens(road: Road, streaming: bool) -> None:
    """With `streaming=True` the callbacks get the tokens of `invoke` as they arrive. The answer is the same."""
    log = Log()
    with LoopbackProvider("Hello there!") as provider:
        answer = road.invoke(chat(provider, streaming=streaming, callbacks=[log]), "Hi")
    assert answer.content == "Hello there!"
    assert "".join(log.tokens) == ("Hello there!" if streaming else "")
    tokens = ["llm_new_token"] if streaming else []
    assert log.names == ["chat_model_start", "chat_new_message", *tokens, "chat_new_message", "llm_end"]


@both
def test_tool_calls_in_pieces_and_whole(road: Road) -> None:
    """The pieces add up to the call that the whole answer has."""
    frames = openai_chat_frames([], tool_calls=[CALL])
    body = openai_chat_body([], tool_calls=[CALL])
    answers = scripted(Answer(frames=frames), Answer(body=body))
    with LoopbackProvider(answers) as provider:
        model = chat(provider).bind_tools([TOOL], tool_choice="weather")
        streamed = sum_of(road.stream(model, "Weather?"))
        answer = road.invoke(model, "Weather?")
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
def test_which_tool_is_called(choice: Any, sent: Any) -> None:
    """LangChain's values of `tool_choice`, and the API's."""
    with LoopbackProvider("Hello") as provider:
        chat(provider).bind_tools([TOOL], tool_choice=choice).invoke("Weather?")
    assert provider.requests[0]["body"].get("tool_choice") == sent


def test_tools_are_dicts() -> None:
    """`bind_tools` refuses functions and classes, and says what to pass."""
    with pytest.raises(ConfigError, match=r"bind_tools got <function .*'type': 'function'"):
        ChatOpenAI(api_key="any").bind_tools([test_tools_are_dicts])


@both
def test_a_call_that_was_cut_off_is_no_call(road: Road) -> None:
    """A limit in the middle of the arguments must not become a call with half of them."""
    call = {**CALL, "arguments": ['{"city": "Zürich", "street": "Bahnhof']}
    frames = openai_chat_frames([], tool_calls=[call], finish_reason="length")
    with LoopbackProvider(Answer(frames=frames)) as provider:
        answer = sum_of(road.stream(chat(provider), "Weather?"))
    assert answer.tool_calls == []
    assert answer.invalid_tool_calls[0]["args"] == call["arguments"][0]


@both
def test_generate_gives_each_list_its_own_run(road: Road) -> None:
    """One result in order, one run a list, and the tokens of all."""
    log = Log()
    with LoopbackProvider(lambda body, path: "It is " + body["messages"][-1]["content"]) as provider:
        result = road.generate(
            chat(provider, callbacks=[log]), [[HumanMessage("one")], [("user", "two")], ["three"]]
        )
    assert [choices[0].text for choices in result.generations] == ["It is one", "It is two", "It is three"]
    counts = [choices[0].message.usage_metadata["total_tokens"] for choices in result.generations]
    assert result.llm_output["token_usage"]["total_tokens"] == sum(counts)
    started = {kwargs["run_id"] for _, kwargs in log.calls_of("on_chat_model_start")}
    assert {info.run_id for info in result.run} == started
    assert len(started) == 3


@both
def test_generate_fills_the_usage_of_a_stream(road: Road) -> None:
    """What LangChain's documents call unsupported: `token_usage` when streaming."""
    with LoopbackProvider("Hello there!") as provider:
        result = road.generate(chat(provider, streaming=True), [[HumanMessage("Hi")], [HumanMessage("Hi")]])
    usage = result.llm_output["token_usage"]
    assert usage["completion_tokens"] == 6
    assert usage["total_tokens"] == usage["prompt_tokens"] + 6
    assert result.llm_output["model_name"] == "gpt-4o-2024-08-06"
    assert result.generations[0][0].generation_info["finish_reason"] == "stop"


@both
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
def test_several_choices_are_several_generations(road: Road, streaming: bool) -> None:
    """`n=2`: both texts, each with an id of its own; `invoke` gives the first."""
    frames = openai_chat_frames([["a", "b"], ["c", "d"]], n=2)
    body = openai_chat_body([["a", "b"], ["c", "d"]], n=2)

    def script(request: dict[str, Any], path: str) -> Answer:
        assert request["n"] == 2
        return Answer(frames=frames) if request.get("stream") else Answer(body=body)

    with LoopbackProvider(script) as provider:
        model = chat(provider, streaming=streaming, n=2)
        result = road.generate(model, [["Hi"]])
        assert road.invoke(model, "Hi").content == "ab"
    (choices,) = result.generations
    assert [choice.text for choice in choices] == ["ab", "cd"]
    assert choices[0].message.id + "-1" == choices[1].message.id


def test_the_stream_of_several_choices_is_the_first() -> None:
    """Chunks of two answers are not mixed. The frames have both answers."""
    frames = openai_chat_frames([["a", "b"], ["c", "d"]], n=2)
    with LoopbackProvider(Answer(frames=frames)) as provider:
        assert sum_of(list(chat(provider, n=2).stream("Hi"))).content == "ab"


def test_a_model_can_be_called() -> None:
    """`chat([HumanMessage("Hello!")])`, with callbacks and stop as old programs pass them."""
    log = Log()
    with LoopbackProvider("Hello there!") as provider:
        answer = chat(provider)([HumanMessage("Hi")], ["\n"], [log])
    assert answer.content == "Hello there!"
    assert provider.requests[0]["body"]["stop"] == ["\n"]
    assert log.names[-1] == "llm_end"


@both
def test_reasoning_and_unicode_come_through(road: Road) -> None:
    """Reasoning is in `additional_kwargs`. All characters are unchanged, also half of a surrogate pair."""
    text = ["Zürich", " 🎈", "中文", "\u2028", "\ud83d", "\x00", '"\\']
    frames = openai_chat_frames(text, reasoning=["Hm", "m."])
    with LoopbackProvider(Answer(frames=frames, chunks=3)) as provider:
        answer = sum_of(road.stream(chat(provider), "Ü 🎈?"))
    assert answer.content == "".join(text)
    assert answer.additional_kwargs["reasoning_content"] == "Hmm."


@both
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # aiohttp's advice to the SDK
def test_a_big_prompt_goes_through(road: Road) -> None:
    """Two megabytes of it."""
    with LoopbackProvider(lambda body, path: str(len(body["messages"][0]["content"]))) as provider:
        assert road.invoke(chat(provider), "x" * 2**21).content == str(2**21)


def test_an_answer_after_blank_lines_is_read() -> None:
    """Some providers send blank lines while they think."""
    with LoopbackProvider(Answer(body=b"\n\n  \n" + openai_chat_body(["Hi"]))) as provider:
        assert chat(provider).invoke("Hi").content == "Hi"


@both
def test_a_page_in_place_of_an_answer_is_an_error(road: Road) -> None:
    """A proxy's page with status 200: the SDK's own error, not an empty message."""
    page = Answer(body=b"<html>Please log in</html>", headers={"content-type": "text/html"})
    log = Log()
    with LoopbackProvider(page) as provider, pytest.raises(openai.APIResponseValidationError) as caught:
        road.invoke(chat(provider, callbacks=[log]), "Hi")
    assert "log in" in str(caught.value.body)
    assert log.names[-1] == "llm_error"


# -- input -----------------------------------------------------------------------------------------------------


def langchain_messages() -> Any:
    """LangChain's own message objects."""
    messages = pytest.importorskip("langchain_core.messages")
    return [messages.SystemMessage("Be brief."), messages.HumanMessage("Hi")]


def langchain_prompt() -> Any:
    """LangChain's prompt value."""
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
def test_all_kinds_of_input(given: Any, sent: list[dict[str, Any]]) -> None:
    """Each kind of input makes the same request, and callbacks get messages of `recorder.messages`."""
    log = Log()
    given = given() if callable(given) else given
    with LoopbackProvider("Hello") as provider:
        chat(provider, callbacks=[log]).invoke(given)
    assert provider.requests[0]["body"]["messages"] == sent
    (((_, [messages]), _),) = log.calls_of("on_chat_model_start")
    assert [{"role": message.role, "content": message.content} for message in messages] == sent


@pytest.mark.parametrize("road", ROADS, ids=name_of)
def test_what_is_no_input_is_refused(road: Road) -> None:
    """The error names the input and the accepted kinds. No request is sent."""
    with LoopbackProvider("Hello") as provider:
        model = chat(provider)
        for way in (road.invoke, road.stream):
            with pytest.raises(ConfigError, match="cannot read a message from object"):
                way(model, [object()])
    assert provider.requests == []


def test_a_conversation_with_a_tool_is_sent_back() -> None:
    """The reply with its call, and the tool's answer, in the API's form."""
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
def test_all_options_of_the_sdk_pass_through(road: Road, where: str) -> None:
    """Wherever they are said, in a stream and in a whole answer."""
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
        road.stream(model, "Hi", **more)
        road.invoke(model, "Hi", **more)
    for request in provider.requests:
        assert {key: request["body"][key] for key in OPTIONS} == OPTIONS
    streamed, plain = [request["body"] for request in provider.requests]
    assert streamed.keys() - plain.keys() == {"stream", "stream_options"}


@both
def test_extra_body_headers_and_query(road: Road) -> None:
    """Each goes into its part of the request."""
    log = Log()
    with LoopbackProvider("Hello") as provider:
        model = chat(provider, extra_body={"top_k": 3}, default_headers={"x-team": "blue"}, callbacks=[log])
        road.invoke(model, "Hi", extra_headers={"x-secret": "s3cret"}, extra_query={"v": "2"})
    (request,) = provider.requests
    assert request["body"]["top_k"] == 3
    assert (request["headers"]["x-team"], request["headers"]["x-secret"]) == ("blue", "s3cret")
    assert request["path"].endswith("?v=2")
    assert "s3cret" not in repr(log.events)


def test_names_that_langchain_has_for_the_same_thing() -> None:
    """`model_name`, `openai_api_key`, `openai_api_base`, `request_timeout`, a secret string."""

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


def test_the_environment_names_key_and_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's `OPENAI_API_KEY`, and LangChain's `OPENAI_API_BASE`."""
    with LoopbackProvider("Hello") as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "from the environment")
        monkeypatch.setenv("OPENAI_API_BASE", provider.base_url)
        assert ChatOpenAI().invoke("Hi").content == "Hello"
    (request,) = provider.requests
    assert request["headers"]["authorization"] == "Bearer from the environment"
    assert request["body"]["model"] == "gpt-3.5-turbo"


def test_stream_usage() -> None:
    """On by default. `stream_usage=False` is for providers that refuse `stream_options`."""
    with LoopbackProvider("Hello") as provider:
        list(chat(provider).stream("Hi", stream_options={"include_obfuscation": False}))
        list(chat(provider, stream_usage=False).stream("Hi"))
    first, second = [request["body"] for request in provider.requests]
    assert first["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    assert "stream_options" not in second


def test_asking_for_a_stream_as_an_option() -> None:
    """`invoke(..., stream=True)` streams to the callbacks."""
    log = Log()
    with LoopbackProvider("Hello there!") as provider:
        answer = chat(provider, callbacks=[log]).invoke("Hi", stream=True)
    assert answer.content == "".join(log.tokens) == "Hello there!"


@both
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_an_unknown_option_is_refused_as_the_sdk_does(road: Road, way: str) -> None:
    """The SDK's TypeError; nothing is sent, and the run ends in that error."""
    log = Log()
    with LoopbackProvider("Hello") as provider:
        with pytest.raises(TypeError) as expected:
            sdk(provider).chat.completions.create(**{**ASK, "temprature": 1})
        with pytest.raises(TypeError) as caught:
            getattr(road, way)(chat(provider, callbacks=[log]), "Hi", temprature=1)
    assert str(caught.value).removeprefix("Async") == str(expected.value)
    assert provider.requests == []
    assert log.names == ["chat_model_start", "chat_new_message", "llm_error"]


@both
@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_a_missing_key_is_a_run_that_failed(road: Road, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's error is raised, and reported as the error of a run."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_ADMIN_KEY", raising=False)
    with pytest.raises(openai.OpenAIError) as expected:
        openai.OpenAI()
    log = Log()
    with pytest.raises(openai.OpenAIError) as caught:
        getattr(road, way)(ChatOpenAI(callbacks=[log]), "Hi")
    assert str(caught.value) == str(expected.value)
    assert log.names == ["chat_model_start", "chat_new_message", "llm_error"]


def test_a_model_is_shown_without_its_key() -> None:
    """Neither the model's `repr` nor `serialized` holds the key."""
    log = Log()
    with LoopbackProvider("Hello") as provider:
        model = chat(provider, api_key="sk-secret", callbacks=[log])
        model.invoke("Hi")
    assert "sk-secret" not in repr(model) + repr(log.events)
    (((serialized, _), _),) = log.calls_of("on_chat_model_start")
    assert serialized["id"] == ["recorder", "models", "openai", "ChatOpenAI"]


# -- callbacks, tags, metadata ---------------------------------------------------------------------------------


@both
def test_callbacks_of_the_call_and_of_the_model(road: Road) -> None:
    """Each is called once, also one that is in both lists."""
    mine, yours, ours = Log(), Log(), Log()
    with LoopbackProvider("Hello") as provider:
        road.stream(chat(provider, callbacks=[mine, ours]), "Hi", {"callbacks": [yours, ours]})
    for log in (mine, yours, ours):
        assert log.names == [
            "chat_model_start",
            "chat_new_message",
            "llm_new_token",
            "chat_new_message",
            "llm_end",
        ]


@both
def test_tags_metadata_run_id_and_name_of_a_run(road: Road) -> None:
    """Those of the call are added to the model's and override them."""
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
        road.stream(model, "Hi", config)
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
def test_the_same_request_has_the_same_hash(road: Road) -> None:
    """With and without a stream. Another question or option has another hash."""
    log = Log()
    with LoopbackProvider("Hello") as provider:
        model = chat(provider, callbacks=[log])
        road.stream(model, "Hi")
        road.invoke(model, [("user", "Hi")], timeout=9, extra_headers={"x": "y"})
        road.invoke(model, "Ho")
        road.invoke(model, "Hi", seed=1)
    hashes = [kwargs["input_hash"] for _, kwargs in log.calls_of("on_chat_model_start")]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_the_run_id_may_be_text_and_must_be_one() -> None:
    """A UUID or its text. Other text is refused, and no request is sent."""
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


def test_generate_with_tags_metadata_name_and_id() -> None:
    """They are keywords, as in LangChain."""
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


def test_the_parent_is_the_one_that_langchain_names() -> None:
    """Inside a chain or a graph, `callbacks` is a manager with the id of the parent run."""
    manager = pytest.importorskip("langchain_core.callbacks").CallbackManager
    log, parent = Log(), uuid4()
    with LoopbackProvider("Hello") as provider:
        chat(provider).invoke("Hi", {"callbacks": manager(handlers=[log], parent_run_id=parent)})
        chat(provider).invoke("Hi", {"callbacks": [log], "parent_run_id": str(parent)})
    assert [kwargs["parent_run_id"] for _, kwargs in log.calls_of("on_chat_model_start")] == [parent, parent]


def test_each_message_of_a_conversation_is_reported_once() -> None:
    """Clients send all messages again, but `on_chat_new_message` gets each one once."""
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
    """Answers with the question after 0.1 s; refuses "fail"."""
    content = body["messages"][-1]["content"]
    if content == "fail":
        return Answer.error(400, "no")
    return Answer(body=openai_chat_body([content]), delay=0.1)


class Gauge(BaseCallbackHandler):
    """Counts how many runs are open at once."""

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
def test_a_batch_keeps_its_order_and_its_limit(road: Road) -> None:
    """Six questions, two at a time."""
    gauge = Gauge()
    questions = [f"q{number}" for number in range(6)]
    with LoopbackProvider(echo) as provider:
        answers = road.batch(chat(provider), questions, {"max_concurrency": 2, "callbacks": [gauge]})
        assert road.batch(chat(provider), []) == []
    assert [answer.content for answer in answers] == questions
    assert gauge.most == 2


@both
def test_without_a_limit_a_batch_runs_together(road: Road) -> None:
    """All at once on a loop; in threads as many as there are workers."""
    gauge = Gauge()
    with LoopbackProvider(echo) as provider:
        road.batch(chat(provider, callbacks=[gauge]), ["a", "b", "c", "d"])
    assert gauge.most == 4


@both
def test_each_input_may_have_its_own_config(road: Road) -> None:
    """A list of configs, one an input; another number of them is refused. A shared run id is the first's."""
    log, run_id = Log(), uuid4()
    with LoopbackProvider(echo) as provider:
        model = chat(provider, callbacks=[log])
        road.batch(model, ["a", "b"], [{"tags": ["one"]}, {"tags": ["two"]}])
        with pytest.raises(ConfigError, match="got 1 configs for 2 inputs"):
            road.batch(model, ["a", "b"], [{}])
        road.batch(model, ["c", "d"], {"run_id": run_id, "max_concurrency": 1})
    tags = {args[1][0][0].content: kwargs["tags"] for args, kwargs in log.calls_of("on_chat_model_start")}
    assert (tags["a"], tags["b"]) == (["one"], ["two"])
    ids = {args[1][0][0].content: kwargs["run_id"] for args, kwargs in log.calls_of("on_chat_model_start")}
    assert ids["c"] == run_id != ids["d"]


@both
def test_errors_of_a_batch_as_results(road: Road) -> None:
    """`return_exceptions=True`: each error has its place, and the other inputs are answered."""
    with LoopbackProvider(echo) as provider:
        answers = road.batch(chat(provider), ["a", "fail", "b"], return_exceptions=True)
    assert [type(answer) for answer in answers] == [AIMessage, openai.BadRequestError, AIMessage]


@both
def test_after_an_error_a_batch_sends_no_more_requests(road: Road) -> None:
    """Their answers would be lost, and they cost money."""
    with LoopbackProvider(echo) as provider, pytest.raises(openai.BadRequestError):
        road.batch(chat(provider), ["fail", *"abcdefghij"], {"max_concurrency": 1})
    assert len(provider.requests) <= 3


def test_after_an_error_on_a_loop_no_task_runs() -> None:
    """The other runs are cancelled and have ended when the error arrives."""
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
def test_the_caller_s_context_is_seen_in_a_batch(road: Road) -> None:
    """Handlers read the context variables of the caller."""
    user: ContextVar[str] = ContextVar("user", default="nobody")
    seen: list[str] = []

    class Reads(BaseCallbackHandler):
        def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
            seen.append(user.get())

    with LoopbackProvider(echo) as provider:
        user.set("ann")
        road.batch(chat(provider, callbacks=[Reads()]), ["a", "b", "c"])
    assert seen == ["ann"] * 3


def test_bind_does_not_change_the_model() -> None:
    """It adds options to a copy, which shares the connections."""
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


def test_ids_of_runs_are_new_each_time() -> None:
    """UUIDs, each run its own, and they sort by time."""
    log = Log()
    with LoopbackProvider("Hello") as provider:
        for _ in range(3):
            chat(provider, callbacks=[log]).invoke("Hi")
    ids = [kwargs["run_id"] for _, kwargs in log.calls_of("on_llm_end")]
    assert all(isinstance(run_id, UUID) for run_id in ids)
    assert ids == sorted(set(ids))
