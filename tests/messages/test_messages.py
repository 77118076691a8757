"""Messages have LangChain's names and shapes, are made from every usual form, and are stored without loss."""

from __future__ import annotations

import copy
import json
import pickle
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from anthropic.types import Message as AnthropicMessage
from openai.types.chat import ChatCompletionMessage

from recorder.errors import ConfigError
from recorder.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatGeneration,
    ChatGenerationChunk,
    ChatMessage,
    Generation,
    GenerationChunk,
    HumanMessage,
    LLMResult,
    RunInfo,
    SystemMessage,
    ToolMessage,
    UsageMetadata,
    add_usage,
    from_any,
    from_dict,
    messages_from,
    parse_args,
    to_dict,
    tool_call,
    tool_call_chunk,
)

USAGE = UsageMetadata(
    input_tokens=9,
    output_tokens=4,
    total_tokens=13,
    input_token_details={"cache_read": 2},
    output_token_details={"reasoning": 1},
)
CALL = {"name": "weather", "args": {"city": "Paris"}, "id": "call_1"}
BROKEN = {"name": "weather", "args": '{"city": "Par', "id": "call_2", "error": None}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (HumanMessage("hi"), "HumanMessage(content='hi', additional_kwargs={}, response_metadata={})"),
        (
            AIMessageChunk("Here's", id="run-1"),
            "AIMessageChunk(content=\"Here's\", additional_kwargs={}, response_metadata={}, id='run-1')",
        ),
        (
            AIMessage(
                tool_calls=[CALL], usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
            ),
            "AIMessage(content='', additional_kwargs={}, response_metadata={}, "
            "tool_calls=[{'name': 'weather', 'args': {'city': 'Paris'}, 'id': 'call_1', "
            "'type': 'tool_call'}], "
            "usage_metadata={'input_tokens': 1, 'output_tokens': 2, 'total_tokens': 3})",
        ),
        (ToolMessage("x", "1", name="n"), "ToolMessage(content='x', name='n', tool_call_id='1')"),
        (ToolMessage("x", "1", status="error"), "ToolMessage(content='x', tool_call_id='1', status='error')"),
        (
            ChatMessage("x", "critic"),
            "ChatMessage(content='x', additional_kwargs={}, response_metadata={}, role='critic')",
        ),
    ],
)
def test_the_repr_of_a_message_equals_langchains(message: BaseMessage, shown: str) -> None:
    """Empty fields are left out."""
    assert repr(message) == shown


def test_a_message_has_langchains_type_and_the_providers_role() -> None:
    """`type` is LangChain's name, `role` is that of the APIs."""
    messages = [
        HumanMessage("a"),
        AIMessage("b"),
        SystemMessage("c"),
        ToolMessage("d", "1"),
        ChatMessage("e", "f"),
    ]
    assert [m.type for m in messages] == ["human", "ai", "system", "tool", "chat"]
    assert [m.role for m in messages] == ["user", "assistant", "system", "tool", "f"]
    assert (AIMessageChunk("x").type, AIMessageChunk("x").role) == ("AIMessageChunk", "assistant")


def test_messages_are_equal_by_value_and_class() -> None:
    """Another class, id or status makes another message."""
    assert HumanMessage("hi") == HumanMessage("hi")
    assert HumanMessage("hi") != SystemMessage("hi")
    assert HumanMessage("hi", id="1") != HumanMessage("hi", id="2")
    assert AIMessage("hi") != AIMessageChunk("hi")
    assert ToolMessage("x", "1") != ToolMessage("x", "1", status="error")
    assert HumanMessage("hi") != "hi"


def test_messages_share_no_state_and_can_be_copied() -> None:
    """Metadata of one message never appear in another one, and copy and pickle work."""
    first, second = AIMessageChunk("a"), AIMessageChunk("a")
    first.additional_kwargs["x"] = 1
    first.tool_call_chunks.append(tool_call_chunk("f", "{}", "1", 0))
    assert second == AIMessageChunk("a")
    for message in (first, AIMessage("x", tool_calls=[CALL]), ToolMessage("x", "1"), ChatMessage("x", "y")):
        assert copy.deepcopy(message) == message
        assert pickle.loads(pickle.dumps(message)) == message


def test_text_is_the_joined_text_of_the_content() -> None:
    """Images, thinking and calls have no text."""
    parts = ["a", {"type": "text", "text": "b"}, IMAGE, {"text": "c"}, {"type": "thinking", "text": "no"}]
    assert HumanMessage(parts).text == "abc"
    assert HumanMessage("plain").text == "plain"


def chunks_of(rng: random.Random) -> list[dict[str, Any]]:
    """Return the keyword arguments of the chunks of a random stream."""
    chunks: list[dict[str, Any]] = [
        {"content": "", "id": "run-1", "response_metadata": {"model_provider": "openai"}}
    ]
    for _ in range(rng.randrange(6)):
        chunks.append({"content": rng.choice(["", "Hel", "lo ", "é"]), "id": rng.choice([None, "run-1"])})
    for index in range(rng.randrange(3)):
        chunks.append({"content": "", "tool_call_chunks": [tool_call_chunk("f", "", f"call_{index}", index)]})
        for piece in rng.choice([[], ['{"a', '": 1', "}"], ['{"a": [1, "x'], ["[1]"]]):
            chunks.append({"content": "", "tool_call_chunks": [tool_call_chunk(None, piece, None, index)]})
    for piece in rng.choice([[], ["think", "ing"]]):
        chunks.append({"content": "", "additional_kwargs": {"reasoning_content": piece}})
    if rng.random() < 0.5:
        chunks.append({"content": "", "response_metadata": {"finish_reason": "stop", "model_name": "gpt"}})
        chunks.append({"content": "", "usage_metadata": dict(USAGE)})
        chunks.append(
            {"content": "", "usage_metadata": {"input_tokens": 0, "output_tokens": 1, "total_tokens": 1}}
        )
    return chunks


def test_the_sum_of_random_chunks_equals_langchains() -> None:
    """All fields are equal, for adding one by one and as a list, and adding does not change the chunks."""
    langchain = pytest.importorskip("langchain_core.messages")
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(200):
        made = chunks_of(rng)
        ours = [AIMessageChunk(**copy.deepcopy(each)) for each in made]
        theirs = [langchain.AIMessageChunk(**copy.deepcopy(each)) for each in made]
        total, expected = ours[0], theirs[0]
        for mine, other in zip(ours[1:], theirs[1:], strict=True):
            total, expected = total + mine, expected + other
        names = (
            "content",
            "id",
            "additional_kwargs",
            "response_metadata",
            "usage_metadata",
            "chunk_position",
        )
        for name in (*names, "tool_call_chunks", "tool_calls", "invalid_tool_calls"):
            assert getattr(total, name) == getattr(expected, name), name
        assert ours[0] + ours[1:] == total
        assert ours == [AIMessageChunk(**each) for each in made], "adding must not change the pieces"


def test_blocks_are_added_by_their_index() -> None:
    """Anthropic's blocks come in pieces; text after blocks is a part of its own."""
    first = AIMessageChunk([{"type": "text", "text": "Hel", "index": 0}])
    second = AIMessageChunk(
        [{"type": "text", "text": "lo", "index": 0}, {"type": "text", "text": "!", "index": 1}]
    )
    expected: list[Any] = [
        {"type": "text", "text": "Hello", "index": 0},
        {"type": "text", "text": "!", "index": 1},
    ]
    assert (first + second).content == expected
    assert (first + second + AIMessageChunk("") + AIMessageChunk("?")).content == [*expected, "?"]
    assert (AIMessageChunk("") + first).content == first.content
    assert (AIMessageChunk("a") + first).text == "aHel"


def test_metadata_that_are_names_are_kept_and_counts_are_added() -> None:
    """A model name in every chunk is not repeated, and different types raise no error."""
    first = AIMessageChunk(
        "", response_metadata={"model_name": "gpt", "n": 1, "created": 5, "odd": "x", "ok": True, "x": True}
    )
    second = AIMessageChunk(
        "", response_metadata={"model_name": "gpt", "n": 2, "created": 6, "odd": 7, "ok": True, "x": False}
    )
    merged = {"model_name": "gpt", "n": 3, "created": 6, "odd": 7, "ok": True, "x": False}
    assert (first + second).response_metadata == merged


def test_two_calls_with_one_index_and_two_ids_are_two_calls() -> None:
    """Some providers give every call the index 0."""
    first = AIMessageChunk(tool_call_chunks=[tool_call_chunk("f", "{}", "1", 0)])
    second = AIMessageChunk(tool_call_chunks=[tool_call_chunk("g", "{}", "2", 0)])
    assert [call["name"] for call in (first + second).tool_calls] == ["f", "g"]


def test_a_providers_id_wins_over_a_run_id() -> None:
    """The order is LangChain's: the provider's id, then `lc_run-`, then others."""
    assert (AIMessageChunk("", id="lc_run-1") + AIMessageChunk("", id="msg_1")).id == "msg_1"
    assert (AIMessageChunk("", id="lc_2") + AIMessageChunk("", id="lc_run-1")).id == "lc_run-1"
    assert (AIMessageChunk("", id="msg_1") + AIMessageChunk("", id="msg_2")).id == "msg_1"
    assert (AIMessageChunk("") + AIMessageChunk("", id="lc_2")).id == "lc_2"


def test_adding_something_else_to_a_chunk_raises_a_type_error() -> None:
    """It is Python's usual TypeError."""
    with pytest.raises(TypeError):
        AIMessageChunk("a") + "b"  # type: ignore[operator]


def test_incomplete_arguments_are_parsed_as_in_langchain() -> None:
    """This holds for a cut at every place; inside of an escape the text before it is read."""
    langchain = pytest.importorskip("langchain_core.utils.json")
    text = json.dumps(
        {"a": 1, "b": [1, {"c": 'x"y\\z'}], "d": {"e": None, "f": True, "g": -1.5e3}, "h": "{]}é"}
    )
    for cut in range(1, len(text) + 1):
        if text[:cut].endswith(("\\u", "\\u0", "\\u00", "\\u00e")):
            assert parse_args(text[:cut], complete=False) == parse_args(
                text[: text.index("\\u")], complete=False
            )
        else:
            assert parse_args(text[:cut], complete=False) == langchain.parse_partial_json(text[:cut]), text[
                :cut
            ]


@pytest.mark.parametrize("text", ['{"a" 1}', '{"a": ]', "}", '{"a": 1}}', "[1]", "nul", "[" * 100_000])
def test_arguments_that_are_not_an_object_are_invalid(text: str) -> None:
    """These are broken JSON, JSON of another type, and JSON that is nested too deeply."""
    assert parse_args(text) is None
    assert parse_args(text, complete=False) is None
    assert AIMessageChunk(tool_call_chunks=[tool_call_chunk("f", text, "1", 0)]).tool_calls == []


def test_an_incomplete_call_is_invalid_at_the_end_of_the_message() -> None:
    """While the message streams, its arguments so far are a preview."""
    chunk = AIMessageChunk(tool_call_chunks=[tool_call_chunk("weather", '{"city": "Par', "call_2", 0)])
    assert chunk.tool_calls == [tool_call("weather", {"city": "Par"}, "call_2")]
    last = chunk + AIMessageChunk(chunk_position="last")
    assert (last.tool_calls, last.invalid_tool_calls) == ([], [{**BROKEN, "type": "invalid_tool_call"}])
    assert chunk.to_message() == AIMessage(invalid_tool_calls=[BROKEN])


def test_to_message_keeps_all_fields_of_a_chunk() -> None:
    """Parsed tool calls are kept, too."""
    fields: dict[str, Any] = {
        "id": "msg_1",
        "name": "bob",
        "additional_kwargs": {"refusal": "no"},
        "response_metadata": {"finish_reason": "stop"},
        "tool_calls": [CALL],
        "usage_metadata": USAGE,
    }
    assert AIMessageChunk("x", **fields).to_message() == AIMessage("x", **fields)


def test_usage_is_added_as_in_langchain() -> None:
    """Details are added, too, and None counts as zero."""
    langchain = pytest.importorskip("langchain_core.messages.ai")
    other = UsageMetadata(input_tokens=1, output_tokens=2, total_tokens=3, output_token_details={"audio": 5})
    for left, right in ((USAGE, other), (other, USAGE), (None, USAGE), (USAGE, None), (None, None)):
        assert add_usage(left, right) == langchain.add_usage(left, right)


def test_generations_have_a_repr_and_can_be_added_and_compared() -> None:
    """The repr equals that in LangChain's documentation."""
    choice = Generation("Dam!", {"finish_reason": "stop", "logprobs": None})
    result = LLMResult([[choice]], {"token_usage": {}, "model_name": "text-davinci-003"})
    assert repr(result) == (
        "LLMResult(generations=[[Generation(text='Dam!', generation_info={'finish_reason': 'stop', "
        "'logprobs': None})]], llm_output={'token_usage': {}, 'model_name': 'text-davinci-003'})"
    )
    assert GenerationChunk("a") + GenerationChunk("b", {"finish_reason": "stop"}) == GenerationChunk(
        "ab", {"finish_reason": "stop"}
    )
    first, second = (
        ChatGenerationChunk(AIMessageChunk("a")),
        ChatGenerationChunk(AIMessageChunk("b"), {"x": 1}),
    )
    assert first + second == first + [second] == ChatGenerationChunk(AIMessageChunk("ab"), {"x": 1})  # noqa: RUF005
    assert ((first + second).text, (first + second).content) == ("ab", "ab")
    assert repr(ChatGeneration(AIMessage("a"), {"x": 1})) == (
        "ChatGeneration(text='a', generation_info={'x': 1}, "
        "message=AIMessage(content='a', additional_kwargs={}, response_metadata={}))"
    )


def test_flatten_keeps_the_usage_in_the_first_result_only() -> None:
    """There is one result for each prompt; results that differ only in their run are equal."""
    one, two = [Generation("a")], [Generation("b")]
    result = LLMResult(
        [one, two], {"token_usage": {"total_tokens": 3}, "model_name": "m"}, run=[RunInfo("1")]
    )
    assert result.flatten() == [
        LLMResult([one], {"token_usage": {"total_tokens": 3}, "model_name": "m"}),
        LLMResult([two], {"token_usage": {}, "model_name": "m"}),
    ]
    assert result.llm_output == {"token_usage": {"total_tokens": 3}, "model_name": "m"}
    assert LLMResult([one], run=[RunInfo("1")]) == LLMResult([one], run=[RunInfo("2")])


def openai_call(arguments: str, id: str = "call_1", name: str = "weather") -> dict[str, Any]:
    """Return a tool call in OpenAI's form."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


OPENAI_CALL = openai_call('{"city": "Paris"}')
OPENAI_BROKEN = openai_call('{"city": "Par', id="call_2")
OPENAI_CUSTOM = {"id": "c", "type": "custom", "custom": {"name": "sh", "input": "ls"}}
LANGCHAIN_DATA = {"content": "x", "type": "ai", "tool_calls": [CALL], "example": False}
LANGCHAIN_SERIALIZED = {
    "lc": 1,
    "type": "constructor",
    "id": ["langchain", "AIMessageChunk"],
    "kwargs": {"content": "x"},
}
TEXT_AND_IMAGE = [{"type": "text", "text": "a"}, IMAGE]
TOOL_USE = {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Paris"}}
RESULT = {"type": "tool_result", "tool_use_id": "call_1", "content": "21 degrees"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("hi", HumanMessage("hi")),
        (("user", "hi"), HumanMessage("hi")),
        (("human", "hi"), HumanMessage("hi")),
        (["ai", "hi"], AIMessage("hi")),
        (("developer", "hi"), SystemMessage("hi", additional_kwargs={"__openai_role__": "developer"})),
        ({"role": "user", "content": "hi", "name": "bob"}, HumanMessage("hi", name="bob")),
        ({"role": "user", "content": TEXT_AND_IMAGE}, HumanMessage(TEXT_AND_IMAGE)),
        ({"role": "system", "content": "s"}, SystemMessage("s")),
        ({"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]}, AIMessage(tool_calls=[CALL])),
        (
            {"role": "assistant", "tool_calls": [OPENAI_CALL, OPENAI_BROKEN]},
            AIMessage(tool_calls=[CALL], invalid_tool_calls=[BROKEN]),
        ),
        (
            {"role": "assistant", "tool_calls": [openai_call("")]},
            AIMessage(tool_calls=[{**CALL, "args": {}}]),
        ),
        (
            {"role": "assistant", "tool_calls": [OPENAI_CUSTOM]},
            AIMessage(tool_calls=[{"name": "sh", "args": {"__arg1": "ls"}, "id": "c"}]),
        ),
        (
            {"role": "assistant", "content": None, "refusal": "no", "audio": None, "annotations": []},
            AIMessage(additional_kwargs={"refusal": "no"}),
        ),
        (
            {"role": "assistant", "content": "x", "reasoning_content": "why"},
            AIMessage("x", additional_kwargs={"reasoning_content": "why"}),
        ),
        ({"role": "tool", "content": "21", "tool_call_id": "call_1"}, ToolMessage("21", "call_1")),
        ({"role": "function", "content": "21", "name": "f"}, ChatMessage("21", "function", name="f")),
        ({"type": "human", "content": "hi"}, HumanMessage("hi")),
        ({"type": "ai", "data": LANGCHAIN_DATA}, AIMessage("x", tool_calls=[CALL])),
        (LANGCHAIN_SERIALIZED, AIMessage("x")),
        ({"role": "assistant", "content": [TOOL_USE]}, AIMessage([TOOL_USE], tool_calls=[CALL])),
        ({"role": "user", "content": [RESULT]}, HumanMessage([RESULT])),
    ],
    ids=lambda value: "" if isinstance(value, BaseMessage) else str(value)[:60],
)
def test_a_message_is_made_from_every_usual_form(value: Any, expected: BaseMessage) -> None:
    """OpenAI's, Anthropic's and LangChain's dicts, tuples and text are accepted and not changed."""
    before = copy.deepcopy(value)
    assert from_any(value) == expected
    assert value == before, "the application's own objects are left as they were"


def test_from_any_returns_a_message_itself() -> None:
    """No copy is made."""
    message = AIMessageChunk("x")
    assert from_any(message) is message


def test_langchains_messages_are_converted_with_all_fields() -> None:
    """Bookkeeping fields of a chunk do not become content."""
    langchain = pytest.importorskip("langchain_core.messages")
    fields: dict[str, Any] = {
        "id": "1",
        "additional_kwargs": {"refusal": "no"},
        "response_metadata": {"finish_reason": "stop"},
    }
    calls: dict[str, Any] = {"tool_calls": [CALL], "invalid_tool_calls": [BROKEN], "usage_metadata": USAGE}
    failed = langchain.ToolMessage("x", tool_call_id="1", status="error", artifact=object())
    pairs = [
        (langchain.HumanMessage(TEXT_AND_IMAGE), HumanMessage(TEXT_AND_IMAGE)),
        (langchain.SystemMessage("s", name="n"), SystemMessage("s", name="n")),
        (langchain.AIMessage("x", **fields, **calls), AIMessage("x", **fields, **calls)),
        (langchain.AIMessageChunk(content="x", tool_calls=[CALL]), AIMessage("x", tool_calls=[CALL])),
        (failed, ToolMessage("x", "1", status="error")),
        (langchain.ChatMessage("x", role="user"), ChatMessage("x", "user")),
        (langchain.FunctionMessage("x", name="f"), ChatMessage("x", "function", name="f")),
    ]
    for theirs, ours in pairs:
        assert from_any(theirs) == ours
    prompt = pytest.importorskip("langchain_core.prompt_values")
    assert messages_from(prompt.StringPromptValue(text="hi")) == [HumanMessage("hi")]
    assert messages_from(prompt.ChatPromptValue(messages=[pairs[1][0]])) == [SystemMessage("s", name="n")]


def test_message_objects_of_the_sdks_are_converted() -> None:
    """The message of a response can be passed to the next request."""
    openai = ChatCompletionMessage.model_validate(
        {"role": "assistant", "content": None, "tool_calls": [OPENAI_CALL]}
    )
    assert from_any(openai) == AIMessage(tool_calls=[CALL])
    refused = ChatCompletionMessage.model_validate({"role": "assistant", "refusal": "no"})
    assert from_any(refused) == AIMessage(additional_kwargs={"refusal": "no"})
    usage = {"input_tokens": 1, "output_tokens": 2}
    fields = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "usage": usage}
    anthropic = AnthropicMessage.model_validate({**fields, "content": [TOOL_USE]})
    read = from_any(anthropic)
    assert isinstance(read, AIMessage)
    assert (read.id, read.tool_calls, read.additional_kwargs) == (
        "msg_1",
        [{**CALL, "type": "tool_call"}],
        {},
    )
    assert read.response_metadata["model"] == "claude"
    assert from_any({"role": "user", "content": anthropic.content}) == HumanMessage(read.content)


@dataclass
class PlainMessage:
    """A message class of an application."""

    role: str
    content: str
    tool_calls: list[Any] = field(default_factory=list)


def test_any_object_with_role_and_content_is_a_message() -> None:
    """It needs no base class."""
    assert from_any(PlainMessage("user", "hi")) == HumanMessage("hi")
    assert from_any(PlainMessage("assistant", "", [OPENAI_CALL])) == AIMessage(tool_calls=[CALL])


def test_input_of_a_model_is_one_message_or_several() -> None:
    """It may be text, a message, a pair, or a list or tuple of them."""
    assert messages_from("hi") == messages_from(HumanMessage("hi")) == messages_from(("user", "hi"))
    mixed = [SystemMessage("s"), ("user", "hi"), {"role": "assistant", "content": "x"}, "again"]
    expected = [SystemMessage("s"), HumanMessage("hi"), AIMessage("x"), HumanMessage("again")]
    assert messages_from(mixed) == messages_from(tuple(mixed)) == expected
    assert messages_from([]) == []


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (42, "int 42"),
        (None, "NoneType None"),
        ({"content": "x"}, "dict {'content': 'x'}"),
        ({"role": "user"}, "dict {'role': 'user'}"),
        ({"role": "user", "content": 42}, "content must be a str or a list of blocks, not int"),
        ({"role": "user", "content": {"type": "text"}}, "not dict"),
        ({"role": "user", "content": [42]}, "a content block must be a str or a dict, not int"),
        ({"role": "assistant", "tool_calls": ["f"]}, "a tool call must be a dict"),
        pytest.param(object(), "object <object", id="an object"),
        ({"role": "x" * 500}, r"x\.\.\.; pass a str, a message"),
    ],
    ids=str,
)
def test_an_invalid_message_is_refused_with_what_is_accepted(value: Any, names: str) -> None:
    """The error shows the object, shortened, and what to pass instead."""
    with pytest.raises(ConfigError, match=names) as caught:
        from_any(value)
    assert "pass" in str(caught.value) or "must be" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage(""),
        HumanMessage([{"type": "text", "text": "a\x00\ud800"}, IMAGE], id="1", name="bob"),
        SystemMessage("s", additional_kwargs={"__openai_role__": "developer"}),
        AIMessage("x", id="1", tool_calls=[CALL], invalid_tool_calls=[BROKEN], usage_metadata=USAGE),
        AIMessage(
            "", additional_kwargs={"reasoning_content": "why"}, response_metadata={"finish_reason": "stop"}
        ),
        ToolMessage("x", "1", status="error"),
        ToolMessage("x"),
        ChatMessage("x", "critic"),
        ChatMessage("x", "user"),
    ],
    ids=repr,
)
def test_a_message_is_equal_after_storing_and_reading(message: BaseMessage) -> None:
    """All fields are equal after a conversion to JSON text and back."""
    stored = json.loads(json.dumps(to_dict(message)))
    assert from_dict(stored) == message


def test_the_stored_form_has_only_fields_that_are_set() -> None:
    """A chunk is stored as its message."""
    assert to_dict(HumanMessage("hi")) == {"role": "user", "content": "hi"}
    assert to_dict(AIMessageChunk("x", tool_calls=[CALL])) == {
        "role": "assistant",
        "content": "x",
        "tool_calls": [{**CALL, "type": "tool_call"}],
    }


@pytest.mark.parametrize("copied", [False, True])
def test_an_empty_list_of_calls_can_be_appended_to(copied: bool) -> None:
    """It exists only when it is read; copies and pickles of the message have it too."""
    message = AIMessage("Hello")
    if copied:
        message = pickle.loads(pickle.dumps(copy.copy(message)))
    before = message.has_calls
    message.tool_calls.append({"name": "f", "args": {}, "id": "1", "type": "tool_call"})
    message.invalid_tool_calls.append(
        {"name": "g", "args": "{", "id": "2", "error": None, "type": "invalid_tool_call"}
    )
    assert (before, message.has_calls) == (False, True)
    assert [call["name"] for call in (*message.tool_calls, *message.invalid_tool_calls)] == ["f", "g"]
    message.tool_calls, message.invalid_tool_calls = [], []
    assert message == AIMessage("Hello")
