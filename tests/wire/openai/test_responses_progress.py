"""What is remembered of the output items is bounded."""

from __future__ import annotations

import pytest

from recorder.wire.openai import responses_progress
from recorder.wire.openai.responses_progress import OutputItems
from tests.responses import done, ended, function_call, message, reply_of, text


def test_items_beyond_the_limit_count_once_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their pieces are deltas; their complete texts are not read, and the reply is marked as truncated."""
    monkeypatch.setattr(responses_progress, "MAX_ITEMS", 2)
    messages = [message(f"<{number}>", index=number) for number in range(4)]
    frames = [text(f"<{number}>", index=number) for number in range(4)]
    reply = reply_of(*frames, *map(done, messages), ended("completed", *messages))
    assert (reply.text(), reply.truncated, reply.terminated) == ("<0><1><2><3>", True, True)


def test_parts_beyond_the_limit_count_once_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for the parts of one message."""
    monkeypatch.setattr(responses_progress, "MAX_PARTS", 1)
    reply = reply_of(
        text("a"), text("b", content=1), done(message("a", "b")), ended("completed", message("a", "b"))
    )
    assert (reply.text(), reply.truncated) == ("ab", True)


def test_a_complete_output_is_matched_in_linear_time() -> None:
    """Ten thousand items without ids are matched by place or type."""
    items = OutputItems()
    output = [{"type": "message"} for _ in range(10_000)]
    first = items.matched(output)
    assert [item.number for item in first] == list(range(10_000))
    assert items.matched(output[::-1]) == first


def test_items_are_matched_by_id_then_place_then_type() -> None:
    """The order of the output may differ from the numbers in the events."""
    items = OutputItems()
    announced = [items.announced({"output_index": number}, fields) for number, fields in enumerate((
        function_call(index=7), {"type": "message", "id": "m"}, {"type": "reasoning", "id": "r"}))]  # fmt: skip
    output = [
        {"type": "message", "id": "other"},
        {"type": "reasoning", "id": "r"},
        function_call(index=7),
        {"type": "new"},
    ]
    found = items.matched(output)
    assert found[:3] == [announced[1], announced[2], announced[0]]
    assert (found[3].number, items.matched(output)[3]) == (3, found[3])
