"""Chunks of a user's model become deltas, and a replay makes the same chunks of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recorder.messages import AIMessage, AIMessageChunk, ChatGenerationChunk
from recorder.models import SimpleChatModel
from recorder.wire.deltas import OTHER, REASONING, SIGNATURE, TEXT, TOOL_ARGS, TOOL_CALL, Delta
from recorder.wire.from_chunks import Places, deltas_of, fill_own
from tests.alike import Forms, assert_alike, forms_of, total
from tests.chatting import CALL_STYLES, CallStyle, name_of

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)


class ScriptedModel(SimpleChatModel):
    """A model that yields the given pieces."""

    def _stream(self, messages: Any, **options: Any) -> Any:
        yield from options["pieces"]


def forms(pieces: list[Any], style: CallStyle, folder: Path) -> Forms:
    """Return all forms of one answer of such a model."""
    found = forms_of(lambda provider, **options: ScriptedModel(pieces=pieces, **options), b"", style, folder)
    assert_alike(found)
    return found


def thinking(text: str, **more: Any) -> dict[str, Any]:
    """Return a piece of a thinking block."""
    return {"type": "thinking", "thinking": text, "index": 0, **more}


def text(text: str, **more: Any) -> dict[str, Any]:
    """Return a piece of a text block."""
    return {"type": "text", "text": text, "index": 1, **more}


CITED = {"type": "text", "text": "!", "index": 1, "annotations": [{"type": "citation", "url": "x"}]}
#: Pieces of content, and their tokens.
BLOCKS: dict[str, tuple[list[Any], list[tuple[str, str, str]]]] = {
    "thoughts and text": (
        [[thinking("Hm")], [thinking("m")], [text("Hello")]],
        [("reasoning", "0.0", "Hm"), ("reasoning", "0.0", "m"), ("text", "0.1", "Hello")],
    ),
    "LangChain's standard": (
        [[{"type": "reasoning", "reasoning": "Hm", "index": 0}], [text("Hello")]],
        [("reasoning", "0.0.reasoning", "Hm"), ("text", "0.1", "Hello")],
    ),
    "a signature": (
        [[thinking("Hm")], [thinking("", signature="S")], [text("Hello")]],
        [("reasoning", "0.0", "Hm"), ("signature", "0.0", "S"), ("text", "0.1", "Hello")],
    ),
    "thoughts and a plain text": ([[thinking("Hm")], "Hello"], [("reasoning", "0.0", "Hm"), ("text", "0", "Hello")]),
    "more than a text": (
        [[text("Hi")], [CITED]],
        [
            ("text", "0.1", "Hi"),
            ("other", "0.1", '{"content_block":{"type":"text","annotations":[{"type":"citation","url":"x"}]}}'),
            ("text", "0.1", "!"),
        ],
    ),
    "blocks of another type": (
        [[{"type": "redacted_thinking", "data": "x", "index": 0}], [text("Hello")]],
        [("other", "0.0", '{"content_block":{"type":"redacted_thinking","data":"x"}}'), ("text", "0.1", "Hello")],
    ),
    "without an index each is another": (
        [[{"type": "thinking", "thinking": "a"}], [{"type": "thinking", "thinking": "b"}], ["Hello"]],
        [("reasoning", "0.0", "a"), ("reasoning", "0.1", "b"), ("text", "0", "Hello")],
    ),
    "an index that is a word": (
        [[{"type": "text", "text": "a", "index": "lc_txt_0"}], [{"type": "text", "text": "b", "index": "lc_txt_0"}]],
        [("text", "0.0", "a"), ("text", "0.0", "b")],
    ),
}  # fmt: skip


@both
@pytest.mark.parametrize(("pieces", "tokens"), BLOCKS.values(), ids=BLOCKS)
def test_blocks_of_chunks_are_stored_and_replayed(
    pieces: list[Any], tokens: list[Any], style: CallStyle, tmp_path: Path
) -> None:
    """The tokens have all blocks, and the replayed content equals the live one."""
    found = forms([ChatGenerationChunk(AIMessageChunk(piece)) for piece in pieces], style, tmp_path)
    assert found.tokens == tokens
    assert without_index(total(found.replayed).content) == without_index(found.live.content)


def without_index(content: Any) -> Any:
    """Return the blocks without different indexes."""
    return [{**block, "index": 0} if isinstance(block, dict) else block for block in content]


def call(
    name: str | None, args: str, id: str | None = None, index: int | None = None, **more: Any
) -> AIMessageChunk:
    """Return a chunk with a piece of a tool call."""
    piece: Any = {"name": name, "args": args, "id": id, "index": index, "type": "tool_call_chunk", **more}
    return AIMessageChunk("", tool_call_chunks=[piece])


CALLS: dict[str, tuple[list[Any], list[tuple[str, Any]]]] = {
    "without an index": ([call("f", '{"x":1}', "a"), call("g", '{"y":2}', "b")], [("f", {"x": 1}), ("g", {"y": 2})]),
    "in pieces without an index": (
        [call("f", "", "a"), call(None, '{"x":1}'), call("g", '{"y"', "b"), call(None, ":2}")],
        [("f", {"x": 1}), ("g", {"y": 2})],
    ),
    "without index and id": ([call("f", "{}"), call("f", "{}")], [("f", {}), ("f", {})]),
    "under one index": (
        [call("f", "{}", "a", 0), call("g", '{"y"', "b", 0), call(None, ":2}", None, 0)], [("f", {}), ("g", {"y": 2})]
    ),
    "by turns": (
        [call("f", '{"x"', "a", 0), call("g", '{"y"', "b", 1), call(None, ":1}", None, 0), call(None, ":2}", None, 1)],
        [("f", {"x": 1}), ("g", {"y": 2})],
    ),
    "in messages": (
        [AIMessage("", tool_calls=[{"name": name, "args": {}, "id": name}]) for name in "fg"], [("f", {}), ("g", {})]
    ),
}  # fmt: skip


@both
@pytest.mark.parametrize(("pieces", "expected"), CALLS.values(), ids=CALLS)
def test_tool_calls_of_chunks_are_told_apart(
    pieces: list[Any], expected: list[Any], style: CallStyle, tmp_path: Path
) -> None:
    """Two calls are two, with any indexes or none."""
    found = forms(pieces, style, tmp_path)
    assert found.message is not None
    for message in (found.live, found.message):
        assert [(each["name"], each["args"]) for each in message.tool_calls] == expected
    assert len({idx for idx, _ in found.tokens_of(TOOL_CALL)}) == len(expected)


@both
def test_additional_fields_of_chunks_are_kept(style: CallStyle, tmp_path: Path) -> None:
    """Fields of the message and of a call add up in a replay as they do live."""
    pieces = [
        AIMessageChunk("a", additional_kwargs={"mood": "hap", "seen": [1], "reasoning_content": "Hm"}),
        AIMessageChunk("b", additional_kwargs={"mood": "py", "seen": [2]}),
        call("f", "{}", "a", 0, extras={"signature": "S"}),
    ]
    found = forms(pieces, style, tmp_path)
    expected = {"mood": "happy", "seen": [1, 2], "reasoning_content": "Hm"}
    assert found.live.additional_kwargs == expected
    assert found.live.tool_calls[0]["extras"] == {"signature": "S"}
    assert ("other", "0", '{"mood":"hap","seen":[1]}') in found.tokens


def test_a_call_in_content_and_in_tool_call_chunks_counts_once() -> None:
    """LangChain's models send both."""
    blocks = [
        {"type": "tool_use", "id": "a", "name": "f", "input": {}, "index": 1},
        {"type": "input_json_delta", "partial_json": "{}", "index": 1},
    ]
    run, chunk = SimpleNamespace(places=None), call("f", "{}", "a", 1)
    deltas = deltas_of(blocks, SimpleNamespace(message=chunk), run)
    assert deltas == [Delta('{"id":"a","name":"f"}', TOOL_CALL, "0.1"), Delta("{}", TOOL_ARGS, "0.1")]
    alone = deltas_of(blocks[:1], SimpleNamespace(message=AIMessageChunk("")), SimpleNamespace(places=None))
    assert [(delta.kind, delta.idx) for delta in alone] == [(OTHER, "0.1")]


def test_a_chunk_of_plain_text_makes_no_places() -> None:
    """Most chunks of a stream are plain text."""
    run = SimpleNamespace(places=None)
    assert deltas_of("Hi", SimpleNamespace(message=AIMessageChunk("Hi")), run) == [Delta("Hi")]
    assert run.places is None


def test_each_block_has_a_number_of_its_own() -> None:
    """A block without an index gets a number that no other block has."""
    places = Places()
    assert [places.block(index) for index in (None, 0, 2, None, 1, 0, "lc_x", True, None)] == [
        0,
        1,
        2,
        3,
        4,
        1,
        5,
        4,
        6,
    ]


@pytest.mark.parametrize("kind", [TEXT, REASONING, SIGNATURE, OTHER, TOOL_CALL, TOOL_ARGS])
@pytest.mark.parametrize("idx", ["0", "0.", "0.x", "0.1.", "0.1.reasoning", "1.1", "", "0.²"])
@pytest.mark.parametrize("text", ["", "a", "[]", '{"content_block":7}', '{"id":{},"name":[]}'])
def test_any_delta_fills_a_chunk(text: str, idx: str, kind: str) -> None:
    """Deltas may come from any database, and none raises an error."""
    chunk = AIMessageChunk("")
    assert fill_own(chunk, [Delta(text, kind, idx)]) == idx.startswith("0")
    assert isinstance((chunk + chunk).text, str)
