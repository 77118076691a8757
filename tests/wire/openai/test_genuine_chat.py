"""Genuine chat streams are recorded through the model, and equal what the bare SDK reads."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest

from recorder.testing import Answer, LoopbackProvider
from tests.chatting import ASK, CALL_STYLES, CallStyle, Recorded, chat, history_at, name_of, recorded, sdk
from tests.genuine import Stream, chat_streams
from tests.oracle import sql

STREAMS = [stream for stream in chat_streams() if stream.status == 200]
each = pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
both = pytest.mark.parametrize("style", CALL_STYLES, ids=name_of)


@dataclass(slots=True)
class SdkAnswer:
    """The sum of the SDK's chunks of a stream."""

    text: str = ""
    reasoning: str = ""
    #: index -> [id, name, arguments]
    calls: dict[int, list[str]] = field(default_factory=dict)
    usage: Any = None
    id: str | None = None
    model: str | None = None
    finish_reason: str | None = None
    error: openai.APIError | None = None

    def add(self, chunk: Any) -> None:
        """Add one chunk."""
        self.id, self.model = self.id or chunk.id, chunk.model
        extra = chunk.model_extra or {}
        self.usage = (
            chunk.usage.model_dump() if chunk.usage else (extra.get("x_groq") or {}).get("usage", self.usage)
        )
        for choice in chunk.choices[:1]:
            self.text += choice.delta.content or ""
            more = choice.delta.model_extra or {}
            self.reasoning += more.get("reasoning_content") or more.get("reasoning") or ""
            self.finish_reason = choice.finish_reason or self.finish_reason
            for call in choice.delta.tool_calls or ():
                self._add_call(call)

    def _add_call(self, call: Any) -> None:
        known = self.calls.setdefault(call.index, ["", "", ""])
        known[0] = known[0] or call.id or ""
        known[1] = known[1] or (call.function.name or "")
        known[2] += call.function.arguments or ""


def by_the_sdk(provider: LoopbackProvider) -> SdkAnswer:
    """Return the stream as the bare SDK reads it."""
    sdk_answer = SdkAnswer()
    try:
        for chunk in sdk(provider).chat.completions.create(**ASK):
            sdk_answer.add(chunk)
    except openai.APIError as error:
        sdk_answer.error = error
    return sdk_answer


def joined(found: Recorded, url: str, kind: str) -> dict[str, str]:
    """Join the tokens of a kind, by their idx."""
    rows = sql(
        url, "SELECT idx, text FROM tokens WHERE run_id = ? AND kind = ? ORDER BY seq", found.run["id"], kind
    )
    texts: dict[str, str] = {}
    for idx, text in rows:
        texts[idx] = texts.get(idx, "") + text
    return texts


@pytest.mark.matrix
@both
@each
def test_a_genuine_chat_stream_is_recorded(stream: Stream, style: CallStyle, database: str) -> None:
    """Text, reasoning, calls, usage and metadata equal the SDK's, and the frames are stored byte for byte."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    answer = Answer(frames=[stream.body], chunks=[chance.randrange(1, 900) for _ in range(50)])
    error: openai.APIError | None = None
    with LoopbackProvider(answer) as provider, history_at(database) as history:
        sdk_answer = by_the_sdk(provider)
        try:
            style.stream(chat(provider, callbacks=[history]), "Hi")
        except openai.APIError as raised:
            error = raised
    found = recorded(database)
    run = found.run

    assert str(error) == str(sdk_answer.error)
    assert joined(found, database, "text").get("0", "") == sdk_answer.text
    assert joined(found, database, "reasoning").get("0", "") == sdk_answer.reasoning
    arguments = {f"0.{index}": call[2] for index, call in sdk_answer.calls.items() if call[2]}
    assert joined(found, database, "tool_args") == arguments
    assert (run["response_id"], run["response_model"]) == (sdk_answer.id, sdk_answer.model)
    assert run["finish_reason"] == sdk_answer.finish_reason
    if sdk_answer.error is None:  # the SDK does not return the usage of an error event
        assert_usage(run, sdk_answer.usage)
    if sdk_answer.text or sdk_answer.calls:
        assert_reply(found, database, sdk_answer)
    assert_sealed(found, stream.body)
    expected = (
        "error" if sdk_answer.error else "incomplete" if sdk_answer.finish_reason == "length" else "complete"
    )
    assert run["status"] == expected


def assert_usage(run: dict[str, Any], usage: Any) -> None:
    """Assert that the run's row has the provider's counts."""
    counted = (run["input_tokens"], run["output_tokens"], run["total_tokens"])
    if usage is None:
        assert counted == (None, None, None)
        assert run["usage_source"] == "none"
    else:
        assert counted == tuple(usage[f"{name}_tokens"] for name in ("prompt", "completion", "total"))
        assert run["usage_source"] == "provider"


def assert_reply(found: Recorded, url: str, sdk_answer: SdkAnswer) -> None:
    """Assert that the stored reply has the text and the calls."""
    assert found.transcript == [("user", "Hi"), ("assistant", sdk_answer.text)]
    ((parts,),) = sql(url, "SELECT parts FROM messages WHERE role = 'assistant'")
    reply = json.loads(parts or "{}")
    calls = [*reply.get("tool_calls", []), *reply.get("invalid_tool_calls", [])]
    assert [[call["id"], call["name"]] for call in calls] == [call[:2] for call in sdk_answer.calls.values()]


def assert_sealed(found: Recorded, body: bytes) -> None:
    """Assert that the seal matches and the frames are the body; after an error event nothing more is read."""
    run = found.run
    if run["status"] == "error":
        assert body.startswith(found.body)
        assert b'"error"' in found.body
    else:
        assert found.body == body
    assert run["frames_sha256"] == hashlib.sha256(found.body).hexdigest()
    assert run["sha256"] == found.tokens.found_sha256
    assert run["token_count"] == len(found.tokens.texts)


def test_there_are_genuine_chat_streams(streams: list[Stream]) -> None:
    """Otherwise the tests above would check little."""
    assert len(STREAMS) > 30
    assert {stream.provider for stream in STREAMS} >= {"openai", "groq", "deepseek", "openrouter", "zai"}
