"""`ChatOpenAI(use_responses_api=True)`: our model over OpenAI's Responses API, with a scripted provider."""

from __future__ import annotations

import asyncio
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any
from uuid import uuid4

import openai
import pytest

from recorder.errors import ConfigError
from recorder.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from recorder.messages.identity import path_ids
from recorder.models import AzureChatOpenAI, ChatOpenAI
from recorder.replay import NotRecorded, Replay
from recorder.testing import (
    Answer,
    LoopbackProvider,
    openai_responses_body,
    openai_responses_error_frame,
    openai_responses_frames,
    scripted,
)
from recorder.wire.openai.responses_request import responses_messages
from recorder.wire.recorded_run import value_of
from tests.alike import assert_alike, forms_of
from tests.chatting import CALL_STYLES, PLAIN, CallStyle, Log, chat, history_at, name_of, recorded, runs
from tests.genuine import MISSING, Stream, responses_streams
from tests.genuine import name_of as name_of_stream
from tests.oracle import new_url, sql
from tests.responses import created, ended

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)
STREAMS = responses_streams()
each_stream = pytest.mark.parametrize(
    "stream",
    STREAMS or [pytest.param(None, marks=pytest.mark.skip(reason=MISSING), id="none")],
    ids=name_of_stream if STREAMS else None,
)
CALL = {"id": "call_1", "name": "weather", "arguments": '{"city": "Zürich"}'}
FUNCTION = {"name": "weather", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}
SEARCH = {"type": "web_search"}
SECRET = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAA"}


def responses(provider: LoopbackProvider, **options: Any) -> ChatOpenAI:
    """Return a model of this provider that uses Responses."""
    return chat(provider, **{"use_responses_api": True, **options})


def sum_of(chunks: list[Any]) -> Any:
    """Return the sum of the chunks."""
    return chunks[0] + chunks[1:]


def sent(provider: LoopbackProvider, number: int = 0) -> dict[str, Any]:
    """Return the body of a request."""
    body: dict[str, Any] = provider.requests[number]["body"]
    return body


def user(text: str) -> dict[str, Any]:
    """Return the item of a user's message."""
    return {"type": "message", "role": "user", "content": text}


# -- answers ---------------------------------------------------------------------------------------------------


@both
def test_the_sum_of_the_chunks_has_all_fields(style: CallStyle) -> None:
    """It has content, usage, status and the id of the response; the request asks for no usage."""
    with LoopbackProvider("Hello there!") as provider:
        chunks = style.stream(responses(provider), "Hi")
    assert [chunk.content for chunk in chunks if chunk.content] == ["Hello", " there", "!"]
    answer = sum_of(chunks)
    assert answer.usage_metadata["output_tokens"] == 3
    metadata = answer.response_metadata
    assert (metadata["status"], metadata["finish_reason"]) == ("completed", "stop")
    assert (metadata["model_name"], metadata["model_provider"]) == ("gpt-4o-2024-08-06", "openai")
    assert metadata["id"].startswith("resp_")
    assert {chunk.id for chunk in chunks} == {answer.id}
    assert chunks[-1].chunk_position == "last"
    assert provider.requests[0]["path"] == "/v1/responses"
    assert sent(provider) == {"model": "gpt-4o", "input": [user("Hi")], "stream": True}


@both
def test_invoke_returns_the_final_message(style: CallStyle) -> None:
    """The request has no stream."""
    run_id = uuid4()
    with LoopbackProvider("Hello there!") as provider:
        answer = style.invoke(responses(provider), "Hi", {"run_id": run_id})
    assert type(answer) is AIMessage
    assert (answer.content, answer.id) == ("Hello there!", f"run-{run_id}")
    assert answer.usage_metadata is not None
    assert answer.response_metadata["token_usage"]["total_tokens"] == answer.usage_metadata["total_tokens"]
    assert "stream" not in sent(provider)


@both
def test_streamed_and_complete_answers_are_equal(style: CallStyle) -> None:
    """Text, reasoning, calls, other items and what is sent back are the same."""
    fields: dict[str, Any] = {"id": "resp_1", "reasoning": ["Hm."], "tool_calls": [CALL], "created": 1,
                              "items": [{"id": "ws_1", "type": "web_search_call", "status": "completed"}]}  # fmt: skip
    answers = scripted(
        Answer(frames=openai_responses_frames(["Wait."], **fields)),
        Answer(body=openai_responses_body(["Wait."], **fields)),
    )
    with LoopbackProvider(answers) as provider:
        streamed = sum_of(style.stream(responses(provider), "Hi"))
        answer = style.invoke(responses(provider), "Hi")
    assert streamed.tool_calls == answer.tool_calls
    assert streamed.tool_calls[0]["args"] == {"city": "Zürich"}
    assert streamed.additional_kwargs == answer.additional_kwargs
    assert streamed.additional_kwargs["reasoning_content"] == "Hm."
    assert streamed.usage_metadata == answer.usage_metadata
    del answer.response_metadata["token_usage"]
    assert streamed.response_metadata == answer.response_metadata


@both
def test_all_methods_use_the_api(style: CallStyle) -> None:
    """`batch`, `generate` and `invoke` with handlers ask for responses, too."""
    log = Log()
    with LoopbackProvider("Hello there!") as provider:
        model = responses(provider, callbacks=[log])
        assert [each.content for each in style.batch(model, ["a", "b"])] == ["Hello there!"] * 2
        result = style.generate(model, [["a"], ["b"]])
        assert style.invoke(model.bind(stream=True), "Hi").content == "Hello there!"
    assert [choices[0].text for choices in result.generations] == ["Hello there!"] * 2
    assert result.llm_output["token_usage"]["output_tokens"] == 6
    assert [token for token in log.tokens if token] == ["Hello", " there", "!"]
    assert {request["path"] for request in provider.requests} == {"/v1/responses"}


def test_astream_events_has_langchains_events() -> None:
    """A start, one event for each chunk, and an end with the sum."""

    async def main(model: ChatOpenAI) -> list[dict[str, Any]]:
        return [event async for event in model.astream_events("Hi")]

    with LoopbackProvider("Hello there!") as provider:
        events = asyncio.run(main(responses(provider)))
    names = [event["event"].removeprefix("on_chat_model_") for event in events]
    assert (names[0], names[-1], set(names[1:-1])) == ("start", "end", {"stream"})
    assert events[-1]["data"]["output"].content == "Hello there!"


@both
def test_a_background_answer_is_returned_before_it_is_complete(style: CallStyle) -> None:
    """It has no content yet; its id and its status say where it stands."""
    body = b'{"id":"resp_1","object":"response","status":"queued","model":"gpt-5","output":[]}'
    with LoopbackProvider(Answer(body=body)) as provider:
        answer = style.invoke(responses(provider, background=True), "Hi")
    assert (answer.content, answer.response_metadata["status"], answer.response_metadata["id"]) == (
        "", "queued", "resp_1",
    )  # fmt: skip
    assert sent(provider)["background"] is True


# -- which API -------------------------------------------------------------------------------------------------

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
CHOICES: list[tuple[dict[str, Any], str]] = [
    ({}, CHAT),
    ({"temperature": 0.5, "tools": [TOOL], "reasoning_effort": "low", "verbosity": "low"}, CHAT),
    ({"tools": [{"type": "custom", "custom": {"name": "run"}}]}, CHAT),
    ({"reasoning": None, "include": None}, CHAT),
    ({"tools": [TOOL, SEARCH]}, RESPONSES),
    ({"reasoning": {"effort": "low"}}, RESPONSES),
    ({"include": ["reasoning.encrypted_content"]}, RESPONSES),
    ({"truncation": "auto"}, RESPONSES),
    ({"text": {"verbosity": "low"}}, RESPONSES),
    ({"previous_response_id": "resp_1"}, RESPONSES),
    ({"context_management": [{"type": "compaction"}]}, RESPONSES),
    ({"instructions": "Be brief."}, RESPONSES),
    ({"use_previous_response_id": True}, RESPONSES),
    ({"model": "gpt-5-pro"}, RESPONSES),
    ({"model": "gpt-5.1-codex"}, RESPONSES),
    ({"model": "gpt-6-astra"}, CHAT),
    ({"model": "gpt-6-astra", "tools": [TOOL]}, RESPONSES),
    ({"use_responses_api": False, "tools": [SEARCH], "model": "gpt-5-pro"}, CHAT),
    ({"use_responses_api": True}, RESPONSES),
]


@pytest.mark.parametrize(("options", "path"), CHOICES, ids=lambda value: str(value))
def test_the_api_is_chosen_by_what_the_request_needs(options: dict[str, Any], path: str) -> None:
    """Options of the model and of the call count alike."""
    with LoopbackProvider("Hello") as provider:
        chat(provider, **options).invoke("Hi")
        settings = {key: options[key] for key in options if key.startswith("use_")}
        call = {key: options[key] for key in options if not key.startswith("use_")}
        chat(provider, **settings).invoke("Hi", **call)
    assert [request["path"] for request in provider.requests] == [path, path]


@both
def test_azure_has_both_apis(style: CallStyle) -> None:
    """The body names the deployment, because the URL of Responses does not."""
    settings: dict[str, Any] = {
        "azure_deployment": "my-gpt",
        "model": "gpt-4o",
        "api_version": "v",
        "api_key": "any",
    }
    with LoopbackProvider("Hello") as provider:
        model = AzureChatOpenAI(azure_endpoint=provider.url, **settings)
        style.invoke(model, "Hi")
        style.invoke(model, "Hi", tools=[SEARCH])
    first, second = provider.requests
    assert (first["path"].partition("?")[0], first["body"]["model"]) == (
        "/openai/deployments/my-gpt/chat/completions",
        "gpt-4o",
    )
    assert (second["path"].partition("?")[0], second["body"]["model"]) == ("/openai/responses", "my-gpt")


# -- options ---------------------------------------------------------------------------------------------------

SCHEMA = {"name": "city", "schema": {"type": "object"}, "strict": True}
OPTIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_tokens": 7}, {"max_output_tokens": 7}),
    ({"max_completion_tokens": 7}, {"max_output_tokens": 7}),
    ({"max_tokens": 7, "max_output_tokens": 9}, {"max_output_tokens": 9}),
    ({"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
    (
        {"reasoning_effort": "low", "reasoning": {"summary": "auto"}},
        {"reasoning": {"effort": "low", "summary": "auto"}},
    ),
    ({"verbosity": "low"}, {"text": {"verbosity": "low"}}),
    ({"response_format": {"type": "json_object"}}, {"text": {"format": {"type": "json_object"}}}),
    (
        {"response_format": {"type": "json_schema", "json_schema": SCHEMA}, "verbosity": "low"},
        {"text": {"format": {"type": "json_schema", **SCHEMA}, "verbosity": "low"}},
    ),
    ({"response_format": SCHEMA}, {"text": {"format": {"type": "json_schema", **SCHEMA}}}),
    ({"tools": [TOOL, SEARCH]}, {"tools": [{"type": "function", **FUNCTION}, SEARCH]}),
    ({"tools": [{**TOOL, "defer_loading": True}]},
     {"tools": [{"type": "function", **FUNCTION, "defer_loading": True}]}),
    ({"tools": [{"type": "custom", "custom": {"name": "run"}}]}, {"tools": [{"type": "custom", "name": "run"}]}),
    ({"tool_choice": {"type": "function", "function": {"name": "weather"}}},
     {"tool_choice": {"type": "function", "name": "weather"}}),
    ({"tool_choice": "required", "truncation": "auto", "store": False, "temperature": 0.5},
     {"tool_choice": "required", "truncation": "auto", "store": False, "temperature": 0.5}),
    ({"stop": None, "stop_sequences": [], "temperature": None}, {}),
    ({"instructions": "Be brief.", "user": "u", "temperature": None}, {"instructions": "Be brief.", "user": "u"}),
]  # fmt: skip


@pytest.mark.parametrize(("options", "expected"), OPTIONS, ids=lambda value: str(value)[:40])
def test_options_get_the_names_and_forms_of_responses(
    options: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Others are sent as they are given."""
    with LoopbackProvider("Hello") as provider:
        responses(provider, **options).invoke("Hi")
    assert sent(provider) == {"model": "gpt-4o", "input": [user("Hi")], **expected}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [(None, None), ("auto", "auto"), ("any", "required"), (True, "required"), ("none", "none"),
     ("weather", {"type": "function", "name": "weather"}), ("web_search", {"type": "web_search"}),
     ("run", {"type": "custom", "name": "run"})],
)  # fmt: skip
def test_tool_choice_accepts_langchains_and_openais_values(choice: Any, expected: Any) -> None:
    """The name of a function or a custom tool, or the type of a built-in tool, chooses it."""
    with LoopbackProvider("Hello") as provider:
        tools = [TOOL, SEARCH, {"type": "custom", "name": "run"}]
        responses(provider).bind_tools(tools, tool_choice=choice).invoke("Weather?")
    assert sent(provider).get("tool_choice") == expected


@both
def test_options_without_a_place_are_refused(style: CallStyle, tmp_path: Path) -> None:
    """The error says what to do, and the run that failed is recorded."""
    with LoopbackProvider("Hello") as provider, history_at(tmp_path) as history:
        with pytest.raises(ConfigError, match=r"no stop sequences; leave out stop.*use_responses_api=False"):
            style.invoke(responses(provider, callbacks=[history]), "Hi", stop=["END"])
        with pytest.raises(ConfigError, match="response_format is 5; pass a dict in OpenAI's form"):
            style.invoke(responses(provider), "Hi", response_format=5)
        assert provider.requests == []
    (run,) = runs(history.recorder.url)
    assert (run["status"], run["wire"]) == ("error", "openai.responses")


def test_an_unknown_option_raises_the_sdks_error() -> None:
    """It is the same error as with chat completions."""
    with LoopbackProvider("Hello") as provider, pytest.raises(TypeError, match="mood"):
        responses(provider).invoke("Hi", mood="good")


def test_metadata_and_parameters_describe_the_request() -> None:
    """Handlers get LangSmith's metadata, and the body without the messages."""
    log = Log()
    with LoopbackProvider("Hello") as provider:
        responses(provider, callbacks=[log], max_tokens=7, instructions="Be brief.").invoke("Hi")
    ((_, details),) = log.calls_of("on_chat_model_start")
    assert details["metadata"]["ls_max_tokens"] == 7
    assert details["invocation_params"] == {"model": "gpt-4o", "max_output_tokens": 7}
    assert details["wire"] == "openai.responses"


# -- the reply is sent back ------------------------------------------------------------------------------------


def items_in(stream: Stream) -> list[dict[str, Any]]:
    """Return the items of a stream as the API sent them first; later events encrypt their reasoning again."""
    lines = [line[6:] for line in stream.body.decode().splitlines() if line.startswith("data: ")]
    events = [value_of(line) for line in lines]
    return [event["item"] for event in events if event["type"] == "response.output_item.done"]


def without(value: Any, *keys: str) -> Any:
    """Return the value without these keys, at any depth."""
    if isinstance(value, list):
        return [without(each, *keys) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: without(value[key], *keys) for key in value if key not in keys}


def is_one_message(items: list[dict[str, Any]]) -> bool:
    """Return whether the items are one message, which OpenAI needs no id of."""
    return [item["type"] for item in items] == ["message"]


@pytest.mark.matrix
@each_stream
@both
def test_a_genuine_reply_that_is_sent_back_is_the_recorded_one(style: CallStyle, stream: Stream) -> None:
    """Its items are those of the response, and the request that has them continues the conversation."""
    question, again = HumanMessage("Hi"), HumanMessage("And?")
    with LoopbackProvider(Answer(frames=[stream.body])) as provider:
        reply = sum_of(style.stream(responses(provider), [question]))
        style.stream(responses(provider), [question, reply, again])
    first, *items, last = sent(provider, 1)["input"]
    assert (first, last) == (user("Hi"), user("And?"))
    expected = items_in(stream)
    if is_one_message(expected):
        assert without(items, "type") == without(expected, "id", "status", "logprobs", "type")
    elif b'"store":false' not in stream.body:
        assert items == without(expected, "logprobs")
    assert path_ids("c", responses_messages(sent(provider, 1))) == path_ids("c", [question, reply, again])


@pytest.mark.matrix
@each_stream
@both
def test_all_forms_of_a_genuine_answer_are_alike(style: CallStyle, stream: Stream, tmp_path: Path) -> None:
    """The chunks, the stored message, the replayed tokens and the replayed model have the same content."""
    found = forms_of(responses, stream.body, style, tmp_path)
    assert_alike(found)
    assert (found.error, found.run["status"]) == (None, "complete")
    one_by_one = reduce(add, found.chunks)
    assert one_by_one.response_metadata == found.live.response_metadata


@pytest.mark.matrix
@each_stream
def test_a_genuine_conversation_is_stored_once(stream: Stream, tmp_path: Path) -> None:
    """With the reply as the model returned it, and with the stored one: two turns have four messages."""
    url = new_url(tmp_path)
    with (
        LoopbackProvider(Answer(frames=[stream.body])) as provider,
        history_at(url, conversation_id="c") as history,
    ):
        model = responses(provider, callbacks=[history], instructions="Be brief.")
        reply = model.invoke("Hi", stream=True)
        history.flush().wait()
        with Replay(url) as replay:
            stored = replay.messages("c")
        model.invoke([HumanMessage("Hi"), reply, HumanMessage("And?")], stream=True)
        responses(provider, callbacks=[history]).invoke([*stored, HumanMessage("And?")], stream=True)
    assert sent(provider, 2)["input"] == [
        {"type": "message", "role": "system", "content": "Be brief."},
        *sent(provider, 1)["input"],
    ]
    rows = sql(url, "SELECT role, position FROM messages ORDER BY position")
    assert rows == [("user", 0), ("assistant", 1), ("user", 2), ("assistant", 3)]
    assert sql(url, "SELECT content FROM context_messages") == [("Be brief.",)]


def reply_with(*items: dict[str, Any], **fields: Any) -> Answer:
    """Return an answer with reasoning, these items, a text and a call."""
    frames = openai_responses_frames(
        ["Let me see."], id="resp_1", items=items, tool_calls=[CALL], created=1, **fields
    )
    return Answer(frames=frames)


def sent_back(answer: Answer, change: Any = None, **options: Any) -> list[dict[str, Any]]:
    """Return the items of the reply in a second request with these options."""
    with LoopbackProvider(answer) as provider:
        reply = sum_of(PLAIN.stream(responses(provider), "Hi"))
        reply = (change or (lambda given: given))(reply)
        messages = [HumanMessage("Hi"), reply, ToolMessage("warm", "call_1")]
        responses(provider, **options).invoke(messages, stream=True)
        (_, *items, result) = sent(provider, 1)["input"]
    found: list[dict[str, Any]] = items
    assert result == {"type": "function_call_output", "call_id": "call_1", "output": "warm"}
    return found


def test_encrypted_reasoning_is_sent_back_with_the_ids_of_the_items() -> None:
    """The items have their order."""
    items = sent_back(reply_with(SECRET))
    assert [item["id"] for item in items] == ["rs_1", "msg_1", "fc_0_1"]
    assert items[0] == SECRET
    assert items[2] == {"type": "function_call", "id": "fc_0_1", "call_id": "call_1", "name": "weather",
                        "arguments": '{"city":"Zürich"}', "status": "completed"}  # fmt: skip


def plain_items() -> list[dict[str, Any]]:
    """Return the text and the call of `reply_with` without ids of items."""
    text = {"type": "output_text", "text": "Let me see.", "annotations": []}
    call = {key: CALL[key] for key in ("name",)} | {"arguments": '{"city":"Zürich"}'}
    return [
        {"type": "message", "role": "assistant", "content": [text]},
        {"type": "function_call", "call_id": "call_1", **call},
    ]


def test_another_host_gets_the_text_and_the_calls() -> None:
    """Encrypted reasoning and ids are known only to the host that sent them."""
    with LoopbackProvider("Hello") as other:
        reply = None
        with LoopbackProvider(reply_with(SECRET)) as provider:
            reply = responses(provider).invoke("Hi", stream=True)
        responses(other).invoke([HumanMessage("Hi"), reply])
        assert sent(other)["input"][1:] == plain_items()


def changed_text(reply: Any) -> AIMessage:
    """Return the reply with another text."""
    return AIMessage("Let me see", tool_calls=reply.tool_calls, response_metadata=reply.response_metadata)


def test_a_reply_that_the_application_changed_is_sent_without_its_items() -> None:
    """Its reasoning would not lead to this text."""
    text, call = sent_back(reply_with(SECRET), changed_text)
    assert (text["content"][0]["text"], call) == ("Let me see", plain_items()[1])
    assert "id" not in text


def test_a_request_that_is_not_stored_has_no_ids_that_openai_does_not_know() -> None:
    """Messages have none, and reasoning is sent only if it is encrypted."""
    items = sent_back(reply_with(SECRET, reasoning=["Hm."]), store=False)
    assert [(item["type"], item.get("id")) for item in items] == [
        ("reasoning", "rs_1"), ("message", None), ("function_call", "fc_0_1"),
    ]  # fmt: skip


def test_reasoning_without_an_item_after_it_is_left_out() -> None:
    """OpenAI refuses it. An answer that the limit ended while the model was thinking has no text."""
    details = {"incomplete_details": {"reason": "max_output_tokens"}}
    frames = [created(), ended("incomplete", SECRET, **details)]
    with LoopbackProvider(Answer(frames=frames)) as provider:
        reply = responses(provider).invoke("Hi", stream=True)
        responses(provider).invoke([HumanMessage("Hi"), reply, HumanMessage("And?")], stream=True)
    assert [item["type"] for item in sent(provider, 1)["input"]] == ["message"] * 3


def test_an_image_that_openai_stored_is_named_by_its_id() -> None:
    """It may have megabytes. Without `store` it is sent."""
    image = {"id": "ig_1", "type": "image_generation_call", "status": "completed", "result": "QQ=="}
    assert sent_back(reply_with(image))[0] == {"id": "ig_1", "type": "image_generation_call"}
    assert sent_back(reply_with(image), store=False)[0] == image


# -- only what is new ------------------------------------------------------------------------------------------


def first_ids(provider: LoopbackProvider) -> list[Any]:
    """Return the previous response that each request names."""
    return [request["body"].get("previous_response_id") for request in provider.requests]


@both
def test_only_the_messages_after_the_newest_response_are_sent(style: CallStyle) -> None:
    """The request names that response. The system message is on the server, too."""
    with LoopbackProvider("Hello") as provider:
        model = responses(provider, use_previous_response_id=True)
        history: list[BaseMessage] = [SystemMessage("Be brief."), HumanMessage("one")]
        for text in ("two", "three"):
            history += [sum_of(style.stream(model, history)), HumanMessage(text)]
        style.invoke(model, history)
    ids = [message.response_metadata["id"] for message in history if isinstance(message, AIMessage)]
    assert first_ids(provider) == [None, *ids]
    assert [len(request["body"]["input"]) for request in provider.requests] == [2, 1, 1]
    assert sent(provider, 2)["input"] == [user("three")]


def test_a_response_is_continued_only_where_it_is_known() -> None:
    """An answer of chat completions, of another host, or an id of the call leaves all messages in the request."""
    of_chat = AIMessage("a", response_metadata={"id": "chatcmpl-1"})
    of_other = AIMessage("a", response_metadata={"id": "resp_1", "origin": {"host": "openai"}})
    with LoopbackProvider("Hello") as provider:
        model = responses(provider, use_previous_response_id=True)
        for reply in (of_chat, of_other):
            model.invoke([HumanMessage("Hi"), reply, HumanMessage("And?")])
        known = AIMessage("a", response_metadata={"id": "resp_1"})
        model.invoke([HumanMessage("Hi"), known, HumanMessage("And?")], previous_response_id="resp_2")
    assert [len(request["body"]["input"]) for request in provider.requests] == [3, 3, 3]
    assert first_ids(provider) == [None, None, "resp_2"]


def test_the_result_of_a_custom_tool_has_its_type_also_without_the_call() -> None:
    """The call is on the server."""
    item = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_9", "name": "run", "input": "ls"}
    frames = openai_responses_frames([], items=[item])
    with LoopbackProvider(Answer(frames=frames)) as provider:
        model = responses(provider, use_previous_response_id=True)
        reply = model.invoke("Hi", stream=True)
        assert reply.tool_calls[0]["args"] == {"__arg1": "ls"}
        model.invoke([HumanMessage("Hi"), reply, ToolMessage("a.txt", "call_9")], stream=True)
    assert sent(provider, 1)["input"] == [
        {"type": "custom_tool_call_output", "call_id": "call_9", "output": "a.txt"}
    ]


@both
def test_a_continued_conversation_is_one(style: CallStyle, tmp_path: Path) -> None:
    """Without an id of a conversation, too: with the whole history, and with new messages and the response's id."""
    with LoopbackProvider("Hello") as provider, history_at(tmp_path) as history:
        model = responses(provider, callbacks=[history], use_previous_response_id=True)
        first = style.invoke(model, "one")
        second = style.invoke(model, [HumanMessage("one"), first, HumanMessage("two")])
        plain = responses(provider, callbacks=[history])
        style.invoke(plain, "three", previous_response_id=second.response_metadata["id"])
        style.invoke(plain, "another")
    rows = sql(
        history.recorder.url,
        "SELECT role, content FROM messages WHERE conversation_id IN (SELECT conversation_id FROM messages WHERE "
        "content = 'one') ORDER BY position",
    )
    assert [content for _, content in rows] == ["one", "Hello", "two", "Hello", "three", "Hello"]
    assert len(sql(history.recorder.url, "SELECT DISTINCT conversation_id FROM runs")) == 2


def test_runs_of_one_parent_share_their_conversation(tmp_path: Path) -> None:
    """As with chat completions. A conversation of OpenAI names that of the recording, unless the call names one."""
    parent = uuid4()
    with LoopbackProvider("Hello") as provider, history_at(tmp_path) as history:
        manager = type("Manager", (), {"parent_run_id": parent, "handlers": [history]})()
        model = responses(provider)
        model.invoke("a", {"callbacks": manager})
        model.invoke("b", {"callbacks": manager})
        model = responses(provider, callbacks=[history], conversation="conv_1")
        model.invoke("c")
        model.invoke("d", {"metadata": {"thread_id": "mine"}})
    found = [run["conversation_id"] for run in runs(history.recorder.url)]
    assert found[0] == found[1]
    assert found[2:] == ["conv_1", "mine"]


# -- recording, errors and replay ------------------------------------------------------------------------------


@both
def test_a_run_is_recorded(style: CallStyle, tmp_path: Path) -> None:
    """Tokens, the provider's unchanged bytes, usage and status are stored."""
    frames = openai_responses_frames(["Hello", "!"], reasoning=["Hm."], model="gpt-4o")
    with LoopbackProvider(Answer(frames=frames)) as provider, history_at(tmp_path) as history:
        style.stream(responses(provider, callbacks=[history]), "Hi")
    found = recorded(history.recorder.url)
    assert list(found.tokens.texts.values()) == ["Hm.", "Hello", "!"]
    assert found.body == b"".join(frames)
    assert found.transcript == [("user", "Hi"), ("assistant", "Hello!")]
    run = found.run
    assert (run["provider_name"], run["request_model"], run["wire"]) == (
        "openai", "gpt-4o", "openai.responses",
    )  # fmt: skip
    assert (run["response_model"], run["status"], run["output_tokens"]) == (
        "gpt-4o-2024-08-06",
        "complete",
        3,
    )
    assert run["response_id"].startswith("resp_")


HEAD = openai_responses_frames(["Hello", " there"], id="resp_1")
ERROR = {"code": "server_error", "message": "no memory"}
ENDS: dict[str, tuple[Answer, type[Exception] | None, str, str]] = {
    "error event": (Answer(frames=[*HEAD[:6], openai_responses_error_frame("no memory")]),
                    openai.APIError, "error", "Hello there"),
    "failed": (Answer(frames=openai_responses_frames(["Hello"], error=ERROR)), openai.APIError, "error", "Hello"),
    "incomplete": (Answer(frames=openai_responses_frames(["Hello"], incomplete="max_output_tokens")),
                   None, "incomplete", "Hello"),
    "cut": (Answer(frames=HEAD, cut_after=5), openai.APIConnectionError, "error", "Hello"),
    "without an end": (Answer(frames=HEAD[:6]), None, "interrupted", "Hello there"),
    "too many": (Answer.error(429), openai.RateLimitError, "error", ""),
    "server error": (Answer.error(500), openai.InternalServerError, "error", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
@both
def test_a_stream_ends_as_it_does_with_chat_completions(style: CallStyle, name: str, tmp_path: Path) -> None:
    """The SDK's exception is raised, and everything before it is stored."""
    answer, kind, status, text = ENDS[name]
    with LoopbackProvider(answer) as provider, history_at(tmp_path) as history:
        model = responses(provider, callbacks=[history])
        if kind is None:
            style.stream(model, "Hi")
        else:
            with pytest.raises(kind) as raised:
                style.stream(model, "Hi")
            assert type(raised.value) is kind
    found = recorded(history.recorder.url)
    assert (found.run["status"], found.text) == (status, text)


@both
def test_a_failed_response_raises_without_a_stream(style: CallStyle, tmp_path: Path) -> None:
    """The error has the message of the response."""
    body = openai_responses_body(["Hello"], error=ERROR)
    with (
        LoopbackProvider(Answer(body=body)) as provider,
        history_at(tmp_path) as history,
        pytest.raises(openai.APIError, match="no memory"),
    ):
        style.invoke(responses(provider, callbacks=[history]), "Hi")
    assert recorded(history.recorder.url).run["status"] == "error"


@both
def test_a_retried_request_is_one_run(style: CallStyle, tmp_path: Path) -> None:
    """The SDK sends it again."""
    answers = scripted(Answer.error(500, headers={"retry-after-ms": "1"}), Answer(frames=HEAD))
    with LoopbackProvider(answers) as provider, history_at(tmp_path) as history:
        style.stream(responses(provider, callbacks=[history], max_retries=1), "Hi")
    assert len(provider.requests) == 2
    assert recorded(history.recorder.url).run["status"] == "complete"


def test_a_loop_that_is_left_cancels_the_run(tmp_path: Path) -> None:
    """What was received is stored."""
    with LoopbackProvider(Answer(frames=HEAD, hang_after=5)) as provider, history_at(tmp_path) as history:
        stream = responses(provider, callbacks=[history]).stream("Hi")
        for chunk in stream:
            if chunk.content:
                break
        stream.close()  # type: ignore[attr-defined]
    found = recorded(history.recorder.url)
    assert (found.run["status"], found.text) == ("cancelled", "Hello")


def test_a_cancelled_task_cancels_the_run(tmp_path: Path) -> None:
    """The same on an event loop."""

    async def main(model: ChatOpenAI) -> None:
        begun = asyncio.Event()

        async def read() -> None:
            async for chunk in model.astream("Hi"):
                if chunk.content:
                    begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with LoopbackProvider(Answer(frames=HEAD, hang_after=5)) as provider, history_at(tmp_path) as history:
        asyncio.run(main(responses(provider, callbacks=[history])))
    found = recorded(history.recorder.url)
    assert (found.run["status"], found.text) == ("cancelled", "Hello")


def recording(provider: LoopbackProvider, folder: Path, style: CallStyle, **options: Any) -> tuple[str, Any]:
    """Record a streamed answer, and return the URL of the database and the answer."""
    with history_at(folder, **options) as history:
        answer = sum_of(style.stream(responses(provider, callbacks=[history]), "Hi"))
    return history.recorder.url, answer


@both
@pytest.mark.parametrize("capture", ["wire", "tokens"])
def test_a_replayed_model_gives_the_recorded_answer(style: CallStyle, capture: str, tmp_path: Path) -> None:
    """With frames it is the same message; the model may also be found by the newest run."""
    with LoopbackProvider(reply_with(SECRET)) as provider:
        url, answer = recording(provider, tmp_path, style, capture=capture)
        like = responses(provider)
        with Replay(url) as replay:
            for model in (replay.model(like=like), replay.model()):
                again = sum_of(style.stream(model, "Hi"))
                assert (again.content, again.tool_calls) == (answer.content, answer.tool_calls)
            if capture == "wire":
                again = sum_of(style.stream(replay.model(like=like), "Hi"))
                assert again.response_metadata == answer.response_metadata
                assert again.additional_kwargs == answer.additional_kwargs
            with pytest.raises(NotRecorded):
                style.stream(replay.model(like=like), "Bye")
        assert len(provider.requests) == 1


@both
def test_a_replayed_model_records_what_is_new(style: CallStyle, tmp_path: Path) -> None:
    """In the next session both requests are answered from the recording."""
    with LoopbackProvider("Hello there!") as provider:
        url, _ = recording(provider, tmp_path, style)
        for expected in (2, 2):
            with Replay(url) as replay:
                model = replay.model(like=responses(provider), mode="new_episodes")
                for text in ("Hi", "And?"):
                    assert style.invoke(model, text).content == "Hello there!"
            assert len(provider.requests) == expected


@both
@pytest.mark.parametrize("capture", ["wire", "tokens"])
def test_a_conversation_of_new_messages_is_replayed(style: CallStyle, capture: str, tmp_path: Path) -> None:
    """The replayed response has the recorded id, so the next request is the recorded one."""

    def talk(model: Any) -> list[str]:
        history: list[Any] = [HumanMessage("one")]
        for text in ("two", "three"):
            history += [sum_of(style.stream(model, history)), HumanMessage(text)]
        return [message.text for message in history]

    count = iter(range(9))
    with LoopbackProvider(lambda body, path: f"answer {next(count)}") as provider:
        with history_at(tmp_path, capture=capture) as history:
            live = talk(responses(provider, callbacks=[history], use_previous_response_id=True))
        with Replay(history.recorder.url) as replay:
            like = responses(provider, use_previous_response_id=True)
            assert talk(replay.model(like=like)) == live
    assert live == ["one", "answer 0", "two", "answer 1", "three"]


def test_the_sdks_client_is_answered_from_a_run_of_the_model(tmp_path: Path) -> None:
    """The request of the bare SDK has the same hash, and gets the same bytes."""
    frames = openai_responses_frames(["Hello", "!"])
    with LoopbackProvider(Answer(frames=frames)) as provider:
        url, _ = recording(provider, tmp_path, PLAIN)
    with Replay(url) as replay:
        client = openai.OpenAI(api_key="any", http_client=replay.http_client())
        create: Any = client.responses.with_streaming_response.create
        with create(model="gpt-4o", input=[user("Hi")], stream=True) as response:
            assert b"".join(response.iter_bytes()) == b"".join(frames)


def test_a_request_may_be_matched_by_its_messages_only(tmp_path: Path) -> None:
    """Images are compared in the form of Responses."""
    image = {"type": "image_url", "image_url": {"url": "https://a/b.png"}}
    question = HumanMessage([{"type": "text", "text": "What is it?"}, image])
    with LoopbackProvider("A cat.") as provider, history_at(tmp_path) as history:
        responses(provider, callbacks=[history]).invoke([question])
        like = responses(provider, temperature=0.5)
    with Replay(history.recorder.url) as replay:
        model = replay.model(like=like, match_on=("messages",))
        assert model.invoke([question]).content == "A cat."
