"""The fields that providers of OpenAI's chat format use for reasoning, and how reasoning is sent back to them.

A reply that calls tools is sent again with the results. Some providers refuse that request unless the reasoning of the
reply is in the field in which they sent it; others refuse every field that they do not know. Each provider accepts the
fields that it sent itself. So reasoning is sent back in the same fields, only to the same host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recorder.messages import AIMessage

#: Fields of a delta or a message with reasoning text, used by: DeepSeek, Kimi, Z.ai; OpenRouter, Groq, Cerebras, newer
#: vLLM; GitHub Copilot; smaller servers (the last three). If two fields hold the same text, the first one counts.
FIELDS = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "thought", "thoughts")
#: The field with the parts of the reasoning, with signatures and encrypted data: OpenRouter, MiniMax.
DETAILS = "reasoning_details"
#: The field with reasoning as blocks of the content: Mistral.
IN_CONTENT = "content"
#: The key of `response_metadata` with the host that sent a reply, and the fields of its reasoning.
ORIGIN = "origin"


def origin_of(
    host: str | None, fields: Sequence[str], calls: Sequence[Mapping[str, Any]], more: Mapping[str, Any] | None = None
) -> dict[str, Any]:  # fmt: skip
    """The `response_metadata` of a reply's origin; empty unless the reply has something to send back to its host.

    `more` is what its format wants back beside reasoning and calls.
    """
    has_reasoning = bool(calls) and bool(fields or any(call.get("extras") for call in calls))
    if host is None or not (has_reasoning or more):
        return {}
    return {ORIGIN: {"host": host, **({"reasoning_fields": list(fields)} if fields else {}), **(more or {})}}


def origin_field(message: AIMessage, key: str) -> Any:
    """What its provider wants back with a reply, under this key; None if there is nothing."""
    origin = message.response_metadata.get(ORIGIN)
    return origin.get(key) if isinstance(origin, Mapping) else None


def host_of(message: AIMessage) -> str | None:
    """The host that sent a reply; None if it is not known."""
    host = origin_field(message, "host")
    return host if isinstance(host, str) else None


def fields_of(message: AIMessage) -> dict[str, Any]:
    """The reasoning of a reply in its original fields; reasoning from blocks of the content is under `content`."""
    more, names = message.additional_kwargs, origin_field(message, "reasoning_fields")
    found: dict[str, Any] = {}
    for name in names if isinstance(names, list) else ():
        if name in FIELDS and more.get(FIELDS[0]):
            found[name] = more[FIELDS[0]]
        elif name == DETAILS and more.get(DETAILS):
            found[name] = more[DETAILS]
        elif name == IN_CONTENT and more.get(FIELDS[0]):
            found[name] = [_block(more[FIELDS[0]])]
    return found


def texts_of(details: Sequence[Any]) -> list[str]:
    """The texts and summaries in the parts of `reasoning_details`."""
    texts = [part.get("text") or part.get("summary") for part in details if isinstance(part, Mapping)]
    return [text for text in texts if isinstance(text, str) and text]


def _block(text: str) -> dict[str, Any]:
    """Reasoning as a block of the content."""
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}
