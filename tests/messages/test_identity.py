"""Message ids: a message that a client sends back gets the stored id, and a changed message gets another."""

from __future__ import annotations

import hashlib
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
from recorder.messages.identity import Key, PathIds, content_key, encoded, hash_of_key, id_of_key, path_ids

ARGS: dict[str, Any] = {"city": "Paris", "days": [1, 2], "unit": {"name": "°C"}}
CALL = {"name": "weather", "args": ARGS, "id": "call_1"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def test_new_ids_are_uuids_of_version_7_that_sort_by_time() -> None:
    """Both databases sort their text form by time."""
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000
    assert {(str(uuid.UUID(id)), uuid.UUID(id).version) for id in ids} == {(id, 7) for id in ids}


def test_a_conversation_id_may_be_any_text_up_to_255_characters() -> None:
    """The user chooses the text."""
    for id in ("chat-42", "ü" * MAX_CONVERSATION_ID, " "):
        assert check_conversation_id(id) == id


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("", "is empty"),
        ("x" * 256, "has 256 characters and the limit is 255"),
        (42, "must be a str, not int"),
        (None, "must be a str, not NoneType"),
    ],
)
def test_an_invalid_conversation_id_is_refused(id: Any, message: str) -> None:
    """The error names the limit and the next step, and shows only the start of a long id."""
    with pytest.raises(ConfigError, match=message) as caught:
        check_conversation_id(id)
    assert "pass" in str(caught.value)
    assert len(str(caught.value)) < 200


def message_id(
    conversation_id: str, parent_id: str | None, *, role: str, text: str, calls: Any = (), tool_call_id: str = "",
    attachments: Any = (),
) -> str:  # fmt: skip
    """The id of a message with this meaning below its parent."""
    return id_of_key(conversation_id, parent_id, encoded(Key(role, text, calls, tool_call_id, attachments)))


def test_a_message_id_is_a_hash_of_all_parts_of_the_message() -> None:
    """Each part changes the id, which is a UUID of version 8 and stays the same in later versions."""
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


def test_a_message_object_of_several_paths_has_the_id_that_belongs_to_its_place() -> None:
    """The memory of `PathIds` tells conversations, parents and objects apart."""
    shared = PathIds()
    hello: BaseMessage = HumanMessage("Hello")
    bye: BaseMessage = AIMessage("Bye")
    paths = [[hello], [hello, bye], [bye, hello], [hello, hello], [HumanMessage("Hello"), bye]]
    for conversation_id in ("c", "d"):
        for parent_id in (None, "p", conversation_id):
            for path in [*paths, *paths]:
                found = shared.compute(conversation_id, path, parent_id)
                assert found == path_ids(conversation_id, path, parent_id)


@pytest.mark.parametrize("conversation_id", ["c", 'ü"\\\x7f\n\u2028', "\ud83d"])
def test_both_hashes_of_a_message_are_of_one_list(conversation_id: str) -> None:
    """Whatever the texts are: the id hashes the place and the key as one list, the content hash the key alone."""
    for text in ("hi", 'ü"\\\x7f\n\x00\u2028', "\udc00"):
        key = ["user", text, [["1", "f", "{}"]], "call_1", ["ab"]]
        digests = [
            hashlib.sha256(_plain_json(value)).hexdigest() for value in ([conversation_id, "p", *key], key)
        ]
        known = encoded(Key("user", text, (("1", "f", "{}"),), "call_1", ("ab",)))
        assert id_of_key(conversation_id, "p", known).replace("-", "")[:12] == digests[0][:12]
        assert hash_of_key(known) == int.from_bytes(bytes.fromhex(digests[1][:16]), signed=True)


def _plain_json(value: Any) -> bytes:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def test_the_parts_of_a_message_id_are_separated() -> None:
    """Text that looks like the end of a field gives another id than two fields."""
    tricky = message_id("c", None, role="user", text='a"],"b')
    assert tricky != message_id("c", None, role="user", text="a", attachments=["b"])
    assert message_id("c", "a", role="b", text="") != message_id("c", "ab", role="", text="")


def test_every_text_has_an_id_of_its_own() -> None:
    """NUL, lone surrogates, and a surrogate pair beside its character are different texts."""
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
    """Return the reply in OpenAI's form, as an application stores it."""
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
    """Other spaces in arguments, trimmed or split text, and missing reasoning and metadata make no difference."""
    assert content_key(from_any(returned)) == content_key(REPLY)


def test_a_reply_is_recognised_in_langchains_messages() -> None:
    """An agent sends it in OpenAI's plain form, or as Anthropic's blocks with the calls beside them."""
    langchain = pytest.importorskip("langchain_core.messages")
    plain = langchain.AIMessage("It is sunny.", tool_calls=[CALL], additional_kwargs={"refusal": None})
    blocks = langchain.AIMessage(
        [{"type": "text", "text": "It is sunny.", "index": 0}, TOOL_USE], tool_calls=[CALL]
    )
    chunk = langchain.AIMessageChunk(content="It is sunny.", tool_calls=[CALL])
    assert [content_key(from_any(each)) for each in (plain, blocks, chunk)] == [content_key(REPLY)] * 3
    tool = langchain.ToolMessage("21 degrees", tool_call_id="call_1", name="weather", artifact={"x": 1})
    assert content_key(from_any(tool)) == content_key(ToolMessage("21 degrees", "call_1"))


def test_ids_are_equal_after_langchains_conversion() -> None:
    """langchain-openai converts messages to the API's form, and recorder reads them back."""
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
def test_a_changed_reply_is_another_message(changed: BaseMessage) -> None:
    """An edited message begins a branch."""
    assert content_key(changed) != content_key(REPLY)


def test_all_forms_of_empty_content_are_equal() -> None:
    """None, empty text, no blocks and an empty block are the same content."""
    empty: list[Any] = [None, "", [], [""], [{"type": "text", "text": ""}], " \n"]
    keys = {content_key(from_any({"role": "assistant", "content": content})) for content in empty}
    assert keys == {content_key(AIMessage(""))}


def test_the_role_developer_equals_system() -> None:
    """`developer` is OpenAI's newer name of the role."""
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be brief."},
        SystemMessage("Be brief."),
        ChatMessage("Be brief.", "developer"),
    ]
    assert {content_key(from_any(each)) for each in messages} == {content_key(SystemMessage("Be brief."))}


def test_invalid_arguments_are_compared_as_text() -> None:
    """Spaces around them make no difference."""
    cut = content_key(from_any(openai_reply('{"city": "Par')))
    assert cut == content_key(from_any(openai_reply(' {"city": "Par\n')))
    assert cut != content_key(from_any(openai_reply('{"city": "Pari')))
    assert cut.calls == (("call_1", "weather", '{"city": "Par'),)


def test_a_call_in_content_and_in_the_list_counts_once() -> None:
    """Calls are matched by id, or by name and arguments without one; LangChain's streamed blocks lack the input."""
    bare = {"name": "f", "args": {"a": 1}, "id": None}
    block = {"type": "tool_use", "name": "f", "input": {"a": 1}}
    assert content_key(AIMessage([block], tool_calls=[bare])) == content_key(AIMessage(tool_calls=[bare]))
    streamed = {**block, "id": "1", "input": ""}
    listed = AIMessage([streamed], tool_calls=[{**bare, "id": "1"}])
    assert content_key(listed).calls == (("1", "f", '{"a":1}'),)
    other = {**block, "input": {"a": 2}}
    assert len(content_key(AIMessage([block, other], tool_calls=[bare])).calls) == 2


def test_attachments_are_compared_by_content() -> None:
    """The order of keys and cache marks make no difference; a tool's result is an attachment, too."""
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


def test_a_refusal_is_the_text_of_a_message_without_text() -> None:
    """Two refusals are two messages; beside other text a refusal makes no difference."""
    refused = from_any({"role": "assistant", "content": None, "refusal": "I cannot."})
    assert content_key(refused).text == "I cannot."
    assert content_key(refused) == content_key(AIMessage([{"type": "refusal", "refusal": "I cannot."}]))
    assert content_key(AIMessage("x", additional_kwargs={"refusal": "y"})) == content_key(AIMessage("x"))


def test_content_that_is_not_json_has_an_id() -> None:
    """Applications may pass sets, mixed keys, bytes and numbers."""
    odd = AIMessage("x", tool_calls=[{"name": "f", "args": {"when": {1: "a", "b": {2}}}, "id": "1"}])
    assert content_key(odd) == content_key(odd)
    assert content_key(HumanMessage([42, {"type": "blob", "data": b"\x00"}])).text == "42"


HISTORY: list[Any] = [
    SystemMessage("Be brief."),
    HumanMessage("Hi"),
    AIMessage("Hello!"),
    HumanMessage("Bye"),
]


def test_ids_of_a_path_do_not_change_when_it_grows() -> None:
    """Clients send the whole history again, and a path may begin below a stored parent."""
    ids = path_ids("c", HISTORY)
    assert path_ids("c", HISTORY[:2]) == ids[:2]
    assert path_ids("c", HISTORY[2:], parent_id=ids[1]) == ids[2:]
    assert path_ids("c", []) == []
    assert not set(path_ids("d", HISTORY)) & set(ids)


def test_messages_after_an_edited_one_get_other_ids() -> None:
    """Repeated texts in one path have ids of their own."""
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
    ids=["blocks", "thinking", "a server's tool", "as streamed", "text and calls"],
)  # fmt: skip
def test_a_reply_in_blocks_is_recognised_when_it_is_sent_back(sent_back: dict[str, Any]) -> None:
    """Thinking, citations and the provider's own tools may be missing."""
    assert content_key(from_any(sent_back)) == content_key(IN_BLOCKS)


def test_a_tool_result_in_the_users_message_equals_a_tool_message() -> None:
    """Anthropic's users write it inside of the user's message, LangChain as a message of its own."""
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "20 °C", "is_error": False}
    (found,) = messages_from([{"role": "user", "content": [result]}])
    assert content_key(found) == content_key(ToolMessage("20 °C", tool_call_id="call_1"))


def test_an_uploaded_file_is_part_of_the_message() -> None:
    """Messages with different files are different."""
    upload = {"type": "container_upload", "file_id": "file_1"}
    assert content_key(HumanMessage([upload])) != content_key(HumanMessage([{**upload, "file_id": "file_2"}]))


def test_an_id_that_was_found_already_is_not_computed_again() -> None:
    """It belongs to one message object below one parent; an equal message elsewhere has an id of its own."""
    ids, reply = PathIds(), AIMessage("a reply")
    ids.add("c", None, reply, "found")
    assert ids.compute("c", [reply]) == ["found"]
    assert ids.compute("c", [AIMessage("a reply")]) == path_ids("c", [reply])
    assert ids.compute("other", [reply]) == path_ids("other", [reply])
