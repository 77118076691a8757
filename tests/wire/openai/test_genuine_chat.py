"""Every chat stream that real providers sent, through the model into a database file, beside the bare SDK."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest

from recorder.testing import Answer, LoopbackProvider
from tests.chatting import ASK, ROADS, Recorded, Road, chat, history_at, name_of, recorded, sdk
from tests.genuine import Stream, chat_streams
from tests.oracle import sql

STREAMS = [stream for stream in chat_streams() if stream.status == 200]
each = pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
both = pytest.mark.parametrize("road", ROADS, ids=name_of)


@dataclass(slots=True)
class Heard:
    """What the SDK's own parser makes of a stream, added up."""

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
        """One event."""
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
        kept = self.calls.setdefault(call.index, ["", "", ""])
        kept[0] = kept[0] or call.id or ""
        kept[1] = kept[1] or (call.function.name or "")
        kept[2] += call.function.arguments or ""


def by_the_sdk(provider: LoopbackProvider) -> Heard:
    """The stream as the bare SDK reads it."""
    heard = Heard()
    try:
        for chunk in sdk(provider).chat.completions.create(**ASK):
            heard.add(chunk)
    except openai.APIError as error:
        heard.error = error
    return heard


def joined(found: Recorded, url: str, kind: str) -> dict[str, str]:
    """The tokens of a kind by their place, joined."""
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
def test_a_genuine_stream_is_recorded(stream: Stream, road: Road, database: str) -> None:
    """Text, thoughts, calls, usage and what describes the response, as the SDK gives them; the frames byte for byte."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    answer = Answer(frames=[stream.body], chunks=[chance.randrange(1, 900) for _ in range(50)])
    error: openai.APIError | None = None
    with LoopbackProvider(answer) as provider, history_at(database) as history:
        heard = by_the_sdk(provider)
        try:
            road.stream(chat(provider, callbacks=[history]), "Hi")
        except openai.APIError as raised:
            error = raised
    found = recorded(database)
    run = found.run

    assert str(error) == str(heard.error)
    assert joined(found, database, "text").get("0", "") == heard.text
    assert joined(found, database, "reasoning").get("0", "") == heard.reasoning
    arguments = {f"0.{index}": call[2] for index, call in heard.calls.items() if call[2]}
    assert joined(found, database, "tool_args") == arguments
    assert (run["response_id"], run["response_model"]) == (heard.id, heard.model)
    assert run["finish_reason"] == heard.finish_reason
    if heard.error is None:  # an error's event may carry usage, which the SDK does not get to
        assert_usage(run, heard.usage)
    if heard.text or heard.calls:
        assert_reply(found, database, heard)
    assert_sealed(found, stream.body)
    expected = "error" if heard.error else "incomplete" if heard.finish_reason == "length" else "complete"
    assert run["status"] == expected


def assert_usage(run: dict[str, Any], usage: Any) -> None:
    """The run's row counts what the provider counted."""
    counted = (run["input_tokens"], run["output_tokens"], run["total_tokens"])
    if usage is None:
        assert counted == (None, None, None)
        assert run["usage_source"] == "none"
    else:
        assert counted == tuple(usage[f"{name}_tokens"] for name in ("prompt", "completion", "total"))
        assert run["usage_source"] == "provider"


def assert_reply(found: Recorded, url: str, heard: Heard) -> None:
    """The transcript's last message."""
    assert found.transcript == [("user", "Hi"), ("assistant", heard.text)]
    ((parts,),) = sql(url, "SELECT parts FROM messages WHERE role = 'assistant'")
    reply = json.loads(parts or "{}")
    calls = [*reply.get("tool_calls", []), *reply.get("invalid_tool_calls", [])]
    assert [[call["id"], call["name"]] for call in calls] == [call[:2] for call in heard.calls.values()]


def assert_sealed(found: Recorded, body: bytes) -> None:
    """The seal verifies, and the frames are the body; after an error event the rest was not read."""
    run = found.run
    if run["status"] == "error":
        assert body.startswith(found.body)
        assert b'"error"' in found.body
    else:
        assert found.body == body
    assert run["frames_sha256"] == hashlib.sha256(found.body).hexdigest()
    assert run["sha256"] == found.tokens.found_sha256
    assert run["token_count"] == len(found.tokens.texts)


def test_there_are_genuine_streams(streams: list[Stream]) -> None:
    """The stories above are not empty where the folder is there."""
    assert len(STREAMS) > 30
    assert {stream.provider for stream in STREAMS} >= {"openai", "groq", "deepseek", "openrouter", "zai"}
