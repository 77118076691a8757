"""Chat completions as Azure sends them: OpenAI's, with the results of Azure's content filters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from recorder.testing.openai_chat import DONE

#: The filters' result for a text without findings.
SAFE = {
    category: {"filtered": False, "severity": "safe"}
    for category in ("hate", "self_harm", "sexual", "violence")
}
_PROMPT = [{"prompt_index": 0, "content_filter_results": SAFE}]


def azure_chat_frames(frames: Iterable[bytes]) -> list[bytes]:
    """OpenAI's frames in Azure's form.

    The first event holds the filters' result for the prompt; its choices, id and model are empty. In the other events
    each choice has the result for its piece. All keys are sorted.
    """
    prompt_event = {
        "choices": [],
        "created": 0,
        "id": "",
        "model": "",
        "object": "",
        "prompt_filter_results": _PROMPT,
    }
    return [_frame(prompt_event), *(frame if frame == DONE else _frame(_filtered(frame)) for frame in frames)]


def azure_chat_body(body: bytes) -> bytes:
    """OpenAI's response that is not streamed, in Azure's form."""
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
