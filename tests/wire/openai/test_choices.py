"""An answer that was requested once is one answer, even if a server numbers its blocks as choices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recorder.messages import HumanMessage
from recorder.models import OpenAI
from recorder.replay import Replay
from recorder.testing import Answer, LoopbackProvider
from recorder.wire.openai.choices import requested_choices
from tests.alike import assert_alike, forms_of
from tests.alike import openai as chat
from tests.chatting import CALL_STYLES, CallStyle, Log, history_at, name_of, recorded
from tests.wires import DONE, calls, delta, event

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)

THOUGHT = delta(role="assistant", content=None, reasoning_content="Hm")
CALL = {"index": 0, "id": "a", "name": "f", "arguments": "{}"}

#: Streams of one answer, whose pieces have different choice indexes.
ONE = {
    "reasoning and text": THOUGHT + delta(content="Hello", index=1) + delta(content=" there", index=1)
    + delta(finish_reason="tool_calls", index=1),
    "from one on": delta(content="Hello", index=1, role="assistant") + delta(content=" there", index=1)
    + delta(finish_reason="tool_calls", index=1),
    "the end at the first": THOUGHT + delta(content="Hello there", index=1) + delta(finish_reason="tool_calls"),
    "the end at another": delta(content="Hello there") + delta(finish_reason="tool_calls", index=3),
    "a negative number": delta(content="Hello there", index=-1, finish_reason="tool_calls"),
}  # fmt: skip


@both
@pytest.mark.parametrize("body", ONE.values(), ids=ONE)
def test_blocks_numbered_as_choices_are_one_answer(body: bytes, style: CallStyle, tmp_path: Path) -> None:
    """Only one answer was requested, so that the application gets the text of all indexes."""
    found = forms_of(chat, body + DONE, style, tmp_path)
    assert (found.live.text, found.end[:2]) == ("Hello there", ("complete", "tool_calls"))
    assert {idx for _, idx, _ in found.tokens} == {"0"}
    assert_alike(found)


@both
def test_tool_calls_in_choices_of_their_own_are_one_answer(style: CallStyle, tmp_path: Path) -> None:
    """Reasoning, text and two calls each have another index."""
    body = (
        THOUGHT + delta(content="Hello", index=1) + calls(CALL, index=2) + calls({**CALL, "id": "b"}, index=3)
    )
    found = forms_of(chat, body + delta(finish_reason="tool_calls", index=3) + DONE, style, tmp_path)
    assert [call["id"] for call in found.live.tool_calls] == ["a", "b"]
    assert (found.live.text, found.run["finish_reason"]) == ("Hello", "tool_calls")
    assert_alike(found)


@both
@pytest.mark.parametrize("options", [{}, {"n": 2}, {"extra_body": {"n": 2}}], ids=str)
def test_two_requested_answers_are_two_generations(
    options: dict[str, Any], style: CallStyle, tmp_path: Path
) -> None:
    """They were requested, or both have text; the status is that of the worse one."""
    body = delta(role="assistant", content="a") + delta(role="assistant", content="b", index=1)
    body += delta(content="c") + delta(content="d", index=1)
    body += delta(finish_reason="stop") + delta(finish_reason="length", index=1)
    with LoopbackProvider(Answer(frames=[body + DONE])) as provider, history_at(tmp_path) as history:
        (result,) = style.generate(
            chat(provider, callbacks=[history], **options), [["Hi"]], stream=True
        ).generations
    assert [each.text for each in result] == ["ac", "bd"]
    run = recorded(f"sqlite:///{tmp_path / 'history.db'}").run
    assert (run["status"], run["finish_reason"]) == ("incomplete", "stop")


@both
def test_a_completion_with_index_1_is_the_only_answer(style: CallStyle) -> None:
    """Some servers count from one."""
    body = event({"choices": [{"index": 1, "text": "Hello", "finish_reason": "stop"}]})
    with LoopbackProvider(Answer(frames=[body + DONE])) as provider:
        model = OpenAI("m", base_url=provider.base_url, api_key="any", max_retries=0)
        assert style.invoke(model, "Hi", stream=True) == "Hello"


def test_a_replay_into_handlers_reads_choices_by_the_recorded_request(tmp_path: Path) -> None:
    """The handlers receive the same tokens as live."""
    with (
        LoopbackProvider(Answer(frames=[ONE["reasoning and text"] + DONE])) as provider,
        history_at(tmp_path, conversation_id="c") as history,
    ):
        chat(provider, callbacks=[history]).invoke([HumanMessage("Hi")], stream=True)
    log = Log()
    with Replay(f"sqlite:///{tmp_path / 'history.db'}") as replay:
        replay.into([log], speed=None)
    assert "".join(log.tokens) == "Hello there"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, 1),
        ({"n": None}, 1),
        ({"n": 3}, 3),
        ({"n": "x"}, 1),
        ({"n": 1, "extra_body": {"n": 4}}, 4),
        (None, None),
    ],
    ids=str,
)
def test_the_number_of_requested_choices_is_read_from_the_request(body: Any, expected: int | None) -> None:
    """It is one by default, and None for an unknown request."""
    assert requested_choices(body) == expected
