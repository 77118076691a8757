"""`ChatOpenAI` sends the requests to Responses that langchain-openai's `ChatOpenAI` sends, and reads the same answers.

The comparisons leave out these intended differences. The content of our messages is their text; LangChain's is a list
of blocks. Stop sequences, which this API does not have, are refused; LangChain drops them without a word. LangChain
also drops the temperature for some models. Arguments of calls are written without spaces, and no empty text is sent
beside calls.
"""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import openai
import pytest

from recorder.testing import Answer, LoopbackProvider, openai_responses_frames
from tests.chatting import CALL_STYLES, PLAIN, CallStyle, chat, name_of
from tests.genuine import MISSING, Stream, responses_streams
from tests.genuine import name_of as name_of_stream

langchain = pytest.importorskip("langchain_openai")
messages: Any = pytest.importorskip("langchain_core.messages")

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)
STREAMS = responses_streams()
each_stream = pytest.mark.parametrize(
    "stream",
    STREAMS or [pytest.param(None, marks=pytest.mark.skip(reason=MISSING), id="none")],
    ids=name_of_stream if STREAMS else None,
)
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}},
}


def theirs(provider: LoopbackProvider, **options: Any) -> Any:
    """Return LangChain's model of this provider."""
    settings = {"model": "gpt-4o", "base_url": provider.base_url, "api_key": "any", "max_retries": 0}
    return langchain.ChatOpenAI(**{**settings, **options})


def by_langchain(style: CallStyle, provider: LoopbackProvider, given: Any, **options: Any) -> Any:
    """Return the sum of the chunks of LangChain's model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LangChain and the SDK warn of fields that they do not know
        if style is PLAIN:
            return sum_of(list(theirs(provider, **options).stream(given)))

        async def main() -> Any:
            async with openai.DefaultAsyncHttpxClient(verify=False) as http:
                model = theirs(provider, http_async_client=http, **options)
                return sum_of([chunk async for chunk in model.astream(given)])

        return asyncio.run(main())


def sum_of(chunks: list[Any]) -> Any:
    """Add up the chunks one by one."""
    answer = chunks[0]
    for chunk in chunks[1:]:
        answer = answer + chunk
    return answer


def bodies(provider: LoopbackProvider) -> list[Any]:
    """Return path and body of each request."""
    return [(request["path"], request["body"]) for request in provider.requests]


# -- answers ---------------------------------------------------------------------------------------------------


@pytest.mark.matrix
@each_stream
@both
def test_a_genuine_answer_equals_langchains(style: CallStyle, stream: Stream) -> None:
    """Text, calls, usage, status and ids are the same."""
    with LoopbackProvider(Answer(frames=[stream.body])) as provider:
        expected = by_langchain(style, provider, "Hi", use_responses_api=True)
        found = sum_of(style.stream(chat(provider, use_responses_api=True), "Hi"))
    assert found.text == str(expected.text)
    names = {call["name"] for call in expected.tool_calls}
    plain = [{key: call[key] for key in call if key != "extras"} for call in found.tool_calls]
    assert [call for call in plain if call["name"] in names] == expected.tool_calls
    for key in ("input_tokens", "output_tokens", "total_tokens"):
        assert found.usage_metadata[key] == expected.usage_metadata[key]
    for key in ("id", "status", "model_name", "service_tier"):
        assert found.response_metadata.get(key) == expected.response_metadata.get(key)


# -- requests --------------------------------------------------------------------------------------------------


def conversations() -> dict[str, list[Any]]:
    """Return conversations in LangChain's messages."""
    call = {"name": "weather", "args": {"city": "Bern"}, "id": "c", "type": "tool_call"}
    image = {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}}
    file = {"type": "file", "file": {"file_data": "QQ==", "filename": "a.pdf"}}
    human, ai, tool = messages.HumanMessage, messages.AIMessage, messages.ToolMessage
    return {
        "text": [messages.SystemMessage("Be brief."), human("Hi"), ai("Ho"), human("And?")],
        "blocks": [human([{"type": "text", "text": "What is it?"}, image, file])],
        "calls": [human("Hi"), ai("", tool_calls=[call]), tool("warm", tool_call_id="c")],
        "text and calls": [human("Hi"), ai([{"type": "text", "text": "So."}], tool_calls=[call]),
                           tool([{"type": "text", "text": "warm"}], tool_call_id="c")],
        "computer": [human("Hi"), tool("u", tool_call_id="c", additional_kwargs={"type": "computer_call_output"})],
        "approval": [human([{"type": "mcp_approval_response", "approval_request_id": "a", "approve": True}])],
    }  # fmt: skip


def as_we_write(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body of LangChain without spaces in arguments, and without the empty text that it sends before calls."""
    items = [
        {**item, "arguments": item["arguments"].replace(": ", ":")} if "arguments" in item else item
        for item in body["input"]
        if item.get("content") != [{"type": "output_text", "text": "", "annotations": []}]
    ]
    return {**body, "input": items}


@pytest.mark.parametrize("name", conversations())
def test_messages_are_sent_as_langchain_sends_them(name: str) -> None:
    """LangChain's messages and ours give the same items."""
    with LoopbackProvider("Hello") as provider:
        by_langchain(PLAIN, provider, conversations()[name], use_responses_api=True)
        PLAIN.stream(chat(provider, use_responses_api=True), conversations()[name])
    (path, expected), found = bodies(provider)
    assert (path, as_we_write(expected)) == found


OPTIONS: list[dict[str, Any]] = [
    {},
    {"use_responses_api": True, "max_tokens": 7, "reasoning_effort": "low", "verbosity": "low"},
    {"reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"], "truncation": "auto"},
    {"use_responses_api": True, "store": False, "service_tier": "flex", "top_p": 0.5},
    {"use_responses_api": False, "model": "gpt-5-pro"},
    {"model": "gpt-5-pro"},
    {"model": "gpt-5.1-codex"},
    {"use_previous_response_id": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_are_sent_as_langchain_sends_them(options: dict[str, Any]) -> None:
    """To the same API."""
    with LoopbackProvider("Hello") as provider:
        by_langchain(PLAIN, provider, "Hi", **options)
        PLAIN.stream(chat(provider, **options), "Hi")
    (path, expected), (our_path, found) = bodies(provider)
    found.pop("stream_options", None)
    assert our_path == path
    if path.endswith("/responses"):
        assert found == expected


TOOLS: list[tuple[list[Any], dict[str, Any]]] = [
    ([TOOL, {"type": "web_search"}], {}),
    ([TOOL, {"type": "web_search"}], {"tool_choice": "weather"}),
    ([TOOL, {"type": "web_search"}], {"tool_choice": "web_search"}),
    ([TOOL, {"type": "web_search"}], {"tool_choice": "any", "parallel_tool_calls": False}),
    ([TOOL], {"truncation": "auto", "tool_choice": True}),
]


@pytest.mark.parametrize(("tools", "options"), TOOLS, ids=str)
def test_tools_are_sent_as_langchain_sends_them(tools: list[Any], options: dict[str, Any]) -> None:
    """Functions are flat, OpenAI's own tools are unchanged."""
    with LoopbackProvider("Hello") as provider:
        list(theirs(provider).bind_tools(tools, **options).stream("Hi"))
        PLAIN.stream(chat(provider).bind_tools(tools, **options), "Hi")
    expected, found = bodies(provider)
    assert found == expected


# -- the reply is sent back ------------------------------------------------------------------------------------


@pytest.mark.matrix
@each_stream
def test_a_reply_of_langchain_is_sent_back_as_langchain_sends_it(stream: Stream) -> None:
    """An application may change the model in the middle of a conversation."""
    with LoopbackProvider(Answer(frames=[stream.body])) as provider:
        reply = by_langchain(PLAIN, provider, "Hi", use_responses_api=True)
        given = [messages.HumanMessage("Hi"), reply, messages.HumanMessage("And?")]
        by_langchain(PLAIN, provider, given, use_responses_api=True)
        PLAIN.stream(chat(provider, use_responses_api=True), given)
    _, expected, found = bodies(provider)
    assert found == expected


@both
def test_the_newest_response_is_continued_as_in_langchain(style: CallStyle) -> None:
    """Only the new message is sent."""
    frames = openai_responses_frames(["Hello"], id="resp_1", created=1)
    with LoopbackProvider(Answer(frames=frames)) as provider:
        reply = by_langchain(style, provider, "Hi", use_responses_api=True)
        given = [messages.HumanMessage("Hi"), reply, messages.HumanMessage("And?")]
        by_langchain(style, provider, given, use_previous_response_id=True)
        style.stream(chat(provider, use_previous_response_id=True), given)
    _, expected, found = bodies(provider)
    assert found == expected
    assert found[1]["previous_response_id"] == "resp_1"
