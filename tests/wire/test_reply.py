"""`Reply` adds up deltas to messages, without an error for any delta."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recorder.core.json import dumps
from recorder.messages import AIMessage
from recorder.wire import deltas, reply
from recorder.wire.deltas import CITATION, OTHER, REASONING, REFUSAL, TEXT, TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.reply import Reply, merge_other
from tests.wires import unhurried

KINDS = sorted(value for name, value in vars(deltas).items() if name.isupper())


def added(*pieces: Delta) -> Reply:
    """Return a reply of these deltas."""
    found = Reply()
    for piece in pieces:
        found.add(piece)
    return found


def call(idx: str, *arguments: str, **opened: Any) -> list[Delta]:
    """Return the deltas of a tool call and of the pieces of its arguments."""
    return [Delta(dumps(opened), TOOL_CALL, idx), *(Delta(piece, TOOL_ARGS, idx) for piece in arguments)]


# -- the message ---------------------------------------------------------------------------------------------


def test_a_reply_without_deltas_is_an_empty_message() -> None:
    """There is always a first choice."""
    empty = Reply()
    assert empty.choices == [0]
    assert empty.message() == empty.message(7) == AIMessage("")


def test_text_is_joined() -> None:
    """Text may be added by `add` and by `add_text`."""
    both = added(Delta("a"))
    both.add_text("b")
    both.add(Delta("c"))
    both.add_text("d")
    assert both.message() == AIMessage("abcd")
    first = Reply()
    first.add_text("a")
    first.add(Delta("b"))
    assert first.text() == "ab"


def test_each_kind_of_delta_has_its_field() -> None:
    """Kinds without a field in LangChain are in `additional_kwargs`."""
    found = added(
        Delta("Hm", REASONING),
        Delta("Yes"),
        Delta("No", REFUSAL),
        Delta('{"url":"x"}', CITATION),
        Delta("m", REASONING),
        Delta('{"url":"y"}', CITATION),
        Delta('{"audio":{"id":"a"}}', OTHER),
    )
    found.response_id, found.model = "chatcmpl-1", "gpt-4o"
    found.usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    found.metadata = {"system_fingerprint": "fp"}
    found.finish(0, "stop")
    assert found.message() == AIMessage(
        "Yes",
        id="chatcmpl-1",
        usage_metadata=found.usage,
        additional_kwargs={
            "reasoning_content": "Hmm",
            "refusal": "No",
            "annotations": [{"url": "x"}, {"url": "y"}],
            "audio": {"id": "a"},
        },
        response_metadata={"finish_reason": "stop", "model_name": "gpt-4o", "system_fingerprint": "fp"},
    )


def test_each_choice_is_a_message() -> None:
    """They are sorted by number; a choice that only has a finish reason is one, too."""
    found = added(Delta("b", TEXT, "2"), Delta("a"), *call("2.0", "{}", id="x", name="f"))
    found.finish(1, "content_filter")
    found.finish(2, "tool_calls")
    assert found.choices == [0, 1, 2]
    assert [found.message(number).content for number in found.choices] == ["a", "", "b"]
    assert [len(found.message(number).tool_calls) for number in found.choices] == [0, 0, 1]
    assert found.message(1).response_metadata == {"finish_reason": "content_filter"}


def test_log_probabilities_are_joined() -> None:
    """The lists of each choice are joined, and other values are ignored."""
    found = Reply()
    for tokens in ([1], [2, 3], None):
        found.add_logprobs(1, {"content": tokens, "refusal": None})
    for rubbish in (None, "x", [1], 7):
        found.add_logprobs(1, rubbish)
    assert found.response_metadata(1) == {"logprobs": {"content": [1, 2, 3]}}
    assert found.response_metadata(0) == {}


# -- tool calls ----------------------------------------------------------------------------------------------


def test_tool_calls_have_the_order_in_which_they_began() -> None:
    """Their pieces may be interleaved."""
    first, second = call("0.1", '{"x":', " 1}", id="b", name="g"), call("0.0", id="a", name="f")
    found = added(first[0], second[0], *first[1:])
    assert found.tool_calls() == [
        {"id": "b", "name": "g", "arguments": '{"x": 1}'},
        {"id": "a", "name": "f", "arguments": ""},
    ]
    assert found.message().tool_calls == [
        {"name": "g", "args": {"x": 1}, "id": "b", "type": "tool_call"},
        {"name": "f", "args": {}, "id": "a", "type": "tool_call"},
    ]


@pytest.mark.parametrize("arguments", ['{"x": 1', "[1]", "nonsense", '"text"', "null", "[" * 100_000])
def test_arguments_that_are_not_an_object_make_an_invalid_call(arguments: str) -> None:
    """Their text is kept unchanged."""
    message = added(*call("0.0", arguments, id="a", name="f")).message()
    assert message.tool_calls == []
    assert message.invalid_tool_calls == [
        {"name": "f", "args": arguments, "id": "a", "error": None, "type": "invalid_tool_call"}
    ]


def test_arguments_with_raw_line_breaks_are_parsed() -> None:
    """Models write them, and LangChain accepts them."""
    message = added(*call("0.0", '{"x": "a\nb"}', id="a", name="f")).message()
    assert message.tool_calls[0]["args"] == {"x": "a\nb"}


def test_a_tool_call_is_built_from_incomplete_deltas() -> None:
    """A name may come in pieces, an id twice, and an opening may be missing or empty."""
    found = added(
        Delta('{"id":"a","name":"get_"}', TOOL_CALL, "0.0"),
        Delta('{"id":"b","name":"weather"}', TOOL_CALL, "0.0"),
        Delta("{}", TOOL_ARGS, "0.1"),
        Delta("{}", TOOL_CALL, "0.2"),
    )
    assert found.tool_calls() == [
        {"id": "a", "name": "get_weather", "arguments": ""},
        {"id": None, "name": None, "arguments": "{}"},
        {"id": None, "name": None, "arguments": ""},
    ]
    assert [each["name"] for each in found.message().tool_calls] == ["get_weather", "", ""]


# -- unknown fields ------------------------------------------------------------------------------------------

_OTHERS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "lists grow": ([{"x": [1]}, {"x": [2, 3]}, {"x": []}], {"x": [1, 2, 3]}),
    "dicts grow": ([{"x": {"a": 1}}, {"x": {"b": 2}}], {"x": {"a": 1, "b": 2}}),
    "texts inside of dicts grow": ([{"x": {"t": "a"}}, {"x": {"t": "b"}}], {"x": {"t": "ab"}}),
    "names inside of dicts do not": (
        [{"x": {"id": "1", "type": "t"}}, {"x": {"id": "1", "type": "t"}}],
        {"x": {"id": "1", "type": "t"}},
    ),
    "deeper": ([{"x": {"y": {"t": ["a"]}}}, {"x": {"y": {"t": ["b"]}}}], {"x": {"y": {"t": ["a", "b"]}}}),
    "later values win": ([{"x": "a"}, {"x": "b"}, {"y": 1}, {"y": 2.5}], {"x": "b", "y": 2.5}),
    "later kinds win": ([{"x": [1]}, {"x": {"a": 1}}, {"x": "b"}], {"x": "b"}),
    "null says nothing": (
        [{"x": {"t": "a", "n": 1}}, {"x": {"t": None, "n": None}}],
        {"x": {"t": "a", "n": 1}},
    ),
    "numbers are not added": ([{"x": {"at": 5}}, {"x": {"at": 5}}], {"x": {"at": 5}}),
    "no objects": ([[1], "a", 7, None], {}),
}


@pytest.mark.parametrize(("pieces", "expected"), _OTHERS.values(), ids=_OTHERS)
def test_other_deltas_are_merged(pieces: list[Any], expected: dict[str, Any]) -> None:
    """Merging all at once gives the same as merging one after another."""
    texts = [dumps(piece) for piece in pieces]
    assert added(*(Delta(text, OTHER) for text in texts)).message().additional_kwargs == expected
    into: dict[str, Any] = {}
    for text in texts:
        into = merge_other(into, text)
    assert into == expected


def test_merging_keeps_the_other_keys_of_a_dict() -> None:
    """A piece that is not JSON adds nothing."""
    into = {"reasoning_content": "a", "x": [1]}
    assert merge_other(into, '{"x": [2], "y": 3}') == {"reasoning_content": "a", "x": [1, 2], "y": 3}
    assert merge_other(into, "nonsense") == {"reasoning_content": "a", "x": [1, 2], "y": 3}


def test_a_known_kind_overrides_an_unknown_key_of_its_name() -> None:
    """A refusal is not replaced by an `other` delta with the key `refusal`."""
    found = added(Delta('{"refusal":{"why":"x"}}', OTHER), Delta("No", REFUSAL))
    assert found.message().additional_kwargs == {"refusal": "No"}


# -- random deltas -------------------------------------------------------------------------------------------


@pytest.mark.matrix
@pytest.mark.parametrize("idx", ["", "x", "0.x", "1.2.3", "-1", "²", "99999999999999999999", "0.function"])
@pytest.mark.parametrize("kind", [*KINDS, "unheard of"])
@pytest.mark.parametrize(
    "text", ["", "text", "null", "[1]", '{"id":{"a":1},"name":[2]}', "{", "\ud83c", "\x00"]
)
def test_any_delta_can_be_added(text: str, kind: str, idx: str) -> None:
    """Deltas may come from a database, or from somebody else's handler."""
    found = added(*[Delta(text, kind, idx)] * 3)
    for number in found.choices:
        assert isinstance(found.message(number), AIMessage)


@unhurried
@given(
    st.lists(
        st.builds(
            Delta,
            st.text(max_size=4)
            | st.sampled_from(['{"id":"a"}', '{"name":"f"}', '{"x":{"y":[1]}}', "[]", "7"]),
            st.sampled_from(KINDS),
            st.sampled_from(["0", "1", "0.0", "0.1", "1.0"]),
        ),
        max_size=12,
    )
)
def test_random_deltas_make_messages(pieces: list[Delta]) -> None:
    """The text of each choice is the joined text of its parts."""
    found = added(*pieces)
    for number in (0, 1):
        message = found.message(number)
        mine = [piece for piece in pieces if piece.idx.partition(".")[0] == str(number)]
        parts: dict[str, str] = {}
        for piece in mine:
            if piece.kind == TEXT:
                parts[piece.idx] = parts.get(piece.idx, "") + piece.text
        assert message.content == "".join(parts.values())
        called = {piece.idx for piece in mine if piece.kind in (TOOL_CALL, TOOL_ARGS)}
        assert len(message.tool_calls) + len(message.invalid_tool_calls) == len(called)


def test_deeply_nested_pieces_are_merged_up_to_a_limit() -> None:
    """Beyond it the later piece replaces the earlier one."""
    deep = '{"x":' * 900 + '"a"' + "}" * 900
    found = added(Delta(deep, OTHER), Delta(deep, OTHER)).message()
    assert list(found.additional_kwargs) == ["x"]


# -- limits --------------------------------------------------------------------------------------------------


def test_a_reply_is_truncated_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text beyond the limit is missing at the end, never in the middle."""
    monkeypatch.setattr(reply, "MAX_REPLY_BYTES", 10_000)
    found = Reply()
    for _ in range(30):
        found.add_text("x" * 500)
    found.add_text("y")
    found.add(Delta("z"))
    found.add(Delta("new part", TEXT, "1"))
    found.add_logprobs(0, {"content": [1]})
    assert found.truncated
    assert set(found.text()) == {"x"}
    assert 7_500 < len(found.text()) <= 10_000
    assert (found.text(1), found.logprobs) == ("", {})
    assert found.message().response_metadata == {"truncated": True}


def test_a_reply_has_a_limited_number_of_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further choices are not kept, and known ones are continued."""
    monkeypatch.setattr(reply, "MAX_CHOICES", 2)
    found = added(Delta("a"), Delta("b", TEXT, "7"))
    before = found.truncated
    found.add(Delta("c", TEXT, "8"))
    assert (before, found.truncated) == (False, True)
    found.finish(8, "stop")
    found.finish(7, "x" * 100_000)
    found.add(Delta("d"))
    found.add_logprobs(8, {"content": [1]})
    assert (found.choices, found.text(), found.text(7), found.logprobs) == ([0, 7], "ad", "b", {})
    assert found.finish_reasons == {7: "x" * 200}
