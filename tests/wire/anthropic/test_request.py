"""Messages in Anthropic's form, compared with langchain-anthropic's formatter."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from recorder.errors import ConfigError
from recorder.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from recorder.wire.anthropic.request import call_id, request_messages

PNG = "data:image/png;base64,iVBORw0KGgo="
CALL: dict[str, Any] = {"name": "weather", "args": {"city": "Zürich"}, "id": "toolu_1", "type": "tool_call"}
USE: dict[str, Any] = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Zürich"}}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "Eq=="}
REDACTED = {"type": "redacted_thinking", "data": "X=="}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "Z"}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [
        {"type": "web_search_result", "title": "Z", "url": "https://z.ch", "encrypted_content": "E=="}
    ],
}
CITED = {
    "type": "text",
    "text": "Z.",
    "citations": [{"type": "char_location", "cited_text": "Z", "document_index": 0, "file_id": None}],
}
MARK = {"cache_control": {"type": "ephemeral"}}


def _langchain() -> Any:
    return pytest.importorskip("langchain_core.messages")


def conversation(blocks: list[Any], more: list[Any] | None = None) -> Callable[[], list[Any]]:
    """Return a conversation in which the reply has these blocks, as LangChain's messages."""

    def make() -> list[Any]:
        lc = _langchain()
        calls = [CALL] if USE in blocks else []
        return [
            lc.HumanMessage("Hi"),
            lc.AIMessage(blocks, tool_calls=calls),
            lc.HumanMessage("And?"),
            *(more or []),
        ]

    return make


def user(*blocks: Any) -> Callable[[], list[Any]]:
    """Return a user's message with these blocks."""
    return lambda: [_langchain().HumanMessage(list(blocks))]


def tools() -> list[Any]:
    """Return a conversation with two tool calls, their results, and further user messages."""
    lc = _langchain()
    other = {**CALL, "id": "toolu_2"}
    return [
        lc.SystemMessage("Be brief."),
        lc.HumanMessage("Weather?"),
        lc.AIMessage("Let me see. ", tool_calls=[CALL, other]),
        lc.ToolMessage("20 °C", tool_call_id="toolu_1"),
        lc.ToolMessage([{"type": "text", "text": "broken", **MARK}], tool_call_id="toolu_2", status="error"),
        lc.HumanMessage("Well?"),
        lc.HumanMessage([{"type": "text", "text": "Go on."}]),
    ]


def foreign() -> list[Any]:
    """Return a conversation that began with another provider."""
    lc = _langchain()
    call = {**CALL, "id": "functions.weather:0"}
    return [
        lc.HumanMessage("Weather?"),
        lc.AIMessage([{"type": "reasoning", "reasoning": "Hm"}, {"type": "text", "text": "See."}], tool_calls=[call]),
        lc.ToolMessage("20 °C", tool_call_id="functions.weather:0"),
        lc.AIMessage("", additional_kwargs={"reasoning_content": "Hm"}),
        lc.HumanMessage("And?"),
        lc.AIMessage("", invalid_tool_calls=[
            {"name": "f", "args": '{"a', "id": "toolu_3", "error": None, "type": "invalid_tool_call"}
        ]),
        lc.ToolMessage("what?", tool_call_id="toolu_3"),
    ]  # fmt: skip


LIKE: dict[str, Callable[[], list[Any]]] = {
    "text": lambda: [_langchain().HumanMessage("Hi")],
    "system": lambda: [_langchain().SystemMessage("Be brief."), _langchain().HumanMessage("Hi")],
    "several systems": lambda: [
        _langchain().SystemMessage("Be brief."),
        _langchain().SystemMessage([{"type": "text", "text": "Be kind.", **MARK}]),
        _langchain().HumanMessage("Hi"),
    ],
    "tools": tools,
    "foreign": foreign,
    "a list of text": lambda: [_langchain().HumanMessage(["Hi", {"type": "text", "text": "you", "id": "lc_1"}])],
    "thinking": conversation([THOUGHT, REDACTED, {"type": "text", "text": "Yes."}]),
    "thinking as streamed": conversation([{**THOUGHT, "index": 0}, {"type": "text", "text": "Yes.", "index": 1}]),
    "thinking without its text": conversation([{"type": "thinking", "signature": "Eq=="}, USE]),
    "a call": conversation([{"type": "text", "text": "See."}, USE]),
    "a call as streamed": conversation(
        [{**USE, "input": {}, "partial_json": '{"city": "Zürich"}', "index": 0}, THOUGHT]
    ),
    "a server's tool": conversation([SEARCH, FOUND, CITED]),
    "a server's tool as streamed": conversation(
        [{**SEARCH, "input": {}, "partial_json": '{"query": "Z"}', "index": 0}, {**FOUND, "index": 1}, CITED]
    ),
    "blank text": conversation([{"type": "text", "text": " "}, {"type": "text", "text": "Yes."}]),
    "the last word": lambda: [_langchain().HumanMessage("Hi"), _langchain().AIMessage("He said: ")],
    "the last block": lambda: [
        _langchain().HumanMessage("Hi"), _langchain().AIMessage([{"type": "text", "text": "a "}])
    ],
    "results as the user's": user({"type": "tool_result", "tool_use_id": "a.b", "content": [
        {"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": PNG}}]}),
    "openai's image": user({"type": "text", "text": "Who?"}, {"type": "image_url", "image_url": {"url": PNG}}),
    "openai's image at a url": user({"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}),
    "anthropic's image": user(
        {"type": "image", "source": {"type": "url", "url": "https://example.org/cat.png"}, **MARK}
    ),
    "langchain's images": user(
        {"type": "image", "base64": "iVBOR", "mime_type": "image/png"},
        {"type": "image", "url": "https://example.org/cat.png"}, {"type": "image", "url": PNG},
        {"type": "image", "file_id": "file_1"},
        {"type": "image", "source_type": "base64", "data": "iVBOR", "mime_type": "image/png", **MARK},
        {"type": "image", "source_type": "url", "url": "https://example.org/cat.png"},
        {"type": "image", "source_type": "id", "id": "file_1"},
    ),
    "langchain's files": user(
        {"type": "file", "base64": "JVBE", "mime_type": "application/pdf", "extras": {"title": "Deed"}},
        {"type": "file", "url": "https://example.org/deed.pdf"}, {"type": "file", "file_id": "file_1"},
        {"type": "file", "source_type": "text", "text": "x", "metadata": {"citations": {"enabled": True}}},
        {"type": "text-plain", "text": "x", "mime_type": "text/plain"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("given", LIKE.values(), ids=LIKE)
def test_the_formatted_messages_equal_langchains(given: Callable[[], list[Any]]) -> None:
    """The request of every history is the same."""
    models = pytest.importorskip("langchain_anthropic.chat_models")
    system, turns = models._format_messages(given(), model="claude-haiku-4-5")
    assert request_messages(given()) == (system, turns)


def test_a_later_system_message_is_formatted_as_in_langchain() -> None:
    """Newer models take it in its place; for older ones it is moved to the front with a warning."""
    models = pytest.importorskip("langchain_anthropic.chat_models")
    lc = _langchain()
    given = [lc.HumanMessage("Hi"), lc.SystemMessage("Be brief."), lc.AIMessage("Ho"), lc.HumanMessage("And?"),
             lc.SystemMessage("Be kind.")]  # fmt: skip
    expected = models._format_messages(given, model=None, mid_conversation_system_messages=True)
    assert request_messages(given, "claude-opus-5") == expected
    with pytest.warns(UserWarning, match="moved"):
        expected = models._format_messages(given[:-1], model=None)
    with pytest.warns(UserWarning, match="moved to the front"):
        assert request_messages(given[:-1], "claude-haiku-4-5") == expected


def test_two_system_messages_apart_are_refused() -> None:
    """The error says what to do."""
    given = [SystemMessage("a"), HumanMessage("Hi"), AIMessage("Ho"), SystemMessage("b")]
    with pytest.raises(ConfigError, match=r"several system messages.*put their texts into the first"):
        request_messages(given, "claude-haiku-4-5")


def test_the_models_with_later_system_messages_equal_langchains() -> None:
    """LangChain's model profiles list them."""
    profiles = pytest.importorskip("langchain_anthropic.data._profiles")._PROFILES
    given = [HumanMessage("Hi"), SystemMessage("Be brief.")]
    for model, profile in profiles.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            system, _ = request_messages(given, model)
        assert (system is None) == bool(profile.get("mid_conversation_system_messages")), model


ANTHROPIC_DICTS: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "text", "text": "Weather?", **MARK}]},
    {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "See."}, {**USE, **MARK}]},
    {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "20 °C", **MARK}],
    },
]


def test_dicts_in_anthropics_form_are_not_changed() -> None:
    """Marks for the cache are kept."""
    assert request_messages(ANTHROPIC_DICTS) == (None, ANTHROPIC_DICTS)


def test_openais_dicts_are_converted() -> None:
    """An application can change its provider without changing its messages."""
    function = {"name": "weather", "arguments": '{"city": "Zürich"}'}
    system, turns = request_messages([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "toolu_1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "toolu_1", "content": "20 °C"},
        {"role": "user", "content": [{"type": "file", "file": {
            "filename": "deed.pdf", "file_data": "data:application/pdf;base64,JVBE"}}]},
    ])  # fmt: skip
    document = {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}
    assert system == "Be brief."
    assert turns == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [USE]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": "20 °C", "is_error": False},
            {"type": "document", "title": "deed.pdf", "source": document},
        ]},
    ]  # fmt: skip


def test_a_sum_of_chunks_is_sent_without_stream_fields() -> None:
    """`index` and `partial_json` belong to the stream only."""
    chunks = [
        AIMessageChunk([{"type": "thinking", "thinking": "Hm.", "index": 0}]),
        AIMessageChunk([{"type": "thinking", "thinking": "", "signature": "Eq==", "index": 0}]),
        AIMessageChunk([{**SEARCH, "input": {}, "index": 1}]),
        AIMessageChunk([{"type": "input_json_delta", "partial_json": '{"query": "Z"}', "index": 1}]),
        AIMessageChunk([{**FOUND, "index": 2}]),
    ]
    _, turns = request_messages(["Hi", chunks[0] + chunks[1:], "And?"])
    assert turns[1] == {"role": "assistant", "content": [THOUGHT, SEARCH, FOUND]}


def test_an_empty_reply_is_left_out() -> None:
    """The API refuses empty messages, except at the end."""
    given = [HumanMessage("Hi"), AIMessage(""), HumanMessage("Hello?")]
    assert [turn["role"] for turn in request_messages(given)[1]] == ["user", "user"]
    assert request_messages([HumanMessage("Hi"), AIMessage("")])[1][-1] == {
        "role": "assistant",
        "content": "",
    }


def test_changed_tool_calls_are_sent() -> None:
    """Applications change `tool_calls`; a call that the provider's own tool made is not changed."""
    changed = {**CALL, "args": {"city": "Bern"}}
    (_, turn) = request_messages(["Hi", AIMessage([USE], tool_calls=[changed])])[1]
    assert turn["content"][0]["input"] == {"city": "Bern"}
    by_code = {**USE, "caller": {"type": "code_execution_20260521", "tool_id": "srvtoolu_1"}}
    (_, turn) = request_messages(["Hi", AIMessage([by_code], tool_calls=[changed])])[1]
    assert turn["content"] == [by_code]


def test_a_result_names_the_toolset_of_its_call() -> None:
    """The API requires `toolset_name` on the call and on the result."""
    use = {**USE, "toolset_name": "town"}
    _, turns = request_messages(
        ["Hi", AIMessage([use], tool_calls=[CALL]), ToolMessage("20", tool_call_id="toolu_1")]
    )
    assert turns[2]["content"][0]["toolset_name"] == "town"


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"text": "Hi"}, "needs a 'type'"),
        ({"type": "image_url", "image_url": {"url": "cat.png"}}, "is no image; pass an https: URL"),
        ({"type": "image"}, "needs 'url', 'base64' or 'file_id'"),
    ],
)
def test_an_invalid_block_is_refused(block: dict[str, Any], message: str) -> None:
    """The error says what to pass."""
    with pytest.raises(ConfigError, match=message):
        request_messages([HumanMessage([block])])


def test_formatting_does_not_change_the_callers_messages() -> None:
    """All objects are the same afterwards."""
    given = [
        SystemMessage([{"type": "text", "text": "x"}]),
        *ANTHROPIC_DICTS,
        AIMessage([{"type": "text", "text": "a "}]),
    ]
    before = json.dumps(given, default=str)
    request_messages(given)
    assert json.dumps(given, default=str) == before


def test_ids_of_other_providers_are_replaced_by_constant_ids() -> None:
    """A call and its result get the same id."""
    assert call_id("toolu_1") == "toolu_1"
    assert call_id("functions.f:0") == call_id("functions.f:0") != call_id("functions.f:1")
    assert (call_id(None), call_id("")) == (None, "")
