"""Identity: what comes back from a client is recognised, and what differs is told apart."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from recorder.core.ids import MAX_CONVERSATION_ID, check_conversation_id, new_id
from recorder.errors import ConfigError
from recorder.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    from_any,
    from_dict,
    messages_from,
    to_dict,
    tool_call_chunk,
)
from recorder.messages.identity import content_key, message_id, path_ids

ARGS: dict[str, Any] = {"city": "Paris", "days": [1, 2], "unit": {"name": "°C"}}
CALL = {"name": "weather", "args": ARGS, "id": "call_1"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def test_a_new_id_is_a_dashed_uuid_7_and_later_ones_sort_later() -> None:
    """Both databases sort them by time."""
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000
    assert {(str(uuid.UUID(id)), uuid.UUID(id).version) for id in ids} == {(id, 7) for id in ids}


def test_a_conversation_id_is_any_text_that_fits() -> None:
    """The user's own words, up to the limit."""
    for id in ("chat-42", "ü" * MAX_CONVERSATION_ID, " "):
        assert check_conversation_id(id) == id


@pytest.mark.parametrize(
    ("id", "says"),
    [
        ("", "is empty"),
        ("x" * 256, "has 256 characters and the limit is 255"),
        (42, "must be a str, not int"),
        (None, "must be a str, not NoneType"),
    ],
)
def test_a_conversation_id_that_cannot_be_is_refused(id: Any, says: str) -> None:
    """The error names the limit and the next step, and shows no more than the start of a long id."""
    with pytest.raises(ConfigError, match=says) as caught:
        check_conversation_id(id)
    assert "pass" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_message_id_is_a_version_8_uuid_of_all_that_the_message_is() -> None:
    """Any part that differs makes another id; the same parts make the same one, today and in ten years."""
    same: dict[str, Any] = {
        "conversation_id": "c",
        "parent_id": None,
        "role": "user",
        "text": "hi",
        "calls": (("1", "f", "{}"),),
        "tool_call_id": "",
        "attachments": ("ab",),
    }
    other: dict[str, Any] = {
        "conversation_id": "d",
        "parent_id": "p",
        "role": "assistant",
        "text": "ho",
        "calls": (),
        "tool_call_id": "1",
        "attachments": (),
    }
    ids = [message_id(**same), *(message_id(**{**same, name: other[name]}) for name in other)]
    assert len(set(ids)) == 8
    assert {(uuid.UUID(id).version, uuid.UUID(id).variant) for id in ids} == {(8, uuid.RFC_4122)}
    assert message_id("c", None, role="user", text="hi") == "f7e6b9f5-43bf-88e9-a1a3-a48af5019644"
    assert message_id("c", None, role="user", text="hi", tool_call_id=None) == message_id(
        "c", None, role="user", text="hi", tool_call_id=""
    )


def test_parts_cannot_flow_into_each_other() -> None:
    """Text that looks like the end of a field stays text."""
    tricky = message_id("c", None, role="user", text='a"],"b')
    assert tricky != message_id("c", None, role="user", text="a", attachments=["b"])
    assert message_id("c", "a", role="b", text="") != message_id("c", "ab", role="", text="")


def test_any_text_has_an_id() -> None:
    """NUL, lone surrogates and half a pair beside its whole."""
    texts = ["\x00", "\ud83d", "\udc00", "\ud83d\ude00", "😀", "", "\ufdd00000"]
    assert len({message_id("c", None, role="user", text=text) for text in texts}) == len(texts)


REPLY = AIMessage(
    "It is sunny. ",
    id="chatcmpl-1",
    tool_calls=[CALL],
    additional_kwargs={"reasoning_content": "looking", "annotations": [{"type": "url_citation"}]},
    response_metadata={"finish_reason": "tool_calls", "model_name": "gpt"},
    usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
)


def openai_reply(arguments: str, content: Any = "It is sunny.") -> dict[str, Any]:
    """The reply as an application keeps it in OpenAI's form."""
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


TOOL_USE = {"type": "tool_use", "id": "call_1", "name": "weather", "input": dict(reversed(ARGS.items()))}
THINKING = {"type": "thinking", "thinking": "looking", "signature": "abc="}


@pytest.mark.parametrize(
    "returned",
    [
        from_dict(json.loads(json.dumps(to_dict(REPLY)))),
        openai_reply(json.dumps(ARGS)),
        openai_reply(json.dumps(ARGS, indent=2, ensure_ascii=False)),
        openai_reply(json.dumps(dict(reversed(ARGS.items())), separators=(",", ":"))),
        openai_reply(json.dumps(ARGS), "It is sunny. \n\n"),
        openai_reply(
            json.dumps(ARGS), [{"type": "text", "text": "It is "}, {"type": "text", "text": "sunny."}]
        ),
        openai_reply(json.dumps(ARGS), [{"type": "text", "text": "It is sunny.", "annotations": []}]),
        {"role": "assistant", "content": [{"type": "text", "text": "It is sunny."}, TOOL_USE]},
        {"role": "assistant", "content": [THINKING, {"type": "text", "text": "It is sunny. "}, TOOL_USE]},
        {
            "role": "assistant",
            "content": [
                {"type": "redacted_thinking", "data": "xyz"},
                {"type": "text", "text": "It is sunny.", "cache_control": {"type": "ephemeral"}},
                {**TOOL_USE, "cache_control": {"type": "ephemeral"}},
            ],
        },
        AIMessage(["It is sunny.", TOOL_USE], tool_calls=[CALL]),
        AIMessage(["It is sunny.", {"type": "tool_call", "id": "call_1", "name": "weather", "args": ARGS}]),
        AIMessageChunk(
            "It is sunny.", tool_call_chunks=[tool_call_chunk("weather", json.dumps(ARGS), "call_1", 0)]
        ),
    ],
)
def test_a_reply_is_recognised_when_a_client_sends_it_back(returned: Any) -> None:
    """Re-spaced arguments, stripped space, split text, blocks; without reasoning and metadata."""
    assert content_key(from_any(returned)) == content_key(REPLY)


def test_a_reply_is_recognised_in_langchains_messages() -> None:
    """As an agent sends it back: OpenAI's plain form and Anthropic's blocks with the calls beside them."""
    langchain = pytest.importorskip("langchain_core.messages")
    plain = langchain.AIMessage("It is sunny.", tool_calls=[CALL], additional_kwargs={"refusal": None})
    blocks = langchain.AIMessage(
        [{"type": "text", "text": "It is sunny.", "index": 0}, TOOL_USE], tool_calls=[CALL]
    )
    chunk = langchain.AIMessageChunk(content="It is sunny.", tool_calls=[CALL])
    assert [content_key(from_any(each)) for each in (plain, blocks, chunk)] == [content_key(REPLY)] * 3
    tool = langchain.ToolMessage("21 degrees", tool_call_id="call_1", name="weather", artifact={"x": 1})
    assert content_key(from_any(tool)) == content_key(ToolMessage("21 degrees", "call_1"))


def test_langchains_own_formatting_keeps_the_identity() -> None:
    """Through langchain-openai's conversion to the wire and back through ours."""
    base = pytest.importorskip("langchain_openai.chat_models.base")
    langchain = pytest.importorskip("langchain_core.messages")
    messages = [
        langchain.SystemMessage("Be brief."),
        langchain.HumanMessage([{"type": "text", "text": "Look:"}, IMAGE]),
        langchain.AIMessage("It is sunny. ", tool_calls=[CALL]),
        langchain.ToolMessage("21 degrees", tool_call_id="call_1"),
        langchain.AIMessage(""),
    ]
    sent = [base._convert_message_to_dict(message) for message in messages]
    assert path_ids("c", messages_from(sent)) == path_ids("c", messages_from(messages))


@pytest.mark.parametrize(
    "changed",
    [
        AIMessage("It is rainy.", tool_calls=[CALL]),
        AIMessage(" It is sunny.", tool_calls=[CALL]),
        AIMessage("It is sunny."),
        AIMessage("It is sunny.", tool_calls=[{**CALL, "args": {**ARGS, "city": "Rome"}}]),
        AIMessage("It is sunny.", tool_calls=[{**CALL, "id": "call_2"}]),
        AIMessage("It is sunny.", tool_calls=[CALL, {**CALL, "id": "call_2"}]),
        AIMessage(["It is sunny.", IMAGE], tool_calls=[CALL]),
        ChatMessage("It is sunny.", "critic"),
    ],
    ids=str,
)
def test_another_reply_is_another_message(changed: BaseMessage) -> None:
    """An edit is a branch."""
    assert content_key(changed) != content_key(REPLY)


def test_empty_content_is_empty_however_it_is_written() -> None:
    """None, an empty text, no blocks, an empty block."""
    empty: list[Any] = [None, "", [], [""], [{"type": "text", "text": ""}], " \n"]
    keys = {content_key(from_any({"role": "assistant", "content": content})) for content in empty}
    assert keys == {content_key(AIMessage(""))}


def test_a_developer_speaks_as_the_system() -> None:
    """OpenAI's newer word for the same role."""
    said: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be brief."},
        SystemMessage("Be brief."),
        ChatMessage("Be brief.", "developer"),
    ]
    assert {content_key(from_any(each)) for each in said} == {content_key(SystemMessage("Be brief."))}


def test_arguments_that_do_not_parse_are_told_apart_by_their_letters() -> None:
    """A call that was cut off; surrounding space is nobody's intention."""
    cut = content_key(from_any(openai_reply('{"city": "Par')))
    assert cut == content_key(from_any(openai_reply(' {"city": "Par\n')))
    assert cut != content_key(from_any(openai_reply('{"city": "Pari')))
    assert cut.calls == (("call_1", "weather", '{"city": "Par'),)


def test_calls_are_counted_once_each() -> None:
    """Content beside list: by id (LangChain's streamed blocks lack the input), or else by all of it."""
    bare = {"name": "f", "args": {"a": 1}, "id": None}
    block = {"type": "tool_use", "name": "f", "input": {"a": 1}}
    assert content_key(AIMessage([block], tool_calls=[bare])) == content_key(AIMessage(tool_calls=[bare]))
    streamed = {**block, "id": "1", "input": ""}
    listed = AIMessage([streamed], tool_calls=[{**bare, "id": "1"}])
    assert content_key(listed).calls == (("1", "f", '{"a":1}'),)
    other = {**block, "input": {"a": 2}}
    assert len(content_key(AIMessage([block, other], tool_calls=[bare])).calls) == 2


def test_attachments_count_by_content() -> None:
    """Key order and cache marks make no difference, another picture does; a tool's result is one as well."""
    result = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "21"}]}
    marked = {
        "content": [{"text": "21", "type": "text", "cache_control": {}}],
        "tool_use_id": "1",
        "index": 3,
    }
    key = content_key(HumanMessage(["Look:", IMAGE, result]))
    assert key == content_key(
        HumanMessage([{"type": "text", "text": "Look:"}, IMAGE, {**marked, "type": "tool_result"}])
    )
    other = {"type": "image_url", "image_url": {"url": "data:image/png;base64,BBBB"}}
    assert key != content_key(HumanMessage(["Look:", other, result]))
    assert key != content_key(HumanMessage(["Look:", result, IMAGE]))
    assert (key.text, [len(each) for each in key.attachments]) == ("Look:", [64, 64])


def test_a_refusal_is_what_the_model_said() -> None:
    """Two refusals are two messages; beside other text it adds nothing."""
    refused = from_any({"role": "assistant", "content": None, "refusal": "I cannot."})
    assert content_key(refused).text == "I cannot."
    assert content_key(refused) == content_key(AIMessage([{"type": "refusal", "refusal": "I cannot."}]))
    assert content_key(AIMessage("x", additional_kwargs={"refusal": "y"})) == content_key(AIMessage("x"))


def test_content_that_is_no_json_still_has_an_identity() -> None:
    """Recording takes what the application has: dates, sets, mixed keys, numbers as content."""
    odd = AIMessage("x", tool_calls=[{"name": "f", "args": {"when": {1: "a", "b": {2}}}, "id": "1"}])
    assert content_key(odd) == content_key(odd)
    assert content_key(HumanMessage([42, {"type": "blob", "data": b"\x00"}])).text == "42"


HISTORY: list[Any] = [
    SystemMessage("Be brief."),
    HumanMessage("Hi"),
    AIMessage("Hello!"),
    HumanMessage("Bye"),
]


def test_ids_along_a_path_hold_while_it_grows() -> None:
    """Clients resend the whole history: what was there keeps its ids, and a path may go on from a parent."""
    ids = path_ids("c", HISTORY)
    assert path_ids("c", HISTORY[:2]) == ids[:2]
    assert path_ids("c", HISTORY[2:], parent_id=ids[1]) == ids[2:]
    assert path_ids("c", []) == []
    assert not set(path_ids("d", HISTORY)) & set(ids)


def test_an_edit_moves_everything_after_it() -> None:
    """The same words after an edited message belong to another branch; repeated words have their own ids."""
    ids = path_ids("c", HISTORY)
    edited = path_ids("c", [*HISTORY[:1], HumanMessage("Hey"), *HISTORY[2:]])
    assert edited[:1] == ids[:1]
    assert not set(edited[1:]) & set(ids[1:])
    assert len(set(path_ids("c", [HumanMessage("ok")] * 5))) == 5


# -- Anthropic's blocks ----------------------------------------------------------------------------------------------

USE = {"type": "tool_use", "id": "call_1", "name": "weather", "input": ARGS}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "Paris"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"url": "https://x.org"}]}
IN_BLOCKS = AIMessage([{"type": "text", "text": "See."}, USE], tool_calls=[CALL])


@pytest.mark.parametrize(
    "sent_back",
    [
        {"role": "assistant", "content": [{"type": "text", "text": "See. "}, USE]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm", "signature": "E"},
                                          {"type": "text", "text": "See."}, USE]},
        {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "X"},
                                          {"type": "text", "text": "See.", "citations": []}, SEARCH, FOUND, USE]},
        {"role": "assistant", "content": [{"type": "text", "text": "See.", "index": 0},
                                          {**USE, "input": {}, "partial_json": json.dumps(ARGS), "index": 1}]},
        {"role": "assistant", "content": "See.", "tool_calls": [CALL]},
    ],
    ids=["blocks", "thoughts", "a server's tool", "as streamed", "text and calls"],
)  # fmt: skip
def test_a_reply_in_blocks_is_the_same_however_it_comes_back(sent_back: dict[str, Any]) -> None:
    """With or without thoughts, citations and what the provider's own tools did."""
    assert content_key(from_any(sent_back)) == content_key(IN_BLOCKS)


def test_a_result_inside_of_the_user_s_message_is_the_tool_s() -> None:
    """Anthropic's users send it so, LangChain's in a message of its own."""
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "20 °C", "is_error": False}
    (found,) = messages_from([{"role": "user", "content": [result]}])
    assert content_key(found) == content_key(ToolMessage("20 °C", tool_call_id="call_1"))


def test_a_file_of_the_user_is_part_of_the_message() -> None:
    """What the user uploads for the provider's tools tells two messages apart."""
    upload = {"type": "container_upload", "file_id": "file_1"}
    assert content_key(HumanMessage([upload])) != content_key(HumanMessage([{**upload, "file_id": "file_2"}]))
