"""Anthropic's deltas are assigned to their blocks, whatever indexes a proxy sends, and repeated answers count once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.alike import assert_alike, claude, forms_of
from tests.chatting import CALL_STYLES, PLAIN, CallStyle, name_of
from tests.wires import DONE

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)


def event(**fields: Any) -> bytes:
    """Return one event with its name."""
    return b"event: %b\ndata: %b\n\n" % (fields["type"].encode(), orjson.dumps(fields))


def start(index: Any, **block: Any) -> bytes:
    """Return the event that begins a block."""
    return event(type="content_block_start", index=index, content_block=block)


def piece(index: Any, **delta: Any) -> bytes:
    """Return an event with one delta of a block."""
    return event(type="content_block_delta", index=index, delta=delta)


def stop(index: Any, **more: Any) -> bytes:
    """Return the event that ends a block."""
    return event(type="content_block_stop", index=index, **more)


def text(index: Any, *pieces: str) -> bytes:
    """Return the events of a block of text."""
    frames = [piece(index, type="text_delta", text=each) for each in pieces]
    return start(index, type="text", text="") + b"".join(frames) + stop(index)


def tool(index: Any, id: str, *pieces: str, closed: bool = True, **block: Any) -> bytes:
    """Return the events of a tool call."""
    frames = [piece(index, type="input_json_delta", partial_json=each) for each in pieces]
    opened = start(index, type="tool_use", id=id, name=f"tool_{id}", **{"input": {}, **block})
    return opened + b"".join(frames) + (stop(index) if closed else b"")


def thinking(index: Any, *pieces: str) -> bytes:
    """Return the events of a thinking block with its signature."""
    frames = [piece(index, type="thinking_delta", thinking=each) for each in pieces]
    opened = start(index, type="thinking", thinking="", signature="")
    return opened + b"".join(frames) + piece(index, type="signature_delta", signature="S") + stop(index)


USAGE = {"input_tokens": 5, "output_tokens": 1}
START = event(type="message_start", message={"id": "msg_1", "model": "m", "content": [], "usage": USAGE})
OVER = event(
    type="message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 7}
)
STOP = event(type="message_stop")

HM = {"type": "thinking", "thinking": "Hmm", "signature": "S"}
HELLO = {"type": "text", "text": "Hello there"}


def use(id: str, **input: Any) -> dict[str, Any]:
    """Return the block of a tool call."""
    return {"type": "tool_use", "id": id, "name": f"tool_{id}", "input": input}


#: Events, and the blocks that they must give.
PLACED: dict[str, tuple[bytes, list[dict[str, Any]]]] = {
    "two calls under one index": (
        tool(0, "a", '{"x":', "1}") + tool(0, "b", '{"y":2}'), [use("a", x=1), use("b", y=2)]
    ),
    "text and a call": (text(0, "Hello", " there") + tool(0, "a", '{"x":1}'), [HELLO, use("a", x=1)]),
    "thinking and text": (thinking(0, "Hm", "m") + text(0, "Hello", " there"), [HM, HELLO]),
    "two texts": (text(0, "Hello there") + text(0, "Hello there"), [HELLO, HELLO]),
    "without any index": (
        (thinking(9, "Hmm") + text(9, "Hello there") + tool(9, "a", "{}")).replace(b'"index":9,', b"").replace(
            b',"index":9}', b"}"), [HM, HELLO, use("a")],
    ),
    "blocks that are not closed": (
        start(0, type="text", text="") + piece(0, type="text_delta", text="Hello there")
        + tool(0, "a", '{"x":1}', closed=False) + tool(0, "b", closed=False, input={"y": 2}),
        [HELLO, use("a", x=1), use("b", y=2)],
    ),
    "a call that is not closed, with its input": (tool(0, "a", closed=False, input={"x": 1}), [use("a", x=1)]),
    "pieces that are counted apart from their blocks": (
        start(0, type="text", text="") + piece(0, type="text_delta", text="Hello there") + stop(0)
        + start(1, type="tool_use", id="a", name="tool_a", input={})
        + piece(0, type="input_json_delta", partial_json='{"x":1}') + stop(1),
        [HELLO, use("a", x=1)],
    ),
    "pieces whose blocks were never begun": (
        piece(0, type="thinking_delta", thinking="Hmm") + piece(0, type="signature_delta", signature="S")
        + piece(1, type="text_delta", text="Hello there"), [HM, HELLO],
    ),
    "a block that is begun twice": (
        start(0, type="text", text="") + start(0, type="text", text="")
        + piece(0, type="text_delta", text="Hello there") + stop(0), [HELLO],
    ),
    "a piece behind the end of its block": (
        text(0, "Hello") + piece(0, type="text_delta", text=" there"), [HELLO]
    ),
    "a later index first": (
        tool(1, "a", '{"x":1}') + text(0, "Hello there"), [HELLO, use("a", x=1)],
    ),
    "an index as text": (text("0", "Hello there") + tool("1", "a", "{}"), [HELLO, use("a")]),
    "calls by turns": (
        start(0, type="tool_use", id="a", name="tool_a", input={})
        + start(1, type="tool_use", id="b", name="tool_b", input={})
        + piece(0, type="input_json_delta", partial_json='{"x"')
        + piece(1, type="input_json_delta", partial_json='{"y"')
        + piece(0, type="input_json_delta", partial_json=":1}")
        + piece(1, type="input_json_delta", partial_json=":2}")
        + stop(0) + stop(1), [use("a", x=1), use("b", y=2)],
    ),
    "gaps between the indexes": (text(2, "Hello there") + tool(5, "a", "{}"), [HELLO, use("a")]),
    "a block that its stop tells": (
        start(0, type="text", text="") + stop(0, content_block=HELLO), [HELLO],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("events", "blocks"), PLACED.values(), ids=PLACED)
def test_each_delta_is_assigned_to_its_block(events: bytes, blocks: list[Any], tmp_path: Path) -> None:
    """The blocks are the same live, stored and replayed, and each call has an idx of its own."""
    found = forms_of(claude, START + events + OVER + STOP, CALL_STYLES[len(events) % 2], tmp_path)
    assert found.message is not None
    expected = blocks[0]["text"] if blocks == [HELLO] else blocks
    assert found.message.content == expected
    assert len({idx for idx, _ in found.tokens_of("tool_call")}) == len(found.message.tool_calls)
    assert_alike(found)


# -- a complete answer after its deltas ------------------------------------------------------------------------------

PIECES = thinking(0, "Hm", "m") + text(1, "Hello", " there") + tool(2, "a", '{"x":1}')
ALL = [HM, HELLO, use("a", x=1)]
COMPLETE = event(type="message", id="msg_1", role="assistant", model="m", content=ALL, stop_reason="end_turn",
              usage={"input_tokens": 5, "output_tokens": 7})  # fmt: skip


@both
@pytest.mark.parametrize(
    "end",
    [
        COMPLETE,
        OVER + COMPLETE,
        COMPLETE + OVER + STOP,
        OVER + event(type="message_stop", message={"content": ALL}),
        OVER + DONE,
    ],
    ids=["in place of the end", "behind it", "before it", "in the terminator", "not at all"],
)
def test_a_repeated_anthropic_answer_counts_once(end: bytes, style: CallStyle, tmp_path: Path) -> None:
    """Blocks that were streamed are not yielded again when the whole message follows."""
    found = forms_of(claude, START + PIECES + end, style, tmp_path)
    assert found.message is not None
    assert found.message.content == ALL
    assert found.end == ("complete", "end_turn", 5, 7)
    assert_alike(found)


@both
@pytest.mark.parametrize(
    "body",
    [
        COMPLETE,
        event(type="message_start", message={"id": "1", "content": ALL, "usage": USAGE}) + OVER + STOP,
    ],
    ids=["a whole answer", "all in the start"],
)
def test_a_complete_anthropic_answer_without_deltas_counts(
    body: bytes, style: CallStyle, tmp_path: Path
) -> None:
    """Some providers do not stream."""
    found = forms_of(claude, body, style, tmp_path)
    assert found.message is not None
    assert found.message.content == ALL
    assert found.end == ("complete", "end_turn", 5, 7)
    assert_alike(found)


def test_a_complete_anthropic_answer_adds_what_is_missing(tmp_path: Path) -> None:
    """The end of a text and a whole block were not streamed before."""
    found = forms_of(claude, START + thinking(0, "Hmm") + text(1, "Hel") + COMPLETE, PLAIN, tmp_path)
    assert found.message is not None
    assert found.message.content == ALL
    assert_alike(found)
