"""`ChatOpenAI` returns what langchain-openai's `ChatOpenAI` returns with the same provider.

The comparisons leave out these intended differences. `model_provider` and the response's id come with the finish
reason, not with each chunk. Reasoning, citations and unknown keys, which langchain-openai drops, are in
`additional_kwargs`. An event without content makes no chunk. Ids begin with `run-`, as in LangChain's
documentation, not with `lc_run--`. The metadata of a call override the model's, and contain no versions of libraries.
A tool call whose arguments were cut off is an invalid call in the sum of chunks, not a call with half of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import openai
import pytest

from recorder.models import ChatOpenAI
from recorder.testing import (
    Answer,
    LoopbackProvider,
    openai_chat_body,
    openai_chat_frames,
    openai_error_frame,
)
from tests.chatting import CALL_STYLES, ON_LOOP, PLAIN, CallStyle, Log, name_of
from tests.genuine import Stream

langchain = pytest.importorskip("langchain_openai")
Handler: Any = pytest.importorskip("langchain_core.callbacks").BaseCallbackHandler

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)

#: Metadata about LangChain itself.
VERSIONS = ("ls_integration", "lc_versions")
CALLS = [
    {"id": "call_1", "name": "weather", "arguments": '{"city": "Zürich"}'},
    {"id": "call_2", "name": "weather", "arguments": '{"city": "Bern"}'},
]
STREAMS = {
    "text": openai_chat_frames(["Hello", " there", "!"]),
    "nothing": openai_chat_frames([]),
    "length": openai_chat_frames(["Hello"], finish_reason="length"),
    "one call": openai_chat_frames([], tool_calls=CALLS[:1]),
    "text and calls": openai_chat_frames(["Let me see."], tool_calls=CALLS),
    "broken call": openai_chat_frames([], tool_calls=[{**CALLS[0], "arguments": '{"city": "Zü'}]),
    "without usage": openai_chat_frames(["Hello"], usage=False),
}
streamed = pytest.mark.parametrize("frames", STREAMS.values(), ids=STREAMS)


class LangChainLog(Handler):  # type: ignore[misc]
    """A handler of LangChain's class that writes into one of our logs."""

    def __init__(self) -> None:
        self.log = Log()
        for name in ("on_chat_model_start", "on_llm_new_token", "on_llm_end", "on_llm_error"):
            setattr(self, name, getattr(self.log, name))


def ours(provider: LoopbackProvider, **options: Any) -> ChatOpenAI:
    """Return our model of this provider."""
    return ChatOpenAI(model="gpt-4o", base_url=provider.base_url, api_key="any", max_retries=0, **options)


def theirs(provider: LoopbackProvider, **options: Any) -> Any:
    """Return LangChain's model of this provider."""
    settings = {"model": "gpt-4o", "base_url": provider.base_url, "api_key": "any", "max_retries": 0}
    return langchain.ChatOpenAI(**settings, stream_usage=True, **options)


def by_langchain(style: CallStyle, way: str, provider: LoopbackProvider, *args: Any, **more: Any) -> Any:
    """Return the answer of LangChain's model; `more["options"]` are options of the model."""
    options = more.pop("options", {})
    if style is PLAIN:
        return getattr(style, way)(theirs(provider, **options), *args, **more)

    async def main() -> Any:
        # LangChain's shared clients work in one event loop only, and each call here has a loop of its own.
        async with openai.DefaultAsyncHttpxClient(verify=False) as http:
            answer = getattr(theirs(provider, http_async_client=http, **options), f"a{way}")(*args, **more)
            return [each async for each in answer] if "stream" in way else await answer

    return asyncio.run(main())


def seen(message: Any) -> dict[str, Any]:
    """Return the fields of a message or chunk that both libraries must have in common."""
    metadata = dict(message.response_metadata)
    for name in ("model_provider", "id", "token_usage", "logprobs"):
        metadata.pop(name, None)
    return {
        "class": type(message).__name__,
        "type": message.type,
        "content": message.content,
        "response_metadata": metadata,
        "additional_kwargs": {key: value for key, value in message.additional_kwargs.items() if value},
        "tool_calls": message.tool_calls,
        "invalid_tool_calls": [{**call, "error": None} for call in message.invalid_tool_calls],
        "tool_call_chunks": [dict(call) for call in getattr(message, "tool_call_chunks", [])],
        "usage_metadata": {
            key: value for key, value in (message.usage_metadata or {}).items() if value != {}
        },
        "chunk_position": getattr(message, "chunk_position", None),
        "id": message.id.removeprefix("lc_").replace("run--", "run-"),
    }


def sum_of(chunks: list[Any]) -> Any:
    """Add up the chunks one by one."""
    answer = chunks[0]
    for chunk in chunks[1:]:
        answer = answer + chunk
    return answer


# -- chunks and messages ---------------------------------------------------------------------------------------


@both
@streamed
def test_chunks_and_their_sum_equal_langchains(style: CallStyle, frames: list[bytes]) -> None:
    """The chunks come in the same order, and their sums are equal."""
    config = {"run_id": uuid4()}
    with LoopbackProvider(Answer(frames=frames)) as provider:
        expected = by_langchain(style, "stream", provider, "Hi", dict(config))
        found = style.stream(ours(provider), "Hi", dict(config))
    assert [seen(chunk) for chunk in found] == [seen(chunk) for chunk in expected]
    if frames is not STREAMS["broken call"]:
        assert seen(sum_of(found)) == seen(sum_of(expected))


@both
@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "complete"])
@pytest.mark.parametrize("calls", [[], CALLS], ids=["text", "calls"])
def test_the_final_message_equals_langchains(
    style: CallStyle, streaming: bool, calls: list[dict[str, Any]]
) -> None:
    """`invoke` returns the same message with and without streaming."""
    body, frames = (
        openai_chat_body(["Hi", "!"], tool_calls=calls),
        openai_chat_frames(["Hi", "!"], tool_calls=calls),
    )
    answer = Answer(frames=frames) if streaming else Answer(body=body)
    config = {"run_id": uuid4()}
    with LoopbackProvider(answer) as provider:
        expected = by_langchain(
            style, "invoke", provider, "Hi", dict(config), options={"streaming": streaming}
        )
        found = style.invoke(ours(provider, streaming=streaming), "Hi", dict(config))
    if not streaming:
        expected.id = expected.id.removesuffix("-0")
        given, usage = expected.response_metadata["token_usage"], found.response_metadata["token_usage"]
        assert {key: given[key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")} == {
            key: usage[key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")
        }
    assert seen(found) == seen(expected)


@both
def test_the_result_of_generate_equals_langchains(style: CallStyle) -> None:
    """Texts, counts and finish reasons are the same; LangChain leaves out the usage of streams."""
    body = openai_chat_body(["Hello", "!"])
    with LoopbackProvider(Answer(body=body)) as provider:
        from langchain_core.messages import HumanMessage

        lists = [[HumanMessage("one")], [HumanMessage("two")]]
        with pytest.warns(
            UserWarning, match="token usage"
        ):  # LangChain warns of a field that it does not know
            expected = by_langchain(style, "generate", provider, lists)
        found = style.generate(ours(provider), lists)
    assert [[choice.text for choice in choices] for choices in found.generations] == [
        [choice.text for choice in choices] for choices in expected.generations
    ]
    assert len(found.run) == len(expected.run) == 2
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert found.llm_output["token_usage"][name] == expected.llm_output["token_usage"][name]
    info = expected.generations[0][0].generation_info
    assert found.generations[0][0].generation_info["finish_reason"] == info["finish_reason"]


def test_genuine_streams_give_langchains_answer(streams: list[Stream]) -> None:
    """Every genuine stream gives the same answer, and OpenAI's streams give the same chunks."""
    answered = [stream for stream in streams if stream.status == 200 and b'"error":' not in stream.body]
    assert len(answered) > 30
    for stream in answered:
        config = {"run_id": uuid4()}
        with LoopbackProvider(Answer(frames=[stream.body])) as provider:
            their = by_langchain(PLAIN, "stream", provider, "Hi", dict(config))
            raw = PLAIN.stream(ours(provider), "Hi", dict(config))
        expected, answer = [seen(chunk) for chunk in their], sum_of(their)
        found = [seen(chunk) for chunk in raw]
        if stream.provider == "openai":
            for chunk in found:
                chunk["additional_kwargs"].pop("moderation", None)
            assert found == expected, stream.name
        assert [chunk["content"] for chunk in found if chunk["content"]] == [
            chunk["content"] for chunk in expected if chunk["content"]
        ]
        names = ["tool_calls", "invalid_tool_calls", "chunk_position"]
        names += ["usage_metadata"] if answer.usage_metadata else []  # LangChain does not find Groq's usage
        for name in names:
            assert seen(sum_of(raw))[name] == seen(answer)[name], (stream.name, name)


# -- callbacks -------------------------------------------------------------------------------------------------


def arguments_of(log: Log) -> list[Any]:
    """Return the events with the arguments that applications read."""
    found: list[Any] = []
    for name, args, kwargs in log.events:
        known = {key: kwargs.get(key) for key in ("run_id", "parent_run_id", "tags")}
        if name == "on_chat_model_start":
            texts = [[(message.type, message.content) for message in messages] for messages in args[1]]
            found.append((name, texts, known))
        elif name == "on_llm_new_token":
            chunk = kwargs["chunk"]
            token = args[0] if args else kwargs["token"]  # differs in LangChain's two managers
            found.append((name, token, seen(chunk.message), chunk.text, chunk.generation_info or None, known))
        elif name == "on_llm_end":
            choices = args[0].generations[0]
            found.append((name, [choice.text for choice in choices], choices[0].generation_info, known))
        elif name == "on_llm_error":
            partial = kwargs["response"].generations
            found.append((name, type(args[0]), str(args[0]), partial[0][0].text, known))
    return found


@both
@streamed
def test_handlers_of_a_stream_receive_langchains_events(style: CallStyle, frames: list[bytes]) -> None:
    """The events have the same order and the same arguments."""
    their, our = LangChainLog(), LangChainLog()
    config = {"run_id": uuid4(), "tags": ["a"], "run_name": "greeting"}
    with LoopbackProvider(Answer(frames=frames)) as provider:
        by_langchain(
            style, "stream", provider, "Hi", {**config, "callbacks": [their]}, options={"tags": ["b"]}
        )
        style.stream(ours(provider, tags=["b"]), "Hi", {**config, "callbacks": [our]})
    assert arguments_of(our.log) == arguments_of(their.log)


@both
def test_handlers_of_a_failed_stream_receive_langchains_events(style: CallStyle) -> None:
    """They receive the start, the tokens, and the error with the partial answer."""
    their, our = LangChainLog(), LangChainLog()
    frames = [*STREAMS["text"][:3], openai_error_frame("The server had an error"), *STREAMS["text"][3:]]
    config = {"run_id": uuid4()}
    with LoopbackProvider(Answer(frames=frames)) as provider:
        with pytest.raises(openai.APIError, match="The server had an error"):
            by_langchain(style, "stream", provider, "Hi", {**config, "callbacks": [their]})
        with pytest.raises(openai.APIError, match="The server had an error"):
            style.stream(ours(provider), "Hi", {**config, "callbacks": [our]})
    assert arguments_of(our.log) == arguments_of(their.log)


@both
def test_metadata_equal_langchains(style: CallStyle) -> None:
    """`ls_provider` and the other metadata have the same values."""
    their, our = LangChainLog(), LangChainLog()
    options = {"temperature": 0.5, "stop": ["END"], "max_tokens": 7, "metadata": {"team": "blue"}}
    with LoopbackProvider("Hello") as provider:
        config = {"callbacks": [their], "metadata": {"n": 1}}
        by_langchain(style, "stream", provider, "Hi", config, options=options)
        style.stream(ours(provider, **options), "Hi", {"callbacks": [our], "metadata": {"n": 1}})
    expected, found = (log.calls_of("on_chat_model_start")[0][1]["metadata"] for log in (their.log, our.log))
    assert found == {key: expected[key] for key in expected if key not in VERSIONS}


# -- events ----------------------------------------------------------------------------------------------------


def events_of(model: ChatOpenAI, **options: Any) -> list[dict[str, Any]]:
    """Return all events of a run in version v2."""

    async def main() -> list[dict[str, Any]]:
        return [event async for event in model.astream_events("Hi", version="v2", **options)]

    return asyncio.run(main())


def their_events(provider: LoopbackProvider, **options: Any) -> list[dict[str, Any]]:
    """Return all events of LangChain's model."""
    found = by_langchain(
        ON_LOOP, "stream_events", provider, "Hi", version="v2", options={"tags": ["b"]}, **options
    )
    return list(found)


def shown(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event with the fields of its message that both libraries must have in common."""
    data = dict(event["data"])
    for name in ("chunk", "output"):
        if name in data:
            data[name] = {key: value for key, value in seen(data[name]).items() if key != "chunk_position"}
    metadata = {key: value for key, value in event["metadata"].items() if key not in VERSIONS}
    return {**event, "data": data, "metadata": metadata}


@pytest.mark.parametrize("frames", [STREAMS[name] for name in ("text", "nothing", "text and calls")], ids=len)
def test_events_equal_langchains(frames: list[bytes]) -> None:
    """The dictionaries have the same order, keys and values."""
    config = {"run_id": uuid4(), "tags": ["a"], "metadata": {"n": 1}, "run_name": "greeting"}
    with LoopbackProvider(Answer(frames=frames)) as provider:
        expected = their_events(provider, config=dict(config))
        found = events_of(ours(provider, tags=["b"]), config=dict(config))
    assert [shown(event) for event in found] == [shown(event) for event in expected]
    assert [event.keys() for event in found] == [event.keys() for event in expected]


FILTERS: list[dict[str, list[str]]] = [
    {},
    {"include_names": ["greeting"]},
    {"include_names": ["other"]},
    {"include_types": ["chat_model"]},
    {"include_types": ["llm"]},
    {"include_tags": ["a"]},
    {"include_tags": ["z"]},
    {"include_names": ["other"], "include_tags": ["a"]},
    {"exclude_names": ["greeting"]},
    {"exclude_types": ["chat_model"]},
    {"exclude_types": ["tool"]},
    {"exclude_tags": ["b"]},
    {"exclude_tags": []},
    {"include_names": []},
    {"include_types": ["chat_model"], "exclude_tags": ["a"]},
]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_event_filters_work_as_in_langchain(filters: dict[str, list[str]]) -> None:
    """Each filter leaves out the same events."""
    config = {"tags": ["a"], "run_name": "greeting"}
    with LoopbackProvider("Hello") as provider:
        expected = their_events(provider, config=dict(config), **filters)
        found = events_of(ours(provider, tags=["b"]), config=dict(config), **filters)
    assert [event["event"] for event in found] == [event["event"] for event in expected]


# -- requests --------------------------------------------------------------------------------------------------


def tool_round() -> list[Any]:
    """Return a conversation with tool calls as LangChain's messages."""
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

    call = {"name": "weather", "args": {"city": "Zürich"}, "id": "call_1", "type": "tool_call"}
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
    return [
        SystemMessage("Be brief."),
        SystemMessage("Be kind.", additional_kwargs={"__openai_role__": "developer"}),
        HumanMessage([{"type": "text", "text": "Who is this?"}, picture], name="ann"),
        AIMessage("", tool_calls=[call], invalid_tool_calls=[
            {"name": "weather", "args": '{"city": "Zü', "id": "call_2", "error": None, "type": "invalid_tool_call"}
        ]),
        ToolMessage("20 °C", tool_call_id="call_1", name="weather"),
        ToolMessage("broken", tool_call_id="call_2", status="error"),
        AIMessage("A cat.", additional_kwargs={"refusal": None}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [
        tool_round,
        lambda: "Hi",
        lambda: [("system", "Be brief."), ("human", "Hi"), ("ai", "Hello"), ("user", "Ho")],
        lambda: [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "1"}],
        lambda: [{"role": "ai", "content": "", "tool_calls": [{"name": "f", "args": {}, "id": "call_1"}]}],
    ],
    ids=["langchain", "text", "pairs", "openai", "roles"],
)  # fmt: skip
def test_the_request_has_langchains_messages(given: Callable[[], Any]) -> None:
    """Each kind of input gives the same messages in the request."""
    with LoopbackProvider("Hello") as provider:
        theirs(provider).invoke(given())
        ours(provider).invoke(given())
    expected, found = [_parsed(request["body"]["messages"]) for request in provider.requests]
    assert found == expected


def _parsed(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parse the arguments of tool calls, because LangChain writes JSON with other spaces."""
    import json

    for message in messages:
        for call in message.get("tool_calls", []):
            try:
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
            except ValueError:
                pass  # invalid arguments are sent unchanged
        if message["role"] == "assistant" and not message.get("content"):
            message["content"] = None
    return messages
