"""Deltas of what a model of one's own tells by chunks, and the chunks that a replay makes of them."""

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
from tests.chatting import ROADS, Road, name_of

both = pytest.mark.parametrize("road", ROADS, ids=name_of)


class Own(SimpleChatModel):
    """Yields what it is told to."""

    def _stream(self, messages: Any, **options: Any) -> Any:
        yield from options["pieces"]


def forms(pieces: list[Any], road: Road, folder: Path) -> Forms:
    """One answer of such a model, in all its forms."""
    found = forms_of(lambda provider, **options: Own(pieces=pieces, **options), b"", road, folder)
    assert_alike(found)
    return found


def thinking(text: str, **more: Any) -> dict[str, Any]:
    """A piece of a block with thoughts."""
    return {"type": "thinking", "thinking": text, "index": 0, **more}


def text(text: str, **more: Any) -> dict[str, Any]:
    """A piece of a block with text."""
    return {"type": "text", "text": text, "index": 1, **more}


CITED = {"type": "text", "text": "!", "index": 1, "annotations": [{"type": "citation", "url": "x"}]}
#: Pieces of content, and the tokens that they are.
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
def test_blocks_are_kept_whole(pieces: list[Any], tokens: list[Any], road: Road, tmp_path: Path) -> None:
    """Among the tokens, and in a replay as in the chunks that the application got."""
    found = forms([ChatGenerationChunk(AIMessageChunk(piece)) for piece in pieces], road, tmp_path)
    assert found.tokens == tokens
    assert without_index(total(found.replayed).content) == without_index(found.heard.content)


def without_index(content: Any) -> Any:
    """The blocks, however they are numbered."""
    return [{**block, "index": 0} if isinstance(block, dict) else block for block in content]


def call(
    name: str | None, args: str, id: str | None = None, index: int | None = None, **more: Any
) -> AIMessageChunk:
    """A chunk with a piece of a call."""
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
def test_calls_have_their_places(pieces: list[Any], expected: list[Any], road: Road, tmp_path: Path) -> None:
    """Two calls are two, whatever index they have or have not."""
    found = forms(pieces, road, tmp_path)
    assert found.message is not None
    for message in (found.heard, found.message):
        assert [(each["name"], each["args"]) for each in message.tool_calls] == expected
    assert len({idx for idx, _ in found.tokens_of(TOOL_CALL)}) == len(expected)


@both
def test_what_else_a_message_has_is_kept(road: Road, tmp_path: Path) -> None:
    """Keys of its own beside the text, and of a call; they add up in a replay as they did live."""
    pieces = [
        AIMessageChunk("a", additional_kwargs={"mood": "hap", "seen": [1], "reasoning_content": "Hm"}),
        AIMessageChunk("b", additional_kwargs={"mood": "py", "seen": [2]}),
        call("f", "{}", "a", 0, extras={"signature": "S"}),
    ]
    found = forms(pieces, road, tmp_path)
    expected = {"mood": "happy", "seen": [1, 2], "reasoning_content": "Hm"}
    assert found.heard.additional_kwargs == expected
    assert found.heard.tool_calls[0]["extras"] == {"signature": "S"}
    assert ("other", "0", '{"mood":"hap","seen":[1]}') in found.tokens


def test_calls_are_told_once() -> None:
    """LangChain's models have them in the content as well."""
    blocks = [
        {"type": "tool_use", "id": "a", "name": "f", "input": {}, "index": 1},
        {"type": "input_json_delta", "partial_json": "{}", "index": 1},
    ]
    run, chunk = SimpleNamespace(places=None), call("f", "{}", "a", 1)
    deltas = deltas_of(blocks, SimpleNamespace(message=chunk), run)
    assert deltas == [Delta('{"id":"a","name":"f"}', TOOL_CALL, "0.1"), Delta("{}", TOOL_ARGS, "0.1")]
    alone = deltas_of(blocks[:1], SimpleNamespace(message=AIMessageChunk("")), SimpleNamespace(places=None))
    assert [(delta.kind, delta.idx) for delta in alone] == [(OTHER, "0.1")]


def test_plain_text_needs_no_places() -> None:
    """Most of a stream is nothing else."""
    run = SimpleNamespace(places=None)
    assert deltas_of("Hi", SimpleNamespace(message=AIMessageChunk("Hi")), run) == [Delta("Hi")]
    assert run.places is None


def test_numbers_of_blocks_are_never_two_blocks() -> None:
    """One without an index takes none that another has, or will have."""
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
def test_no_delta_is_an_error(text: str, idx: str, kind: str) -> None:
    """They may come from any database."""
    chunk = AIMessageChunk("")
    assert fill_own(chunk, [Delta(text, kind, idx)]) == idx.startswith("0")
    assert isinstance((chunk + chunk).text, str)
