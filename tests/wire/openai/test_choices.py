"""One answer that was asked for is one, however its blocks are numbered; several that were asked for are several."""

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
from tests.chatting import ROADS, Log, Road, history_at, name_of, recorded
from tests.wires import DONE, calls, delta, event

both = pytest.mark.parametrize("road", ROADS, ids=name_of)

THOUGHT = delta(role="assistant", content=None, reasoning_content="Hm")
CALL = {"index": 0, "id": "a", "name": "f", "arguments": "{}"}

#: Streams of one answer, whose pieces are numbered as if they were several.
ONE = {
    "thoughts and text": THOUGHT + delta(content="Hello", index=1) + delta(content=" there", index=1)
    + delta(finish_reason="tool_calls", index=1),
    "from one on": delta(content="Hello", index=1, role="assistant") + delta(content=" there", index=1)
    + delta(finish_reason="tool_calls", index=1),
    "the end at the first": THOUGHT + delta(content="Hello there", index=1) + delta(finish_reason="tool_calls"),
    "the end at another": delta(content="Hello there") + delta(finish_reason="tool_calls", index=3),
    "a negative number": delta(content="Hello there", index=-1, finish_reason="tool_calls"),
}  # fmt: skip


@both
@pytest.mark.parametrize("body", ONE.values(), ids=ONE)
def test_blocks_numbered_as_choices_are_one_answer(body: bytes, road: Road, tmp_path: Path) -> None:
    """What nobody asked for is no second answer: the application gets the text."""
    found = forms_of(chat, body + DONE, road, tmp_path)
    assert (found.heard.text, found.end[:2]) == ("Hello there", ("complete", "tool_calls"))
    assert {idx for _, idx, _ in found.tokens} == {"0"}
    assert_alike(found)


@both
def test_calls_in_choices_of_their_own(road: Road, tmp_path: Path) -> None:
    """Thoughts, text, and two calls, each with the number of its block."""
    body = (
        THOUGHT + delta(content="Hello", index=1) + calls(CALL, index=2) + calls({**CALL, "id": "b"}, index=3)
    )
    found = forms_of(chat, body + delta(finish_reason="tool_calls", index=3) + DONE, road, tmp_path)
    assert [call["id"] for call in found.heard.tool_calls] == ["a", "b"]
    assert (found.heard.text, found.run["finish_reason"]) == ("Hello", "tool_calls")
    assert_alike(found)


@both
@pytest.mark.parametrize("options", [{}, {"n": 2}, {"extra_body": {"n": 2}}], ids=str)
def test_two_answers_stay_two(options: dict[str, Any], road: Road, tmp_path: Path) -> None:
    """Asked for, or both with text: what the application hears is the first."""
    body = delta(role="assistant", content="a") + delta(role="assistant", content="b", index=1)
    body += delta(content="c") + delta(content="d", index=1)
    body += delta(finish_reason="stop") + delta(finish_reason="length", index=1)
    with LoopbackProvider(Answer(frames=[body + DONE])) as provider, history_at(tmp_path) as history:
        (result,) = road.generate(
            chat(provider, callbacks=[history], **options), [["Hi"]], stream=True
        ).generations
    assert [each.text for each in result] == ["ac", "bd"]
    run = recorded(f"sqlite:///{tmp_path / 'history.db'}").run
    assert (run["status"], run["finish_reason"]) == ("incomplete", "stop")


@both
def test_legacy_completions(road: Road) -> None:
    """A server that counts from one."""
    body = event({"choices": [{"index": 1, "text": "Hello", "finish_reason": "stop"}]})
    with LoopbackProvider(Answer(frames=[body + DONE])) as provider:
        model = OpenAI("m", base_url=provider.base_url, api_key="any", max_retries=0)
        assert road.invoke(model, "Hi", stream=True) == "Hello"


def test_handlers_of_a_replay_are_told_the_same(tmp_path: Path) -> None:
    """Its frames are read as the run's request had them read."""
    with (
        LoopbackProvider(Answer(frames=[ONE["thoughts and text"] + DONE])) as provider,
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
def test_how_many_were_asked_for(body: Any, expected: int | None) -> None:
    """One, unless the request says another number; of a request that is not known nobody can say."""
    assert requested_choices(body) == expected
