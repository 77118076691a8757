"""`ChatAnthropic` returns what langchain-anthropic's `ChatAnthropic` returns with the same provider.

The comparisons leave out these intended differences. Model name, provider and the response's id come with the stop
reason, not with the first chunk. The last chunk is empty, as with all our models. Ids begin with `run-`. Handlers
receive tokens also where LangChain's chunks are lists and call no handler. The message of `invoke(streaming=True)` has
complete blocks, not a sum of pieces with their `index`. Errors are the SDK's.
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from recorder.models import ChatAnthropic
from recorder.testing import (
    Answer,
    LoopbackProvider,
    anthropic_messages_body,
    anthropic_messages_frames,
)
from recorder.wire import usage
from tests.anthropics import ASK, chat, stripped
from tests.chatting import CALL_STYLES, PLAIN, CallStyle, Log, name_of
from tests.genuine import Stream
from tests.wires import genuine_anthropic

langchain = pytest.importorskip("langchain_anthropic")

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)

TOOL = {"name": "weather", "description": "Of a city", "input_schema": {"type": "object", "properties": {}}}
CALL = {"id": "toolu_1", "name": "weather", "input": {"city": "Zürich"}}
THINKING = {"type": "enabled", "budget_tokens": 1024}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "Z"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [
        {"type": "web_search_result", "title": "Z", "url": "https://z.ch", "encrypted_content": "E=="}
    ],
}
REPLIES: dict[str, dict[str, Any]] = {
    "text": {"pieces": ["Hello", " there", "!"]},
    "nothing": {},
    "length": {"pieces": ["Hello"], "stop_reason": "max_tokens"},
    "stop sequence": {"pieces": ["Hello"], "stop_reason": "stop_sequence", "stop_sequence": "END"},
    "cache": {"pieces": ["Hi"], "usage": {"cache_read_input_tokens": 100, "cache_creation_input_tokens": 7}},
}
MORE: dict[str, dict[str, Any]] = {
    "only text": {"pieces": ["Hello", "!"]},
    "a call": {"tool_calls": [CALL]},
    "text and calls": {"pieces": ["Let me", " see."], "tool_calls": [CALL, {**CALL, "id": "toolu_2"}]},
    "thoughts": {
        "pieces": ["Yes"],
        "thinking": ["Hm", "m."],
        "signature": "Eq==",
        "redacted_thinking": "X==",
    },
    "a server's tool": {"pieces": ["See."], "blocks": [SEARCH, FOUND]},
}


def theirs(provider: LoopbackProvider, **options: Any) -> Any:
    """Return LangChain's model of this provider."""
    settings = {
        "model": ASK["model"], "base_url": provider.url, "api_key": "any", "max_retries": 0
    }  # fmt: skip
    return langchain.ChatAnthropic(**settings, **options)


def by_langchain(style: CallStyle, way: str, provider: LoopbackProvider, *args: Any, **more: Any) -> Any:
    """Return the answer of LangChain's model; `more["options"]` are options of the model, `more["tools"]` are bound."""
    model = theirs(provider, **more.pop("options", {}))
    if tools := more.pop("tools", None):
        model = model.bind_tools(tools)
    if style is PLAIN:
        return getattr(style, way)(model, *args, **more)

    async def main() -> Any:
        answer = getattr(model, f"a{way}")(*args, **more)
        found = [each async for each in answer] if way == "stream" else await answer
        bound = getattr(model, "bound", model)
        await bound._async_client.close()  # it is cached for all loops, but works in one only
        return found

    langchain.chat_models._get_default_async_httpx_client.cache_clear()
    return asyncio.run(main())


def seen(message: Any) -> dict[str, Any]:
    """Return the fields of a message or chunk that both libraries must have in common."""
    metadata = dict(message.response_metadata)
    for name in ("model_provider", "id", "model_name", "model", "usage"):
        metadata.pop(name, None)
    return {
        "class": type(message).__name__,
        "content": stripped(message.content),
        "response_metadata": stripped(metadata),
        "additional_kwargs": message.additional_kwargs,
        "tool_calls": message.tool_calls,
        "invalid_tool_calls": [{**call, "error": None} for call in message.invalid_tool_calls],
        "tool_call_chunks": [dict(call) for call in getattr(message, "tool_call_chunks", [])],
        "usage_metadata": stripped(message.usage_metadata),
        "id": message.id.removeprefix("lc_").replace("run--", "run-"),
    }


def content_chunks(chunks: list[Any]) -> list[dict[str, Any]]:
    """Return all chunks except those that only begin or end the message."""
    shown = [seen(chunk) for chunk in chunks]
    return [each for each in shown if each["content"] or each["usage_metadata"] or each["tool_call_chunks"]]


def sum_of(chunks: list[Any]) -> Any:
    """Add up the chunks one by one."""
    answer = chunks[0]
    for chunk in chunks[1:]:
        answer = answer + chunk
    return answer


def models(provider: LoopbackProvider, options: dict[str, Any], tools: list[Any] | None) -> ChatAnthropic:
    """Return our model of this provider."""
    model = chat(provider, **{"model": ASK["model"], **options})
    return model.bind_tools(tools) if tools else model


@both
@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_chunks_of_text_equal_langchains(style: CallStyle, reply: dict[str, Any]) -> None:
    """The chunks come in the same order, and their sums are equal."""
    config = {"run_id": uuid4()}
    with LoopbackProvider(Answer(frames=anthropic_messages_frames(**reply))) as provider:
        expected = by_langchain(style, "stream", provider, "Hi", dict(config))
        found = style.stream(chat(provider), "Hi", dict(config))
    assert content_chunks(found) == content_chunks(expected)
    assert seen(sum_of(found)) == seen(sum_of(expected))
    assert sum_of(found).response_metadata["model_name"] == sum_of(expected).response_metadata["model_name"]


@both
@pytest.mark.parametrize("reply", MORE.values(), ids=MORE)
def test_chunks_of_blocks_equal_langchains(style: CallStyle, reply: dict[str, Any]) -> None:
    """With tools and thinking the content of each chunk is a list of blocks."""
    config = {"run_id": uuid4()}
    options, tools = {"thinking": THINKING}, [TOOL]
    with LoopbackProvider(Answer(frames=anthropic_messages_frames(**reply))) as provider:
        expected = by_langchain(style, "stream", provider, "Hi", dict(config), options=options, tools=tools)
        found = style.stream(models(provider, options, tools), "Hi", dict(config))
    # LangChain has a chunk with empty arguments for the beginning of each call.
    pieces = [
        each
        for each in content_chunks(expected)
        if [block.get("partial_json") for block in each["content"]] != [""]
    ]
    assert content_chunks(found) == pieces
    assert seen(sum_of(found)) == seen(sum_of(expected))
    assert [type(chunk.content) for chunk in found[:-1]] == [list] * (len(found) - 1)


@both
@pytest.mark.parametrize("reply", [*REPLIES.values(), *MORE.values()], ids=[*REPLIES, *MORE])
def test_the_message_of_invoke_equals_langchains(style: CallStyle, reply: dict[str, Any]) -> None:
    """Content, calls, metadata and usage are the same."""
    with LoopbackProvider(Answer(body=anthropic_messages_body(**reply))) as provider:
        config = {"run_id": uuid4()}
        expected = by_langchain(style, "invoke", provider, "Hi", dict(config), tools=[TOOL])
        found = style.invoke(models(provider, {}, [TOOL]), "Hi", dict(config))
    given = seen(expected)
    given["id"] = given["id"].removesuffix("-0")
    given["content"] = given["content"] or ""
    assert seen(found) == given
    names = ("model_name", "model", "id", "model_provider")
    assert [found.response_metadata[name] for name in names] == [
        expected.response_metadata[name] for name in names
    ]
    assert stripped(found.response_metadata["usage"]) == stripped(expected.response_metadata["usage"])


@genuine_anthropic
def test_genuine_streams_give_langchains_message(stream: Stream) -> None:
    """The chunks of every genuine stream have the same sum."""
    body = stream.request or {}
    options = {"thinking": THINKING, "context_management": body.get("context_management"), "betas": ["x"]}
    config = {"run_id": uuid4()}
    with LoopbackProvider(Answer(frames=[stream.body])) as provider:
        expected = sum_of(
            by_langchain(PLAIN, "stream", provider, "Hi", dict(config), options=options, tools=[TOOL])
        )
        found = sum_of(PLAIN.stream(models(provider, options, [TOOL]), "Hi", dict(config)))
    ours, their = seen(found), seen(expected)
    for each in (ours, their):
        each["content"] = [known(block) for block in each["content"]]
        each["response_metadata"].get("container", {}).pop("expires_at", None)
    assert ours == their


def known(block: dict[str, Any]) -> dict[str, Any]:
    """Return a block without the keys that LangChain leaves out or writes differently."""
    return {
        key: value for key, value in block.items() if key not in ("stop_reason", "caller", "partial_json")
    } | (
        {"content": {**content, "stop_reason": None}}
        if isinstance(content := block.get("content"), dict) and "stop_reason" in content
        else {}
    )


USAGES: list[dict[str, Any]] = [
    {"input_tokens": 10, "output_tokens": 5},
    {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 7},
    {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 107,
     "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 7}},
    {"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 0,
     "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}},
    {"input_tokens": 10, "output_tokens": 5, "output_tokens_details": {"thinking_tokens": 3}},
    {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": None, "cache_creation": None},
    {"input_tokens": 0, "output_tokens": 0},
]  # fmt: skip


@pytest.mark.parametrize("raw", USAGES, ids=str)
def test_usage_equals_langchains(raw: dict[str, Any]) -> None:
    """Anthropic's usage is counted as LangChain's function counts it."""
    anthropic = pytest.importorskip("anthropic")
    expected = langchain.chat_models._create_usage_metadata(anthropic.types.Usage.model_validate(raw))
    assert usage.from_anthropic(raw) == expected


@both
def test_metadata_equal_those_of_langchain_anthropic(style: CallStyle) -> None:
    """`ls_provider` and the other metadata have the same values."""
    handler: Any = pytest.importorskip("langchain_core.callbacks").BaseCallbackHandler
    their, our = Log(), Log()

    class LangChainLog(handler):  # type: ignore[misc]
        def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
            their.on_chat_model_start(*args, **kwargs)

    options = {"temperature": 0.5, "max_tokens": 7, "metadata": {"team": "blue"}}
    with LoopbackProvider("Hello") as provider:
        by_langchain(style, "invoke", provider, "Hi", {"callbacks": [LangChainLog()]}, options=options)
        style.invoke(models(provider, options, None), "Hi", {"callbacks": [our]})
    expected, found = (log.calls_of("on_chat_model_start")[0][1]["metadata"] for log in (their, our))
    assert found == {key: expected[key] for key in expected if key not in ("ls_integration", "lc_versions")}


@both
def test_the_request_equals_langchains(style: CallStyle) -> None:
    """Options, tools and messages are the same in the request's body."""
    messages = pytest.importorskip("langchain_core.messages")
    given = [messages.SystemMessage("Be brief."), messages.HumanMessage("Hi")]
    options = {
        "temperature": 0.5,
        "top_k": 3,
        "stop_sequences": ["END"],
        "thinking": THINKING,
        "max_tokens": 2048,
    }
    with LoopbackProvider("Hello") as provider:
        by_langchain(style, "stream", provider, given, options=options, tools=[TOOL])
        style.stream(models(provider, options, [TOOL]), given)
    expected, found = [request["body"] for request in provider.requests]
    assert found == expected
