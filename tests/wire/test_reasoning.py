"""Reasoning beside tool calls is sent back to the host that it came from, in its original fields, and to no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recorder.messages import AIMessage, HumanMessage, ToolMessage, from_any, from_dict, to_dict
from recorder.models import AzureChatOpenAI
from recorder.replay import Replay
from recorder.testing import Answer, LoopbackProvider
from recorder.wire.reasoning import origin_of
from tests.chatting import CALL_STYLES, CallStyle, chat, history_at, name_of
from tests.wires import DONE, calls, delta

both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)

CALL = {"index": 0, "id": "a", "name": "find", "arguments": "{}"}
CALLED = calls(CALL) + delta(finish_reason="tool_calls") + DONE
DETAILS = [
    {"type": "reasoning.text", "text": "Hm", "format": "anthropic-claude-v1", "index": 0, "signature": "S"},
    {"type": "reasoning.encrypted", "data": "QQ==", "index": 1},
]
BLOCK = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}

#: Deltas of reasoning, and the fields that are sent back.
THOUGHTS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "DeepSeek, Kimi": ([{"reasoning_content": "H"}, {"reasoning_content": "m"}], {"reasoning_content": "Hm"}),
    "Groq, Cerebras": ([{"reasoning": "Hm"}], {"reasoning": "Hm"}),
    "vLLM": (
        [{"reasoning": "Hm", "reasoning_content": "Hm"}],
        {"reasoning": "Hm", "reasoning_content": "Hm"},
    ),
    "Copilot": ([{"reasoning_text": "Hm"}], {"reasoning_text": "Hm"}),
    "another name": ([{"thinking": "H"}, {"thinking": "m"}], {"thinking": "Hm"}),
    "OpenRouter": (
        [{"reasoning": "Hm", "reasoning_details": [{**DETAILS[0], "signature": None}]},
         {"reasoning_details": [{"index": 0, "signature": "S"}]}, {"reasoning_details": [DETAILS[1]]}],
        {"reasoning": "Hm", "reasoning_details": DETAILS},
    ),
    "MiniMax": ([{"reasoning_details": [DETAILS[0]]}], {"reasoning_details": [DETAILS[0]]}),
    "Mistral": ([{"content": [BLOCK]}, {"content": "So"}], {"content": [BLOCK, {"type": "text", "text": "So"}]}),
    "Mistral without a text": ([{"content": [BLOCK]}], {"content": [BLOCK]}),
}  # fmt: skip
kinds = pytest.mark.parametrize(("deltas", "expected"), THOUGHTS.values(), ids=THOUGHTS)


def resent_fields(provider: LoopbackProvider, answer: Any, model: Any = None) -> dict[str, Any]:
    """Send the reply in another request, and return its fields there without those that every reply has."""
    results = [ToolMessage("1", tool_call_id="a")] if answer.tool_calls else []
    (model or chat(provider)).invoke([HumanMessage("Hi"), answer, *results], stream=True)
    (sent,) = [each for each in provider.requests[-1]["body"]["messages"] if each["role"] == "assistant"]
    return {key: sent[key] for key in sent if key not in ("role", "tool_calls") and sent[key] is not None}


def body_of(deltas: list[dict[str, Any]]) -> bytes:
    """Return a stream of this reasoning and a tool call."""
    return b"".join(delta(**each) for each in deltas) + CALLED


@both
@kinds
def test_reasoning_is_sent_back_in_its_original_fields(
    deltas: list[dict[str, Any]], expected: dict[str, Any], style: CallStyle, tmp_path: Path
) -> None:
    """This holds for the answer, the sum of its chunks, and the stored reply; its tokens have the kind `reasoning`."""
    with LoopbackProvider(Answer(frames=[body_of(deltas)])) as provider:
        with history_at(tmp_path, conversation_id="c") as history:
            model = chat(provider, callbacks=[history])
            chunks = style.stream(model, "Hi")
        total = chunks[0] + chunks[1:]
        with Replay(f"sqlite:///{tmp_path / 'history.db'}") as replay:
            stored = replay.messages("c")[1]
            tokens = "".join(
                chunk.additional_kwargs.get("reasoning_content", "") for chunk in replay.stream()
            )
        answer = style.invoke(chat(provider, streaming=True), "Hi")
        for each in (total, stored, answer, from_dict(to_dict(answer)), from_any(total)):
            assert resent_fields(provider, each) == expected
    assert tokens == total.additional_kwargs["reasoning_content"] == "Hm"


@both
def test_reasoning_of_a_complete_response_is_sent_back(style: CallStyle) -> None:
    """The answer was not streamed."""
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "reasoning_content": "Hm", "tool_calls": [call]}
    body = {"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    unstreamed = Answer(body=json.dumps(body).encode(), headers={"content-type": "application/json"})
    with LoopbackProvider(
        lambda payload, path: Answer(frames=[CALLED]) if payload.get("stream") else unstreamed
    ) as provider:
        assert resent_fields(provider, style.invoke(chat(provider), "Hi")) == {"reasoning_content": "Hm"}


@kinds
def test_reasoning_is_not_sent_to_another_host(
    deltas: list[dict[str, Any]], expected: dict[str, Any]
) -> None:
    """OpenAI, Groq and Mistral refuse unknown fields, so that only text and calls are sent."""
    extra = calls({**CALL, "extra_content": {"google": {"thought_signature": "U0lH"}}})
    with LoopbackProvider(Answer(frames=[body_of(deltas)[: -len(CALLED)] + extra + CALLED])) as one:
        answer = chat(one).invoke("Hi", stream=True)
    text = {"content": answer.text} if answer.text else {}
    with LoopbackProvider(Answer(frames=[CALLED])) as another:
        assert resent_fields(another, answer) == text
        azure = AzureChatOpenAI(
            azure_endpoint=another.url, api_version="1", api_key="k", azure_deployment="d", max_retries=0
        )
        assert resent_fields(another, answer, azure) == text
        (sent,) = another.requests[-1]["body"]["messages"][1]["tool_calls"]
        assert sent == {"id": "a", "type": "function", "function": {"name": "find", "arguments": "{}"}}


def test_reasoning_without_tool_calls_is_not_sent_back() -> None:
    """DeepSeek ignores it then, and refused it in the past."""
    body = delta(reasoning_content="Hm") + delta(content="So") + delta(finish_reason="stop") + DONE
    with LoopbackProvider(Answer(frames=[body])) as provider:
        answer = chat(provider).invoke("Hi", stream=True)
        assert "origin" not in answer.response_metadata
        assert resent_fields(provider, answer) == {"content": "So"}


def test_reasoning_of_an_unknown_origin_is_not_sent() -> None:
    """Additional fields of its calls are sent."""
    call = {"name": "find", "args": {}, "id": "a", "extras": {"extra_content": {"k": 1}}}
    answer = AIMessage("", additional_kwargs={"reasoning_content": "Hm"}, tool_calls=[call])
    with LoopbackProvider(Answer(frames=[CALLED])) as provider:
        assert resent_fields(provider, answer) == {}
        assert provider.requests[-1]["body"]["messages"][1]["tool_calls"][0]["extra_content"] == {"k": 1}


def test_reasoning_in_a_dict_of_the_apis_form_is_sent() -> None:
    """The application has written the field itself."""
    sent = {"role": "assistant", "content": "", "reasoning_content": "Hm"}
    with LoopbackProvider(Answer(frames=[CALLED])) as provider:
        chat(provider).invoke([{"role": "user", "content": "Hi"}, sent], stream=True)
        assert provider.requests[-1]["body"]["messages"][1] == sent


def test_each_choice_sends_back_its_own_reasoning() -> None:
    """One of two replies has reasoning."""
    body = delta(index=1, reasoning="Hm") + calls(CALL) + calls(CALL, index=1) + DONE
    with LoopbackProvider(Answer(frames=[body])) as provider:
        (result,) = chat(provider, streaming=True).generate(["Hi"], n=2).generations
        sent = [resent_fields(provider, each.message) for each in result]  # type: ignore[attr-defined]
    assert sent == [{}, {"reasoning": "Hm"}]


@pytest.mark.parametrize(
    "origin", [None, "x", {}, {"host": 7}, {"host": None, "reasoning_fields": ["reasoning"]},
               {"host": "HOST", "reasoning_fields": 7}, {"host": "HOST", "reasoning_fields": [["role"], "role"]}],
)  # fmt: skip
def test_an_invalid_origin_sends_no_field(origin: Any) -> None:
    """A stored message may have been changed; only fields of reasoning are sent."""
    with LoopbackProvider(Answer(frames=[CALLED])) as provider:
        if isinstance(origin, dict) and origin.get("host") == "HOST":
            origin = {**origin, "host": provider.url.removeprefix("http://")}
        answer = AIMessage(
            "", tool_calls=[{"name": "f", "args": {}, "id": "a"}],
            additional_kwargs={"reasoning_content": "Hm"}, response_metadata={"origin": origin},
        )  # fmt: skip
        assert resent_fields(provider, answer) == {}


def test_a_reply_has_an_origin_only_if_something_must_be_sent_back() -> None:
    """That is reasoning beside calls, or additional fields of a call."""
    call = [{"id": "a"}]
    assert origin_of("h", ["reasoning"], call) == {"origin": {"host": "h", "reasoning_fields": ["reasoning"]}}
    assert origin_of("h", [], [{"id": "a", "extras": {"k": 1}}]) == {"origin": {"host": "h"}}
    assert (
        origin_of("h", ["reasoning"], [])
        == origin_of("h", [], call)
        == origin_of(None, ["reasoning"], call)
        == {}
    )
