"""Chat completions as Azure serves them: OpenAI's, with what its content filters say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from recorder.testing.openai_chat import DONE

#: What the filters say of a text that they let through.
SAFE = {
    category: {"filtered": False, "severity": "safe"}
    for category in ("hate", "self_harm", "sexual", "violence")
}
_PROMPT = [{"prompt_index": 0, "content_filter_results": SAFE}]


def azure_chat_frames(frames: Iterable[bytes]) -> list[bytes]:
    """The frames of OpenAI's stream with those of Azure's filters.

    First an event without choices, id and model, about the prompt; then the events with sorted keys, where each
    choice says what was found in its piece.
    """
    about = {
        "choices": [],
        "created": 0,
        "id": "",
        "model": "",
        "object": "",
        "prompt_filter_results": _PROMPT,
    }
    return [_frame(about), *(frame if frame == DONE else _frame(_filtered(frame)) for frame in frames)]


def azure_chat_body(body: bytes) -> bytes:
    """The same of a whole answer."""
    answer = orjson.loads(body)
    answer.pop("service_tier", None)
    for choice in answer["choices"]:
        choice["content_filter_results"] = SAFE
    return orjson.dumps({**answer, "prompt_filter_results": _PROMPT}, option=orjson.OPT_SORT_KEYS)


def _filtered(frame: bytes) -> dict[str, Any]:
    event: dict[str, Any] = orjson.loads(frame.removeprefix(b"data: "))
    event.pop("service_tier", None)
    event.pop("obfuscation", None)
    for choice in event["choices"]:
        choice["content_filter_results"] = SAFE if choice["delta"].get("content") else {}
    return event


def _frame(event: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(event, option=orjson.OPT_SORT_KEYS) + b"\n\n"
